"""The trace of `--trace`: one line per dispatch on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from omni_rt.devices.stream import TraceLine


@contextmanager
def traced(model: Any, wanted: bool) -> Iterator[None]:
    """Time every dispatch inside the block by itself and print one line each when it ends.

    Only GPU devices have dispatches. Timing each one makes the whole run slower.
    """
    devices = [device for device in set(model.devices.values()) if device.kind == "wgpu"] if wanted else []
    if wanted and not devices:
        raise click.UsageError("--trace times GPU dispatches, and no component is on a GPU: add --device wgpu")
    for device in devices:
        device.trace = []
    try:
        yield
    finally:
        for device in devices:
            lines, device.trace = device.trace, None
            for line in lines:
                click.echo(describe(line), err=True)


def describe(line: TraceLine) -> str:
    """Return one dispatch as text: kernel, variant, dims, microseconds, GB/s."""
    variant = ",".join(f"{name}={value}" for name, value in line.variant.items()) or "-"
    dims = ",".join(f"{name}={value}" for name, value in line.dims.items() if name not in ("row_start", "row_count"))
    rate = line.nbytes / line.microseconds / 1000 if line.microseconds > 0 else 0.0
    return f"{line.kernel:32} {variant:20} {dims:60} {line.microseconds:9.1f} us {rate:8.2f} GB/s"
