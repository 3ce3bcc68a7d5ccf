"""`omni-rt bench`: ops at real sizes, and models at full size on random weights."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import click

from omni_rt.command.options import device_option, open_named, report_options
from omni_rt.command.report import Report, table
from omni_rt.errors import DeviceError


@click.group()
def bench() -> None:
    """Measure ops and whole models. The device's own streaming-read bandwidth is measured in the same run."""


@bench.command(
    epilog="""\b
Examples:
  omni-rt bench model
  omni-rt bench model --shape thinker --layers 4 --context 1024 --device wgpu
  omni-rt bench model --shape code2wav --quant f32 --json
"""
)
@click.option(
    "--shape",
    type=click.Choice(["omni-tiny", "thinker", "talker", "code2wav", "audio", "vision", "tts-0.6b", "tts-1.7b"]),
    default="omni-tiny",
    show_default=True,
    help="The checkpoint of --model, or full-size components on random weights.",
)
@click.option("--model", "ref", default="tiny", show_default=True, metavar="REF", help="What omni-tiny stands for.")
@click.option("--quant", type=click.Choice(["q8_0", "f32"]), default="q8_0", show_default=True, help="Linear weights.")
@click.option(
    "--context", type=click.IntRange(1, 65536), default=128, show_default=True, help="Positions before a step."
)
@click.option(
    "--layers", type=click.IntRange(1), help="Only the first layers; one of the Thinker takes 0.7 GB as q8_0."
)
@click.option("--seconds", type=click.FloatRange(0, 60), default=1.0, show_default=True, help="Time for each stage.")
@device_option
@report_options
def model(
    shape: str, ref: str, quant: str, context: int, layers: int | None, seconds: float, device: str, report: Report
) -> None:
    """Time a model stage by stage: dispatches, Python per dispatch, milliseconds, GB/s.

    Weights are random and made in place: nothing is read or downloaded. A decoder's --context is filled with zeros.
    """
    from omni_rt.benchmark.model import Clock, measure_checkpoint, measure_shape

    precision = None if quant == "f32" else quant
    if shape == "omni-tiny":
        from omni_rt.io.hub import resolve
        from omni_rt.io.safetensors import SafetensorsCheckpoint
        from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig

        if layers is not None:
            raise click.UsageError("--layers cuts a full-size component; a checkpoint is measured whole")
        directory = resolve(ref, local_files_only=True)
        config, checkpoint = Qwen3OmniConfig.from_directory(directory), SafetensorsCheckpoint(directory)
        with open_named(device) as opened:
            found = measure_checkpoint(
                ref, checkpoint, config, Clock(opened, seconds), quant=precision, context=context
            )
    else:
        with open_named(device) as opened:
            found = measure_shape(shape, Clock(opened, seconds), quant=precision, layers=layers, context=context)
    if report.as_json:
        report.result(found.as_json())
        return
    depth = "" if layers is None else f", {layers} layers"
    click.echo(f"{found.shape}{depth}, {quant}, context {context}, on {found.device}")
    rows = [("stage", "ms", "per second", "dispatches", "MB", "GB/s", "of reading")]
    for stage in found.stages:
        rate = stage.gigabytes_per_second
        rows.append(
            (
                stage.name,
                f"{stage.milliseconds:.2f}",
                f"{1000 / stage.milliseconds:.1f} {stage.unit}s",
                "-" if stage.dispatches is None else f"{stage.dispatches:.0f}",
                "-" if stage.nbytes is None else f"{stage.nbytes / 1e6:.1f}",
                "-" if rate is None else f"{rate:.2f}",
                "-" if rate is None else f"{100 * rate / found.read_gb_per_s:.0f} %",
            )
        )
    click.echo(table(rows))
    click.echo(f"streaming read: {found.read_gb_per_s:.2f} GB/s")
    if found.replay_us is not None and found.record_us is not None:
        click.echo(f"Python per dispatch: {found.record_us:.1f} us recorded, {found.replay_us:.2f} us replayed")
    for op, count in found.fallbacks.items():
        report.note(f"{op}: {count} calls fell back to the CPU")


@bench.command(
    name="ops",
    epilog="""\b
Examples:
  omni-rt bench ops
  omni-rt bench ops matmul attention --device wgpu --json
""",
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.5, show_default=True, help="Time for each size.")
@device_option
@report_options
def bench_ops(names: tuple[str, ...], seconds: float, device: str, report: Report) -> None:
    """Time ops at the sizes of real models: us, GB/s, and the share of what reading alone reaches."""
    from omni_rt.benchmark.ops import format_table, timings
    from omni_rt.ops.contract import TABLE

    if unknown := sorted(set(names) - set(TABLE)):
        raise click.UsageError(f"no op is called {', '.join(unknown)}; there are {', '.join(sorted(TABLE))}")
    with open_named(device) as opened:
        found = []
        for timing in timings(opened, names or None, seconds=seconds):
            found.append(timing)
            if report.as_json:
                report.result(timing.as_json() | {"device": opened.name})
            else:
                report.note(f"{timing.op} {timing.kernel}: {timing.microseconds:.1f} us")
        name = opened.name
    if not report.as_json:
        click.echo(f"on {name}")
        click.echo(format_table(found))


@bench.command(
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
        raise click.ClickException(f"bench isa runs from a checkout of omni-rt: {tool} is not there")
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
