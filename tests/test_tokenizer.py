"""Text becomes the ids that the Qwen tokenizer gives it, comes back whole, and cannot smuggle in control tokens."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rt.errors import InputError, ModelFormatError, ModelNotFoundError, UnsupportedError
from omni_rt.io.tokenizer import StreamDecoder, Tokenizer

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_pad|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "ð Ł", "ðŁ ĺ", "Ċ Ċ", "Ġ Ġ", "' s", "1 2"]


def byte_alphabet() -> list[str]:
    return sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def write_checkpoint(folder: Path) -> tuple[dict[str, int], dict[str, object]]:
    """Write vocab.json, merges.txt and tokenizer_config.json of a tiny byte-level BPE."""
    tokens = byte_alphabet() + [merge.replace(" ", "") for merge in MERGES]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    added = {
        str(len(tokens) + i): {"content": token, "special": True, "normalized": False}
        for i, token in enumerate(CONTROL)
    }
    added[str(len(tokens) + len(CONTROL))] = {"content": "<think>", "special": False, "normalized": False}
    settings_json = {"added_tokens_decoder": added}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings_json))
    return vocabulary, settings_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([number]) for number in tokenizer.encode(text)]


def test_merges_apply_inside_words_only(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "hello hello") == ["hello", " hello"]
    assert pieces(tokenizer, "12") == ["1", "2"]
    assert pieces(tokenizer, "\n\n") == ["\n\n"]
    assert pieces(tokenizer, "a's") == ["a", "'s"]
    # Of a run of spaces the last one belongs to the next word, so three spaces are two and one.
    assert pieces(tokenizer, "a   hello") == ["a", "  ", " hello"]


def test_text_is_composed_before_it_is_cut(tokenizer: Tokenizer) -> None:
    assert (
        tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9") == [tokenizer.token_id("Ã"), tokenizer.token_id("©")]
    )


def test_control_tokens_in_text_stay_text_unless_asked_for(tokenizer: Tokenizer) -> None:
    text = "hello<|im_end|>\n<think>"
    first_control = tokenizer.token_id("<|endoftext|>")
    plain, special = tokenizer.encode(text), tokenizer.encode(text, specials=True)
    assert all(number < first_control for number in plain) and tokenizer.decode(plain) == text
    assert [number for number in special if number >= first_control] == [
        tokenizer.token_id("<|im_end|>"),
        tokenizer.token_id("<think>"),
    ]
    assert tokenizer.decode(special) == "hello\n<think>"
    assert tokenizer.decode(special, skip_special=False) == text


def test_both_kinds_of_files_give_the_same_tokenizer(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer._with_specials.to_str(), encoding="utf-8")
    other = Tokenizer.load(tmp_path)
    text = "hello<|im_start|>  \U0001f600 12's\n\n\nend"
    assert other.encode(text, specials=True) == tokenizer.encode(text, specials=True)
    assert other.vocabulary == tokenizer.vocabulary == 256 + len(MERGES) + len(CONTROL) + 1


def test_padding_and_truncation_settings_of_a_file_are_ignored(tokenizer: Tokenizer, tmp_path: Path) -> None:
    copy = tokenizers.Tokenizer.from_str(tokenizer._with_specials.to_str())
    copy.enable_padding(length=50)
    copy.enable_truncation(2)
    copy.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).encode("a b c d", specials=True) == tokenizer.encode("a b c d")


TEXT = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("hello 12'\n\t\U0001f600中<|im_end|>"), max_size=40
)


@settings(max_examples=200)
@given(text=TEXT)
def test_decoding_gives_the_composed_text_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    assert max(ids, default=0) < tokenizer.token_id("<|endoftext|>")


@settings(max_examples=300)
@given(ids=st.lists(st.integers(0, 281), max_size=20), skip=st.booleans())
def test_any_ids_stream_to_what_the_library_decodes(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    stream = StreamDecoder(tokenizer, skip)
    streamed = "".join(stream.push(number) for number in ids) + stream.finish()
    assert streamed == tokenizer.decode(ids, skip)
    assert streamed == tokenizer._with_specials.decode(ids, skip_special_tokens=skip)


def test_a_character_is_held_back_until_it_is_whole(tokenizer: Tokenizer) -> None:
    stream = StreamDecoder(tokenizer)
    ids = tokenizer.encode("\U0001f600!")
    assert len(ids) > 2
    assert [stream.push(number) for number in ids] == [""] * (len(ids) - 2) + ["\U0001f600", "!"]
    assert stream.push(ids[0]) == "" and stream.finish() == "\ufffd"
    assert stream.push(tokenizer.encode("a")[0]) == "a"


def test_an_id_without_a_token_gives_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([100_000, -1, 1 << 40]) == ""


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="character 2"):
        tokenizer.encode("ab\ud83d")


def test_an_unknown_token_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelFormatError, match=r"no token '<\|nope\|>'"):
        tokenizer.token_id("<|nope|>")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"neither tokenizer\.json nor vocab\.json"):
        Tokenizer.load(tmp_path)
    write_checkpoint(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nnot-a-merge\n")
    with pytest.raises(ModelFormatError, match=r"vocab\.json: is not a readable tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json: is not a readable tokenizer"):
        Tokenizer.load(tmp_path)


def shift(added: dict) -> None:
    number = max(added, key=int)
    added[str(int(number) + 1)] = added.pop(number)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (shift, "'<think>' has id 272, but vocab.json gives it 271"),
        (lambda added: added.update({"5": {"content": "<|im_end|>"}}), "has id 5"),
        (lambda added: added.update({"x": {"content": "<|new|>"}}), "malformed"),
        (lambda added: added.update({"272": {}}), "malformed"),
        (lambda added: added.update({"272": {"content": 3}}), "malformed"),
        (lambda added: added.update({"272": "text"}), "malformed"),
    ],
)
def test_control_tokens_that_disagree_are_refused(tmp_path: Path, change: Callable[[dict], None], says: str) -> None:
    _, config = write_checkpoint(tmp_path)
    change(config["added_tokens_decoder"])  # type: ignore[arg-type]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFormatError, match=says):
        Tokenizer.load(tmp_path)


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UnsupportedError, match="is a WordLevel tokenizer"):
        Tokenizer.load(tmp_path)
