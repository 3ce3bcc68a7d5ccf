"""The vision tower at full size on random weights: an image, a second of video, and their patches on the host."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from omni_rt.benchmark.weights import RandomWeights
from omni_rt.models.qwen3_omni.config_sections import VisionEncoderConfig
from omni_rt.models.qwen3_omni.vision_encoder import VisionEncoder

if TYPE_CHECKING:
    from omni_rt.benchmark.model import Clock, Stage

ENCODER = VisionEncoderConfig(
    layers=27, width=1152, heads=16, feed_forward=4304, channels=3, patch=16, temporal_patch=2, merge=2,
    output_width=2048, deepstack_layers=(8, 16, 24), positions=2304,
)  # fmt: skip

HEIGHT, WIDTH = 480, 640
VIDEO_SECONDS = 4
"""Length of the video that is timed, at two frames a second: one temporal patch each."""


def encoder_config(layers: int | None) -> VisionEncoderConfig:
    """Return the vision tower's sizes, cut to its first `layers` if given."""
    if layers is None:
        return ENCODER
    return replace(ENCODER, layers=layers, deepstack_layers=tuple(i for i in ENCODER.deepstack_layers if i < layers))


def vision_stages(clock: Clock, encoder: VisionEncoder) -> list[Stage]:
    """Measure the vision encoder on an image of 640 x 480 (300 tokens), and on a second of such a video."""
    config = encoder.config
    rows, columns = HEIGHT // config.patch, WIDTH // config.patch
    count = VIDEO_SECONDS * rows * columns
    pixels = np.random.default_rng(0).uniform(-1, 1, (count, config.patch_values)).astype(np.float32)
    image = partial(encoder, pixels[: rows * columns], (1, rows, columns))
    video = partial(encoder, pixels, (VIDEO_SECONDS, rows, columns))
    whole = clock.stage(f"vision encoder, video of {WIDTH} x {HEIGHT}", "video second", video)
    second = replace(
        whole,
        milliseconds=whole.milliseconds / VIDEO_SECONDS,
        dispatches=None if whole.dispatches is None else whole.dispatches / VIDEO_SECONDS,
    )
    return [clock.stage(f"vision encoder, image of {WIDTH} x {HEIGHT}", "image", image), second]


def stages(clock: Clock, weights: RandomWeights, layers: int | None, context: int) -> list[Stage]:
    """Measure the vision tower on random weights; `context` plays no part."""
    return vision_stages(clock, VisionEncoder(weights.at("thinker.visual."), encoder_config(layers)))
