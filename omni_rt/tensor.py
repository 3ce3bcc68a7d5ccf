"""The tensor: a logical shape and dtype over one or two planes that live on a device.

A tensor is contiguous in row-major order. `q8_0` has two planes, int8 quants and f16 scales (see quant.py), rounded
activations have quants and f32 scales; every other dtype has one. A plane is whatever the device stores: a NumPy array
on the CPU, a span of a GPU buffer on wgpu.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

BLOCK = 32
"""Values that share one scale in `q8_0`."""

CHUNK = 16
"""Values of a row that share one scale where activations are rounded to int8; of two a value on a GPU, a BLOCK does."""

SCALED_TOGETHER = {"q8": CHUNK, "q16": BLOCK}
"""Values of a row that share one scale in the dtypes of rounded activations."""

PLANE_BITS: dict[str, tuple[float, ...]] = {
    "f32": (32,),
    "i32": (32,),
    "f16": (16,),
    "q8_0": (8, 16 / BLOCK),
    "q8": (8, 32 / SCALED_TOGETHER["q8"]),
    "q16": (16, 32 / SCALED_TOGETHER["q16"]),
}
"""Bits per value of each plane of each dtype; q8 and q16 are activations rounded to one or two int8 a value, which only
a device makes and reads."""

HOST_TYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i32": np.dtype(np.int32),
}
"""What NumPy calls the dtypes of one plane."""


def plane_bytes(shape: Sequence[int], dtype: str) -> tuple[int, ...]:
    """Return the bytes of each plane of a tensor of `shape` and `dtype`."""
    count = prod(shape)
    return tuple(int(count * bits / 8) for bits in PLANE_BITS[dtype])


class Tensor:
    """An immutable handle on values that live on a device.

    `shape` is logical, `dtype` a key of PLANE_BITS. `parts` is empty, or the row ranges of a tensor that is
    larger than the device can bind at once: tensors over consecutive rows (of the flattened leading axes).
    """

    __slots__ = ("device", "dtype", "parts", "planes", "shape")

    def __init__(
        self,
        shape: Sequence[int],
        dtype: str,
        device: Device,
        planes: tuple[Any, ...],
        parts: tuple[Tensor, ...] = (),
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = dtype
        self.device = device
        self.planes = planes
        self.parts = parts

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        return sum(plane_bytes(self.shape, self.dtype))

    def numpy(self) -> np.ndarray:
        """Return the values on the host: float32 (dequantised where needed) or int32."""
        return self.device.read(self)

    def reshape(self, *shape: int) -> Tensor:
        """Return the same values under another shape; one extent may be -1."""
        if -1 in shape:
            known = prod(n for n in shape if n != -1)
            shape = tuple(self.size // known if n == -1 else n for n in shape)
        if prod(shape) != self.size:
            raise ValueError(f"cannot reshape {self.shape} ({self.size} values) to {shape} ({prod(shape)} values)")
        if self.dtype == "q8_0" and shape[-1] % BLOCK:
            raise ValueError(f"q8_0 rows come in blocks of {BLOCK}: {shape} has rows of {shape[-1]}")
        return Tensor(shape, self.dtype, self.device, self.planes, self.parts)

    def __getitem__(self, rows: slice | int) -> Tensor:
        """Return a view of consecutive leading slices, `tensor[a:b]`, or of one, `tensor[i]` (which drops the axis)."""
        if isinstance(rows, int):
            row = rows + self.shape[0] if rows < 0 else rows
            if not 0 <= row < self.shape[0]:
                raise IndexError(f"row {rows} of a tensor of shape {self.shape}")
            view = self[row : row + 1]
            return view.reshape(*self.shape[1:])
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise IndexError("a tensor view takes consecutive rows: the step must be 1")
        if self.parts:
            raise IndexError("a row-split tensor cannot be sliced")
        shape = (max(stop - start, 0), *self.shape[1:])
        row_bytes = plane_bytes((1, *self.shape[1:]), self.dtype)
        planes = tuple(
            self.device.slice_plane(plane, start * n, shape[0] * n)
            for plane, n in zip(self.planes, row_bytes, strict=True)
        )
        return Tensor(shape, self.dtype, self.device, planes)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Tensor({list(self.shape)}, {self.dtype}, {self.device.name})"
