"""Decide whether a checkpoint's own chat template renders the ChatML that `chat_template` renders.

Templates are Jinja programs. None is executed: a program from a download is not data, and a sandbox would be one more
dependency. Instead everything that the program can write is looked at. The template is cut into its raw text, outputs
`{{ }}` and statements `{% %}`; branches that serve what is never passed here (tools, tool calls, a thinking switch,
numbered media) are left out; what remains may write control tokens in the shapes of ChatML only, and no words of its
own. So a template that adds a default system prompt, filters content, or speaks another dialect is refused by what it
would add. What this cannot see is order: it trusts a template made of the right pieces to put them in the right places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_rt.errors import ModelFormatError, UnsupportedError
from omni_rt.io.chat_template import MEDIA, ROLES
from omni_rt.io.files import read_json

_MAX_CHARACTERS = 1 << 18  # the released ones have about 10,000
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_OPENER = re.compile(r"\{\{|\{%|\{#")
_CLOSER = {"{{": re.compile(r"['\"]|\}\}"), "{%": re.compile(r"['\"]|%\}"), "{#": re.compile(r"#\}")}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "\n": ""}
_SUBSCRIPT = re.compile(r"\[\s*(?:'\w+'|\"\w+\")\s*\]")
# What a caller of this library never passes, so that a branch taken only with it is never taken.
_ABSENT = re.compile(
    r"\btools\b|\btool_calls?\b|\benable_thinking\b|\badd_(?:vision|audio)_id\b|(?:==\s*)['\"]tool['\"]|\bdocuments\b"
)
_UNSURE = re.compile(r"\bnot\b|\bor\b|\bundefined\b|\bnone\b|!=", re.IGNORECASE)
_ROLE = "|".join(ROLES)
_MEDIA = "|".join(re.escape("".join(tokens)) for tokens in MEDIA.values())
# All that may be written besides message content. The think pair appears only behind a finished last turn of the
# assistant, which `render` does not accept as the end of a prompt.
_PIECES = re.compile(
    rf"(?:<\|im_start\|>(?:(?:{_ROLE})\n|$)|^\n|<\|im_end\|>\n|{_MEDIA}|^\n?<think>\n*$|^\n?</think>\n*$)*"
)
_PROMPT = "<|im_start|>assistant\n"
_NEEDED = {
    "begins turns with <|im_start|>": "<|im_start|>",
    "ends turns with <|im_end|> and a line break": "<|im_end|>\n",
    "asks for the assistant's turn": _PROMPT,
    "places audio": "".join(MEDIA["audio"]),
    "places images": "".join(MEDIA["image"]),
    "places video": "".join(MEDIA["video"]),
}


@dataclass(frozen=True)
class _Write:
    """Text that the template may write, and whether it is for the generation prompt only."""

    text: str
    prompting: bool


@dataclass(frozen=True)
class _Tag:
    """One output, statement or comment: how it opens, what it holds, where it lies, which sides it trims."""

    opener: str
    body: str
    start: int
    end: int

    def trims(self, side: int) -> str:
        """Return "-" for all space on that side (0 or -1), "block" for its line only, "" for nothing."""
        if self.body[side:][:1] == "-":
            return "-"
        return "" if self.opener == "{{" else "block"


def check_chat_template(directory: str | os.PathLike[str]) -> None:
    """Raise UnsupportedError when a chat template in the checkpoint may render something else than ChatML.

    Looks at chat_template.jinja, chat_template.json and tokenizer_config.json; a checkpoint without any is fine.
    """
    for path, template in _templates(Path(directory)):
        reason = why_not_chatml(template)
        if reason:
            raise UnsupportedError(
                f"{path}: its chat template is not the one this build renders: it {reason}; use a checkpoint with the "
                "released ChatML template, or take the template away if plain ChatML is right for these weights"
            )


def why_not_chatml(template: str) -> str | None:
    """Return why `template` may render something else than ChatML, None when it renders ChatML."""
    if len(template) > _MAX_CHARACTERS:
        return f"has {len(template)} characters, at most {_MAX_CHARACTERS} are looked at"
    try:
        writes = list(_writes(template))
    except _UnreadableError as error:
        return str(error)
    for write in writes:
        if not _PIECES.fullmatch(write.text):
            return f"writes {write.text[:60]!r} of its own"
    texts = [write.text for write in writes]
    for what, text in _NEEDED.items():
        if not any(text in written for written in texts):
            return f"never {what} ({text!r})"
    prompts = {write.text for write in writes if write.prompting}
    if prompts != {_PROMPT}:
        return f"writes {sorted(prompts)} for add_generation_prompt, not {_PROMPT!r}"
    return None


class _UnreadableError(Exception):
    """The template uses something that this check cannot see through."""


def _tags(template: str) -> Iterator[_Tag]:
    """Yield the tags of `template` in one pass; a closer inside a string does not count."""
    position = 0
    while opener := _OPENER.search(template, position):
        at = opener.end()
        while True:
            found = _CLOSER[opener.group()].search(template, at)
            literal = _LITERAL.match(template, found.start()) if found and found.group() in "'\"" else None
            if found is None or (found.group() in "'\"" and literal is None):
                raise _UnreadableError(f"has an unclosed tag near {template[opener.start() :][:40]!r}")
            if literal is None:
                break
            at = literal.end()
        position = found.end()
        yield _Tag(opener.group(), template[opener.end() : found.start()], opener.start(), position)


def _writes(template: str) -> Iterator[_Write]:
    """Yield everything that live parts of `template` can write besides message content."""
    stack: list[tuple[str, bool, str]] = []  # of each open block: its kind, whether it is live, its condition
    position, after = 0, ""
    for tag in [*_tags(template), _Tag("", "", len(template), len(template))]:
        raw = _trim(template[position : tag.start], after, tag.trims(0) if tag.opener else "")
        live = all(alive for _, alive, _ in stack)
        prompting = any("add_generation_prompt" in block and not _UNSURE.search(block) for _, _, block in stack)
        if raw and live:
            yield _Write(raw, prompting)
        position, after = tag.end, tag.trims(-1)
        body = tag.body.strip("-+ \n\t")
        if tag.opener == "{{" and live:
            yield from (_Write(text, prompting) for text in _outputs(body))
        elif tag.opener == "{%":
            yield from _statement(body, stack, live, prompting)
    if stack:
        raise _UnreadableError(f"leaves {stack[-1][0]} open")


def _statement(body: str, stack: list[tuple[str, bool, str]], live: bool, prompting: bool) -> Iterator[_Write]:
    """Open, switch or close the block of one statement; yield what a `set` may hold to be written later."""
    word, rest = (*body.split(None, 1), "")[:2]
    if word in ("if", "for", "macro"):
        stack.append((word, word != "if" or not _never(rest), rest))
    elif word in ("elif", "else"):
        if not stack or stack[-1][0] not in ("if", "for"):
            raise _UnreadableError(f"has {word} without if")
        kind = stack.pop()[0]
        stack.append((kind, not (word == "elif" and _never(rest)), rest))
    elif word in ("endif", "endfor", "endmacro"):
        if not stack or stack.pop()[0] != word[3:]:
            raise _UnreadableError(f"has {word} without {word[3:]}")
    elif word == "set" and "=" in rest:
        if live:
            yield from (_Write(text, prompting) for text in _outputs(rest.partition("=")[2]))
    elif word not in ("break", "continue"):
        raise _UnreadableError(f"uses the statement {word!r}")


def _never(condition: str) -> bool:
    """Return whether `condition` holds only with something that is never passed."""
    return bool(_ABSENT.search(condition)) and not _UNSURE.search(condition)


def _outputs(expression: str) -> list[str]:
    """Return the string literals of an expression that may be written."""
    if expression.strip().startswith("raise_exception("):
        return []
    expression = _SUBSCRIPT.sub("", expression)
    bare = _LITERAL.sub("", expression)
    if "|" in bare and not re.fullmatch(r"[^|]*\|\s*length[^|]*", bare):
        raise _UnreadableError(f"changes what it writes with a filter: {expression[:60]!r}")
    texts: list[str] = []
    end = -1
    for literal in _LITERAL.finditer(expression):
        text = _unquote(literal.group())
        if texts and expression[end : literal.start()].strip() in ("+", "~"):
            texts[-1] += text
        else:
            texts.append(text)
        end = literal.end()
    return [text for text in texts if text]


def _unquote(literal: str) -> str:
    def character(escape: re.Match[str]) -> str:
        if escape.group(1) not in _ESCAPES:
            raise _UnreadableError(f"uses the escape {escape.group()!r}")
        return _ESCAPES[escape.group(1)]

    return re.sub(r"\\(.)", character, literal[1:-1], flags=re.DOTALL)


def _trim(text: str, after: str, before: str) -> str:
    """Return raw text as it is written with trim_blocks and lstrip_blocks, which every caller of templates sets."""
    if after == "-":
        text = text.lstrip()
    elif after == "block":
        text = text.removeprefix("\n")
    if before == "-":
        return text.rstrip()
    if before == "block":
        line = text.rpartition("\n")[2]
        return text[: len(text) - len(line)] if not line.strip() else text
    return text


def _templates(directory: Path) -> Iterator[tuple[Path, str]]:
    jinja = directory / "chat_template.jinja"
    if jinja.is_file():
        try:
            yield jinja, jinja.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelFormatError(f"{jinja}: cannot be read ({error}); download it again") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = directory / name
        found = read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(found, list):  # several by name, of which the default one serves chat
            found = next((t.get("template") for t in found if isinstance(t, dict) and t.get("name") == "default"), None)
        if found is not None:
            if not isinstance(found, str):
                raise ModelFormatError(f"{path}: its chat_template is a {type(found).__name__}, expected a string")
            yield path, found
