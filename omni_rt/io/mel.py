"""Log-mel spectrograms: the Whisper front end that Qwen3-Omni hears through, and the pieces it is built from.

Source: the feature extractor of the reference (n_fft 400, hop 160, periodic Hann, Slaney mel scale, log10, 8-decade
floor below the loudest value of the clip).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from omni_rt.errors import InputError

RATE = 16_000
"""Samples per second that `log_mel` expects."""
MELS = 128
HOP = 160
"""Samples per mel frame: 100 frames are one second."""
_WINDOW = 400
_BLOCK = 4096  # frames transformed at once: bounds the memory of long clips to about 40 MB


def mel_scale(hertz: np.ndarray) -> np.ndarray:
    """Return Slaney mels of `hertz`: linear below 1 kHz (3 mels per 200 Hz), logarithmic above."""
    linear = np.asarray(hertz, np.float64) * 3 / 200
    return np.where(linear < 15, linear, 15 + 27 / np.log(6.4) * np.log(np.maximum(linear, 15) / 15))


def mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    """Return the frequencies of Slaney `mels` in Hz."""
    mels = np.asarray(mels, np.float64)
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (np.maximum(mels, 15) - 15)))


@cache
def mel_filterbank(bins: int, mels: int, low: float, high: float, rate: int) -> np.ndarray:
    """Return triangular filters [bins, mels] of unit area per hertz, float64 and read-only.

    `bins` are those of a real transform of 2 (bins - 1) samples at `rate` Hz; the edges of the filters are equally
    spaced in Slaney mels from `low` to `high` Hz.
    """
    first, last = mel_scale(np.array([low, high]))
    edges = mel_to_hertz(np.linspace(first, last, mels + 2))
    frequencies = np.linspace(0, rate / 2, bins)[:, None]
    rising = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies) / np.diff(edges)[1:]
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    filters.flags.writeable = False
    return filters


def hann(size: int) -> np.ndarray:
    """Return the periodic Hann window [size]."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def power_spectrum(padded: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Return |rfft|^2 [frames, size / 2 + 1] of Hann windows of `size` samples, one every `hop`, float64.

    `padded` [N] already carries its padding: there are 1 + (N - size) // hop frames.
    """
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    spectrum = np.fft.rfft(windows * hann(size))
    return spectrum.real**2 + spectrum.imag**2


def log_mel(samples: np.ndarray, padded_length: int | None = None) -> np.ndarray:
    """Return log-mels [F, 128] of 16 kHz mono `samples` [N], 100 frames a second, float32.

    F = N // 160. A clip that goes through the reference together with a longer one is zero-padded to that one's
    `padded_length` first and keeps ceil(N / 160) frames. Raises InputError for fewer than 201 samples, which cannot be
    reflected at both ends, and for values that are not finite.
    """
    wave = np.asarray(samples)
    if wave.ndim != 1:
        raise InputError(f"audio has shape {wave.shape}, expected one channel [samples]")
    count = len(wave)
    length = count if padded_length is None else padded_length
    if length <= _WINDOW // 2 or count == 0:
        raise InputError(
            f"audio has {count} samples, at least {_WINDOW // 2 + 1} ({1000 * (_WINDOW // 2 + 1) / RATE:.1f} ms at "
            f"{RATE} Hz) are needed; give a longer clip"
        )
    if length < count:
        raise InputError(f"audio has {count} samples, more than the {length} that it is to be padded to")
    if not np.isfinite(wave).all():
        raise InputError(f"audio has {np.count_nonzero(~np.isfinite(wave))} samples that are NaN or infinite")
    padded = np.pad(np.pad(wave.astype(np.float64), (0, length - count)), _WINDOW // 2, mode="reflect")
    filters = mel_filterbank(_WINDOW // 2 + 1, MELS, 0.0, RATE / 2, RATE)
    frames = length // HOP  # the transform has one more, which the reference drops
    mels = np.empty((frames, MELS))
    for first in range(0, frames, _BLOCK):
        last = min(first + _BLOCK, frames)
        block = padded[first * HOP : (last - 1) * HOP + _WINDOW]
        np.matmul(power_spectrum(block, _WINDOW, HOP), filters, out=mels[first:last])
    logs = np.log10(np.maximum(mels, 1e-10, out=mels), out=mels)
    logs = (np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0
    return logs[: frames if length == count else -(-count // HOP)].astype(np.float32)
