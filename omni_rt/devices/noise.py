"""Random weights for benchmarks, made by copying from blocks of noise: drawing 30 billion values would take minutes.

Nothing here imports wgpu: the GPU device is handed in. Loading 33 GB takes as long as copying them where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from omni_rt.devices.memory import ALIGNMENT
from omni_rt.tensor import HOST_TYPES

BLOCK_VALUES = 1 << 24
QUANT_DEVIATION = 42
"""Standard deviation of the int8 quants: three of them fill their range."""

Cut = tuple[Any, int, Any, int, int]
"""A block and where in it to begin, a plane and where in it to begin, and the bytes to copy."""


class Noise:
    """Blocks of noise on the host, by the type of a plane."""

    def __init__(self) -> None:
        self._normal: np.ndarray | None = None
        self._blocks: dict[tuple[str, float], Any] = {}

    def fill(self, planes: Sequence[Any], dtype: str, deviation: float, seed: int) -> None:
        """Fill the planes, uint8 [bytes], of a weight of `dtype` with values around 0; equal seeds: equal values."""
        with ThreadPoolExecutor() as threads:  # new memory is cleared page by page, which takes longer than the copy
            list(threads.map(_copy, *zip(*self._cuts(planes, dtype, deviation, seed), strict=True)))

    def _cuts(self, planes: Sequence[Any], dtype: str, deviation: float, seed: int) -> Iterator[Cut]:
        kinds = ("quants", "scales") if dtype == "q8_0" else (dtype,)
        for kind, plane in zip(kinds, planes, strict=True):
            block = self._block(kind, deviation)
            start = seed * ALIGNMENT % block.size
            done = 0
            while done < plane.size:
                size = min(block.size - start, plane.size - done)
                yield block, start, plane, done, size
                done, start = done + size, 0

    def _placed(self, values: np.ndarray) -> Any:
        return values.view(np.uint8)

    def _block(self, kind: str, deviation: float) -> Any:
        key = (kind, 0.0 if kind == "quants" else deviation)
        if key not in self._blocks:
            self._blocks[key] = self._placed(self._values(kind, deviation))
        return self._blocks[key]

    def _values(self, kind: str, deviation: float) -> np.ndarray:
        if kind == "scales":
            return np.full(1 << 20, deviation / QUANT_DEVIATION, np.float16)
        if self._normal is None:
            self._normal = np.random.default_rng(0).standard_normal(BLOCK_VALUES, np.float32)
        if kind == "quants":
            return np.clip(np.rint(self._normal * QUANT_DEVIATION), -127, 127).astype(np.int8)
        return (self._normal * np.float32(deviation)).astype(HOST_TYPES[kind])


def _copy(block: np.ndarray, start: int, plane: np.ndarray, at: int, size: int) -> None:
    plane[at : at + size] = block[start : start + size]


class GpuNoise(Noise):
    """Blocks of noise on one GPU device, where planes are buffers."""

    def __init__(self, gpu: Any) -> None:
        super().__init__()
        self._gpu = gpu

    def fill(self, planes: Sequence[Any], dtype: str, deviation: float, seed: int) -> None:
        """Fill the buffers of a weight, as on the host."""
        encoder = self._gpu.create_command_encoder()
        for cut in self._cuts(planes, dtype, deviation, seed):
            encoder.copy_buffer_to_buffer(*cut)
        self._gpu.queue.submit([encoder.finish()])

    def _placed(self, values: np.ndarray) -> Any:
        return self._gpu.create_buffer_with_data(data=values, usage="COPY_SRC")
