"""Gathering and joining rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import DTYPE_CLASSES, Call, Kernel, Native, by_weight, cdiv, op
from omni_rt.ops.grids import GRID_LIMIT, per_column


def _join_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return min(cdiv((c.M + c.T) * c.N, 256), GRID_LIMIT), 1, 1


def _gathers(name: str, *uniforms: str) -> list[Kernel]:
    """Return one kernel per weight dtype of an op that gathers rows of w, whole or split by rows."""
    return [
        Kernel(f"{name}_{dtype}", (*uniforms, "row_start", "row_count"), per_column, {"w": dtype}, splits="w")
        for dtype in DTYPE_CLASSES["weight"]
    ]


def _ids(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Make ids of rows of w, the first and the last among them."""
    ids = rng.integers(0, dims["V"], dims["T"])
    ids[0] = dims["V"] - 1
    ids[-1] = 0
    return {"ids": ids.astype(np.int32)}


def _table_ids(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Make ids within each of Q tables of equal size."""
    rows = dims["V"] // dims["Q"]
    offsets = np.arange(dims["Q"]) * rows
    ids = rng.integers(0, rows, (dims["T"], dims["Q"]))
    return {"ids": ids.astype(np.int32), "offsets": offsets.astype(np.int32)}


def _index(rng: np.random.Generator, dims: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Make indices of rows of x, -1 (no row) among them."""
    return {"index": rng.integers(-1, dims["M"], dims["T"]).astype(np.int32)}


@op(
    "w[V, N]:weight, ids[T]:i32 -> y[T, N]",
    kernels=_gathers("embed", "T", "N"),
    natives=by_weight("embed", "V", "N", "T"),
    domain=({"V": 1, "N": 32, "T": 1}, {"V": 70, "N": 288, "T": 5}, {"V": 9, "N": 33, "T": 3}),
    example=_ids,
    bench=({"V": 152064, "N": 2048, "T": 512},),  # text embeddings of the Qwen3-Omni Thinker
    touched={"w": lambda c: c["T"] / c["V"]},
)
def embed(w: Any, ids: Any) -> Any:
    """Take rows: y[t] = w[ids[t]]."""
    return w[ids]


@op(
    "w[V, N]:weight, ids[T, Q]:i32, offsets[Q]:i32 -> y[T, N]",
    kernels=_gathers("embed_sum", "T", "N", "Q", "scale"),
    natives=by_weight("embed_sum", "V", "N", "T", "Q", "scale"),
    domain=(
        {"V": 4, "Q": 1, "N": 32, "T": 1, "scale": 1.0},
        {"V": 48, "Q": 16, "N": 288, "T": 5, "scale": 0.0625},
        {"V": 9, "Q": 3, "N": 33, "T": 2, "scale": 1.0},
    ),
    example=_table_ids,
    bench=({"V": 32768, "Q": 16, "N": 1024, "T": 25, "scale": 0.0625},),  # code embeddings of the Qwen3-Omni vocoder
    touched={"w": lambda c: c["T"] * c["Q"] / c["V"]},
)
def embed_sum(w: Any, ids: Any, offsets: Any, *, scale: float = 1.0) -> Any:
    """Sum Q rows, one from each of Q tables stacked in w: y[t] = scale * sum_q w[offsets[q] + ids[t, q]]."""
    return w[ids + offsets].sum(axis=1) * scale


@op(
    "h[T, N], x[M, N], index[T]:i32 -> y[T, N]",
    kernels=(Kernel("splice", ("T", "N"), per_column),),
    natives=(Native("splice", ("T", "N", "M")),),
    domain=({"T": 1, "N": 1, "M": 1}, {"T": 5, "N": 33, "M": 3}, {"T": 33, "N": 257, "M": 12}),
    example=_index,
    bench=({"T": 512, "N": 2048, "M": 390},),  # 30 s of audio in the prompt of the Qwen3-Omni Thinker
)
def splice(h: Any, x: Any, index: Any) -> Any:
    """Replace rows: y[t] = x[index[t]] where index[t] >= 0, else h[t]."""
    return np.where((index >= 0)[:, None], x[np.maximum(index, 0)], h)


@op(
    "h[T, N], x[M, N], index[T]:i32 -> y[T, N]",
    kernels=(Kernel("add_rows", ("T", "N"), per_column),),
    natives=(Native("add_rows", ("T", "N", "M")),),
    domain=({"T": 1, "N": 1, "M": 1}, {"T": 5, "N": 33, "M": 3}, {"T": 33, "N": 257, "M": 12}),
    example=_index,
    bench=({"T": 512, "N": 2048, "M": 390},),  # image features into a layer of the Qwen3-Omni Thinker
)
def add_rows(h: Any, x: Any, index: Any) -> Any:
    """Add to chosen rows: y[t] = h[t] + x[index[t]] where index[t] >= 0, else h[t]."""
    return h + np.where((index >= 0)[:, None], x[np.maximum(index, 0)], 0)


@op(
    "a[M, N], b[T, N] -> y[M + T, N]",
    kernels=(Kernel("concat_rows", ("M", "T", "N"), _join_grid),),
    natives=(Native("concat_rows", ("M", "T", "N")),),
    domain=({"M": 1, "T": 1, "N": 1}, {"M": 5, "T": 33, "N": 31}, {"M": 64, "T": 2, "N": 256}),
    bench=({"M": 9, "T": 100, "N": 1024},),  # the talker's prefill of Qwen3-Omni
)
def concat_rows(a: Any, b: Any) -> Any:
    """Join: the rows of a, then those of b."""
    return np.concatenate([a, b])
