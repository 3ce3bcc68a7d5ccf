"""Experts of one row in few steps: its norm, the routing, and gate and up of the chosen experts in one."""

from __future__ import annotations

from typing import Any

from omni_rt.ops.contract import cdiv, op
from omni_rt.ops.expert_groups import gate_up_experts
from omni_rt.ops.experts import expert_gate_up, route
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


def gate_up_routed(
    x: Tensor, g: Tensor, router: Tensor, w: Tensor, *, epsilon: float, top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Route rms_norm(x, g) and pass it through gate and up of its experts: on a GPU in two steps for one row.

    x [T, K], g [K], router [E, K], w [E, 2 I, K]; returns h [T, top, I], and weights and experts [T, top].
    """
    if in_int8(x, w) and len(router) % 4 == 0 and len(router) <= MOST_EXPERTS:
        logits = norm_matmul(x, g, router, epsilon=epsilon)
        return route_gate_up(x, g, logits, w, epsilon=epsilon, top=top)
    normed = rms_norm(x, g, epsilon=epsilon)
    weights, experts = route(matmul(normed, router), top=top)
    return gate_up_experts(normed, w, experts), weights, experts
