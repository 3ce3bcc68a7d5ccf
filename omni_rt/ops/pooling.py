"""What the speaker encoder and the codec's encoder need besides: more activations, gates and statistics per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_rt.ops.contract import Kernel, Native, op
from omni_rt.ops.elementwise import DOMAIN
from omni_rt.ops.grids import per_value


@op(
    "x[T, N] -> y[T, N]",
    kernels=(Kernel("relu", ("T", "N"), per_value),),
    natives=(Native("relu", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 300, "N": 512},),
)
def relu(x: Any) -> Any:
    """Return max(x, 0)."""
    return np.maximum(x, 0)


@op(
    "x[T, N] -> y[T, N]",
    kernels=(Kernel("tanh", ("T", "N"), per_value),),
    natives=(Native("hyperbolic_tangent", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 300, "N": 128},),
)
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent of x."""
    return np.tanh(x)


@op(
    "x[T, N] -> y[T, N]",
    kernels=(Kernel("elu", ("T", "N"), per_value),),
    natives=(Native("elu", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 4096, "N": 64},),
)
def elu(x: Any) -> Any:
    """Return x where it is positive, else exp(x) - 1."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


@op(
    "x[T, N], g[1, N], r[T, N] -> y[T, N]",
    kernels=(Kernel("gate_channels", ("T", "N"), per_value),),
    natives=(Native("gate_channels", ("T", "N")),),
    domain=DOMAIN,
    bench=({"T": 300, "N": 512},),
)
def gate_channels(x: Any, g: Any, r: Any) -> Any:
    """Gate each channel and add a residual: y = x * sigmoid(g) + r."""
    return x / (1 + np.exp(-g)) + r


def _pool_example(rng: np.random.Generator, dims: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Logits as a network makes them: a softmax over wilder ones would pick single rows and have no deviation."""
    shape = (dims["T"], dims["N"])
    return {"x": rng.normal(size=shape) + 0.5, "logits": rng.normal(size=shape)}


@op(
    "x[T, N], logits[T, N] -> mean[1, N], deviation[1, N]",
    kernels=(Kernel("pool", ("T", "N"), lambda c, v: (c.N, 1, 1)),),
    natives=(Native("pool_rows", ("T", "N")),),
    domain=({"T": 2, "N": 3}, {"T": 33, "N": 65}, {"T": 300, "N": 31}, {"T": 1000, "N": 5}),
    example=_pool_example,
    bench=({"T": 300, "N": 1536},),
)
def pool(x: Any, logits: Any) -> Any:
    """Pool rows per channel: mean = sum_t a_t x_t and deviation = sqrt(max(sum_t a_t (x_t - mean)^2, 1e-12)).

    a is the softmax of the logits over the rows; equal logits give the plain mean and deviation.
    """
    weights = np.exp(logits - logits.max(axis=0))
    weights = weights / weights.sum(axis=0)
    mean = (weights * x).sum(axis=0, keepdims=True)
    variance = (weights * (x - mean) ** 2).sum(axis=0, keepdims=True)
    return mean, np.sqrt(np.maximum(variance, 1e-12))
