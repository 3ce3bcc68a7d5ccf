"""Rows rounded to int8 on a GPU: each block to the nearest of 255 steps, and only where the device allows it."""

from __future__ import annotations

import numpy as np
import pytest

from omni_rt import ops
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.tensor import BLOCK, Tensor

RNG = np.random.default_rng(4)


def rounded(gpu: WebGpuDevice, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the quants [blocks, 32] and the scales [blocks, 1] of x on a GPU."""
    both = gpu._rounded(gpu.tensor(x))
    quants, scales = (
        gpu.read(Tensor((plane.size // 4,), "i32", gpu, (plane,))).view(kind)
        for plane, kind in zip(both.planes, (np.int8, np.float32), strict=True)
    )
    return quants.reshape(-1, BLOCK), scales.reshape(-1, 1)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_each_value_becomes_the_nearest_step(gpu: WebGpuDevice, size: float) -> None:
    x = (RNG.normal(size=(70, 96)) * size * 10.0 ** RNG.integers(-3, 3, (70, 1))).astype(np.float32)
    quants, scales = rounded(gpu, x)
    blocks = x.reshape(-1, BLOCK).astype(np.float64)
    np.testing.assert_allclose(scales[:, 0], np.abs(blocks).max(axis=1) / 127, rtol=1e-6)
    assert (np.abs(quants).max(axis=1) == 127).all()
    assert (np.abs(blocks - quants * scales.astype(np.float64)) <= 0.50002 * scales).all()


@pytest.mark.parametrize("value", [0.0, 1e-40, -1e-38])
def test_what_is_almost_nothing_becomes_nothing(gpu: WebGpuDevice, value: float) -> None:
    quants, scales = rounded(gpu, np.full((3, 32), value, np.float32))
    assert (np.abs(quants * scales.astype(np.float64)) <= 1.01 * abs(value)).all() and np.isfinite(scales).all()


@pytest.mark.parametrize("activations", ["q8", "f32"])
def test_the_device_decides_whether_int8_kernels_run(gpu: WebGpuDevice, activations: str) -> None:
    with WebGpuDevice(gpu.adapter, strict=True, activations=activations) as device:
        x, w = device.tensor(RNG.normal(size=(100, 64))), device.weight(RNG.normal(size=(40, 64)), "q8_0")
        assert device.kernel(ops.matmul, (x, w), {})[0].endswith("int8") == (activations == "q8")


def test_unknown_activations_are_refused(gpu: WebGpuDevice) -> None:
    with pytest.raises(ValueError, match="'q8' or 'f32', not 'f16'"):
        WebGpuDevice(gpu.adapter, activations="f16")
