"""Normalisation over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.ops.contract import op


@op("x[T, N], w[N] -> y[T, N]")
def rms_norm(x: Any, w: Any, *, epsilon: float) -> Any:
    """Divide by the root mean square: y = x / sqrt(mean(x^2) + epsilon) * w."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * w


@op("x[T, N], w[N], b[N] -> y[T, N]")
def layer_norm(x: Any, w: Any, b: Any, *, epsilon: float) -> Any:
    """Centre and divide by the standard deviation: y = (x - mean) / sqrt(variance + epsilon) * w + b."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon) * w + b


@op("x[T, N] -> y[T, N]")
def softmax(x: Any) -> Any:
    """Exponentials that sum to 1 in each row."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
