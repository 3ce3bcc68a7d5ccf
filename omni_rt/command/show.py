"""`omni-rt show`: what a model is, and whether this machine can hold it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from omni_rt.command.options import report_options
from omni_rt.command.report import Report, table

if TYPE_CHECKING:
    from omni_rt.model_facts import ModelFacts

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
    from omni_rt.devices.host_memory import available_bytes, total_bytes
    from omni_rt.io.hub import resolve
    from omni_rt.model_facts import facts

    found = facts(resolve(ref, local_files_only=True))
    available, total = available_bytes(), total_bytes()
    contexts = {
        precision: None if available is None else found.longest_context(precision, available)
        for precision in found.precisions
    }
    if report.as_json:
        data = asdict(found) | {"directory": str(found.directory), "parameters": found.parameters}
        loaded = {precision: found.loaded(precision) for precision in contexts}
        memory = {"available_bytes": available, "total_bytes": total, "longest_context": contexts}
        report.result(data | {"bytes": found.nbytes, "loaded_bytes": loaded, "memory": memory})
        return
    click.echo(f"{ref}: {found.family}, {amount(found.parameters)} parameters, {size(found.nbytes)}")
    if found.about:
        click.echo(found.about)
    click.echo()
    rows = [["component", "parameters", "on disk", "tensors", *(f"loaded {precision}" for precision in contexts)]]
    for part in found.components:
        types = " ".join(f"{count} {kind}" for kind, count in sorted(part.types.items()))
        loaded_as = (size(part.loaded[precision]) for precision in contexts)
        rows.append([part.name, amount(part.parameters), size(part.nbytes), types, *loaded_as])
    click.echo(table(rows))
    click.echo()
    each = " and ".join(f"{bytes_per:,} bytes ({name})" for name, bytes_per in found.kv_bytes.items())
    click.echo(f"A position of the context takes {each}.")
    if available is None or total is None:
        click.echo("How much memory this machine has is not known.")
        return
    click.echo(f"This machine has {size(total)} of memory, {size(available)} of it free.")
    for precision, context in contexts.items():
        click.echo(_fits(found, precision, context or 0))


def _fits(found: ModelFacts, precision: str, context: int) -> str:
    needs = f"Loaded {precision}, the weights take {size(found.loaded(precision))}"
    if context < 16:
        return f"{needs}, they do not fit"
    return f"{needs}, they fit with a context of {min(context, 65536):,} positions"


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
