"""Positions: rotary tables, rotation, and appending keys and values to a cache.

Every position scheme is a table made by `angles`, so there is one rotation. A cache of S rows is a ring: position p
lies in row p mod S. `length` is the number of positions in the cache after the append.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import Call, Kernel, Native, op
from omni_rt.ops.grids import ENOUGH, lanes
from omni_rt.ops.norm import rms_norm

Arrays = Mapping[str, np.ndarray]
F16 = {"cache_k": "f16", "cache_v": "f16"}


def _angle_example(rng: np.random.Generator, dims: Mapping[str, Any]) -> Arrays:
    """Positions up to 65535 and frequencies of 8 bits, so that a single axis has a product that f32 holds exactly."""
    p = rng.integers(0, 65536, (dims["T"], dims["A"])).astype(np.float64)
    f = np.zeros((dims["A"], dims["J"]))
    f[rng.integers(0, dims["A"], dims["J"]), np.arange(dims["J"])] = rng.integers(1, 257, dims["J"]) / 256
    return {"p": p, "f": f}


def _length_example(rng: np.random.Generator, dims: Mapping[str, Any]) -> Arrays:
    """A length that leaves the append inside the ring's first turn, or wraps it, or lies far behind it."""
    first = int(rng.choice([0, dims["S"] // 2, dims["S"] - 1, 5 * dims["S"] + 3]))
    return {"length": np.array([first + dims["T"]])}


def _heads(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
    """Return one workgroup per head and row."""
    return call.M // call.D, min(call.T, ENOUGH), 1


def _append_domain(heads: tuple[tuple[int, int], ...], *, fused: bool, **attributes: float) -> list[dict[str, Any]]:
    """Calls with T rows into S for (T, S) below, at and above what one turn of the ring leaves free."""
    widths, rows = (2, 24, 64, 72), ((1, 1), (1, 9), (5, 5), (33, 40))
    calls: list[dict[str, Any]] = []
    for (queries, groups), width, (t, s) in zip(heads, widths, rows, strict=True):
        call = {"T": t, "S": s, "G": groups, "D": width} | attributes
        calls.append(call | {"M": (queries + 2 * groups) * width} if fused else call)
    return calls


APPEND_HEADS = ((1, 1), (6, 2), (3, 3), (8, 1))
APPEND_BENCH = (
    {"T": 1, "M": 5120, "D": 128, "S": 4096, "G": 4},  # Qwen3-Omni thinker, one decode step
    {"T": 512, "M": 5120, "D": 128, "S": 4096, "G": 4},  # Qwen3-Omni thinker, prefill
    {"T": 1, "M": 4096, "D": 128, "S": 4096, "G": 8},  # Qwen3-TTS talker, code predictors
)

APPENDED = {name: lambda c: c["T"] / c["S"] for name in ("cache_k", "cache_v")}


def _natives(name: str, uniforms: tuple[str, ...]) -> tuple[Native, ...]:
    """Return the C bodies of an append, by the dtype of the cache."""
    return Native(f"{name}_f32", uniforms), Native(f"{name}_f16", uniforms, F16)


@op(
    "p[T, A], f[A, J] -> table[T, 2*J]",
    kernels=[
        Kernel("angles", uniforms=("T", "A", "J"), grid=lambda c, v: lanes(c.T * c.J, 64)),
    ],
    natives=(Native("angles", ("T", "A", "J")),),
    domain=[{"T": t, "A": a, "J": j} for t, a, j in ((1, 1, 1), (1, 3, 64), (33, 1, 36), (5, 2, 7), (4099, 1, 65))],
    example=_angle_example,
    bench=({"T": 1, "A": 3, "J": 64}, {"T": 512, "A": 3, "J": 64}),  # Qwen3-Omni thinker
)
def angles(p: Any, f: Any) -> Any:
    """Rotary table: theta = p @ f; each row holds cos(theta), then sin(theta).

    `p` are positions on A axes, `f` the frequency of each of the J pairs on each axis, zero where a pair ignores it.
    """
    theta = p @ f
    return np.concatenate([np.cos(theta), np.sin(theta)], axis=-1)


def _rotate(x: Any, table: Any) -> Any:
    half = x.shape[-1] // 2
    cos, sin = table[:, None, :half], table[:, None, half:]
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _append(cache: Any, rows: Any, length: Any) -> None:
    first = int(length[0]) - len(rows)
    cache[np.arange(first, first + len(rows)) % len(cache)] = rows


@op(
    "x[T, H, D], table[T, D] -> y[T, H, D]",
    kernels=[Kernel("rope", uniforms=("T", "H", "D"), grid=lambda c, v: lanes(c.T * c.H * c.D // 2))],
    natives=(Native("rope", ("T", "H", "D")),),
    domain=[{"T": t, "H": h, "D": d} for t, h, d in ((1, 1, 2), (1, 3, 128), (2, 5, 24), (33, 2, 72))],
    bench=({"T": 1000, "H": 32, "D": 72}, {"T": 100, "H": 16, "D": 64}),  # Qwen3-Omni vision encoder, code2wav
)
def rope(x: Any, table: Any) -> Any:
    """Rotate the pairs (i, i + D/2) of every head by the angles of the row."""
    return _rotate(x, table)


@op(
    "k[T, G, D], v[T, G, D], cache_k[S, G, D]:float, cache_v[S, G, D]:float, length[1]:i32 ->",
    mutates=("cache_k", "cache_v"),
    kernels=[
        Kernel("kv_append", uniforms=("T", "S", "G", "D"), grid=lambda c, v: lanes(c.T * c.G * c.D)),
        Kernel(
            "kv_append_f16",
            uniforms=("T", "S", "G", "D"),
            grid=lambda c, v: lanes(c.T * c.G * c.D // 2),
            dtypes=F16,
            when=lambda c: c.D % 2 == 0,
        ),
    ],
    natives=_natives("kv_append", ("T", "S", "G", "D")),
    domain=_append_domain(APPEND_HEADS, fused=False),
    example=_length_example,
    touched=APPENDED,
    bench=({"T": 1, "S": 4096, "G": 4, "D": 128}, {"T": 512, "S": 4096, "G": 4, "D": 128}),  # Qwen3-Omni thinker
)
def kv_append(k: Any, v: Any, cache_k: Any, cache_v: Any, length: Any) -> None:
    """Write T keys and values at positions length - T .. length - 1. The caches are changed in place."""
    _append(cache_k, k, length)
    _append(cache_v, v, length)


@op(
    "qkv[T, M], table[T, D], cache_k[S, G, D]:float, cache_v[S, G, D]:float, length[1]:i32 -> q[T, M // D - 2 * G, D]",
    mutates=("cache_k", "cache_v"),
    kernels=[
        Kernel("rope_append", uniforms=("T", "M", "S", "G", "D"), grid=lambda c, v: lanes(c.T * c.M // 2)),
        Kernel(
            "rope_append_f16",
            uniforms=("T", "M", "S", "G", "D"),
            grid=lambda c, v: lanes(c.T * c.M // 4),
            dtypes=F16,
            when=lambda c: c.D % 4 == 0,
        ),
    ],
    natives=_natives("rope_append", ("T", "M", "S", "G", "D")),
    domain=_append_domain(APPEND_HEADS, fused=True),
    example=_length_example,
    touched=APPENDED,
    bench=APPEND_BENCH,
)
def rope_append(qkv: Any, table: Any, cache_k: Any, cache_v: Any, length: Any) -> Any:
    """Split rows of a fused projection into queries, keys and values; rotate the first two; append keys and values."""
    groups, width = cache_k.shape[1:]
    heads = qkv.reshape(len(qkv), -1, width)
    count = heads.shape[1] - 2 * groups
    _append(cache_k, _rotate(heads[:, count : count + groups], table), length)
    _append(cache_v, heads[:, count + groups :], length)
    return _rotate(heads[:, :count], table)


@op(
    "qkv[T, M], q_norm[D], k_norm[D], table[T, D], cache_k[S, G, D]:float, cache_v[S, G, D]:float, length[1]:i32"
    " -> q[T, M // D - 2 * G, D]",
    mutates=("cache_k", "cache_v"),
    kernels=[
        Kernel("norm_rope_append", uniforms=("T", "M", "S", "G", "D", "epsilon"), grid=_heads),
        Kernel(
            "norm_rope_append_f16",
            uniforms=("T", "M", "S", "G", "D", "epsilon"),
            grid=_heads,
            dtypes=F16,
            when=lambda c: c.D % 4 == 0,
        ),
    ],
    natives=_natives("norm_rope_append", ("T", "M", "S", "G", "D", "epsilon")),
    domain=_append_domain(APPEND_HEADS, fused=True, epsilon=1e-6),
    example=_length_example,
    touched=APPENDED,
    bench=[call | {"epsilon": 1e-6} for call in APPEND_BENCH],
)
def norm_rope_append(
    qkv: Any, q_norm: Any, k_norm: Any, table: Any, cache_k: Any, cache_v: Any, length: Any, *, epsilon: float
) -> Any:
    """As rope_append, with an RMSNorm of each query and key head before the rotation."""
    groups, width = cache_k.shape[1:]
    heads = qkv.reshape(len(qkv), -1, width)
    count = heads.shape[1] - 2 * groups
    keys = rms_norm.body(heads[:, count : count + groups], k_norm, epsilon=epsilon)
    _append(cache_k, _rotate(keys, table), length)
    _append(cache_v, heads[:, count + groups :], length)
    return _rotate(rms_norm.body(heads[:, :count], q_norm, epsilon=epsilon), table)
