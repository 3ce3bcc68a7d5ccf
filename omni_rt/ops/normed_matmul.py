"""Matrix products of a row that is normalised on the way: what starts both halves of a decoder layer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from omni_rt.ops.contract import Call, Kernel, Tolerance, op
from omni_rt.ops.elementwise import silu_mul
from omni_rt.ops.int8 import int8_calls, int8_kernels, teams
from omni_rt.ops.matmul import VECTOR, matmul, weight_row_grid
from omni_rt.ops.norm import rms_norm
from omni_rt.tensor import BLOCK, Tensor

FEW_OUTPUTS = 256
"""Outputs up to which a workgroup computes one: a router has 128."""


def _matmul_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return *weight_row_grid(c.row_count, v["ROWS"])[:2], c.T


def _gate_up_grid(c: Call, v: Mapping[str, int]) -> tuple[int, int, int]:
    return *weight_row_grid(c.I, v["ROWS"])[:2], c.T


def _kernels(name: str, uniforms: tuple[str, ...], grid: Any, rows: int) -> list[Kernel]:
    """Return the kernels for each weight dtype: fewer lanes for short rows, so that each has a chunk to read."""
    kernels = []
    for dtype, vector in VECTOR.items():
        for few, (lanes, longest) in product((True, False), ((64, 1024), (128, 1 << 30))):

            def when(c: Call, vector: int = vector, longest: int = longest, few: bool = few) -> bool:
                outputs = c.dims.get("N", FEW_OUTPUTS + 1)
                return c.K % vector == 0 and longest >= c.K and few == (outputs <= FEW_OUTPUTS)

            ranges = (*uniforms, "epsilon", "row_start", "row_count")
            variants = [{"WG": lanes, "ROWS": count} for count in (rows, 2 * rows, 1)]
            if few:
                variants.reverse()
            kernels.append(Kernel(f"{name}_{dtype}", ranges, grid, {"w": dtype}, when, tuple(variants), splits="w"))
    return kernels


@op(
    "x[T, K], g[K], w[N, K]:weight -> y[T, N]",
    kernels=[
        *int8_kernels(
            "norm_matmul_q8_0_int8",
            ("K", "N", "epsilon", "row_start", "row_count"),
            lambda c, v: (*weight_row_grid(c.row_count, teams(v))[:2], c.T),
            length=lambda c: c.K,
            splits="w",
        ),
        *_kernels("norm_matmul", ("K", "N"), _matmul_grid, rows=4),
    ],
    domain=(
        *int8_calls("K", "N", T=1, epsilon=1e-6),
        {"T": 1, "K": 2048, "N": 31, "epsilon": 1e-6},
        {"T": 2, "K": 96, "N": 9, "epsilon": 1e-2},
        {"T": 1, "K": 32, "N": 5, "epsilon": 1e-6},
    ),
    flops=lambda c: 2 * c.T * c.N * c.K,
    bench=(
        {"T": 1, "K": 2048, "N": 5120, "epsilon": 1e-6},  # queries, keys and values of the Qwen3-Omni Thinker
        {"T": 1, "K": 2048, "N": 152064, "epsilon": 1e-6},  # its logits
        {"T": 1, "K": 1024, "N": 4096, "epsilon": 1e-6},  # queries, keys and values of the code predictors
    ),
)
def norm_matmul(x: Any, g: Any, w: Any, *, epsilon: float) -> Any:
    """Normalise and multiply: y = rms_norm(x, g) @ w.T; meant for one row or few."""
    return rms_norm.body(x, g, epsilon=epsilon) @ w.T


@op(
    "x[T, K], g[K], w[2*I, K]:weight -> h[T, I]",
    kernels=[
        *int8_kernels(
            "norm_gate_up_q8_0_int8",
            ("K", "I", "epsilon"),
            lambda c, v: (*weight_row_grid(c.I, teams(v))[:2], c.T),
            length=lambda c: c.K,
            gated=True,
        ),
        *_kernels("norm_gate_up", ("K", "I"), _gate_up_grid, rows=2),
    ],
    # Far below 0, silu(v) falls as exp(v): it multiplies the relative error of v by |v|.
    tolerance=Tolerance(nmse=1e-8),
    domain=(
        *int8_calls("K", "I", gated=True, T=1, epsilon=1e-6),
        {"T": 1, "K": 1056, "I": 31, "epsilon": 1e-6},
        {"T": 1, "K": 1024, "I": 6, "epsilon": 1e-6},
        {"T": 2, "K": 96, "I": 9, "epsilon": 1e-2},
        {"T": 1, "K": 32, "I": 65, "epsilon": 1e-6},
    ),
    flops=lambda c: 4 * c.T * c.I * c.K,
    bench=({"T": 1, "K": 1024, "I": 3072, "epsilon": 1e-6},),  # code predictors of Qwen3-Omni and Qwen3-TTS
)
def norm_gate_up(x: Any, g: Any, w: Any, *, epsilon: float) -> Any:
    """Normalise, then SwiGLU: h = silu(gate) * up of m = rms_norm(x, g); w = gate rows, then up rows."""
    return silu_mul.body(rms_norm.body(x, g, epsilon=epsilon) @ w.T)


def project_normed(x: Tensor, g: Tensor, w: Tensor, *, epsilon: float, as_rows: int = 0) -> Tensor:
    """Return rms_norm(x, g) @ w.T, x [T, K], g [K], w [N, K]: on a GPU in one step for one row.

    `as_rows` as in matmul.
    """
    if _in_one_step(x, as_rows):
        return norm_matmul(x, g, w, epsilon=epsilon)
    return matmul(rms_norm(x, g, epsilon=epsilon), w, as_rows=as_rows)


def gate_up_normed(x: Tensor, g: Tensor, w: Tensor, *, epsilon: float, as_rows: int = 0) -> Tensor:
    """Return the SwiGLU [T, I] of rms_norm(x, g), x [T, K], g [K], w [2 I, K]: on a GPU in one step for one row.

    `as_rows` as in matmul.
    """
    if _in_one_step(x, as_rows):
        return norm_gate_up(x, g, w, epsilon=epsilon)
    return silu_mul(matmul(rms_norm(x, g, epsilon=epsilon), w, as_rows=as_rows))


def _in_one_step(x: Tensor, as_rows: int) -> bool:
    return x.device.kind == "wgpu" and (as_rows or x.shape[0]) == 1 and x.shape[1] % BLOCK == 0
