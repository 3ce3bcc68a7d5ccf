"""Models whose speech never ends, in each of the three ways, are stopped by the guard itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import omni_rt
from omni_rt import AudioChunk, Done, Sampling
from omni_rt.io.safetensors import SafetensorsCheckpoint
from omni_rt.models import guard
from omni_rt.models.qwen3_tts.session import TextToSpeech

Arrays = dict[str, np.ndarray]
EXPECTED, CAP, DECODED = 25, 50, 31
"""Frames of a text of one token with a second of slack, twice as many, and 1 + 2 + 4 + 8 + 16, the pieces decoded."""


def endless(main: Arrays, codec: Arrays, stop: int) -> None:
    """Make the stop token's logit 0, which is never the best of many."""
    main["talker.codec_head.weight"][stop] = 0


def circling(main: Arrays, codec: Arrays, stop: int) -> None:
    """Let the codes depend on the text alone, which is padding at the end."""
    endless(main, codec, stop)
    for name, values in main.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")) or "codec_embedding" in name:
            values[...] = 0


def silent(main: Arrays, codec: Arrays, stop: int) -> None:
    """Let the codec write zeros."""
    endless(main, codec, stop)
    for part in ("weight", "bias"):
        codec[f"decoder.decoder.6.conv.{part}"][...] = 0


@pytest.mark.parametrize(
    ("damage", "temperature", "made", "heard"),
    [(endless, 1.0, CAP, DECODED), (circling, 1e-3, EXPECTED + 1, EXPECTED), (silent, 1.0, DECODED, DECODED)],
)
def test_speech_without_an_end_is_read_once_more_and_then_cut(
    released: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Arrays, Arrays, int], None],
    temperature: float,
    made: int,
    heard: int,
) -> None:
    monkeypatch.setattr(guard, "SLACK_SECONDS", 1.0)
    folder = Path(shutil.copytree(released / "tiny-1b7-customvoice", tmp_path / "model"))
    parts = []
    for directory in (folder, folder / "speech_tokenizer"):
        checkpoint = SafetensorsCheckpoint(directory)
        parts.append({name: np.array(checkpoint.array(name), np.float32) for name in checkpoint.names()})
        del checkpoint
    with omni_rt.load(folder, device="cpu") as model:
        assert isinstance(model, TextToSpeech)
        damage(parts[0], parts[1], model.config.talker.codec_eos)
    for directory, arrays in zip((folder, folder / "speech_tokenizer"), parts, strict=True):
        save_file(arrays, directory / "model.safetensors")
    with omni_rt.load(folder, device="cpu") as model:
        assert isinstance(model, TextToSpeech)
        seeds = []
        original = model.stream

        def stream(text: str, **options: object) -> object:
            seeds.append(options["seed"])
            return original(text, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(model, "stream", stream)
        looked: list[int] = []
        look = guard.Guard.runs_away
        monkeypatch.setattr(
            guard.Guard, "runs_away", lambda self, codes, *rest: looked.append(len(codes)) or look(self, codes, *rest)
        )
        assert len(model._framer.target("a")) == 9, "one token and the eight of its frame"
        speech = model.generate("a", sampling=Sampling(temperature), seed=7)
        assert (speech.finish_reason, seeds, speech.seed) == ("runaway", [7, 8], 8)
        assert (looked[-1], speech.codes.shape[1]) == (made, EXPECTED)
        assert len(speech.audio) == 1920 * speech.codes.shape[1]
        *chunks, last = original("a", sampling=Sampling(temperature), seed=7)
        assert isinstance(last, Done) and last.reply.finish_reason == "runaway" and last.reply.seed == 7
        delivered = sum(len(chunk.samples) for chunk in chunks if isinstance(chunk, AudioChunk))
        assert delivered == len(last.reply.audio) == 1920 * heard, "what was heard cannot be taken back"
