"""Parity of a kernel with its op: operands from the declaration, truth in float64, canary, poison, a report.

Used by the generated tests and by anything else that must not trust a kernel unchecked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from omni_rt import quant
from omni_rt.devices.memory import Span
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.ops.contract import DTYPE_CLASSES, TABLE, Call, Kernel, Op, Tolerance
from omni_rt.tensor import BLOCK, CHUNK, Tensor, plane_bytes

CANARY = 0xA5
POISON = 0x7F
CANARY_BYTES = 64

FLIPPED = Tolerance(nmse=2e-5, peak=0.05), Tolerance(nmse=1e-4, peak=0.05)
"""Error of a kernel whose division differs in the last bit: now and then a value rounds to the next int8, without and
with spikes, beside which a step is large. Another scale would be 6e-5 off by a hundredth of it."""

FLIPPED_REST = Tolerance(nmse=1e-9, peak=1e-3), FLIPPED[1]
"""The same where a value is two int8 and steps are 256 times smaller. Without the second it would be 3e-5 off,
of values that are all negative 1e-7 at least."""


@dataclass(frozen=True)
class Case:
    """One parity check: op, kernel, variant, call of the domain, and the kind of values."""

    op: Op
    kernel: Kernel
    variant: Mapping[str, int]
    dims: Mapping[str, Any]
    values: str

    def __str__(self) -> str:
        dims = "-".join(f"{name}{value}" for name, value in self.dims.items())
        variant = "-".join(f"{name}{value}" for name, value in self.variant.items()) or "default"
        return f"{self.op.name}:{self.kernel.shader}:{variant}:{dims}:{self.values}"


def cases() -> Iterator[Case]:
    """Every kernel x variant x call of the domain that the kernel takes x kind of values."""
    for op in TABLE.values():
        for kernel, dims in product(op.kernels, op.domain):
            call = describe(op, kernel, dims)
            if all(call.dtypes[name] in DTYPE_CLASSES[_operand(op, name).dtype_class] for name in kernel.dtypes):
                if not kernel.when(call) or not _rows_fit(op, call):
                    continue
                for variant, values in product(kernel.variants, ("normal", "spiky", "equal", "negative")):
                    if values not in ("spiky", "negative") or not _rounds_products(op, kernel):
                        yield Case(op, kernel, variant, dims, values)


def describe(op: Op, kernel: Kernel, dims: Mapping[str, Any]) -> Call:
    """Return the call that `dims` and the kernel's dtypes describe."""
    dtypes = {o.name: kernel.dtypes.get(o.name, DTYPE_CLASSES[o.dtype_class][0]) for o in op.operands}
    shapes = [operand.shape(dims) for operand in op.operands]
    attributes = {name: dims[name] for name in op.attributes if name in dims}
    return op.bind(shapes, list(dtypes.values()), attributes)


def _operand(op: Op, name: str) -> Any:
    return next(operand for operand in op.operands if operand.name == name)


def _rounds_products(op: Op, kernel: Kernel) -> bool:
    """Say whether a kernel rounds what it makes of its operands.

    The rounded value is then not known: beside a spike of 1e4, or far below 0 where silu is tiny, no bound holds.
    """
    return kernel.int8 and any(operand.name == "g" for operand in op.operands)


def _rows_fit(op: Op, call: Call) -> bool:
    return all(call.dtypes[operand.name] != "q8_0" or operand.shape(call.dims)[-1] % 32 == 0 for operand in op.operands)


def rounded(kernel: Kernel, x: np.ndarray) -> tuple[np.ndarray, tuple[Tolerance, Tolerance]]:
    """Return float64 rows [..., K] as an int8 kernel sees them, and its error, without and with spikes."""
    if "q16" in kernel.rounded.values():
        return rounded_to_int16(x, BLOCK), FLIPPED_REST
    return rounded_to_int8(x, 124 if kernel.rounded else 127), FLIPPED


def rounded_to_int16(x: np.ndarray, together: int = CHUNK) -> np.ndarray:
    """Return float64 rows [..., K] as they are rounded to two int8 a value: steps of max|x| / 127, and their 256ths.

    max|x| is that of `together` values.
    """
    chunks = x.astype(np.float32).reshape(-1, together)
    largest = np.abs(chunks).max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(largest > 0, chunks * (np.float32(127) / largest), np.float32(0))
    whole = np.rint(scaled)
    steps = 256 * whole.astype(np.float64) + np.clip(np.rint((scaled - whole) * 256), -127, 127)
    return (steps * (largest / np.float32(256 * 127))).reshape(x.shape)


def rounded_to_int8(x: np.ndarray, least: int = 124) -> np.ndarray:
    """Return float64 rows [..., K] as they are rounded to int8, in chunks and half to even.

    The scale of a chunk is max|x| / n, n from 127 down to `least`: the one that leaves the least squared error.
    """
    chunks = x.astype(np.float32).reshape(-1, CHUNK)
    largest = np.abs(chunks).max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = np.where(largest > 0, np.float32(1) / largest, np.float32(0))
    choices = []
    for steps in range(127, least - 1, -1):
        scaled = chunks * (inverse * np.float32(steps))
        error = ((scaled - np.rint(scaled)).astype(np.float64) ** 2).sum(axis=1, keepdims=True) / steps**2
        choices.append((error, np.rint(scaled).astype(np.float64) * (largest / np.float32(steps))))
    errors, values = (np.stack(each) for each in zip(*choices, strict=True))
    return np.take_along_axis(values, errors.argmin(axis=0)[None], axis=0)[0].reshape(x.shape)


def make_values(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Return float64 values that float32 holds exactly: ordinary ones, or hard ones."""
    values = rng.normal(size=shape)
    if kind == "spiky":
        spikes = rng.random(shape) < 0.01
        values = np.where(spikes, values * 1e4, values)
    elif kind == "equal":
        values = np.full(shape, float(rng.normal()))
    elif kind == "negative":
        values = -np.abs(values)
    return values.astype(np.float32).astype(np.float64)


def make_operands(case: Case, call: Call, rng: np.random.Generator) -> list[np.ndarray]:
    """Return host operands: those of the op's example, the rest by kind; weights rounded to what their dtype holds."""
    given = case.op.example(rng, call.dims) if case.op.example else {}
    operands = []
    for operand in case.op.operands:
        dtype = call.dtypes[operand.name]
        if operand.name in given:
            values = np.asarray(given[operand.name])
        elif dtype == "i32":
            values = np.zeros(operand.shape(call.dims), np.int32)
        else:
            values = make_values(rng, operand.shape(call.dims), case.values)
        if dtype == "f16":
            values = values.astype(np.float16).astype(np.float64)
        elif dtype == "q8_0":
            values = quant.dequantise(*quant.quantise(values)).astype(np.float64)
        elif dtype == "f32":
            values = values.astype(np.float32).astype(np.float64)
        operands.append(values)
    return operands


def check(device: WebGpuDevice, case: Case, repeats: int = 1) -> None:
    """Run one case and compare; raises AssertionError with the worst element."""
    call = describe(case.op, case.kernel, case.dims)
    rng = np.random.default_rng(sum(map(ord, str(case))))
    host = make_operands(case, call, rng)
    attributes = {name: call.dims[name] for name in case.op.attributes}
    truths = [(host, case.kernel.tolerance or case.op.tolerance)]
    if case.kernel.int8 and not _rounds_products(case.op, case.kernel):
        seen, flipped = rounded(case.kernel, host[0])
        # Beside a spike of 1e4 the rest of its chunk rounds to nothing: only what was rounded can be compared.
        spiky = case.values == "spiky"
        truths = [*truths[spiky:], ([seen, *host[1:]], flipped[spiky])]
    expected = [(*_truth(case.op, values, attributes), tolerance) for values, tolerance in truths]
    for _ in range(repeats):
        operands = [
            _upload(device, values, call.dtypes[o.name]) for o, values in zip(case.op.operands, host, strict=True)
        ]
        plan = device.plan(case.op, case.kernel, case.variant, call, operands)
        outputs = [_poisoned(device, shape, dtype) for shape, dtype in plan.outputs]
        device.dispatch(case.op, plan, operands, outputs)
        for references, mutated, tolerance in expected:
            for output, values, reference in zip(case.op.outputs, outputs, references, strict=True):
                assert tuple(values.shape) == reference.shape, f"{output.name}: {values.shape} is not {reference.shape}"
                compare(case, output.name, device.read(values), reference, tolerance=tolerance)
                _check_canary(device, values, output.name)
            for operand, tensor, after in zip(case.op.operands, operands, mutated, strict=True):
                if operand.name in case.op.mutates:
                    compare(case, operand.name, device.read(tensor), after, tensor.dtype, tolerance)


def _truth(
    op: Op, operands: Sequence[np.ndarray], attributes: Mapping[str, Any]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return what the body makes of operands in float64, and what it leaves of them."""
    after = [values.copy() for values in operands]
    with np.errstate(all="ignore"):
        truth = op.body(*after, **attributes)
    return [] if not op.outputs else [truth] if len(op.outputs) == 1 else list(truth), after


def compare(
    case: Case,
    name: str,
    got: np.ndarray,
    reference: np.ndarray,
    stored: str = "f32",
    tolerance: Tolerance | None = None,
) -> None:
    """Assert that an output agrees with the truth within a tolerance, the op's if None; integers must be equal.

    What is stored as f16 may be off by one step of that format besides.
    """
    if got.dtype.kind == "i":
        wrong = np.argwhere(got != reference)
        assert not len(wrong), (
            f"{case} {name}: at {tuple(wrong[0])} got {got[tuple(wrong[0])]}, reference {reference[tuple(wrong[0])]}"
        )
        return
    error = np.abs(got.astype(np.float64) - reference)
    if stored == "f16":
        error = np.maximum(error - np.spacing(np.abs(reference).astype(np.float16)).astype(np.float64), 0)
    error = np.where(np.isfinite(got), error, np.inf)
    scale = max(float(np.sqrt((reference**2).mean())) if reference.size else 0.0, 1e-30)
    nmse = float((error**2).mean() / scale**2) if reference.size else 0.0
    peak = float(error.max() / scale) if reference.size else 0.0
    allowed = tolerance or case.op.tolerance
    if nmse > allowed.nmse or peak > allowed.peak:
        worst = np.unravel_index(int(error.argmax()), error.shape)
        raise AssertionError(
            f"{case} {name}: nmse {nmse:.2e}, peak {peak:.2e}; worst at {tuple(map(int, worst))}: "
            f"got {got[worst]}, reference {reference[worst]}"
        )


def _upload(device: WebGpuDevice, values: np.ndarray, dtype: str) -> Tensor:
    return device.weight(values, dtype) if dtype != "i32" else device.tensor(values.astype(np.int32))


def _poisoned(device: WebGpuDevice, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Return an output full of poison with a canary behind it."""
    (size,) = plane_bytes(shape, dtype)
    raw = np.full(size + CANARY_BYTES, POISON, np.uint8)
    raw[size:] = CANARY
    backing = device.tensor(raw.view(np.int32))
    return Tensor(shape, dtype, device, (Span(backing.planes[0].block, 0, size),))


def _check_canary(device: WebGpuDevice, output: Tensor, name: str) -> None:
    span = output.planes[0]
    behind = Span(span.block, 0, span.size + CANARY_BYTES)
    words = device.read(Tensor(((span.size + CANARY_BYTES) // 4,), "i32", device, (behind,)))
    canary = words[span.size // 4 :].view(np.uint8)
    assert (canary == CANARY).all(), f"{name}: the kernel wrote behind its output"
