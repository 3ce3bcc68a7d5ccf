"""Rows rounded to int8 on a GPU, one a value or two: to the nearest step of a chunk, and only where that is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from omni_rt import ops
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.tensor import CHUNK, SCALED_TOGETHER, Tensor

RNG = np.random.default_rng(4)


def rounded(gpu: WebGpuDevice, x: np.ndarray, dtype: str = "q8") -> tuple[np.ndarray, np.ndarray]:
    """Return the quants [chunks, 16] and the scales [chunks, 1] of x on a GPU; of q16 [chunks, 32], 256 q + rest."""
    both = gpu._rounded(gpu.tensor(x), dtype)
    quants, scales = (
        gpu.read(Tensor((plane.size // 4,), "i32", gpu, (plane,))).view(kind)
        for plane, kind in zip(both.planes, (np.int8, np.float32), strict=True)
    )
    if dtype == "q16":
        pairs = quants.reshape(-1, 2, 16).astype(np.int32)
        quants = 256 * pairs[:, 0] + pairs[:, 1]
    return quants.reshape(-1, SCALED_TOGETHER[dtype]), scales.reshape(-1, 1)


@pytest.mark.parametrize(("dtype", "most", "half"), [("q8", 127, 0.50002), ("q16", 256 * 127, 1.004)])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_each_value_becomes_the_nearest_step(
    gpu: WebGpuDevice, size: float, dtype: str, most: int, half: float
) -> None:
    """The nearest, but for the last bits of a float and, in q16, a rest of 128, which 127 stands for."""
    x = (RNG.normal(size=(70, 96)) * size * 10.0 ** RNG.integers(-3, 3, (70, 1))).astype(np.float32)
    quants, scales = rounded(gpu, x, dtype)
    chunks = x.reshape(quants.shape).astype(np.float64)
    steps = np.abs(quants).max(axis=1).astype(np.float64)
    assert most - 3 <= steps.min() <= steps.max() == most
    np.testing.assert_allclose(scales[:, 0], np.abs(chunks).max(axis=1) / steps, rtol=1e-6)
    off = np.abs(chunks - quants * scales.astype(np.float64)) / scales
    assert off.max() <= half and (off > 0.504).mean() <= 1 / 200


def test_the_steps_of_a_chunk_are_those_with_the_least_error(gpu: WebGpuDevice) -> None:
    x = RNG.normal(size=(70, 96)).astype(np.float32)
    quants, scales = rounded(gpu, x)
    chunks = x.reshape(-1, CHUNK).astype(np.float64)
    largest = np.abs(chunks).max(axis=1, keepdims=True)
    errors = [((np.rint(chunks * n / largest) * largest / n - chunks) ** 2).sum(axis=1) for n in (127, 126, 125, 124)]
    got = ((quants * scales.astype(np.float64) - chunks) ** 2).sum(axis=1)
    np.testing.assert_allclose(got, np.min(errors, axis=0), rtol=1e-3)
    assert got.sum() < 0.85 * errors[0].sum()


@pytest.mark.parametrize("dtype", ["q8", "q16"])
@pytest.mark.parametrize("value", [0.0, 1e-40, -1e-38])
def test_what_is_almost_nothing_becomes_nothing(gpu: WebGpuDevice, value: float, dtype: str) -> None:
    quants, scales = rounded(gpu, np.full((3, 32), value, np.float32), dtype)
    assert (np.abs(quants * scales.astype(np.float64)) <= 1.01 * abs(value)).all() and np.isfinite(scales).all()


@pytest.mark.parametrize("activations", ["q8", "f32"])
def test_the_device_decides_whether_int8_kernels_run(gpu: WebGpuDevice, activations: str) -> None:
    with WebGpuDevice(gpu.adapter, strict=True, activations=activations) as device:
        x, w = device.tensor(RNG.normal(size=(100, 64))), device.weight(RNG.normal(size=(40, 64)), "q8_0")
        assert device.kernel(ops.matmul, (x, w), {})[0].endswith("int8") == (activations == "q8")


def test_unknown_activations_are_refused(gpu: WebGpuDevice) -> None:
    with pytest.raises(ValueError, match="'q8' or 'f32', not 'f16'"):
        WebGpuDevice(gpu.adapter, activations="f16")
