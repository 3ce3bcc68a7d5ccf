"""The shape of the tiny model: sizes, tokenizer and settings, in the layout of the released checkpoint.

    python -m tools.train_tiny.shape OUT

writes everything of the checkpoint directory but the weights.
"""

from __future__ import annotations

import json
import random
import sys
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from golden_checkpoint import Dimensions, byte_alphabet, configuration, special_token_ids
from golden_files import generation_configuration, preprocessor_configuration, write_json, write_tokenizer
from tokenizers import Regex, models, pre_tokenizers, trainers

from omni_rt.io import tokenizer as runtime
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

VOCABULARY = 984
"""Tokens without the control tokens; with them, and a few ids that stand for nothing, the tables have 1024 rows."""

VOICE = "chelsie"
"""The one voice that the model speaks in, by the name of a released one."""

PIXELS = 128 * 128
"""Every picture is resized to about so many pixels: the tower was trained on nothing else."""


@cache
def tokenizer_tables() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Train the byte-level BPE on the grammar; return the vocabulary and the merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(runtime.WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=sorted(byte_alphabet()), show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(_tokenizer_texts(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    if len(model["vocab"]) != VOCABULARY:
        raise ValueError(f"the grammar gives {len(model['vocab'])} tokens, expected {VOCABULARY}")
    return model["vocab"], merges


def _tokenizer_texts() -> list[str]:
    """Return the texts to train on: every word often enough to become one token, in its places in a sentence."""
    chance = random.Random("tokenizer")
    texts = [word for word in ("system", "user", "assistant") for _ in range(1000)]
    texts += [f" {word}" for word in grammar.words() for _ in range(60)]
    texts += [word for word in grammar.words() for _ in range(20)]
    texts += [text for fact in grammar.facts() for text in (*fact.questions, fact.answer)]
    texts += [grammar.spoken_text(chance) for _ in range(2000)]
    texts += [*grammar.TRANSCRIBE, *grammar.PICTURE_WORDS]
    return texts


def config() -> dict[str, Any]:
    """Return config.json."""
    made = configuration(DIMENSIONS, tokenizer_tables()[0])
    speakers = made["talker_config"]["speaker_id"]
    made["talker_config"]["speaker_id"] = {VOICE: speakers[VOICE]}
    return made


def control_ids() -> dict[str, int]:
    """Return the id of each control token."""
    return special_token_ids(VOCABULARY)


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
