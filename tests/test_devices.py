"""Devices: memory, views, capture and replay, fallbacks, strict mode, budgets, the trace."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from omni_rt import DeviceError, OutOfMemoryError, ops
from omni_rt.devices import open_device, pipelines, readback, upload
from omni_rt.devices.device import Device
from omni_rt.devices.pipelines import binding_kinds
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.ops.contract import TABLE, op

RNG = np.random.default_rng(4)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@op("x[T, N] -> y[T, N]", domain=())
def without_kernel(x: Any) -> Any:
    """Three times x; has no GPU kernel, so that a fallback can be watched."""
    return x * 3


# Only these tests know the op: the generated ones would ask for its kernel.
TABLE.pop("without_kernel")


@pytest.fixture
def lenient() -> Iterator[Device]:
    with open_device("wgpu") as opened:
        yield opened


def test_values_come_back_as_they_went(device: Device) -> None:
    for values in (normal(3, 5), np.arange(7, dtype=np.int32), normal(4, 6).astype(np.float16), normal(0, 8)):
        got = device.tensor(values).numpy()
        np.testing.assert_array_equal(got, values.astype(got.dtype))
    assert device.tensor(np.arange(3)).dtype == "i32"
    assert device.tensor(np.arange(4, dtype=np.float64)).dtype == "f32"


def test_a_view_starts_at_any_row(device: Device) -> None:
    values = normal(9, 3)
    tensor = device.tensor(values)
    for start in range(9):
        np.testing.assert_array_equal(tensor[start:].numpy(), values[start:])
        doubled = ops.add(tensor[start : start + 1], tensor[start : start + 1])
        np.testing.assert_array_equal(doubled.numpy(), 2 * values[start : start + 1])
    np.testing.assert_array_equal(tensor[-1].numpy(), values[-1])
    with pytest.raises(IndexError):
        tensor[9]
    with pytest.raises(IndexError, match="step"):
        tensor[::2]


def test_a_write_lands_between_the_ops_around_it(device: Device) -> None:
    state = device.zeros((2, 4))
    before = ops.add(state, state)
    device.write(state, np.ones((2, 4)))
    after = ops.add(state, state)
    np.testing.assert_array_equal(before.numpy(), np.zeros((2, 4)))
    np.testing.assert_array_equal(after.numpy(), np.full((2, 4), 2))


def test_replay_gives_the_same_bits_and_follows_its_state(device: Device) -> None:
    state = device.zeros((1, 64))
    weight = device.weight(normal(64, 64) / 8, "f32")

    def step() -> Any:
        x = state
        for _ in range(5):
            x = ops.silu(ops.matmul(x, weight))
        return x

    captured = device.capture(step)
    first_input, second_input = normal(1, 64), normal(1, 64)
    device.write(state, first_input)
    first = captured().numpy()
    np.testing.assert_array_equal(step().numpy(), first)
    device.write(state, second_input)
    second = captured().numpy()
    assert not np.array_equal(first, second)
    device.write(state, first_input)
    scratch = [ops.add(state, state) for _ in range(20)]
    np.testing.assert_array_equal(captured().numpy(), first)
    np.testing.assert_array_equal(scratch[3].numpy(), 2 * first_input)


def test_a_capture_records_once_per_argument(device: Device) -> None:
    calls = []
    state = device.tensor(normal(1, 8))

    def step(count: int) -> Any:
        calls.append(count)
        x = state
        for _ in range(count):
            x = ops.add(x, state)
        return x

    captured = device.capture(step)
    results = [captured(count).numpy() for count in (1, 3, 1, 3)]
    assert calls == [1, 3]
    np.testing.assert_allclose(results[0] * 2, results[1], rtol=1e-6)
    np.testing.assert_array_equal(results[0], results[2])


def test_a_captured_step_must_not_read(device: Device) -> None:
    state = device.tensor(normal(1, 8))
    with pytest.raises(DeviceError, match="read"):
        device.capture(lambda: ops.add(state, state).numpy())()
    np.testing.assert_array_equal(ops.add(state, state).numpy(), 2 * state.numpy())


def test_a_step_captured_on_a_gpu_must_not_upload(gpu: WebGpuDevice) -> None:
    with pytest.raises(DeviceError, match="upload"):
        gpu.capture(lambda: gpu.tensor(np.ones(3)))()


def test_a_view_that_cannot_be_bound_is_not_changed_in_silence(gpu: WebGpuDevice) -> None:
    seen = gpu.zeros((64,), "i32")
    ids = gpu.tensor(np.array([3], np.int32))
    with pytest.raises(DeviceError, match="would change a view"):
        ops.mark(seen[1:], ids)
    ops.mark(seen, ids)
    assert seen.numpy().sum() == 1


def test_a_call_without_a_kernel_runs_on_the_cpu_and_is_counted(lenient: Device) -> None:
    values = normal(2, 3)
    got = without_kernel(lenient.tensor(values))
    np.testing.assert_array_equal(got.numpy(), values * 3)
    assert lenient.fallbacks == {"without_kernel": 1}


def test_strict_refuses_a_fallback_and_says_for_what(gpu: WebGpuDevice) -> None:
    with pytest.raises(DeviceError, match=r"without_kernel\(x\[2, 3\] f32"):
        without_kernel(gpu.tensor(normal(2, 3)))


def test_disagreeing_operands_are_named(device: Device) -> None:
    with pytest.raises(ValueError, match=r"w\[5, 7\].*K = 7.*K = 6"):
        ops.matmul(device.tensor(normal(2, 6)), device.tensor(normal(5, 7)))
    with pytest.raises(TypeError, match="epsilon"):
        ops.rms_norm(device.tensor(normal(2, 6)), device.tensor(normal(6)))


@pytest.mark.parametrize("name", ["cpu", "wgpu"])
def test_a_budget_refuses_what_does_not_fit_before_it_is_made(name: str) -> None:
    with open_device(name, max_memory=1 << 20) as device:
        kept = device.weight(np.zeros((256, 256), np.float32), "f32")
        with pytest.raises(OutOfMemoryError) as caught:
            device.weight(np.zeros((1024, 256), np.float32), "f32")
        assert caught.value.needed == 1 << 20
        assert caught.value.available == (1 << 20) - (1 << 18)
        assert device.ledger.used["weights"] == kept.nbytes == 1 << 18


def test_dropped_activations_are_used_again(gpu: WebGpuDevice) -> None:
    x = gpu.tensor(normal(64, 64))
    for _ in range(3):
        ops.add(x, x)
    held = gpu.ledger.total
    for _ in range(200):
        ops.add(x, x)
    assert gpu.ledger.total == held


def test_a_tensor_above_the_binding_limit_is_split_by_rows(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    values, x = normal(200, 64), normal(3, 64)
    monkeypatch.setattr(gpu, "max_binding", 64 * 64 * 4)
    for dtype in ("f32", "f16", "q8_0"):
        split = gpu.weight(values, dtype)
        whole_rows = split.numpy()
        if dtype == "f32":
            assert [len(part) for part in split.parts] == [64, 64, 64, 8]
        np.testing.assert_allclose(ops.matmul(gpu.tensor(x), split).numpy(), x @ whole_rows.T, atol=1e-4)
        ids = np.array([0, 63, 64, 199, 128], np.int32)
        np.testing.assert_array_equal(ops.embed(split, gpu.tensor(ids)).numpy(), whole_rows[ids])


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_noise_has_the_deviation_asked_for(device: Device, dtype: str) -> None:
    values = device.noise((300, 64), dtype, deviation=0.25, seed=3).numpy()
    assert values.shape == (300, 64)
    assert abs(values.std() - 0.25) < 0.01 and abs(values.mean()) < 0.01
    np.testing.assert_array_equal(values, device.noise((300, 64), dtype, deviation=0.25, seed=3).numpy())
    assert (values != device.noise((300, 64), dtype, deviation=0.25, seed=4).numpy()).mean() > 0.9


def test_noise_above_the_binding_limit_is_split(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "max_binding", 64 * 64)
    made = gpu.noise((5, 40, 64), "q8_0", deviation=1.0, seed=0)
    assert [len(part) for part in made.parts] == [64, 64, 64, 8] and made.numpy().shape == (5, 40, 64)


def test_the_trace_has_a_line_per_dispatch(gpu: WebGpuDevice) -> None:
    x, w = gpu.tensor(normal(2, 32)), gpu.weight(normal(8, 32), "f32")
    gpu.trace = []
    try:
        ops.silu(ops.matmul(x, w))
        lines = gpu.trace
    finally:
        gpu.trace = None
    assert [line.op for line in lines] == ["matmul", "silu"]
    assert all(line.microseconds >= 0 and line.nbytes > 0 for line in lines)
    assert lines[0].dims["K"] == 32


def test_an_unknown_device_and_a_missing_adapter_are_named() -> None:
    with pytest.raises(DeviceError, match="auto, cpu, wgpu"):
        open_device("cuda")
    with pytest.raises(DeviceError, match=r"wgpu:0 = "):
        open_device("wgpu:99")


def test_memory_is_given_back(gpu: WebGpuDevice) -> None:
    before = gpu.ledger.used["weights"]
    weight = gpu.weight(normal(128, 128), "f32")
    assert gpu.ledger.used["weights"] == before + 128 * 128 * 4
    del weight
    assert gpu.ledger.used["weights"] == before


def test_a_gpu_that_does_not_answer_is_an_error(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(readback, "DEADLINE", 0.05)
        patch.setattr(gpu.stream._readback, "_poll", lambda: None)  # so that no answer is ever noticed
        with pytest.raises(DeviceError, match=r"has not answered for .* s: it hangs or is overloaded"):
            gpu.synchronize()
    assert gpu.read(gpu.tensor(normal(3))).shape == (3,), "the device works on when the GPU answers again"


class Forgetful(set[int]):
    """Holds what is added and says that it does not."""

    def __contains__(self, item: object) -> bool:
        return False


def test_a_gpu_that_takes_no_weight_is_an_error(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    values = normal(600, 600)
    weight = gpu.weight(values, "f32")  # too large for the queue: it goes through the ring
    returned = Forgetful(gpu._uploads._ready)
    with monkeypatch.context() as patch:
        patch.setattr(upload, "DEADLINE", 0.05)
        patch.setattr(gpu._uploads, "_ready", returned)
        with pytest.raises(DeviceError, match=r"has not taken a weight for .* s: it hangs or is overloaded"):
            gpu.settle()
    gpu._uploads._ready |= set(returned)
    gpu.settle()
    np.testing.assert_array_equal(weight.numpy(), values)


def test_pipelines_are_compiled_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that wait for each other to begin are both made, and the ops that asked for them are right."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    both = threading.Barrier(2)
    with open_device("wgpu") as device:
        assert isinstance(device, WebGpuDevice)
        create = device.pipelines._create_module

        def create_together(name: str, source: str) -> object:
            both.wait(timeout=60)
            return create(name, source)

        monkeypatch.setattr(device.pipelines, "_create_module", create_together)
        x = device.tensor(np.ones((2, 4), np.float32))
        np.testing.assert_allclose(ops.silu(ops.add(x, x)).numpy(), 2 / (1 + np.exp(-2)), rtol=1e-6)


def test_a_kernel_that_does_not_compile_is_an_error_and_not_the_end(
    gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = gpu.tensor(np.ones((2, 4), np.float32))
    with monkeypatch.context() as patch:
        patch.setattr(gpu.pipelines, "_pipelines", {})
        patch.setattr(gpu, "_plans", {})
        patch.setattr(gpu.pipelines, "_create_module", lambda name, source: 1 / 0)
        for _ in range(2):
            y = ops.add(x, x)
            with pytest.raises(DeviceError, match=r"the shader add \{\} does not compile on wgpu .*: division by zero"):
                y.numpy()
    np.testing.assert_array_equal(ops.add(x, x).numpy(), 2)


def test_a_driver_that_does_not_compile_is_an_error(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gpu.tensor(np.ones((2, 4), np.float32))
    done = threading.Event()
    create = gpu.pipelines._create_module
    with monkeypatch.context() as patch:
        patch.setattr(gpu.pipelines, "_pipelines", {})
        patch.setattr(gpu, "_plans", {})
        patch.setattr(gpu.pipelines, "_create_module", lambda name, source: done.wait(60) and create(name, source))
        patch.setattr(pipelines, "DEADLINE", 0.05)
        y = ops.add(x, x)
        with pytest.raises(DeviceError, match=r"the driver has not compiled the shader add for .* s: it hangs"):
            y.numpy()
    done.set()
    np.testing.assert_array_equal(ops.add(x, x).numpy(), 2, "the device works on")


def test_more_workgroup_storage_than_the_adapter_has_is_refused(gpu: WebGpuDevice) -> None:
    kernel = next(k for k in TABLE["matmul"].kernels if k.shader == "matmul_q8_0_int8_gemv")
    variant = dict(kernel.variants[0]) | {"MOST": 1 << 18}
    with pytest.raises(DeviceError, match=r"needs \d+ bytes of workgroup storage, .* has \d+"):
        gpu.pipelines.pipeline(kernel.shader, variant, binding_kinds(TABLE["matmul"], kernel))
