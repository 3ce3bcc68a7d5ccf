"""How a wgpu device runs one kind of call, and how a weight above its binding limit is cut.

Nothing here imports wgpu.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from omni_rt.devices.pipelines import Params
from omni_rt.tensor import Tensor, plane_bytes

if TYPE_CHECKING:
    from omni_rt.devices.webgpu import WebGpuDevice
    from omni_rt.ops.contract import Call, Kernel, Op

SPLIT_ROWS = 64
"""A tensor above the binding limit is split at multiples of this many rows."""


@dataclass(frozen=True)
class Plan:
    """How one kind of call is run: a kernel with its variant, and parameters, grid and dims for each row range."""

    kernel: Kernel
    variant: Mapping[str, int]
    pipeline: Any
    layout: Any
    ranges: tuple[tuple[Params, tuple[int, int, int]], ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]
    call: Call


def row_ranges(op: Op, kernel: Kernel, operands: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return (first row, rows) of each part of the operand that the kernel splits, (0, 0) when it splits none."""
    if kernel.splits is None:
        return [(0, 0)]
    tensor = operands[[o.name for o in op.operands].index(kernel.splits)]
    ranges, start = [], 0
    for part in tensor.parts or (tensor,):
        count = prod(part.shape[:-1])
        ranges.append((start, count))
        start += count
    return ranges


def in_parts(
    device: WebGpuDevice, shape: Sequence[int], dtype: str, place: Callable[[int, tuple[int, ...]], Tensor]
) -> Tensor:
    """Return a weight made by `place`, whole, or by ranges (first row, [rows, K]) where binding limits ask."""
    rows, width = prod(shape[:-1]), shape[-1]
    if len(shape) < 2 or max(plane_bytes(shape, dtype)) <= device.max_binding:
        return place(0, (rows, width) if len(shape) > 1 else (width,)).reshape(*shape)
    step = device.max_binding // max(plane_bytes((1, width), dtype)) // SPLIT_ROWS * SPLIT_ROWS
    parts = [place(start, (min(step, rows - start), width)) for start in range(0, rows, step)]
    return Tensor(shape, dtype, device, (), tuple(parts))
