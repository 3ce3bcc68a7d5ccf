"""The loop of a talker: one frame of codes per step, from text rows and the codes before.

    sum of the K embeddings of the last frame + a row of text -> decoder -> codec_head -> c0
    c0, state -> code predictor -> c1 .. cK-1

A step is captured: the row that it reads is made on the device from the codes that lie there, and only the K codes of
a frame are read back, while the GPU makes the next. Text arrives row by row, from a model that still writes or all at
once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.models.code_predictor import CodePredictor, CodeSizes, CodeTables
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.decoder_config import DecoderConfig
from omni_rt.models.slices import Slices
from omni_rt.sampling import SUPPRESSED, Chooser, Sampling
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

SLICE = 512
"""Rows of a prompt that pass the decoder at once at most."""

RECORDED_ROWS = (16, 24, 32, 48, 64, 96, 128)
"""Rows of passes that are recorded for short prompts, where that pays: a prompt takes the next of them. What is too
much lies behind all that is real, so that nothing sees it, and in the cache it is overwritten."""


@dataclass(frozen=True)
class TalkerPrompt:
    """What a talker reads, float32: inputs [T, N], the text rows of later frames [S, N], the row after them [N]."""

    inputs: np.ndarray
    trailing: np.ndarray
    pad: np.ndarray


class FrameTalker:
    """The decoder of a talker with its tables, head and state; names follow the checkpoint under `talker.`.

    It speaks one reply at a time (see TalkerSession), in a cache of `context` positions. Only ids below the entries of
    a codebook and `stop_id` can be chosen.
    """

    def __init__(
        self,
        weights: Weights,
        config: DecoderConfig,
        sizes: CodeSizes,
        predictor: CodePredictor,
        *,
        stop_id: int,
        context: int,
    ) -> None:
        self.device = weights.device
        self.predictor = predictor
        self.stop_id = stop_id
        self.width = config.width
        self.decoder = Decoder(weights.at("model."), config)
        self.codec_head = weights.linear("codec_head.weight", sizes.vocabulary, sizes.width)
        weights.array("model.codec_embedding.weight", sizes.vocabulary, sizes.width)  # read as one of the tables
        self.together = predictor.device is self.device
        self.tables = predictor.tables if self.together else CodeTables(weights, sizes)
        self.codes = predictor.codes if self.together else self.device.zeros((sizes.codebooks,), "i32")
        self.frequencies = weights.place_exact(frequencies(config.head_dim, config.rope_theta, config.rope_sections))
        self.cache = self.decoder.cache(context)
        self.text = self.device.zeros((1, config.width))
        self.position = self.device.zeros((1, self.frequencies.shape[0]))
        self.token = self.device.zeros((1,), "i32")
        self._suppressed = np.zeros(sizes.vocabulary, np.float32)
        self._suppressed[sizes.entries :] = SUPPRESSED
        self._suppressed[stop_id] = 0
        specials = np.flatnonzero(self._suppressed)
        self.slices = Slices(self.device, most=SLICE)
        self.chooser = Chooser(self.device, sizes.vocabulary, specials.tolist())
        self._step = self.device.capture(self._decode)
        self._short_prompt = self.device.capture(self._read_rows)
        self._prompt = (
            self.device.zeros((RECORDED_ROWS[-1], config.width)),
            self.device.zeros((RECORDED_ROWS[-1], self.frequencies.shape[0])),
        )
        self._frame = self.device.capture(self._decode_frame)
        self.session: TalkerSession | None = None

    def ban(self, ids: Iterable[int]) -> None:
        """Suppress further ids from the next step on; none lifts the ban."""
        bias = self._suppressed.copy()
        bias[list(ids)] = SUPPRESSED
        self.device.write(self.chooser.bias, bias)

    def run(self, inputs: np.ndarray, positions: np.ndarray) -> None:
        """Start over with rows [T, N] at positions [axes, T]: all but the last are run, `step` reads the last."""
        last = len(inputs) - 1
        self.cache.clear()
        recorded = next((count for count in RECORDED_ROWS if last <= count <= self.cache.rows), 0)
        if last and recorded and self.device.records_pieces:
            for tensor, rows in zip(self._prompt, (inputs[:last], positions[:, :last].T), strict=True):
                self.device.write(tensor[:last], rows)
            self.cache.extend(recorded)
            self._short_prompt(recorded)
            self.cache.count = last
        else:
            stop = 0
            while stop < last:
                start, stop = stop, stop + self.slices.rows(stop, last - stop)
                part = slice(start, stop)
                table = ops.angles(self.device.tensor(np.ascontiguousarray(positions[:, part].T)), self.frequencies)
                self.cache.extend(stop - start)
                self.decoder.fill(self.device.tensor(inputs[part]), table, self.cache)
        self.cache.extend(1)
        self.device.write(self.position, np.asarray(positions[:, last:].T, np.float32))
        self.device.write(self.codes, self.tables.nothing)
        self.device.write(self.text, inputs[last:])

    def _read_rows(self, count: int) -> None:
        """Run as many rows as lie in `_prompt`, the first of the sequence."""
        inputs, positions = (tensor[:count] for tensor in self._prompt)
        self.decoder.fill(inputs, ops.angles(positions, self.frequencies), self.cache)

    def step(self, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
        """Run one step on the device; return the normed state [1, N], codebook 0 i32 [1] and the logits [1, V]."""
        return self._step(sampling, self.cache.parts)

    def frame(self, sampling: Sampling, predictor_sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
        """Do a step and the code predictor's passes as one, on their common device; return what `step` returns.

        The codes i32 [K] of the frame are then `codes`.
        """
        *result, self.predictor.logits = self._frame(sampling, predictor_sampling, self.cache.parts)
        hidden, first, logits = result
        return hidden, first, logits

    def _decode_frame(
        self, sampling: Sampling, predictor_sampling: Sampling, parts: int
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        hidden, first, logits = self._decode(sampling, parts)
        picked_from = self.predictor.passes(hidden, first, predictor_sampling, self.chooser.seed, self.cache.length)
        return hidden, first, logits, picked_from

    def _decode(self, sampling: Sampling, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Do what `step` returns; `parts` tells recordings apart, as the cache's number of runs is part of them."""
        x = ops.add(self.tables.sum(self.codes), self.text)
        table = ops.angles(self.position, self.frequencies)
        hidden, _ = self.decoder(x, table, self.cache)
        logits = ops.matmul(hidden, self.codec_head)
        first = self.chooser(logits, sampling, self.cache.length)
        ops.advance(self.token, self.position, self.cache.length, first)
        return hidden, first, logits


class TalkerSession:
    """One spoken reply. Push the text as it comes, take frames with `step` while `ready`, until `finish_reason` is set.

    `frames` counts those that `step` has returned. Up to `ahead` later ones are issued when their text is there, so
    that a GPU does not wait for the host, but none before the first is there: its sound is waited for. `logits` [1, V]
    and `hidden` [1, N] are those of the last one issued, before penalty and suppression.
    """

    def __init__(
        self,
        talker: FrameTalker,
        inputs: np.ndarray,
        positions: np.ndarray,
        *,
        pad: np.ndarray,
        sampling: Sampling,
        predictor_sampling: Sampling,
        seed: int = 0,
        min_frames: int = 0,
        max_frames: int = 4096,
        ahead: int = 1,
    ) -> None:
        """Run the prompt: inputs [T, N] at positions [axes, T]; `pad` [N] is read when the text has ended.

        The stop token cannot be chosen before `min_frames` frames. Raises InputError when rows and positions disagree
        or the prompt exceeds the context.
        """
        if inputs.ndim != 2 or not len(inputs) or positions.shape != (talker.frequencies.shape[0], len(inputs)):
            raise InputError(f"the talker got rows {list(inputs.shape)} at positions {list(positions.shape)}")
        if len(inputs) > talker.cache.rows:
            raise InputError(
                f"what is before the speech takes {len(inputs)} positions, the context has {talker.cache.rows}: "
                "shorten the text, the instruction or the reference, or load the model with a larger context"
            )
        self.talker = talker
        self.frames = 0
        self.finish_reason: Literal["stop", "length"] | None = None if max_frames > 0 else "length"
        self.hidden: Tensor | None = None
        self.logits: Tensor | None = None
        self._pad = pad
        self._samplings = (sampling, predictor_sampling)
        self._seed = seed & 0x7FFFFFFF
        self._min_frames = min_frames
        self._max_frames = max_frames
        self._ahead = min(ahead, talker.device.steps_ahead) if talker.together else 0
        self._issued = 0
        self._waiting: deque[Callable[[], np.ndarray]] = deque()
        self._text: deque[np.ndarray] = deque()
        self._text_ended = False
        talker.session = self
        talker.chooser.start(self._seed)
        talker.ban([talker.stop_id] if min_frames else [])
        talker.run(np.asarray(inputs, np.float32), np.asarray(positions, np.float32))

    def push_text(self, rows: np.ndarray) -> None:
        """Add text rows [R, N], each read by one frame."""
        if self._text_ended:
            raise InputError("text was pushed to a talker session whose text has ended; start another session")
        self._text.extend(np.asarray(rows, np.float32))

    def finish_text(self) -> None:
        """Say that no more text comes: later frames read the pad row."""
        self._text_ended = True

    @property
    def ready(self) -> bool:
        """Whether `step` can return a frame now, without text that is not there yet."""
        return self.finish_reason is None and (bool(self._waiting) or self._text_is_there)

    @property
    def _text_is_there(self) -> bool:
        return self._issued == 0 or bool(self._text) or self._text_ended

    def step(self) -> np.ndarray | None:
        """Return the codes int32 [K] of the next frame, or None when the speech has ended.

        Raises InputError when the frame's text has not come yet, or another session took the talker.
        """
        if self.finish_reason is not None:
            return None
        if self.talker.session is not self:
            raise InputError("another session has taken over the talker: a talker speaks one reply at a time")
        if not self.ready:
            raise InputError("the text of the next frame has not come yet: push it, or finish the text")
        ahead = self._ahead if self.frames else 0
        while len(self._waiting) <= ahead and self._fits():
            self._issue()
        if not self._waiting:
            self.finish_reason = "length"
            return None
        codes = self._waiting.popleft()()
        if codes[0] == self.talker.stop_id:
            self._waiting.clear()
            self.finish_reason = "stop"
            return None
        self.frames += 1
        if self.frames >= self._max_frames:
            self.finish_reason = "length"
        return codes

    def _fits(self) -> bool:
        """Say whether another frame can be issued: within limit and context, and with its text."""
        cache = self.talker.cache
        room = self._issued == 0 or cache.count < cache.rows
        return room and self._issued < self._max_frames and self._text_is_there

    def _issue(self) -> None:
        talker = self.talker
        if self._issued:
            if self._issued == self._min_frames:
                talker.ban([])
            talker.cache.advance()
            talker.device.write(talker.text, (self._text.popleft() if self._text else self._pad)[None])
        self._issued += 1
        if talker.together:
            self.hidden, _, self.logits = talker.frame(*self._samplings)
            self._waiting.append(talker.device.read_later(talker.codes))
        else:
            codes = self._frame_apart()
            self._waiting.append(lambda: codes)

    def _frame_apart(self) -> np.ndarray:
        """Return a frame whose code predictor runs on another device; the stop token is a frame of its own."""
        talker, (sampling, predictor_sampling) = self.talker, self._samplings
        self.hidden, first, self.logits = talker.step(sampling)
        chosen = int(first.numpy()[0])
        if chosen == talker.stop_id:
            return np.array([chosen], np.int32)
        # The step has counted its position already, so the counter is the one that the other placement reads.
        frame = talker.predictor.from_host(
            self.hidden.numpy(), chosen, predictor_sampling, self._seed, talker.cache.count + 1
        )
        talker.device.write(talker.codes, frame)
        return frame
