"""The group of commands, and what becomes of errors: a message on stderr and an exit code."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from omni_rt.command.interrupt import Interrupts
from omni_rt.errors import OmniError

COMMANDS = {
    "chat": ("omni_rt.command.chat", "Ask by voice or text, answer in text and speech."),
    "say": ("omni_rt.command.say", "Read a text aloud."),
    "transcribe": ("omni_rt.command.transcribe", "Write down what is said in audio files."),
    "quantize": ("omni_rt.command.quantize", "Make 8-bit GGUF files of a model."),
    "show": ("omni_rt.command.show", "Say what a model is and what it takes."),
    "pull": ("omni_rt.command.pull", "Download a model into the Hugging Face cache."),
    "devices": ("omni_rt.command.devices", "List the devices that can run a model."),
    "doctor": ("omni_rt.command.doctor", "Check this machine; say what is missing and how to get it."),
    "ops": ("omni_rt.command.ops", "List the op table."),
    "bench": ("omni_rt.command.bench", "Measure ops and whole models."),
}

FINE, FAILED, USAGE = 0, 1, 2


@dataclass(frozen=True)
class CpuSettings:
    """Threads and dispatch level of the CPU device; the machine's own when left out."""

    threads: int | None = None
    level: str = ""


@dataclass
class State:
    """What belongs to one run of the program."""

    cpu: CpuSettings = CpuSettings()
    interrupts: Interrupts = field(default_factory=Interrupts)
    verbose: bool = False


class LazyGroup(click.Group):
    """A group that imports a command when it is used: `--help` need not load NumPy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"omni-rt {version('omni-rt')}")
        except PackageNotFoundError:
            click.echo("omni-rt, run from its source without being installed")
        context.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 no usable device.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def omni_rt() -> None:
    """Talk with Qwen3-Omni on this machine: on any GPU through WebGPU, or on the CPU.

    \b
    omni-rt chat question.wav --speech -o answer.wav
    omni-rt chat "What is three plus four?"
    omni-rt say "Good morning." --voice vivian --model DIRECTORY -o morning.wav
    omni-rt transcribe meeting.flac
    omni-rt doctor
    """


def run(arguments: Sequence[str] | None = None, cpu: CpuSettings = CpuSettings()) -> int:
    """Run the command line and return its exit code."""
    state = State(cpu)
    state.interrupts.watch()
    try:
        code = omni_rt.main(args=arguments, prog_name="omni-rt", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        _say(state, error.message)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        state.interrupts.leave()
    except BrokenPipeError:
        _drop_stdout()
        return FAILED
    except OmniError as error:
        _say(state, str(error))
        return FAILED
    except OSError as error:
        _say(state, f"{error.filename or 'stdout'}: {error.strerror or error}")
        _drop_stdout()
        return FAILED
    except MemoryError:
        _say(state, "out of memory: use --quant q8_0, a shorter --context, or a smaller model")
        return FAILED
    except ModuleNotFoundError as error:
        _say(
            state,
            f"the Python package {error.name} is missing: install it with pip; omni-rt doctor lists what is needed",
        )
        return FAILED
    except Exception as error:
        hint = "" if state.verbose else "; this is a bug: run again with -v and report what it prints"
        _say(state, f"{type(error).__name__}: {error}{hint}")
        return FAILED
    return code if isinstance(code, int) else FINE  # click hands back the code of an Exit


def _say(state: State, message: str) -> None:
    if state.verbose:
        traceback.print_exc()
    click.echo(f"omni-rt: error: {message}", err=True)


def _drop_stdout() -> None:
    """Let the interpreter flush stdout into nothing at exit, as nobody reads it any more."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
