"""Memory for the activations of the CPU device: what a dropped tensor leaves, the next one of its size takes.

Fresh memory costs a page fault for every page that is written for the first time: more than many ops take.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import Any

import numpy as np

from omni_rt.devices.memory import size_class
from omni_rt.host_arrays import aligned

LEAST = 1 << 16
"""Bytes below which NumPy's own allocator serves."""

KEPT = 1 << 28
"""Most bytes that wait for another tensor."""


class Arena:
    """Buffers by size class. Threads may share it: each step on its lists is one operation of the interpreter."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        self._kept = 0

    def empty(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> np.ndarray:
        """Return an array, not initialised; its memory comes back when it and all views of it are gone."""
        size = prod(shape) * kind.itemsize
        if size < LEAST:
            return np.empty(shape, kind)
        room = size_class(size)
        try:
            raw = self._free[room].pop()
            self._kept -= room
        except IndexError:
            raw = aligned((room,), np.uint8)
        return np.asarray(_Lease(self, raw)).view()[:size].view(kind).reshape(shape)

    def take_back(self, raw: np.ndarray) -> None:
        """Keep a buffer for the next array of its class, as far as there is room."""
        if self._kept + raw.nbytes > KEPT:
            self._free.clear()
            self._kept = 0
        self._free[raw.nbytes].append(raw)
        self._kept += raw.nbytes


class _Lease:
    """What arrays over a buffer have as their base: it hands the buffer back when the last of them is gone."""

    __slots__ = ("__array_interface__", "_arena", "_raw")

    def __init__(self, arena: Arena, raw: np.ndarray) -> None:
        self._arena = arena
        self._raw = raw
        self.__array_interface__ = raw.__array_interface__

    def __del__(self) -> None:
        self._arena.take_back(self._raw)
