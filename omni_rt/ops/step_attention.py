"""Attention of a decode step: one row's queries, its key and value appended on the way, in one dispatch or two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from omni_rt.ops.attention import attention
from omni_rt.ops.contract import Call, Kernel, Tolerance, op
from omni_rt.ops.grids import Grid
from omni_rt.ops.position import norm_rope_append
from omni_rt.ops.split_attention import attend, attention_merge, attention_parts
from omni_rt.tensor import Tensor

SIGNATURE = (
    "qkv[T, M], q_norm[D], k_norm[D], table[T, D], cache_k[S, G, D]:float, cache_v[S, G, D]:float, length[1]:i32 -> "
)
UNIFORMS = ("S", "G", "D", "H", "epsilon", "scale", "window")
F16 = {"cache_k": "f16", "cache_v": "f16"}
EXPONENTIAL = Tolerance(nmse=1e-8, peak=2e-3)
"""Spikes make scores of hundreds, which float32 keeps to 1e-5: the exponential makes a share of a value of that."""

PARTS = ((256, 1), (512, 8), (1024, 16), (1 << 31, 32))
"""Runs that the visible positions are cut into, by how many there are at most. One run needs no second dispatch."""

SHORT_CACHE = 32
"""Rows of a cache up to which a slot takes two keys at a time: more would be none."""


def _kernels(
    shader: str, uniforms: tuple[str, ...], grid: Grid, choices: tuple[tuple[int, int, int], ...]
) -> list[Kernel]:
    """Return a kernel for each width of a head: for short caches, for four, two or one heads of a key head at a time.

    `choices` are heads of a workgroup, keys that a slot takes at a time and lanes, the one to use by default first.
    Heads share what they read, but the more, the fewer workgroups.
    """

    def kernel(wide: int, chosen: Iterable[tuple[int, int, int]], takes: Callable[[Call], bool]) -> Kernel:
        def when(c: Call) -> bool:
            return c.T == 1 and c.D % 8 == 0 and 8 * wide - 64 < c.D <= 8 * wide and takes(c)

        fitting = dict.fromkeys((heads, min(keys, wide // heads), lanes) for heads, keys, lanes in chosen)
        names = ("REPEAT", "KEYS", "LANES")
        variants = tuple(dict(zip(names, choice, strict=True)) | {"WIDE": wide} for choice in fitting)
        return Kernel(shader, uniforms, grid, F16, when, variants, needs=("subgroup",))

    def of_heads(wide: int, most: int) -> Kernel:
        return kernel(wide, [choice for choice in choices if choice[0] <= most], lambda c: c.H // c.G % most == 0)

    kernels = []
    for wide in (8, 16):
        kernels.append(kernel(wide, ((1, 2, 256), (1, 8, 256)), lambda c: c.S <= SHORT_CACHE))
        kernels += [of_heads(wide, most) for most in (4, 2, 1)]
    return kernels


def parts_for(positions: int) -> int:
    """Return the runs into which attention over up to so many positions is cut in a decode step."""
    return next(parts for most, parts in PARTS if positions <= most)


def _call(s: int, heads: tuple[int, int], d: int, window: int = 0) -> dict[str, Any]:
    queries, groups = heads
    sizes = {"T": 1, "M": (queries + 2 * groups) * d, "D": d, "S": s, "G": groups, "H": queries}
    return sizes | {"epsilon": 1e-6, "scale": d**-0.5, "window": window}


def _example(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Norms that keep scores moderate, and a length inside the ring's first turn or behind it."""
    rows = dims["S"]
    length = int(rng.choice([1, rows // 2 + 1, rows, 3 * rows + 1])) if rows < 1000 else rows
    turn = rng.random((1, dims["D"] // 2)) * 7
    return {
        "q_norm": rng.normal(size=dims["D"]),
        "k_norm": rng.normal(size=dims["D"]),
        "table": np.concatenate([np.cos(turn), np.sin(turn)], axis=1),
        "length": np.array([length]),
    }


CALLS = (
    *(_call(90, (repeat, 1), width) for repeat in (1, 2, 4, 8) for width in (56, 120)),
    _call(1, (1, 1), 8),
    _call(50, (6, 2), 40),
    _call(50, (6, 1), 128),
    _call(300, (12, 1), 16),
    _call(16, (16, 8), 128),
    _call(300, (8, 2), 128),
    _call(70, (4, 2), 72, window=33),
)
BENCH = (
    _call(4096, (32, 4), 128),  # Qwen3-Omni thinker, one decode step
    _call(1024, (16, 8), 128),  # Qwen3-TTS talker
)


@op(
    SIGNATURE + "y[T, H, D]",
    mutates=("cache_k", "cache_v"),
    kernels=_kernels(
        "append_attend_f16", UNIFORMS, lambda c, v: (c.H // v["REPEAT"], 1, 1), ((1, 4, 256), (1, 8, 256), (2, 4, 256))
    ),
    tolerance=EXPONENTIAL,
    domain=CALLS,
    example=_example,
    bench=(_call(128, (32, 4), 128), _call(16, (16, 8), 128)),  # Qwen3-Omni thinker, code predictors
)
def append_attend(
    qkv: Any,
    q_norm: Any,
    k_norm: Any,
    table: Any,
    cache_k: Any,
    cache_v: Any,
    length: Any,
    *,
    H: int,
    epsilon: float,
    scale: float,
    window: int = 0,
) -> Any:
    """Do in one: q = norm_rope_append(qkv, ..); y = attention(q, cache_k, cache_v, length), causal. H query heads."""
    q = norm_rope_append.body(qkv, q_norm, k_norm, table, cache_k, cache_v, length, epsilon=epsilon)
    return attention.body(q, cache_k, cache_v, length, scale=scale, causal=True, window=window)


@op(
    SIGNATURE + "sums[T, H, parts, D], stats[T, H, parts, 2]",
    mutates=("cache_k", "cache_v"),
    kernels=_kernels(
        "append_attend_parts_f16",
        (*UNIFORMS, "parts"),
        lambda c, v: (c.parts, c.H // v["REPEAT"], 1),
        ((4, 4, 256), (2, 4, 256), (1, 8, 256), (2, 8, 256)),
    ),
    tolerance=EXPONENTIAL,
    domain=[call | {"parts": 3} for call in CALLS],
    example=_example,
    bench=[call | {"parts": parts_for(call["S"])} for call in BENCH],
)
def append_attend_parts(
    qkv: Any,
    q_norm: Any,
    k_norm: Any,
    table: Any,
    cache_k: Any,
    cache_v: Any,
    length: Any,
    *,
    H: int,
    epsilon: float,
    scale: float,
    window: int = 0,
    parts: int,
) -> tuple[Any, Any]:
    """Do in one: q = norm_rope_append(qkv, ..); attention_parts(q, cache_k, cache_v, length), causal. H query heads."""
    q = norm_rope_append.body(qkv, q_norm, k_norm, table, cache_k, cache_v, length, epsilon=epsilon)
    return attention_parts.body(q, cache_k, cache_v, length, scale=scale, causal=True, window=window, parts=parts)


def attend_appended(
    qkv: Tensor,
    norms: tuple[Tensor, Tensor],
    table: Tensor,
    cache: tuple[Tensor, Tensor],
    length: Tensor,
    *,
    epsilon: float,
    scale: float,
    window: int = 0,
    parts: int = 1,
    as_rows: int = 0,
) -> Tensor:
    """Normalise, rotate and append rows of a fused projection, then attend: on a GPU in one step or two for one row.

    qkv [T, M], norms of queries and keys [D], table [T, D], cache of keys and values [S, G, D], length [1]; returns
    [T, H, D]. `parts` as `parts_for` gives it.
    """
    keys, values = cache
    _, groups, width = keys.shape
    heads = qkv.shape[1] // width - 2 * groups
    fits = width % 8 == 0 and width <= 128
    if "subgroup" in qkv.device.features and len(qkv) == 1 and keys.dtype == "f16" and fits and not as_rows:
        operands = (qkv, *norms, table, keys, values, length)
        rule: Any = {"H": heads, "epsilon": epsilon, "scale": scale, "window": window}
        if parts == 1:
            return append_attend(*operands, **rule)
        return attention_merge(*append_attend_parts(*operands, **rule, parts=parts))
    q = norm_rope_append(qkv, *norms, table, keys, values, length, epsilon=epsilon)
    return attend(q, keys, values, length, scale=scale, causal=True, window=window, as_rows=as_rows)
