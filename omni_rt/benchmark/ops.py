"""Time every op at the sizes that real models call it with, beside what the device reads at best in the same run.

A timing is of one call that waits for the call before it, as in a decoding step, over operands that lie far apart: so
many copies that no cache holds them, unless the operands are small. The result is compared with the NumPy body first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

import numpy as np

import omni_rt.ops  # noqa: F401 (fills the table)
from omni_rt import quant
from omni_rt.devices.device import Device
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.errors import DeviceError, InputError
from omni_rt.ops.contract import DTYPE_CLASSES, TABLE, Op, Operand
from omni_rt.tensor import BLOCK, Tensor, plane_bytes

READING = "read_all"
"""The op whose rate is the yardstick of the others."""

SPREAD = 256 << 20
"""Bytes over which the operands of a timing are spread, where that takes no more than MOST_COPIES."""

MOST_COPIES = 32
MOST_SECONDS = 0.1
"""Seconds that one submission may take: drivers reset a GPU that does not answer for two."""
WARM_SECONDS = 0.2
"""Seconds of the same work before anything counts: clocks sag while operands are being made."""
READ_BYTES = {"gpu": 1 << 30, "software": 1 << 26, "cpu": 1 << 28}
"""Bytes that the yardstick reads at once: enough to hide the start of a dispatch and to pass every cache."""
ROUGH_NMSE = 1e-3
"""Error allowed with q8_0 weights, whose kernels may round the activations to int8 too."""
FINE_NMSE = 1e-6
POOL = 1 << 20


@dataclass(frozen=True)
class OpTiming:
    """How long one call of an op takes: median microseconds, bytes touched, GB/s, and the share of the reading rate."""

    op: str
    kernel: str
    dtypes: Mapping[str, str]
    dims: Mapping[str, Any]
    microseconds: float
    nbytes: int
    gigabytes_per_second: float
    share: float
    runs: int

    def as_json(self) -> dict[str, Any]:
        """Return the timing as plain values."""
        return asdict(self)


def run(device: Device, names: Sequence[str] | None = None, *, seconds: float = 0.5) -> list[OpTiming]:
    """Time the ops `names` (all when None) on a device, each call for at least `seconds`.

    The first timing is always that of `read_all`. Raises InputError for an unknown name, and DeviceError when an op
    computes something else than its NumPy body.
    """
    return list(timings(device, names, seconds=seconds))


def timings(device: Device, names: Sequence[str] | None = None, *, seconds: float = 0.5) -> Iterator[OpTiming]:
    """Yield the timings of `run` one by one."""
    unknown = sorted(set(names or ()) - set(TABLE))
    if unknown:
        raise InputError(f"no op is called {', '.join(unknown)}; there are {', '.join(sorted(TABLE))}")
    reading = TABLE[READING]
    yardstick = _time(device, reading, _reading_call(device), {"x": "f32"}, seconds, 0.0)
    yield yardstick
    for name in names or sorted(TABLE):
        op = TABLE[name]
        for dims in op.bench if name != READING else ():
            for dtypes in _dtypes(op, dims):
                yield _time(device, op, dims, dtypes, seconds, yardstick.gigabytes_per_second)


def format_table(found: Sequence[OpTiming]) -> str:
    """Return timings as lines of aligned columns."""
    rows = [("op", "kernel", "dtypes", "size", "us", "MB", "GB/s", "of reading")]
    for timing in found:
        dtypes = ",".join(dict.fromkeys(timing.dtypes.values()))
        size = ",".join(f"{name}={_short(value)}" for name, value in timing.dims.items())
        numbers = f"{timing.microseconds:.1f}", f"{timing.nbytes / 1e6:.2f}", f"{timing.gigabytes_per_second:.2f}"
        rows.append((timing.op, timing.kernel, dtypes, size, *numbers, f"{timing.share:.0%}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
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


def _reading_call(device: Device) -> dict[str, int]:
    """Return the extents of the yardstick's call: as much as the device may bind, up to what suits it."""
    size = READ_BYTES["cpu"]
    if isinstance(device, WebGpuDevice):
        size = min(READ_BYTES["software" if device.adapter.software else "gpu"], device.max_binding)
    return {"T": size >> 18, "Q": 1 << 14}


def _dtypes(op: Op, dims: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the dtypes to time a call with: each of the widest class among its operands, as far as rows allow."""
    widest = max((o.dtype_class for o in op.operands), key=lambda name: len(DTYPE_CLASSES[name]))
    for dtype in DTYPE_CLASSES[widest]:
        chosen = {o.name: dtype if o.dtype_class == widest else DTYPE_CLASSES[o.dtype_class][0] for o in op.operands}
        if all(o.shape(dims)[-1] % BLOCK == 0 for o in op.operands if chosen[o.name] == "q8_0"):
            yield chosen


def _time(
    device: Device, op: Op, dims: Mapping[str, Any], dtypes: Mapping[str, str], seconds: float, yardstick: float
) -> OpTiming:
    """Check one call, then time it; `yardstick` is the reading rate in GB/s, 0 for the yardstick itself."""
    rng = np.random.default_rng(0)
    attributes = {name: dims[name] for name in op.attributes if name in dims}
    host = _operands(op, dims, dtypes, rng)
    shapes = [tuple(values.shape) for values in host]
    call = op.bind(shapes, list(dtypes.values()), attributes)
    outputs = sum(plane_bytes(output.shape(call.dims), output.dtype_class)[0] for output in op.outputs)
    size = sum(sum(plane_bytes(shape, dtypes[o.name])) for o, shape in zip(op.operands, shapes, strict=True))

    def upload() -> list[Tensor]:
        return [_upload(device, o, values, dtypes[o.name]) for o, values in zip(op.operands, host, strict=True)]

    copies = [upload()]
    kernel = device.kernel(op, copies[0], attributes)
    _check(device, op, copies[0], attributes, host)
    single = device.stopwatch(lambda: op(*copies[0], **attributes))()
    while len(copies) < min(MOST_COPIES, SPREAD // max(size, 1), MOST_SECONDS / max(single, 1e-9)):
        copies.append(upload())

    def step() -> None:
        for operands in copies:
            op(*operands, **attributes)

    stopwatch = device.stopwatch(step)
    measured: list[float] = []
    started = time.perf_counter()
    while not measured or time.perf_counter() - started < WARM_SECONDS + seconds:
        taken = stopwatch() / len(copies)
        if not measured or time.perf_counter() - started > WARM_SECONDS:
            measured.append(taken)
    measured = measured[1:] or measured
    microseconds = median(measured) * 1e6
    touched = _touched(op, call.dims, shapes, dtypes) + outputs
    rate = touched / microseconds / 1e3
    return OpTiming(
        op.name,
        kernel,
        dict(dtypes),
        dict(dims),
        microseconds,
        touched,
        rate,
        rate / (yardstick or rate),
        len(measured),
    )


def _operands(op: Op, dims: Mapping[str, Any], dtypes: Mapping[str, str], rng: np.random.Generator) -> list[np.ndarray]:
    """Return host values: those of the op's example, else random ones that repeat after a while."""
    given = op.example(rng, dims) if op.example else {}
    pool = rng.standard_normal(POOL, np.float32)
    values: list[np.ndarray] = []
    for operand in op.operands:
        shape = operand.shape(dims)
        if operand.name in given:
            made = np.asarray(given[operand.name])
        elif dtypes[operand.name] == "i32":
            made = np.zeros(shape, np.int32)
        else:
            made = np.resize(np.roll(pool, len(values) * 7919), prod(shape)).reshape(shape)
        values.append(made.astype(np.int32 if dtypes[operand.name] == "i32" else np.float32))
    return values


def _upload(device: Device, operand: Operand, values: np.ndarray, dtype: str) -> Tensor:
    if operand.dtype_class == "weight":
        return device.weight(values, dtype)
    return device.tensor(values.astype(np.float16) if dtype == "f16" else values)


def _check(
    device: Device, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any], host: Sequence[np.ndarray]
) -> None:
    """Compare one call with the NumPy body, roughly: parity tests do it finely, this guards what is timed."""
    results = op(*operands, **attributes)
    if not op.outputs:
        return
    arrays = [
        quant.dequantise(*quant.quantise(values)) if tensor.dtype == "q8_0" else values
        for values, tensor in zip(host, operands, strict=True)
    ]
    arrays = [
        values.astype(np.float16).astype(np.float32) if tensor.dtype == "f16" else values
        for values, tensor in zip(arrays, operands, strict=True)
    ]
    expected = op.body(*arrays, **attributes)
    if len(op.outputs) == 1:
        results, expected = (results,), (expected,)
    for output, result, truth in zip(op.outputs, results, expected, strict=True):
        got = result.numpy()
        if got.dtype.kind == "i":
            error = float((got != truth).mean())
        else:
            error = float(((got - truth) ** 2).mean() / max(float((truth**2).mean()), 1e-30))
        if not error <= (ROUGH_NMSE if "q8_0" in [t.dtype for t in operands] else FINE_NMSE):
            raise DeviceError(f"{op.name} on {device.name} computes {output.name} wrongly: error {error:.1e}")


def _touched(op: Op, dims: Mapping[str, Any], shapes: Sequence[tuple[int, ...]], dtypes: Mapping[str, str]) -> int:
    """Return the bytes of operands that a call reads: all, but of a table of rows no more than it chooses."""
    total = 0.0
    for operand, shape in zip(op.operands, shapes, strict=True):
        whole = sum(plane_bytes(shape, dtypes[operand.name]))
        share = op.touched[operand.name](dims) if operand.name in op.touched else 1.0
        total += whole * min(share, 1.0)
    return int(total)
