"""Pictures and video frames to the patches that the vision encoder reads, as the reference's processors cut them.

Source: the Qwen2-VL image and video processors with patch 16. Resizing reproduces the fixed-point antialiased bicubic
of the reference's CPU kernel, level for level.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from omni_rt.errors import InputError, ModelFormatError
from omni_rt.io.files import read_json

MAX_ASPECT = 200
MAX_FRAMES = 768
_STRIP = 32  # rows resized at once


@dataclass(frozen=True, kw_only=True)
class PatchSettings:
    """How frames become patches: sizes in pixels, `temporal` frames to a patch, `merge` x `merge` patches to a token.

    A frame is resized to multiples of `patch * merge` with `min_pixels` to `max_pixels` in all; values become
    (x / 255 - mean) / std.
    """

    patch: int = 16
    merge: int = 2
    temporal: int = 2
    min_pixels: int = 3136
    max_pixels: int = 12_845_056
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def factor(self) -> int:
        """Pixels along one side of a merged token: both sides of a resized frame are multiples of it."""
        return self.patch * self.merge

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> PatchSettings:
        """Return the image settings of a checkpoint's preprocessor_config.json, the released ones where it has none.

        Raises ModelFormatError for a setting that is malformed.
        """
        path = Path(directory) / "preprocessor_config.json"
        data = read_json(path) if path.is_file() else {}
        size = data["size"] if isinstance(data.get("size"), dict) else {}
        names = {
            "patch": ("patch_size", None),
            "merge": ("merge_size", None),
            "temporal": ("temporal_patch_size", None),
            "min_pixels": ("min_pixels", size.get("shortest_edge")),
            "max_pixels": ("max_pixels", size.get("longest_edge")),
        }
        found: dict[str, Any] = {}
        for field, (name, other) in names.items():
            value = data.get(name, other)
            if value is not None:
                found[field] = _whole(value, f"{path}: {name}")
        for field, name in (("mean", "image_mean"), ("std", "image_std")):
            if name in data:
                found[field] = _triple(data[name], f"{path}: {name}")
        return cls(**found)

    def for_video(self) -> PatchSettings:
        """Return these settings with the bounds of one video frame, which the reference's processor fixes itself."""
        return replace(self, min_pixels=128 * 32 * 32, max_pixels=768 * 32 * 32)


IMAGE = PatchSettings()
"""The released settings for still pictures."""
VIDEO = IMAGE.for_video()
"""The released settings for video frames."""


def image_patches(rgb: np.ndarray, settings: PatchSettings = IMAGE) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return (pixels [P, C], grid (1, h, w)) of a picture `rgb` [H, W, 3] uint8, float32.

    P = h w patches in the order of the encoder (blocks of `merge` x `merge`, row by row), C = 3 temporal patch patch.
    Both temporal slots hold the same picture. Raises InputError for another shape or type and for strips longer than
    200 times their width.
    """
    _check_frames(rgb, 3, "image", "[H, W, 3]")
    values = _normalise(resize_bicubic(rgb, *smart_resize(rgb.shape[0], rgb.shape[1], settings)), settings)
    return patchify(np.broadcast_to(values, (settings.temporal, *values.shape)), settings)


def video_patches(frames: np.ndarray, settings: PatchSettings = VIDEO) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return (pixels [P, C], grid (t, h, w)) of `frames` [F, H, W, 3] uint8, float32.

    t = ceil(F / temporal): the last frame is repeated to fill the last slot. P = t h w. Raises InputError as
    `image_patches` does, and for more than 768 frames.
    """
    _check_frames(frames, 4, "video", "[frames, H, W, 3]")
    if len(frames) > MAX_FRAMES:
        raise InputError(f"video has {len(frames)} frames, at most {MAX_FRAMES} are read; sample fewer per second")
    height, width = smart_resize(frames.shape[1], frames.shape[2], settings)
    resized = [_normalise(resize_bicubic(frame, height, width), settings) for frame in frames]
    resized += resized[-1:] * (-len(resized) % settings.temporal)
    return patchify(np.stack(resized), settings)


def patchify(values: np.ndarray, settings: PatchSettings = IMAGE) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return (patches [P, C], grid (t, h, w)) of `values` [F, H, W, 3], whose sides are whole tokens already."""
    count, height, width, channels = values.shape
    patch, merge, temporal = settings.patch, settings.merge, settings.temporal
    t, h, w = count // temporal, height // patch, width // patch
    split = values.reshape(t, temporal, h // merge, merge, patch, w // merge, merge, patch, channels)
    # To: t, block row, block column, row in block, column in block, then channel, frame, y, x inside the patch.
    ordered = split.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return np.ascontiguousarray(ordered).reshape(t * h * w, -1), (t, h, w)


def smart_resize(height: int, width: int, settings: PatchSettings = IMAGE) -> tuple[int, int]:
    """Return the (height, width) to resize to: near the given shape, whole tokens, within the pixel bounds.

    Raises InputError for an empty picture or one side over 200 times the other.
    """
    if min(height, width) < 1:
        raise InputError(f"picture is {width} x {height} pixels; it has nothing to look at")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(f"picture is {width} x {height} pixels, one side over {MAX_ASPECT} times the other; crop it")
    factor, area = settings.factor, height * width
    # Python's round is half-to-even, and so is the reference's.
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > settings.max_pixels:
        shrink = math.sqrt(area / settings.max_pixels)
        rows, columns = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif rows * columns < settings.min_pixels:
        grow = math.sqrt(settings.min_pixels / area)
        rows, columns = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return rows, columns


def resize_bicubic(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `rgb` [H, W, C] uint8 resized to [height, width, C], antialiased bicubic, rounded after each pass."""
    if width != rgb.shape[1]:
        wide = np.empty((rgb.shape[0], width, rgb.shape[2]), np.uint8)
        for row in range(0, len(rgb), _STRIP):  # strips stay in the cache, whole pictures do not
            strip = np.ascontiguousarray(rgb[row : row + _STRIP].transpose(1, 0, 2))
            wide[row : row + _STRIP] = _resample(strip, width).transpose(1, 0, 2)
        rgb = wide
    return np.ascontiguousarray(rgb) if height == len(rgb) else _resample(rgb, height)


def _resample(values: np.ndarray, size: int) -> np.ndarray:
    """Return `values` [N, M, C] uint8 resampled along the first axis to `size`."""
    first, weights, precision = _fixed_point_weights(len(values), size)
    result = np.empty((size, *values.shape[1:]), np.uint8)
    for row in range(0, size, _STRIP):
        strip = slice(row, row + _STRIP)
        total = np.full(result[strip].shape, 1 << (precision - 1), np.int32)
        for tap in range(weights.shape[1]):
            total += weights[strip, tap, None, None] * values[np.minimum(first[strip] + tap, len(values) - 1)]
        result[strip] = np.clip(total >> precision, 0, 255)
    return result


def _fixed_point_weights(source: int, target: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return (first source index [target], weights [target, taps] int32, precision in bits) of the bicubic filter.

    The cubic has a = -0.5 and is stretched by the scale when shrinking. Weights are rounded to the most bits with which
    the largest fits int16, as in the reference's kernel for bytes.
    """
    scale = source / target
    reach = 2 * max(scale, 1.0)
    centre = scale * (np.arange(target) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), source) - first
    tap = np.arange(int(count.max()))
    distance = np.abs((tap + first[:, None] - centre[:, None] + 0.5) / max(scale, 1.0))
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    cubic = np.where(distance < 1, near, np.where(distance < 2, far, 0.0)) * (tap < count[:, None])
    cubic /= cubic.sum(axis=1, keepdims=True)
    largest, precision = cubic.max(), 0
    while precision < 22 and int(0.5 + largest * (1 << (precision + 1))) < 1 << 15:
        precision += 1
    scaled = cubic * (1 << precision)
    return first, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32), precision


def _normalise(rgb: np.ndarray, settings: PatchSettings) -> np.ndarray:
    """Return (x / 255 - mean) / std of `rgb`, float32, as the one subtraction and division of the reference."""
    mean, std = 255 * np.array(settings.mean), 255 * np.array(settings.std)
    return (rgb - mean.astype(np.float32)) / std.astype(np.float32)


def _check_frames(values: object, dimensions: int, what: str, expected: str) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.uint8:
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError(f"{what} is {kind}, expected an array of uint8 {expected}")
    if values.ndim != dimensions or values.shape[-1] != 3 or 0 in values.shape:
        raise InputError(f"{what} has shape {values.shape}, expected {expected} with nothing empty")


def _whole(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value < 1 << 31:
        raise ModelFormatError(f"{where} is {value!r}, expected a whole number above 0; download it again")
    return value


def _triple(value: object, where: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 3 or not all(type(v) in (int, float) and v > 0 for v in value):
        raise ModelFormatError(f"{where} is {value!r}, expected 3 numbers above 0; download it again")
    return tuple(map(float, value))
