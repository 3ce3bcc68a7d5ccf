"""The prompt of a Qwen3-TTS talker: which rows it reads, and which row of text each frame gets.

    [instruct] | role | tag: think or not, language | [speaker] | open | body

Every row is a text row plus a codec row, either of which may be absent. The body is one of three: text fed while
speaking (streaming), all text first, or a clone in context, where text and codes of a reference come first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omni_rt.models.qwen3_tts.config import TtsTalkerConfig
from omni_rt.models.talker import TalkerPrompt

ROLE = 3
"""Tokens of `<|im_start|>assistant\\n`, before the text."""

TARGET_TAIL = 5
"""Tokens of `<|im_end|>\\n<|im_start|>assistant\\n`, behind the text to speak."""

REFERENCE_TAIL = 2
"""Tokens of `<|im_end|>\\n`, behind the text of a reference."""


@dataclass(frozen=True)
class Request:
    """What is to be said, as token ids: the framed target text, and where given the framed instruction.

    `language` and `speaker` are codec ids, or None; `embedding` [N] is a speaker's that is used instead of an id.
    `reference_ids` (framed) and `reference_codes` [K, F] make a clone in context. `streaming` feeds the text while
    speaking.
    """

    target_ids: Sequence[int]
    instruct_ids: Sequence[int] = ()
    language: int | None = None
    speaker: int | None = None
    embedding: np.ndarray | None = None
    reference_ids: Sequence[int] = ()
    reference_codes: np.ndarray | None = None
    streaming: bool = False


@dataclass(frozen=True)
class Rows:
    """Where rows come from: text ids and codec ids to [T, N], codes [K, F] to [F, N]; pad, bos, eos [3, N]."""

    text: Callable[[Sequence[int]], np.ndarray]
    codec: Callable[[Sequence[int]], np.ndarray]
    codes: Callable[[np.ndarray], np.ndarray]
    specials: np.ndarray


def lay_out(request: Request, config: TtsTalkerConfig, rows: Rows) -> TalkerPrompt:
    """Return the prompt of a request."""
    pad, bos, eos = rows.specials
    head = [rows.text(request.instruct_ids)] if len(request.instruct_ids) else []
    head.append(rows.text(request.target_ids[:ROLE]))
    tag = [config.codec_nothink, config.codec_think_bos, config.codec_think_eos]
    if request.language is not None:
        tag = [config.codec_think, config.codec_think_bos, request.language, config.codec_think_eos]
    head.append(pad + rows.codec(tag))
    if request.embedding is not None:
        head.append(pad + request.embedding[None])
    elif request.speaker is not None:
        head.append(pad + rows.codec([request.speaker]))
    silence, start = rows.codec([config.codec_pad]), rows.codec([config.codec_bos])
    head.append(bos + silence)
    text = rows.text(request.target_ids[ROLE:-TARGET_TAIL])
    if request.reference_codes is not None:
        reference = rows.text(request.reference_ids[ROLE:-REFERENCE_TAIL])
        spoken = np.concatenate([reference, text, eos[None]])
        heard = np.concatenate([start, rows.codes(request.reference_codes)])
        body, trailing = _in_context(spoken, heard, silence, pad, streaming=request.streaming)
    elif request.streaming:
        # An empty text leaves the token behind it as the first: the reference slices by place.
        first = rows.text(request.target_ids[ROLE : ROLE + 1])
        body, trailing = first + start, np.concatenate([text[1:], eos[None]])
    else:
        body = np.concatenate([text + silence, eos + silence, pad + start])
        trailing = pad[None]
    return TalkerPrompt(np.concatenate([*head, body]).astype(np.float32), trailing.astype(np.float32), pad)


def _in_context(
    spoken: np.ndarray, heard: np.ndarray, silence: np.ndarray, pad: np.ndarray, *, streaming: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return body and trailing rows of a clone: `spoken` text of reference and target, `heard` codes."""
    if not streaming:
        return np.concatenate([spoken + silence, heard + pad]), pad[None]
    if len(spoken) > len(heard):
        return spoken[: len(heard)] + heard, spoken[len(heard) :]
    padded = np.concatenate([spoken, np.repeat(pad[None], len(heard) - len(spoken), axis=0)])
    return padded + heard, pad[None]
