"""Mixture of experts: routing, and the products of each row with the experts chosen for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import FINE_ROUNDING, INT8_ROUNDING, Call, Kernel, Native, Tolerance, cdiv, op
from omni_rt.ops.elementwise import silu_mul
from omni_rt.ops.grids import GRID_LIMIT, Grid, per_column
from omni_rt.ops.int8 import LONGEST, ROW_STEP, int8_natives
from omni_rt.ops.matmul import VECTOR

MOST_CHOSEN = 64
"""Experts per row that the routing kernel can choose at most."""

FEW_ROWS = 4
"""Rows up to which each rounds its experts' hidden values to int8 by itself."""


def _route_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return min(c.T, GRID_LIMIT), 1, 1


TEAMS_OF_SLOTS = (4, 8, 16, 32)
"""Lanes that share a row of one expert in the int8 kernel of `expert_down`, by its length."""

LEAST_LANES = 256
DOWN_LANES = ((512, 1), (LEAST_LANES, 2), (LEAST_LANES, 4), (512, 2))
"""Lanes of a workgroup of that kernel, and rows that each team multiplies: those of a GPU's workgroups should be all
under way at once, and few workgroups round the hidden values anew."""


def _gate_up_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return cdiv(c.I, v["ROWS"]), c.A, min(c.T, GRID_LIMIT)


def _down_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return cdiv(c.N, v["ROWS"]), min(c.T, GRID_LIMIT), 1


def _slot_kernels(name: str, uniforms: tuple[str, ...], grid: Grid, length: str) -> list[Kernel]:
    """Return one kernel per weight dtype that reads an expert anew for each slot, in rows of `length` values."""
    kernels = []
    for dtype, vector in VECTOR.items():

        def when(c: Call, vector: int = vector) -> bool:
            return c.dims[length] % vector == 0

        rows = (*uniforms, "row_start", "row_count")
        variants = ({"WG": 128, "ROWS": 2}, {"WG": 64, "ROWS": 2})
        kernels.append(Kernel(f"{name}_{dtype}", rows, grid, {"w": dtype}, when, variants, splits="w"))
    return kernels


def _int8_down_kernels() -> list[Kernel]:
    """Return a kernel for each length of an expert's rows: a lane holds 96 values of each row that it multiplies."""
    kernels = []
    for shorter, team in zip((0, *TEAMS_OF_SLOTS), TEAMS_OF_SLOTS, strict=False):

        def when(c: Call, shorter: int = 96 * shorter, team: int = team) -> bool:
            fits = LONGEST[-1] >= c.A * c.I and c.A * team <= LEAST_LANES and c.I % ROW_STEP == 0
            return c.T <= FEW_ROWS and shorter < c.I <= 96 * team and fits

        def grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
            return cdiv(c.N, v["WG"] // v["TEAM"] // c.A * v["TURNS"]), c.T, 1

        variants = tuple({"WG": lanes, "TEAM": team, "TURNS": n} for lanes, n in DOWN_LANES)
        kernel = Kernel(
            "expert_down_q8_0_int8", ("N", "I", "A"), grid, {"w": "q8_0"}, when, variants,
            needs=("subgroup",), int8=True, tolerance=INT8_ROUNDING,
        )  # fmt: skip
        kernels.append(kernel)
    return kernels


def choose_experts(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Choose distinct experts for each row."""
    chosen = [rng.permutation(dims["E"])[: dims["A"]] for _ in range(dims["T"])]
    return {"experts": np.array(chosen, np.int32)}


@op(
    "logits[T, E] -> weights[T, top], experts[T, top]:i32",
    kernels=(
        Kernel(
            "route",
            ("T", "E", "top", "normalise"),
            _route_grid,
            when=lambda c: c.top <= min(c.E, MOST_CHOSEN),
        ),
    ),
    natives=(Native("route", ("T", "E", "top", "normalise"), when=lambda c: c.top <= c.E),),
    domain=(
        {"T": 1, "E": 1, "top": 1, "normalise": True},
        {"T": 2, "E": 128, "top": 8, "normalise": True},
        {"T": 5, "E": 33, "top": 6, "normalise": False},
        {"T": 33, "E": 200, "top": 64, "normalise": True},
    ),
    bench=({"T": 1, "E": 128, "top": 8, "normalise": True},),  # a layer of the Qwen3-Omni Thinker
)
def route(logits: Any, *, top: int, normalise: bool = True) -> Any:
    """Softmax over the experts, the `top` largest, and their probabilities, renormalised to sum 1 if asked.

    The experts come in falling order of probability, the lower id first among equals.
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    # Ranked by logit: that is the same order, and it does not depend on where small probabilities round to zero.
    experts = np.argsort(-logits, axis=-1, kind="stable")[:, :top]
    weights = np.take_along_axis(probabilities, experts, axis=-1)
    if normalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights, experts


@op(
    "x[T, K], w[E, 2*I, K]:weight, experts[T, A]:i32 -> h[T, A, I]",
    kernels=_slot_kernels("expert_gate_up", ("T", "K", "I", "A"), _gate_up_grid, "K"),
    natives=int8_natives("expert_gate_up", "T", "E", "A", "I", "K", tolerance=FINE_ROUNDING),
    # Far below 0, silu(g) falls as exp(g): it multiplies the relative error of g by |g|.
    tolerance=Tolerance(nmse=1e-8),
    domain=(
        {"T": 1, "E": 8, "A": 8, "I": 5, "K": 1056},
        {"T": 5, "E": 3, "A": 1, "I": 33, "K": 32},
        {"T": 2, "E": 5, "A": 2, "I": 2, "K": 288},
        {"T": 70, "E": 9, "A": 3, "I": 35, "K": 64},
    ),
    example=choose_experts,
    touched={"w": lambda c: c["T"] * c["A"] / c["E"]},
    flops=lambda c: 4 * c.T * c.A * c.I * c.K,
    bench=(
        {"T": 1, "E": 128, "A": 8, "I": 768, "K": 2048},  # Qwen3-Omni Thinker
        {"T": 1, "E": 128, "A": 6, "I": 384, "K": 1024},  # Qwen3-Omni Talker
    ),
)
def expert_gate_up(x: Any, w: Any, experts: Any) -> Any:
    """SwiGLU of each row in each of its experts: h = silu(gate) * up, w = gate rows, then up rows."""
    hidden = np.empty((*experts.shape, w.shape[1] // 2), x.dtype)
    for expert in np.unique(experts):
        rows, slots = np.nonzero(experts == expert)
        hidden[rows, slots] = silu_mul.body(x[rows] @ w[expert].T)
    return hidden


@op(
    "h[T, A, I], w[E, N, I]:weight, experts[T, A]:i32, weights[T, A], r[T, N] -> y[T, N]",
    kernels=[
        *_int8_down_kernels(),
        *_slot_kernels("expert_down", ("T", "N", "I", "A"), _down_grid, "I"),
    ],
    natives=int8_natives("expert_down", "T", "E", "A", "I", "N", tolerance=FINE_ROUNDING),
    domain=(
        *({"T": 1, "E": 2, "A": 2, "I": 96 * team, "N": 37} for team in TEAMS_OF_SLOTS),
        {"T": 1, "E": 8, "A": 8, "I": 448, "N": 6},
        {"T": 2, "E": 40, "A": 30, "I": 192, "N": 9},
        {"T": 5, "E": 3, "A": 1, "I": 32, "N": 33},
        {"T": 2, "E": 5, "A": 2, "I": 96, "N": 7},
        {"T": 70, "E": 9, "A": 3, "I": 64, "N": 35},
    ),
    example=choose_experts,
    touched={"w": lambda c: c["T"] * c["A"] / c["E"]},
    flops=lambda c: 2 * c.T * c.A * c.I * c.N,
    bench=(
        {"T": 1, "E": 128, "A": 8, "I": 768, "N": 2048},  # Qwen3-Omni Thinker
        {"T": 1, "E": 128, "A": 6, "I": 384, "N": 1024},  # Qwen3-Omni Talker
    ),
)
def expert_down(h: Any, w: Any, experts: Any, weights: Any, r: Any) -> Any:
    """Add the experts' weighted down projections to a residual: y = r + sum_a weights_a * (h_a @ w[experts_a].T)."""
    total = r.copy()
    for expert in np.unique(experts):
        rows, slots = np.nonzero(experts == expert)
        np.add.at(total, rows, weights[rows, slots][:, None] * (h[rows, slots] @ w[expert].T))
    return total


@op(
    "x[T, N], s[T, N], g[T, 1] -> y[T, N]",
    kernels=(Kernel("add_gated", ("T", "N"), per_column),),
    natives=(Native("add_gated", ("T", "N")),),
    domain=({"T": 1, "N": 1}, {"T": 5, "N": 257}, {"T": 33, "N": 64}),
    bench=({"T": 1, "N": 1024},),  # shared expert of the Qwen3-Omni Talker
)
def add_gated(x: Any, s: Any, g: Any) -> Any:
    """Add behind a sigmoid gate: y = x + sigmoid(g) * s."""
    return x + s / (1 + np.exp(-g))
