"""`omni-rt bench isa` and `omni-rt bench tune`: what compilers make of the kernels, and which variants are fastest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import click

from omni_rt.command.options import device_option, open_named, report_options
from omni_rt.command.report import Report, table
from omni_rt.errors import DeviceError

dtype_option = click.option(
    "--dtype", "dtypes", type=click.Choice(["f32", "f16", "q8_0"]), multiple=True,
    help="Only with weights and caches like this; may be repeated.",
)  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  omni-rt bench isa
  omni-rt bench isa matmul --family gfx1201
  omni-rt bench isa --output bench/results/gfx1151-offline.csv
"""
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--family", default="gfx1151", show_default=True, help="The GPU, as the RADV driver calls it.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the table there, as CSV.")
@click.option("--statistics", type=click.Path(path_type=Path), hidden=True, help="What the offline driver writes.")
@report_options
def isa(names: tuple[str, ...], family: str, output: Path | None, statistics: Path | None, report: Report) -> None:
    """Compile every kernel and variant for an AMD GPU that is not here: registers, spills, occupancy, code size.

    NAMEs are ops or kernels. Fails when one does not compile, spills registers or needs scratch memory. Runs from a
    checkout, on Debian 12 or with Mesa 25: see tools/offline_radv/README.md.
    """
    from omni_rt.benchmark import isa as benchmark

    if not (wanted := benchmark.pipelines(names)):
        raise click.UsageError(f"no op and no kernel is called {' or '.join(names)}; omni-rt ops lists them")
    if statistics is None:
        click.get_current_context().exit(_under_offline_driver(family, names, output, report))
    from omni_rt.devices.webgpu import WebGpuDevice, adapters

    rows, complaints = [], []
    with WebGpuDevice(adapters()[0]) as device:
        compiler = benchmark.Compiler(device, statistics)
        for pipeline in wanted:
            if report.verbose:
                report.note(str(pipeline))
            try:
                rows.append(compiler.compile(pipeline))
            except DeviceError as error:
                complaints.append(f"{pipeline}: {error}")
        name = device.name
    complaints += [complaint for row in rows if (complaint := row.complaint())]
    if output is not None:
        benchmark.write_csv(output, rows)
    if report.as_json:
        for row in rows:
            report.result(asdict(row) | {"device": name})
    elif output is None:
        click.echo(table([benchmark.HEADER, *([str(value) for value in astuple(row)] for row in rows)]))
    report.note(f"{len(rows)} pipelines compiled for {name}" + (f"; the table is in {output}" if output else ""))
    if complaints:
        raise click.ClickException(f"{len(complaints)} of {len(wanted)} pipelines are unfit:\n" + "\n".join(complaints))


def _under_offline_driver(family: str, names: Sequence[str], output: Path | None, report: Report) -> int:
    """Run `bench isa` in a process under tools/offline_radv and return its exit code."""
    import omni_rt

    tool = Path(omni_rt.__file__).parent.parent / "tools" / "offline_radv" / "offline-radv"
    if not tool.is_file():
        raise click.ClickException(
            f"bench isa runs from a checkout of omni-rt: {tool} is not there; in one, run python -m omni_rt bench isa"
        )
    with tempfile.TemporaryDirectory() as directory:
        statistics = ["--statistics", str(Path(directory) / "statistics.jsonl")]
        arguments = [*names, *(["--output", str(output)] if output else []), *statistics]
        chosen = {"--json": report.as_json, "--quiet": report.quiet, "--verbose": report.verbose}
        arguments += [option for option, wanted in chosen.items() if wanted]
        program = [sys.executable, "-m", "omni_rt", "bench", "isa", *arguments]
        code = subprocess.run([str(tool), "--family", family, *statistics, *program]).returncode
    if code < 0:
        raise click.ClickException(f"the compiler for {family} was stopped by signal {-code}; -v names the kernel")
    return code


@click.command(
    epilog="""\b
Examples:
  omni-rt bench tune
  omni-rt bench tune matmul expert_down --device wgpu --seconds 1
  omni-rt bench tune --output omni_rt/devices/tuned/nvidia-h200.json
"""
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.2, show_default=True, help="For each variant.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the table there instead.")
@dtype_option
@device_option
@report_options
def tune(
    names: tuple[str, ...], seconds: float, output: Path | None, dtypes: tuple[str, ...], device: str, report: Report
) -> None:
    """Time every variant of every kernel on this machine's GPU, and remember which is fastest at which size.

    NAMEs are ops or kernels. Results are checked before they are timed. The table goes to ~/.cache/omni-rt/tuned, from
    where the device loads it from then on; delete the file to go back to what came with the package.
    """
    from omni_rt.benchmark import isa as listing
    from omni_rt.benchmark import tune as benchmark
    from omni_rt.benchmark.revision import revision
    from omni_rt.devices import tuning
    from omni_rt.devices.webgpu import WebGpuDevice

    if not listing.pipelines(names):
        raise click.UsageError(f"no op and no kernel is called {' or '.join(names)}; omni-rt ops lists them")
    with open_named(device) as opened:
        if not isinstance(opened, WebGpuDevice):
            raise click.UsageError("there is nothing to tune on a CPU: name a GPU with --device, e.g. --device wgpu")
        found = []
        for tuned in benchmark.tune(opened, names, seconds=seconds, dtypes=dtypes):
            found.append(tuned)
            if report.as_json:
                report.result(asdict(tuned) | {"device": opened.name, "commit": revision()})
            times = ", ".join(
                f"{'*' if i == tuned.best else ''}{microseconds:.1f} us {_variant(variant)}"
                for i, (variant, microseconds) in enumerate(zip(tuned.variants, tuned.microseconds, strict=True))
            )
            report.note(f"{tuned.kernel} {_variant(tuned.at)}: {times}")
        adapter = opened.adapter
    path = output or tuning.own_path(adapter.name)
    heading = {"adapter": adapter.name, "driver": adapter.handle.info["description"], "commit": revision()}
    benchmark.write(path, heading, found)
    better = sum(tuned.best > 0 for tuned in found)
    report.note(f"{better} of {len(found)} sizes run faster with another variant than the default; written to {path}")


def _variant(values: Mapping[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
