"""The whole model: prompts, tokens, codes and waveforms of every scenario equal the reference, on each device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omni_rt
from omni_rt import AudioChunk, Done, InputError, OmniConfig, Prompt, Sampling, TextDelta, UnsupportedError, Video
from omni_rt.model_facts import facts
from omni_rt.models.guard import Guard
from omni_rt.models.long_text import cut
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.results import Speech
from omni_rt.sampling import SUPPRESSED
from tests.reference import Reference, assert_close

SCENARIOS = ["text", "audio", "turns", "empty", "image", "video", "mixed", "av"]
SPOKEN = ["text", "audio", "turns", "image", "mixed", "av"]
FRAMES = 30
"""How long the model may speak: random weights seldom stop, and this fills three chunks of samples."""


@pytest.fixture(scope="module", params=["cpu", "wgpu"])
def omni(
    request: pytest.FixtureRequest, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OmniOrchestrator]:
    directory = reference.speaking_at_most(FRAMES, tmp_path_factory.mktemp("omni") / "checkpoint")
    with omni_rt.load(directory, device=request.param, strict=True, context=512) as model:
        # The film of the reference data is small, and was not enlarged to the least size of a released frame.
        model.processor.video_settings = replace(model.processor.video_settings, min_pixels=1)
        yield model


def messages_of(reference: Reference, scenario: str) -> list[dict[str, Any]]:
    """Return a scenario's messages with its media put in from the reference's arrays."""
    messages = []
    for message in reference.index["scenarios"][scenario]["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = [_part(reference, scenario, part) for part in content]
        messages.append({"role": message["role"], "content": content})
    return messages


def _part(reference: Reference, scenario: str, part: dict[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    if kind == "audio":
        return {"type": "audio", "audio": (reference[_clip(scenario)], 16000)}
    if kind == "image":
        return {"type": "image", "image": reference["image.rgb"]}
    if kind == "video":
        sound = reference[_clip(scenario)] if scenario == "av" else None
        return {"type": "video", "video": Video(reference["video.rgb"], reference.index["video"]["fps"], sound)}
    return part


def _clip(scenario: str) -> str:
    """Return the array of a scenario's sound: beside pictures the reference data has the short one."""
    return "audio_short.wave" if scenario in ("mixed", "av") else "audio.wave"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_messages_make_the_prompt_of_the_reference(omni: OmniOrchestrator, reference: Reference, scenario: str) -> None:
    prompt = omni.prompt(messages_of(reference, scenario))
    assert prompt.token_ids == reference[f"thinker.{scenario}.input_ids"].reshape(-1).tolist()
    positions, delta = omni.thinker.positions(prompt)
    np.testing.assert_array_equal(positions, reference[f"thinker.{scenario}.position_ids"].reshape(3, -1))
    assert delta == pytest.approx(float(reference[f"thinker.{scenario}.rope_delta"].reshape(-1)[0]))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_reply_has_the_tokens_of_the_reference(omni: OmniOrchestrator, reference: Reference, scenario: str) -> None:
    expected = reference[f"thinker.{scenario}.greedy_ids"].tolist()
    reply = omni.chat(messages_of(reference, scenario), max_new_tokens=len(expected), sampling=Sampling())
    stopped = expected[-1] == reference.config.tokens.im_end
    assert reply.token_ids == (expected[:-1] if stopped else expected)
    assert reply.finish_reason == ("stop" if stopped else "length")
    assert reply.text == omni.processor.tokenizer.decode(reply.token_ids)


@pytest.mark.parametrize("scenario", SPOKEN)
def test_speech_has_the_codes_and_samples_of_the_reference(
    omni: OmniOrchestrator, reference: Reference, scenario: str
) -> None:
    codes = reference[f"speech.{scenario}.codes"]
    prompt = omni.prompt(messages_of(reference, scenario))
    limit = len(reference[f"thinker.{scenario}.greedy_ids"])
    reply_ids = omni.thinker.generate(prompt, limit, Sampling())
    assert omni.talker is not None and omni.code2wav is not None
    frames = codes.shape[1]
    greedy = Sampling(repetition_penalty=1.05)
    spoken = omni.talker.generate(prompt, reply_ids, max_frames=frames, sampling=greedy)
    np.testing.assert_array_equal(spoken.codes, codes)
    if f"speech.{scenario}.wav" in reference:
        waveform = omni.code2wav(spoken.codes).waveform
        assert_close(waveform, reference[f"speech.{scenario}.wav"].reshape(-1), 1e-4)


def test_a_stream_yields_what_chat_returns_and_sound_before_the_end(
    omni: OmniOrchestrator, reference: Reference
) -> None:
    messages = messages_of(reference, "audio")
    options: dict[str, Any] = {"speech": True, "max_new_tokens": 24, "sampling": Sampling(), "seed": 3}
    reply = omni.chat(messages, **options)
    events = list(omni.stream(messages, **options))
    assert isinstance(events[-1], Done)
    streamed = events[-1].reply
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == reply.text == streamed.text
    chunks = [event.samples for event in events if isinstance(event, AudioChunk)]
    assert reply.audio is not None and streamed.audio is not None and reply.codes is not None
    np.testing.assert_array_equal(np.concatenate(chunks), reply.audio)
    np.testing.assert_array_equal(streamed.audio, reply.audio)
    assert len(reply.audio) == reference.config.code2wav.samples(reply.codes.shape[1])  # type: ignore[union-attr]


def test_speech_while_the_text_is_written_is_that_of_the_whole_text(
    omni: OmniOrchestrator, reference: Reference
) -> None:
    """Past its last words too, where the Talker reads the end of the text and then padding."""
    messages = messages_of(reference, "turns")
    prompt = omni.prompt(messages)
    reply_ids = omni.thinker.generate(prompt, len(reference["thinker.turns.greedy_ids"]), Sampling())
    assert omni.talker is not None
    whole = omni.talker.generate(prompt, reply_ids, sampling=Sampling(repetition_penalty=1.05)).codes
    reply = omni.chat(messages, speech=True, max_new_tokens=len(reply_ids), sampling=Sampling())
    np.testing.assert_array_equal(reply.codes, whole)


def test_a_seed_repeats_a_sampled_spoken_reply(omni: OmniOrchestrator, reference: Reference) -> None:
    messages = messages_of(reference, "text")
    sampling = Sampling(temperature=1.2, top_k=30, top_p=0.9)
    first = omni.chat(messages, speech=True, max_new_tokens=8, sampling=sampling, seed=11)
    omni.prepare()
    again = omni.chat(messages, speech=True, max_new_tokens=8, sampling=sampling, seed=11)
    assert first.token_ids == again.token_ids
    np.testing.assert_array_equal(first.codes, again.codes)
    np.testing.assert_array_equal(first.audio, again.audio)


def test_closing_a_stream_cancels_and_the_next_call_is_unharmed(omni: OmniOrchestrator, reference: Reference) -> None:
    messages = messages_of(reference, "text")
    expected = omni.chat(messages, max_new_tokens=6, sampling=Sampling()).token_ids
    stream = omni.stream(messages, speech=True, max_new_tokens=12, sampling=Sampling())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert omni.chat(messages, max_new_tokens=6, sampling=Sampling()).token_ids == expected


@pytest.fixture
def endless(omni: OmniOrchestrator, monkeypatch: pytest.MonkeyPatch) -> OmniOrchestrator:
    """The model, kept from ending its speech by itself."""
    talker = omni._components.talker
    assert talker is not None
    suppressed = talker._suppressed.copy()
    suppressed[talker.stop_id] = SUPPRESSED
    monkeypatch.setattr(talker, "_suppressed", suppressed)
    return omni


def test_speech_that_never_ends_is_cut_and_flagged(endless: OmniOrchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(self: Guard, tokens: int, rate: float) -> None:
        self.expected_frames, self.most_frames = 6, 12

    monkeypatch.setattr(Guard, "__init__", hasty)
    speech = done_of(endless.read("hello", seed=0))
    frames = speech.codes.shape[1]  # what was heard before it was noticed is kept
    assert speech.finish_reason == "runaway" and 6 <= frames < 12 and endless.code2wav is not None
    assert len(speech.audio) == endless.code2wav.config.samples(frames)


def test_a_long_text_is_read_piece_by_piece_without_a_seam(endless: OmniOrchestrator) -> None:
    """It may be longer than the context; each piece is what it would be alone, and the waveform goes on."""
    text = "A sentence, with clauses; and more. " * 20
    pieces = cut(text)
    assert len(pieces) == 3 and len(endless.processor.tokenizer.encode(text)) > endless._components.thinker.cache.rows
    alone = [done_of(endless.read(piece, max_frames=3, sampling=Sampling(), seed=1)) for piece in pieces]
    whole = done_of(endless.read(text, max_frames=3, sampling=Sampling(), seed=1))
    np.testing.assert_array_equal(whole.codes, np.concatenate([speech.codes for speech in alone], axis=1))
    assert endless.code2wav is not None and whole.finish_reason == "length"
    assert_close(endless.code2wav(whole.codes).waveform, whole.audio, 1e-5)


def done_of(events: Iterator[AudioChunk | Done]) -> Speech:
    """Return the speech that a reading ends with."""
    *_, done = events
    assert isinstance(done, Done) and isinstance(done.reply, Speech)
    return done.reply


@pytest.mark.parametrize("frames", [2, 3])
def test_the_last_frame_is_heard_alone_or_among_others(endless: OmniOrchestrator, frames: int) -> None:
    """Pieces have one frame, then two: of two frames the second is left for the end, of three none."""
    speech = done_of(endless.read("hello", max_frames=frames, sampling=Sampling(), seed=0))
    assert speech.codes.shape[1] == frames and endless.code2wav is not None
    assert len(speech.audio) == endless.code2wav.config.samples(frames)


def test_an_unknown_voice_lists_the_known_ones(omni: OmniOrchestrator, reference: Reference) -> None:
    with pytest.raises(InputError, match="ethan"):
        omni.chat(messages_of(reference, "text"), speech=True, voice="nobody")


def test_placeholders_without_media_are_refused(omni: OmniOrchestrator, reference: Reference) -> None:
    tokens = reference.config.tokens
    with pytest.raises(InputError, match="placeholder"):
        omni.generate(Prompt([tokens.im_start, tokens.audio_pad, tokens.im_end]))


@pytest.mark.parametrize("component", [component.name for component in fields(OmniConfig)])
def test_a_component_on_the_other_device_gives_the_same_reply(
    reference: Reference, tmp_path: Path, component: str
) -> None:
    messages = messages_of(reference, "mixed")
    # Beyond what the reference said some choice may be a near tie, and fall otherwise on another device.
    tokens = len(reference["thinker.mixed.greedy_ids"])
    frames = reference["speech.mixed.codes"].shape[1]
    directory = reference.speaking_at_most(frames, tmp_path / "checkpoint")
    options: dict[str, Any] = {"speech": True, "max_new_tokens": tokens, "sampling": Sampling(), "seed": 1}
    with omni_rt.load(directory, device="cpu", context=512) as model:
        expected = model.chat(messages, **options)
    placement = OmniConfig(**{component: "wgpu"})
    with omni_rt.load(directory, device="cpu", placement=placement, strict=True, context=512) as model:
        moved = model.chat(messages, **options)
    assert expected.codes is not None and expected.codes.shape[1] == frames
    assert moved.token_ids == expected.token_ids
    np.testing.assert_array_equal(moved.codes, expected.codes)
    assert moved.audio is not None and expected.audio is not None
    assert_close(moved.audio, expected.audio, 1e-4)


def test_a_model_told_not_to_speak_answers_in_text_and_leaves_its_speech_unread(
    tmp_path: Path, reference: Reference
) -> None:
    model = Path(shutil.copytree(reference.checkpoint_directory, tmp_path / "silent"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"enable_audio_output": False}))
    assert [component.name for component in facts(model).components] == ["audio_encoder", "vision_encoder", "thinker"]
    with omni_rt.load(model, device="cpu", context=512) as omni:
        reply = omni.chat(messages_of(reference, "text"), max_new_tokens=3, sampling=Sampling())
        expected = reference["thinker.text.greedy_ids"][:3].tolist()
        assert reply.token_ids == [token for token in expected if token != reference.config.tokens.im_end]
        assert reply.audio is None and omni.voices() == []
        with pytest.raises(UnsupportedError, match="has no talker"):
            omni.chat([{"role": "user", "content": "hello"}], speech=True)
