"""Sums and activations, element by element."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np

from omni_rt.ops.contract import op

_erf = np.frompyfunc(erf, 1, 1)


@op("a[T, N], b[R, N] -> y[T, N]")
def add(a: Any, b: Any) -> Any:
    """Add: y = a + b, where b has one row (R = 1) or one per row (R = T)."""
    return a + b


@op("x[T, N] -> y[T, N]")
def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return x / (1 + np.exp(-x))


@op("x[T, N] -> y[T, N]")
def gelu(x: Any) -> Any:
    """The exact GELU: x / 2 * (1 + erf(x / sqrt 2))."""
    return x * 0.5 * (1 + _erf(x / sqrt(2)).astype(x.dtype))


@op("x[T, N] -> y[T, N]")
def gelu_tanh(x: Any) -> Any:
    """The tanh form of GELU: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    return x * 0.5 * (1 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))


@op("x[T, 2*N] -> y[T, N]")
def silu_mul(x: Any) -> Any:
    """SwiGLU of a fused projection: silu(first half) * second half."""
    half = x.shape[1] // 2
    gate, up = x[:, :half], x[:, half:]
    return gate / (1 + np.exp(-gate)) * up


@op("x[T, C], frequency[C], amplitude[C] -> y[T, C]")
def snake(x: Any, frequency: Any, amplitude: Any) -> Any:
    """Snake per channel: y = x + amplitude * sin(frequency * x)^2.

    Checkpoints store logarithms: frequency = exp(alpha), amplitude = 1 / (exp(beta) + 1e-9).
    """
    return x + amplitude * np.sin(frequency * x) ** 2
