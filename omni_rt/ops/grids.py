"""Grids: how many workgroups a call gets. The kernels go on in strides of the grid, so a grid need not cover all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from omni_rt.ops.contract import Call, cdiv

Grid = Callable[[Call, Mapping[str, int]], tuple[int, int, int]]
"""From a call and a variant to workgroups along x, y and z."""

GRID_LIMIT = 65535
"""Workgroups that every device allows per dimension of a grid."""

ENOUGH = 4096
"""Workgroups that keep any GPU busy."""


def per_row(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
    """Return one workgroup per row T."""
    return min(call.T, ENOUGH), 1, 1


def per_column(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
    """Return a lane per column of N, 256 to a workgroup, along x, and rows T along y."""
    return cdiv(call.N, 256), min(call.T, GRID_LIMIT), 1


def per_value(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
    """Return one workgroup per 1024 values of T rows of N (or C)."""
    return min(cdiv(call.T * (call.N if "N" in call.dims else call.C), 1024), GRID_LIMIT), 1, 1


def lanes(count: int, each: int = 256) -> tuple[int, int, int]:
    """Return one lane per item, `each` to a workgroup."""
    return min(cdiv(count, each), ENOUGH), 1, 1
