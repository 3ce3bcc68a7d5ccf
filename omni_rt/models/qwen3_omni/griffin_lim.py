"""A second vocoder for the same codes: a table of log-mels, then Griffin and Lim's search for a phase that fits.

    codes [K, F] -> mean + sum of K entries: log-mels [4 F, M] -> magnitudes [4 F, B] -> samples

It needs `griffin_lim.safetensors` beside the model: `mean` [D] and `tables` [K, C, D], where D holds the mel frames
that one frame of codes stands for. It runs on the host in NumPy, has no weights that had to be trained, and hears the
whole reply before it says anything: the phase of a sound depends on what follows. For comparison, and to fall back on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omni_rt.errors import InputError, ModelFormatError, UnsupportedError
from omni_rt.io.mel import hann, mel_filterbank
from omni_rt.io.safetensors import SafetensorsFile
from omni_rt.models.code_stream import checked_codes
from omni_rt.models.qwen3_omni.config_sections import Code2WavConfig
from omni_rt.results import AudioOutput

FILE = "griffin_lim.safetensors"
ROUNDS = 60
"""Transforms to the spectrogram and back; more of them change nothing that could be heard."""
MOMENTUM = 0.95
"""How far a round goes on in the direction of the one before (Perraudin et al., 2013)."""
SPREADING_ROUNDS = 40
"""Steps that find magnitudes >= 0 whose mels are the wanted ones."""
SILENCE = 1e-8


class GriffinLim:
    """The vocoder without weights; it is used as Code2Wav is.

    Mel frame m of F * 4 is centred on sample (m + 1/2) * hop, so F frames of codes give F * frame samples.
    """

    def __init__(self, directory: Path, config: Code2WavConfig) -> None:
        """Read the tables of the model in `directory`, whose own vocoder has `config`.

        Raises UnsupportedError when the model has none, ModelFormatError when they belong to another model.
        """
        path = directory / FILE
        if not path.is_file():
            raise UnsupportedError(
                f"{directory}: has no {FILE}, so its codes are not known as mels; use the vocoder code2wav"
            )
        file = SafetensorsFile(path)
        mean, tables = (self._read(file, name) for name in ("mean", "tables"))
        self.window, hop, mels = (self._number(file, name) for name in ("window", "hop", "mels"))
        frame = config.samples_per_frame
        width = mels * (frame // hop)
        expected = (config.codebooks, config.codebook_size, width)
        if mean.shape != (width,) or tables.shape != expected or frame % hop:
            raise ModelFormatError(
                f"{path}: mean {list(mean.shape)} and tables {list(tables.shape)} with {mels} mels and a hop of {hop}, "
                f"but the model's frames of {frame} samples need tables {list(expected)}; take the file that belongs "
                "to the weights"
            )
        self.sample_rate = config.sample_rate
        self._mean, self.tables, self._hop = mean, tables, hop
        self._filters = mel_filterbank(self.window // 2 + 1, mels, 0.0, self.sample_rate / 2, self.sample_rate)

    def __call__(self, codes: np.ndarray) -> AudioOutput:
        """Decode codes int [K, F] to speech; no frames give no samples.

        Raises InputError for codes of another shape or outside the codebooks.
        """
        stream = self.stream()
        return AudioOutput(np.concatenate([stream.push(codes), stream.finish()]), self.sample_rate)

    def stream(self) -> GriffinLimStream:
        """Open a stream: `push` codes [K, T], and `finish` returns all samples."""
        return GriffinLimStream(self)

    def log_mel(self, codes: np.ndarray) -> np.ndarray:
        """Return the natural-log mel magnitudes [T, M] that codes int [K, F] stand for."""
        rows = self._mean + sum(table[chosen] for table, chosen in zip(self.tables, codes, strict=True))
        return np.asarray(rows, np.float32).reshape(-1, self._filters.shape[1])

    def speech(self, log_mel: np.ndarray) -> np.ndarray:
        """Return samples float32 [T * hop] in [-1, 1] whose log-mels are about `log_mel` [T, M]."""
        if not len(log_mel):
            return np.zeros(0, np.float32)
        magnitude = self._magnitude(np.exp(log_mel.astype(np.float64)))
        samples = np.random.default_rng(0).standard_normal(len(log_mel) * self._hop)
        before = np.zeros(magnitude.shape, np.complex128)
        for _ in range(ROUNDS):
            spectrum = self._transform(samples)
            ahead = spectrum + MOMENTUM * (spectrum - before)
            before = spectrum
            samples = self._inverse(magnitude * ahead / np.maximum(np.abs(ahead), SILENCE))
        return np.clip(samples, -1, 1).astype(np.float32)

    @staticmethod
    def _read(file: SafetensorsFile, name: str) -> np.ndarray:
        if name not in file.entries:
            raise ModelFormatError(f"{file.path}: has no tensor {name!r}; take the file that belongs to the weights")
        return file.array(name).astype(np.float32)

    @staticmethod
    def _number(file: SafetensorsFile, name: str) -> int:
        text = file.metadata.get(name, "")
        if not text.isdecimal() or not 0 < int(text) <= 1 << 16:
            raise ModelFormatError(f"{file.path}: its metadata gives {name} as {text!r}, expected a whole number")
        return int(text)

    def _magnitude(self, mels: np.ndarray) -> np.ndarray:
        """Return magnitudes [T, B], none below 0, whose mels come close to `mels` [T, M] (multiplicative updates)."""
        wanted, norm = mels @ self._filters.T, self._filters @ self._filters.T
        magnitude = wanted.copy()
        for _ in range(SPREADING_ROUNDS):
            magnitude *= wanted / np.maximum(magnitude @ norm, SILENCE)
        return magnitude

    def _transform(self, samples: np.ndarray) -> np.ndarray:
        """Return the spectrum [T, B] of Hann windows, one every hop, the first centred on half a hop."""
        before = (self.window - self._hop) // 2
        padded = np.pad(samples, (before, self.window - self._hop - before))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self._hop]
        return np.fft.rfft(windows * hann(self.window))

    def _inverse(self, spectrum: np.ndarray) -> np.ndarray:
        """Return the samples [T * hop] whose spectrum comes closest to `spectrum` [T, B]."""
        shape = hann(self.window)
        pieces = np.fft.irfft(spectrum, self.window) * shape
        before = (self.window - self._hop) // 2
        kept = slice(before, before + len(pieces) * self._hop)
        weight = self._overlapped(np.broadcast_to(shape**2, pieces.shape))[kept]
        return self._overlapped(pieces)[kept] / np.maximum(weight, SILENCE)

    def _overlapped(self, pieces: np.ndarray) -> np.ndarray:
        """Return the sum [S] of pieces [T, W], each one hop later than the one before."""
        reach = -(-self.window // self._hop)
        padded = np.pad(pieces, ((0, 0), (0, reach * self._hop - self.window))).reshape(len(pieces), reach, self._hop)
        total = np.zeros((len(pieces) + reach - 1, self._hop))
        for late in range(reach):
            total[late : late + len(pieces)] += padded[:, late]
        return total.reshape(-1)


class GriffinLimStream:
    """Codes in, samples out at the end; it is used as CodeStream is."""

    def __init__(self, vocoder: GriffinLim) -> None:
        self._vocoder = vocoder
        self._frames: list[np.ndarray] = []
        self._finished = False

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Add codes int [K, T]; return no samples, they all come with `finish`.

        Raises InputError for codes of another shape or outside the codebooks, and after `finish`.
        """
        if self._finished:
            raise InputError("codes were pushed to a stream that is finished; open another one")
        self._frames.append(checked_codes(codes, *self._vocoder.tables.shape[:2]).T)
        return np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """End the stream and return the samples float32 [S] of everything that was pushed."""
        codes = np.concatenate(self._frames, axis=1) if self._frames and not self._finished else None
        self._finished = True
        return np.zeros(0, np.float32) if codes is None else self._vocoder.speech(self._vocoder.log_mel(codes))
