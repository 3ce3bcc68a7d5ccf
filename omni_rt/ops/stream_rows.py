"""Rows of a stream behind the last rows of what came before: what a causal convolution reads, piece by piece.

`tail` is state: the P rows before x, which the op moves on, so that the next piece finds the P rows before it. A
captured step can therefore be replayed for each piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import Call, Kernel, Native, cdiv, op
from omni_rt.ops.elementwise import activated, snake_example

COLUMNS = 16
"""Channels of the tail that a workgroup moves on: it must see all rows of a channel, as it writes where it reads."""

DOMAIN = (
    {"T": 1, "C": 3, "P": 1},
    {"T": 2, "C": 33, "P": 54},
    {"T": 17, "C": 96, "P": 18},
    {"T": 5, "C": 64, "P": 6},
    {"T": 300, "C": 40, "P": 54},
    {"T": 1030, "C": 8, "P": 2},
)
"""Tails longer and shorter than what comes, that fill one turn of a workgroup and more."""


def _grid(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
    """Return the workgroups that move the tail on, and behind them one per 1024 values of x, as far as a grid goes."""
    return cdiv(call.C, COLUMNS) + min(cdiv(call.T * call.C, 1024), 32768), 1, 1


def _moved(tail: Any, x: Any) -> Any:
    rows = np.concatenate([tail, x])
    tail[...] = rows[len(rows) - len(tail) :]
    return rows


def _example(rng: np.random.Generator, dims: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Frequencies and amplitudes of several rows: a large argument of the sine would show the rounding of x + b."""
    return snake_example(rng, {**dims, "T": 2})


@op(
    "x[T, C], b[C], tail[P, C] -> rows[P + T, C]",
    mutates=("tail",),
    kernels=(Kernel("behind_tail", ("T", "C", "P"), _grid),),
    natives=(Native("behind_tail", ("T", "C", "P")),),
    domain=DOMAIN,
    bench=({"T": 16, "C": 1024, "P": 6},),  # ConvNeXt of Code2Wav and of the codec, four frames
)
def behind_tail(x: Any, b: Any, tail: Any) -> Any:
    """Put x + b behind the rows of tail: rows = tail, then x + b; tail becomes the last P of them."""
    return _moved(tail, x + b)


@op(
    "x[T, C], b[C], frequency[C], amplitude[C], tail[P, C] -> rows[P + T, C]",
    mutates=("tail",),
    kernels=(Kernel("snake_behind_tail", ("T", "C", "P"), _grid),),
    natives=(Native("snake_behind_tail", ("T", "C", "P")),),
    domain=DOMAIN,
    example=_example,
    bench=({"T": 7680, "C": 96, "P": 54}, {"T": 128, "C": 768, "P": 18}),  # the same, of the residual units
)
def snake_behind_tail(x: Any, b: Any, frequency: Any, amplitude: Any, tail: Any) -> Any:
    """Put the Snake of x + b behind the rows of tail, as in behind_tail; see snake."""
    return _moved(tail, activated(x + b, frequency, amplitude))
