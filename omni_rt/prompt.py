"""A prompt: token ids with placeholders expanded, and the media that fill them, in order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from omni_rt.errors import InputError

AUDIO_RATE = 16000
LEAST_SAMPLES = 201
"""Shortest sound that the log-mels can be made of: it is reflected at both ends."""


@dataclass(frozen=True)
class Video:
    """Frames of a video, uint8 [F, H, W, 3], and how many of them make a second.

    `audio` is the sound that belongs to the frames, float32 [N] at 16 kHz, to be heard interleaved with them; None for
    none. Raises InputError for no frames, other shapes and types, and a rate that is not above 0.
    """

    frames: np.ndarray
    fps: float
    audio: np.ndarray | None = None

    def __post_init__(self) -> None:
        frames, fps, audio = self.frames, self.fps, self.audio
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
            raise InputError(f"video frames are {kind}, expected an array uint8 [F, H, W, 3]")
        if frames.ndim != 4 or frames.shape[3] != 3:
            raise InputError(f"video frames have the shape {list(frames.shape)}, expected [F, H, W, 3]")
        if 0 in frames.shape:
            raise InputError(f"video frames have the shape {list(frames.shape)}: there is nothing to look at")
        if isinstance(fps, bool) or not isinstance(fps, int | float | np.number) or not 0 < fps < math.inf:
            raise InputError(f"a video has {fps!r} frames a second, expected a number above 0")
        if audio is None:
            return
        if not isinstance(audio, np.ndarray) or audio.ndim != 1 or audio.dtype.kind != "f":
            found = f"{audio.dtype} {list(audio.shape)}" if isinstance(audio, np.ndarray) else type(audio).__name__
            raise InputError(f"the sound of a video is {found}, expected float32 [N], mono at {AUDIO_RATE} Hz")
        if len(audio) < LEAST_SAMPLES:
            raise InputError(
                f"the sound of a video has {len(audio)} samples at 16 kHz; at least {LEAST_SAMPLES} (13 ms) are needed"
            )
        if not np.isfinite(audio).all():
            raise InputError("the sound of a video has samples that are NaN or infinite; repair the recording")


@dataclass(frozen=True)
class Prompt:
    """Token ids and media: `audio` float32 at 16 kHz [N], `images` uint8 [H, W, 3], `videos`.

    Every media placeholder id is already repeated once per embedding that the encoders make of it.
    """

    token_ids: list[int]
    audio: list[np.ndarray] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
