"""Normalisation over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.ops.contract import Kernel, Native, op
from omni_rt.ops.grids import per_row

NORM_DOMAIN = [
    {"T": t, "N": n, "epsilon": 1e-6}
    for t, n in ((1, 1), (2, 7), (5, 64), (1, 255), (33, 72), (2, 257), (3, 2048), (2, 2305))
]
"""Rows below, at and above the 256 lanes of a workgroup and the 2048 values that rms_norm holds; real widths."""

NORM_BENCH = (
    {"T": 1, "N": 2048, "epsilon": 1e-6},  # Qwen3-Omni thinker, one decode step
    {"T": 512, "N": 2048, "epsilon": 1e-6},  # Qwen3-Omni thinker, prefill
    {"T": 1, "N": 1024, "epsilon": 1e-6},  # talker and code predictor of Qwen3-Omni and Qwen3-TTS 0.6B
    {"T": 900, "N": 1280, "epsilon": 1e-5},  # Qwen3-Omni audio encoder, a minute and more of speech
)


@op(
    "x[T, N], w[N] -> y[T, N]",
    kernels=[Kernel("rms_norm", uniforms=("T", "N", "epsilon"), grid=per_row)],
    natives=(Native("rms_norm", ("T", "N", "epsilon")),),
    domain=[*NORM_DOMAIN, {"T": 4099, "N": 3, "epsilon": 1e-6}],
    bench=NORM_BENCH,
)
def rms_norm(x: Any, w: Any, *, epsilon: float) -> Any:
    """Divide by the root mean square: y = x / sqrt(mean(x^2) + epsilon) * w."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * w


@op(
    "x[T, N], w[N], b[N] -> y[T, N]",
    kernels=[Kernel("layer_norm", uniforms=("T", "N", "epsilon"), grid=per_row)],
    natives=(Native("layer_norm", ("T", "N", "epsilon")),),
    domain=NORM_DOMAIN,
    bench=NORM_BENCH,
)
def layer_norm(x: Any, w: Any, b: Any, *, epsilon: float) -> Any:
    """Centre and divide by the standard deviation: y = (x - mean) / sqrt(variance + epsilon) * w + b."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon) * w + b


@op(
    "x[T, N] -> y[T, N]",
    kernels=[Kernel("softmax", uniforms=("T", "N"), grid=per_row)],
    natives=(Native("softmax", ("T", "N")),),
    domain=[{"T": t, "N": n} for t, n in ((1, 1), (2, 7), (5, 64), (1, 255), (33, 72), (2, 257), (4099, 3), (1, 3072))],
    bench=({"T": 1, "N": 128}, {"T": 512, "N": 128}),  # Qwen3-Omni thinker, routing over 128 experts
)
def softmax(x: Any) -> Any:
    """Exponentials that sum to 1 in each row."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
