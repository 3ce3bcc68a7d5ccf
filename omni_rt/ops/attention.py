"""Attention with masks by rule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from omni_rt.ops.contract import Call, Kernel, Native, Tolerance, cdiv, op
from omni_rt.ops.grids import ENOUGH, Grid

UNIFORMS = ("T", "H", "D", "S", "G", "scale", "causal", "window", "block")
F16 = {"k": "f16", "v": "f16"}


MOST_SCORES = 1 << 22
"""Scores of one group of heads that the reference holds at once."""

DECODE_KERNELS = tuple(product((1, 2, 4, 8), (1, 2, 3, 4)))
"""Query heads that share a key head, up to so many, and the 32 values of a head that each step covers."""

PREFILL_FROM = 17
"""Queries from which a tile of 32 pays; below, one workgroup per query makes better use of a GPU."""


def _in_any_way(call: Call) -> bool:
    others = (call.D % 4 == 0 and _is_prefill(call)) or in_runs(call.H, call.G, call.D)
    return bool(call.D <= 256 and not others)


def _is_prefill(call: Call) -> bool:
    return bool((call.dims.get("as_rows") or call.T) >= PREFILL_FROM)


def in_runs(heads: int, key_heads: int, width: int) -> bool:
    """Say whether the decode kernels take such heads: 8 lanes share a key, a workgroup up to 8 query heads."""
    return width % 4 == 0 and width <= 128 and heads // key_heads <= 8


def run_kernels(shader: str, uniforms: tuple[str, ...], grid: Grid, dtypes: Mapping[str, str]) -> list[Kernel]:
    """Return a decode kernel for each number of query heads that share a key head, and each width of a head."""
    kernels = []
    for repeat, steps in DECODE_KERNELS:

        def when(call: Call, repeat: int = repeat, steps: int = steps) -> bool:
            shared = repeat // 2 < call.H // call.G <= repeat
            return in_runs(call.H, call.G, call.D) and shared and cdiv(call.D, 32) == steps and not _is_prefill(call)

        variants = ({"REPEAT": repeat, "STEPS": steps},)
        kernels.append(Kernel(shader, uniforms, grid, dtypes=dtypes, when=when, variants=variants))
    return kernels


def _prefill(shader: str, dtypes: Mapping[str, str]) -> list[Kernel]:
    """Return the prefill kernel for ranges of D: a lane keeps as many queries as fill a tile with 128 lanes."""
    kernels = []
    for rows, queries, above, most in (
        (4, 64, 0, 32),
        (8, 64, 32, 64),
        (10, 64, 64, 84),
        (16, 64, 84, 128),
        (16, 32, 128, 256),
    ):

        def when(call: Call, above: int = above, most: int = most) -> bool:
            return _is_prefill(call) and call.D % 4 == 0 and above < call.D <= most

        def grid(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
            tile = min(variant["QUERIES"], 128 // (call.D // 4) * variant["ROWS"])
            return cdiv(call.T, tile), call.H, 1

        whole = {"ROWS": rows, "QUERIES": queries}
        variants = (whole,) if queries == 32 else ({"ROWS": rows // 2, "QUERIES": 32}, whole)
        kernels.append(Kernel(shader, UNIFORMS, grid, dtypes=dtypes, when=when, variants=variants))
    return kernels


def visible_positions(
    end: int, queries: int, t: int, rows: int, *, causal: bool, window: int, block: int
) -> tuple[int, int]:
    """Return the first visible position of query t and the one after the last; see `attention`."""
    own = end - queries + t
    first, last = max(0, end - rows), end
    if causal:
        last = own + 1
    if window:
        first = max(first, own - window + 1)
    if block:
        first, last = max(first, own // block * block), min(last, (own // block + 1) * block)
    return first, last


def attention_example(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Queries and keys with scores up to about 30, and a length inside the ring's first turn or behind it.

    Larger scores would test nothing but the rounding of a score in f32, which the exponential magnifies.
    """
    queries = rng.normal(size=(dims["T"], dims["H"], dims["D"])) * rng.choice([0.1, 1, 8], (dims["T"], dims["H"], 1))
    first = dims["S"] if dims["S"] > 1000 else int(rng.choice([dims["T"], dims["S"], 3 * dims["S"] + 1]))
    return {
        "q": queries / (dims["scale"] * dims["D"] ** 0.5),
        "k": rng.normal(size=(dims["S"], dims["G"], dims["D"])),
        "length": np.array([first]),
    }


def attention_flops(call: Call) -> float:
    """Return the operations of T queries at the end of S positions: two products with the keys that each may see."""
    rule = {"causal": call.causal, "window": call.window, "block": call.block}
    runs = [visible_positions(call.S, call.T, t, call.S, **rule) for t in range(call.T)]
    return 4 * call.H * call.D * sum(last - first for first, last in runs)


def attention_call(t: int, s: int, heads: tuple[int, int], d: int, **rule: int) -> dict[str, Any]:
    """Return a call of T, S, (H, G) and D, causal unless told otherwise."""
    rules = {"causal": bool(rule.get("causal", 1)), "window": rule.get("window", 0), "block": rule.get("block", 0)}
    return {"T": t, "S": s, "H": heads[0], "G": heads[1], "D": d, "scale": d**-0.5} | rules


def decode_calls() -> list[dict[str, Any]]:
    """Return a call for each decode kernel: by query heads that share a key head, and width of a head."""
    return [attention_call(1, 90, (repeat, 1), 32 * steps - 4) for repeat, steps in DECODE_KERNELS]


@op(
    "q[T, H, D], k[S, G, D]:float, v[S, G, D]:float, length[1]:i32 -> y[T, H, D]",
    kernels=[
        *_prefill("attention_prefill", {}),
        *_prefill("attention_f16_prefill", F16),
        *run_kernels("attention_decode", UNIFORMS, lambda c, v: (c.G, c.T, 1), {}),
        *run_kernels("attention_f16_decode", UNIFORMS, lambda c, v: (c.G, c.T, 1), F16),
        Kernel("attention", UNIFORMS, lambda c, v: (c.H, min(c.T, ENOUGH), 1), when=_in_any_way),
    ],
    natives=(Native("attention_f32", UNIFORMS), Native("attention_f16", UNIFORMS, F16)),
    # float32 keeps a score of 30 to 2e-6, which the exponential makes a share of a value; a spike is 100 times the RMS.
    tolerance=Tolerance(peak=2e-4),
    domain=[
        *decode_calls(),
        attention_call(1, 1, (1, 1), 4),
        attention_call(1, 9, (4, 2), 24),
        attention_call(1, 2100, (2, 1), 64),
        attention_call(1, 300, (3, 3), 5),
        attention_call(40, 60, (2, 2), 64, window=9) | {"as_rows": 8},
        attention_call(2, 90, (9, 1), 16),
        attention_call(2, 70, (8, 1), 128, window=33),
        attention_call(3, 40, (2, 2), 72, causal=0),
        attention_call(5, 40, (6, 2), 256, window=7, causal=0),
        attention_call(33, 33, (2, 1), 72, block=8, causal=0),
        attention_call(33, 100, (2, 2), 64, block=50),
        attention_call(37, 130, (4, 2), 24, window=40),
        attention_call(33, 65, (2, 1), 10, window=9),
        attention_call(70, 70, (2, 1), 256, causal=0),
        attention_call(65, 200, (3, 1), 128),
        attention_call(17, 40, (1, 1), 4, window=20),
    ],
    example=attention_example,
    flops=attention_flops,
    bench=(
        attention_call(1, 4096, (32, 4), 128),  # Qwen3-Omni thinker, one decode step
        attention_call(1, 1024, (16, 8), 128),  # Qwen3-TTS talker, one decode step
        attention_call(512, 4096, (32, 4), 128),  # Qwen3-Omni thinker, prefill
        attention_call(900, 900, (20, 20), 64, causal=0, block=104),  # Qwen3-Omni audio encoder
        attention_call(1024, 1024, (16, 16), 72, causal=0),  # Qwen3-Omni vision encoder
    ),
)
def attention(
    q: Any,
    k: Any,
    v: Any,
    length: Any,
    *,
    scale: float,
    causal: bool,
    window: int = 0,
    block: int = 0,
    as_rows: int = 0,
) -> Any:
    """Softmax attention of T queries, the last of `length` positions, over keys and values in a ring of S rows.

    Position p lies in row p mod S; query head h reads key head h // (H / G). `causal` hides later positions; `window`
    > 0 hides those `window` or more before the query; `block` > 0 shows only positions of the query's own block of that
    many. A window W needs S >= W + T - 1. Without a cache pass length = [S]. `as_rows` as in matmul, up to 16: tiles of
    queries share where they cut the keys.
    """
    queries, heads, width = q.shape
    rows, groups, _ = k.shape
    end = int(length[0])
    positions = np.arange(max(0, end - rows), end)
    keys, values = k[positions % rows], v[positions % rows]
    grouped = q.reshape(queries, groups, heads // groups, width)
    if as_rows:  # as in matmul: the float32 sums of a BLAS depend on the number of rows
        grouped, keys, values = (np.asarray(array, np.float64) for array in (grouped, keys, values))
    out = np.empty(grouped.shape, q.dtype)
    # A large picture has 12,000 queries and as many keys: a few of the scores at a time.
    step = max(1, MOST_SCORES // max(1, len(positions) * (heads // groups)))
    for first in range(0, queries, step):
        some = slice(first, first + step)
        own = np.arange(end - queries, end)[some, None]
        visible = np.ones((len(own), len(positions)), bool)
        if causal:
            visible &= positions <= own
        if window:
            visible &= own - positions < window
        if block:
            visible &= positions // block == own // block
        for group in range(groups):
            scores = np.einsum("tgd,sd->tgs", grouped[some, group], keys[:, group], optimize=True) * scale
            scores = np.where(visible[:, None, :], scores, -np.inf)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            out[some, group] = scores @ values[:, group]
    return out.reshape(queries, heads, width)
