"""Time every op at the sizes that real models call it with, beside what the device reads at best in the same run.

The result of a call is compared with the NumPy body before it is timed. On the CPU the body is timed as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import omni_rt.ops  # noqa: F401 (fills the table)
from omni_rt.benchmark.call import OpCall, dtype_choices, repeat
from omni_rt.benchmark.reading import READING, SameBytes, streaming_call
from omni_rt.devices.cpu import NUMPY, CpuDevice
from omni_rt.devices.device import Device
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.ops.contract import TABLE
from omni_rt.tensor import Tensor


@dataclass(frozen=True)
class OpTiming:
    """How long one call of an op takes: median microseconds, bytes touched, GB/s, and the share of the reading rate.

    `reading_microseconds` are what reading as many bytes takes, in one call that does nothing else.
    `side_by_side_microseconds` are what a call takes where none waits for another, on a GPU. `gflops` are 10^9
    operations per second where the op counts them. `numpy_microseconds` tell how long the NumPy body takes, on a CPU.
    """

    op: str
    kernel: str
    variant: Mapping[str, int]
    dtypes: Mapping[str, str]
    dims: Mapping[str, Any]
    microseconds: float
    nbytes: int
    gigabytes_per_second: float
    share: float
    reading_microseconds: float
    side_by_side_microseconds: float | None
    gflops: float | None
    numpy_microseconds: float | None
    runs: int

    @property
    def share_of_as_much(self) -> float:
        """How fast it is beside reading as many bytes: 1 where it takes no longer."""
        return self.reading_microseconds / self.microseconds

    @property
    def share_side_by_side(self) -> float | None:
        """The share of the reading rate at which calls touch bytes that do not wait for each other."""
        alone = self.side_by_side_microseconds
        return None if alone is None else self.share * self.microseconds / alone

    def as_json(self) -> dict[str, Any]:
        """Return the timing as plain values."""
        shares = {"share_of_as_much": self.share_of_as_much, "share_side_by_side": self.share_side_by_side}
        return asdict(self) | shares


def timings(
    device: Device, names: Sequence[str] | None = None, *, seconds: float = 1.0, dtypes: Sequence[str] = ()
) -> Iterator[OpTiming]:
    """Time the ops `names` (all when None) on a device, each call for at least `seconds`; yield them one by one.

    `dtypes` restricts those of weights and caches; what no kernel of a GPU takes is left out. The first timing is
    always that of `read_all`. Raises DeviceError when an op computes something else than its NumPy body.
    """
    yardstick = _time(device, streaming_call(device), seconds)
    yield yardstick
    reading = SameBytes(device, seconds, yardstick.nbytes, yardstick.gigabytes_per_second)
    for name in names or sorted(TABLE):
        op = TABLE[name]
        for dims in op.bench if name != READING else ():
            for chosen in dtype_choices(op, dims, dtypes):
                call = OpCall(op, dims, chosen)
                if not isinstance(device, WebGpuDevice) or any(device.accepts(k, call.call) for k in op.kernels):
                    timing = _time(device, call, seconds)
                    share = timing.gigabytes_per_second / yardstick.gigabytes_per_second
                    yield replace(timing, share=share, reading_microseconds=reading.microseconds(timing.nbytes))


def format_table(found: Sequence[OpTiming]) -> str:
    """Return timings as lines of aligned columns; those of NumPy only where it was timed."""
    heading = "op, kernel, dtypes, size, us, MB, GB/s, of reading, of as much, side by side, GFLOP/s, NumPy us, ratio"
    rows = [heading.split(", ")]
    for timing in found:
        dtypes = ",".join(dict.fromkeys(timing.dtypes.values()))
        size = ",".join(f"{name}={_short(value)}" for name, value in timing.dims.items())
        kernel = " ".join([timing.kernel, *(f"{name}={value}" for name, value in timing.variant.items())])
        numbers = [f"{timing.microseconds:.1f}", f"{timing.nbytes / 1e6:.2f}", f"{timing.gigabytes_per_second:.2f}"]
        apart = timing.share_side_by_side
        numbers += [f"{timing.share:.0%}", f"{timing.share_of_as_much:.0%}", "-" if apart is None else f"{apart:.0%}"]
        numbers += ["-" if timing.gflops is None else f"{timing.gflops:.1f}"]
        if timing.numpy_microseconds is not None:
            ratio = timing.numpy_microseconds / timing.microseconds
            numbers += [f"{timing.numpy_microseconds:.1f}", f"{ratio:.2f}"]
        rows.append([timing.op, kernel, dtypes, size, *numbers])
    columns = max(len(row) for row in rows[1:]) if found else len(rows[0])
    rows[0] = rows[0][:columns]
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    words = 4  # columns of words, which start at their left edge; the others hold numbers
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _time(device: Device, call: OpCall, seconds: float) -> OpTiming:
    """Check one call, then time it, as if it were the yardstick."""

    def launch(operands: Sequence[Tensor]) -> Any:
        return call.op(*operands, **call.attributes)

    def measure(device: Device, first: list[Tensor]) -> list[list[float]]:
        single = call.stopwatch(device, launch, [first])()
        sets = call.spread(device, first, single)
        ways = (True, False) if device.kind == "wgpu" else (True,)
        return repeat([call.stopwatch(device, launch, sets, waiting=waiting) for waiting in ways], seconds)

    first = call.check(device, launch, call.op.name)
    kernel, variant = device.kernel(call.op, first, call.attributes)
    readings, *apart = measure(device, first)
    microseconds = median(readings) * 1e6
    numpy_microseconds = microseconds if kernel == NUMPY else None
    if isinstance(device, CpuDevice) and numpy_microseconds is None:
        plain = CpuDevice(level=NUMPY)
        numpy_microseconds = median(measure(plain, call.upload(plain))[0]) * 1e6
    rate = call.touched_bytes / microseconds / 1e3
    return OpTiming(
        op=call.op.name,
        kernel=kernel,
        variant=variant,
        dtypes=call.dtypes,
        dims=call.dims,
        microseconds=microseconds,
        nbytes=call.touched_bytes,
        gigabytes_per_second=rate,
        share=1.0,
        reading_microseconds=microseconds,
        side_by_side_microseconds=median(apart[0]) * 1e6 if apart else None,
        gflops=None if call.flops is None else call.flops / microseconds / 1e3,
        numpy_microseconds=numpy_microseconds,
        runs=len(readings),
    )
