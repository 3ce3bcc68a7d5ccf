"""The command line bears what shells, terminals and disks do to it: closed streams, odd names, signals, a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import omni_rt
from omni_rt.errors import InputError
from omni_rt.io.files import atomic_write, is_held
from omni_rt.results import AudioOutput
from omni_rt.voice import Voice
from tests.command_line import QUESTION, ROOT, SHORT, Program, separately, signals_heard
from tests.conftest import GOLDENS


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of sh in which `omni-rt` is the command line."""
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    line = line.replace("omni-rt", f"'{sys.executable}' -m omni_rt")
    return subprocess.run(
        ["sh", "-c", line], cwd=cwd, env={**os.environ, "PYTHONPATH": search, **environment}, capture_output=True,
        timeout=120,
    )  # fmt: skip


def speechless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a model is loaded: what is wrong shows before that."""

    def loaded(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("omni_rt.load", loaded)


# Streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_failure(tmp_path: Path, closed: str) -> None:
    done = shell(f"omni-rt ops matmul {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"" and (b"matmul" in done.stdout) == (">&-" not in closed.split())


def test_a_conversation_and_a_text_without_stdin_end_as_an_empty_one_does(tmp_path: Path) -> None:
    assert shell("omni-rt chat --device cpu <&-", tmp_path).returncode == 0
    done = shell("omni-rt say -i - <&-", tmp_path)
    assert done.returncode == 1 and b"the text is empty" in done.stderr


def test_a_reader_that_leaves_early_is_no_bug() -> None:
    nobody, end = os.pipe()
    os.close(nobody)
    done = subprocess.run(
        [sys.executable, "-m", "omni_rt", "ops"], cwd=ROOT, stdout=end, stderr=subprocess.PIPE, timeout=120
    )
    os.close(end)
    assert done.returncode == 1 and done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_behind_stdout_is_named(tmp_path: Path) -> None:
    done = shell("omni-rt ops >/dev/full", tmp_path)
    assert done.returncode == 1 and done.stderr == b"omni-rt: error: stdout: No space left on device\n"


def test_names_and_texts_beyond_the_encoding_of_a_terminal_are_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"fr\xff\xc3\xa4ge.wav")  # no UTF-8
    shutil.copy(QUESTION, tmp_path / name)
    shutil.copy(QUESTION, tmp_path / "ü.wav")
    asked = ("transcribe", name, "ü.wav", "--device", "cpu", "-q", *SHORT)
    for encoding in ("utf-8:strict", "latin-1", "ascii"):
        code, out, err = separately(*asked, cwd=tmp_path, PYTHONIOENCODING=encoding)
        assert code == 0 and out.count(b"\n") == 2, err
        code, out, err = separately(*asked, "--json", cwd=tmp_path, PYTHONIOENCODING=encoding)
        assert code == 0, err
        assert [json.loads(line)["file"] for line in out.splitlines()] == [name, "ü.wav"], encoding


def test_speech_can_be_written_under_any_name(tmp_path: Path) -> None:
    speech = omni_rt.Speech(np.zeros(240, np.float32), 24000, np.zeros((16, 1), np.int32), "stop", 0)
    for name in ("a b ü.wav", os.fsdecode(b"a\xff.flac"), "[a]*.ogg"):
        speech.save(tmp_path / name)
        with open(tmp_path / name, "rb") as file:
            assert soundfile.info(file).samplerate == 24000


# Disks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["answer.wav", "answer.mp3", "me.safetensors"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    samples, target = np.zeros(2400, np.float32), tmp_path / name
    with pytest.raises(InputError, match=rf"{name}: cannot be written \(No space left on device\); make room"):
        Voice(samples).save(target) if target.suffix == ".safetensors" else AudioOutput(samples, 24000).save(target)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_stops_quantising_with_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"audio_encoder-q8_0.gguf: cannot be written \(No space left"):
        omni_rt.quantize(GOLDENS / "checkpoint", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("say", "hello", "-o", "locked/a.wav"), "locked cannot be written to"),
        (("chat", "hello", "-o", ""), "'' has the suffix ''"),
        (("say", "hello", "--ref-audio", QUESTION, "--save-voice", "missing/me.safetensors"), "missing does not exist"),
        (("say", "hello", "--ref-audio", QUESTION, "--save-voice", "me.txt"), ".safetensors"),
    ],
)
def test_what_cannot_be_written_shows_before_any_work(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    speechless(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locked").mkdir()
    usual = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and usual(path, mode))
    done = program(*arguments)
    assert done.code == 1 and says in done.err, done.err


@pytest.mark.parametrize("ref", ["~nobody-of-that-name/model", "x" * 5000, "x" * 300 + "/y"])
def test_a_reference_that_is_no_path_is_not_found(program: Program, ref: str) -> None:
    done = program("show", ref)
    assert done.code == 1 and "bug" not in done.err, done.err


def test_quantising_into_an_empty_name_or_nothing_is_refused(program: Program, tmp_path: Path) -> None:
    model = str(GOLDENS / "checkpoint")
    for arguments, says in (
        ((model, ""), "empty name"),
        ((model, "~nobody-of-that-name/q"), "home directory"),
        ((model, str(tmp_path / "q"), "--components", ","), "it has audio_encoder"),
    ):
        done = program("quantize", *arguments)
        assert done.code == 1 and says in done.err, done.err
    assert not list(tmp_path.iterdir())


def test_quantising_removes_what_a_killed_run_left_and_not_what_another_is_writing(tmp_path: Path) -> None:
    left = tmp_path / ".thinker-q8_0-1-a.gguf"
    left.touch()
    with atomic_write(tmp_path / "talker-q8_0.gguf") as written:
        assert is_held(written) and not is_held(left)
        omni_rt.quantize(GOLDENS / "checkpoint", tmp_path, components=["code2wav"])
    assert (tmp_path / "talker-q8_0.gguf").exists() and not left.exists()


def test_a_file_is_held_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, rename = tmp_path / "thinker-q8_0.gguf", os.replace

    def renamed(source: Path, name: Path) -> None:
        assert is_held(source)
        rename(source, name)

    monkeypatch.setattr(os, "replace", renamed)
    with atomic_write(target) as path:
        path.write_bytes(b"whole")
    assert target.read_bytes() == b"whole" and not is_held(target)


# Signals --------------------------------------------------------------------------------------------------------

WRITES = """
import sys, time
from pathlib import Path
from omni_rt.command.interrupt import Interrupts
from omni_rt.io.files import atomic_write
interrupts, target = Interrupts(), Path(sys.argv[1])
interrupts.watch()
with interrupts.writing(target.parent if sys.argv[2] == "directory" else target), atomic_write(target) as path:
    path.write_bytes(b"half")
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("known", ["file", "directory"])
def test_a_signal_leaves_nothing_half_written_and_others_files_alone(
    tmp_path: Path, number: signal.Signals, known: str
) -> None:
    target = tmp_path / "[answer] 1.gguf"
    with atomic_write(target) as others:  # of a process with another number
        command = [sys.executable, "-c", WRITES, str(target), known]
        with signals_heard():
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"written\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + number and err == b"\nomni-rt: stopped\n"
        assert list(tmp_path.iterdir()) == [others]


QUANTISES = """
import sys, time
from omni_rt.command import group
from omni_rt.io.gguf_writer import GgufWriter
GgufWriter.write = lambda *_: (print("writes", flush=True), time.sleep(60))
group.run(["quantize", *sys.argv[1:], "-q"])
"""


def test_quantising_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", QUANTISES, str(GOLDENS / "checkpoint"), str(tmp_path)]
    with signals_heard():
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writes\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130 and not list(tmp_path.iterdir())


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    code = "import signal; from omni_rt.command.interrupt import Interrupts; Interrupts().watch(); "
    code += "print(*(signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)))"
    done = shell(f"trap '' INT HUP; cd '{ROOT}'; '{sys.executable}' -c '{code}'", tmp_path)
    assert done.stdout == b"True True False\n", done.stderr
