"""Mixture of experts: routing, and the products of each row with the experts chosen for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.ops.contract import op


@op("logits[T, E] -> weights[T, top], experts[T, top]:i32")
def route(logits: Any, *, top: int, normalise: bool = True) -> Any:
    """Softmax over the experts, the `top` largest, and their probabilities, renormalised to sum 1 if asked.

    The experts come in falling order of probability, the lower id first among equals.
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    experts = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    weights = np.take_along_axis(probabilities, experts, axis=-1)
    if normalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights, experts


@op("x[T, K], w[E, 2*I, K]:weight, experts[T, A]:i32 -> h[T, A, I]")
def expert_gate_up(x: Any, w: Any, experts: Any) -> Any:
    """SwiGLU of each row in each of its experts: h = silu(gate) * up, w = gate rows, then up rows."""
    half = w.shape[1] // 2
    hidden = np.empty((*experts.shape, half), x.dtype)
    for expert in np.unique(experts):
        rows, slots = np.nonzero(experts == expert)
        both = x[rows] @ w[expert].T
        gate, up = both[:, :half], both[:, half:]
        hidden[rows, slots] = gate / (1 + np.exp(-gate)) * up
    return hidden


@op("h[T, A, I], w[E, N, I]:weight, experts[T, A]:i32, weights[T, A], r[T, N] -> y[T, N]")
def expert_down(h: Any, w: Any, experts: Any, weights: Any, r: Any) -> Any:
    """Weighted sum of the experts' down projections onto a residual: y = r + sum_a weights_a * (h_a @ w[experts_a].T)."""
    total = r.copy()
    for expert in np.unique(experts):
        rows, slots = np.nonzero(experts == expert)
        np.add.at(total, rows, weights[rows, slots][:, None] * (h[rows, slots] @ w[expert].T))
    return total


@op("x[T, N], s[T, N], g[T, 1] -> y[T, N]")
def add_gated(x: Any, s: Any, g: Any) -> Any:
    """Add behind a sigmoid gate: y = x + sigmoid(g) * s."""
    return x + s / (1 + np.exp(-g))
