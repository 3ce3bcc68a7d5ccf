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
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from omni_rt.errors import InputError, UnsupportedError
from omni_rt.io.audio import mix_and_resample
from omni_rt.io.files import open_input
from omni_rt.io.patches import MAX_FRAMES, PatchSettings, resize_bicubic, smart_resize
from omni_rt.prompt import AUDIO_RATE, LEAST_SAMPLES, Video

VideoSource = str | os.PathLike[str] | bytes | bytearray | memoryview

SAMPLED_FPS = 2.0
MIN_FRAMES = 4
MAX_SECONDS = 3600.0
MAX_FRAME_PIXELS = 1 << 25
"""Largest frame that is decoded: 33.5 million pixels, 8K."""
TOTAL_TOKENS = 128_000 * 9 // 10
"""Most tokens that all frames of a file may make: longer videos get smaller frames, down to the least size."""
MIN_RATE, MAX_RATE = 0.01, 1000.0

NO_SOUND = "has no sound, but its sound was asked for; do not ask, or give a file with an audio track"
_READABLE = "MP4, MOV, MKV, WebM and AVI are read"


def load_video(source: VideoSource, settings: PatchSettings, *, sound: bool | None = None) -> Video:
    """Return frames of a video file, two a second and resized as `settings` say, and its sound at 16 kHz.

    4 to 768 frames are taken, an even number, at equal distances from first to last; `fps` is their true rate. `sound`
    True asks for the sound, False leaves it out, None takes it where the file has one. Raises InputError for other
    formats, damaged files, no pictures, or no sound when it is asked for; UnsupportedError without PyAV.
    """
    with _opened(source) as file:
        return file.load(settings, sound)


def check_video(source: VideoSource, *, sound: bool | None = None) -> None:
    """Raise the errors of `load_video` that show without decoding frames."""
    with _opened(source) as file:
        file.checked_count(sound)


@contextmanager
def _opened(source: VideoSource) -> Iterator[_File]:
    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise InputError("video is empty (0 bytes); give the bytes of a video file")
        yield _File(io.BytesIO(source), f"video of {len(source)} bytes")
        return
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"video came as {type(source).__name__}; give a path, bytes, Video(frames, fps) or (frames, fps)"
        )
    with open_input(source, "video") as file:
        yield _File(file, str(Path(source)))


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


class _File:
    """A video file that is opened anew for each pass: to count, to show, to hear."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.container = _container_of(file, name)
        self.av = _library(name)

    def load(self, settings: PatchSettings, sound: bool | None) -> Video:
        """Return the chosen frames, and the sound unless it is declined."""
        with self.refusing():
            total, fps = self.count(sound)
            frames, shown = self.frames(total, fps, settings)
            heard = None if sound is False else self.sound()
        if sound and heard is None:
            raise InputError(f"{self.name}: {NO_SOUND}")
        return Video(frames, shown, heard)

    def checked_count(self, sound: bool | None) -> tuple[int, float]:
        """Return the number of frames and their rate; raise InputError for what cannot be shown, or heard if asked."""
        with self.refusing():
            return self.count(sound)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Raise InputError where FFmpeg raises."""
        try:
            yield
        except self.av.EOFError as error:
            raise InputError(
                f"{self.name}: holds 0 frames: it ends before the first; record something first"
            ) from error
        except (self.av.FFmpegError, ValueError) as error:
            raise InputError(
                f"{self.name}: is damaged, or its codec cannot be read ({error}); save it again"
            ) from error

    def open(self) -> Any:
        """Open the file. FFmpeg may open no other file, and no decoder a larger frame, not even to probe."""
        self.file.seek(0)
        options = {"protocol_whitelist": "none", "max_pixels": str(MAX_FRAME_PIXELS)}
        return self.av.open(self.file, format=self.container, options=options, buffer_size=1 << 18)

    def count(self, sound: bool | None) -> tuple[int, float]:
        """Return how many frames the file holds, by its packets, and how many of them make a second."""
        name, count = self.name, 0
        with self.open() as opened:
            if not opened.streams.video:
                kinds = ", ".join(stream.type for stream in opened.streams) or "none"
                raise InputError(f"{name}: holds no pictures (streams: {kinds}); give a video, or pass sound as audio")
            if sound and not opened.streams.audio:
                raise InputError(f"{name}: {NO_SOUND}")
            stream = opened.streams.video[0]
            if stream.codec_context is None:
                raise InputError(f"{name}: its codec is not known to FFmpeg; save it as H.264 in MP4")
            width, height, claimed = stream.codec_context.width, stream.codec_context.height, stream.frames
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            for packet in opened.demux(stream):
                count += packet.size > 0
                if rate and count > MAX_SECONDS * rate:
                    raise InputError(
                        f"{name}: lasts over {MAX_SECONDS:.0f} s, the most that is read; cut it into parts"
                    )
        if not count:
            raise InputError(f"{name}: holds 0 frames; record something first")
        if count < 0.9 * claimed:
            raise InputError(
                f"{name}: is cut short: it holds {count} of its {claimed} frames; download or copy it again"
            )
        if not width or not height or width * height > MAX_FRAME_PIXELS:
            raise InputError(
                f"{name}: its frames cannot be decoded, or have more than {MAX_FRAME_PIXELS} pixels; save it smaller"
            )
        if not rate or not MIN_RATE <= rate <= MAX_RATE:
            raise InputError(
                f"{name}: shows {rate} frames a second, expected {MIN_RATE} to {MAX_RATE:.0f}; save it again"
            )
        return count, float(rate)

    def frames(self, total: int, fps: float, settings: PatchSettings) -> tuple[np.ndarray, float]:
        """Return the frames [n, H, W, 3] chosen of `total` ones, and how many of these make a second."""
        wanted = sampled_frames(total, fps)
        left = iter(wanted.tolist())
        chosen: list[np.ndarray] = []
        decoded, following = 0, next(left)
        with self.open() as opened:
            stream = opened.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in opened.decode(stream):
                if decoded == following:
                    rgb = self.upright(frame)
                    chosen.append(resize_bicubic(rgb, *frame_size(rgb.shape[0], rgb.shape[1], len(wanted), settings)))
                    following = next(left, -1)
                decoded += 1
                if following < 0:
                    return np.stack(chosen), len(wanted) / total * fps
        if not decoded:
            raise InputError(f"{self.name}: holds 0 frames that can be decoded; save it again")
        # Some packets make no frame of their own (VP8 hides some): choose again among the frames that came.
        return self.frames(decoded, fps, settings)

    def upright(self, frame: Any) -> np.ndarray:
        """Return a decoded frame as RGB uint8 [H, W, 3], turned as the file says."""
        if frame.width * frame.height > MAX_FRAME_PIXELS:
            raise InputError(f"{self.name}: has a frame of {frame.width} x {frame.height} pixels; save it smaller")
        return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))

    def sound(self) -> np.ndarray | None:
        """Return the first audio track at 16 kHz mono, None where there is none, or less than the encoder takes."""
        with self.open() as opened:
            if not opened.streams.audio:
                return None
            stream = opened.streams.audio[0]
            if stream.codec_context is None:
                raise InputError(f"{self.name}: the codec of its sound is not known to FFmpeg; save it as AAC")
            blocks = self.blocks(opened, stream)
            first = next(blocks, None)
            if first is None:
                return None
            every = itertools.chain([first], blocks)
            samples = mix_and_resample(every, self.name, stream.codec_context.sample_rate, AUDIO_RATE, MAX_SECONDS)
        return samples if len(samples) >= LEAST_SAMPLES else None

    def blocks(self, opened: Any, stream: Any) -> Iterator[np.ndarray]:
        """Yield the decoded samples of a track, float32 [n, channels]."""
        resampler = self.av.AudioResampler(format="fltp")  # only the sample format changes
        for frame in opened.decode(stream):
            for piece in resampler.resample(frame):
                if piece.samples:
                    yield piece.to_ndarray().T


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
