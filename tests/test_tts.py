"""Qwen3-TTS as people use it, on both devices: voices, streams, long texts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_rt import AudioChunk, Done, InputError, ModelFormatError, Sampling, Speech, UnsupportedError, Voice
from omni_rt.devices.device import Device
from omni_rt.model_files import TtsFiles, open_model
from omni_rt.models.code_stream import StreamState
from omni_rt.models.guard import Guard
from omni_rt.models.long_text import cut
from omni_rt.models.qwen3_tts.codec_decoder import CodecDecoder
from omni_rt.models.qwen3_tts.session import TextToSpeech
from tests.reference import assert_close
from tests.voices import GREEDY, ROOT

CUSTOM, SMALL, DESIGN, BASE = "tiny-1b7-customvoice", "tiny-0b6-customvoice", "tiny-1b7-voicedesign", "tiny-0b6-base"


@pytest.fixture(scope="module")
def custom(models: dict[str, TextToSpeech]) -> TextToSpeech:
    return models[CUSTOM]


@pytest.fixture(scope="module")
def base(models: dict[str, TextToSpeech]) -> TextToSpeech:
    return models[BASE]


def test_a_clip_in_pieces_encodes_as_a_short_one_does(base: TextToSpeech, monkeypatch: pytest.MonkeyPatch) -> None:
    from omni_rt.models.qwen3_tts import codec_encoder

    samples = (0.1 * np.random.default_rng(3).normal(size=20_001)).astype(np.float32)
    whole = base.codec.encode(samples)
    monkeypatch.setattr(codec_encoder, "PIECE", 3)
    np.testing.assert_array_equal(base.codec.encode(samples), whole)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 300])
def test_a_stream_equals_the_whole(base: TextToSpeech, step: int) -> None:
    codes = np.random.default_rng(step).integers(0, 32, (16, 17))
    whole = base.codec.decode(codes)
    stream = base.codec.stream()
    pieces = [stream.push(codes[:, i : i + step]) for i in range(0, codes.shape[1], step)]
    assert [len(piece) for piece in pieces[:-1]] == [step * 1920] * (len(pieces) - 1)
    assert_close(np.concatenate([*pieces, stream.finish()]), whole, 1e-5)


def test_pieces_of_300_frames_leave_no_seam(released: Path, cpu: Device) -> None:
    """The whole is decoded in one piece here, which takes a decoder with more room than usual."""
    files = open_model(released / BASE)
    assert isinstance(files, TtsFiles)
    config, frames = files.codec_config.decoder, 310
    usual, roomy = (
        CodecDecoder(files.codec.weights("codec_decoder", cpu, lambda *read: None), config, chunk=chunk)
        for chunk in (None, frames)
    )
    codes = np.random.default_rng(2).integers(0, config.codebook_size, (config.codebooks, frames))
    stream = usual.stream()
    pieces = [stream.push(codes[:, :300]), stream.push(codes[:, 300:]), stream.finish()]
    assert usual.chunk < frames == roomy.chunk
    assert np.abs(np.concatenate(pieces) - roomy(codes)).max() <= 1e-5


def test_a_stream_yields_what_generate_returns(custom: TextToSpeech) -> None:
    speech = custom.generate("hello world", voice="Vivian", max_frames=20, sampling=GREEDY, seed=1)
    events = list(custom.stream("hello world", voice="vivian", max_frames=20, sampling=GREEDY, seed=1))
    assert isinstance(events[-1], Done) and isinstance(events[-1].reply, Speech)
    chunks = [event.samples for event in events if isinstance(event, AudioChunk)]
    np.testing.assert_array_equal(np.concatenate(chunks), speech.audio)
    np.testing.assert_array_equal(events[-1].reply.codes, speech.codes)
    assert_close(custom.codec.decode(speech.codes), speech.audio, 1e-5)
    assert len(speech.audio) == 1920 * speech.codes.shape[1]


def test_preparing_changes_nothing_that_is_spoken(custom: TextToSpeech, base: TextToSpeech) -> None:
    options: dict[str, Any] = {"max_frames": 4, "seed": 3}
    before = custom.generate("hello world", **options)
    custom.prepare()
    base.prepare()
    speech = custom.generate("hello world", **options)
    np.testing.assert_array_equal(speech.audio, before.audio)
    times = speech.timings
    assert times.prompt_ms is not None and times.first_frame_ms is not None and times.first_audio_ms is not None
    assert 0 < times.prompt_ms < times.first_frame_ms < times.first_audio_ms


def test_streams_that_are_held_on_to_hand_on_what_was_recorded_for_them(custom: TextToSpeech) -> None:
    """From the last event on: what a stream keeps on the device is made once, not for each that somebody holds."""
    held = [custom.stream("hello", max_frames=2, seed=seed) for seed in range(2)]
    states: list[StreamState] = []
    for events in held:
        while not isinstance(next(events), Done):
            pass
        states.append(custom.codec.decoder._idle[-1])
    assert states[0] is states[1]


def test_closing_a_stream_cancels_and_the_next_call_is_unharmed(custom: TextToSpeech) -> None:
    options: dict[str, Any] = {"max_frames": 12, "sampling": GREEDY, "seed": 1}
    expected = custom.generate("hello world", **options)
    stream = custom.stream("One sentence here. " * 40, **options)
    assert isinstance(next(stream), AudioChunk)
    stream.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(custom.generate("hello world", **options).audio, expected.audio)
    abandoned = custom.stream("One sentence here. " * 40, **options)
    next(abandoned)
    np.testing.assert_array_equal(custom.generate("hello world", **options).audio, expected.audio)
    with pytest.raises(InputError, match="one reply at a time"):
        list(abandoned)


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
    assert list(Voice.saved(tmp_path)) == ["me"]
    with pytest.raises(ModelFormatError, match="no voice"):
        Voice.load(tmp_path / "no.safetensors")


def test_a_variant_says_what_it_cannot_do(models: dict[str, TextToSpeech]) -> None:
    custom, small, design, base = (models[name] for name in (CUSTOM, SMALL, DESIGN, BASE))
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
    for clone, can in ((custom, "speaks as .*vivian"), (design, "takes a description")):
        with pytest.raises(UnsupportedError, match=f"cannot clone: use a Base checkpoint; this one {can}"):
            clone.voice((np.ones(48_000, np.float32), 24_000))
    with pytest.raises(InputError, match="belongs to the size"):
        base.generate("hello", voice=Voice(np.zeros(7, np.float32)))
    with pytest.raises(InputError, match="NaN or infinite: clone it again"):
        base.generate("hello", voice=Voice(np.full_like(voice.embedding, np.nan)))


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
        ("hi", {"voice": 3}, "the voice is int, expected a string or a Voice"),
        ("hi", {"language": 3}, "the language is int, expected a string"),
        ("hi", {"instruct": 3}, "instruct is int, expected a string"),
        ("hi", {"sampling": "greedy"}, "sampling is str, expected a Sampling"),
        ("hi", {"instruct": "very " * 3000}, r"takes \d+ positions, the context has 512: shorten the text, the instr"),
    ],
)
def test_what_cannot_be_spoken_is_refused(custom: TextToSpeech, text: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        custom.generate(text, **options)


@pytest.mark.parametrize(
    ("voice", "language", "spoken"),
    [
        ("eric", "auto", "sichuan_dialect"),
        ("Dylan", "Chinese", "beijing_dialect"),
        ("eric", "english", "english"),
        ("vivian", "chinese", "chinese"),
        ("vivian", "auto", None),
    ],
)
def test_a_speaker_of_a_dialect_speaks_it_unless_another_language_is_asked_for(
    custom: TextToSpeech, voice: str, language: str, spoken: str | None
) -> None:
    languages = custom.config.talker.languages
    assert custom._manner(voice, language, None, None).language == (languages[spoken] if spoken else None)
    assert spoken is None or spoken.endswith("dialect") != (spoken in custom.languages())


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


def test_last_words_past_the_expected_end_are_spoken(custom: TextToSpeech, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own stop token ends lively speech, however early the guard begins to look."""
    options: dict[str, Any] = {"max_frames": 40, "sampling": Sampling(temperature=1.5)}
    readings = (custom.generate("hello world", **options, seed=seed) for seed in range(40, 80))
    expected = next(speech for speech in readings if speech.finish_reason == "stop" and speech.codes.shape[1] > 5)

    def hasty(self: Guard, tokens: int) -> None:
        self.expected_frames, self.most_frames = 2, 1000

    monkeypatch.setattr(Guard, "__init__", hasty)
    speech = custom.generate("hello world", **options, seed=expected.seed)
    np.testing.assert_array_equal(speech.codes, expected.codes)
    assert speech.finish_reason == "stop"


def test_a_piece_that_runs_away_is_cut_and_the_others_are_spoken(
    custom: TextToSpeech, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    original = Guard.__init__

    def count(self: Guard, tokens: int) -> None:
        original(self, tokens)
        begun.append(self)
        self.expected_frames = 3

    monkeypatch.setattr(Guard, "__init__", count)
    monkeypatch.setattr(Guard, "runs_away", lambda self, codes, *rest: self is begun[0] and len(codes) >= 5)
    text = "One sentence here. " * 20
    pieces = cut(text)
    *_, last = custom.stream(text, max_frames=6, sampling=GREEDY, seed=1)
    assert isinstance(last, Done) and last.reply.finish_reason == "runaway"
    assert len(begun) == len(pieces) == 2
    # Of the first piece nothing is kept beyond what was delivered; the second is whole.
    alone = custom.generate(pieces[1], max_frames=6, sampling=GREEDY, seed=1).codes
    assert last.reply.codes is not None
    np.testing.assert_array_equal(last.reply.codes[:, -alone.shape[1] :], alone)
    assert last.reply.codes.shape[1] < 5 + alone.shape[1]


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
    assert speech.finish_reason == "runaway" and seeds == [40, 41] and speech.seed == 41
    assert speech.codes.shape[1] <= 5
