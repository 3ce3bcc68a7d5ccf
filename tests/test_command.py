"""Every command does its work from end to end on the shipped model, and leaves stdout to its result."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile

from omni_rt import devices
from omni_rt.benchmark.meter import metered
from omni_rt.benchmark.model import Clock, python_cost, talker_stages
from omni_rt.command import group
from omni_rt.command.conversation import content
from omni_rt.command.report import printable
from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.io.hub import tiny_directory
from omni_rt.model_files import OmniFiles, open_model
from omni_rt.models.qwen3_omni.components import PREFIXES, load_components
from tests.command_line import QUESTION, SHORT, Program, Terminal, interrupt, separately, start
from tests.conftest import GOLDENS

SPOKEN = ("--seed", "1", "--max-new-tokens", "12")
"""A reply of the shipped model that is short and has speech."""


@pytest.mark.parametrize("device", ["cpu", "wgpu"])
def test_chat_answers_a_spoken_question_in_text_and_speech(program: Program, tmp_path: Path, device: str) -> None:
    answer = tmp_path / "answer.wav"
    done = program("chat", QUESTION, "--speech", "-o", str(answer), "--device", device, "--strict", *SPOKEN)
    assert done.code == 0, done.err
    samples, rate = soundfile.read(answer)
    assert rate == 24000 and len(samples) > 0 and np.abs(samples).max() > 0
    assert done.out.strip(), "no text on stdout"
    assert "first token" in done.err and "first audio" in done.err and "RTF" in done.err
    assert "first token" not in done.out


def test_say_speaks_in_the_own_voice_of_a_model_that_converses(program: Program, tmp_path: Path) -> None:
    speech = str(tmp_path / "speech.wav")
    asked = ("say", "on", "--device", "cpu", "--seed", "1", "--max-frames", "9", "--json")
    done = program(*asked, "-o", speech)
    assert done.code == 0, done.err
    samples, rate = soundfile.read(speech)
    told = json.loads(done.out)
    assert rate == 24000 and told["frames"] <= 9 and told["seconds"] == pytest.approx(len(samples) / rate)
    assert told["finish_reason"] == "length" and "--max-frames" in done.err
    refused = program(*asked, "-o", speech, "--language", "english")
    assert refused.code == 1 and "own voices only" in refused.err and "--language" in refused.err


def test_json_is_all_that_stdout_holds_and_repeats_with_the_seed(program: Program, tmp_path: Path) -> None:
    answer = str(tmp_path / "answer.flac")
    replies = [
        json.loads(program("chat", QUESTION, "-o", answer, "--device", "cpu", "--json", "-q", *SPOKEN).out)
        for _ in range(2)
    ]
    first, second = replies
    assert first["audio"] == answer and first["sample_rate"] == 24000 and first["seed"] == 1
    assert first["audio_seconds"] == pytest.approx((960 * first["frames"] - 555) / 24000)
    assert first["timings"]["first_audio_ms"] > first["timings"]["first_token_ms"] > 0
    assert (first["text"], first["token_ids"], first["frames"]) == (
        second["text"],
        second["token_ids"],
        second["frames"],
    )


def test_quiet_leaves_stderr_empty(program: Program) -> None:
    done = program("chat", "hello", "--device", "cpu", "-q", "--seed", "0", "--max-new-tokens", "64")
    assert done.code == 0 and done.err == ""


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_speech_is_written_in_the_format_of_the_suffix(program: Program, tmp_path: Path, suffix: str) -> None:
    answer = tmp_path / f"answer.{suffix}"
    assert program("chat", QUESTION, "-o", str(answer), "--device", "cpu", *SPOKEN).code == 0
    assert soundfile.info(answer).format == suffix.upper()


def test_speech_goes_to_stdout_as_a_wav_and_text_to_stderr(tmp_path: Path) -> None:
    code, out, err = separately("chat", QUESTION, "-o", "-", "--device", "cpu", *SPOKEN, cwd=tmp_path)
    assert code == 0, err
    samples, rate = soundfile.read(io.BytesIO(out))
    assert rate == 24000 and len(samples) > 0
    assert len(err.splitlines()) >= 2  # the text, then the timings
    assert not list(tmp_path.iterdir())


def test_speech_without_a_file_goes_to_answer_wav(tmp_path: Path) -> None:
    code, _, err = separately("chat", QUESTION, "--speech", "--device", "cpu", *SPOKEN, cwd=tmp_path)
    assert code == 0, err
    assert [file.name for file in tmp_path.iterdir()] == ["answer.wav"]
    assert "answer.wav" in err


def test_text_files_and_audio_beside_a_text_are_taken(program: Program, tmp_path: Path) -> None:
    written = tmp_path / "question.txt"
    written.write_text("hello", encoding="utf-8")
    from_file = program("chat", str(written), "--device", "cpu", "--json", *SHORT)
    from_text = program("chat", "hello", "--device", "cpu", "--json", *SHORT)
    with_audio = program("chat", "hello", "--audio", QUESTION, "--device", "cpu", "--json", *SHORT)
    ids = [json.loads(done.out)["token_ids"] for done in (from_file, from_text, with_audio)]
    assert ids[0] == ids[1]
    assert ids[2] != ids[1], "the recording changed nothing"


def test_each_component_can_be_placed(program: Program, tmp_path: Path) -> None:
    answer = str(tmp_path / "answer.wav")
    # In f32, where two devices agree to the last token: rounded activations may tip over on one of them only.
    here = ("chat", QUESTION, "-o", answer, "--json", "--model", str(GOLDENS / "checkpoint"), *SPOKEN)
    alone = json.loads(program(*here, "--device", "cpu").out)
    placed = program(
        *here, "--device", "cpu", "--place", "thinker=wgpu,audio_encoder=wgpu", "--placement", "talker=cpu"
    )
    assert placed.code == 0, placed.err
    assert json.loads(placed.out)["token_ids"] == alone["token_ids"]


def test_quantised_weights_answer(program: Program) -> None:
    done = program("chat", "hello", "--device", "cpu", "--quant", "q8_0", "--json", *SHORT)
    assert done.code == 0 and len(json.loads(done.out)["token_ids"]) == 4


@pytest.mark.parametrize("environment", [{"OMNI_RT_THREADS": "1"}, {"OMNI_RT_CPU_LEVEL": "numpy"}], ids=str)
def test_threads_and_level_of_the_cpu_come_from_the_environment(tmp_path: Path, environment: dict[str, str]) -> None:
    code, out, err = separately("chat", "hello", "--device", "cpu", *SHORT, "--json", cwd=tmp_path, **environment)
    assert code == 0, err
    assert len(json.loads(out)["token_ids"]) == 4


def test_trace_prints_a_line_per_dispatch(program: Program) -> None:
    done = program("chat", "hello", "--device", "wgpu", "--trace", "--max-new-tokens", "2", "--seed", "0")
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if line.endswith("GB/s")]
    assert len(lines) > 40 and all(" us " in line for line in lines)
    assert any(line.startswith("matmul") and "K=256" in line for line in lines)


def test_a_conversation_keeps_its_history(tmp_path: Path) -> None:
    given = b"hello\n/help\nand then?\n/reset\nand then?\n/exit\nnever said\n"
    code, out, err = separately("chat", "--device", "cpu", *SHORT, "-q", cwd=tmp_path, given=given)
    assert code == 0, err
    assert b"/audio FILE" in out
    replies = [line for line in out.decode().split("\n") if line and not line.startswith(("/", "Anything"))]
    again = separately("chat", "and then?", "--device", "cpu", *SHORT, "-q", cwd=tmp_path)[1].decode().strip("\n")
    assert replies[-1] == again, "a reply after /reset is not that of a new conversation"
    assert replies[-1] != replies[-2], "the history changes nothing"


def test_a_line_of_a_conversation_names_files_and_questions() -> None:
    assert content("audio is a word, not a command") == "audio is a word, not a command"
    assert content(f"/audio {QUESTION} what is said?") == [
        {"type": "audio", "audio": QUESTION},
        {"type": "text", "text": "what is said?"},
    ]
    with pytest.raises(InputError, match="/dance is no command"):
        content("/dance")
    with pytest.raises(InputError, match="does not exist"):
        content("/audio nowhere.wav")


def test_transcribe_names_files_and_goes_on_after_a_bad_one(program: Program, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("this is no audio")
    done = program("transcribe", QUESTION, str(bad), QUESTION, "--device", "cpu", "--json", *SHORT)
    assert done.code == 1
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["file"] for line in lines] == [QUESTION, QUESTION]
    assert lines[0]["text"] == lines[1]["text"]
    assert "bad.wav" in done.err and "not readable audio" in done.err
    long = program("transcribe", QUESTION, str(bad), "--device", "cpu", "--context", "16", *SHORT).err
    assert f"error: {QUESTION}: the prompt has" in long and f"error: {bad}: is not" in long


def test_transcribe_prints_the_text_alone_for_one_file(program: Program) -> None:
    one = program("transcribe", QUESTION, "--device", "cpu", *SHORT)
    two = program("transcribe", QUESTION, QUESTION, "--device", "cpu", *SHORT)
    assert one.code == two.code == 0
    assert [line.partition(": ")[2] for line in two.out.splitlines()] == [one.out.strip("\n")] * 2


def test_devices_lists_the_cpu_and_the_adapters(program: Program) -> None:
    found = json.loads(program("devices", "--json").out)["devices"]
    assert [entry["device"] for entry in found][:2] == ["cpu", "wgpu:0"]
    assert found[1]["backend"] == "Vulkan" and found[1]["max-storage-buffer-binding-size"] >= 1 << 27
    plain = program("devices").out
    assert all(entry["what"] in plain for entry in found)


def test_doctor_finds_everything_in_order_here(program: Program) -> None:
    done = program("doctor", "--device", "wgpu", "--json")
    assert done.code == 0, done.out
    findings = {finding["what"]: finding for finding in json.loads(done.out)["findings"]}
    assert {"Python", "packages", "audio files", "Vulkan loader", "wgpu:0", "model 'tiny'"} <= set(findings)
    assert "computes" in findings["wgpu:0"]["found"]
    assert not [finding for finding in findings.values() if finding["state"] == "missing"]


def test_doctor_says_how_to_get_a_driver_when_there_is_none(tmp_path: Path) -> None:
    hidden = {"VK_ICD_FILENAMES": "/nonexistent", "VK_DRIVER_FILES": "/nonexistent"}
    code, out, err = separately("doctor", "--device", "wgpu", cwd=tmp_path, **hidden)
    assert code == 3
    assert "no adapter found" in out.decode() and "vulkan" in out.decode().lower()
    assert "no Vulkan adapter" in err
    assert separately("doctor", cwd=tmp_path, **hidden)[0] == 0, "the CPU needs no driver"


def test_doctor_fails_when_a_package_is_missing(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from omni_rt.command import doctor

    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "a-package-that-is-not-there"))
    done = program("doctor")
    assert done.code == 1
    assert "pip install a-package-that-is-not-there" in done.out


def test_ops_lists_every_op_with_its_kernels(program: Program) -> None:
    from omni_rt.ops.contract import TABLE

    listed = [json.loads(line) for line in program("ops", "--json").out.splitlines()]
    assert {entry["op"] for entry in listed} == set(TABLE)
    matmul = program("ops", "matmul", "-v").out
    assert TABLE["matmul"].signature in matmul and "matmul_q8_0_gemv" in matmul
    assert program("ops", "matmulish").code == 2


@pytest.mark.parametrize("arguments", [(), ("--shape", "audio", "--layers", "1")], ids=["omni-tiny", "audio"])
def test_bench_model_times_every_stage(program: Program, arguments: tuple[str, ...]) -> None:
    done = program("bench", "model", *arguments, "--device", "cpu", "--json", "--seconds", "0", "--context", "16")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert len(found["stages"]) == (12 if not arguments else 1)
    assert all(stage["milliseconds"] > 0 for stage in found["stages"])
    prompts = [stage for stage in found["stages"] if "prompt of 64" in stage["name"]]
    assert [stage["unit"] for stage in prompts] == (["token"] if not arguments else [])
    assert all(stage["per_second"] == pytest.approx(64000 / stage["milliseconds"]) for stage in prompts)
    assert found["read_gb_per_s"] > 0 and not found["fallbacks"]
    if not arguments:
        decoding, first = (
            next(s for s in found["stages"] if s["name"].startswith(f"thinker, {n}")) for n in ("d", "f")
        )
        assert decoding["share_of_reading"] == pytest.approx(decoding["gb_per_s"] / found["read_gb_per_s"])
        assert first["unit"] == "start"


def test_a_shape_that_does_not_fit_is_refused(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.device, "available_bytes", lambda: 1 << 29)
    done = program("bench", "model", "--shape", "audio", "--layers", "1", "--device", "cpu", "--seconds", "0")
    assert done.code == 1 and "cpu had 0.50 GiB free" in done.err and "--layers" in done.err


def test_benchmark_counts_dispatches_and_python_time(gpu: Device) -> None:
    with metered(gpu) as cost:
        files = open_model(tiny_directory())
        assert isinstance(files, OmniFiles)
        parts = load_components(
            files.main, files.config, dict.fromkeys(PREFIXES, gpu), context=64, progress=lambda done, total: None
        )
        assert parts.talker is not None
        stages = {stage.name: stage for stage in talker_stages(Clock(gpu, 0), parts.talker, context=16)}
    counts = {name: stage.dispatches for name, stage in stages.items()}
    # The frame is sampled as released talkers are: that marks a code in one dispatch more, and takes a single one where
    # each of the other codes is picked, noted and embedded in three.
    picked = 2 * len(parts.talker.predictor.heads)
    assert counts["talker and code predictor"] == counts["talker"] + counts["code predictor"] + 1 - picked > 90
    record, replay = python_cost(cost)
    # Which is longer says nothing here: on a software adapter a replay waits while the queue is full.
    assert record is not None and replay is not None and min(record, replay) > 0


def test_bench_ops_times_an_op_against_reading(program: Program) -> None:
    done = program("bench", "ops", "softmax", "--device", "cpu", "--seconds", "0.01", "--json")
    assert done.code == 0, done.err
    timings = [json.loads(line) for line in done.out.splitlines()]
    assert any(timing["op"] == "softmax" and timing["microseconds"] > 0 for timing in timings)
    assert all(timing["share_of_as_much"] > 0 and timing["reading_microseconds"] > 0 for timing in timings)


def test_bench_ops_lists_the_ops_where_it_does_not_know_one(program: Program) -> None:
    done = program("bench", "ops", "convolve", "--device", "cpu")
    assert done.code == 2 and "no op is called convolve; there are add, " in " ".join(done.err.split())


@pytest.mark.parametrize("command", [*group.COMMANDS, "bench model", "bench ops"])
def test_help_has_examples(program: Program, command: str) -> None:
    done = program(*command.split(), "--help")
    assert done.code == 0
    if command != "bench":
        assert f"omni-rt {command}" in done.out.partition("Examples:")[2]


def test_every_command_can_be_loaded_under_its_name() -> None:
    context = click.Context(group.omni_rt)
    for name in group.COMMANDS:
        command = group.omni_rt.get_command(context, name)
        assert command is not None and command.name == name


def test_help_and_version_are_fast_and_open_no_device(tmp_path: Path) -> None:
    code, out, _ = separately("--version", cwd=tmp_path)
    assert code == 0 and b"omni-rt" in out
    assert separately("--help", cwd=tmp_path)[0] == 0


def test_what_steers_a_terminal_is_not_printed() -> None:
    assert printable("a\x1b[2Jb\x07\nc\td") == "a\ufffd[2Jb\ufffd\nc\td"


@pytest.mark.parametrize("wait", [0.6, 2.5])
def test_ctrl_c_stops_at_once_and_leaves_no_file(tmp_path: Path, wait: float) -> None:
    model = str(GOLDENS / "checkpoint")  # its replies are long
    asked = ("chat", QUESTION, "-o", "answer.wav", "--model", model, "--device", "wgpu", "--temperature", "0")
    code, err, seconds = interrupt(start(*asked, cwd=tmp_path), wait)
    assert (code, "Traceback" in err) == (130, False), err
    assert seconds < 0.4
    assert not list(tmp_path.iterdir())


def test_ctrl_c_in_a_conversation_stops_the_reply_and_keeps_the_prompt(tmp_path: Path) -> None:
    model = str(GOLDENS / "checkpoint")  # its replies are long
    terminal = Terminal(
        tmp_path, "chat", "--model", model, "--device", "wgpu", "-o", "answer.wav", "--temperature", "0"
    )
    try:
        terminal.until("> ")
        terminal.type("hello\n")
        terminal.until("c")  # the first character of its reply
        terminal.type("\x03")
        assert "stopped" in terminal.until("> ")
        terminal.type("/image\n")
        assert "/image needs a file" in terminal.until("> ")
        terminal.type("/exit\n")
        assert terminal.code() == 0
    finally:
        terminal.close()
    assert not list(tmp_path.iterdir())
