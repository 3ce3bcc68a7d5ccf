"""Makes a tiny Qwen3-TTS checkpoint with random weights, complete with its speech_tokenizer; needs numpy only.

    python tools/make_tiny_tts.py --size 1b7 --kind custom_voice --seed 1 --out tmp/tiny-tts

Kinds: custom_voice, voice_design (1b7 in the release), base (with a speaker encoder). What it speaks is noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from golden_tts_checkpoint import Variant, write_codec, write_voice


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("0b6", "1b7"), default="1b7")
    parser.add_argument("--kind", choices=("custom_voice", "voice_design", "base"), default="custom_voice")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    variant = Variant(arguments.size, arguments.kind)
    write_voice(arguments.out, variant, np.random.default_rng([arguments.seed, 1]))
    write_codec(arguments.out / "speech_tokenizer", np.random.default_rng([arguments.seed, 0]))
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: {variant.name}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
