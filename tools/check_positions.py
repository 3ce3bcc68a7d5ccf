"""Compares prompt positions with the PyTorch reference's own generator on random layouts of text, sound and pictures.

    python tools/check_positions.py --layouts 500 --seed 3
    python tools/check_positions.py --layouts 12 --seed 1 --out tests/goldens/positions.safetensors

Needs the extra `oracle` (torch and transformers). No model runs: the generator reads ids, grids and lengths only. Every
layout is asked twice, as the Thinker reads it and as the Talker does, which is not told that sound lies inside videos.
With --out the layouts and the reference's answers are kept, as data for tests that have no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from omni_rt.benchmark.full_size import TOKENS
from omni_rt.models.qwen3_omni.audio_encoder import audio_token_count
from omni_rt.models.qwen3_omni.positions import (
    Grid,
    MediaLayout,
    interleave_order,
    prompt_positions,
    sound_in_video_as_text,
)

MERGE, CLOCK, CHUNK = 2, 13, 100
RATES = (1.0, 2.0, 4.0, 0.5, 3.0, 23.976, 29.97, 1.7, 7.0)
TEXT_ID = 11


@dataclass
class Layout:
    """A prompt without content: its ids, and what stands behind its placeholders."""

    ids: list[int] = field(default_factory=list)
    images: list[Grid] = field(default_factory=list)
    videos: list[Grid] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    video_audio: list[int] = field(default_factory=list)
    sound_frames: list[int] = field(default_factory=list)
    heard: bool = False

    @property
    def media(self) -> MediaLayout:
        """What omni_rt takes beside the ids."""
        return MediaLayout(self.images, self.videos, self.seconds, self.video_audio, MERGE, CLOCK)


def draw(generator: np.random.Generator) -> Layout:
    """Draw a layout of up to seven pieces; either all videos have sound or none, as in the reference."""
    layout = Layout(heard=bool(generator.random() < 0.5))
    kinds = ["text", "audio", "image", "video"]
    for kind in generator.choice(kinds, size=generator.integers(1, 8), p=(0.25, 0.25, 0.25, 0.25)):
        layout.ids += [TEXT_ID] * int(generator.integers(0, 9))
        if kind == "audio":
            tokens = _sound(layout, generator)
            layout.ids += [TOKENS.audio_start, *[TOKENS.audio_pad] * tokens, TOKENS.audio_end]
        elif kind == "image":
            grid = (1, *_sides(generator))
            layout.images.append(grid)
            layout.ids += [TOKENS.vision_start, *[TOKENS.image_pad] * _tokens(grid), TOKENS.vision_end]
        elif kind == "video":
            _video(layout, generator)
    layout.ids += [TEXT_ID] * int(generator.integers(0 if layout.ids else 1, 9))
    return layout


def _sides(generator: np.random.Generator) -> tuple[int, int]:
    return MERGE * int(generator.integers(1, 7)), MERGE * int(generator.integers(1, 7))


def _tokens(grid: Grid) -> int:
    return grid[0] * grid[1] * grid[2] // MERGE**2


def _sound(layout: Layout, generator: np.random.Generator) -> int:
    """Note a clip of a random length in log-mel frames; return its embeddings."""
    frames = int(generator.choice([generator.integers(1, 40), generator.integers(1, 450), 100, 200]))
    layout.sound_frames.append(frames)
    return audio_token_count(frames, CHUNK)


def _video(layout: Layout, generator: np.random.Generator) -> None:
    grid = (int(generator.integers(1, 7)), *_sides(generator))
    seconds = 2.0 / float(generator.choice(RATES))
    layout.videos.append(grid)
    layout.seconds.append(seconds)
    layout.video_audio.append(_sound(layout, generator) if layout.heard else 0)
    if layout.heard:
        clock = np.repeat(np.arange(grid[0]) * seconds * CLOCK, _tokens(grid) // grid[0])
        order = interleave_order(clock, np.arange(layout.video_audio[-1], dtype=np.float64))
        woven = np.where(order, TOKENS.video_pad, TOKENS.audio_pad).tolist()
        pads = [TOKENS.audio_start, *woven, TOKENS.audio_end]
    else:
        pads = [TOKENS.video_pad] * _tokens(grid)
    layout.ids += [TOKENS.vision_start, *pads, TOKENS.vision_end]


class Generator:
    """The reference's position generator, without a model around it."""

    def __init__(self) -> None:
        import torch
        from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling
        from transformers.models.qwen3_omni_moe import processing_qwen3_omni_moe as processing

        self.torch = torch
        owner = modeling.Qwen3OmniMoePreTrainedModelForConditionalGeneration
        self._owner = SimpleNamespace(
            spatial_merge_size=MERGE,
            config=SimpleNamespace(
                image_token_id=TOKENS.image_pad, video_token_id=TOKENS.video_pad, audio_token_id=TOKENS.audio_pad,
                vision_start_token_id=TOKENS.vision_start, audio_start_token_id=TOKENS.audio_start,
                position_id_per_seconds=CLOCK, audio_config=SimpleNamespace(n_window=CHUNK // 2),
            ),
        )  # fmt: skip
        self._owner.get_llm_pos_ids_for_vision = owner.get_llm_pos_ids_for_vision.__get__(self._owner)
        self._generate = owner.get_rope_index
        self._expand = processing.Qwen3OmniMoeProcessor.replace_video_with_audio_token

    def positions(self, layout: Layout, *, heard: bool) -> tuple[np.ndarray, float]:
        """Return the reference's positions [3, T] and delta; `heard` says whether it is told of sound in videos."""
        torch = self.torch
        ids = torch.tensor([layout.ids])
        if not layout.images and not layout.videos:
            return np.broadcast_to(np.arange(len(layout.ids), dtype=np.float32), (3, len(layout.ids))), 0.0
        positions, delta = self._generate(
            self._owner, ids,
            image_grid_thw=torch.tensor(layout.images) if layout.images else None,
            video_grid_thw=torch.tensor(layout.videos) if layout.videos else None,
            attention_mask=torch.ones_like(ids), use_audio_in_video=heard,
            audio_seqlens=torch.tensor(layout.sound_frames), second_per_grids=torch.tensor(layout.seconds),
        )  # fmt: skip
        return positions[:, 0].numpy(), float(delta[0, 0])

    def woven(self, layout: Layout, video: int) -> list[int]:
        """Return the placeholders that the reference's processor makes of a video and its sound."""
        owner = SimpleNamespace(
            audio_bos_token="(", audio_eos_token=")", audio_token="a", video_token="v",
            video_processor=SimpleNamespace(merge_size=MERGE),
        )  # fmt: skip
        text = self._expand(
            owner, {"video_grid_thw": np.array(layout.videos), "video_second_per_grid": layout.seconds}, video,
            {"num_audio_tokens": layout.video_audio}, video, position_id_per_seconds=float(CLOCK),
        )  # fmt: skip
        meaning = {"(": TOKENS.audio_start, ")": TOKENS.audio_end, "a": TOKENS.audio_pad, "v": TOKENS.video_pad}
        return [meaning[character] for character in text]


def woven_here(layout: Layout) -> list[list[int]]:
    """Return the placeholders of each video with sound, as they stand in the ids."""
    runs, start = [], None
    for index, token in enumerate(layout.ids):
        if token == TOKENS.audio_start and layout.ids[index - 1] == TOKENS.vision_start:
            start = index
        elif token == TOKENS.vision_end and start is not None:
            runs.append(layout.ids[start:index])
            start = None
    return runs


def difference(got: tuple[np.ndarray, float], expected: tuple[np.ndarray, float]) -> str | None:
    """Say where positions differ from the reference's, None where they are the same to the bit."""
    if got[0].shape != expected[0].shape:
        return f"shape {got[0].shape}, reference {expected[0].shape}"
    if not np.array_equal(got[0], expected[0]):
        axis, token = np.argwhere(got[0] != expected[0])[0]
        return f"axis {axis}, token {token}: {got[0][axis, token]!r}, reference {expected[0][axis, token]!r}"
    # The reference computes delta in float32.
    return None if abs(got[1] - expected[1]) < 1e-3 else f"delta {got[1]}, reference {expected[1]}"


def compare(layout: Layout, reference: Generator) -> dict[str, Any]:
    """Return the reference's answers for a layout; raise SystemExit where omni_rt gives others."""
    answers: dict[str, Any] = {}
    for video, run in enumerate(woven_here(layout)):
        if run != reference.woven(layout, video):
            raise SystemExit(f"video {video} is woven otherwise than in the reference: {asdict(layout)}")
    for reader in ("thinker", "talker"):
        expected = reference.positions(layout, heard=layout.heard and reader == "thinker")
        question = (layout.ids, TOKENS, layout.media)
        got = prompt_positions(*(question if reader == "thinker" else sound_in_video_as_text(*question)))
        found = difference(got, expected)
        if found is not None:
            raise SystemExit(f"{reader}: {found}, of {asdict(layout)}")
        answers |= {f"{reader}.positions": np.ascontiguousarray(expected[0]), f"{reader}.delta": expected[1]}
    return answers


def main() -> None:
    """Read the command line, compare, and keep the answers if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the layouts and the reference's answers (safetensors)")
    arguments = parser.parse_args()
    generator, reference = np.random.default_rng(arguments.seed), Generator()
    kept: dict[str, np.ndarray] = {}
    layouts = []
    for index in range(arguments.layouts):
        layout = draw(generator)
        answers = compare(layout, reference)
        layouts.append(asdict(layout) | {key: value for key, value in answers.items() if key.endswith("delta")})
        kept |= {f"{index}.{key}": value for key, value in answers.items() if key.endswith("positions")}
    longest = max(len(layout["ids"]) for layout in layouts)
    heard = sum(layout["heard"] and bool(layout["videos"]) for layout in layouts)
    print(
        f"{len(layouts)} layouts of up to {longest} tokens, {heard} with sound in videos: equal to the bit",
        file=sys.stderr,
    )
    if arguments.out is not None:
        from safetensors.numpy import save_file

        save_file(kept, arguments.out, metadata={"layouts": json.dumps(layouts)})
        print(f"{arguments.out}: {arguments.out.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
