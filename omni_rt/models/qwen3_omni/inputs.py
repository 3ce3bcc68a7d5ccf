"""From a prompt to what the Thinker reads: media through their encoders, rows to splice, positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni.audio_encoder import AudioEncoder
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_omni.config_sections import TokenIds
from omni_rt.models.qwen3_omni.positions import MediaLayout, prompt_positions
from omni_rt.models.qwen3_omni.processor import Processor
from omni_rt.models.qwen3_omni.thinker import ThinkerInputs
from omni_rt.models.qwen3_omni.vision_encoder import VisionEncoder
from omni_rt.prompt import Prompt
from omni_rt.results import AudioTokens, VisionTokens


@dataclass(frozen=True)
class Encoders:
    """What turns the media of a prompt into embeddings, for a Thinker with room for `context` positions."""

    processor: Processor
    audio: AudioEncoder
    vision: VisionEncoder
    config: Qwen3OmniConfig
    context: int


def layout_of(prompt: Prompt, processor: Processor) -> MediaLayout:
    """Return the grids and times of a prompt's media, without encoding them."""
    config = processor.config
    videos = [processor.video_grid(video) for video in prompt.videos]
    return MediaLayout(
        images=[processor.image_grid(image) for image in prompt.images],
        videos=videos,
        seconds_per_grid=[processor.seconds_per_grid(video) for video in prompt.videos],
        video_audio=[processor.video_audio_count(video) for video in prompt.videos],
        merge=config.vision.merge,
        positions_per_second=config.thinker.positions_per_second,
    )


def encode_prompt(prompt: Prompt, encoders: Encoders) -> ThinkerInputs:
    """Run the encoders over the media of a prompt and lay everything out for the Thinker.

    Raises InputError when the prompt is longer than the context, before anything is encoded, and when the placeholders
    of a kind are not as many as the rows that its media make.
    """
    tokens, count = encoders.config.tokens, len(prompt.token_ids)
    if count > encoders.context:
        numbers = {kind: prompt.token_ids.count(pad) for kind, pad in _pads(tokens)}
        listed = "".join(f", {number} of them {kind}" for kind, number in numbers.items() if number)
        raise InputError(
            f"the prompt has {count} tokens{listed}; the context of {encoders.context} positions does not hold it: "
            "load the model with a larger context, or give less"
        )
    positions, delta = prompt_positions(prompt.token_ids, tokens, layout_of(prompt, encoders.processor))
    ids = np.asarray(prompt.token_ids, np.int64)
    sounds = _in_prompt_order(prompt, encoders.config)
    heard = [clip.embeddings for clip in _encode_audio(sounds, encoders)]
    pictures = [encoders.vision(*encoders.processor.image(image)) for image in prompt.images]
    moving = [encoders.vision(*encoders.processor.video(video.frames, video.fps)[:2]) for video in prompt.videos]
    made_of = {
        "audio": heard,
        "image": [seen.embeddings for seen in pictures],
        "video": [seen.embeddings for seen in moving],
    }
    index = np.full(len(ids), -1, np.int32)
    stacked: list[np.ndarray] = []
    for kind, pad in _pads(tokens):
        parts, places = made_of[kind], np.flatnonzero(ids == pad)
        made = sum(len(part) for part in parts)
        if len(places) != made:
            raise InputError(f"the prompt has {len(places)} {kind} placeholders, its {kind} makes {made} embeddings")
        index[places] = sum(len(part) for part in stacked) + np.arange(made)
        stacked += parts
    visual, deepstack = _deepstack(ids, (tokens.image_pad, pictures), (tokens.video_pad, moving))
    media = np.concatenate(stacked) if stacked else None
    return ThinkerInputs(prompt.token_ids, positions, delta, media, index, deepstack, visual)


def _pads(tokens: TokenIds) -> list[tuple[str, int]]:
    """Return each kind of media and its placeholder."""
    return [("audio", tokens.audio_pad), ("image", tokens.image_pad), ("video", tokens.video_pad)]


def _in_prompt_order(prompt: Prompt, config: Qwen3OmniConfig) -> list[np.ndarray]:
    """Return all sounds in the order of their placeholders: clips, and the sound inside videos."""
    tokens, ids = config.tokens, prompt.token_ids
    with_sound = iter([video.audio for video in prompt.videos if video.audio is not None])
    clips = iter(prompt.audio)
    ordered = []
    for index, token in enumerate(ids):
        if token == tokens.audio_start:
            inside = index > 0 and ids[index - 1] == tokens.vision_start
            sound = next(with_sound if inside else clips, None)
            if sound is not None:
                ordered.append(sound)
    return [*ordered, *clips]


def _encode_audio(sounds: Sequence[np.ndarray], encoders: Encoders) -> list[AudioTokens]:
    """Encode clips as the reference does in one call: padded to the longest before the transform and in the stem."""
    if not sounds:
        return []
    longest = max(len(sound) for sound in sounds)
    alone = len(sounds) == 1
    mels = [encoders.processor.mel(sound, None if alone else longest) for sound in sounds]
    frames = max(len(mel) for mel in mels)
    return [encoders.audio(mel, frames) for mel in mels]


def _deepstack(ids: np.ndarray, *kinds: tuple[int, list[VisionTokens]]) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Return for each id its row of the deepstack arrays or -1, and the arrays."""
    seen = [tokens for _, pictures in kinds for tokens in pictures]
    if not seen:
        return None, []
    visual = np.full(len(ids), -1, np.int32)
    start = 0
    for pad, _ in kinds:
        places = np.flatnonzero(ids == pad)
        visual[places] = start + np.arange(len(places))
        start += len(places)
    layers = len(seen[0].deepstack)
    return visual, [np.concatenate([tokens.deepstack[layer] for tokens in seen]) for layer in range(layers)]
