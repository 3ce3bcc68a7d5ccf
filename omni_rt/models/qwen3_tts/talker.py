"""The talker of Qwen3-TTS: text and codes in one sequence, a frame of codes per step (see models/talker.py).

text ids -> embedding -> linear, SiLU, linear -> text rows;   codec ids and codes -> codec rows;   rows added
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omni_rt import ops
from omni_rt.models.code_predictor import CodePredictor, CodeSizes
from omni_rt.models.qwen3_tts.config import Qwen3TtsConfig
from omni_rt.models.qwen3_tts.layout import Request, Rows, lay_out
from omni_rt.models.talker import FrameTalker, TalkerPrompt
from omni_rt.weights import Weights

MIN_FRAMES = 2
"""The stop token cannot be chosen before the third frame; the reference fixes this."""


def code_sizes(config: Qwen3TtsConfig) -> CodeSizes:
    """Return the extents of a frame's codes."""
    talker = config.talker
    return CodeSizes(talker.codebooks, config.code_predictor.vocabulary, talker.width, talker.vocabulary)


class TtsTalker(FrameTalker):
    """The talker of Qwen3-TTS; names follow the checkpoint under `talker.`."""

    def __init__(self, weights: Weights, config: Qwen3TtsConfig, predictor: CodePredictor, *, context: int) -> None:
        talker = config.talker
        super().__init__(weights, talker, code_sizes(config), predictor, stop_id=talker.codec_eos, context=context)
        self.config = config
        self._tags: dict[tuple[int, ...], np.ndarray] = {}
        self.text_embedding = weights.half("model.text_embedding.weight", talker.text_vocabulary, talker.text_width)
        projection = weights.at("text_projection.")
        self.projection = (
            projection.affine("linear_fc1", talker.text_width, talker.text_width),
            projection.affine("linear_fc2", talker.width, talker.text_width),
        )
        weights.done(ignored=("code_predictor.",))
        tokens = config.tokens
        specials = self.text_rows([tokens.tts_pad, tokens.tts_bos, tokens.tts_eos])
        self.rows = Rows(self.text_rows, self.codec_rows, self.code_rows, specials)

    def text_rows(self, ids: Sequence[int]) -> np.ndarray:
        """Return the rows [T, N] of text ids."""
        if not len(ids):
            return np.zeros((0, self.width), np.float32)
        first, second = self.projection
        x = ops.embed(self.text_embedding, self.device.tensor(np.asarray(ids, np.int32)))
        return ops.matmul_add(ops.silu(ops.matmul_add(x, *first)), *second).numpy()

    def codec_rows(self, ids: Sequence[int]) -> np.ndarray:
        """Return the rows [T, N] of ids of the codec embedding: tags of languages and speakers, which are kept."""
        if (key := tuple(ids)) not in self._tags:
            self._tags[key] = ops.embed(self.tables.rows, self.device.tensor(np.asarray(ids, np.int32))).numpy()
        return self._tags[key]

    def code_rows(self, codes: np.ndarray) -> np.ndarray:
        """Return the row [F, N] that each frame of codes [K, F] adds up to."""
        frames = self.device.tensor(np.ascontiguousarray(codes.T, np.int32))
        return ops.embed_sum(self.tables.rows, frames, self.tables.offsets).numpy()

    def prompt(self, request: Request) -> TalkerPrompt:
        """Return what the talker reads for a request."""
        return lay_out(request, self.config.talker, self.rows)
