"""The cuts of a text that is too long to be spoken in one go."""

from __future__ import annotations

import re

from omni_rt.errors import InputError

LONGEST = 300
"""Characters of one request: about twenty seconds of speech, well within what the model keeps apart."""

MOST_CHARACTERS = 1_000_000
"""Characters of one call; more is taken for a mistake."""

_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+[”’」』）]*|\n+|$)", re.DOTALL)
_CLAUSE = re.compile(r".+?(?:[,;:—](?=\s)|[，；：、]|$)", re.DOTALL)
_WORD = re.compile(r"\s*\S+|\s+$", re.DOTALL)


def cut(text: str, longest: int = LONGEST) -> list[str]:
    """Return the pieces of a text, each at most `longest` characters, cut at sentence ends where that is possible.

    Else at a comma, else between words, else anywhere. Raises InputError when there is nothing to say.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"the text has {len(text)} characters, at most {MOST_CHARACTERS} are spoken in one call")
    if not text.strip():
        raise InputError("there is nothing to say: the text is empty")
    pieces = _join(_split(text.strip(), [_SENTENCE, _CLAUSE, _WORD], longest), longest)
    return [piece.strip() for piece in pieces if piece.strip()]


def _split(text: str, rules: list[re.Pattern[str]], longest: int) -> list[str]:
    if len(text) <= longest and len(rules) < 3:
        return [text]
    if not rules:
        return [text[i : i + longest] for i in range(0, len(text), longest)]
    parts = [match[0] for match in rules[0].finditer(text)]
    return [piece for part in parts for piece in (_split(part, rules[1:], longest) if len(part) > longest else [part])]


def _join(parts: list[str], longest: int) -> list[str]:
    """Put neighbouring parts together as long as they stay within the limit."""
    joined: list[str] = []
    for part in parts:
        if joined and len((joined[-1] + part).strip()) <= longest:
            joined[-1] += part
        else:
            joined.append(part)
    return joined
