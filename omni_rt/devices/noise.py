"""Random weights made on a wgpu device: a block of noise is uploaded once and copied there into every plane.

Nothing here imports wgpu: the GPU device is handed in. Loading 33 GB takes as long as copying them within the GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.devices.memory import ALIGNMENT
from omni_rt.tensor import HOST_TYPES

BLOCK_VALUES = 1 << 24
QUANT_DEVIATION = 42
"""Standard deviation of the int8 quants: three of them fill their range."""


class Noise:
    """Blocks of noise on one GPU device, by the type of a plane."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._normal: np.ndarray | None = None
        self._blocks: dict[tuple[str, float], Any] = {}

    def fill(self, buffers: list[Any], dtype: str, deviation: float, seed: int) -> None:
        """Fill the planes of a weight of `dtype` with values around 0; equal seeds give equal values."""
        encoder = self._gpu.create_command_encoder()
        kinds = ("quants", "scales") if dtype == "q8_0" else (dtype,)
        for kind, buffer in zip(kinds, buffers, strict=True):
            block = self._block(kind, deviation)
            start = seed * ALIGNMENT % block.size
            done = 0
            while done < buffer.size:
                size = min(block.size - start, buffer.size - done)
                encoder.copy_buffer_to_buffer(block, start, buffer, done, size)
                done, start = done + size, 0
        self._gpu.queue.submit([encoder.finish()])

    def _block(self, kind: str, deviation: float) -> Any:
        key = (kind, 0.0 if kind == "quants" else deviation)
        if key not in self._blocks:
            self._blocks[key] = self._gpu.create_buffer_with_data(data=self._values(kind, deviation), usage="COPY_SRC")
        return self._blocks[key]

    def _values(self, kind: str, deviation: float) -> np.ndarray:
        if kind == "scales":
            return np.full(1 << 20, deviation / QUANT_DEVIATION, np.float16)
        if self._normal is None:
            self._normal = np.random.default_rng(0).standard_normal(BLOCK_VALUES, np.float32)
        if kind == "quants":
            return np.clip(np.rint(self._normal * QUANT_DEVIATION), -127, 127).astype(np.int8)
        return (self._normal * np.float32(deviation)).astype(HOST_TYPES[kind])
