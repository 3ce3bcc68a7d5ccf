"""The Talker: from the Thinker's states to frames of codes, one frame per step.

    prompt rows -> text / hidden projection (+ codec embeddings) -> decoder with experts -> codec_head -> c0
    c0, state -> code predictor -> c1 .. cK-1;   next row = sum of the K embeddings + the next row of text

A step is captured: the row that it reads is made on the device from the codes that lie there, and only the K codes of
a frame are read back. Text arrives row by row while the Thinker still writes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.qwen3_omni.code_predictor import CodePredictor, CodeTables
from omni_rt.models.qwen3_omni.config_sections import TalkerConfig, TokenIds
from omni_rt.models.qwen3_omni.talker_layout import ANSWER, HEADER, TalkerLayout, talker_layout
from omni_rt.sampling import Chooser, Sampling
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

SLICE = 512
"""Rows of a prompt that pass the decoder at once."""

DEFAULT_VOICE = "ethan"
"""The reference's speaker when none is asked for."""


@dataclass(frozen=True)
class ThinkerStates:
    """What the Thinker hands over, float32: for every row of the prompt its `embeddings` and `hidden` state [P, M].

    `specials` are the embeddings [3, M] of the token ids tts_pad, tts_bos and tts_eos.
    """

    embeddings: np.ndarray
    hidden: np.ndarray
    specials: np.ndarray


class TalkerPrompt(NamedTuple):
    """What the Talker reads, float32: inputs [T, N], the text rows of later frames [S, N], the row after them [N]."""

    inputs: np.ndarray
    trailing: np.ndarray
    pad: np.ndarray


class Projection:
    """linear_fc2(silu(linear_fc1(x))), from the Thinker's width to the Talker's."""

    def __init__(self, weights: Weights, config: TalkerConfig) -> None:
        inner, width = config.decoder.feed_forward, config.decoder.width
        self.device = weights.device
        self.first = weights.linear("linear_fc1.weight", inner, config.thinker_width)
        self.first_bias = weights.exact("linear_fc1.bias", inner).reshape(1, inner)
        self.second = weights.linear("linear_fc2.weight", width, inner)
        self.second_bias = weights.exact("linear_fc2.bias", width).reshape(1, width)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Project rows [T, M] to [T, N]."""
        pieces = [np.zeros((0, self.second.shape[0]), np.float32)]
        for start in range(0, len(rows), SLICE):
            x = self.device.tensor(np.asarray(rows[start : start + SLICE], np.float32))
            x = ops.silu(ops.matmul_add(x, self.first, self.first_bias))
            pieces.append(ops.matmul_add(x, self.second, self.second_bias).numpy())
        return np.concatenate(pieces)


class Talker:
    """The Talker of Qwen3-Omni; names follow the checkpoint under `talker.`.

    It speaks one reply at a time (see TalkerSession), in a cache of `context` positions.
    """

    def __init__(
        self, weights: Weights, config: TalkerConfig, tokens: TokenIds, predictor: CodePredictor, *, context: int
    ) -> None:
        decoder = config.decoder
        self.config = config
        self.tokens = tokens
        self.device = weights.device
        self.predictor = predictor
        self.text_projection = Projection(weights.at("text_projection."), config)
        self.hidden_projection = Projection(weights.at("hidden_projection."), config)
        self.decoder = Decoder(weights.at("model."), decoder)
        self.codec_head = weights.linear("codec_head.weight", decoder.vocabulary, decoder.width)
        weights.array("model.codec_embedding.weight", decoder.vocabulary, decoder.width)  # read as one of the tables
        weights.done(ignored=("code_predictor.",))
        together = predictor.device is self.device
        self.tables = predictor.tables if together else CodeTables(weights, config)
        self.codes = predictor.codes if together else self.device.zeros((config.codebooks,), "i32")
        self.frequencies = weights.place_exact(frequencies(decoder.head_dim, decoder.rope_theta, decoder.rope_sections))
        self.cache = self.decoder.cache(context)
        self.text = self.device.zeros((1, decoder.width))
        self.position = self.device.zeros((1, 3))
        self.token = self.device.zeros((1,), "i32")
        specials = range(config.code_predictor.vocabulary, decoder.vocabulary)
        self.chooser = Chooser(self.device, decoder.vocabulary, [i for i in specials if i != config.codec_eos])
        self.step = self.device.capture(self._decode)
        self.session: TalkerSession | None = None

    def speaker(self, voice: str | None) -> int:
        """Return the codec id of a voice, the default one for None; raise InputError for a voice it does not have."""
        known = self.config.speakers
        name = (voice or (DEFAULT_VOICE if DEFAULT_VOICE in known else next(iter(known)))).lower()
        by_name = {speaker.lower(): identity for speaker, identity in known.items()}
        if name not in by_name:
            raise InputError(f"there is no voice {voice!r}; this model has {', '.join(sorted(known))}")
        return by_name[name]

    def layout(self, prompt_ids: list[int]) -> TalkerLayout:
        """Return which rows of a prompt the Talker reads, and the ids that give their positions."""
        return talker_layout(prompt_ids, self.tokens)

    def prefill(
        self, layout: TalkerLayout, states: ThinkerStates, spoken: np.ndarray, *, voice: str | None = None
    ) -> TalkerPrompt:
        """Return what the Talker reads to speak a reply whose tokens have the embeddings `spoken` [R, M].

        `spoken` leaves out the stop token, or the last token of a reply that was cut. With the first row alone, which
        is enough to start, `trailing` is the row that ends the text: push it after the rows of the other tokens. Raises
        InputError when there is nothing to speak.
        """
        reply = np.concatenate([states.embeddings[layout.spoken], spoken])
        if not len(reply):
            raise InputError("the reply holds no token that could be spoken")
        pad, bos, eos = self.text_projection(states.specials)
        user = np.empty((len(layout.user), self.config.decoder.width), np.float32)
        user[layout.media] = self.hidden_projection(states.hidden[layout.user[layout.media]])
        user[~layout.media] = self.text_projection(states.embeddings[layout.user[~layout.media]])
        text = self.text_projection(np.concatenate([states.embeddings[layout.header], reply]))
        answer = np.concatenate([text[:HEADER], [pad, pad, pad, pad, bos], text[HEADER : HEADER + 1]])
        answer[HEADER:] += self._codec_rows(voice)
        assert len(answer) == ANSWER
        return TalkerPrompt(np.concatenate([user, answer]), np.concatenate([text[HEADER + 1 :], eos[None]]), pad)

    def _codec_rows(self, voice: str | None) -> np.ndarray:
        config = self.config
        thinking = (config.codec_nothink, config.codec_think_bos, config.codec_think_eos)
        ids = (*thinking, self.speaker(voice), config.codec_pad, config.codec_bos)
        return ops.embed(self.tables.rows, self.device.tensor(np.array(ids, np.int32))).numpy()

    def run(self, inputs: np.ndarray, positions: np.ndarray) -> None:
        """Start over with rows [T, N] at positions [3, T]: all but the last are run, the last is what `step` reads."""
        last = len(inputs) - 1
        self.cache.clear()
        for start in range(0, last, SLICE):
            rows = slice(start, min(start + SLICE, last))
            table = ops.angles(self.device.tensor(np.ascontiguousarray(positions[:, rows].T)), self.frequencies)
            self.cache.extend(rows.stop - start)
            self.decoder(self.device.tensor(inputs[rows]), table, self.cache)
        self.cache.extend(1)
        self.device.write(self.position, np.asarray(positions[:, last:].T, np.float32))
        self.device.write(self.codes, self.tables.nothing)
        self.device.write(self.text, inputs[last:])

    def _decode(self, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
        """Run one step on the device; return the normed state [1, N], codebook 0 i32 [1] and the logits [1, V]."""
        x = ops.add(self.tables.sum(self.codes), self.text)
        table = ops.angles(self.position, self.frequencies)
        hidden, _ = self.decoder(x, table, self.cache)
        logits = ops.matmul(hidden, self.codec_head)
        first = self.chooser(logits, sampling, self.cache.length)
        ops.advance(self.token, self.position, self.cache.length, first)
        return hidden, first, logits


class TalkerSession:
    """One spoken reply. Push the text as it comes, take frames with `step` while `ready`, until `finish_reason` is set.

    `logits` [1, V] and `hidden` [1, N] are those of the last step, before penalty and suppression.
    """

    def __init__(
        self,
        talker: Talker,
        inputs: np.ndarray,
        positions: np.ndarray,
        *,
        pad: np.ndarray,
        sampling: Sampling,
        predictor_sampling: Sampling,
        seed: int = 0,
        max_frames: int = 4096,
    ) -> None:
        """Run the prompt: inputs [T, N] at positions [3, T]; `pad` [N] is read when the text has ended.

        Raises InputError when rows and positions disagree or the prompt exceeds the context.
        """
        if inputs.ndim != 2 or not len(inputs) or positions.shape != (3, len(inputs)):
            raise InputError(f"the talker got rows {list(inputs.shape)} at positions {list(positions.shape)}")
        self.talker = talker
        self.frames = 0
        self.finish_reason: Literal["stop", "length"] | None = None if max_frames > 0 else "length"
        self.hidden: Tensor | None = None
        self.logits: Tensor | None = None
        self._pad = pad
        self._samplings = (sampling, predictor_sampling)
        self._seed = seed & 0x7FFFFFFF
        self._max_frames = max_frames
        self._text: deque[np.ndarray] = deque()
        self._text_ended = False
        talker.session = self
        talker.chooser.start(self._seed)
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
        """Whether `step` can make a frame now, without text that is not there yet."""
        return self.finish_reason is None and (self.frames == 0 or bool(self._text) or self._text_ended)

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
        if self.frames:
            if self.talker.cache.count >= self.talker.cache.rows:
                self.finish_reason = "length"
                return None
            self.talker.cache.advance()
            self.talker.device.write(self.talker.text, (self._text.popleft() if self._text else self._pad)[None])
        codes = self._frame()
        if codes is None:
            self.finish_reason = "stop"
            return None
        self.frames += 1
        if self.frames >= self._max_frames:
            self.finish_reason = "length"
        return codes

    def _frame(self) -> np.ndarray | None:
        talker, (sampling, predictor_sampling) = self.talker, self._samplings
        self.hidden, first, self.logits = talker.step(sampling)
        if talker.predictor.device is talker.device:
            frame = talker.predictor(
                self.hidden, first, predictor_sampling, talker.chooser.seed, talker.cache.length
            ).numpy()
            return None if frame[0] == talker.config.codec_eos else frame
        chosen = int(first.numpy()[0])
        if chosen == talker.config.codec_eos:
            return None
        # The step has counted its position already, so the counter is the one that the other placement reads.
        frame = talker.predictor.from_host(
            self.hidden.numpy(), chosen, predictor_sampling, self._seed, talker.cache.count + 1
        )
        talker.device.write(talker.codes, frame)
        return frame
