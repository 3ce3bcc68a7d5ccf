"""Compile every kernel and variant of the op table for a GPU that is not here, and tabulate what its compiler says.

The adapter is one of tools/offline_radv, which writes a line of JSON about each pipeline that it compiles into a file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import omni_rt.ops  # noqa: F401 (fills the table)
from omni_rt.devices.pipelines import OWN_KERNELS, binding_kinds
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.errors import DeviceError
from omni_rt.ops.contract import TABLE

DRIVER_NAMES = {
    "vgprs": "VGPRs",
    "sgprs": "Pre-Sched SGPRs",
    "spilled_vgprs": "Spilled VGPRs",
    "spilled_sgprs": "Spilled SGPRs",
    "lds_bytes": "LDS size",
    "scratch_bytes": "Scratch size",
    "waves_per_simd": "Subgroups per SIMD",
    "code_bytes": "Code size",
    "instructions": "Instructions",
    "latency": "Latency",
    "inverse_throughput": "Inverse Throughput",
}
"""What RADV calls the columns. Of scalar registers every wave gets 128; the column says how many a kernel asks for."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one kernel and variant; latency and inverse throughput are its estimates in cycles."""

    kernel: str
    variant: str
    wave: int
    vgprs: int
    sgprs: int
    spilled_vgprs: int
    spilled_sgprs: int
    lds_bytes: int
    scratch_bytes: int
    waves_per_simd: int
    code_bytes: int
    instructions: int
    latency: int
    inverse_throughput: int

    def complaint(self) -> str:
        """Return what must not be: registers that spill to scratch memory, or arrays that lie there; else ""."""
        wrong = []
        if self.spilled_vgprs or self.spilled_sgprs:
            wrong.append(f"spills {self.spilled_vgprs} vector and {self.spilled_sgprs} scalar registers")
        if self.scratch_bytes:
            wrong.append(f"uses {self.scratch_bytes} bytes of scratch memory per wave")
        return f"{self.kernel} {self.variant}".strip() + f": {' and '.join(wrong)}" if wrong else ""


HEADER = [field.name for field in fields(Compiled)]


@dataclass(frozen=True)
class Pipeline:
    """What makes a pipeline: a shader, a variant of it, and the kinds of its bindings."""

    shader: str
    variant: Mapping[str, int]
    kinds: Sequence[str]

    def __str__(self) -> str:
        return " ".join([self.shader, *(f"{name}={value}" for name, value in sorted(self.variant.items()))])


def pipelines(names: Sequence[str] = ()) -> list[Pipeline]:
    """Return every pipeline that the op table describes, each once; `names` restricts them to these ops and kernels."""
    found: dict[str, Pipeline] = {}
    for op in TABLE.values():
        for kernel in op.kernels:
            if not names or {op.name, kernel.shader} & set(names):
                made = [Pipeline(kernel.shader, variant, binding_kinds(op, kernel)) for variant in kernel.variants]
                found |= {str(pipeline): pipeline for pipeline in made}
    found |= {name: Pipeline(name, {}, kinds) for name, kinds in OWN_KERNELS.items() if not names or name in names}
    return [found[key] for key in sorted(found)]


class Compiler:
    """A device of tools/offline_radv, and the file to which its driver adds a line per compiled pipeline."""

    def __init__(self, device: WebGpuDevice, statistics: Path) -> None:
        self._device = device
        self._statistics = statistics
        self._done = len(self._lines())  # wgpu compiles pipelines of its own when a device is opened

    def compile(self, pipeline: Pipeline) -> Compiled:
        """Compile a pipeline; raise DeviceError when that fails or the driver says nothing of it."""
        self._device.pipelines.pipeline(pipeline.shader, pipeline.variant, pipeline.kinds)[0].wait()
        lines = self._lines()[self._done :]
        self._done += len(lines)
        if len(lines) != 1:
            raise DeviceError(f"the driver of {self._device.name} wrote {len(lines)} lines about it, not 1")
        return parse(pipeline, json.loads(lines[0]))

    def _lines(self) -> list[str]:
        return self._statistics.read_text(encoding="utf-8").splitlines() if self._statistics.exists() else []


def parse(pipeline: Pipeline, line: Mapping[str, Any]) -> Compiled:
    """Return a pipeline's statistics of what the driver wrote; raise DeviceError when one that we know is missing."""
    found = line["statistics"]
    if missing := sorted(set(DRIVER_NAMES.values()) - set(found)):
        raise DeviceError(f"the driver says nothing of {', '.join(missing)}, only of {', '.join(found)}")
    values = {name: int(found[theirs]) for name, theirs in DRIVER_NAMES.items()}
    variant = str(pipeline).removeprefix(pipeline.shader).strip()
    return Compiled(pipeline.shader, variant, int(line["wave"]), **values)


def write_csv(path: Path, rows: Iterable[Compiled]) -> None:
    """Write the table, a line per pipeline."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows([getattr(row, name) for name in HEADER] for row in rows)
