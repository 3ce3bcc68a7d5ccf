"""The voice models of a directory made by tools/golden_tts.py, and what the reference was asked for in each case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from omni_rt import Sampling, Voice
from omni_rt.models.qwen3_tts.layout import Request
from omni_rt.models.qwen3_tts.session import TextToSpeech
from tests.reference import Reference

ROOT = Reference.tts_directory
VARIANTS = sorted(path.name for path in ROOT.iterdir() if path.name.startswith("tiny-"))
GREEDY = Sampling(repetition_penalty=1.05)


@cache
def golden(variant: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What golden.json says of a variant's cases, and their arrays."""
    index = json.loads((ROOT / variant / "golden.json").read_text(encoding="utf-8"))
    return index, load_file(ROOT / variant / "golden.safetensors")


@cache
def codec_golden() -> dict[str, np.ndarray]:
    """What the reference's codec computes."""
    return load_file(ROOT / "codec_golden.safetensors")


@cache
def codec_index() -> dict[str, Any]:
    """What codec_golden.json says."""
    return json.loads((ROOT / "codec_golden.json").read_text(encoding="utf-8"))


def cases(part: str = "codes") -> list[tuple[str, str]]:
    """Every case of one text for which the goldens hold `part`, by variant and name."""
    return [
        (variant, name)
        for variant in VARIANTS
        for name in golden(variant)[0]
        if f"{name}.{part}" in golden(variant)[1] and len(golden(variant)[1][f"{name}.codes"]) == 1
    ]


@dataclass(frozen=True)
class Asked:
    """The arguments of a case as this package takes them; `streaming` is None where the reference's default serves."""

    voice: str | Voice | None
    language: str
    instruct: str | None
    streaming: bool | None


def asked(model: TextToSpeech, variant: str, name: str) -> Asked:
    """Return the arguments of a case."""
    index, arrays = golden(variant)
    case = index[name]
    clone = case["call"] == "generate_voice_clone"
    voice: str | Voice | None = case.get("speaker")
    if clone:
        reference = case["ref_audio"]
        in_context = "ref_text" in case and not case.get("x_vector_only_mode")
        voice = Voice(
            arrays[f"{reference}.ref_spk_embedding"].reshape(-1),
            arrays[f"{reference}.ref_code"].T if in_context else None,
            case["ref_text"] if in_context else None,
        )
    # The small model's reference drops an instruction silently; here it is an error.
    instruct = None if model.config.size == "0b6" else case.get("instruct")
    whole = case.get("non_streaming_mode")
    return Asked(voice, case.get("language") or "auto", instruct, None if whole is None else not whole)


def request_of(model: TextToSpeech, variant: str, name: str) -> Request:
    """Return the request of a case, made by the model's own rules, its ids compared with the reference's."""
    case, given = golden(variant)[0][name], asked(model, variant, name)
    manner = model._manner(given.voice, given.language, given.instruct, given.streaming)
    ids, speaker, voice = model._framer.target(case["text"]), None, given.voice
    assert ids == case["input_ids"]
    if given.instruct:
        assert list(manner.instruct_ids) == case["instruct_ids"]
    if isinstance(voice, str):
        speaker, voice = model.config.talker.speakers[voice.lower()], None
    if voice is None:
        return Request(ids, manner.instruct_ids, manner.language, speaker, streaming=manner.streaming)
    said = model._framer.reference(voice.text) if voice.text else ()
    if said:
        assert list(said) == case["ref_ids"]
    return Request(ids, (), manner.language, None, voice.embedding, said, voice.codes, streaming=manner.streaming)
