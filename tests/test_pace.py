"""Submissions hold as many dispatches as take a tenth of a second by the GPU's clock, and compute the same."""

from __future__ import annotations

import numpy as np
import pytest

from omni_rt import ops
from omni_rt.devices.pace import FIRST_DISPATCHES, KEPT, LEAST_TIMED, MOST_DISPATCHES, Pace
from omni_rt.devices.webgpu import WebGpuDevice


@pytest.fixture
def pace(gpu: WebGpuDevice) -> Pace:
    return Pace(gpu._gpu, 1.0, gpu.stream.read_later)


def test_quick_work_is_submitted_in_larger_parts(pace: Pace) -> None:
    limits = [pace.limit]
    for _ in range(7):
        pace.learn(pace.limit, 0.001)
        limits.append(pace.limit)
    assert limits == [16, 21, 27, 34, 43, 54, 64, 64] and MOST_DISPATCHES == 64


@pytest.mark.parametrize(("dispatches", "seconds", "limit"), [(32, 0.2, 16), (32, 0.8, 4), (8, 2.0, 1), (9, 1e9, 1)])
def test_slow_work_is_submitted_in_smaller_parts(pace: Pace, dispatches: int, seconds: float, limit: int) -> None:
    pace.learn(dispatches, seconds)
    assert pace.limit == limit


def test_the_limit_recovers_step_by_step(pace: Pace) -> None:
    pace.learn(32, 8.0)
    limits = []
    for _ in range(8):
        pace.learn(pace.limit, 0.0)
        limits.append(pace.limit)
    assert limits == [2, 3, 4, 6, 8, 11, 14, 18]


@pytest.mark.parametrize("limit", [2, 10])
def test_a_submission_holds_no_more_than_the_limit(gpu: WebGpuDevice, limit: int) -> None:
    with WebGpuDevice(gpu.adapter, strict=True) as device:
        assert device.stream.pace is not None, "this adapter has no timestamps: nothing limits submissions"
        learnt: list[tuple[int, float]] = []
        device.stream.pace.limit = limit
        device.stream.pace.learn = lambda *times: learnt.append(times)  # type: ignore[method-assign]
        x = y = device.tensor(np.ones((50, 7), np.float32))
        for _ in range(limit * 3):
            y = ops.add(y, x)
        assert [count for count, _ in learnt] == [limit] * 3 and all(0 < seconds < 10 for _, seconds in learnt)
        np.testing.assert_array_equal(y.numpy(), limit * 3 + 1.0)


def test_quick_submissions_overlap_and_slow_ones_are_waited_for(gpu: WebGpuDevice) -> None:
    with WebGpuDevice(gpu.adapter, strict=True) as device:
        pace = device.stream.pace
        assert pace is not None
        seconds = iter([0.001] * 6 + [9.0] * 9)
        learnt: list[int] = []
        learn = pace.learn

        def told(dispatches: int, measured: float) -> None:
            assert 0 < measured < 10
            learn(dispatches, next(seconds))
            learnt.append(len(pace._waiting))

        pace.learn = told  # type: ignore[method-assign]
        x = y = device.tensor(np.ones((50, 7), np.float32))
        while len(learnt) < 15:
            y = ops.add(y, x)
        # The first is waited for, and then up to KEPT are under way; one that was slow leaves none.
        assert learnt[:6] == [0, 1, 2, 3, KEPT, KEPT] and learnt[-4:] == [0, 0, 0, 0]
        assert pace.limit == 1


def test_short_submissions_are_not_timed(gpu: WebGpuDevice) -> None:
    with WebGpuDevice(gpu.adapter, strict=True) as device:
        pace = device.stream.pace
        assert pace is not None
        x = device.tensor(np.ones((5, 7), np.float32))
        for _ in range(20):
            for _ in range(LEAST_TIMED - 1):
                x = ops.add(x, x)
            x.numpy()
        assert pace.limit == FIRST_DISPATCHES
