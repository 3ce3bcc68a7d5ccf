"""`omni-rt pull`: the one command that uses the network."""

from __future__ import annotations

import click

from omni_rt.command.options import report_options
from omni_rt.command.report import Report


@click.command(
    epilog="""\b
Examples:
  omni-rt pull Qwen/Qwen3-Omni-30B-A3B-Instruct        (70 GB)
  omni-rt pull ORG/REPO@v1.0
"""
)
@click.argument("repository", metavar="ORG/REPO[@REVISION]")
@report_options
def pull(repository: str, report: Report) -> None:
    """Download a model into the Hugging Face cache; no other command uses the network.

    A download that was stopped goes on where it was. The directory is printed.
    """
    from huggingface_hub.utils import disable_progress_bars

    from omni_rt.io import hub

    if report.quiet:
        disable_progress_bars()
    directory = hub.pull(repository)
    if report.as_json:
        report.result({"model": repository, "directory": str(directory)})
    else:
        click.echo(directory)
