"""GPU memory: spans of buffers as tensor planes, and a pool that hands the buffers of dropped tensors to new ones.

All work of a device is one ordered stream, so a buffer may be reused as soon as the last tensor over it is dropped: the
ops issued before still read it first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

from omni_rt.devices.ledger import Ledger

SERIALS = count()
"""Numbers that tell buffers apart for as long as the process lives; addresses are used again."""

ALIGNMENT = 16
"""Sizes are rounded up to this many bytes, so that kernels may bind any plane as an array of vec4."""


def round_up(size: int, multiple: int) -> int:
    """Return the next multiple that is not below `size`."""
    return -(-size // multiple) * multiple


def size_class(size: int) -> int:
    """Return the buffer size that serves `size` bytes: at most a quarter above it, few distinct values."""
    if size <= 1024:
        return 256 if size <= 256 else 1024
    step = 1 << (size.bit_length() - 3)
    return round_up(size, step)


def words(plane: np.ndarray) -> np.ndarray:
    """Return the bytes of a plane, uint8, padded to whole 32-bit words."""
    flat = np.ascontiguousarray(plane).reshape(-1).view(np.uint8)
    return flat if flat.size % 4 == 0 else np.concatenate([flat, np.zeros(-flat.size % 4, np.uint8)])


class Block:
    """A GPU buffer; when the last span over it is dropped it returns to its pool, or its bytes to the ledger."""

    __slots__ = ("__weakref__", "buffer", "pool", "purpose", "serial", "size")

    def __init__(self, buffer: Any, serial: int, size: int, purpose: str, pool: Pool) -> None:
        self.buffer = buffer
        self.serial = serial
        self.size = size
        self.purpose = purpose
        self.pool = pool

    def __del__(self) -> None:
        self.pool.release(self)


class Span:
    """A plane: `size` bytes of a block from byte `offset` on."""

    __slots__ = ("block", "offset", "size")

    def __init__(self, block: Block, offset: int, size: int) -> None:
        self.block = block
        self.offset = offset
        self.size = size


class Pool:
    """Buffers for activations, by size class, and the accounts of those made for weights and state."""

    def __init__(self, create: Callable[[int], Any], ledger: Ledger) -> None:
        self._create = create
        self._ledger = ledger
        # Heaps by age: work that repeats then finds the same buffers each time, and so its bind groups.
        self._free: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        # Every buffer, in use or free: a block in a reference cycle is collected together with what only it refers to,
        # and the buffer would be released before the block returns it here.
        self._kept: dict[int, Any] = {}
        self.closed = False

    def acquire(self, size: int) -> Block:
        """Return a block of at least `size` bytes for an activation; its content is undefined."""
        wanted = size_class(size)
        free = self._free[wanted]
        if free:
            serial, buffer = heappop(free)
        else:
            self._ledger.take("activations", wanted)
            buffer, serial = self._create(wanted), next(SERIALS)
            self._kept[serial] = buffer
        return Block(buffer, serial, wanted, "activations", self)

    def adopt(self, buffer: Any, size: int, purpose: str) -> Block:
        """Return a block over a buffer made for weights or state, whose bytes the ledger already holds."""
        return Block(buffer, next(SERIALS), size, purpose, self)

    def release(self, block: Block) -> None:
        """Take a block back: activations are kept for reuse, the rest is freed."""
        if self.closed:
            return
        if block.purpose == "activations":
            heappush(self._free[block.size], (block.serial, block.buffer))
        else:
            self._ledger.give(block.purpose, block.size)

    def close(self) -> None:
        """Drop the free buffers and stop taking blocks back."""
        self.closed = True
        for size, free in self._free.items():
            self._ledger.give("activations", size * len(free))
        self._free.clear()
        self._kept.clear()
