"""Captured steps on a GPU: submitted in pieces while it is idle, as one when it is busy, with the same bits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from wgpu import GPUValidationError

from omni_rt import ops
from omni_rt.devices import open_device
from omni_rt.devices import stream as stream_module
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.tensor import Tensor

DISPATCHES = 11


@pytest.mark.parametrize("in_c", [True, False])
@pytest.mark.parametrize(("piece", "submissions"), [(1, 4), (2, 3), (3, 3), (4, 2), (11, 1), (48, 1)])
def test_pieces_of_a_step_are_the_step(
    gpu: WebGpuDevice,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    in_c: bool,
    piece: int,
    submissions: int,
) -> None:
    """Each piece has twice the dispatches of the one before; the step behind it comes while the GPU has work."""
    monkeypatch.setattr(stream_module, "FIRST_PIECE", piece)
    stream = gpu.stream
    if not in_c:
        monkeypatch.setattr(stream, "replayer", None)
    else:
        request.getfixturevalue("kernels")
    state = gpu.zeros((1, 64))
    weight = gpu.weight(np.random.default_rng(1).normal(size=(64, 64)) / 8, "f32")

    def step() -> Tensor:
        x = state
        for _ in range(DISPATCHES - 1):
            x = ops.matmul(x, weight)
        ops.advance(token, position, length, chosen)
        return x

    token, length, chosen = (gpu.zeros((1,), "i32") for _ in range(3))
    position = gpu.zeros((1, 1))
    captured = gpu.capture(step)
    captured()
    gpu.write(length, np.zeros(1))
    results = []
    for number, values in enumerate(np.random.default_rng(0).normal(size=(3, 1, 64)).astype(np.float32)):
        gpu.write(state, values)
        gpu.synchronize()
        before = stream.submissions
        assert stream.idle
        in_pieces = gpu.read_later(captured())
        assert not stream.idle and stream.submissions == before + submissions
        as_one = gpu.read_later(captured())
        assert stream.submissions == before + submissions + 1, "a busy GPU gets one submission"
        results.append(in_pieces())
        np.testing.assert_array_equal(as_one(), results[-1])
        assert stream.idle and int(length.numpy()[0]) == 2 * (number + 1)
        np.testing.assert_array_equal(results[-1], step().numpy())
        gpu.write(length, np.array([2 * (number + 1)]))
    assert all(not np.array_equal(a, b) for a, b in pairwise(results))


def test_an_older_result_does_not_make_the_gpu_idle(gpu: WebGpuDevice) -> None:
    state = gpu.tensor(np.ones((1, 4), np.float32))
    captured = gpu.capture(lambda: ops.add(state, state))
    first = gpu.read_later(captured())
    second = gpu.read_later(captured())
    first()
    assert not gpu.stream.idle
    second()
    assert gpu.stream.idle


def test_recordings_of_a_step_share_their_memory(gpu: WebGpuDevice) -> None:
    """What a second recording needs is there already, but for its results: the next call may overwrite those."""
    state = gpu.tensor(np.random.default_rng(0).normal(size=(1, 5000)).astype(np.float32))

    def step(turns: int) -> Tensor:
        x = state
        for _ in range(turns):
            x = ops.silu(ops.add(x, state))
        return ops.add(x, x)

    captured = gpu.capture(step)
    first = captured(3)
    used = gpu.ledger.total
    second = captured(5)
    assert gpu.ledger.total - used == 20480, "one buffer more"
    for result, turns in ((second, 5), (first, 3), (second, 5)):
        assert captured(turns) is result
        np.testing.assert_array_equal(result.numpy(), step(turns).numpy())


def test_an_invalid_step_is_an_error_and_not_the_end(gpu: WebGpuDevice) -> None:
    """A buffer that a dispatch both reads and writes is refused when the step is first run."""
    token, position, length = gpu.zeros((1,), "i32"), gpu.zeros((1, 1)), gpu.zeros((1,), "i32")
    captured = gpu.capture(lambda: ops.advance(token, position, length, token))
    for _ in range(2):
        with pytest.raises(GPUValidationError, match="usage"):
            captured()
    np.testing.assert_array_equal(ops.add(position, position).numpy(), [[0]])


def test_a_step_of_a_closed_device_is_an_error_and_not_the_end() -> None:
    device = open_device("wgpu")
    state = device.tensor(np.ones((1, 4), np.float32))
    captured = device.capture(lambda: ops.add(state, state))
    for _ in range(2):
        captured()
    device.close()
    with pytest.raises(GPUValidationError, match="lost"):
        captured()
