"""Positions of a prompt on the three axes of the interleaved multimodal rope: time, height, width.

Text and audio tokens advance all axes by one. An image stands still in time and spreads over height and width; a video
also runs in time, 13 positions a second, the clock of the audio encoder. Source: specification of Qwen3-Omni's
`get_rope_index`, checked against it on random layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni.config_sections import TokenIds

Grid = tuple[int, int, int]
"""Patches of an image or a video along time, height and width."""


@dataclass(frozen=True)
class MediaLayout:
    """What fills the placeholders, in order: image grids; video grids with seconds per temporal patch.

    `video_audio` holds for each video the audio tokens interleaved with it, 0 for none. `merge` is how many patches
    merge along each side, `positions_per_second` the clock.
    """

    images: Sequence[Grid] = ()
    videos: Sequence[Grid] = ()
    seconds_per_grid: Sequence[float] = ()
    video_audio: Sequence[int] = ()
    merge: int = 2
    positions_per_second: int = 13


@dataclass
class _Scan:
    """The positions written so far and the next free one."""

    columns: list[np.ndarray] = field(default_factory=list)
    cursor: np.float32 = field(default_factory=np.float32)

    def append(self, block: np.ndarray) -> None:
        self.columns.append(block)

    def text(self, count: int) -> None:
        row = self.cursor + np.arange(count, dtype=np.float32)
        self.append(np.stack([row] * 3))
        self.cursor += np.float32(count)


def prompt_positions(ids: Sequence[int], tokens: TokenIds, layout: MediaLayout) -> tuple[np.ndarray, float]:
    """Return the positions [3, T] of a prompt, and delta: generated token n has all axes at T + n + delta.

    Raises InputError when the placeholders in `ids` do not match the layout.
    """
    scan = _Scan()
    images, videos, index = 0, 0, 0
    while index < len(ids):
        token = ids[index]
        if token == tokens.image_pad:
            _check(images, layout.images, "image")
            block = _grid_positions(layout.images[images], layout, 0.0, scan.cursor)
            images += 1
            scan.append(block)
            scan.cursor = np.float32(1) + block.max()
        elif token == tokens.video_pad:
            _check(videos, layout.videos, "video")
            block = _grid_positions(layout.videos[videos], layout, layout.seconds_per_grid[videos], scan.cursor)
            videos += 1
            scan.append(block)
            scan.cursor = np.float32(1) + block.max()
        elif _starts_sound_in_video(ids, index, tokens, layout, videos):
            scan.text(2)
            block = _interleave(scan, layout, videos)
            videos += 1
            index += 2
        else:
            scan.text(1)
            index += 1
            continue
        _check_run(ids[index : index + block.shape[1]], block.shape[1], tokens, index)
        index += block.shape[1]
    positions = np.concatenate(scan.columns, axis=1) if scan.columns else np.zeros((3, 0), np.float32)
    delta = float(positions.max()) + 1 - len(ids) if len(ids) else 0.0
    return positions, delta


def sound_in_video_as_text(
    ids: Sequence[int], tokens: TokenIds, layout: MediaLayout
) -> tuple[list[int], TokenIds, MediaLayout]:
    """Return the arguments of `prompt_positions` for a reader to whom a video with sound is a run of text tokens.

    The Talker of the reference is one: it is not told that sound lies inside videos. Only where an image follows does
    it find the video, since it then looks for the next picture, and reads it as the Thinker does.
    """
    plain, video = list(ids), 0
    kept: list[int] = []
    index = 0
    last_image = max((place for place, token in enumerate(plain) if token == tokens.image_pad), default=-1)
    while index < len(plain):
        if plain[index] == tokens.video_pad:
            kept.append(video)
            time, height, width = layout.videos[video]
            index += time * height * width // layout.merge**2
            video += 1
        elif _starts_sound_in_video(plain, index, tokens, layout, video):
            stop = plain.index(tokens.vision_end, index)
            if index < last_image:
                kept.append(video)
            else:
                plain[index:stop] = [tokens.tts_pad] * (stop - index)
            video += 1
            index = stop
        else:
            index += 1
    silent = MediaLayout(
        layout.images,
        [layout.videos[i] for i in kept],
        [layout.seconds_per_grid[i] for i in kept],
        [layout.video_audio[i] if i < len(layout.video_audio) else 0 for i in kept],
        layout.merge,
        layout.positions_per_second,
    )
    return plain, tokens, silent


def interleave_order(video_times: np.ndarray, audio_times: np.ndarray) -> np.ndarray:
    """Return the merged order of video and audio tokens, True for video: by time, video first where both agree.

    Both inputs rise. A token of one stream is emitted while it is not later than the next token of the other.
    """
    order = np.empty(len(video_times) + len(audio_times), bool)
    video = audio = 0
    while video < len(video_times) and audio < len(audio_times):
        first = bool(video_times[video] <= audio_times[audio])
        order[video + audio] = first
        video, audio = (video + 1, audio) if first else (video, audio + 1)
    order[video + audio :] = video < len(video_times)
    return order


def _check(index: int, grids: Sequence[Grid], kind: str) -> None:
    if index >= len(grids):
        raise InputError(f"the prompt has more {kind} placeholders than {kind}s ({len(grids)})")


def _check_run(run: Sequence[int], count: int, tokens: TokenIds, index: int) -> None:
    """Raise InputError unless a run of ids that starts at `index` is nothing but `count` placeholders."""
    pads = sum(token in (tokens.image_pad, tokens.video_pad, tokens.audio_pad) for token in run)
    if pads < count:
        raise InputError(
            f"the prompt has {pads} placeholders from token {index} on, but what stands there makes {count}"
        )


def _grid_positions(grid: Grid, layout: MediaLayout, seconds: float, cursor: np.float32) -> np.ndarray:
    """Return [3, t * h * w / merge^2] positions of an image or video that starts at the cursor."""
    time, height, width = grid[0], grid[1] // layout.merge, grid[2] // layout.merge
    clock = np.arange(time, dtype=np.float32) * np.float32(seconds) * np.float32(layout.positions_per_second)
    t = np.repeat(clock + cursor, height * width)
    h = np.tile(np.repeat(np.arange(height, dtype=np.float32), width), time) + cursor
    w = np.tile(np.arange(width, dtype=np.float32), time * height) + cursor
    return np.stack([t, h, w]).astype(np.float32)


def _starts_sound_in_video(ids: Sequence[int], index: int, tokens: TokenIds, layout: MediaLayout, video: int) -> bool:
    return (
        ids[index] == tokens.vision_start
        and index + 1 < len(ids)
        and ids[index + 1] == tokens.audio_start
        and video < len(layout.video_audio)
        and layout.video_audio[video] > 0
    )


def _interleave(scan: _Scan, layout: MediaLayout, video: int) -> np.ndarray:
    """Append a video and its sound merged by time, and move the cursor past the stream that ended last."""
    pictures = _grid_positions(layout.videos[video], layout, layout.seconds_per_grid[video], scan.cursor)
    sound = np.stack([scan.cursor + np.arange(layout.video_audio[video], dtype=np.float32)] * 3)
    order = interleave_order(pictures[0], sound[0])
    block = np.empty((3, order.size), np.float32)
    block[:, order] = pictures
    block[:, ~order] = sound
    scan.append(block)
    # The reference moves on from the last piece that it appended: the rest of the stream that outlasted the other.
    other = np.flatnonzero(order != order[-1])
    last = int(other[-1]) + 1 if len(other) else 0
    scan.cursor = np.float32(1) + block[:, last:].max()
    return block
