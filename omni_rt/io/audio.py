"""Audio files and arrays to mono samples at a wanted rate, and back, through libsndfile and soxr.

Source files are untrusted: what the header claims is checked against limits before anything is decoded, and decoding
goes block by block, so memory follows the length of the result and nothing else.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from omni_rt.errors import InputError
from omni_rt.io.files import atomic_write, open_input

AudioSource = str | os.PathLike[str] | bytes | bytearray | memoryview | tuple[np.ndarray, int]

MAX_SECONDS = 3600.0
"""Longest audio that is read: 65536 positions of context hold 84 minutes at 13 a second."""
MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 1_000, 768_000
_BLOCK_SAMPLES = 1 << 18  # values decoded at once, over all channels
_READABLE = "WAV, FLAC, OGG and MP3 are read"
_WRITERS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_FULL_SCALE = {"int16": 1 << 15, "int32": 1 << 31}


def load_audio(source: AudioSource, rate: int, *, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Return `source` as float32 mono samples [N] in [-1, 1] at `rate` Hz.

    `source` is a path, the bytes of a file, or `(samples, rate)` with samples [N] or [N, channels], float in [-1, 1],
    int16 or int32. Channels are averaged, then resampled (soxr, high quality). Raises InputError for what is not audio,
    is empty, longer than `max_seconds`, has over 64 channels, or has samples that are NaN or infinite.
    """
    _check_rate(rate, "the wanted rate")
    if isinstance(source, tuple):
        return _from_array(source, rate, max_seconds)
    if isinstance(source, np.ndarray):
        raise InputError("audio came as a bare array without its rate; give (samples, rate)")
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_file(io.BytesIO(source), f"audio of {len(source)} bytes", rate, max_seconds)
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"audio came as {type(source).__name__}; give a path, bytes or (samples, rate)")
    with open_input(source, "audio") as file:
        return _from_file(file, str(Path(source)), rate, max_seconds)


def save_audio(path: str | os.PathLike[str], samples: np.ndarray, rate: int) -> None:
    """Write mono `samples` [N] in [-1, 1] to `path` at `rate` Hz; the suffix chooses WAV, FLAC, OGG or MP3.

    Samples beyond [-1, 1] are clipped; WAV and FLAC hold 16 bits. The file appears whole or not at all. Raises
    InputError for an unknown suffix, a directory that is missing or not writable, and samples that are NaN or infinite.
    """
    target = Path(path)
    if target.suffix.lower() not in _WRITERS:
        raise InputError(f"{target}: its suffix is {target.suffix!r}, audio is written as {', '.join(_WRITERS)}")
    if not target.parent.is_dir():
        raise InputError(f"{target}: its directory does not exist; create {target.parent} first")
    if target.is_dir():
        raise InputError(f"{target}: is a directory; give the name of a file")
    pcm = _to_pcm16(samples)
    _check_rate(rate, str(target))
    encoded = io.BytesIO()  # libsndfile does not take every name, and cannot tell that a disk is full
    try:
        _encode(encoded, pcm, rate, *_WRITERS[target.suffix.lower()])
    except soundfile.LibsndfileError as error:
        raise InputError(f"{target}: cannot be written at {rate} Hz ({error.error_string})") from error
    with atomic_write(target) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """Return mono `samples` [N] in [-1, 1] at `rate` Hz as the bytes of a 16-bit WAV file."""
    _check_rate(rate, "the audio")
    buffer = io.BytesIO()
    _encode(buffer, _to_pcm16(samples), rate, *_WRITERS[".wav"])
    return buffer.getvalue()


def _from_array(source: tuple[np.ndarray, int], rate: int, max_seconds: float) -> np.ndarray:
    if len(source) != 2:
        raise InputError(f"audio came as a tuple of {len(source)}; give (samples, rate)")
    samples, own_rate = np.asarray(source[0]), source[1]
    _check_rate(own_rate, "the audio")
    if samples.dtype.name in _FULL_SCALE:
        samples = samples.astype(np.float32) / np.float32(_FULL_SCALE[samples.dtype.name])
    elif samples.dtype.kind != "f":
        raise InputError(f"audio samples are {samples.dtype}; give floats in [-1, 1], int16 or int32")
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise InputError(f"audio has shape {samples.shape}, expected [samples] or [samples, channels]")
    if samples.shape[1] > MAX_CHANNELS >= len(samples) > 0:
        found = f"audio has shape {samples.shape}, {samples.shape[1]} channels"
        raise InputError(f"{found}, expected [samples, channels]; transpose it")
    _check_size("audio", len(samples), samples.shape[1], int(own_rate), max_seconds)
    step = _BLOCK_SAMPLES // samples.shape[1]
    blocks = (samples[at : at + step] for at in range(0, len(samples), step))
    return mix_and_resample(blocks, "audio", int(own_rate), rate, max_seconds)


def _from_file(file: BinaryIO, name: str, rate: int, max_seconds: float) -> np.ndarray:
    start = file.read(64)
    if not start:
        raise InputError(f"{name}: is empty (0 bytes); {_READABLE}")
    file.seek(0)
    channels = _wav_channels(start)
    if channels is not None and not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: has {channels} channels, 1 to {MAX_CHANNELS} are read; mix it down first")
    try:
        # A name that ends in .raw makes soundfile ask for a rate: it is given none, since raw data has no header.
        with soundfile.SoundFile(file) as sound:
            _check_rate(sound.samplerate, name)
            _check_size(name, sound.frames, sound.channels, sound.samplerate, max_seconds)
            step = _BLOCK_SAMPLES // sound.channels
            blocks = (sound.read(step, dtype="float32", always_2d=True) for _ in itertools.repeat(None))
            return mix_and_resample(blocks, name, sound.samplerate, rate, max_seconds)
    except (soundfile.SoundFileError, TypeError) as error:
        reason = f"is not readable audio ({getattr(error, 'error_string', error)}); it begins with {start[:16]!r}"
        raise InputError(f"{name}: {reason}, {_READABLE}") from error


def mix_and_resample(
    blocks: Iterator[np.ndarray], name: str, own_rate: int, rate: int, max_seconds: float
) -> np.ndarray:
    """Return blocks [n, channels] as one mono array at `rate`; an empty block ends them."""
    stream = None if own_rate == rate else soxr.ResampleStream(own_rate, rate, 1, dtype="float32", quality="HQ")
    pieces, count = [], 0
    for block in blocks:
        if not len(block):
            break
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        mono = np.ascontiguousarray(mono, np.float32)
        if not np.isfinite(mono).all():
            at = count + int(np.argmin(np.isfinite(mono)))
            raise InputError(f"{name}: the sample at {at / own_rate:.3f} s is NaN or infinite; repair the recording")
        count += len(mono)
        # Headers of compressed files may understate the length, so what was really decoded is counted too.
        _check_size(name, count, 1, own_rate, max_seconds)
        pieces.append(mono if stream is None else stream.resample_chunk(mono))
    if count == 0:
        raise InputError(f"{name}: holds no samples; record something first")
    if stream is not None:
        pieces.append(stream.resample_chunk(np.empty(0, np.float32), last=True))
    return np.concatenate(pieces)


def _check_size(name: str, samples: int, channels: int, rate: int, max_seconds: float) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: has {channels} channels, 1 to {MAX_CHANNELS} are read; mix it down first")
    if samples <= 0:
        raise InputError(f"{name}: holds no samples; record something first")
    if samples > max_seconds * rate:
        raise InputError(
            f"{name}: lasts {samples / rate:.0f} s, at most {max_seconds:.0f} s are read; cut it into parts"
        )


def _check_rate(rate: object, name: str) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{name}: its rate is {rate!r}, expected a whole number of Hz from {MIN_RATE} to {MAX_RATE}")


def _wav_channels(start: bytes) -> int | None:
    """Return the channels that a WAV header states, None when `start` shows none: libsndfile names no count."""
    if len(start) >= 24 and start[:4] == b"RIFF" and start[8:16] == b"WAVEfmt ":
        return int.from_bytes(start[22:24], "little")
    return None


def _to_pcm16(samples: np.ndarray) -> np.ndarray:
    wave = np.asarray(samples)
    if wave.ndim != 1 or wave.dtype.kind != "f":
        raise InputError(f"audio to write is {wave.dtype} {wave.shape}, expected floats of one channel [samples]")
    if not np.isfinite(wave).all():
        raise InputError(f"audio to write has {np.count_nonzero(~np.isfinite(wave))} samples that are NaN or infinite")
    # 1.0 has no 16-bit twin: it becomes 32767, and everything read from a 16-bit file is written back unchanged.
    return np.clip(np.rint(wave.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)


def _encode(file: io.BytesIO, pcm: np.ndarray, rate: int, container: str, subtype: str) -> None:
    step = 1 << 16  # libsndfile's Vorbis encoder keeps a whole write on its stack
    with soundfile.SoundFile(file, "w", int(rate), 1, subtype, format=container) as sound:
        for at in range(0, len(pcm), step):
            sound.write(pcm[at : at + step])
