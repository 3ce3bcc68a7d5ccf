"""Host memory for what stays long: it begins with a cache line, and lies in large pages where the system has them.

A weight is read from end to end for every token. With pages of 4 KB, finding out where the next one lies takes part of
that time, in a virtual machine most of all.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from threading import Lock
from typing import Any

import numpy as np

LINE = 64
"""Bytes of a cache line, and of the widest vector."""

LARGE_PAGE = 1 << 21
SLAB = 1 << 26
"""Bytes that are asked for together; arrays of half of it and more have memory of their own."""

LEAST = 1 << 18
"""Bytes below which NumPy's own allocator serves."""


def aligned(shape: Sequence[int], kind: Any) -> np.ndarray:
    """Return an array, not initialised, that begins with a cache line: no vector of a row then lies across two."""
    size = prod(shape) * np.dtype(kind).itemsize
    if size >= LEAST and hasattr(mmap, "MADV_HUGEPAGE"):
        return _slabs.cut(size).view(kind).reshape(shape)
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size].view(kind).reshape(shape)


def zeros(shape: Sequence[int], kind: Any) -> np.ndarray:
    """Return an array of zeros whose pages take memory once they are written."""
    size = prod(shape) * np.dtype(kind).itemsize
    if size >= LEAST and hasattr(mmap, "MADV_HUGEPAGE"):
        return aligned(shape, kind)  # the system hands out zeros, and no memory is handed out twice
    return np.zeros(shape, kind)


class _Slabs:
    """Slabs from which arrays are cut, one after the other; one is freed when the last array in it is gone."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rest = np.empty(0, np.uint8)

    def cut(self, size: int) -> np.ndarray:
        """Return zeros, uint8 [size], that nobody else has."""
        room = -(-size // LINE) * LINE
        if room >= SLAB // 2:
            return _large_pages(room)[:size]
        with self._lock:
            if room > len(self._rest):
                self._rest = _large_pages(SLAB)
            piece, self._rest = self._rest[:size], self._rest[room:]
        return piece


def _large_pages(size: int) -> np.ndarray:
    """Return zeros, uint8 [size], at the start of a large page."""
    memory = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % LARGE_PAGE
    return whole[start : start + size]


_slabs = _Slabs()
