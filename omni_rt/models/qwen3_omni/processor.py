"""From messages to a prompt: media are loaded, the chat template is rendered, placeholders are expanded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from omni_rt.errors import InputError
from omni_rt.io.audio import load_audio
from omni_rt.io.chat_template import Media, render, token_ids
from omni_rt.io.mel import HOP, RATE, log_mel
from omni_rt.io.patches import PatchSettings, image_patches, smart_resize, video_patches
from omni_rt.io.template_check import check_chat_template
from omni_rt.io.tokenizer import Tokenizer
from omni_rt.models.qwen3_omni.audio_encoder import audio_token_count
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_omni.positions import Grid, interleave_order
from omni_rt.prompt import LEAST_SAMPLES, Prompt, Video

Message = Mapping[str, Any]


class Processor:
    """Everything between what a caller hands over and what the encoders and the Thinker take."""

    def __init__(self, directory: str | PathLike[str], config: Qwen3OmniConfig) -> None:
        self.config = config
        self.tokenizer = Tokenizer.load(directory)
        self.image_settings = PatchSettings.from_directory(directory)
        self.video_settings = self.image_settings.for_video()
        check_chat_template(directory)

    def mel(self, samples: np.ndarray, padded_length: int | None = None) -> np.ndarray:
        """Return log-mels [F, M] of 16 kHz mono samples; `padded_length` is that of the longest clip beside it."""
        return log_mel(samples, padded_length)

    def image(self, rgb: np.ndarray) -> tuple[np.ndarray, Grid]:
        """Return the patches [P, C] of an image uint8 [H, W, 3], and its grid (1, rows, columns)."""
        return image_patches(rgb, self.image_settings)

    def video(self, frames: np.ndarray, fps: float) -> tuple[np.ndarray, Grid, float]:
        """Return the patches [P, C] of frames uint8 [F, H, W, 3], the grid, and the seconds of one of its steps."""
        video = Video(frames, fps)
        pixels, grid = video_patches(video.frames, self.video_settings)
        return pixels, grid, self.seconds_per_grid(video)

    def image_grid(self, rgb: np.ndarray) -> Grid:
        """Return the grid that an image will have, without making its patches."""
        height, width = smart_resize(rgb.shape[0], rgb.shape[1], self.image_settings)
        return 1, height // self.image_settings.patch, width // self.image_settings.patch

    def video_grid(self, video: Video) -> Grid:
        """Return the grid that a video will have, without making its patches."""
        settings = self.video_settings
        height, width = smart_resize(video.frames.shape[1], video.frames.shape[2], settings)
        return -(-len(video.frames) // settings.temporal), height // settings.patch, width // settings.patch

    def seconds_per_grid(self, video: Video) -> float:
        """Return the seconds between two temporal patches of a video."""
        return self.config.vision.temporal_patch / video.fps

    def audio_count(self, samples: int, longest: int | None = None) -> int:
        """Return the embeddings of a clip; beside a longer clip its last started frame counts too."""
        frames = samples // HOP if longest is None or longest == samples else -(-samples // HOP)
        return audio_token_count(frames, self.config.audio.chunk_frames)

    def video_audio_count(self, video: Video) -> int:
        """Return the audio embeddings interleaved with a video, 0 for a silent one."""
        return 0 if video.audio is None else self.audio_count(len(video.audio))

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Render messages: chat format, media loaded, every placeholder repeated once per embedding.

        Raises InputError for messages that are malformed or media that cannot be read.
        """
        segments = render(messages)
        loaded = {id(segment): self._load(segment) for segment in segments if isinstance(segment, Media)}
        sounds = [len(item) for item in loaded.values() if isinstance(item, np.ndarray) and item.ndim == 1]
        longest = max(sounds) if len(sounds) > 1 else None
        prompt = Prompt([])

        def pads(segment: Media) -> list[int]:
            item = loaded[id(segment)]
            self._collect(prompt, item)
            return self._pads(item, longest)

        prompt.token_ids.extend(token_ids(segments, self.tokenizer, pads))
        return prompt

    def _load(self, segment: Media) -> np.ndarray | Video:
        if segment.kind == "audio":
            samples = load_audio(segment.value, RATE)
            if len(samples) < LEAST_SAMPLES:
                name = segment.value if isinstance(segment.value, str | PathLike) else "audio"
                found = f"{name}: has {len(samples)} samples at 16 kHz"
                raise InputError(f"{found}, at least {LEAST_SAMPLES} (13 ms) are needed; give a longer clip")
            return samples
        if segment.kind == "image":
            from omni_rt.io.image import load_image  # brings Pillow, which most calls do without

            return load_image(segment.value)
        return self._load_video(segment)

    def _load_video(self, segment: Media) -> Video:
        """Return a video with the sound that is to be heard: its own unless the message says otherwise."""
        value = segment.value
        if isinstance(value, tuple):
            if len(value) != 2:
                raise InputError(f"a video came as a tuple of {len(value)}; give (frames, fps)")
            value = Video(np.asarray(value[0]), value[1])
        if not isinstance(value, Video):
            from omni_rt.io.video import load_video  # brings PyAV, an optional extra

            return load_video(value, self.video_settings, sound=segment.sound)
        if segment.sound and value.audio is None:
            raise InputError(
                "use_audio_in_video asks for the sound of a Video without one; set Video.audio, 16 kHz mono"
            )
        return replace(value, audio=None) if segment.sound is False else value

    @staticmethod
    def _collect(prompt: Prompt, item: np.ndarray | Video) -> None:
        if isinstance(item, Video):
            prompt.videos.append(item)
        elif item.ndim == 1:
            prompt.audio.append(item)
        else:
            prompt.images.append(item)

    def _pads(self, item: np.ndarray | Video, longest: int | None) -> list[int]:
        """Return the placeholders of one medium, one per embedding."""
        tokens = self.config.tokens
        if isinstance(item, Video):
            return self._video_ids(item)
        if item.ndim == 1:
            return [tokens.audio_pad] * self.audio_count(len(item), longest)
        _, height, width = self.image_grid(item)
        return [tokens.image_pad] * (height * width // self.config.vision.merge**2)

    def _video_ids(self, video: Video) -> list[int]:
        """Return the placeholders of a video, its sound interleaved by time where it has one."""
        tokens = self.config.tokens
        time, height, width = self.video_grid(video)
        per_step = height * width // self.config.vision.merge**2
        if video.audio is None:
            return [tokens.video_pad] * (time * per_step)
        clock = np.repeat(np.arange(time) * self.seconds_per_grid(video), per_step)
        clock = clock * self.config.thinker.positions_per_second
        order = interleave_order(clock, np.arange(self.video_audio_count(video), dtype=np.float64))
        return [tokens.audio_start, *np.where(order, tokens.video_pad, tokens.audio_pad).tolist(), tokens.audio_end]
