"""Positions of prompts with any mix of text, sound, images and videos equal the reference's on random layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from omni_rt.benchmark.full_size import TOKENS
from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni.positions import (
    MediaLayout,
    interleave_order,
    prompt_positions,
    sound_in_video_as_text,
)
from tests.reference import Reference

GOLDEN = Path(__file__).parent / "goldens" / "positions.safetensors"
LAYOUTS: list[dict[str, Any]] = []
EXPECTED: dict[str, np.ndarray] = {}
with safe_open(GOLDEN, "numpy") as _file:
    LAYOUTS = json.loads(_file.metadata()["layouts"])
    EXPECTED = {name: _file.get_tensor(name) for name in _file.keys()}  # noqa: SIM118 (not a dictionary)

TEXT = 11
SILENT_FILM = [TOKENS.vision_start, *[TOKENS.video_pad] * 8, TOKENS.vision_end]
PICTURE = [TOKENS.vision_start, *[TOKENS.image_pad] * 6, TOKENS.vision_end]


def media_of(layout: dict[str, Any]) -> MediaLayout:
    return MediaLayout(
        [tuple(grid) for grid in layout["images"]],
        [tuple(grid) for grid in layout["videos"]],
        layout["seconds"],
        layout["video_audio"],
    )


@pytest.mark.parametrize("index", range(len(LAYOUTS)))
@pytest.mark.parametrize("reader", ["thinker", "talker"])
def test_random_layouts_have_the_positions_of_the_reference(index: int, reader: str) -> None:
    layout = LAYOUTS[index]
    question = (layout["ids"], TOKENS, media_of(layout))
    if reader == "talker":
        question = sound_in_video_as_text(*question)  # type: ignore[assignment]
    positions, delta = prompt_positions(*question)
    assert positions.dtype == np.float32
    np.testing.assert_array_equal(positions, EXPECTED[f"{index}.{reader}.positions"])
    assert delta == pytest.approx(layout[f"{reader}.delta"], abs=1e-3)


def test_the_layouts_cover_each_kind_alone_and_together() -> None:
    def has(layout: dict[str, Any], *kinds: str) -> bool:
        return all(layout[kind] for kind in kinds)

    assert sum(has(layout, "images", "videos") for layout in LAYOUTS) >= 3
    assert sum(has(layout, "images", "sound_frames") for layout in LAYOUTS) >= 3
    assert sum(any(layout["video_audio"]) for layout in LAYOUTS) >= 5
    assert any(not has(layout, "images") and not has(layout, "videos") for layout in LAYOUTS)
    # A video with sound before an image, which the Talker reads otherwise than one that follows it.
    assert any(any(one["video_audio"]) and _before(one["ids"], TOKENS.video_pad, TOKENS.image_pad) for one in LAYOUTS)
    assert any(any(one["video_audio"]) and _before(one["ids"], TOKENS.image_pad, TOKENS.video_pad) for one in LAYOUTS)


def _before(ids: list[int], first: int, second: int) -> bool:
    return first in ids and second in ids and ids.index(first) < ids.index(second)


@pytest.mark.parametrize(
    "name", ["img_then_audio", "audio_img_audio", "two_images_video", "video_frac", "audio_in_video"]
)
def test_the_layouts_beside_a_checkpoint_too(reference: Reference, name: str) -> None:
    def grids(kind: str) -> list[tuple[int, int, int]]:
        key = f"pos.{name}.{kind}_grid"
        return [(int(t), int(h), int(w)) for t, h, w in reference[key]] if key in reference else []

    tokens = reference.config.tokens
    ids = reference[f"pos.{name}.input_ids"].tolist()
    seconds = f"pos.{name}.second_per_grid"
    heard = ids.count(tokens.audio_pad) if name == "audio_in_video" else 0
    layout = MediaLayout(
        grids("image"), grids("video"), reference[seconds].tolist() if seconds in reference else [], [heard]
    )
    positions, delta = prompt_positions(ids, tokens, layout)
    np.testing.assert_array_equal(positions, reference[f"pos.{name}.position_ids"].reshape(3, -1))
    assert delta == pytest.approx(float(reference[f"pos.{name}.rope_delta"].reshape(-1)[0]), abs=1e-3)


def test_an_image_spreads_over_rows_and_columns_and_the_text_goes_on_behind_its_longer_side() -> None:
    positions, delta = prompt_positions([TEXT, *PICTURE, TEXT], TOKENS, MediaLayout(images=[(1, 4, 6)]))
    np.testing.assert_array_equal(positions[:, 2:8], [[2] * 6, [2, 2, 2, 3, 3, 3], [2, 3, 4, 2, 3, 4]])
    np.testing.assert_array_equal(positions[:, 8:], [[5, 6]] * 3)
    assert delta == 7 - 10


def test_a_video_runs_at_thirteen_positions_a_second_beside_a_video_with_sound() -> None:
    sounding = [TOKENS.vision_start, TOKENS.audio_start, *[TOKENS.video_pad] * 4, TOKENS.audio_pad, TOKENS.audio_end]
    ids = [*SILENT_FILM, *sounding, TOKENS.vision_end]
    layout = MediaLayout(videos=[(2, 4, 4), (1, 4, 4)], seconds_per_grid=[0.5, 1.0], video_audio=[0, 1])
    positions, _ = prompt_positions(ids, TOKENS, layout)
    assert positions[0, 1:9].tolist() == [1] * 4 + [7.5] * 4
    assert positions[:, 9:12].tolist() == [[8.5, 9.5, 10.5]] * 3
    np.testing.assert_array_equal(positions[0, 12:16], [11.5] * 4)


def test_text_and_sound_count_up_and_nothing_makes_nothing() -> None:
    ids = [TEXT, TOKENS.audio_start, TOKENS.audio_pad, TOKENS.audio_end]
    positions, delta = prompt_positions(ids, TOKENS, MediaLayout())
    np.testing.assert_array_equal(positions, [[0, 1, 2, 3]] * 3)
    assert delta == 0
    assert prompt_positions([], TOKENS, MediaLayout())[0].shape == (3, 0)


@pytest.mark.parametrize(
    ("ids", "layout", "says"),
    [
        (PICTURE, MediaLayout(), r"more image placeholders than images \(0\)"),
        (PICTURE + PICTURE, MediaLayout(images=[(1, 4, 6)]), r"more image placeholders than images \(1\)"),
        (SILENT_FILM, MediaLayout(), "more video placeholders"),
        (PICTURE, MediaLayout(images=[(1, 4, 8)]), "has 6 placeholders from token 1 on, .* makes 8"),
        ([*PICTURE, TEXT, TEXT], MediaLayout(images=[(1, 4, 8)]), "has 6 placeholders from token 1 on, .* makes 8"),
    ],
)
def test_placeholders_that_do_not_fit_the_media_are_refused(ids: list[int], layout: MediaLayout, says: str) -> None:
    with pytest.raises(InputError, match=says):
        prompt_positions(ids, TOKENS, layout)


TIMES = st.lists(st.floats(0, 60, width=32), max_size=30).map(sorted)


@settings(max_examples=150)
@given(video=TIMES, audio=TIMES)
def test_interleaving_is_a_stable_merge_with_the_video_first(video: list[float], audio: list[float]) -> None:
    order = interleave_order(np.array(video), np.array(audio))
    assert order.sum() == len(video) and len(order) == len(video) + len(audio)
    merged = sorted([(time, 0, i) for i, time in enumerate(video)] + [(time, 1, i) for i, time in enumerate(audio)])
    assert [kind == 0 for _, kind, _ in merged] == order.tolist()
