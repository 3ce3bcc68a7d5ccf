"""What a measurement needs: medians over a second, dispatches, and the Python time of recording and replaying."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from omni_rt.devices.device import Device

LEAST_RUNS = 5
MOST_RUNS = 1000  # of a stage: a decoder's cache must hold them


def milliseconds(run: Callable[[], object], synchronize: Callable[[], None], seconds: float = 1.0) -> tuple[float, int]:
    """Return the median time of a run in milliseconds, and how often it was run; warm it up before.

    Runs are repeated for `seconds` or more and five times or more, but slow ones no more than ten times that long.
    """
    times: list[float] = []
    started = time.perf_counter()

    def goes_on() -> bool:
        passed = time.perf_counter() - started
        if len(times) < LEAST_RUNS:
            return not times or passed < 10 * seconds
        return passed < seconds and len(times) < MOST_RUNS

    while goes_on():
        before = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - before)
    return 1000 * median(times), len(times)


def steady_milliseconds(
    run: Callable[[], object], synchronize: Callable[[], None], seconds: float = 1.0
) -> tuple[float, int]:
    """Return the time of a run among many that do not wait for each other, in milliseconds, and how often it was run.

    The first fifth of the time does not count: clocks rise, and steps run ahead.
    """
    started = time.perf_counter()
    before = 0
    while not before or time.perf_counter() - started < seconds / 5:
        run()
        before += 1
    synchronize()
    started = time.perf_counter()
    runs = 0
    while runs < LEAST_RUNS or (time.perf_counter() - started < seconds and runs < MOST_RUNS):
        run()
        runs += 1
    synchronize()
    return 1000 * (time.perf_counter() - started) / runs, before + runs


@dataclass
class PythonCost:
    """Microseconds of Python per dispatch, one value for each time that a step was recorded or replayed."""

    record: list[float] = field(default_factory=list)
    replay: list[float] = field(default_factory=list)


def dispatches(device: Device) -> int | None:
    """Return how many dispatches a device has issued, None where there is no such thing."""
    stream = getattr(device, "stream", None)
    return None if stream is None else int(stream.issued)


@contextmanager
def metered(device: Device) -> Iterator[PythonCost]:
    """Time the steps that are captured inside the block, by the device's own captures: what each call costs Python.

    A replay does not wait for the GPU, so its time is that of encoding and submitting. The first call of a step records
    and replays it: its cost is that of both.
    """
    cost = PythonCost()
    original = device.capture

    def capture(step: Callable[..., Any]) -> Callable[..., Any]:
        inner = original(step)
        known: set[tuple[Any, ...]] = set()

        def run(*key: Any) -> Any:
            before, started = dispatches(device), time.perf_counter()
            result = inner(*key)
            seconds = time.perf_counter() - started
            issued = (dispatches(device) or 0) - (before or 0)
            if issued:
                (cost.replay if key in known else cost.record).append(1e6 * seconds / issued)
            known.add(key)
            return result

        return run

    device.capture = capture  # type: ignore[method-assign]
    try:
        yield cost
    finally:
        del device.capture
