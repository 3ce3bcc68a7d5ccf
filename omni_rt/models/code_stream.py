"""Streams of codes: codes in, samples out, in pieces of any length, by a step that is captured.

    codes [T, K] -> rows [T, N] through a transformer with a sliding window -> waveform stack -> samples [S, 1]

All that a stream carries from piece to piece lies on the device in a StreamState: the key-value cache, the rows before
each convolution, and what a step reads. So a piece of a length that came before is replayed. A state serves one stream
at a time and the next when that has ended, with the recordings that it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from omni_rt.errors import InputError
from omni_rt.models.decoder import Decoder
from omni_rt.models.waveform import WaveformShape, WaveformStack
from omni_rt.state import KVCache, TailLayout, Tails
from omni_rt.tensor import Tensor

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

PIECES = (1, 2, 4, 8, 16, 25)
"""Frames that a reply decodes together: few at first, so that sound starts early, then more, which costs less."""

RECORDED_FRAMES = 8
"""Most frames of a piece that is recorded: a recording keeps 5 MB a frame in the releases, and longer pieces keep a GPU
busy for longer than it takes to encode them afresh."""


class CodeSizes(Protocol):
    """What a stream must know of its codes: how many there are to a frame and how many values each has."""

    @property
    def codebooks(self) -> int:
        """Codes to a frame."""

    @property
    def codebook_size(self) -> int:
        """Values of a code."""


class CodeDecoder(ABC):
    """A decoder of codes to samples, whole or streamed; see StreamState for what a stream needs of it.

    `chunk` frames are decoded at once, however many are asked for, so that memory stays bounded.
    """

    sizes: CodeSizes
    device: Device
    chunk: int
    transformer: Decoder
    stack: WaveformStack
    layout: TailLayout

    def __init__(self) -> None:
        self._idle: list[StreamState] = []

    @abstractmethod
    def hidden(self, codes: Tensor, positions: Tensor, cache: KVCache, tails: Tails) -> Tensor:
        """Return the rows [T, N] of the stack for codes i32 [T, K] at positions [T, 1], which the cache counts."""

    def cache(self) -> KVCache:
        """Return an empty cache that takes a chunk at once."""
        return self.transformer.cache(self.transformer.config.sliding_window + self.chunk - 1)

    def stream(self) -> CodeStream:
        """Open a stream: `push` codes [K, T] and get the samples that they complete."""
        state = self._idle.pop() if self._idle else StreamState(self)
        state.clear()
        return CodeStream(
            state.decode,
            codebooks=self.sizes.codebooks,
            entries=self.sizes.codebook_size,
            chunk=self.chunk,
            skip=state.skip,
            end=partial(self._idle.append, state),
        )

    def prepare(self, lengths: Sequence[int] = PIECES) -> None:
        """Make all that a stream of pieces of these lengths needs, one piece after the other.

        Pipelines are compiled and steps recorded, for the next stream that is opened; where nothing is recorded, the
        first piece is enough to touch all weights.
        """
        if not self.device.records_pieces:
            lengths = lengths[:1]
        stream = self.stream()
        for length in lengths:
            stream.push(np.zeros((self.sizes.codebooks, length), np.int32))
        stream.finish()


class StreamState:
    """All that one stream carries from piece to piece, on the device."""

    def __init__(self, decoder: CodeDecoder) -> None:
        device = decoder.device
        self.cache = decoder.cache()
        self.tails = Tails(device, decoder.layout)
        self._decoder = decoder
        self._codes = device.zeros((decoder.chunk, decoder.sizes.codebooks), "i32")
        self._positions = device.zeros((decoder.chunk, 1))
        self._replayed = device.capture(self.step)

    def clear(self) -> None:
        """Begin another stream."""
        self.cache.clear()
        self.tails.clear()

    def decode(self, frames: np.ndarray) -> Tensor | None:
        """Return the samples [S, 1] that the next codes int32 [T <= chunk, K] complete, until the next call."""
        key = len(frames), self._decoder.stack.beginnings(self.cache.count)
        self._take(frames)
        recorded = len(frames) <= RECORDED_FRAMES and self._decoder.device.records_pieces
        samples: Tensor | None = (self._replayed if recorded else self.step)(*key)
        return samples

    def skip(self, frames: np.ndarray) -> None:
        """Take the next codes int32 [T, K] without their samples: the stack runs only where later ones depend on it."""
        end = max(len(frames) - self._decoder.stack.reach, 0)
        for start in range(0, end, self._decoder.chunk):
            piece = frames[start : min(start + self._decoder.chunk, end)]
            self._take(piece)
            self._hidden(len(piece))
        for start in range(end, len(frames), self._decoder.chunk):
            self.decode(frames[start : start + self._decoder.chunk])

    def _take(self, frames: np.ndarray) -> None:
        """Put the inputs of a step where it reads them."""
        first, count = self.cache.count, len(frames)
        device = self._decoder.device
        self.cache.extend(count)
        device.write(self._codes[:count], frames)
        device.write(self._positions[:count], np.arange(first, first + count, dtype=np.float32)[:, None])

    def _hidden(self, count: int) -> Tensor:
        return self._decoder.hidden(self._codes[:count], self._positions[:count], self.cache, self.tails)

    def step(self, count: int, begins: tuple[bool, ...]) -> Tensor | None:
        """Do what `decode` does with `count` frames that lie on the device; see WaveformStack for `begins`."""
        return self._decoder.stack(self._hidden(count), self.tails, begins)


def recorded_bytes(shape: WaveformShape, device: Device) -> int:
    """Return about how many bytes of a device the recordings of a stream of PIECES take."""
    return shape.recorded_bytes(sum(n for n in PIECES if n <= RECORDED_FRAMES)) if device.records_pieces else 0


class CodeStream:
    """Codes in, samples out, in pieces of any length: what is pushed together or apart gives the same waveform."""

    def __init__(
        self,
        decode: Callable[[np.ndarray], Tensor | None],
        *,
        codebooks: int,
        entries: int,
        chunk: int,
        skip: Callable[[np.ndarray], None] | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        """Stream through `decode`, which takes the next codes int32 [T <= chunk, K] and returns samples [S, 1].

        `skip` takes any number of them without samples; `end` is called once, when no more come.
        """
        self._decode = decode
        self._skip = skip or decode
        self._codebooks = codebooks
        self._entries = entries
        self._chunk = chunk
        self._end = end
        self._finished = False

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Add codes int [K, T] and return the samples that they complete, float32 [S] in [-1, 1].

        Raises InputError for codes of another shape or outside the codebooks, and after `finish`.
        """
        frames = self._next(codes)
        samples = []
        for start in range(0, len(frames), self._chunk):
            piece = self._decode(frames[start : start + self._chunk])
            if piece is not None:  # read before the next piece, which may overwrite it
                samples.append(np.clip(piece.numpy().reshape(-1), -1, 1))
        return np.concatenate(samples) if samples else np.zeros(0, np.float32)

    def skip(self, codes: np.ndarray) -> None:
        """Add codes as `push` does, for the sake of what comes after them: their own samples are not made."""
        self._skip(self._next(codes))

    def _next(self, codes: np.ndarray) -> np.ndarray:
        if self._finished:
            raise InputError("codes were pushed to a stream that is finished; open another one")
        return checked_codes(codes, self._codebooks, self._entries)

    def finish(self) -> np.ndarray:
        """End the stream and return the samples that are left: none, as each is emitted as soon as it is known."""
        if not self._finished and self._end is not None:
            self._end()
        self._finished = True
        return np.zeros(0, np.float32)

    def __del__(self) -> None:
        self.finish()


def checked_codes(codes: np.ndarray, codebooks: int, entries: int) -> np.ndarray:
    """Return codes int [K, T] as int32 rows [T, K]; raise InputError for another shape or value."""
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[0] != codebooks or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"codes are {codes.dtype} {list(codes.shape)}, expected whole numbers [{codebooks} codebooks, frames]"
        )
    if codes.size and not 0 <= codes.min() <= codes.max() < entries:
        raise InputError(
            f"codes run from {codes.min()} to {codes.max()}, but the codebooks have {entries} entries; "
            "stop tokens and other specials are no codes"
        )
    return np.ascontiguousarray(codes.T, np.int32)
