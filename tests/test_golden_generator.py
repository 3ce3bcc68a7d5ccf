"""The golden data says what its README says, and the generator makes it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omni_rt

TOOLS = Path(__file__).parent.parent / "tools"
COMMITTED = Path(__file__).parent / "goldens" / "omni-seed1"
NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "ln_post.weight")


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file without the library, BF16 as f32."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    kinds = {"F32": np.float32, "I64": np.int64, "I32": np.int32, "U8": np.uint8, "BF16": np.uint16, "F64": np.float64}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[start:end], kinds[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values
    return tensors


@pytest.fixture(scope="module")
def arrays(golden_dir: Path) -> dict[str, np.ndarray]:
    return read_tensors(golden_dir / "golden.safetensors")


@pytest.fixture(scope="module")
def weights(golden_dir: Path) -> dict[str, np.ndarray]:
    return read_tensors(golden_dir / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def index(golden_dir: Path) -> dict[str, Any]:
    return json.loads((golden_dir / "golden.json").read_text(encoding="utf-8"))


def test_greedy_tokens_are_the_best_logits(arrays: dict[str, np.ndarray], index: dict[str, Any]) -> None:
    for name, entry in index["scenarios"].items():
        if "token_ids" in entry:
            logits = arrays[f"thinker.{name}.greedy_logits"]
            assert logits.argmax(-1).tolist() == entry["token_ids"], name
            assert arrays[f"thinker.{name}.greedy_ids"].tolist() == entry["token_ids"], name
            assert len(set(entry["token_ids"])) >= len(entry["token_ids"]) // 2, f"{name} repeats itself"


def test_no_choice_is_a_near_tie(index: dict[str, Any]) -> None:
    margins = index["smallest_margin"]
    assert min(margins["thinker"], margins["talker"], margins["code_predictor"]) >= 5e-4
    assert min(margins["thinker_router"], margins["talker_router"]) >= 1.5e-4


def test_each_frame_feeds_its_codes_back(arrays: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> None:
    for name in ("text", "audio"):
        codes = arrays[f"speech.{name}.codes"]
        trailing, pad = arrays[f"speech.{name}.trailing_text_hidden"], arrays[f"speech.{name}.tts_pad_embed"]
        for frame in range(codes.shape[1]):
            row = weights["talker.model.codec_embedding.weight"][codes[0, frame]].astype(np.float64)
            for book in range(1, 16):
                table = weights[f"talker.code_predictor.model.codec_embedding.{book - 1}.weight"]
                row = row + table[codes[book, frame]]
            row = row + (trailing[frame] if frame < len(trailing) else pad)
            assert np.abs(row - arrays[f"speech.{name}.step_embeds"][frame]).max() < 1e-5, (name, frame)


def test_first_talker_tokens_obey_penalty_and_suppression(arrays: dict[str, np.ndarray], golden_dir: Path) -> None:
    config = json.loads((golden_dir / "checkpoint" / "config.json").read_text(encoding="utf-8"))["talker_config"]
    stop, books = config["codec_eos_token_id"], config["code_predictor_config"]["vocab_size"]
    for name in ("text", "audio"):
        chosen: list[int] = []
        for logits in arrays[f"speech.{name}.step_logits"].astype(np.float64):
            scores = logits.copy()
            for token in set(chosen):
                scores[token] *= 1.05 if scores[token] < 0 else 1 / 1.05
            allowed = [*range(books), stop]
            chosen.append(allowed[int(np.argmax(scores[allowed]))])
        assert chosen == arrays[f"speech.{name}.codec0"].tolist(), name
    assert arrays["speech.text_rp2.codec0"].tolist() != arrays["speech.text.codec0"].tolist()


def test_one_speech_stops_by_itself(index: dict[str, Any]) -> None:
    assert any(entry.get("stopped") for entry in index["scenarios"].values())


def test_waveforms_have_the_length_of_their_frames(arrays: dict[str, np.ndarray]) -> None:
    for name in ("code2wav", "code2wav_long", "speech.audio"):
        assert len(arrays[f"{name}.wav"]) == 1920 * arrays[f"{name}.codes"].shape[1] - 555, name
        assert 0.01 < np.abs(arrays[f"{name}.wav"]).mean() < 0.9, f"{name} is silence or noise at full scale"


def test_media_change_the_reply(index: dict[str, Any]) -> None:
    replies = [tuple(entry["token_ids"]) for entry in index["scenarios"].values() if "token_ids" in entry]
    assert len(set(replies)) == len(replies)


def test_norms_biases_and_scales_are_not_neutral(weights: dict[str, np.ndarray]) -> None:
    """Each would show if it were left out. The smallest hold one value, so how far they go is judged by kind."""
    distances: dict[str, list[np.ndarray]] = {}
    for name, values in weights.items():
        kind = "norm" if name.endswith(NORMS) else name.rsplit(".", 1)[-1]
        if kind != "weight":
            distance = np.abs(values - (kind == "norm")).reshape(-1)
            assert distance.any(), name
            distances.setdefault(kind, []).append(distance)
    assert set(distances) == {"norm", "bias", "alpha", "beta", "gamma", "scale"}
    for kind, parts in distances.items():
        assert np.concatenate(parts).mean() > 0.05, kind


@pytest.mark.oracle
def test_the_generator_makes_the_committed_data_again(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "golden.py"), "make", "--seed", "1", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=550)
    for name in ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "model.safetensors"):
        made, kept = tmp_path / "checkpoint" / name, COMMITTED / "checkpoint" / name
        assert made.read_bytes() == kept.read_bytes(), name
    made, kept = (read_tensors(folder / "golden.safetensors") for folder in (tmp_path, COMMITTED))
    assert made.keys() == kept.keys()
    for name, values in kept.items():
        if np.issubdtype(values.dtype, np.floating):
            scale = max(1.0, float(np.abs(values).max()))
            assert np.abs(made[name] - values).max() <= 1e-5 * scale, name
        else:
            assert np.array_equal(made[name], values), name
    scenarios = [json.loads((folder / "golden.json").read_text(encoding="utf-8")) for folder in (tmp_path, COMMITTED)]
    texts = [{name: entry.get("text") for name, entry in index["scenarios"].items()} for index in scenarios]
    assert texts[0] == texts[1]


@pytest.mark.oracle
def test_an_unknown_scenario_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "golden.py"), "make", "--seed", "1", "--out", str(tmp_path)]
    result = subprocess.run([*command, "--scenarios", "text,opera"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "opera" in result.stderr
    assert not list(tmp_path.iterdir())


TTS = Path(__file__).parent / "goldens" / "tts-seed1"
VOICES = sorted(path.name for path in TTS.iterdir() if path.name.startswith("tiny-"))


@pytest.mark.parametrize("name", VOICES)
def test_voice_scores_follow_from_the_logits(name: str) -> None:
    kept = read_tensors(TTS / name / "golden.safetensors")
    config = json.loads((TTS / name / "config.json").read_text(encoding="utf-8"))["talker_config"]
    index = json.loads((TTS / name / "golden.json").read_text(encoding="utf-8"))
    stop, books = config["codec_eos_token_id"], config["code_predictor_config"]["vocab_size"]
    checked = 0
    for case, entry in index.items():
        if f"{case}.logits" not in kept or entry["generate_kwargs"]["do_sample"]:
            continue
        tokens = kept[f"{case}.code0"][0].tolist()
        for step, logits in enumerate(kept[f"{case}.logits"][0].astype(np.float64)):
            scores = logits.copy()
            for token in set(tokens[:step]):
                scores[token] *= 1.05 if scores[token] < 0 else 1 / 1.05
            allowed = [*range(books), *([stop] if step >= 2 else [])]  # no stop among the first two tokens
            assert allowed[int(np.argmax(scores[allowed]))] == tokens[step], (case, step)
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize("name", VOICES)
def test_voice_prompts_are_projected_text_plus_codec_rows(name: str) -> None:
    kept, weights = (read_tensors(TTS / name / f"{part}.safetensors") for part in ("golden", "model"))
    index = json.loads((TTS / name / "golden.json").read_text(encoding="utf-8"))
    layers = ("linear_fc1.weight", "linear_fc1.bias", "linear_fc2.weight", "linear_fc2.bias")
    projection = {key: weights[f"talker.text_projection.{key}"].astype(np.float64) for key in layers}
    for case, entry in index.items():
        if case in ("variant", "clone"):
            continue
        rows = weights["talker.model.text_embedding.weight"][entry["input_ids"][:3]].astype(np.float64)
        inner = rows @ projection["linear_fc1.weight"].T + projection["linear_fc1.bias"]
        inner /= 1 + np.exp(-inner)
        role = inner @ projection["linear_fc2.weight"].T + projection["linear_fc2.bias"]
        start = len(entry.get("instruct_ids", ())) if "1b7" in name else 0  # the small model drops the instruction
        assert np.abs(kept[f"{case}.prefill_embeds"][0, start : start + 3] - role).max() < 1e-5, case


def test_codec_lengths_are_whole_frames() -> None:
    kept = read_tensors(TTS / "codec_golden.safetensors")
    index = json.loads((TTS / "codec_golden.json").read_text(encoding="utf-8"))
    for clip in "abcde":
        samples = index[f"encode.{clip}"]["samples"]
        assert kept[f"encode.{clip}.codes"].shape == (-(-samples // 1920), 16)
        assert np.array_equal(kept[f"encode.{clip}.codes"], kept[f"encode.{clip}.codes_all"][:16].T)
    assert len(kept["decode.full.wav"]) == 1920 * len(kept["decode.codes"])
    assert np.abs(kept["decode.short.wav"] - kept["decode.full.wav"][: 3 * 1920]).max() < 1e-5
    assert 0.05 < index["decode.rms"] < 0.6


def test_tiny_voice_checkpoints_have_the_tensors_of_the_reference(tmp_path: Path) -> None:
    for name in VOICES:
        size, kind = name.split("-")[1:]
        kind = {"customvoice": "custom_voice", "voicedesign": "voice_design"}.get(kind, kind)
        out = tmp_path / f"{size}-{kind}"
        command = [sys.executable, str(TOOLS / "make_tiny_tts.py"), "--size", size, "--kind", kind, "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
        loaded = TTS / f"tiny-{size}-{kind.replace('_', '')}"  # the reference took every name of this one
        for made, kept in ((out, loaded), (out / "speech_tokenizer", TTS / "speech_tokenizer")):
            shapes = [{key: values.shape for key, values in read_tensors(part / "model.safetensors").items()}
                      for part in (made, kept)]  # fmt: skip
            assert shapes[0] == shapes[1]
        assert (out / "config.json").read_bytes() == (loaded / "config.json").read_bytes()
        assert (out / "model.safetensors").read_bytes() != (loaded / "model.safetensors").read_bytes()


def test_the_random_checkpoint_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = [sys.executable, str(TOOLS / "make_tiny.py"), "--out", str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    with omni_rt.load(tmp_path / "one", device="cpu") as model:
        assert isinstance(model, omni_rt.OmniOrchestrator)
        assert model.chat([{"role": "user", "content": "hello"}], max_new_tokens=3).token_ids
