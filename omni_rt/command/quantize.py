"""`omni-rt quantize`: safetensors to one GGUF file per component."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from omni_rt.command.options import cpu_settings, current_state, report_options
from omni_rt.command.report import Report, table

EXAMPLES = """\b
Examples:
  omni-rt quantize Qwen/Qwen3-Omni-30B-A3B-Instruct omni-q8
  omni-rt quantize DIRECTORY omni-q8 --components thinker,talker --keep f16
  omni-rt chat "Hello" --model omni-q8
"""


@click.command(epilog=EXAMPLES)
@click.argument("src")
@click.argument("dst")
@click.option("--components", metavar="NAME,...", help="Only these components; all when left out.")
@click.option("--keep", type=click.Choice(["f16"]), help="Leave the linear weights in f16.")
@report_options
def quantize(src: str, dst: str, components: str | None, keep: str | None, report: Report) -> None:
    """Write the model SRC into the directory DST, its linear weights in 8 bits (Q8_0).

    SRC is a directory or ORG/REPO[@REVISION] that was pulled. DST gets one GGUF file per component, and everything else
    that is needed to run from it alone. The report lists every tensor: its name there and here, its type, its bytes.
    """
    from omni_rt.native import convert_with
    from omni_rt.quantize_files import quantize as run

    convert_with(**cpu_settings())
    chosen = None if components is None else [name.strip() for name in components.split(",") if name.strip()]
    with report.counting("quantising") as advance, current_state().interrupts.writing(Path(dst)):
        made = run(src, dst, components=chosen, keep=keep, local_files_only=True, progress=advance)
    if report.as_json:
        files = {component: str(path) for component, path in made.files.items()}
        tensors = [asdict(tensor) for tensor in made.tensors]
        report.result({"directory": str(made.directory), "files": files, "bytes": made.nbytes, "tensors": tensors})
        return
    rows = [("source", "target", "type", "bytes")]
    rows += [(t.source, f"{t.component}: {t.target}", t.dtype, f"{t.nbytes:,}") for t in made.tensors]
    click.echo(table(rows))
    report.note(f"{len(made.tensors)} tensors, {made.nbytes / 1e9:.3f} GB in {made.directory}")
