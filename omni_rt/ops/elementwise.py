"""Sums and activations, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from math import erf, sqrt
from typing import Any

import numpy as np

from omni_rt.ops.contract import Kernel, Native, op
from omni_rt.ops.grids import per_value

_erf = np.frompyfunc(erf, 1, 1)

DOMAIN = ({"T": 1, "N": 1}, {"T": 2, "N": 31}, {"T": 33, "N": 257}, {"T": 5, "N": 1024})


def snake_example(rng: np.random.Generator, dims: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Frequencies and amplitudes as checkpoints have them: exponentials, so positive, and seldom far from 1.

    Where there is one row, arguments of the sine up to 1e5 instead, as products that f32 holds exactly.
    """
    width = dims["C"]
    frequency, amplitude = np.exp(rng.normal(size=width)), 1 / (np.exp(rng.normal(size=width)) + 1e-9)
    if dims["T"] > 1:
        return {"frequency": frequency, "amplitude": amplitude}
    x = rng.uniform(-1e5, 1e5, size=(1, width))
    return {"x": x / 16, "frequency": np.full(width, 16.0), "amplitude": np.full(width, 1e4)}


@op(
    "a[T, N], b[R, N] -> y[T, N]",
    kernels=(Kernel("add", ("T", "R", "N"), per_value),),
    natives=(Native("add", ("T", "N", "R")),),
    domain=(
        {"T": 1, "R": 1, "N": 1},
        {"T": 5, "R": 1, "N": 33},
        {"T": 33, "R": 33, "N": 65},
        {"T": 7, "R": 1, "N": 1024},
    ),
    bench=({"T": 512, "R": 512, "N": 2048}, {"T": 1, "R": 1, "N": 2048}),
)
def add(a: Any, b: Any) -> Any:
    """Add: y = a + b, where b has one row (R = 1) or one per row (R = T)."""
    return a + b


@op(
    "x[T, N] -> y[T, N]",
    kernels=(Kernel("silu", ("T", "N"), per_value),),
    natives=(Native("silu", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 1, "N": 1024},),
)
def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return x / (1 + np.exp(-x))


@op(
    "x[T, N] -> y[T, N]",
    kernels=(Kernel("gelu", ("T", "N"), per_value),),
    natives=(Native("gelu", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 100, "N": 5120},),
)
def gelu(x: Any) -> Any:
    """The exact GELU: x / 2 * (1 + erf(x / sqrt 2))."""
    return x * 0.5 * (1 + _erf(x / sqrt(2)).astype(x.dtype))


@op(
    "x[T, N] -> y[T, N]",
    kernels=(Kernel("gelu_tanh", ("T", "N"), per_value),),
    natives=(Native("gelu_tanh", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 1024, "N": 4304},),
)
def gelu_tanh(x: Any) -> Any:
    """The tanh form of GELU: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    return x * 0.5 * (1 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))


@op(
    "x[T, 2*N] -> y[T, N]",
    kernels=(Kernel("silu_mul", ("T", "N"), per_value),),
    natives=(Native("silu_mul", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 1, "N": 6144}, {"T": 512, "N": 3072}),
)
def silu_mul(x: Any) -> Any:
    """SwiGLU of a fused projection: silu(first half) * second half."""
    half = x.shape[1] // 2
    gate, up = x[:, :half], x[:, half:]
    return gate / (1 + np.exp(-gate)) * up


@op(
    "x[T, C], frequency[C], amplitude[C] -> y[T, C]",
    kernels=(Kernel("snake", ("T", "C"), per_value),),
    natives=(Native("snake", ("T", "C")),),
    domain=({"T": 2, "C": 1}, {"T": 5, "C": 31}, {"T": 33, "C": 96}, {"T": 1, "C": 1536}),
    example=snake_example,
    bench=({"T": 7680, "C": 96}, {"T": 128, "C": 768}),
)
def snake(x: Any, frequency: Any, amplitude: Any) -> Any:
    """Snake per channel: y = x + amplitude * sin(frequency * x)^2.

    Checkpoints store logarithms: frequency = exp(alpha), amplitude = 1 / (exp(beta) + 1e-9).
    """
    return activated(x, frequency, amplitude)


def activated(x: Any, frequency: Any, amplitude: Any) -> Any:
    """Return what `snake` does, for the bodies of ops that do it on the way."""
    return x + amplitude * np.sin(frequency * x) ** 2
