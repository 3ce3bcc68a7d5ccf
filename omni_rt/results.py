"""What the models return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from os import PathLike

FinishReason = Literal["stop", "length", "cancelled", "runaway"]


@dataclass(frozen=True)
class AudioTokens:
    """What the audio encoder hears: one embedding per 80 ms, float32 [T, D]."""

    embeddings: np.ndarray


@dataclass(frozen=True)
class VisionTokens:
    """What the vision encoder sees: embeddings float32 [T, D], and `deepstack` rows [T, D] for each early layer."""

    embeddings: np.ndarray
    deepstack: list[np.ndarray]


@dataclass(frozen=True)
class ThinkerOutput:
    """One pass of the Thinker: logits [T, V], spliced input embeddings [T, D], hidden states for the Talker [T, D]."""

    text_logits: np.ndarray
    token_embeddings: np.ndarray
    hidden: np.ndarray


@dataclass(frozen=True)
class CodecTokens:
    """Codes of speech, int32 [K, T]: K codebooks, T frames."""

    codes: np.ndarray


@dataclass(frozen=True)
class AudioOutput:
    """Speech: float32 mono samples in [-1, 1] and their rate in Hz."""

    waveform: np.ndarray
    sample_rate: int

    def save(self, path: str | PathLike[str]) -> None:
        """Write the samples to a WAV, FLAC, OGG or MP3 file, by suffix."""
        from omni_rt.io.audio import save_audio

        save_audio(path, self.waveform, self.sample_rate)


@dataclass
class Timings:
    """How long a reply took, in the units that the names say; None for what did not happen.

    `rtf` is processing time over length of the audio; `peak_memory_bytes` sums the devices' ledgers. On the way to
    `first_audio_ms` lie `prompt_ms`, when the prompt of what speaks was issued, and `first_frame_ms`, when the codes of
    the first frame were there; the rest is their decoding. All count from the start of the reply.
    """

    load_s: float | None = None
    first_token_ms: float | None = None
    first_audio_ms: float | None = None
    tokens_per_s: float | None = None
    rtf: float | None = None
    peak_memory_bytes: int = 0
    prompt_ms: float | None = None
    first_frame_ms: float | None = None


@dataclass(frozen=True)
class Reply:
    """An answer: its text, and its speech where that was asked for.

    `audio` is float32 mono at `sample_rate` Hz or None, `codes` int32 [K, T] or None; `seed` repeats the reply.
    """

    text: str
    token_ids: list[int]
    audio: np.ndarray | None
    sample_rate: int | None
    codes: np.ndarray | None
    finish_reason: FinishReason
    seed: int
    timings: Timings = field(default_factory=Timings)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the speech to a WAV, FLAC, OGG or MP3 file, by suffix; raise InputError when there is none."""
        from omni_rt.errors import InputError

        if self.audio is None or self.sample_rate is None:
            raise InputError("this reply has no audio to save: ask with speech=True")
        AudioOutput(self.audio, self.sample_rate).save(path)


@dataclass(frozen=True)
class Speech:
    """A spoken text: float32 mono samples at `sample_rate` Hz, and the codes int32 [K, T] that they were made of.

    `finish_reason` "runaway" says that the speech did not end by itself and was cut; `seed` repeats it.
    """

    audio: np.ndarray
    sample_rate: int
    codes: np.ndarray
    finish_reason: FinishReason
    seed: int
    timings: Timings = field(default_factory=Timings)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the speech to a WAV, FLAC, OGG or MP3 file, by suffix."""
        AudioOutput(self.audio, self.sample_rate).save(path)


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the reply's text and the ids it stands for."""

    text: str
    token_ids: list[int]


@dataclass(frozen=True)
class AudioChunk:
    """The next piece of the reply's speech, float32 mono at `sample_rate` Hz."""

    samples: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Done:
    """The end of a stream, with all of it: a Reply, or the Speech of a text."""

    reply: Reply | Speech
