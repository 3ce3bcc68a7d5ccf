"""The conversation of `omni-rt chat` without a question: lines in, replies out, the history kept."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from omni_rt.command.chat import HELP, Answering, answer, with_output
from omni_rt.command.files import readable
from omni_rt.errors import InputError, OmniError

if TYPE_CHECKING:
    from omni_rt.command.group import State

MEDIA = ("audio", "image", "video")


def converse(omni: Any, state: State, how: Answering) -> None:
    """Read lines until /exit or the end of the input and answer each, with all before it in mind."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401 (gives input() a history)

        how.report.note("/help lists the commands, /exit leaves")
        omni.prepare(speech=how.speech)
    messages: list[dict[str, Any]] = []
    replies = 0
    while True:
        try:
            with state.interrupts.prompting():
                line = input("> " if interactive else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line in ("/exit", "/quit"):
            return
        if line == "/help":
            click.echo(HELP)
        elif line == "/reset":
            messages.clear()
        elif line:
            try:
                asked = {"role": "user", "content": content(line)}
                with state.interrupts.deferred() if interactive else nullcontext():
                    reply = answer(omni, state, [*messages, asked], with_output(how, replies + 1))
            except KeyboardInterrupt:
                omni.clear_kv_cache()
                how.report.note("\nstopped")
            except OmniError as error:
                if not interactive:
                    raise
                click.echo(f"error: {error}", err=True)
            else:
                replies += 1
                messages += [asked, {"role": "assistant", "content": reply.text}]


def content(line: str) -> str | list[dict[str, Any]]:
    """Return the content of the message that a line stands for; raise InputError for an unknown command."""
    if not line.startswith("/"):
        return line
    command, _, rest = line.partition(" ")
    kind = command[1:]
    if kind not in MEDIA:
        raise InputError(f"{command} is no command; /help lists them")
    file, _, question = rest.strip().partition(" ")
    if not file:
        raise InputError(f"{command} needs a file: {command} FILE [QUESTION]")
    parts: list[dict[str, Any]] = [{"type": kind, kind: readable(file)}]
    if question.strip():
        parts.append({"type": "text", "text": question.strip()})
    return parts
