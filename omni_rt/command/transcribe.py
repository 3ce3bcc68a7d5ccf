"""`omni-rt transcribe`: what is said in audio files, as text."""

from __future__ import annotations

import click

from omni_rt.command.options import GenerationChoice, ModelChoice, generation_options, model_options, report_options
from omni_rt.command.report import Report, printable, timings_as_json
from omni_rt.errors import InputError


@click.command(
    epilog="""\b
Examples:
  omni-rt transcribe meeting.flac
  omni-rt transcribe *.wav --json > transcripts.jsonl
  omni-rt transcribe interview.mp3 --language German --device wgpu
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--language", metavar="NAME", help="The language that is spoken, as a hint, e.g. German.")
@model_options
@generation_options
@report_options
def transcribe(
    files: tuple[str, ...],
    language: str | None,
    model: ModelChoice,
    generation: GenerationChoice,
    report: Report,
) -> None:
    """Write down what is said in audio files.

    One line of text per file, with its name when there are several; with --json one object per line. A file that cannot
    be read is reported, the others are still done, and the exit code is 1.
    """
    failed = False
    with model.load_omni(report) as omni, report.progress(len(files), "file", "transcribing") as bar:
        for file in files:
            try:
                reply = omni.transcribe(
                    file, language=language, max_new_tokens=generation.max_new_tokens,
                    sampling=generation.sampling, seed=generation.seed,
                )  # fmt: skip
            except InputError as error:
                if len(files) == 1:
                    raise
                failed = True
                where = "" if file in str(error) else f"{file}: "
                click.echo(f"omni-rt: error: {where}{error}", err=True)
            else:
                if report.as_json:
                    data = {"file": file, "text": reply.text, "finish_reason": reply.finish_reason, "seed": reply.seed}
                    report.result(data | {"timings": timings_as_json(reply.timings)})
                else:
                    text = printable(reply.text.strip())
                    click.echo(f"{file}: {text}" if len(files) > 1 else text)
                report.timings(reply.timings)
            bar.update(1)
    if failed:
        raise click.exceptions.Exit(1)
