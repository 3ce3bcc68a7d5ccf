"""Matrix products: activations with weight matrices whose rows are outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import INT8_ROUNDING, Call, Kernel, cdiv, op
from omni_rt.ops.grids import GRID_LIMIT
from omni_rt.ops.int8 import int8_calls, int8_kernels, int8_natives, teams

FEW_ROWS = 96
"""Rows of x up to which a pass over the weights for every four or eight of them beats tiles in workgroup memory."""

INT8_ROWS = 32
"""Rows of x from which on tiles of x rounded to int8 beat such a pass over q8_0 weights."""

FEW_OUTPUTS = 256
"""Weight rows up to which such a pass beats tiles for any number of rows: there are too few tiles to fill a GPU."""

GRID_WIDTH = 32768
"""Workgroups along x from which on a grid of weight rows goes on along y: below GRID_LIMIT."""

VECTOR = {"f32": 4, "f16": 8, "q8_0": 32}
"""Row lengths must be multiples of these for the kernels that read vectors."""


def product(x: Any, w: Any, as_rows: int) -> Any:
    """Return x @ w.T; with `as_rows` summed in float64, as float32 sums of a BLAS depend on the number of rows."""
    if not as_rows:
        return x @ w.T
    return (np.asarray(x, np.float64) @ np.asarray(w, np.float64).T).astype(x.dtype)


def _judged_rows(c: Call) -> int:
    """Return the rows by which a kernel is chosen: at least 2 where a call may have any, as gemv takes a single row."""
    return max(c.as_rows, 2) if c.as_rows else c.T


def weight_row_grid(rows: int, rows_per_group: int) -> tuple[int, int, int]:
    """Return a grid of workgroups (i, j), where workgroup i + j * width takes `rows_per_group` of `rows`."""
    groups = cdiv(rows, rows_per_group)
    return min(groups, GRID_WIDTH), cdiv(groups, GRID_WIDTH), 1


def _gemv_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return weight_row_grid(c.row_count, v["ROWS"])


def _few_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    x, y, _ = weight_row_grid(c.row_count, v["ROWS"])
    return cdiv(c.T, v["T_TILE"]), x, y


def _tiled_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return cdiv(c.row_count, 16 * v["TN"]), cdiv(c.T, 16 * v["TM"]), 1


def _int8_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return cdiv(c.row_count, 256 // v["LINES"] * v["TN"]), cdiv(c.T, v["LINES"] * v["TM"]), 1


def _odd_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return cdiv(c.row_count, v["ROWS"]), min(c.T, GRID_LIMIT), 1


def _kernels(name: str, uniforms: tuple[str, ...]) -> list[Kernel]:
    """Return the kernels of matmul or matmul_add, by weight dtype and rows of x; the first that takes a call runs."""
    kernels = int8_kernels(
        f"{name}_q8_0_int8_gemv",
        uniforms,
        lambda c, v: weight_row_grid(c.row_count, teams(v)),
        length=lambda c: c.K,
        takes=lambda c: _judged_rows(c) == 1,
        splits="w",
    )
    for dtype, vector in VECTOR.items():

        def takes(least: int, most: int, vector: int = vector) -> Any:
            return lambda c: least <= _judged_rows(c) <= most and c.K % vector == 0

        def few_outputs(c: Call, vector: int = vector) -> bool:
            return bool(c.N <= FEW_OUTPUTS and _judged_rows(c) > FEW_ROWS and c.K % vector == 0)

        def kernel(regime: str, grid: Any, when: Any, *variants: Mapping[str, int], dtype: str = dtype) -> Kernel:
            return Kernel(f"{name}_{dtype}_{regime}", uniforms, grid, {"w": dtype}, when, variants, splits="w")

        if dtype == "q8_0":
            kernels += _int8_kernels(name, uniforms)
        kernels += [
            kernel("gemv", _gemv_grid, takes(1, 1), {"ROWS": 2}, {"ROWS": 4}),
            kernel("few", _few_grid, takes(2, 2), {"WG": 128, "ROWS": 4, "T_TILE": 2}),
            kernel("few", _few_grid, takes(3, 4), {"WG": 64, "ROWS": 4, "T_TILE": 4}),
            kernel(
                "few",
                _few_grid,
                takes(5, FEW_ROWS),
                {"WG": 64, "ROWS": 2, "T_TILE": 8},
                {"WG": 64, "ROWS": 4, "T_TILE": 4},
            ),
            kernel("few", _few_grid, few_outputs, {"WG": 64, "ROWS": 4, "T_TILE": 4}),
            kernel("tiled", _tiled_grid, takes(FEW_ROWS + 1, 192), {"TM": 2, "TN": 2}),
            kernel("tiled", _tiled_grid, takes(193, 1 << 20), {"TM": 4, "TN": 4}),
        ]
        if dtype != "q8_0":
            kernels.append(kernel("odd", _odd_grid, lambda c, v=vector: c.K % v != 0, {"ROWS": 4}))
    return kernels


def _int8_kernels(name: str, uniforms: tuple[str, ...]) -> list[Kernel]:
    """Return the kernels of matmul or matmul_add that multiply many rows, rounded to int8, with q8_0 weights."""

    def kernel(least: int, most: int, *tiles: tuple[int, int, int, int]) -> Kernel:
        return Kernel(
            f"{name}_q8_0_int8", uniforms, _int8_grid, {"w": "q8_0"},
            lambda c: least <= _judged_rows(c) <= most,
            tuple(dict(zip(("TM", "TN", "LINES", "STEP"), tile, strict=True)) for tile in tiles),
            splits="w", int8=True, rounded={"x": "q8"}, tolerance=INT8_ROUNDING,
        )  # fmt: skip

    # Tiles of 16 x 64, 32 x 64, 64 x 64 and 128 x 64 products; for 64 x 64, STEP 4 asks for 20 KB of workgroup storage.
    return [
        kernel(INT8_ROWS, 127, (2, 2, 8, 4), (4, 2, 8, 2)),
        kernel(128, 383, (4, 2, 8, 4), (8, 2, 8, 4)),
        kernel(384, 1023, (8, 2, 8, 4), (8, 2, 8, 2), (8, 4, 16, 2)),
        kernel(1024, 1 << 20, (8, 4, 16, 2), (8, 2, 8, 4)),
    ]


@op(
    "x[T, K], w[N, K]:weight -> y[T, N]",
    kernels=_kernels("matmul", ("T", "N", "K", "row_start", "row_count")),
    natives=int8_natives("matmul", "T", "N", "K", "as_rows"),
    domain=(
        *int8_calls("K", "N", T=1),
        {"T": 1, "N": 31, "K": 2048},
        {"T": 1, "N": 5, "K": 800},
        {"T": 2, "N": 33, "K": 64},
        {"T": 3, "N": 9, "K": 96},
        {"T": 8, "N": 65, "K": 64},
        {"T": 12, "N": 65, "K": 32},
        {"T": 21, "N": 1, "K": 288},
        {"T": 100, "N": 80, "K": 96},
        {"T": 120, "N": 261, "K": 32},
        {"T": 200, "N": 257, "K": 32},
        {"T": 1030, "N": 33, "K": 96},
        {"T": 5, "N": 7, "K": 101},
        {"T": 1, "N": 40, "K": 96, "as_rows": 8},
        {"T": 3, "N": 40, "K": 96, "as_rows": 200},
    ),
    flops=lambda c: 2 * c.T * c.N * c.K,
    bench=(
        {"T": 1, "N": 2048, "K": 4096},  # output projection of the Qwen3-Omni Thinker
        {"T": 1, "N": 152064, "K": 2048},  # its logits
        {"T": 1, "N": 3072, "K": 1024},  # gate of the code predictors
        {"T": 64, "N": 5120, "K": 2048},  # queries, keys and values in prefill
        {"T": 512, "N": 2048, "K": 4096},  # the output projection in prefill
        {"T": 2048, "N": 5120, "K": 2048},
    ),
)
def matmul(x: Any, w: Any, *, as_rows: int = 0) -> Any:
    """Multiply: y = x @ w.T.

    `as_rows` > 0 takes the kernel for that many rows, however many come: the bits of a row then do not depend on how
    many come with it, as a stream wants that is cut anyhow.
    """
    return product(x, w, as_rows)


@op(
    "x[T, K], w[N, K]:weight, r[R, N] -> y[T, N]",
    kernels=_kernels("matmul_add", ("T", "N", "K", "R", "row_start", "row_count")),
    natives=int8_natives("matmul_add", "T", "N", "K", "as_rows", "R"),
    domain=(
        *int8_calls("K", "N", T=1, R=1),
        {"T": 1, "N": 31, "K": 2048, "R": 1},
        {"T": 2, "N": 33, "K": 64, "R": 2},
        {"T": 3, "N": 9, "K": 96, "R": 3},
        {"T": 8, "N": 65, "K": 64, "R": 1},
        {"T": 12, "N": 65, "K": 32, "R": 12},
        {"T": 21, "N": 1, "K": 288, "R": 1},
        {"T": 100, "N": 80, "K": 96, "R": 100},
        {"T": 120, "N": 261, "K": 32, "R": 120},
        {"T": 200, "N": 257, "K": 32, "R": 1},
        {"T": 1030, "N": 33, "K": 96, "R": 1},
        {"T": 5, "N": 7, "K": 101, "R": 5},
        {"T": 1, "N": 40, "K": 96, "R": 1, "as_rows": 8},
        {"T": 3, "N": 40, "K": 96, "R": 3, "as_rows": 200},
    ),
    flops=lambda c: 2 * c.T * c.N * c.K,
    bench=(
        {"T": 1, "N": 2048, "K": 4096, "R": 1},  # output projection and residual of the Qwen3-Omni Thinker
        {"T": 100, "N": 5120, "K": 1280, "R": 1},  # first feed-forward layer of its audio tower
    ),
)
def matmul_add(x: Any, w: Any, r: Any, *, as_rows: int = 0) -> Any:
    """Multiply and add: y = x @ w.T + r, where r is a bias (R = 1) or a residual (R = T); `as_rows` as in matmul."""
    return product(x, w, as_rows) + r
