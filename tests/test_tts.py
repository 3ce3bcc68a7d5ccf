"""Qwen3-TTS agrees with the reference, stage by stage and whole, on both devices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import omni_rt
from omni_rt import AudioChunk, Done, InputError, ModelFormatError, Sampling, Speech, UnsupportedError, Voice
from omni_rt.models.guard import Guard
from omni_rt.models.qwen3_tts.layout import Request
from omni_rt.models.qwen3_tts.session import TextToSpeech
from omni_rt.models.qwen3_tts.speaker_encoder import speaker_mel
from omni_rt.models.qwen3_tts.talker import MIN_FRAMES
from omni_rt.models.qwen3_tts.text import cut
from omni_rt.models.talker import TalkerSession
from tests.reference import Reference, assert_close

ROOT = Reference.tts_directory
VARIANTS = ["tiny-1b7-customvoice", "tiny-0b6-customvoice", "tiny-1b7-voicedesign", "tiny-0b6-base"]
GREEDY = Sampling(repetition_penalty=1.05)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The voice models, each with the codec in its place as a release has it."""
    root = tmp_path_factory.mktemp("tts")
    for variant in VARIANTS:
        shutil.copytree(ROOT / variant, root / variant)
        shutil.copytree(ROOT / "speech_tokenizer", root / variant / "speech_tokenizer")
    return root


@pytest.fixture(scope="module", params=["cpu", "wgpu"])
def models(request: pytest.FixtureRequest, released: Path) -> Iterator[dict[str, TextToSpeech]]:
    """Every variant on one device."""
    loaded = {name: omni_rt.load(released / name, device=request.param, strict=True, context=512) for name in VARIANTS}
    yield loaded  # type: ignore[misc]
    for model in loaded.values():
        model.close()


@pytest.fixture(scope="module")
def custom(models: dict[str, TextToSpeech]) -> TextToSpeech:
    return models["tiny-1b7-customvoice"]


@pytest.fixture(scope="module")
def base(models: dict[str, TextToSpeech]) -> TextToSpeech:
    return models["tiny-0b6-base"]


@pytest.fixture(scope="session")
def codec_golden() -> dict[str, np.ndarray]:
    return load_file(ROOT / "codec_golden.safetensors")


def golden(variant: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    index = json.loads((ROOT / variant / "golden.json").read_text(encoding="utf-8"))
    return index, load_file(ROOT / variant / "golden.safetensors")


def cases() -> list[tuple[str, str]]:
    """Every greedy case of one text, by variant and name."""
    found = []
    for variant in VARIANTS:
        index, arrays = golden(variant)
        for name, case in index.items():
            if f"{name}.prefill_embeds" in arrays and not case["generate_kwargs"]["do_sample"]:
                found.append((variant, name))
    return found


def request_of(model: TextToSpeech, case: dict[str, Any], arrays: dict[str, np.ndarray]) -> Request:
    """Return the request of a case, made by the model's own rules from the case's arguments."""
    clone = case["call"] == "generate_voice_clone"
    streaming = not case.get("non_streaming_mode", not clone)
    voice: Any = case.get("speaker")
    if clone:
        reference = case["ref_audio"]
        embedding = arrays[f"{reference}.ref_spk_embedding"].reshape(-1)
        in_context = "ref_text" in case and not case.get("x_vector_only_mode")
        codes = arrays[f"{reference}.ref_code"].T if in_context else None
        voice = Voice(embedding, codes, case.get("ref_text") if in_context else None)
    instruct = case.get("instruct")
    if model.config.size == "0b6":
        instruct = None  # the reference drops it silently; here it is an error
    manner = model._manner(voice, case.get("language") or "auto", instruct, streaming)
    ids = model._framer.target(case["text"])
    assert ids == case["input_ids"]
    if instruct:
        assert list(manner.instruct_ids) == case["instruct_ids"]
    request = Request(ids, manner.instruct_ids, manner.language, streaming=streaming)
    if isinstance(voice, str):
        return Request(
            ids, manner.instruct_ids, manner.language, model.config.talker.speakers[voice.lower()], streaming=streaming
        )
    if isinstance(voice, Voice):
        said = model._framer.reference(voice.text) if voice.text else ()
        return Request(ids, (), manner.language, None, voice.embedding, said, voice.codes, streaming=streaming)
    return request


@pytest.mark.parametrize(("variant", "name"), cases())
def test_prompt_and_codes_equal_the_reference(models: dict[str, TextToSpeech], variant: str, name: str) -> None:
    index, arrays = golden(variant)
    model, case = models[variant], index[name]
    talker = model._components.talker
    prompt = talker.prompt(request_of(model, case, arrays))
    assert_close(prompt.inputs, arrays[f"{name}.prefill_embeds"][0], 1e-4)
    assert_close(prompt.trailing, arrays[f"{name}.trailing_text_hidden"][0], 1e-4)
    assert_close(prompt.pad, arrays[f"{name}.tts_pad_embed"].reshape(-1), 1e-4)
    session = TalkerSession(
        talker,
        prompt.inputs,
        np.arange(len(prompt.inputs), dtype=np.float32)[None],
        pad=prompt.pad,
        sampling=GREEDY,
        predictor_sampling=Sampling(),
        min_frames=MIN_FRAMES,
        max_frames=case["max_new_tokens"] - 1,
    )
    session.push_text(prompt.trailing)
    session.finish_text()
    frames = []
    while (codes := session.step()) is not None:
        if f"{name}.logits" in arrays:
            assert session.logits is not None
            assert_close(session.logits.numpy()[0], arrays[f"{name}.logits"][0, len(frames)], 1e-4)
        frames.append(codes)
    np.testing.assert_array_equal(np.array(frames), arrays[f"{name}.codes"][0])
    limit = case["max_new_tokens"] - 1
    assert session.finish_reason == ("length" if len(frames) == limit else "stop")


@pytest.mark.parametrize("clip", "abcde")
def test_encoded_codes_equal_the_reference(base: TextToSpeech, codec_golden: dict[str, np.ndarray], clip: str) -> None:
    index = json.loads((ROOT / "codec_golden.json").read_text(encoding="utf-8"))
    samples = codec_golden["audio"][: index[f"encode.{clip}"]["samples"]]
    np.testing.assert_array_equal(base.codec.encode(samples).T, codec_golden[f"encode.{clip}.codes"])


def test_a_clip_in_pieces_encodes_as_a_short_one_does(base: TextToSpeech, monkeypatch: pytest.MonkeyPatch) -> None:
    from omni_rt.models.qwen3_tts import codec_encoder

    samples = (0.1 * np.random.default_rng(3).normal(size=20_001)).astype(np.float32)
    whole = base.codec.encode(samples)
    monkeypatch.setattr(codec_encoder, "PIECE", 3)
    np.testing.assert_array_equal(base.codec.encode(samples), whole)


def test_decoded_samples_equal_the_reference(base: TextToSpeech, codec_golden: dict[str, np.ndarray]) -> None:
    codes = codec_golden["decode.codes"].T
    assert_close(base.codec.decode(codes), codec_golden["decode.full.wav"], 3e-4)
    assert len(base.codec.decode(codes[:, :3])) == 3 * 1920


@pytest.mark.parametrize("step", [1, 2, 3, 7, 300])
def test_a_stream_equals_the_whole(base: TextToSpeech, step: int) -> None:
    codes = np.random.default_rng(step).integers(0, 32, (16, 17))
    whole = base.codec.decode(codes)
    stream = base.codec.stream()
    pieces = [stream.push(codes[:, i : i + step]) for i in range(0, codes.shape[1], step)]
    assert [len(piece) for piece in pieces[:-1]] == [step * 1920] * (len(pieces) - 1)
    assert_close(np.concatenate([*pieces, stream.finish()]), whole, 1e-5)


@pytest.mark.parametrize("clip", ["a", "b"])
def test_speaker_mel_and_embedding_equal_the_reference(base: TextToSpeech, clip: str) -> None:
    _, arrays = golden("tiny-0b6-base")
    samples = arrays[f"speaker.{clip}.audio"].reshape(-1)
    mel = arrays[f"speaker.{clip}.mel"].reshape(128, -1).T
    assert_close(speaker_mel(samples, 128, 24000), mel, 1e-4)
    assert_close(base.speaker_embedding(samples), arrays[f"speaker.{clip}.embedding"].reshape(-1), 1e-4)


def test_a_stream_yields_what_generate_returns(custom: TextToSpeech) -> None:
    speech = custom.generate("hello world", voice="Vivian", max_frames=20, sampling=GREEDY, seed=1)
    events = list(custom.stream("hello world", voice="vivian", max_frames=20, sampling=GREEDY, seed=1))
    assert isinstance(events[-1], Done) and isinstance(events[-1].reply, Speech)
    chunks = [event.samples for event in events if isinstance(event, AudioChunk)]
    np.testing.assert_array_equal(np.concatenate(chunks), speech.audio)
    np.testing.assert_array_equal(events[-1].reply.codes, speech.codes)
    assert_close(custom.codec.decode(speech.codes), speech.audio, 1e-5)
    assert len(speech.audio) == 1920 * speech.codes.shape[1]


def test_a_seed_repeats_a_reading(custom: TextToSpeech) -> None:
    first = custom.generate("a voice", max_frames=12, seed=5)
    again = custom.generate("a voice", max_frames=12, seed=5)
    np.testing.assert_array_equal(first.audio, again.audio)
    assert any(
        custom.generate("a voice", max_frames=12, seed=s).codes.tobytes() != first.codes.tobytes() for s in (6, 7)
    )


def test_a_long_text_is_read_piece_by_piece_without_a_seam(custom: TextToSpeech) -> None:
    text = "One sentence here. " * 20
    speech = custom.generate(text, max_frames=3, sampling=GREEDY, seed=1)
    pieces = cut(text)
    assert len(pieces) > 1 and speech.codes.shape[1] > 3
    assert_close(custom.codec.decode(speech.codes), speech.audio, 1e-5)


def test_a_cloned_voice_is_kept_and_used_again(base: TextToSpeech, tmp_path: Path) -> None:
    samples = (0.1 * np.random.default_rng(0).normal(size=48_000)).astype(np.float32)
    voice = base.voice((samples, 24_000), "the voice")
    assert voice.codes is not None and voice.codes.shape == (16, 25) and "3 s" in voice.advice[0]
    voice.save(tmp_path / "me.safetensors")
    kept = Voice.load(tmp_path / "me.safetensors")
    options: dict[str, Any] = {"max_frames": 8, "sampling": GREEDY, "seed": 2}
    first = base.generate("hello", voice=voice, **options)
    np.testing.assert_array_equal(base.generate("hello", voice=kept, **options).audio, first.audio)
    # What is heard is the new speech only, as the codec goes on from the reference.
    whole = base.codec.decode(np.concatenate([voice.codes, first.codes], axis=1))
    assert_close(first.audio, whole[voice.codes.shape[1] * 1920 :], 1e-5)
    by_embedding = base.generate("hello", voice=base.voice((samples, 24_000)), **options)
    assert by_embedding.codes.tobytes() != first.codes.tobytes()
    (tmp_path / "no.safetensors").write_bytes((ROOT / "codec_golden.safetensors").read_bytes())
    with pytest.raises(ModelFormatError, match="no voice"):
        Voice.load(tmp_path / "no.safetensors")


def test_a_variant_says_what_it_cannot_do(models: dict[str, TextToSpeech]) -> None:
    custom, small, design, base = (models[name] for name in VARIANTS)
    voice = Voice(np.zeros(base.config.talker.width, np.float32))
    for model, options, words in (
        (base, {}, "clone one"),
        (base, {"voice": "vivian"}, "no speakers"),
        (base, {"voice": voice, "instruct": "slowly"}, "no instruction"),
        (small, {"instruct": "slowly"}, "no instruction"),
        (custom, {"voice": voice}, "cannot clone"),
        (design, {"voice": "vivian"}, "describe one"),
    ):
        with pytest.raises(UnsupportedError, match=words):
            model.generate("hello", **options)
    for clone in (custom, design):
        with pytest.raises(UnsupportedError, match="Base"):
            clone.voice((np.ones(48_000, np.float32), 24_000))
    with pytest.raises(InputError, match="belongs to the size"):
        base.generate("hello", voice=Voice(np.zeros(7, np.float32)))


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "empty"),
        (" \n", {}, "empty"),
        ("x" * 1_000_001, {}, "1000001 characters"),
        ("hi", {"voice": "nobody"}, "vivian"),
        ("hi", {"language": "klingon"}, "english"),
        ("hi", {"language": "sichuan_dialect"}, "english"),
        ("hi", {"max_frames": 0}, "max_frames"),
    ],
)
def test_what_cannot_be_spoken_is_refused(custom: TextToSpeech, text: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        custom.generate(text, **options)


@pytest.mark.parametrize("text", ["🎉🎉", "...", "\u0301", "1", "你好，世界", "<|im_end|> ignored"])
def test_odd_texts_are_spoken(custom: TextToSpeech, text: str) -> None:
    speech = custom.generate(text, max_frames=3, seed=0)
    assert 2 <= speech.codes.shape[1] <= 3 and np.isfinite(speech.audio).all()


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(2400, np.float32), "0.10 s"),
        (np.zeros(48_000, np.float32), "silent"),
        (np.ones(61 * 24_000, np.float32), "61.00 s"),
        (np.full(48_000, np.nan, np.float32), "finite"),
    ],
)
def test_a_reference_that_does_not_serve_is_refused(base: TextToSpeech, samples: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        base.voice((samples, 24_000))


def test_texts_are_cut_at_sentence_ends() -> None:
    assert cut("One. Two! Three? Four", 12) == ["One. Two!", "Three? Four"]
    assert cut("你好。再见。", 3) == ["你好。", "再见。"]
    assert cut("a, b, c d e", 5) == ["a, b,", "c d e"]
    assert cut("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    text = "A sentence, with clauses; and more. " * 30
    assert "".join(cut(text)).replace(" ", "") == text.replace(" ", "")
    assert all(len(piece) <= 300 for piece in cut(text))


def test_the_guard_waits_for_the_expected_end_and_then_sees_silence_circles_and_the_cap() -> None:
    guard = Guard(tokens=2)
    rng = np.random.default_rng(0)
    lively = [rng.integers(0, 2048, 16) for _ in range(guard.most_frames)]
    loud, quiet = rng.normal(size=48_000), np.zeros(48_000)
    still = [np.zeros(16, int)] * guard.expected_frames
    assert not guard.runs_away(still, quiet, 24_000)
    assert not guard.runs_away(lively[: guard.expected_frames + 1], loud, 24_000)
    assert guard.runs_away(lively[: guard.expected_frames + 1], quiet, 24_000)
    circle = lively[: guard.expected_frames - 20] + lively[:6] * 4
    assert guard.runs_away(circle, loud, 24_000)
    assert guard.runs_away(lively, loud, 24_000)


def test_speech_that_never_ends_is_tried_again_and_then_cut(
    custom: TextToSpeech, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    original = custom.stream

    def stream(text: str, **options: Any) -> Any:
        seeds.append(options["seed"])
        return original(text, **options)

    monkeypatch.setattr(custom, "stream", stream)
    monkeypatch.setattr(Guard, "runs_away", lambda self, codes, samples, rate: len(codes) >= 5)
    speech = custom.generate("hello world", max_frames=50, sampling=Sampling(temperature=1.5), seed=40)
    if speech.codes.shape[1] >= 5:
        assert speech.finish_reason == "runaway" and seeds == [40, 41] and speech.seed == 41
    assert speech.codes.shape[1] <= 5
