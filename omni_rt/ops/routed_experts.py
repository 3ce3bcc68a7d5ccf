"""Experts as a whole: of one row in few steps, the routing and gate and up of the chosen in one; of many in groups."""

from __future__ import annotations

from typing import Any

from omni_rt.ops.contract import cdiv, op
from omni_rt.ops.expert_groups import add_weighted, expert_slots, grouped_gate_up, grouped_product, in_groups
from omni_rt.ops.experts import expert_down, expert_gate_up, route
from omni_rt.ops.int8 import in_int8, int8_calls, int8_kernels, teams
from omni_rt.ops.matmul import matmul
from omni_rt.ops.norm import rms_norm
from omni_rt.ops.normed_matmul import norm_matmul
from omni_rt.tensor import Tensor

MOST_EXPERTS = 128
"""Experts that the routing of `route_gate_up` can rank."""


@op(
    "x[T, K], g[K], logits[T, E], w[E, 2*I, K]:weight -> h[T, top, I], weights[T, top], experts[T, top]:i32",
    kernels=int8_kernels(
        "route_gate_up_q8_0_int8",
        ("K", "E", "I", "epsilon", "top", "normalise"),
        lambda c, v: (cdiv(c.I, teams(v)), c.top, c.T),
        length=lambda c: c.K,
        gated=True,
        turns=(2, 1, 4),  # all workgroups are under way at once
        takes=lambda c: c.E % 4 == 0 and c.top <= c.E <= MOST_EXPERTS,
    ),
    domain=(
        *int8_calls("K", "I", gated=True, T=1, E=4, epsilon=1e-6, top=2, normalise=True),
        {"T": 1, "K": 1088, "E": 8, "I": 37, "epsilon": 1e-6, "top": 8, "normalise": True},
        {"T": 2, "K": 192, "E": 12, "I": 9, "epsilon": 1e-2, "top": 3, "normalise": False},
        {"T": 1, "K": 64, "E": 128, "I": 5, "epsilon": 1e-6, "top": 8, "normalise": True},
        {"T": 1, "K": 64, "E": 116, "I": 5, "epsilon": 1e-6, "top": 100, "normalise": False},
    ),
    touched={"w": lambda c: c["T"] * c["top"] / c["E"]},
    bench=(
        {"T": 1, "K": 2048, "E": 128, "I": 768, "epsilon": 1e-6, "top": 8, "normalise": True},  # Qwen3-Omni Thinker
        {"T": 1, "K": 1024, "E": 128, "I": 384, "epsilon": 1e-6, "top": 6, "normalise": True},  # Qwen3-Omni Talker
    ),
)
def route_gate_up(
    x: Any, g: Any, logits: Any, w: Any, *, epsilon: float, top: int, normalise: bool = True
) -> tuple[Any, Any, Any]:
    """Do in one: m = rms_norm(x, g); weights, experts = route(logits); h = expert_gate_up(m, w, experts)."""
    weights, experts = route.body(logits, top=top, normalise=normalise)
    return expert_gate_up.body(rms_norm.body(x, g, epsilon=epsilon), w, experts), weights, experts


def add_experts(
    x: Tensor, g: Tensor, router: Tensor, gate_up: Tensor, down: Tensor, r: Tensor, *, epsilon: float, top: int
) -> Tensor:
    """Add to r the weighted experts of rms_norm(x, g), of each row the `top` that its router logits choose.

    x [T, K], g [K], router [E, K], gate_up [E, 2 I, K], down [E, N, I], r [T, N]; returns [T, N]. One row on a GPU
    takes few steps; of many rows, all that chose an expert meet it in one reading of its weights.
    """
    count = len(router)
    if in_int8(x, gate_up) and count % 4 == 0 and count <= MOST_EXPERTS:
        logits = norm_matmul(x, g, router, epsilon=epsilon)
        hidden, weights, experts = route_gate_up(x, g, logits, gate_up, epsilon=epsilon, top=top)
        return expert_down(hidden, down, experts, weights, r)
    normed = rms_norm(x, g, epsilon=epsilon)
    weights, experts = route(matmul(normed, router), top=top)
    if in_groups(experts, count):
        slots, ends = expert_slots(experts, E=count)
        hidden = grouped_gate_up(normed, gate_up, slots, ends)
        return add_weighted(grouped_product(hidden, down, slots, ends), weights, r)
    return expert_down(expert_gate_up(normed, gate_up, experts), down, experts, weights, r)
