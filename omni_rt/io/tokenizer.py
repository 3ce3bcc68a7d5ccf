"""Text to token ids and back: the byte-level BPE of the Qwen models, with control tokens kept apart from text.

A checkpoint brings tokenizer.json, or vocab.json + merges.txt with the control tokens in tokenizer_config.json. Text
that merely spells a control token, such as "<|im_end|>" typed by a user, stays text unless `specials=True`: otherwise
whoever writes the text could end the turn and begin another.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from omni_rt.errors import InputError, ModelFormatError, ModelNotFoundError, UnsupportedError
from omni_rt.io.files import read_json

Part = TypeVar("Part")

# How text is cut before merging: contractions, words, single digits, punctuation, line breaks, other space.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """The tokenizer of one checkpoint."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, where: str) -> None:
        """Wrap a byte-level BPE `tokenizer` that was read from `where`; raise UnsupportedError for another kind."""
        for part, kind in ((tokenizer.model, models.BPE), (tokenizer.decoder, decoders.ByteLevel)):
            if not isinstance(part, kind):
                raise UnsupportedError(
                    f"{where}: is a {type(part).__name__} tokenizer, only byte-level BPE is read; use a Qwen checkpoint"
                )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._where = where
        self._with_specials = tokenizer
        # The same model without any added token: it cannot produce one, whatever the text spells.
        self._plain = tokenizers.Tokenizer(tokenizer.model)
        self._plain.normalizer = tokenizer.normalizer
        self._plain.pre_tokenizer = tokenizer.pre_tokenizer
        self._specials = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Tokenizer:
        """Return the tokenizer of a checkpoint directory.

        Raises ModelNotFoundError when it has none, ModelFormatError when the files are damaged or disagree.
        """
        folder = Path(directory)
        whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
        if whole.is_file():
            tokenizer, where = _read(tokenizers.Tokenizer.from_file, whole), whole
        elif vocabulary.is_file() and merges.is_file():
            tokenizer, where = _build(vocabulary, merges), vocabulary
        else:
            raise ModelNotFoundError(
                f"{folder}: has neither tokenizer.json nor vocab.json with merges.txt; download the checkpoint again"
            )
        settings = folder / "tokenizer_config.json"
        if settings.is_file():
            _add_tokens(tokenizer, settings, where)
        return cls(tokenizer, str(where))

    @property
    def vocabulary(self) -> int:
        """Number of token ids that stand for something, control tokens included."""
        return self._with_specials.get_vocab_size()

    def token_id(self, token: str) -> int:
        """Return the id of one whole token such as "<|im_start|>"; raise ModelFormatError when there is none."""
        number = self._with_specials.token_to_id(token)
        if number is None:
            raise ModelFormatError(
                f"{self._where}: has no token {token!r}; is tokenizer_config.json, which names control tokens, missing?"
            )
        return number

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """Return the ids of `text`; with `specials`, control tokens spelled in it become their ids.

        Raises InputError for text that is not valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"text has half a surrogate pair at character {error.start}; decode it properly"
            ) from error
        tokenizer = self._with_specials if specials else self._plain
        return tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Return the text of `ids`, without control tokens unless `skip_special` is False.

        Bytes that are not UTF-8 become U+FFFD; ids without a token (padding of the vocabulary) give nothing.
        """
        decoder = StreamDecoder(self, skip_special)
        return "".join(map(decoder.push, ids)) + decoder.finish()

    def token_bytes(self, number: int) -> bytes:
        """Return the bytes that token `number` stands for, empty when it stands for nothing."""
        token = self._with_specials.id_to_token(int(number)) if 0 <= number < 1 << 32 else None
        if token is None:
            return b""
        try:
            return bytes(_BYTE_OF[character] for character in token)
        except KeyError:  # an added token with characters beyond the byte alphabet
            return token.encode()

    def is_special(self, number: int) -> bool:
        """Return whether `number` is a control token."""
        return number in self._specials


class StreamDecoder:
    """Decodes one id at a time; text comes out as soon as its characters are complete.

    The pieces of a stream, `finish` included, joined are what `Tokenizer.decode` gives for all ids.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, number: int) -> str:
        """Return the text that token `number` completes, often empty."""
        if self._skip_special and self._tokenizer.is_special(number):
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(number))

    def finish(self) -> str:
        """Return U+FFFD for a character that was never completed, else nothing; the stream may then begin anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of byte-level BPE: printable Latin-1 as itself, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _read(reader: Callable[..., Part], *paths: Path) -> Part:
    try:
        return reader(*map(str, paths))
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise ModelFormatError(f"{paths[0]}: is not a readable tokenizer ({error}); download it again") from error


def _build(vocabulary: Path, merges: Path) -> tokenizers.Tokenizer:
    """Return the Qwen2 tokenizer of these files, as yet without control tokens."""
    tokenizer = tokenizers.Tokenizer(_read(models.BPE.from_file, vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_tokens(tokenizer: tokenizers.Tokenizer, settings: Path, where: Path) -> None:
    """Add the tokens of `settings` that `tokenizer` lacks, and check that every one has the id it is said to have."""
    listed = read_json(settings).get("added_tokens_decoder") or {}
    try:
        tokens = sorted((int(number), _added_token(fields)) for number, fields in listed.items())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"{settings}: added_tokens_decoder is malformed ({error!r}); download it again"
        ) from error
    known = set(tokenizer.get_added_tokens_decoder())
    for number, token in tokens:
        if number not in known:
            tokenizer.add_tokens([token])
        found = tokenizer.token_to_id(token.content)
        if found != number:
            raise ModelFormatError(
                f"{settings}: token {token.content!r} has id {number}, but {where.name} gives it {found}; "
                "the files are of different downloads, fetch both again"
            )


def _added_token(fields: dict[str, object]) -> AddedToken:
    content = fields["content"]
    if not isinstance(content, str) or not content:
        raise ValueError(f"content {content!r}")
    flags = {
        name: bool(fields.get(name, False)) for name in ("lstrip", "rstrip", "single_word", "normalized", "special")
    }
    return AddedToken(content, **flags)
