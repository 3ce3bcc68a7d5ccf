"""How fast a device reads and does nothing else: much at once, and as many bytes as a call of another op touches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from omni_rt.benchmark.call import OpCall, repeat
from omni_rt.devices.device import Device
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.ops.contract import TABLE, cdiv
from omni_rt.tensor import Tensor

READING = "read_all"
"""The op whose rate is the yardstick of the others."""

READ_BYTES = {"gpu": 1 << 30, "software": 1 << 26, "cpu": 1 << 28}
"""Bytes that the yardstick reads at once: enough to hide the start of a dispatch and to pass every cache."""

LONGEST_SHARES = (1 << 10, 1 << 11, 1 << 12, 1 << 13)
"""Vectors that a workgroup may read of few bytes: which is best depends on size and GPU, so all are tried."""


def streaming_call(device: Device) -> OpCall:
    """Return the yardstick's call: it reads as much as the device may bind, up to what suits it."""
    size = READ_BYTES["cpu"]
    if isinstance(device, WebGpuDevice):
        size = min(READ_BYTES["software" if device.adapter.software else "gpu"], device.max_binding)
    return OpCall(TABLE[READING], {"T": size >> 18, "Q": 1 << 14}, {"x": "f32"})


def grids(nbytes: int) -> list[tuple[int, int]]:
    """Return the ways (workgroups T, vectors of each Q) to read `nbytes`, and hardly more, in one call."""
    vectors = cdiv(nbytes, 16)
    workgroups = sorted({cdiv(vectors, longest) for longest in LONGEST_SHARES})
    return [(count, cdiv(vectors, count)) for count in workgroups]


class SameBytes:
    """How long reading takes by the number of bytes, each number measured once: for `seconds` in all grids together.

    From `most` bytes on it is taken from the streaming `rate` in GB/s.
    """

    def __init__(self, device: Device, seconds: float, most: int, rate: float) -> None:
        self._device = device
        self._seconds = seconds
        self._most = most
        self._rate = rate
        self._known: dict[int, float] = {}

    def microseconds(self, nbytes: int) -> float:
        """Return the median time of one call that reads `nbytes`, in the grid that is fastest."""
        if nbytes >= self._most:
            return nbytes / self._rate / 1e3
        if nbytes not in self._known:
            self._known[nbytes] = self._measure(nbytes)
        return self._known[nbytes]

    def _measure(self, nbytes: int) -> float:
        """Read what lies as far apart as the operands of any call that is timed, each call waiting for the last."""
        ways = grids(nbytes)
        call = OpCall(TABLE[READING], {"T": 1, "Q": max(rows * length for rows, length in ways)}, {"x": "f32"})
        launches = [_reading(*way) for way in ways]
        first = call.upload(self._device)
        single = call.stopwatch(self._device, launches[0], [first])()
        sets = call.spread(self._device, first, single)
        stopwatches = [call.stopwatch(self._device, launch, sets) for launch in launches]
        readings = repeat(stopwatches, self._seconds / len(ways))
        return min(median(taken) for taken in readings) * 1e6


def _reading(rows: int, length: int) -> Callable[[Sequence[Tensor]], Any]:
    """Return what reads rows of `length` vectors from the start of an operand."""

    def launch(operands: Sequence[Tensor]) -> Any:
        (x,) = operands
        return TABLE[READING](x.reshape(-1)[: 4 * rows * length].reshape(rows, -1))

    return launch
