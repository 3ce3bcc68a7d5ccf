"""Find the fastest variant of each kernel on an adapter, at the sizes of real models: the tables of devices/tuning.py.

Every variant that fits the adapter is checked against the NumPy body, then all of a kernel are timed in turn, so that a
clock that drifts favours none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import omni_rt.ops  # noqa: F401 (fills the table)
from omni_rt.benchmark.call import Launch, OpCall, dtype_choices, repeat
from omni_rt.devices.webgpu import Plan, WebGpuDevice
from omni_rt.ops.contract import TABLE, Kernel, Op
from omni_rt.tensor import Tensor, plane_bytes

WORTH = 0.97
"""A variant replaces the default where it takes no more than this share of its time: less may be chance."""

LONGEST_SECONDS = 1.0
"""Calls that take longer are left out: a software adapter would spend minutes on a prompt."""

POSITIONS = ("row_start", "row_count")
"""Uniforms that say where a call works, not how large it is."""


@dataclass(frozen=True)
class Tuned:
    """The variants of a kernel at one size: median microseconds of each, the default first, and the one to use."""

    kernel: str
    at: Mapping[str, int]
    variants: Sequence[Mapping[str, int]]
    microseconds: Sequence[float]

    @property
    def best(self) -> int:
        """The index of the variant to use."""
        fastest = min(range(len(self.variants)), key=lambda i: self.microseconds[i])
        return fastest if self.microseconds[fastest] <= WORTH * self.microseconds[0] else 0

    def as_json(self) -> dict[str, Any]:
        """Return the entry of a table."""
        entry = {"at": dict(self.at), "variant": dict(self.variants[self.best])}
        times = {"us": round(self.microseconds[self.best], 2), "default_us": round(self.microseconds[0], 2)}
        return entry | times


def tune(
    device: WebGpuDevice, names: Sequence[str] = (), *, seconds: float = 0.2, dtypes: Sequence[str] = ()
) -> Iterator[Tuned]:
    """Yield what was measured, by kernel and size.

    `names` restricts it to these ops and kernels, `dtypes` to such weights and caches. Each variant is timed for
    `seconds` or more. Raises DeviceError when one computes something wrong.
    """
    for name, op in sorted(TABLE.items()):
        for dims in op.bench:
            for chosen in dtype_choices(op, dims, dtypes):
                kernels = [k for k in _choices(device, op, dims, chosen) if not names or {name, k.shader} & set(names)]
                call = OpCall(op, dims, chosen) if kernels else None
                for kernel in kernels:
                    assert call is not None
                    yield from _measure(device, call, kernel, seconds)


def _choices(device: WebGpuDevice, op: Op, dims: Mapping[str, Any], dtypes: Mapping[str, str]) -> list[Kernel]:
    """Return the kernels that take a call, in row ranges if need be, and have more than one variant to choose from."""
    attributes = {name: dims[name] for name in op.attributes if name in dims}
    shapes = [operand.shape(dims) for operand in op.operands]
    call = op.bind(shapes, [dtypes[operand.name] for operand in op.operands], attributes)
    sizes = [max(plane_bytes(s, dtypes[o.name])) for o, s in zip(op.operands, shapes, strict=True)]
    split = {operand.name for operand, size in zip(op.operands, sizes, strict=True) if size > device.max_binding}
    kernels = [kernel for kernel in op.kernels if device.accepts(kernel, call) and split <= {kernel.splits}]
    return [kernel for kernel in kernels if len(fitting(device, kernel)) > 1]


def fitting(device: WebGpuDevice, kernel: Kernel) -> list[Mapping[str, int]]:
    """Return the variants of a kernel that keep within the adapter's limits."""
    return [variant for variant in kernel.variants if device.pipelines.fits(kernel.shader, variant)]


def _measure(device: WebGpuDevice, call: OpCall, kernel: Kernel, seconds: float) -> Iterator[Tuned]:
    variants = fitting(device, kernel)
    launches = [_launcher(device, call, kernel, variant) for variant in variants]
    first = call.upload(device)
    single = call.stopwatch(device, launches[0], [first])()
    if single > LONGEST_SECONDS:
        return
    for variant, launch in zip(variants, launches, strict=True):
        call.check(device, launch, f"{kernel.shader} {dict(variant)}")
    sets = call.spread(device, first, single)
    stopwatches = [call.stopwatch(device, launch, sets) for launch in launches]
    readings = repeat(stopwatches, seconds)
    sizes = {name: call.call.dims[name] for name in kernel.uniforms if name not in POSITIONS}
    at = {name: size for name, size in sizes.items() if type(size) is int}
    yield Tuned(kernel.shader, at, variants, [median(taken) * 1e6 for taken in readings])


def _launcher(device: WebGpuDevice, call: OpCall, kernel: Kernel, variant: Mapping[str, int]) -> Launch:
    """Return what runs the call with one variant; its plan is made at the first run, when the operands are there."""
    plans: list[Plan] = []

    def launch(operands: Sequence[Tensor]) -> Any:
        if not plans:
            plans.append(device.plan(call.op, kernel, variant, call.call, operands))
        return device.launch(call.op, plans[0], operands)

    return launch


def table(found: Iterable[Tuned]) -> dict[str, list[dict[str, Any]]]:
    """Return entries by kernel, without the kernels whose default is best everywhere."""
    kernels: dict[str, list[Tuned]] = {}
    for tuned in found:
        kernels.setdefault(tuned.kernel, []).append(tuned)
    return {
        kernel: [tuned.as_json() for tuned in measured]
        for kernel, measured in sorted(kernels.items())
        if any(tuned.best for tuned in measured)
    }


def write(path: Path, heading: Mapping[str, Any], found: Sequence[Tuned]) -> None:
    """Write a table, one entry a line; kernels that were not measured now keep their entries of before."""
    kernels = {}
    if path.exists():
        kernels = json.loads(path.read_text(encoding="utf-8")).get("kernels", {})
    kernels = {name: entries for name, entries in kernels.items() if name not in {tuned.kernel for tuned in found}}
    kernels |= table(found)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}," for name, value in heading.items()]
    blocks = []
    for name in sorted(kernels):
        entries = ",\n      ".join(json.dumps(entry) for entry in kernels[name])
        blocks.append(f"    {json.dumps(name)}: [\n      {entries}\n    ]")
    body = ",\n".join(blocks)
    text = "{\n  " + "\n  ".join(lines) + '\n  "kernels": {\n' + body + "\n  }\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
