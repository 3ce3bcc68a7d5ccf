"""The shape of the tiny model: sizes, tokenizer and settings, in the layout of the released checkpoint.

    python -m tools.train_tiny.shape OUT

writes everything of the checkpoint directory but the weights.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from golden_checkpoint import Dimensions, byte_alphabet, configuration, special_token_ids
from golden_files import generation_configuration, preprocessor_configuration, write_json, write_tokenizer

from tools.train_tiny import grammar

DIMENSIONS = Dimensions(
    thinker_width=256,
    thinker_layers=6,
    thinker_heads=(4, 2, 64),
    thinker_mrope=(12, 10, 10),
    thinker_experts=(4, 2, 256),
    thinker_dense=(0, 2, 4, 5),
    thinker_feed_forward=512,
    audio=(192, 4, 4, 768, 64),
    audio_window_frames=800,
    vision=(96, 3, 3, 256),
    vision_positions=64,
    deepstack=(0, 1),
    talker_width=256,
    talker_layers=4,
    talker_heads=(4, 2, 64),
    talker_mrope=(12, 10, 10),
    talker_experts=(4, 2, 128, 256),
    talker_projection=256,
    accept_hidden_layer=4,
    predictor_layers=2,
    predictor_heads=(4, 2, 64),
    predictor_feed_forward=512,
    codebooks=4,
    codebook_size=256,
    vocoder_ratios=(2,),
    vocoder=(160, 2, 5, 320),
    vocoder_window=72,
    vocoder_decoder_width=192,
)

SPACE = byte_alphabet()[ord(" ")]
"""How the space before a word is written in the vocabulary."""

USUAL = 18
"""A word with a capital that begins so many texts is one token too."""

VOICE = "chelsie"
"""The one voice that the model speaks in, by the name of a released one."""

PIXELS = 128 * 128
"""Every picture is resized to about so many pixels: the tower was trained on nothing else."""


@cache
def tokenizer_tables() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and the merges of the byte-level BPE, by which a word is one token wherever it stands.

    The words are merged first, the commonest pair next, and at last each with the space before it.
    """
    bare, spaced = _forms()
    merges: list[tuple[str, str]] = []
    parts = [[*word] for word in bare]
    while pairs := Counter(pair for word in parts for pair in pairwise(word)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        parts = [_merged(word, best) for word in parts]
    merges += [(SPACE, word) for word in spaced]
    tokens = [*sorted(byte_alphabet()), *(left + right for left, right in merges)]
    return {token: index for index, token in enumerate(tokens)}, merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the parts of a word with each `pair` of neighbours made one."""
    made: list[str] = []
    for part in word:
        if made and (made[-1], part) == pair:
            made[-1] += part
        else:
            made.append(part)
    return made


def _forms() -> tuple[list[str], list[str]]:
    """Return the words as they are written, of those with a capital the usual ones, and what stands behind a space."""
    texts = [text for fact in grammar.facts() for text in (*fact.questions, fact.answer)]
    spaced = {*grammar.words(), *(word for text in texts for word in re.findall(r" ([A-Za-z]+)", text))}
    first = Counter(re.findall("[A-Za-z]+", text)[0] for text in texts)
    usual = {word for word, count in first.items() if count >= USUAL}
    return sorted({"system", "user", "assistant"} | spaced | usual), sorted(spaced)


def config() -> dict[str, Any]:
    """Return config.json."""
    made = configuration(DIMENSIONS, tokenizer_tables()[0])
    speakers = made["talker_config"]["speaker_id"]
    made["talker_config"]["speaker_id"] = {VOICE: speakers[VOICE]}
    return made


def control_ids() -> dict[str, int]:
    """Return the id of each control token."""
    return special_token_ids(len(tokenizer_tables()[0]))


def write_directory(directory: Path) -> None:
    """Write every file of the checkpoint but the weights."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config())
    pictures = {"min_pixels": PIXELS * 3 // 4, "max_pixels": PIXELS * 5 // 4}
    write_json(directory / "preprocessor_config.json", preprocessor_configuration() | pictures)
    limits = {"do_sample": False, "thinker_max_new_tokens": 128, "talker_max_new_tokens": 1024}
    # The penalty of the release would favour the stop token, which speech has not used before it ends.
    speech = {"talker_temperature": 0.5, "talker_top_k": 20, "talker_repetition_penalty": 1.0}
    write_json(directory / "generation_config.json", generation_configuration() | limits | speech)
    write_tokenizer(directory, *tokenizer_tables())


if __name__ == "__main__":
    write_directory(Path(sys.argv[1]))
