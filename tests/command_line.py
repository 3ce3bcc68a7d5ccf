"""Runs the command line inside the test process, and in one of its own where a test needs that."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from omni_rt.command import group
from omni_rt.command.interrupt import Interrupts

ROOT = Path(__file__).parent.parent
QUESTION = str(ROOT / "examples" / "what-is-three-plus-four.wav")
SHORT = ("--max-new-tokens", "4", "--seed", "0")


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


class Program:
    """The command line in this process: fast, as Python and the package are loaded already."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(Interrupts, "watch", lambda self: None)  # pytest keeps its own signal handlers
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        """Run a command line and return what came of it."""
        self._capsys.readouterr()
        code = group.run(arguments)
        out, err = self._capsys.readouterr()
        return Outcome(code, out, err)


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own, in a directory, with changes to the environment."""
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "omni_rt", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": search, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def separately(*arguments: str, cwd: Path, given: bytes = b"", **environment: str) -> tuple[int, bytes, str]:
    """Run the command line in a process of its own; return its exit code, stdout and stderr."""
    process = start(*arguments, cwd=cwd, **environment)
    out, err = process.communicate(given, timeout=120)
    return process.returncode, out, err.decode()
