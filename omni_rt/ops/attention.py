"""Attention with masks by rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.ops.contract import op


@op("q[T, H, D], k[S, G, D]:cache, v[S, G, D]:cache, length[1]:i32 -> y[T, H, D]")
def attention(
    q: Any, k: Any, v: Any, length: Any, *, scale: float, causal: bool, window: int = 0, block: int = 0
) -> Any:
    """Softmax attention of T queries, the last of `length` positions, over keys and values in a ring of S rows.

    Position p lies in row p mod S; query head h reads key head h // (H / G). `causal` hides later positions; `window`
    > 0 hides those `window` or more before the query; `block` > 0 shows only positions of the query's own block of that
    many. A window W needs S >= W + T - 1. Without a cache pass length = [S].
    """
    queries, heads, width = q.shape
    rows, groups, _ = k.shape
    end = int(length[0])
    positions = np.arange(max(0, end - rows), end)
    own = np.arange(end - queries, end)[:, None]
    visible = np.ones((queries, len(positions)), bool)
    if causal:
        visible &= positions <= own
    if window:
        visible &= own - positions < window
    if block:
        visible &= positions // block == own // block
    keys, values = k[positions % rows], v[positions % rows]
    grouped = q.reshape(queries, groups, heads // groups, width)
    out = np.empty_like(grouped)
    for group in range(groups):
        scores = np.einsum("tgd,sd->tgs", grouped[:, group], keys[:, group], optimize=True) * scale
        scores = np.where(visible[:, None, :], scores, -np.inf)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        out[:, group] = scores @ values[:, group]
    return out.reshape(queries, heads, width)
