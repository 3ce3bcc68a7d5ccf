"""Text for Qwen3-TTS: the framed token ids of a request."""

from __future__ import annotations

from omni_rt.io.tokenizer import Tokenizer
from omni_rt.models.qwen3_tts.config import TtsTokenIds


class Framer:
    """Puts text between the control tokens that the talker was trained with."""

    def __init__(self, tokenizer: Tokenizer, tokens: TtsTokenIds) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._end = [tokens.im_end, *tokenizer.encode("\n")]

    def target(self, text: str) -> list[int]:
        """Return the ids of a text to speak; the talker finds its parts by place."""
        return [*self._turn("assistant", text), *self._turn("assistant", "", closed=False)]

    def reference(self, text: str) -> list[int]:
        """Return the ids of what is said in a reference."""
        return self._turn("assistant", text)

    def instruction(self, text: str) -> list[int]:
        """Return the ids of an instruction."""
        return self._turn("user", text)

    def _turn(self, role: str, text: str, *, closed: bool = True) -> list[int]:
        # Role, newline and text are one piece to the tokenizer: white space before the text would join the newline.
        ids = self._tokenizer.encode(f"{role}\n{text.lstrip()}")
        return [self._tokens.im_start, *ids, *(self._end if closed else [])]
