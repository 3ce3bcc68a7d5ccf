"""The Talker: from the Thinker's states to frames of codes, one frame per step (see models/talker.py for the loop).

prompt rows -> text / hidden projection (+ codec embeddings) -> decoder with experts -> codec_head -> c0
c0, state -> code predictor -> c1 .. cK-1;   next row = sum of the K embeddings + the next row of text
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.models.code_predictor import CodePredictor, CodeSizes
from omni_rt.models.qwen3_omni.config_sections import TalkerConfig, TokenIds
from omni_rt.models.qwen3_omni.talker_layout import ANSWER, HEADER, TalkerLayout, talker_layout
from omni_rt.models.talker import SLICE, FrameTalker, TalkerPrompt
from omni_rt.weights import Weights

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


def code_sizes(config: TalkerConfig) -> CodeSizes:
    """Return the extents of a frame's codes."""
    decoder = config.decoder
    return CodeSizes(config.codebooks, config.code_predictor.vocabulary, decoder.width, decoder.vocabulary)


class Projection:
    """linear_fc2(silu(linear_fc1(x))), from the Thinker's width to the Talker's."""

    def __init__(self, weights: Weights, config: TalkerConfig) -> None:
        inner, width = config.decoder.feed_forward, config.decoder.width
        self.device = weights.device
        self.width = width
        self.first = weights.affine("linear_fc1", inner, config.thinker_width)
        self.second = weights.affine("linear_fc2", width, inner)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Project rows [T, M] to [T, N]."""
        pieces = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(rows), SLICE):
            x = self.device.tensor(np.asarray(rows[start : start + SLICE], np.float32))
            pieces.append(ops.matmul_add(ops.silu(ops.matmul_add(x, *self.first)), *self.second).numpy())
        return np.concatenate(pieces)


class Talker(FrameTalker):
    """The Talker of Qwen3-Omni; names follow the checkpoint under `talker.`.

    It speaks one reply at a time (see TalkerSession), in a cache of `context` positions.
    """

    def __init__(
        self, weights: Weights, config: TalkerConfig, tokens: TokenIds, predictor: CodePredictor, *, context: int
    ) -> None:
        super().__init__(
            weights, config.decoder, code_sizes(config), predictor, stop_id=config.codec_eos, context=context
        )
        self.config = config
        self.tokens = tokens
        self.text_projection = Projection(weights.at("text_projection."), config)
        self.hidden_projection = Projection(weights.at("hidden_projection."), config)
        weights.done(ignored=("code_predictor.",))

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
