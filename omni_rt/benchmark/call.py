"""One call of an op at a size of a real model: its operands, what the NumPy body makes of them, and how to time it.

Operands lie far apart: so many sets that no cache holds what they touch, unless they are small. Each call waits for the
one before it, as in a decoding step, or on a GPU none for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from math import prod
from typing import Any

import numpy as np

from omni_rt import quant
from omni_rt.devices.device import Device
from omni_rt.errors import DeviceError
from omni_rt.ops.contract import DTYPE_CLASSES, Op, Operand
from omni_rt.tensor import BLOCK, Tensor, plane_bytes

SPREAD = 256 << 20
"""Bytes that a timing touches before it comes back to the first, where that takes no more than MOST_SETS."""

MOST_SETS = 32
MOST_SECONDS = 0.1
"""Seconds that one submission may take: drivers reset a GPU that does not answer for two."""
WARM_SECONDS = 0.2
"""Seconds of the same work before anything counts: clocks sag while operands are being made."""
ROUGH_NMSE = 1e-3
"""Error allowed with q8_0 weights, whose kernels may round the activations to int8 too."""
FINE_NMSE = 1e-6
POOL = 1 << 20
STEP = 31 * 256
"""By how many values of the pool one operand starts behind the other: whole blocks of any dtype."""

Launch = Callable[[Sequence[Tensor]], Any]
"""Runs the op once on operands that lie on a device, and returns its outputs."""


class OpCall:
    """A call of an op: sizes, dtypes, operands on the host, and the bytes and operations that it takes."""

    def __init__(self, op: Op, dims: Mapping[str, Any], dtypes: Mapping[str, str]) -> None:
        self.op = op
        self.dims = dict(dims)
        self.dtypes = dict(dtypes)
        self.attributes = {name: dims[name] for name in op.attributes if name in dims}
        self.host = _operands(op, dims, dtypes, 0)
        shapes = [values.shape for values in self.host]
        self.call = op.bind(shapes, [dtypes[operand.name] for operand in op.operands], self.attributes)
        sizes = [sum(plane_bytes(s, dtypes[o.name])) for o, s in zip(op.operands, shapes, strict=True)]
        shares = [min(op.touched.get(o.name, lambda dims: 1.0)(self.call.dims), 1.0) for o in op.operands]
        read = int(sum(size * share for size, share in zip(sizes, shares, strict=True)))
        written = sum(plane_bytes(o.shape(self.call.dims), o.dtype_class)[0] for o in op.outputs)
        self.touched_bytes = read + written
        self.flops = None if op.flops is None else float(op.flops(self.call))

    @cached_property
    def expected(self) -> list[np.ndarray]:
        """What the NumPy body returns, and the operands that it changes."""
        operands = [values for _, values in self._pairs()]
        with np.errstate(all="ignore"):
            results = self.op.body(*operands, **self.attributes)
        found = [] if not self.op.outputs else [results] if len(self.op.outputs) == 1 else list(results)
        return found + self._mutated(operands)

    def upload(self, device: Device) -> list[Tensor]:
        """Return the operands on a device."""
        return [_upload(device, operand, values, self.dtypes[operand.name]) for operand, values in self._pairs()]

    def upload_others(self, device: Device, first: Sequence[Tensor], seed: int) -> list[Tensor]:
        """Return other operands; a table of which a call touches only a part stays, as another part is chosen."""
        others = _operands(self.op, self.dims, self.dtypes, seed, without=tuple(self.op.touched))
        return [
            tensor if values is None else _upload(device, operand, values, self.dtypes[operand.name])
            for operand, tensor, values in zip(self.op.operands, first, others, strict=True)
        ]

    def check(self, device: Device, launch: Launch, what: str) -> list[Tensor]:
        """Compare one call with the NumPy body, roughly, and return its operands.

        Parity tests do it finely, this guards what is timed. Raises DeviceError, naming `what`.
        """
        operands = self.upload(device)
        results = launch(operands)
        found = [] if not self.op.outputs else [results] if len(self.op.outputs) == 1 else list(results)
        found += self._mutated(operands)
        names = [output.name for output in self.op.outputs] + self._mutated([o.name for o in self.op.operands])
        allowed = ROUGH_NMSE if "q8_0" in self.dtypes.values() else FINE_NMSE
        for name, result, truth in zip(names, found, self.expected, strict=True):
            got = result.numpy().reshape(truth.shape)
            if got.dtype.kind == "i":
                error = float((got != truth).mean())
            else:
                error = float(((got - truth) ** 2).mean() / max(float((truth**2).mean()), 1e-30))
            if not error <= allowed:
                raise DeviceError(f"{what} on {device.name} computes {name} wrongly: error {error:.1e}")
        return operands

    def stopwatch(
        self, device: Device, launch: Launch, sets: Sequence[Sequence[Tensor]], *, waiting: bool = True
    ) -> Callable[[], float]:
        """Return a callable that runs the call once with each set of operands; it returns the seconds per call.

        Outputs that are let go are what the next call writes to, so that it waits; without `waiting` they are kept.
        """

        def step() -> None:
            kept = []
            for operands in sets:
                if waiting:
                    launch(operands)
                else:
                    kept.append(launch(operands))

        run = device.stopwatch(step)
        return lambda: run() / len(sets)

    def spread(self, device: Device, first: list[Tensor], seconds: float) -> list[list[Tensor]]:
        """Return sets of operands to time with, `first` among them, for a call that takes about `seconds`."""
        count = min(MOST_SETS, SPREAD // max(self.touched_bytes, 1), MOST_SECONDS / max(seconds, 1e-9))
        return [first, *(self.upload_others(device, first, seed) for seed in range(1, int(count)))]

    def _mutated(self, operands: Sequence[Any]) -> list[Any]:
        return [value for o, value in zip(self.op.operands, operands, strict=True) if o.name in self.op.mutates]

    def _pairs(self) -> Iterator[tuple[Operand, np.ndarray]]:
        """Yield each operand with its values, copied where the op changes it: the CPU device takes arrays as is."""
        for operand, values in zip(self.op.operands, self.host, strict=True):
            yield operand, values.copy() if operand.name in self.op.mutates else values


def dtype_choices(op: Op, dims: Mapping[str, Any], only: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the dtypes to time a call with: each of the widest class among its operands, as far as rows allow.

    `only` restricts them to these where there is a choice.
    """
    widest = max((o.dtype_class for o in op.operands), key=lambda name: len(DTYPE_CLASSES[name]))
    for dtype in DTYPE_CLASSES[widest]:
        if only and len(DTYPE_CLASSES[widest]) > 1 and dtype not in only:
            continue
        chosen = {o.name: dtype if o.dtype_class == widest else DTYPE_CLASSES[o.dtype_class][0] for o in op.operands}
        if all(o.shape(dims)[-1] % BLOCK == 0 for o in op.operands if chosen[o.name] == "q8_0"):
            yield chosen


def repeat(stopwatches: Sequence[Callable[[], float]], seconds: float) -> list[list[float]]:
    """Run stopwatches in turn for `seconds` or more each, after warming up; return the readings of each."""
    readings: list[list[float]] = [[] for _ in stopwatches]
    started = time.perf_counter()
    while time.perf_counter() - started < WARM_SECONDS:
        for stopwatch in stopwatches:
            stopwatch()
    started = time.perf_counter()
    while not readings[0] or time.perf_counter() - started < seconds * len(stopwatches):
        for stopwatch, taken in zip(stopwatches, readings, strict=True):
            taken.append(stopwatch())
    return readings


def _operands(
    op: Op, dims: Mapping[str, Any], dtypes: Mapping[str, str], seed: int, without: Sequence[str] = ()
) -> list[Any]:
    """Return host values that the dtypes hold: the example's, else random ones that repeat after a while.

    None stands for those of the operands `without`.
    """
    given = op.example(np.random.default_rng(seed), dims) if op.example else {}
    values: list[Any] = []
    for place, operand in enumerate(op.operands):
        shape, dtype = operand.shape(dims), dtypes[operand.name]
        made: Any = None
        if operand.name in without:
            pass
        elif operand.name in given:
            made = _as_stored(np.asarray(given[operand.name], np.int32 if dtype == "i32" else np.float32), dtype)
        elif dtype == "i32":
            made = np.zeros(shape, np.int32)
        else:
            made = _random(prod(shape), (place + seed * len(op.operands)) * STEP, dtype).reshape(shape)
        values.append(made)
    return values


def _random(count: int, start: int, dtype: str) -> np.ndarray:
    """Return `count` values of the pool from `start` on, as a dtype holds them."""
    start %= POOL // 2
    if count <= POOL // 2:
        return _as_stored(_pool()[start : start + count], dtype)
    return np.resize(_as_stored(np.roll(_pool(), -start), dtype), count)


@cache
def _pool() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(POOL, np.float32)


def _as_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values as they are after they went through a dtype; doing it again changes nothing."""
    if dtype == "q8_0":
        return quant.dequantise(*quant.quantise(values))
    return values.astype(np.float16).astype(np.float32) if dtype == "f16" else values


def _upload(device: Device, operand: Operand, values: np.ndarray, dtype: str) -> Tensor:
    if operand.dtype_class == "weight":
        return device.weight(values, dtype)
    return device.tensor(values.astype(np.float16) if dtype == "f16" else values)
