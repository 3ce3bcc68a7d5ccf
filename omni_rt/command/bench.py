"""`omni-rt bench`: ops at real sizes, and models at full size on random weights."""

from __future__ import annotations

import click

from omni_rt.command.bench_kernels import dtype_option, isa, tune
from omni_rt.command.options import device_option, open_named, report_options
from omni_rt.command.report import Report, table


@click.group()
def bench() -> None:
    """Measure ops and whole models. The device's own streaming-read bandwidth is measured in the same run."""


bench.add_command(isa)
bench.add_command(tune)


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
        from omni_rt.model_files import OmniFiles, open_model

        if layers is not None:
            raise click.UsageError("--layers cuts a full-size component; a checkpoint is measured whole")
        files = open_model(resolve(ref, local_files_only=True), precision)
        if not isinstance(files, OmniFiles):
            raise click.UsageError(f"{ref}: its stages are not timed here; give a Qwen3-Omni checkpoint")
        with open_named(device) as opened:
            found = measure_checkpoint(ref, files, Clock(opened, seconds), context=context)
    else:
        with open_named(device) as opened:
            found = measure_shape(shape, Clock(opened, seconds), quant=precision, layers=layers, context=context)
    if report.as_json:
        report.result(found.as_json())
        return
    depth = "" if layers is None else f", {layers} layers"
    click.echo(f"{found.shape}{depth}, {quant}, context {context}, on {found.device}")
    rows = [("stage", "ms", "GPU ms", "per second", "dispatches", "MB", "GB/s", "of reading")]
    for stage in found.stages:
        rate = stage.gigabytes_per_second
        rows.append(
            (
                stage.name,
                f"{stage.milliseconds:.2f}",
                "-" if stage.gpu_milliseconds is None else f"{stage.gpu_milliseconds:.2f}",
                f"{stage.per_second:.1f} {stage.unit}s",
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
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=1.0, show_default=True, help="Time for each size.")
@dtype_option
@device_option
@report_options
def bench_ops(names: tuple[str, ...], seconds: float, dtypes: tuple[str, ...], device: str, report: Report) -> None:
    """Time ops at the sizes of real models: us, GB/s, and GFLOP/s.

    "of reading" is the rate as a share of the bandwidth of reading alone, measured in the same run. "of as much"
    compares it with reading just as many bytes in one call: a short one is over before reading is at its full rate.
    "side by side" is the share of reading of calls of which none waits for another.

    On the CPU the NumPy bodies are timed too: the ratio says how many times faster C is. Each result is compared with
    the NumPy body first.
    """
    from omni_rt.benchmark.ops import format_table, timings
    from omni_rt.benchmark.revision import revision
    from omni_rt.ops.contract import TABLE

    if unknown := sorted(set(names) - set(TABLE)):
        raise click.UsageError(f"no op is called {', '.join(unknown)}; there are {', '.join(sorted(TABLE))}")
    with open_named(device) as opened:
        found = []
        for timing in timings(opened, names or None, seconds=seconds, dtypes=dtypes):
            found.append(timing)
            if report.as_json:
                report.result(timing.as_json() | {"device": opened.name, "commit": revision()})
            else:
                report.note(f"{timing.op} {timing.kernel}: {timing.microseconds:.1f} us")
        name = opened.name
    if not report.as_json:
        click.echo(f"on {name}, commit {revision()}, {seconds:g} s each")
        click.echo(format_table(found))
