"""The names that programs rely on are there, with the parameters that they are called with."""

from __future__ import annotations

import inspect
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import omni_rt
from omni_rt import TextToSpeech
from omni_rt.results import Timings

NAMES = [
    "load", "open_device", "quantize", "ops", "Tensor", "Prompt", "Video", "Sampling", "Voice", "OmniConfig",
    "DevicePlacement", "WeightFormat", "Reply", "Speech", "TextDelta", "AudioChunk", "Done", "AudioTokens",
    "VisionTokens", "ThinkerOutput", "CodecTokens", "AudioOutput", "OmniError", "ModelFormatError",
    "ModelNotFoundError", "UnsupportedError", "InputError", "DeviceError", "OutOfMemoryError", "CancelledError",
]  # fmt: skip
REPLY = "speech voice max_new_tokens sampling seed"
CONVERSING = {
    "chat": f"messages {REPLY}",
    "stream": f"messages {REPLY}",
    "generate": f"prompt {REPLY}",
    "prompt": "messages",
    "transcribe": "audio language",
    "forward": "audio text_prompt",
    "generate_text": "audio text_prompt max_tokens",
    "text_to_speech": "text voice",
    "clear_kv_cache": "",
    "close": "",
    "processor.mel": "samples",
    "processor.image": "rgb",
    "processor.video": "frames fps",
    "audio_encoder": "mel",
    "vision_encoder": "pixels grid",
    "thinker.positions": "prompt",
    "thinker.forward": "prompt",
    "thinker.generate": "prompt max_new_tokens sampling",
    "talker.prefill": "prompt reply_ids voice",
    "talker.generate": "prompt reply_ids voice max_frames sampling",
    "code2wav": "codes",
    "code2wav.stream": "",
}
SPEAKING = {
    "generate": "text voice language instruct streaming_text max_frames sampling seed",
    "stream": "text voice language instruct streaming_text max_frames sampling seed",
    "voice": "ref_audio ref_text",
    "voices": "",
    "languages": "",
    "speaker_embedding": "samples",
    "codec.encode": "samples",
    "codec.decode": "codes",
    "codec.stream": "",
    "close": "",
}
FIELDS = {
    omni_rt.Reply: "text token_ids audio sample_rate codes finish_reason seed timings",
    omni_rt.Speech: "audio sample_rate codes finish_reason seed timings",
    omni_rt.AudioTokens: "embeddings",
    omni_rt.VisionTokens: "embeddings deepstack",
    omni_rt.ThinkerOutput: "text_logits token_embeddings hidden",
    omni_rt.CodecTokens: "codes",
    omni_rt.AudioOutput: "waveform sample_rate",
    omni_rt.Prompt: "token_ids audio images videos",
    omni_rt.Video: "frames fps",
    omni_rt.Sampling: "temperature top_k top_p repetition_penalty",
    Timings: "load_s first_token_ms first_audio_ms tokens_per_s rtf peak_memory_bytes",
}


def assert_takes(function: Any, parameters: str) -> None:
    """Assert that the first parameters have these names in this order, and that none after them must be given."""
    known = list(inspect.signature(function).parameters.values())
    wanted = parameters.split()
    assert [parameter.name for parameter in known[: len(wanted)]] == wanted
    assert all(parameter.default is not inspect.Parameter.empty for parameter in known[len(wanted) :])


def test_every_public_name_is_exported_and_documented() -> None:
    assert set(NAMES) <= set(omni_rt.__all__)
    for name in omni_rt.__all__:
        value = getattr(omni_rt, name)
        assert name.startswith("__") or inspect.ismodule(value) or inspect.getdoc(value), f"{name} has no docstring"


def test_errors_form_one_tree() -> None:
    errors = [getattr(omni_rt, name) for name in NAMES if name.endswith("Error")]
    assert len(errors) == 8 and all(issubclass(error, omni_rt.OmniError) for error in errors)
    full = omni_rt.OutOfMemoryError("too much", 2, 1)
    assert (full.needed, full.available) == (2, 1)


def test_loading() -> None:
    assert_takes(omni_rt.load, "ref device placement quant context max_memory strict local_files_only")
    assert_takes(omni_rt.open_device, "name")
    parts = "audio_encoder vision_encoder thinker talker code_predictor code2wav"
    assert [field.name for field in fields(omni_rt.OmniConfig)] == parts.split()


@pytest.fixture(scope="module")
def omni() -> Any:
    return omni_rt.load("tiny", device="cpu")


@pytest.mark.parametrize(("name", "parameters"), CONVERSING.items())
def test_a_model_that_converses(omni: Any, name: str, parameters: str) -> None:
    assert_takes(attrgetter(name)(omni), parameters)


@pytest.fixture(scope="module")
def tts(released: Path) -> Any:
    return omni_rt.load(released / "tiny-0b6-base", device="cpu")


@pytest.mark.parametrize(("name", "parameters"), SPEAKING.items())
def test_a_model_that_speaks(tts: Any, name: str, parameters: str) -> None:
    assert isinstance(tts, TextToSpeech)
    assert_takes(attrgetter(name)(tts), parameters)


@pytest.mark.parametrize(("kind", "names"), FIELDS.items())
def test_results_have_their_fields(kind: Any, names: str) -> None:
    assert [field.name for field in fields(kind)][: len(names.split())] == names.split()
