"""A prompt: token ids with placeholders expanded, and the media that fill them, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Video:
    """Frames of a video, uint8 [F, H, W, 3], and how many of them make a second.

    `audio` is the sound that belongs to the frames, 16 kHz mono, to be heard interleaved with them; None for none.
    """

    frames: np.ndarray
    fps: float
    audio: np.ndarray | None = None


@dataclass(frozen=True)
class Prompt:
    """Token ids and media: `audio` float32 at 16 kHz [N], `images` uint8 [H, W, 3], `videos`.

    Every media placeholder id is already repeated once per embedding that the encoders make of it.
    """

    token_ids: list[int]
    audio: list[np.ndarray] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
