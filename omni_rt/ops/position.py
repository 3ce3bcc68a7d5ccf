"""Positions: rotary tables, rotation, and appending keys and values to a cache.

Every position scheme is a table made by `angles`, so there is one rotation. A cache of S rows is a ring: position p lies
in row p mod S. `length` is the number of positions in the cache after the append.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.ops.contract import op


@op("p[T, A], f[A, J] -> table[T, 2*J]")
def angles(p: Any, f: Any) -> Any:
    """Rotary table: theta = p @ f; each row holds cos(theta), then sin(theta).

    `p` are positions on A axes, `f` the frequency of each of the J pairs on each axis, zero where a pair ignores an axis.
    """
    theta = p @ f
    return np.concatenate([np.cos(theta), np.sin(theta)], axis=-1)


def _rotate(x: Any, table: Any) -> Any:
    half = x.shape[-1] // 2
    cos, sin = table[:, None, :half], table[:, None, half:]
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _normalise(x: Any, w: Any, epsilon: float) -> Any:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * w


def _append(cache: Any, rows: Any, length: Any) -> None:
    first = int(length[0]) - len(rows)
    cache[np.arange(first, first + len(rows)) % len(cache)] = rows


@op("x[T, H, D], table[T, D] -> y[T, H, D]")
def rope(x: Any, table: Any) -> Any:
    """Rotate the pairs (i, i + D/2) of every head by the angles of the row."""
    return _rotate(x, table)


@op(
    "k[T, G, D], v[T, G, D], cache_k[S, G, D]:cache, cache_v[S, G, D]:cache, length[1]:i32 ->",
    mutates=("cache_k", "cache_v"),
)
def kv_append(k: Any, v: Any, cache_k: Any, cache_v: Any, length: Any) -> None:
    """Write T keys and values at positions length - T .. length - 1. The caches are changed in place."""
    _append(cache_k, k, length)
    _append(cache_v, v, length)


@op(
    "qkv[T, M], table[T, D], cache_k[S, G, D]:cache, cache_v[S, G, D]:cache, length[1]:i32 -> q[T, M // D - 2 * G, D]",
    mutates=("cache_k", "cache_v"),
)
def rope_append(qkv: Any, table: Any, cache_k: Any, cache_v: Any, length: Any) -> Any:
    """Split the rows of a fused projection into queries, keys and values; rotate queries and keys; append keys and values."""
    groups, width = cache_k.shape[1:]
    heads = qkv.reshape(len(qkv), -1, width)
    count = heads.shape[1] - 2 * groups
    _append(cache_k, _rotate(heads[:, count : count + groups], table), length)
    _append(cache_v, heads[:, count + groups :], length)
    return _rotate(heads[:, :count], table)


@op(
    "qkv[T, M], q_norm[D], k_norm[D], table[T, D], cache_k[S, G, D]:cache, cache_v[S, G, D]:cache, length[1]:i32"
    " -> q[T, M // D - 2 * G, D]",
    mutates=("cache_k", "cache_v"),
)
def norm_rope_append(
    qkv: Any, q_norm: Any, k_norm: Any, table: Any, cache_k: Any, cache_v: Any, length: Any, *, epsilon: float
) -> Any:
    """As rope_append, with an RMSNorm of each query and key head before the rotation."""
    groups, width = cache_k.shape[1:]
    heads = qkv.reshape(len(qkv), -1, width)
    count = heads.shape[1] - 2 * groups
    keys = _normalise(heads[:, count : count + groups], k_norm, epsilon)
    _append(cache_k, _rotate(keys, table), length)
    _append(cache_v, heads[:, count + groups :], length)
    return _rotate(_normalise(heads[:, :count], q_norm, epsilon), table)
