"""Choosing tokens: greedy, sampled with a counter-based generator, and the state that a step carries on.

`sample` draws the same token for the same logits, seed, counter and salt on every device; nothing is drawn in sequence,
so a step can be replayed and a token drawn before the host has seen the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import Kernel, Native, op
from omni_rt.ops.grids import lanes, per_row

DRAWING = ("T", "V", "temperature", "top_k", "top_p", "salt")
FEW_LOGITS = 4096
"""Logits of a row up to which the lanes of `sample` load all at once."""

MOST_KEPT = 32
"""Tokens that `advance` moves at most: one a lane."""

Dims = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


def _penalise_example(rng: np.random.Generator, dims: Dims) -> Arrays:
    return {"seen": rng.integers(0, 2, (dims["V"],))}


def _mark_example(rng: np.random.Generator, dims: Dims) -> Arrays:
    return {"seen": rng.integers(0, 2, (dims["V"],)), "ids": rng.integers(0, dims["V"], (dims["T"],))}


def _draw(t: int, v: int, temperature: float, *, top_k: int = 0, top_p: float = 1.0, salt: int = 0) -> dict[str, Any]:
    return {"T": t, "V": v, "temperature": temperature, "top_k": top_k, "top_p": top_p, "salt": salt}


def _draw_example(rng: np.random.Generator, dims: Dims) -> Arrays:
    """Logits spread like a language model's, in one case of two with many ties.

    The mass of a flat row of 1e5 ids would be split more finely than sums in f32 can tell apart.
    """
    logits = 4 * rng.normal(size=(dims["T"], dims["V"]))
    if rng.random() < 0.5:
        logits = np.round(logits * 2) / 2
    seed, counter = rng.integers(-(2**31), 2**31, (2, 1))
    return {"logits": logits, "seed": seed, "counter": counter}


def _put_example(rng: np.random.Generator, dims: Dims) -> Arrays:
    return {"values": rng.integers(0, 1000, (dims["K"],)), "ids": rng.integers(0, 1000, 1)}


def _advance_example(rng: np.random.Generator, dims: Dims) -> Arrays:
    tokens, (length, chosen) = rng.integers(0, 1000, dims["R"]), rng.integers(0, 1000, (2, 1))
    position = rng.integers(0, 1000, (1, dims["A"])).astype(np.float64)
    return {"tokens": tokens, "position": position, "length": length, "chosen": chosen}


@op(
    "x[T, N] -> ids[T]:i32",
    kernels=[Kernel("argmax", uniforms=("T", "N"), grid=per_row)],
    natives=(Native("argmax", ("T", "N")),),
    domain=[
        {"T": t, "N": n} for t, n in ((1, 1), (2, 7), (5, 255), (1, 256), (2, 257), (33, 72), (4099, 2), (1, 152064))
    ],
    bench=({"T": 1, "N": 151936}, {"T": 1, "N": 3072}, {"T": 1, "N": 2048}),  # thinker, talker, code predictor
)
def argmax(x: Any) -> Any:
    """The index of the largest value of each row, the lowest among equals."""
    return x.argmax(axis=-1)


@op(
    "logits[T, V], seen[V]:i32, bias[V] -> y[T, V]",
    kernels=[
        Kernel(
            "penalise",
            uniforms=("T", "V", "penalty"),
            grid=lambda c, v: lanes(c.T * c.V),
        )
    ],
    natives=(Native("penalise", ("T", "V", "penalty")),),
    domain=[{"T": t, "V": v, "penalty": p} for t, v, p in ((1, 1, 1.05), (2, 7, 1.5), (3, 3072, 1.0), (1, 255, 0.5))],
    example=_penalise_example,
    bench=({"T": 1, "V": 3072, "penalty": 1.05},),  # the talkers of Qwen3-Omni and Qwen3-TTS
)
def penalise(logits: Any, seen: Any, bias: Any, *, penalty: float) -> Any:
    """Repetition penalty and suppression: logits of ids with seen > 0 are divided by the penalty if positive and
    multiplied if negative; then the bias (0, or a large negative number for ids that must not be drawn) is added."""
    return np.where(seen > 0, np.where(logits < 0, logits * penalty, logits / penalty), logits) + bias


@op(
    "seen[V]:i32, ids[T]:i32 ->",
    mutates=("seen",),
    kernels=[
        Kernel("mark", uniforms=("T", "V"), grid=lambda c, v: lanes(c.T, 64)),
    ],
    natives=(Native("mark", ("V", "T")),),
    domain=[{"T": t, "V": v} for t, v in ((1, 1), (5, 7), (1, 3072), (65, 100))],
    example=_mark_example,
    bench=({"T": 1, "V": 3072},),  # the talkers
)
def mark(seen: Any, ids: Any) -> None:
    """Set seen[ids[t]] = 1. `seen` is changed in place."""
    seen[ids] = 1


@op(
    "values[K]:i32, ids[1]:i32 ->",
    mutates=("values",),
    kernels=[Kernel("put", uniforms=("at",), grid=lambda c, v: (1, 1, 1))],
    natives=(Native("put", ("K", "at")),),
    domain=[{"K": 1, "at": 0}, {"K": 16, "at": 15}, {"K": 100, "at": 64}],
    example=_put_example,
    bench=({"K": 16, "at": 3},),  # the codes of a frame
)
def put(values: Any, ids: Any, *, at: int) -> None:
    """Set values[at] = ids[0]. `values` is changed in place."""
    values[at] = ids[0]


def uniform(seed: int, counter: int, salt: int, row: int) -> float:
    """Return a number in [0, 1) with 24 random bits, a hash of its four 32-bit arguments."""
    value = 0
    for word in (seed, counter, salt, row):
        value = (value ^ (word & 0xFFFFFFFF)) + 0x9E3779B9 & 0xFFFFFFFF
        value = ((value ^ value >> 16) * 0x7FEB352D) & 0xFFFFFFFF
        value = ((value ^ value >> 15) * 0x846CA68B) & 0xFFFFFFFF
        value ^= value >> 16
    return (value >> 8) / (1 << 24)


@op(
    "logits[T, V], seed[1]:i32, counter[1]:i32 -> ids[T]:i32",
    kernels=[
        Kernel("sample", DRAWING, per_row, when=lambda c: c.V <= FEW_LOGITS, variants=({"BATCH": 4},)),
        Kernel("sample", DRAWING, per_row, variants=({"BATCH": 8},)),
    ],
    natives=(Native("sample", ("T", "V", "temperature", "top_k", "top_p", "salt")),),
    domain=[
        _draw(1, 1, 1.0),
        _draw(5, 7, 0.7),
        _draw(33, 7, 1.3, top_k=3, salt=5),
        _draw(2, 100, 0.9, top_k=50, top_p=0.8),
        _draw(5, 257, 1.0, top_p=0.5),
        _draw(2, 3072, 0.9, top_k=50, salt=1),
        _draw(2, 3072, 0.9, top_k=50, top_p=0.95),
        _draw(2, 3072, 0.9, top_k=129, top_p=0.95),
        _draw(1, 3072, 0.01, top_p=0.0),
        _draw(1, 152064, 0.7, top_k=20, top_p=0.8),
        _draw(1, 152064, 1.0, top_p=0.9),
    ],
    example=_draw_example,
    bench=(
        _draw(1, 3072, 0.9, top_k=50),  # the talkers of Qwen3-Omni and Qwen3-TTS
        _draw(1, 2048, 0.9, top_k=50, top_p=0.8),  # their code predictors
        _draw(1, 151936, 0.7, top_k=20, top_p=0.8),  # Qwen3-Omni thinker
    ),
)
def sample(
    logits: Any, seed: Any, counter: Any, *, temperature: float, top_k: int = 0, top_p: float = 1.0, salt: int = 0
) -> Any:
    """Draw one id per row from softmax(logits / temperature), cut to the top k and then to the nucleus p.

    top_k = 0 and top_p >= 1 leave all. Top-k keeps every logit that equals the k-th largest; the nucleus keeps an id
    unless the ids with larger logits already hold p of the probability. The draw walks the kept ids in rising order.
    Sums are taken in float64, so that devices which add in another order draw the same.
    """
    ids = np.empty(len(logits), np.int64)
    for row, values in enumerate(logits):
        scaled = values.astype(np.float64) / temperature
        kept = np.ones(len(scaled), bool)
        if 0 < top_k < len(scaled):
            kept = scaled >= np.partition(scaled, -top_k)[-top_k]
        weights = np.where(kept, np.exp(scaled - scaled.max()), 0)
        if top_p < 1:
            order = np.argsort(-scaled, kind="stable")
            above = np.concatenate([[0], np.cumsum(weights[order])[:-1]])
            larger = np.searchsorted(-scaled[order], -scaled[order])
            weights[order[(above[larger] >= top_p * weights.sum()) & (larger > 0)]] = 0
        total = np.cumsum(weights)
        draw = uniform(int(seed[0]), int(counter[0]), salt, row) * total[-1]
        ids[row] = min(int(np.searchsorted(total, draw, side="right")), int(np.flatnonzero(weights)[-1]))
    return ids


def _draw_and_take(t: int, v: int, k: int, n: int, at: int, **drawing: Any) -> dict[str, Any]:
    return _draw(t, v, 0.9, **drawing) | {"K": k, "R": v + 5, "N": n, "at": at, "start": 3}


def _draw_and_take_example(rng: np.random.Generator, dims: Dims) -> Arrays:
    return {**_draw_example(rng, {**dims, "T": 1}), "codes": rng.integers(0, 1000, (dims["K"],))}


@op(
    "logits[1, V], seed[1]:i32, counter[1]:i32, codes[K]:i32, w[R, N]:float -> x[1, N]",
    mutates=("codes",),
    kernels=[
        Kernel(
            "sample_embed_f16",
            ("V", "N", *DRAWING[2:], "at", "start"),
            lambda c, v: (1, 1, 1),
            {"w": "f16"},
            when=lambda c: c.N % 4 == 0,
        )
    ],
    domain=[
        _draw_and_take(1, 7, 1, 32, 0),
        _draw_and_take(1, 2048, 16, 1024, 15, top_k=50, top_p=0.8, salt=3),
        _draw_and_take(1, 3072, 16, 1200, 2, top_k=50),
    ],
    example=_draw_and_take_example,
    bench=(_draw_and_take(1, 2048, 16, 1024, 3, top_k=50),),  # the code predictors
)
def sample_embed(
    logits: Any,
    seed: Any,
    counter: Any,
    codes: Any,
    w: Any,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    salt: int = 0,
    at: int,
    start: int,
) -> Any:
    """Draw as `sample` does, set codes[at] = id, and take its row: x = w[start + id]. `codes` is changed in place."""
    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "salt": salt}
    codes[at] = sample.body(logits, seed, counter, **drawing)[0]
    return w[start + codes[at]][None]


@op(
    "tokens[R]:i32, position[1, A], length[1]:i32, chosen[1]:i32 ->",
    mutates=("tokens", "position", "length"),
    kernels=[
        Kernel("advance", uniforms=("R", "A"), grid=lambda c, v: (1, 1, 1), when=lambda c: c.R <= MOST_KEPT),
    ],
    natives=(Native("advance", ("R", "A")),),
    domain=[{"R": 1, "A": 1}, {"R": 4, "A": 3}, {"R": MOST_KEPT, "A": 33}],
    example=_advance_example,
    bench=({"R": 4, "A": 3},),  # Qwen3-Omni thinker
)
def advance(tokens: Any, position: Any, length: Any, chosen: Any) -> None:
    """Carry a decode step on: every position + 1, length + 1, and `chosen` before the R - 1 newest of the tokens.

    Changed in place.
    """
    tokens[1:] = tokens[:-1].copy()
    tokens[0] = chosen[0]
    position += 1
    length += 1
