"""The audio and vision encoders agree with the reference, stage data in, embeddings out, on both devices."""

from __future__ import annotations

import numpy as np
import pytest

from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.io.mel import log_mel
from omni_rt.models.qwen3_omni.audio_encoder import AudioEncoder, audio_token_count
from omni_rt.models.qwen3_omni.vision_encoder import VisionEncoder
from tests.reference import Reference, assert_close

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def audio_encoder(reference: Reference, device: Device) -> AudioEncoder:
    return AudioEncoder(reference.weights(device, "thinker.audio_tower."), reference.config.audio)


@pytest.fixture(scope="module")
def vision_encoder(reference: Reference, device: Device) -> VisionEncoder:
    return VisionEncoder(reference.weights(device, "thinker.visual."), reference.config.vision)


@pytest.mark.parametrize("clip", ["audio", "audio_short"])
def test_audio_embeddings_equal_the_reference(audio_encoder: AudioEncoder, reference: Reference, clip: str) -> None:
    mel = np.ascontiguousarray(reference[f"{clip}.mel"][0].T)
    assert_close(audio_encoder(mel).embeddings, reference[f"{clip}.out"], TOLERANCE)


CLIPS = (
    "tenth_second",
    "one_chunk",
    "one_sample_more",
    "one_frame_more",
    "window_edge",
    "window_edge_more",
    "seventy_seconds",
)


@pytest.mark.parametrize("clip", CLIPS)
def test_clips_of_awkward_lengths_equal_the_reference(
    audio_encoder: AudioEncoder, reference: Reference, clip: str
) -> None:
    """From the samples on: mel frames, number of embeddings, and the embeddings at edges and in between."""
    samples = int(reference[f"clips.{clip}.samples"][0])
    mel = log_mel(np.resize(reference["audio.wave"], samples))
    assert len(mel) == reference[f"clips.{clip}.mel_frames"][0]
    assert_close(mel.mean(axis=0), reference[f"clips.{clip}.mel_mean"], TOLERANCE)
    assert_close(mel[-2:].T, reference[f"clips.{clip}.mel_tail"], TOLERANCE)
    embeddings = audio_encoder(mel).embeddings
    assert len(embeddings) == reference[f"clips.{clip}.tokens"][0]
    assert_close(embeddings[reference[f"clips.{clip}.rows"]], reference[f"clips.{clip}.out"], TOLERANCE)
    assert_close(embeddings.mean(axis=0), reference[f"clips.{clip}.out_mean"], TOLERANCE)


def test_attention_windows_keep_a_later_second_from_changing_an_earlier_window(
    audio_encoder: AudioEncoder, reference: Reference
) -> None:
    config = reference.config.audio
    frames = config.window_frames
    mel = np.random.default_rng(5).normal(size=(frames + 100, config.mels)).astype(np.float32)
    within = audio_token_count(frames, config.chunk_frames)
    alone = audio_encoder(mel[:frames]).embeddings
    followed = audio_encoder(mel).embeddings[:within]
    assert_close(followed, alone, 1e-5)


def test_long_audio_passes_the_stem_in_pieces(audio_encoder: AudioEncoder, reference: Reference) -> None:
    config = reference.config.audio
    mel = np.random.default_rng(6).normal(size=(1930, config.mels)).astype(np.float32)
    whole = audio_encoder(mel).embeddings
    assert len(whole) == audio_token_count(1930, config.chunk_frames)
    windows = config.window_frames
    start = 1930 // windows * windows
    tail = audio_encoder(mel[start:], longest=1930).embeddings
    assert_close(whole[-len(tail) :], tail, 1e-5)


@pytest.mark.parametrize("shape", [(0, 128), (10, 80), (128,)])
def test_a_wrong_mel_is_refused(audio_encoder: AudioEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="128"):
        audio_encoder(np.zeros(shape, np.float32))


@pytest.mark.parametrize("media", ["image", "video"])
def test_vision_tokens_equal_the_reference(vision_encoder: VisionEncoder, reference: Reference, media: str) -> None:
    time, height, width = (int(extent) for extent in reference[f"{media}.grid_thw"][0])
    tokens = vision_encoder(reference[f"{media}.pixel_values"], (time, height, width))
    assert_close(tokens.embeddings, reference[f"{media}.out"], TOLERANCE)
    assert len(tokens.deepstack) == len(reference.config.vision.deepstack_layers)
    for layer, rows in enumerate(tokens.deepstack):
        assert_close(rows, reference[f"{media}.deepstack{layer}"], TOLERANCE)


def test_patches_that_do_not_fill_their_grid_are_refused(vision_encoder: VisionEncoder) -> None:
    for count, grid in ((5, (1, 2, 2)), (6, (1, 2, 3)), (0, (0, 2, 2))):
        with pytest.raises(InputError, match="grid"):
            vision_encoder(np.zeros((count, vision_encoder.config.patch_values), np.float32), grid)
