"""Attention of few queries over a long cache: the keys are cut into runs, one workgroup each, and merged afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.attention import (
    F16,
    PREFILL_FROM,
    attention,
    attention_call,
    attention_example,
    attention_flops,
    decode_calls,
    in_runs,
    run_kernels,
    visible_positions,
)
from omni_rt.ops.contract import Call, Kernel, cdiv, op
from omni_rt.tensor import Tensor

UNIFORMS = ("T", "H", "D", "S", "G", "scale", "causal", "window", "block", "parts")
SHORTEST_RUN = 64
"""Keys below which a run is not cut further."""
MOST_PARTS = 32
SPLIT_FROM = 128
"""Rows of a cache from which the second dispatch pays."""


def _grid(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
    return call.parts, call.G, call.T


def _merge_example(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Peaks and totals of runs, some of which held no keys; never all of them."""
    stats = np.stack(
        [rng.normal(size=(dims["T"], dims["H"], dims["P"])) * 5, rng.random((dims["T"], dims["H"], dims["P"])) + 1], -1
    )
    sums = rng.normal(size=(dims["T"], dims["H"], dims["P"], dims["D"]))
    empty = rng.random((dims["T"], dims["H"], dims["P"])) < 0.3
    empty[..., 0] = False
    stats[empty], sums[empty] = 0, 0
    return {"sums": sums, "stats": stats}


@op(
    "q[T, H, D], k[S, G, D]:float, v[S, G, D]:float, length[1]:i32 -> sums[T, H, parts, D], stats[T, H, parts, 2]",
    kernels=[
        *run_kernels("attention_parts", UNIFORMS, _grid, {}),
        *run_kernels("attention_f16_parts", UNIFORMS, _grid, F16),
    ],
    domain=[
        *(call | {"parts": 2} for call in decode_calls()),
        attention_call(1, 1, (1, 1), 4) | {"parts": 1},
        attention_call(1, 300, (8, 1), 128) | {"parts": 4},
        attention_call(1, 900, (6, 2), 24) | {"parts": 3},
        attention_call(2, 700, (4, 2), 72, window=399) | {"parts": 5},
        attention_call(3, 140, (3, 3), 64, causal=0, block=100) | {"parts": 3},
    ],
    example=attention_example,
    flops=attention_flops,
    bench=(
        attention_call(1, 4096, (32, 4), 128) | {"parts": 32},  # Qwen3-Omni thinker, one decode step
        attention_call(1, 1024, (16, 8), 128) | {"parts": 8},  # Qwen3-TTS talker, one decode step
    ),
)
def attention_parts(
    q: Any,
    k: Any,
    v: Any,
    length: Any,
    *,
    scale: float,
    causal: bool,
    window: int = 0,
    block: int = 0,
    parts: int,
) -> tuple[Any, Any]:
    """Do the first half of `attention`: add up the weighted values, and the weights, of each run of the visible keys.

    The visible positions of a query are cut into `parts` runs of equal length, at least 64; the last ones may be
    shorter or empty (all zeros). A weight is the exponential of a score less the largest of its run; `stats` hold that
    largest score and the sum of the weights.
    """
    queries, heads, width = q.shape
    rows, groups, _ = k.shape
    sums = np.zeros((queries, heads, parts, width), q.dtype)
    stats = np.zeros((queries, heads, parts, 2), q.dtype)
    for t in range(queries):
        first, last = visible_positions(int(length[0]), queries, t, rows, causal=causal, window=window, block=block)
        run = max(cdiv(last - first, parts), SHORTEST_RUN)
        for part, start in enumerate(range(first, last, run)):
            positions = np.arange(start, min(start + run, last)) % rows
            for group in range(groups):
                own = slice(group * heads // groups, (group + 1) * heads // groups)
                scores = q[t, own] @ k[positions, group].T * scale
                peaks = scores.max(axis=-1, keepdims=True)
                weights = np.exp(scores - peaks)
                sums[t, own, part] = weights @ v[positions, group]
                stats[t, own, part] = np.concatenate([peaks, weights.sum(axis=-1, keepdims=True)], axis=-1)
    return sums, stats


@op(
    "sums[T, H, P, D], stats[T, H, P, 2] -> y[T, H, D]",
    kernels=(Kernel("attention_merge", ("T", "H", "P", "D"), lambda c, v: (c.H, c.T, cdiv(c.D, 32))),),
    domain=[
        {"T": t, "H": h, "P": p, "D": d}
        for t, h, p, d in ((1, 1, 1, 4), (2, 3, 5, 72), (1, 8, 32, 128), (1, 2, 3, 130), (1, 1, 337, 40))
    ],
    example=_merge_example,
    bench=({"T": 1, "H": 32, "P": 32, "D": 128}, {"T": 1, "H": 16, "P": 8, "D": 128}),  # as attention_parts
)
def attention_merge(sums: Any, stats: Any) -> Any:
    """Do the second half of `attention`: weigh the runs of `attention_parts` against each other, and divide."""
    peaks, totals = stats[..., 0], stats[..., 1]
    peak = np.where(totals > 0, peaks, -np.inf).max(axis=-1, keepdims=True)
    shares = np.where(totals > 0, np.exp(np.minimum(peaks - peak, 0)), 0)
    return (sums * shares[..., None]).sum(axis=2) / (totals * shares).sum(axis=-1)[..., None]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    length: Tensor,
    *,
    scale: float,
    causal: bool,
    window: int = 0,
    as_rows: int = 0,
) -> Tensor:
    """Softmax attention as `attention`, over a long cache for few queries in two steps that fill a GPU.

    q [T, H, D], k and v [S, G, D], length [1]; returns [T, H, D]. `as_rows` as in `attention`.
    """
    (queries, heads, width), (rows, groups, _) = q.shape, k.shape
    queries = as_rows or queries
    reach = min(rows, window + queries - 1) if window else rows
    # A CPU has no idle workgroups to fill, and computes attention in one piece natively.
    if q.device.kind == "cpu" or queries >= PREFILL_FROM or reach < SPLIT_FROM or not in_runs(heads, groups, width):
        return attention(q, k, v, length, scale=scale, causal=causal, window=window, as_rows=as_rows)
    parts = min(cdiv(reach, 2 * SHORTEST_RUN), MOST_PARTS)
    halves = attention_parts(q, k, v, length, scale=scale, causal=causal, window=window, parts=parts)
    return attention_merge(*halves)
