"""Matrix products: activations with weight matrices whose rows are outputs."""

from __future__ import annotations

from typing import Any

from omni_rt.ops.contract import Kernel, cdiv, op


@op(
    "x[T, K], w[N, K]:weight -> y[T, N]",
    kernels=(
        Kernel(
            "matmul_f32_gemv",
            uniforms=("T", "N", "K", "row_start", "row_count"),
            dtypes={"w": "f32"},
            grid=lambda c, v: (cdiv(c.row_count, v["ROWS"]), c.T, 1),
            variants=({"ROWS": 4},),
            splits="w",
        ),
    ),
    domain=({"T": 1, "N": 1, "K": 32}, {"T": 2, "N": 31, "K": 96}, {"T": 5, "N": 65, "K": 100}, {"T": 33, "N": 64, "K": 2048}),
    bench=({"T": 1, "N": 2048, "K": 4096},),  # output projection of the Qwen3-Omni Thinker
)
def matmul(x: Any, w: Any) -> Any:
    """Multiply: y = x @ w.T."""
    return x @ w.T


@op("x[T, K], w[N, K]:weight, r[R, N] -> y[T, N]")
def matmul_add(x: Any, w: Any, r: Any) -> Any:
    """Multiply and add: y = x @ w.T + r, where r is a bias (R = 1) or a residual (R = T)."""
    return x @ w.T + r
