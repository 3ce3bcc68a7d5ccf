"""Down projections of many rows: an expert's weights are read once for all of its rows, and the slots added later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import Call, Kernel, cdiv, op
from omni_rt.ops.experts import choose_experts, expert_down, expert_tile_kernels, grouped
from omni_rt.ops.rows import row_grid
from omni_rt.tensor import Tensor


def _product_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return cdiv(c.N, 16 * v["TN"]), c.E, 1


@op(
    "x[T, A, I], w[E, N, I]:weight, experts[T, A]:i32 -> d[T, A, N]",
    kernels=expert_tile_kernels("expert_product_{}", ("T", "N", "I", "A"), _product_grid, "I"),
    domain=(
        {"T": 1, "E": 8, "A": 8, "I": 416, "N": 6},
        {"T": 70, "E": 9, "A": 3, "I": 64, "N": 35},
        {"T": 150, "E": 3, "A": 2, "I": 32, "N": 65},
    ),
    example=choose_experts,
    flops=lambda c: 2 * c.T * c.A * c.I * c.N,
    bench=(
        {"T": 256, "E": 128, "A": 8, "I": 768, "N": 2048},  # Qwen3-Omni Thinker, a prompt
    ),
)
def expert_product(x: Any, w: Any, experts: Any) -> Any:
    """Multiply the row of each slot with the slot's expert: d_a = x_a @ w[experts_a].T."""
    products = np.empty((*experts.shape, w.shape[1]), x.dtype)
    for expert in np.unique(experts):
        rows, slots = np.nonzero(experts == expert)
        products[rows, slots] = x[rows, slots] @ w[expert].T
    return products


@op(
    "d[T, A, N], weights[T, A], r[T, N] -> y[T, N]",
    kernels=(Kernel("add_weighted", ("T", "A", "N"), row_grid),),
    domain=({"T": 1, "A": 1, "N": 1}, {"T": 5, "A": 8, "N": 257}, {"T": 33, "A": 3, "N": 64}),
    bench=({"T": 256, "A": 8, "N": 2048},),  # Qwen3-Omni Thinker, a prompt
)
def add_weighted(d: Any, weights: Any, r: Any) -> Any:
    """Add weighted slots to a residual: y = r + sum_a weights_a * d_a."""
    return r + (weights[..., None] * d).sum(axis=1)


def add_experts(h: Tensor, w: Tensor, experts: Tensor, weights: Tensor, r: Tensor) -> Tensor:
    """Add the experts' weighted down projections to a residual as `expert_down`; on a GPU in two steps for many rows.

    h [T, A, I], w [E, N, I], experts and weights [T, A], r [T, N]; returns [T, N].
    """
    rows, chosen = experts.shape
    if h.device.kind == "wgpu" and grouped(rows, chosen, w.shape[0]):
        return add_weighted(expert_product(h, w, experts), weights, r)
    return expert_down(h, w, experts, weights, r)
