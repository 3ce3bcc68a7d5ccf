"""The largest value of a long row, found by a whole GPU: each workgroup searches a run, another the runs' findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import Kernel, cdiv, op
from omni_rt.ops.sampling import argmax
from omni_rt.tensor import Tensor

PARTS = 128
SPLIT_FROM = 16384
"""Values of a row from which the second dispatch pays."""


@op(
    "x[T, N] -> peaks[T, parts], places[T, parts]:i32",
    kernels=[Kernel("argmax_parts", ("N", "parts"), lambda c, v: (c.parts, c.T, 1))],
    domain=[
        {"T": t, "N": n, "parts": p} for t, n, p in ((1, 1, 1), (2, 7, 3), (3, 1030, 2), (1, 100, 64), (1, 152064, 128))
    ],
    bench=({"T": 1, "N": 152064, "parts": PARTS},),  # Qwen3-Omni thinker
)
def argmax_parts(x: Any, *, parts: int) -> tuple[Any, Any]:
    """Find the largest value, and its index, of each of `parts` equal runs of a row; runs behind its end repeat it."""
    width = x.shape[1]
    run = cdiv(width, parts)
    peaks, places = np.empty((len(x), parts), x.dtype), np.empty((len(x), parts), np.int32)
    for part in range(parts):
        first = min(part * run, width - 1)
        own = x[:, first : first + run]
        peaks[:, part], places[:, part] = own.max(axis=1), own.argmax(axis=1) + first
    return peaks, places


def _places(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Make places in rising order, as runs have them."""
    return {"places": np.sort(rng.integers(0, 1 << 20, (dims["T"], dims["P"])), axis=1)}


@op(
    "peaks[T, P], places[T, P]:i32 -> ids[T]:i32",
    kernels=[Kernel("argmax_merge", ("P",), lambda c, v: (c.T, 1, 1), when=lambda c: c.P <= 256)],
    domain=[{"T": t, "P": p} for t, p in ((1, 1), (3, 7), (2, 256))],
    example=_places,
    bench=({"T": 1, "P": PARTS},),  # as argmax_parts
)
def argmax_merge(peaks: Any, places: Any) -> Any:
    """Return the place of the largest peak of each row, the first among equals."""
    return np.take_along_axis(places, peaks.argmax(axis=-1)[:, None], axis=-1)[:, 0]


def largest(x: Tensor) -> Tensor:
    """Return the index i32 [T] of the largest value of each row [T, N]: on a GPU in two steps for long rows."""
    if x.device.kind == "wgpu" and x.shape[1] >= SPLIT_FROM:
        return argmax_merge(*argmax_parts(x, parts=PARTS))
    return argmax(x)
