"""`omni-rt say` reads aloud with every kind of voice model, from and to every kind of file, and says what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.command_line import Program, interrupt, separately, start

HASTE = ("--device", "cpu", "--max-frames", "4", "--seed", "1")


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three seconds of sound, stereo at 48 kHz."""
    path = tmp_path_factory.mktemp("recording") / "me.flac"
    tone = np.sin(np.arange(3 * 48_000) * 0.03) * np.linspace(0.1, 0.4, 3 * 48_000)
    soundfile.write(path, np.stack([tone, tone / 2], axis=1), 48_000)
    return str(path)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_speech_is_written_in_the_format_of_the_suffix(
    program: Program, released: Path, tmp_path: Path, suffix: str
) -> None:
    out, text = tmp_path / f"speech{suffix}", tmp_path / "text.txt"
    text.write_text("hello world", encoding="utf-8")
    model = str(released / "tiny-1b7-customvoice")
    done = program("say", "-i", str(text), "--voice", "Vivian", "--model", model, "-o", str(out), "--json", *HASTE)
    assert done.code == 0, done.err
    samples, rate = soundfile.read(out)
    told = json.loads(done.out)
    assert 2 <= told["frames"] <= 4 and told["seconds"] == pytest.approx(0.08 * told["frames"])
    assert rate == 24_000 and abs(len(samples) - 1920 * told["frames"]) <= 2400  # MP3 and Ogg pad
    assert told["finish_reason"] in ("stop", "length")
    assert told["seed"] == 1 and told["timings"]["rtf"] > 0 and told["timings"]["first_audio_ms"] > 0


def test_text_from_stdin_goes_to_stdout_as_raw_samples(released: Path, tmp_path: Path) -> None:
    model = str(released / "tiny-0b6-customvoice")
    asked = ("say", "-i", "-", "-o", "-", "--model", model, *HASTE)
    code, out, err = separately(*asked, cwd=tmp_path, given=b"hello world")
    assert code == 0, err
    assert len(out) in (2 * 3840, 3 * 3840, 4 * 3840) and np.abs(np.frombuffer(out, "<i2")).max() > 0
    assert separately(*asked, cwd=tmp_path, given=b"hello world")[1] == out  # the same seed, the same bytes
    assert not list(tmp_path.iterdir())


def test_a_described_voice(program: Program, released: Path, tmp_path: Path) -> None:
    model, out = str(released / "tiny-1b7-voicedesign"), tmp_path / "speech.wav"
    spoken = []
    for described in ("a calm old man", "a bright young voice"):
        done = program("say", "hello", "--instruct", described, "--model", model, "-o", str(out), *HASTE)
        assert done.code == 0, done.err
        spoken.append(out.read_bytes())
    assert spoken[0] != spoken[1]


@pytest.mark.parametrize("said", [(), ("--ref-text", "what was said")])
def test_a_cloned_voice_is_saved_and_used_again(
    program: Program, released: Path, recording: str, tmp_path: Path, said: tuple[str, ...]
) -> None:
    model, kept = ("--model", str(released / "tiny-1b7-base")), str(tmp_path / "me.safetensors")
    outs = [str(tmp_path / name) for name in ("first.wav", "again.wav")]
    cloned = ("--ref-audio", recording, *said, "--save-voice", kept)
    assert program("say", "hello", *cloned, *model, "-o", outs[0], *HASTE).code == 0
    assert program("say", "hello", "--voice", kept, *model, "-o", outs[1], *HASTE).code == 0
    assert Path(outs[0]).read_bytes() == Path(outs[1]).read_bytes()
    other = program("say", "x", "--voice", kept, "--model", str(released / "tiny-0b6-base"), "-o", outs[0], *HASTE)
    assert other.code == 1 and "belongs to the size of model" in other.err


def test_the_temperature_leaves_the_rest_of_the_checkpoints_sampling(
    program: Program, released: Path, tmp_path: Path
) -> None:
    model, out = str(released / "tiny-1b7-customvoice"), tmp_path / "speech.wav"
    spoken = []
    for options in ((), ("--temperature", "0.9"), ("--temperature", "0")):  # 0.9 is what the checkpoint asks for
        assert program("say", "hello", *options, "--model", model, "-o", str(out), *HASTE).code == 0
        spoken.append(out.read_bytes())
    assert spoken[0] == spoken[1] != spoken[2]


@pytest.mark.parametrize(
    ("variant", "arguments", "words"),
    [
        ("tiny-1b7-customvoice", ("--voice", "nobody"), "aiden, dylan"),
        ("tiny-1b7-customvoice", ("--language", "klingon"), "chinese, english"),
        ("tiny-1b7-customvoice", ("--ref-audio", "RECORDING"), "use a Base checkpoint"),
        ("tiny-0b6-customvoice", ("--instruct", "slowly"), "takes no instruction"),
        ("tiny-1b7-voicedesign", ("--voice", "vivian"), "describe one with `instruct`"),
        ("tiny-0b6-base", (), "--ref-audio FILE"),
        ("tiny-0b6-base", ("--ref-audio", "RECORDING", "--instruct", "slowly"), "takes no instruction"),
        ("tiny-0b6-base", ("--ref-audio", "no-such-file.wav"), "does not exist"),
    ],
)
def test_a_variant_says_what_it_cannot_do_and_writes_nothing(
    program: Program,
    released: Path,
    recording: str,
    tmp_path: Path,
    variant: str,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    given = [recording if argument == "RECORDING" else argument for argument in arguments]
    out = tmp_path / "speech.wav"
    done = program("say", "hello", *given, "--model", str(released / variant), "-o", str(out), *HASTE)
    assert done.code == 1 and words in done.err and "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "level", "words"),
    [(0.1, 0.3, "lasts 0.10 s"), (1200, 0.3, "lasts 1200.00 s"), (3, 0.0, "silent"), (3, np.nan, "NaN or infinite")],
)
def test_a_reference_that_does_not_serve_is_refused(
    program: Program, released: Path, tmp_path: Path, seconds: float, level: float, words: str
) -> None:
    clip, out = tmp_path / "clip.wav", tmp_path / "speech.wav"
    soundfile.write(clip, np.full(int(seconds * 8000), level, np.float32), 8000, subtype="FLOAT")
    model = str(released / "tiny-0b6-base")
    done = program("say", "hello", "--ref-audio", str(clip), "--model", model, "-o", str(out), *HASTE)
    assert done.code == 1 and words in done.err
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b" \n", "caf\xe9".encode("latin-1")])
def test_a_file_without_text_is_refused(program: Program, released: Path, tmp_path: Path, content: bytes) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "speech.wav"
    text.write_bytes(content)
    done = program("say", "-i", str(text), "--model", str(released / "tiny-1b7-customvoice"), "-o", str(out), *HASTE)
    assert done.code == 1 and ("empty" in done.err or "UTF-8" in done.err)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [(), ("hello", "-i", "text.txt"), ("hello", "--ref-text", "x"), ("hello", "-o", "-", "--json"),
     ("hello", "--ref-audio", "me.wav", "--voice", "vivian")],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(program: Program, arguments: tuple[str, ...]) -> None:
    assert program("say", *arguments).code == 2


def test_ctrl_c_stops_a_long_reading_at_once_and_leaves_no_file(released: Path, tmp_path: Path) -> None:
    model = str(released / "tiny-1b7-customvoice")
    text = "A sentence to be read. " * 4000
    process = start("say", "-i", "-", "-o", "speech.wav", "--model", model, "--device", "cpu", cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    process.stdin = None
    code, err, seconds = interrupt(process, 2.5)
    assert (code, "Traceback" in err) == (130, False), err
    assert seconds < 0.4
    assert not list(tmp_path.iterdir())
