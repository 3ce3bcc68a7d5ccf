"""Experts of many rows: the slots are sorted by expert, whose weights are then read once for all of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import FINE_ROUNDING, Call, Kernel, Tolerance, cdiv, op
from omni_rt.ops.elementwise import silu_mul
from omni_rt.ops.experts import choose_experts
from omni_rt.ops.grids import per_column
from omni_rt.ops.matmul import VECTOR
from omni_rt.tensor import Tensor

SHARED_FROM = 2
"""Rows that an expert gets on average from which on they share one reading of its weights."""

Columns = Callable[[Call, int], int]
"""The workgroups along the outputs of an expert, for tiles of so many weight rows."""


def in_groups(experts: Tensor, count: int) -> bool:
    """Say whether a GPU had better read the weights of each of `count` experts once for all of its rows."""
    return experts.device.kind == "wgpu" and experts.size >= SHARED_FROM * count


def _group_kernels(name: str, uniforms: tuple[str, ...], columns: Columns, length: str) -> list[Kernel]:
    """Return the kernels that read an expert once for all of its rows, in tiles that fit what it gets on average."""
    ranges = (*uniforms, "row_start", "row_count")

    def grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
        lines = v.get("LINES", 16)
        # Four times what an expert gets on average is computed side by side, more than that in turns.
        shares = min(cdiv(c.T, lines * v["TM"]), cdiv(4 * c.T * c.A, c.E * lines * v["TM"]))
        return columns(c, 256 // lines * v["TN"]), c.E, shares

    def rounded(above: int, most: int, *tiles: tuple[int, int, int, int]) -> Kernel:
        return Kernel(
            f"{name}_q8_0_int8", ranges, grid, {"w": "q8_0"},
            lambda c: above < c.T * c.A / c.E <= most,
            tuple(dict(zip(("TM", "TN", "LINES", "STEP"), tile, strict=True)) for tile in tiles),
            splits="w", int8=True, rounded={"x": "q16"}, tolerance=FINE_ROUNDING,
        )  # fmt: skip

    # Rows of a tile that an expert does not get are left out, LINES at a time. In one int8 a value, rows would make a
    # third of the error of a prompt's logits. With STEP 2, tiles of 64 x 128 ask for 18 KB of workgroup storage, those
    # of 16 x 256 for 21 KB.
    kernels = [
        rounded(0, 16, (4, 4, 8, 2), (2, 4, 8, 2), (4, 4, 4, 2), (4, 2, 4, 2)),
        rounded(16, 1 << 30, (8, 4, 8, 2), (8, 2, 4, 2), (4, 4, 8, 2), (8, 4, 8, 1)),
    ]
    for dtype, vector in VECTOR.items():
        for height, above, most in ((1, 0, 8), (2, 8, 1 << 30)):

            def when(c: Call, vector: int = vector, above: int = above, most: int = most) -> bool:
                return c.dims[length] % vector == 0 and above < c.T * c.A / c.E <= most

            variants = ({"TM": height, "TN": 4},)
            kernels.append(Kernel(f"{name}_{dtype}", ranges, grid, {"w": dtype}, when, variants, splits="w"))
    return kernels


def _sorted_slots(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Choose experts and sort their slots."""
    slots, ends = expert_slots.body(choose_experts(rng, dims)["experts"], E=dims["E"])
    return {"slots": slots, "ends": ends}


def _groups(slots: Any, ends: Any) -> list[Any]:
    """Return the slots of each expert."""
    return np.split(slots.reshape(-1), ends[:-1])


@op(
    "experts[T, A]:i32 -> slots[T, A]:i32, ends[E]:i32",
    kernels=(Kernel("expert_slots", ("T", "A"), lambda c, v: (c.E, 1, 1)),),
    domain=({"T": 1, "A": 1, "E": 1}, {"T": 70, "A": 3, "E": 9}, {"T": 200, "A": 8, "E": 128}),
    example=choose_experts,
    bench=({"T": 512, "A": 8, "E": 128},),  # Qwen3-Omni Thinker, a prompt
)
def expert_slots(experts: Any, *, E: int) -> Any:
    """List the slots t * A + a of each of E experts: those of expert e end before place ends[e]."""
    flat = experts.reshape(-1)
    slots = np.argsort(flat, kind="stable").astype(np.int32)
    return slots.reshape(experts.shape), np.cumsum(np.bincount(flat, minlength=E)).astype(np.int32)


@op(
    "x[T, K], w[E, 2*I, K]:weight, slots[T, A]:i32, ends[E]:i32 -> h[T, A, I]",
    kernels=_group_kernels("grouped_gate_up", ("T", "K", "I", "A"), lambda c, rows: cdiv(2 * c.I, rows), "K"),
    # Far below 0, silu(g) falls as exp(g): it multiplies the relative error of g by |g|.
    tolerance=Tolerance(nmse=1e-8),
    domain=(
        {"T": 1, "E": 8, "A": 8, "I": 5, "K": 416},
        {"T": 70, "E": 9, "A": 3, "I": 35, "K": 64},
        {"T": 24, "E": 5, "A": 2, "I": 40, "K": 96},
        {"T": 150, "E": 3, "A": 2, "I": 3, "K": 32},
    ),
    example=_sorted_slots,
    flops=lambda c: 4 * c.T * c.A * c.I * c.K,
    bench=(
        {"T": 128, "E": 128, "A": 8, "I": 768, "K": 2048},  # Qwen3-Omni Thinker, prompts
        {"T": 512, "E": 128, "A": 8, "I": 768, "K": 2048},
    ),
)
def grouped_gate_up(x: Any, w: Any, slots: Any, ends: Any) -> Any:
    """SwiGLU of each row in each of its experts as `expert_gate_up`, from the sorted slots of `expert_slots`."""
    hidden = np.empty((slots.size, w.shape[1] // 2), x.dtype)
    for expert, chosen in enumerate(_groups(slots, ends)):
        hidden[chosen] = silu_mul.body(x[chosen // slots.shape[1]] @ w[expert].T)
    return hidden.reshape(*slots.shape, -1)


@op(
    "x[T, A, I], w[E, N, I]:weight, slots[T, A]:i32, ends[E]:i32 -> d[T, A, N]",
    kernels=_group_kernels("grouped_product", ("T", "N", "I", "A"), lambda c, rows: cdiv(c.N, rows), "I"),
    domain=(
        {"T": 1, "E": 8, "A": 8, "I": 416, "N": 6},
        {"T": 70, "E": 9, "A": 3, "I": 64, "N": 35},
        {"T": 150, "E": 3, "A": 2, "I": 32, "N": 65},
    ),
    example=_sorted_slots,
    flops=lambda c: 2 * c.T * c.A * c.I * c.N,
    bench=(
        {"T": 128, "E": 128, "A": 8, "I": 768, "N": 2048},  # Qwen3-Omni Thinker, prompts
        {"T": 512, "E": 128, "A": 8, "I": 768, "N": 2048},
    ),
)
def grouped_product(x: Any, w: Any, slots: Any, ends: Any) -> Any:
    """Multiply the row of each slot with the slot's expert, from the sorted slots of `expert_slots`."""
    products = np.empty((slots.size, w.shape[1]), x.dtype)
    for expert, chosen in enumerate(_groups(slots, ends)):
        products[chosen] = x.reshape(slots.size, -1)[chosen] @ w[expert].T
    return products.reshape(*slots.shape, -1)


@op(
    "d[T, A, N], weights[T, A], r[T, N] -> y[T, N]",
    kernels=(Kernel("add_weighted", ("T", "A", "N"), per_column),),
    domain=({"T": 1, "A": 1, "N": 1}, {"T": 5, "A": 8, "N": 257}, {"T": 33, "A": 3, "N": 64}),
    bench=({"T": 512, "A": 8, "N": 2048},),  # Qwen3-Omni Thinker, a prompt
)
def add_weighted(d: Any, weights: Any, r: Any) -> Any:
    """Add weighted slots to a residual: y = r + sum_a weights_a * d_a."""
    return r + (weights[..., None] * d).sum(axis=1)
