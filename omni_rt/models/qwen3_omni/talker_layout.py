"""What the Talker reads of a conversation: which rows of the Thinker, through which projection, in which order.

    user turns (all rows) | <|im_start|> assistant \\n | pad pad pad pad | bos | first token of the reply

The last nine rows carry codec embeddings on top, from the fourth on: no-think, think-begin, think-end, the speaker,
codec pad, codec begin. System turns and earlier answers are left out. The rest of the reply follows one row a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni.config_sections import TokenIds

HEADER = 3
"""Rows of `<|im_start|>`, the role and the newline."""

ANSWER = 9
"""Rows that the answer contributes to the prompt: the header, four pads, bos, and the reply's first token."""


@dataclass(frozen=True)
class TalkerLayout:
    """Rows of the Thinker's prompt, by index.

    `user` are the rows of all user turns in order and `media` says which of them stand for sound or pictures; `header`
    are the three rows that open the answer, `spoken` those that the prompt puts after them (none, normally). `ids` are
    the token ids whose positions the Talker's rows have.
    """

    user: np.ndarray
    media: np.ndarray
    header: np.ndarray
    spoken: np.ndarray
    ids: list[int]


def talker_layout(prompt_ids: Sequence[int], tokens: TokenIds) -> TalkerLayout:
    """Lay out the Talker's prompt.

    Raises InputError when the prompt does not end in the header of an answer, or has a turn of an unknown role.
    """
    ids = np.asarray(prompt_ids, np.int64)
    starts = [*np.flatnonzero(ids == tokens.im_start), len(ids)]
    user: list[np.ndarray] = []
    answer = np.zeros(0, np.int64)
    for start, stop in pairwise(starts):
        rows = np.arange(start, stop)
        role = int(ids[start + 1]) if stop - start > 1 else None
        answer = rows if role == tokens.assistant else np.zeros(0, np.int64)
        if role == tokens.user:
            user.append(rows)
        elif role not in (tokens.system, tokens.assistant):
            raise InputError(
                f"the turn at token {start} has the role id {role}, the talker knows system ({tokens.system}), user "
                f"({tokens.user}) and assistant ({tokens.assistant}); ask for text only"
            )
    if len(answer) < HEADER:
        raise InputError(
            "the prompt does not end in the header of an answer, so there is no reply to speak; "
            "end it with <|im_start|>assistant and a newline"
        )
    rows = np.concatenate([np.zeros(0, np.int64), *user])
    return TalkerLayout(
        user=rows,
        media=np.isin(ids[rows], (tokens.audio_pad, tokens.image_pad, tokens.video_pad)),
        header=answer[:HEADER],
        spoken=answer[HEADER:],
        ids=[*ids[rows].tolist(), *[tokens.tts_pad] * ANSWER],
    )
