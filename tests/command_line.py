"""Runs the command line inside the test process, and in one of its own where a test needs that."""

from __future__ import annotations

import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from omni_rt.command import group
from omni_rt.command.interrupt import Interrupts

ROOT = Path(__file__).parent.parent
QUESTION = str(ROOT / "examples" / "what-is-three-plus-four.wav")
SHORT = ("--max-new-tokens", "4", "--seed", "0")
PATIENCE = 300.0
"""Seconds after which a process is taken to hang; much shorter, and a busy machine would decide."""


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


@contextmanager
def signals_heard() -> Iterator[None]:
    """Let processes started inside hear what this one ignores, as it does in the background or under nohup."""
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ignored = [number for number in stops if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own, in a directory, with changes to the environment."""
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with signals_heard():
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
    out, err = process.communicate(given, timeout=PATIENCE)
    return process.returncode, out, err.decode()


def interrupt(process: subprocess.Popen[bytes], wait: float) -> tuple[int, str, float]:
    """Send Ctrl-C, `wait` seconds after a process began to watch for it; return exit code, stderr and seconds it took.

    They are seconds of the processor: on a busy machine others have their turns meanwhile.
    """
    try:
        deadline = time.monotonic() + PATIENCE
        while not _watches(process.pid):
            assert time.monotonic() < deadline and process.poll() is None, "it never began to watch"
            time.sleep(0.01)
        time.sleep(wait)
        assert process.poll() is None, "it ended before it could be stopped"
        reaped = _children_seconds()
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        before = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        return process.returncode, err.decode(), _children_seconds() - reaped - before
    finally:
        process.kill()  # where it did not end


def _watches(pid: int) -> bool:
    """Say whether a process has the sockets that tell it of Ctrl-C."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if str(link.readlink()).startswith("socket:"):
                return True
    return False


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Terminal:
    """The command line at a terminal, typed at and read from."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        """Start it in a directory."""
        with signals_heard():
            self._process, self._file = pty.fork()
            if self._process == 0:
                os.chdir(cwd)
                search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
                environment = {**os.environ, "PYTHONPATH": search, "TERM": "dumb"}
                os.execve(sys.executable, [sys.executable, "-m", "omni_rt", *arguments], environment)

    def type(self, text: str) -> None:
        """Type text; control characters act as they do at a keyboard."""
        os.write(self._file, text.encode())

    def until(self, wanted: str) -> str:
        """Return what appears up to and with `wanted`; fail when it does not come in time."""
        seen, deadline = "", time.monotonic() + PATIENCE
        while wanted not in seen:
            assert time.monotonic() < deadline, f"{wanted!r} did not come: {seen!r}"
            if select.select([self._file], [], [], 0.1)[0]:
                seen += os.read(self._file, 1).decode(errors="replace")
        return seen

    def code(self) -> int:
        """Wait for the end and return the exit code."""
        status = os.waitpid(self._process, 0)[1]
        self._process = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End it, if it runs still."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        os.close(self._file)
