"""`omni-rt devices`: what can run a model here."""

from __future__ import annotations

from typing import Any

import click

from omni_rt.command.options import report_options
from omni_rt.command.report import Report, table

LIMITS = ("max-storage-buffer-binding-size", "max-buffer-size", "max-compute-workgroup-storage-size")
FEATURES = ("subgroup", "shader-f16", "timestamp-query")


@click.command(
    epilog="""\b
Examples:
  omni-rt devices
  omni-rt devices --json
"""
)
@report_options
def devices(report: Report) -> None:
    """List the devices that can run a model: the name for --device, what it is, and its largest binding."""
    found = list_devices()
    if report.as_json:
        report.result({"devices": found})
        return
    rows = [("device", "what", "through", "binding", "features")]
    for entry in found:
        binding = entry.get("max-storage-buffer-binding-size")
        size = f"{binding / 2**20:.0f} MiB" if binding else "-"
        what = entry["what"] + (" (software: used only when named)" if entry["software"] else "")
        rows.append((entry["device"], what, entry["backend"], size, " ".join(entry["features"]) or "-"))
    click.echo(table(rows))


def list_devices() -> list[dict[str, Any]]:
    """Return one entry per device, the CPU first, without opening any."""
    import platform

    from omni_rt.devices.webgpu import adapters

    entries: list[dict[str, Any]] = [
        {"device": "cpu", "what": processor(), "backend": platform.machine(), "software": False, "features": []}
    ]
    for index, adapter in enumerate(adapters()):
        entries.append(
            {"device": f"wgpu:{index}", "what": adapter.name, "backend": adapter.backend, "software": adapter.software}
            | {"features": [name for name in FEATURES if name in adapter.handle.features]}
            | {name: int(adapter.handle.limits[name]) for name in LIMITS if name in adapter.handle.limits}
        )
    return entries


def processor() -> str:
    """Return the name of the CPU, as far as the system tells."""
    import platform
    from pathlib import Path

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
