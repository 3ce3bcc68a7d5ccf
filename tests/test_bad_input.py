"""Bad input ends in a message that names what, where and the cure, the right exit code, and no file half-written."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omni_rt.io.safetensors import SafetensorsCheckpoint
from tests import wav
from tests.command_line import QUESTION, SHORT, Program, separately
from tests.conftest import GOLDENS


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of a small model in released layout that a test may break."""
    return Path(shutil.copytree(GOLDENS / "checkpoint", tmp_path / "model"))


def fails(program: Program, *arguments: str, code: int = 1, says: tuple[str, ...]) -> None:
    """Check that a command fails with this code, says all of this in one line on stderr, and nothing on stdout."""
    done = program(*arguments)
    assert done.code == code, (done.code, done.err)
    assert done.out == ""
    assert "Traceback" not in done.err and "this is a bug" not in done.err
    line = " ".join(done.err.split())
    missing = [part for part in says if part not in line]
    assert not missing, f"{line!r} does not say {missing}"


# Models ---------------------------------------------------------------------------------------------------------


def edit_config(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = model / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def rewrite_weights(model: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Store the weights again as f32, changed; what was made something else stays so."""
    path = model / "model.safetensors"
    checkpoint = SafetensorsCheckpoint(model)
    arrays = {name: np.array(checkpoint.array(name), np.float32) for name in checkpoint.names()}
    del checkpoint
    change(arrays)
    header, offset = {}, 0
    for name, array in arrays.items():
        stored = {"float32": "F32", "int8": "I8", "int64": "I64", "bool": "BOOL"}[array.dtype.name]
        header[name] = {"dtype": stored, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values()))


def test_missing_weights(program: Program, model: Path) -> None:
    (model / "model.safetensors").unlink()
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", says=(str(model), "safetensors"))


def test_truncated_weights(program: Program, model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", says=("model.safetensors", "cut short"))


def test_a_shape_that_disagrees_with_the_config_is_named_with_the_shape_expected(program: Program, model: Path) -> None:
    def widen(config: dict[str, Any]) -> None:
        config["thinker_config"]["text_config"]["vocab_size"] += 8

    edit_config(model, widen)
    says = ("thinker.model.embed_tokens.weight", "[336, 64]", "[344, 64]", "config.json")
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", says=says)


def test_a_missing_tensor_is_named(program: Program, model: Path) -> None:
    name = "thinker.model.layers.0.self_attn.q_norm.weight"
    rewrite_weights(model, lambda arrays: arrays.__delitem__(name))
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", says=("lacks", name))


@pytest.mark.parametrize("kind", [np.int8, np.int64, bool])
def test_weights_that_another_program_has_quantised_are_refused(program: Program, model: Path, kind: type) -> None:
    name = "thinker.lm_head.weight"
    rewrite_weights(model, lambda arrays: arrays.update({name: arrays[name].astype(kind)}))
    says = (f"{name} holds whole numbers", "BF16")
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", says=says)
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", "--quant", "q8_0", says=says)
    fails(program, "quantize", str(model), str(model.parent / "q8"), says=says)


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [
        ("thinker.model.norm.weight", np.nan, ()),
        ("thinker.model.norm.weight", np.inf, ("--quant", "q8_0")),
        ("code2wav.decoder.0.conv.weight", -np.inf, ()),
        ("code2wav.decoder.0.conv.weight", 1e30, ("--quant", "q8_0")),  # too much for the f16 that it becomes
    ],
)
def test_a_value_that_is_not_finite_is_refused_by_its_tensor(
    program: Program, model: Path, name: str, value: float, options: tuple[str, ...]
) -> None:
    rewrite_weights(model, lambda arrays: arrays[name].reshape(-1)[-1:].fill(value))
    says = (f"{name}: holds values that are not finite",)
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", *options, says=says)


def test_a_tensor_too_many_is_named(program: Program, model: Path) -> None:
    rewrite_weights(
        model, lambda arrays: arrays.update({"thinker.model.layers.0.extra.weight": np.ones(3, np.float32)})
    )
    says = ("thinker.model.layers.0.extra.weight", "config.json")
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", says=says)


def test_an_unknown_key_of_the_config_is_refused(program: Program, model: Path) -> None:
    edit_config(model, lambda config: config["thinker_config"]["text_config"].update(logit_softcap=30.0))
    fails(program, "chat", "hello", "--model", str(model), "--device", "cpu", says=("config.json", "logit_softcap"))


def test_a_directory_without_a_config(program: Program, tmp_path: Path) -> None:
    fails(program, "chat", "hello", "--model", str(tmp_path), "--device", "cpu", says=(str(tmp_path), "config.json"))


def test_another_kind_of_model(program: Program, model: Path) -> None:
    edit_config(model, lambda config: config.update(model_type="llama"))
    fails(
        program, "chat", "hello", "--model", str(model), "--device", "cpu", says=("config.json", "llama", "qwen3_omni")
    )


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("nowhere", ("nowhere", "directory", "tiny")),
        ("someone/no-such-model", ("someone/no-such-model", "omni-rt pull someone/no-such-model")),
        (QUESTION, (QUESTION, "is a file")),
    ],
)
def test_a_reference_that_leads_nowhere(program: Program, ref: str, says: tuple[str, ...]) -> None:
    fails(program, "chat", "hello", "--model", ref, "--device", "cpu", says=says)


def test_pull_wants_a_repository(program: Program) -> None:
    fails(program, "pull", "not a name", says=("not a name", "ORG/REPO"))


# Audio ----------------------------------------------------------------------------------------------------------


def ten_hours(path: Path) -> None:
    size = 10 * 3600 * 8000 * 2
    with open(path, "wb") as file:
        file.write(wav.header(rate=8000, data=size))
        file.truncate(44 + size)  # sparse: it takes no room on the disk


def not_a_number(path: Path) -> None:
    soundfile.write(path, np.array([0.0, np.nan, 0.0], np.float32), 16000, subtype="FLOAT")


BAD_AUDIO: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "text": (lambda path: path.write_text("what is three plus four?"), ("is not readable audio", "WAV, FLAC, OGG")),
    "nothing": (lambda path: path.write_bytes(b""), ("is empty",)),
    "no_samples": (lambda path: path.write_bytes(wav.header()), ("holds no samples",)),
    "half_a_header": (lambda path: path.write_bytes(wav.header(data=100)[:20]), ("is not readable audio",)),
    "12_ms": (lambda path: soundfile.write(path, np.zeros(200), 16000), ("200 samples", "at least 201")),
    "channels": (lambda path: path.write_bytes(wav.header(channels=65535, data=4)), ("65535 channels", "mix it down")),
    "ten_hours": (ten_hours, ("36000 s", "3600 s", "cut it")),
    "not_a_number": (not_a_number, ("NaN",)),
    "directory": (lambda path: path.mkdir(), ("is a directory",)),
}


@pytest.mark.parametrize("kind", BAD_AUDIO)
def test_bad_audio(program: Program, tmp_path: Path, kind: str) -> None:
    make, says = BAD_AUDIO[kind]
    audio, out = tmp_path / "bad.wav", tmp_path / "out"
    out.mkdir()
    make(audio)
    for arguments in (
        ["chat", "what?", "--audio", str(audio), "-o", str(out / "answer.wav")],
        ["transcribe", str(audio)],
    ):
        fails(program, *arguments, "--device", "cpu", *SHORT, says=("bad.wav", *says))
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", ["no-such-file.wav", "no-such-picture.png", "no-such-film.mp4"])
def test_a_file_that_does_not_exist(program: Program, name: str) -> None:
    fails(program, "chat", name, "--device", "cpu", says=(name, "does not exist"))


def test_an_empty_question(program: Program, tmp_path: Path) -> None:
    fails(program, "chat", " ", "--device", "cpu", says=("empty",))
    empty = tmp_path / "question.txt"
    empty.write_text("\n")
    fails(program, "chat", str(empty), "--device", "cpu", says=("question.txt", "empty"))
    empty.write_bytes(b"\xff\xfe\x00")
    fails(program, "chat", str(empty), "--device", "cpu", says=("question.txt", "UTF-8"))


# Requests -------------------------------------------------------------------------------------------------------


def test_an_unknown_voice_lists_the_known(program: Program, tmp_path: Path) -> None:
    answer = tmp_path / "answer.wav"
    says = ("nobody", "chelsie")
    fails(program, "chat", "hello", "-o", str(answer), "--voice", "nobody", "--device", "cpu", says=says)
    assert not list(tmp_path.iterdir())


def test_a_context_that_is_too_small(program: Program, tmp_path: Path) -> None:
    arguments = ("chat", QUESTION, "-o", str(tmp_path / "answer.wav"), "--context", "16", "--device", "cpu")
    fails(program, *arguments, *SHORT, says=("context", "16", "larger"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("answer.xyz", (".xyz", ".wav")),
        ("missing/answer.wav", ("missing", "does not exist", "create")),
        ("folder.wav", ("is a directory",)),
    ],
)
def test_an_output_that_cannot_be_written(program: Program, tmp_path: Path, output: str, says: tuple[str, ...]) -> None:
    (tmp_path / "folder.wav").mkdir()
    fails(program, "chat", "hello", "-o", str(tmp_path / output), "--device", "cpu", says=says)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.wav"]


def test_an_answer_that_is_there_survives_a_failure(program: Program, tmp_path: Path) -> None:
    answer = tmp_path / "answer.wav"
    answer.write_bytes(b"mine")
    fails(program, "chat", "hello", "-o", str(answer), "--voice", "nobody", "--device", "cpu", says=("nobody",))
    assert answer.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("chat", "hello", "--device", "tpu"), ("'tpu'", "auto, cpu, wgpu")),
        (("chat", "hello", "--place", "ears=cpu"), ("'ears'", "audio_encoder", "code2wav")),
        (("chat", "hello", "--place", "talker=gpu"), ("talker=gpu", "auto, cpu or wgpu")),
        (("chat", "hello", "--quant", "q4_0"), ("q4_0", "q8_0")),
        (("chat", "hello", "--no-speech", "-o", "answer.wav"), ("--no-speech", "-o")),
        (("chat", "hello", "--json", "-o", "-"), ("--json", "stdout")),
        (("chat", "--json"), ("conversation", "question")),
        (("chat", "hello", "--trace", "--device", "cpu"), ("--trace", "--device wgpu")),
        (("chat", "hello", "--temperature", "-1"), ("-1",)),
        (("chat", "hello", "--max-new-tokens", "0"), ("0",)),
        (("bench", "model", "--shape", "omni-tiny", "--layers", "1"), ("--layers",)),
        (("transcribe",), ("FILE",)),
        (("sing",), ("sing",)),
    ],
)
def test_wrong_usage_is_exit_code_2(program: Program, arguments: tuple[str, ...], says: tuple[str, ...]) -> None:
    fails(program, *arguments, code=2, says=says)


# Devices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("chat", "hello"), ("transcribe", QUESTION), ("bench", "model"), ("bench", "ops")])
def test_no_vulkan_adapter_is_exit_code_3(tmp_path: Path, command: tuple[str, ...]) -> None:
    hidden = {"VK_ICD_FILENAMES": "/nonexistent", "VK_DRIVER_FILES": "/nonexistent"}
    code, out, err = separately(*command, "--device", "wgpu", cwd=tmp_path, **hidden)
    assert code == 3 and out == b""
    assert "no Vulkan adapter" in err and "apt install" in err and "--device cpu" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("variable", "value", "code", "says"),
    [
        ("OMNI_RT_THREADS", "many", 1, ("OMNI_RT_THREADS", "'many'", "1 to 1024")),
        ("OMNI_RT_CPU_LEVEL", "warp", 3, ("'warp'", "numpy")),
    ],
)
def test_wrong_settings_in_the_environment(
    tmp_path: Path, variable: str, value: str, code: int, says: tuple[str, ...]
) -> None:
    done, out, err = separately("chat", "hello", "--device", "cpu", cwd=tmp_path, **{variable: value})
    assert done == code and out == b""
    assert all(part in err for part in says), err


def test_an_adapter_that_is_not_there_lists_those_that_are(program: Program) -> None:
    fails(program, "chat", "hello", "--device", "wgpu:9", code=3, says=("wgpu:9", "wgpu:0 ="))


def test_a_traceback_is_shown_on_request_only(program: Program) -> None:
    assert "Traceback" not in program("chat", "hello", "--model", "nowhere").err
    assert "Traceback" in program("chat", "hello", "--model", "nowhere", "-v").err


def test_a_bug_is_reported_as_one(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr("omni_rt.load", broken)
    done = program("chat", "hello")
    assert done.code == 1 and "KeyError" in done.err and "-v" in done.err and "Traceback" not in done.err
