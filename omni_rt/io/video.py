"""Video files to frames and sound, through FFmpeg's libraries (PyAV, the optional extra `video`).

Files are untrusted. Containers are told by their first bytes, and only those that hold everything themselves are
opened: playlists name other files. Sizes are checked before a frame is decoded, and a frame is resized right after, so
that memory follows the result. Frames are chosen as by the helper package that the released model's README names.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from omni_rt.errors import InputError, UnsupportedError
from omni_rt.io.audio import mix_and_resample
from omni_rt.io.files import open_input
from omni_rt.io.mel import HOP, RATE
from omni_rt.io.patches import MAX_FRAMES, PatchSettings, resize_bicubic, smart_resize
from omni_rt.prompt import Video

VideoSource = str | os.PathLike[str] | bytes | bytearray | memoryview

SAMPLED_FPS = 2.0
MIN_FRAMES = 4
MAX_SECONDS = 3600.0
MAX_FRAME_PIXELS = 1 << 25
"""Largest frame that is decoded: 33.5 million pixels, 8K."""
TOTAL_TOKENS = 128_000 * 9 // 10
"""Most tokens that all frames of a file may make: longer videos get smaller frames, down to the least size."""
MIN_RATE, MAX_RATE = 0.01, 1000.0

_READABLE = "MP4, MOV, MKV, WebM and AVI are read"


def load_video(source: VideoSource, settings: PatchSettings, *, sound: bool | None = None) -> Video:
    """Return frames of a video file, two a second and resized as `settings` say, and its sound at 16 kHz.

    4 to 768 frames are taken, an even number, at equal distances from first to last; `fps` is their true rate. `sound`
    True asks for the sound, False leaves it out, None takes it where the file has one. Raises InputError for other
    formats, damaged files, no pictures, or no sound when it is asked for; UnsupportedError without PyAV.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise InputError("video is empty (0 bytes); give the bytes of a video file")
        return _load(io.BytesIO(source), f"video of {len(source)} bytes", settings, sound)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"video came as {type(source).__name__}; give a path, bytes, Video(frames, fps) or (frames, fps)"
        )
    with open_input(source, "video") as file:
        return _load(file, str(Path(source)), settings, sound)


def sampled_frames(total: int, fps: float) -> np.ndarray:
    """Return which of `total` frames, `fps` a second, are shown to the model: rising indices, int [n]."""
    even = total // 2 * 2
    most, least = min(MAX_FRAMES, max(even, 1)), MIN_FRAMES
    wanted = min(max(total / fps * SAMPLED_FPS, least), most)
    count = max(int(wanted) // 2 * 2, 1)
    # The reference rounds in float32, half to even.
    return np.round(np.linspace(0, total - 1, count, dtype=np.float32)).astype(np.int64)


def frame_size(height: int, width: int, frames: int, settings: PatchSettings) -> tuple[int, int]:
    """Return the (height, width) of each of `frames` frames: within `settings`, smaller where there are many."""
    budget = TOTAL_TOKENS * settings.factor**2 * settings.temporal // frames
    most = min(settings.max_pixels, max(budget, int(settings.min_pixels * 1.05)))
    return smart_resize(height, width, replace(settings, max_pixels=most))


def _load(file: BinaryIO, name: str, settings: PatchSettings, sound: bool | None) -> Video:
    container = _container_of(file, name)
    av = _library(name)
    try:
        total, fps = _count(av, file, container, name)
        frames, shown = _frames(av, file, container, name, total, fps, settings)
        heard = None if sound is False else _sound(av, file, container, name)
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{name}: is damaged or has a codec that cannot be read ({error}); save it again") from error
    if sound and heard is None:
        raise InputError(
            f"{name}: has no sound to hear; leave use_audio_in_video out, or give a file with an audio track"
        )
    return Video(frames, shown, heard)


def _library(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise UnsupportedError(
            f"{name}: video files are read with PyAV, which is not installed; run: pip install 'omni-rt[video]' "
            "(or give the frames as an array: Video(frames, fps))"
        ) from error
    return av


def _container_of(file: BinaryIO, name: str) -> str:
    """Return FFmpeg's name of the container that the first bytes show."""
    start = file.read(16)
    file.seek(0)
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return "mov"
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if start[:4] == b"RIFF" and start[8:11] == b"AVI":
        return "avi"
    raise InputError(f"{name}: is not a video that can be read; it begins with {start!r}, {_READABLE}")


def _open(av: Any, file: BinaryIO, container: str) -> Any:
    """Open the file anew. FFmpeg may open no other file, and no decoder a larger frame, probing included."""
    file.seek(0)
    options = {"protocol_whitelist": "none", "max_pixels": str(MAX_FRAME_PIXELS)}
    return av.open(file, format=container, options=options, buffer_size=1 << 18)


def _count(av: Any, file: BinaryIO, container: str, name: str) -> tuple[int, float]:
    """Return how many frames the file holds, by its packets, and how many of them make a second."""
    with _open(av, file, container) as opened:
        if not opened.streams.video:
            kinds = ", ".join(stream.type for stream in opened.streams) or "none"
            raise InputError(f"{name}: holds no pictures (streams: {kinds}); give a video, or pass sound as audio")
        stream = opened.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{name}: its codec is not known to FFmpeg; save it as H.264 in MP4")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        count = 0
        for packet in opened.demux(stream):
            count += packet.size > 0
            if rate and count > MAX_SECONDS * rate:
                raise InputError(f"{name}: lasts over {MAX_SECONDS:.0f} s, the most that is read; cut it into parts")
        claimed = stream.frames
        width, height = stream.codec_context.width, stream.codec_context.height
    if not count:
        raise InputError(f"{name}: holds 0 frames; record something first")
    if count < claimed * 0.9:
        raise InputError(
            f"{name}: is cut short: it holds {count} of the {claimed} frames that it announces; copy it again"
        )
    if not width or not height or width * height > MAX_FRAME_PIXELS:
        raise InputError(
            f"{name}: its frames cannot be decoded or have more than {MAX_FRAME_PIXELS} pixels ({width} x {height}); "
            "save it smaller"
        )
    if not rate or not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{name}: states {rate} frames a second, expected {MIN_RATE} to {MAX_RATE:.0f}; save it again")
    return count, float(rate)


def _frames(
    av: Any, file: BinaryIO, container: str, name: str, total: int, fps: float, settings: PatchSettings
) -> tuple[np.ndarray, float]:
    """Return the chosen frames [n, H, W, 3] and their rate; frames that no packet announced are not waited for."""
    wanted = sampled_frames(total, fps)
    left = iter(wanted.tolist())
    chosen: list[np.ndarray] = []
    decoded, following = 0, next(left)
    with _open(av, file, container) as opened:
        stream = opened.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in opened.decode(stream):
            if decoded == following:
                chosen.append(_upright(frame, name, len(wanted), settings))
                following = next(left, -1)
            decoded += 1
            if following < 0:
                return np.stack(chosen), len(wanted) / total * fps
    if not decoded:
        raise InputError(f"{name}: holds 0 frames that can be decoded; save it again")
    # Some packets make no frame of their own (VP8 hides some): choose again among those that came.
    return _frames(av, file, container, name, decoded, fps, settings)


def _upright(frame: Any, name: str, count: int, settings: PatchSettings) -> np.ndarray:
    """Return a decoded frame as RGB uint8 [H, W, 3], turned as its display matrix says, resized."""
    if frame.width * frame.height > MAX_FRAME_PIXELS:
        raise InputError(f"{name}: has a frame of {frame.width} x {frame.height}, at most {MAX_FRAME_PIXELS} pixels")
    rgb = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return resize_bicubic(rgb, *frame_size(rgb.shape[0], rgb.shape[1], count, settings))


def _sound(av: Any, file: BinaryIO, container: str, name: str) -> np.ndarray | None:
    """Return the first audio track at 16 kHz mono, None where there is none or less than one step of the encoder."""
    with _open(av, file, container) as opened:
        if not opened.streams.audio:
            return None
        stream = opened.streams.audio[0]
        if stream.codec_context is None:
            raise InputError(f"{name}: the codec of its sound is not known to FFmpeg; save it as AAC")
        rate = stream.codec_context.sample_rate
        blocks = _sound_blocks(av, opened, stream)
        first = next(blocks, None)
        if first is None:
            return None
        samples = mix_and_resample(itertools.chain([first], blocks), name, rate, RATE, MAX_SECONDS)
    return samples if len(samples) >= HOP else None


def _sound_blocks(av: Any, opened: Any, stream: Any) -> Iterator[np.ndarray]:
    """Yield decoded samples [n, channels] float32."""
    resampler = av.AudioResampler(format="fltp")  # only the sample format changes
    for frame in opened.decode(stream):
        for piece in resampler.resample(frame):
            if piece.samples:
                yield piece.to_ndarray().T
