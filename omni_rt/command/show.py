"""`omni-rt show`: what a model is, and whether this machine can hold it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from omni_rt.command.options import report_options
from omni_rt.command.report import Report, table

EXAMPLES = """\b
Examples:
  omni-rt show tiny
  omni-rt show Qwen/Qwen3-Omni-30B-A3B-Instruct
  omni-rt show omni-q8 --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("ref", default="tiny")
@report_options
def show(ref: str, report: Report) -> None:
    """Say what the model REF is: its components, parameters and bytes, and what of it fits into this machine's memory.

    REF is tiny (in the package), a directory of safetensors or GGUF files, or ORG/REPO[@REVISION] that was pulled.
    Nothing is loaded.
    """
    from omni_rt.io.hub import resolve
    from omni_rt.model_facts import facts

    found = facts(resolve(ref, local_files_only=True))
    places = [
        place | {"longest_context": {way: found.longest_context(way, place["available"]) for way in found.precisions}}
        for place in memories()
    ]
    if report.as_json:
        data = asdict(found) | {"directory": str(found.directory), "parameters": found.parameters}
        loaded = {precision: found.loaded(precision) for precision in found.precisions}
        report.result(data | {"bytes": found.nbytes, "loaded_bytes": loaded, "memory": places})
        return
    click.echo(f"{ref}: {found.family}, {amount(found.parameters)} parameters, {size(found.nbytes)}")
    if found.about:
        click.echo(found.about)
    click.echo()
    rows = [
        ["component", "parameters", "on disk", "tensors", *(f"loaded {precision}" for precision in found.precisions)]
    ]
    for part in found.components:
        types = " ".join(f"{count} {kind}" for kind, count in sorted(part.types.items()))
        loaded_as = (size(part.loaded[precision]) for precision in found.precisions)
        rows.append([part.name, amount(part.parameters), size(part.nbytes), types, *loaded_as])
    click.echo(table(rows))
    click.echo()
    for precision, kv in found.kv_bytes.items():
        each = " and ".join(f"{bytes_per:,} bytes ({name})" for name, bytes_per in kv.items())
        click.echo(f"Loaded {precision}, a position of the context takes {each}.")
    if not places:
        click.echo("How much memory this machine has is not known.")
    for place in places:
        click.echo(f"{place['name']}: {size(place['total'])} of memory, {size(place['available'])} of it free.")
        for precision, context in place["longest_context"].items():
            fits = f"fit with a context of {min(context, 65536):,} positions" if context >= 16 else "do not fit"
            click.echo(f"  Loaded {precision}, the weights take {size(found.loaded(precision))}: they {fits}.")


def memories() -> list[dict[str, Any]]:
    """Return the name, the bytes and the free bytes of the machine's memory and of each GPU's."""
    from omni_rt.devices.gpu_memory import gpu_memory
    from omni_rt.devices.host_memory import available_bytes, total_bytes

    available, total = available_bytes(), total_bytes()
    found: list[dict[str, Any]] = []
    if available is not None and total is not None:
        found.append({"name": "this machine", "total": total, "available": available})
    gpus = [gpu for gpu in gpu_memory() if not gpu.software]
    return found + [{"name": gpu.name, "total": gpu.total, "available": gpu.available} for gpu in gpus]


def amount(count: int) -> str:
    """Return a number of parameters in words."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return str(count)


def size(count: int) -> str:
    """Return a number of bytes in words."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} B"
