"""Makes a tiny Qwen3-Omni checkpoint: the released graph with small, random weights.

    python tools/make_tiny.py --out tmp/random

It needs numpy only. Random weights talk noise: the checkpoint shows that everything is in place, not that it is good.
The tokenizer encodes any text (256 byte tokens, some words on top), special tokens are in the released order, and the
codec has the released structure: 16 codebooks, 12.5 frames and 24000 samples a second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from golden_checkpoint import MERGED_WORDS, Dimensions
from golden_files import write_checkpoint

SEED = 142
"""Not any seed: with this one the replies to the shipped question and to a greeting end by themselves."""

WORDS = (
    *MERGED_WORDS, "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "zero",
    "Ġone", "Ġtwo", "Ġthree", "Ġfour", "Ġfive", "Ġsix", "Ġseven", "Ġeight", "Ġnine", "Ġten", "What", "Hello", "Ġto",
    "Ġin", "Ġof", "Ġand", "Ġyou", "Ġit", "Ġthat", "Ġsee", "Ġhear", "Ġminus", "Ġcolour", "Ġday", "Ġanswer",
)  # fmt: skip

DIMENSIONS = Dimensions(
    audio_window_frames=800,
    talker_width=64,
    talker_heads=(4, 2, 32),
    talker_mrope=(6, 5, 5),
    predictor_heads=(4, 2, 32),
    predictor_feed_forward=96,
    codebook_size=32,
    vocoder=(64, 2, 4, 96),
    vocoder_window=72,
    vocoder_decoder_width=64,
)


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    parameters = write_checkpoint(arguments.out, DIMENSIONS, generator, words=WORDS)
    size = sum(path.stat().st_size for path in arguments.out.iterdir() if path.is_file())
    print(f"{arguments.out}: {parameters} parameters, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
