"""Gathering and joining rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.ops.contract import op


@op("w[V, N]:weight, ids[T]:i32 -> y[T, N]")
def embed(w: Any, ids: Any) -> Any:
    """Take rows: y[t] = w[ids[t]]."""
    return w[ids]


@op("w[V, N]:weight, ids[T, Q]:i32, offsets[Q]:i32 -> y[T, N]")
def embed_sum(w: Any, ids: Any, offsets: Any, *, scale: float = 1.0) -> Any:
    """Sum Q rows, one from each of Q tables stacked in w: y[t] = scale * sum_q w[offsets[q] + ids[t, q]]."""
    return w[ids + offsets].sum(axis=1) * scale


@op("h[T, N], x[M, N], index[T]:i32 -> y[T, N]")
def splice(h: Any, x: Any, index: Any) -> Any:
    """Replace rows: y[t] = x[index[t]] where index[t] >= 0, else h[t]."""
    return np.where((index >= 0)[:, None], x[np.maximum(index, 0)], h)


@op("h[T, N], x[M, N], index[T]:i32 -> y[T, N]")
def add_rows(h: Any, x: Any, index: Any) -> Any:
    """Add to chosen rows: y[t] = h[t] + x[index[t]] where index[t] >= 0, else h[t]."""
    return h + np.where((index >= 0)[:, None], x[np.maximum(index, 0)], 0)


@op("a[M, N], b[T, N] -> y[M + T, N]")
def concat_rows(a: Any, b: Any) -> Any:
    """Join: the rows of a, then those of b."""
    return np.concatenate([a, b])
