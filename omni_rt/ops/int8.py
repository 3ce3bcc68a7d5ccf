"""Kernels that round a row of activations to int8 and multiply it with q8_0 weights by integer dot products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omni_rt.ops.contract import INT8_ROUNDING, Call, Kernel, Native, Tolerance, always, by_weight
from omni_rt.ops.grids import Grid
from omni_rt.tensor import BLOCK, Tensor

LONGEST = (1024, 2048, 3072, 4096, 6144)
"""Values of the longest rows of the kernels; a kernel holds its row, so each length has its own."""

LONGEST_GATED = (1024, 2048, 3072, 4096)

ROW_STEP = 2 * BLOCK
"""What the length of a row is a multiple of: its scales are whole words of two."""

GATED_ROUNDING = Tolerance(nmse=4e-3, peak=0.2)
"""As INT8_ROUNDING, but far below 0 silu(v) falls as exp(v): it multiplies the relative error of v by |v|."""

LONGEST_OF_HALF_TEAMS = 2048
"""Row length up to which teams of 16 lanes are a choice: a lane holds its share of a row, and runs out of registers."""


def teams(variant: Mapping[str, int]) -> int:
    """Return the items that a workgroup computes."""
    return variant["WG"] // variant["TEAM"] * variant["ITEMS"]


def int8_kernels(
    shader: str,
    uniforms: tuple[str, ...],
    grid: Grid,
    *,
    length: Callable[[Call], int],
    takes: Callable[[Call], bool] = always,
    gated: bool = False,
    turns: tuple[int, ...] = (1, 2, 4),
    **settings: Any,
) -> list[Kernel]:
    """Return a kernel for each range of row lengths.

    `length` returns the values of the row that is rounded, `takes` says what else must hold. A `gated` kernel computes
    two products and their SwiGLU, which needs more memory and leaves more error. `turns` are the items that a team may
    take one after the other, the default first.
    """
    kernels = []
    lengths = LONGEST_GATED if gated else LONGEST
    for shorter, longest in zip((0, *lengths), lengths, strict=False):

        def when(c: Call, shorter: int = shorter, longest: int = longest) -> bool:
            return shorter < length(c) <= longest and length(c) % ROW_STEP == 0 and takes(c)

        variants = [{"WG": 256, "TEAM": 32, "ITEMS": n, "MOST": longest} for n in turns]
        if longest <= LONGEST_OF_HALF_TEAMS:
            variants += [{"WG": 256, "TEAM": 16, "ITEMS": n, "MOST": longest} for n in turns[:2]]
        kernel = Kernel(
            shader,
            uniforms,
            grid,
            {"w": "q8_0"},
            when,
            tuple(variants),
            needs=("subgroup",),
            int8=True,
            tolerance=GATED_ROUNDING if gated else INT8_ROUNDING,
            **settings,
        )
        kernels.append(kernel)
    return kernels


def int8_natives(name: str, *uniforms: str, tolerance: Tolerance = INT8_ROUNDING) -> list[Native]:
    """Return the C bodies of a product, the one that rounds to int8 first: the first that a device may use runs."""
    rounding = Native(f"{name}_q8_0_int8", uniforms, {"w": "q8_0"}, int8=True, tolerance=tolerance)
    return [rounding, *by_weight(name, *uniforms)]


def int8_calls(length: str, items: str, gated: bool = False, **dims: Any) -> list[dict[str, Any]]:
    """Return calls that reach the kernels of every row length.

    `length` and `items` name the extents of the row that is rounded and of the results, `dims` are the others.
    """
    lengths = LONGEST_GATED if gated else LONGEST
    return [dims | {length: shorter + ROW_STEP, items: 37} for shorter in (0, *lengths[:-1])]


def in_int8(x: Tensor, w: Tensor) -> bool:
    """Say whether one row x meets q8_0 weights on a GPU that may round it to int8."""
    device = x.device
    able = device.kind == "wgpu" and device.activations == "q8" and "subgroup" in device.features
    fits = x.shape[-1] % ROW_STEP == 0 and x.shape[-1] <= LONGEST_GATED[-1] and not w.parts
    return able and fits and w.dtype == "q8_0" and x.shape[0] == 1
