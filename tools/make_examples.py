"""Makes the shipped spoken questions (16 kHz mono PCM16 WAV) and pictures that the shipped model understands.

    python tools/make_examples.py --out examples

Needs the extra `train`: speech comes from espeak-ng (GPL-3.0; a tool, nothing of it is shipped), in voices that the
model never heard in training.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.train_tiny import pictures, speech

RATE = 16000
SILENCE = np.zeros(int(0.15 * RATE), np.float32)
QUESTIONS = {
    "what-is-three-plus-four": ("What is three plus four?", speech.Voice("en-us+belinda", 150)),
    "turn-on-the-kitchen-light": ("Turn on the kitchen light.", speech.Voice("en-us+Michael", 160)),
    "how-many-legs-has-a-spider": ("How many legs has a spider?", speech.Voice("en-gb-x-rp+paul", 150)),
    "what-colour-is-it": ("What colour is it?", speech.Voice("en+steph2", 155)),
}
PICTURES = {
    "red-circle": pictures.Scene((pictures.Mark("circle", "red", (0.5, 0.5), 0.22),)),
    "three-blue-stars": pictures.Scene(
        tuple(pictures.Mark("star", "blue", centre, 0.12) for centre in ((0.2, 0.2), (0.8, 0.5), (0.2, 0.8)))
    ),
}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    directory = parser.parse_args().out
    for name, (text, voice) in QUESTIONS.items():
        if voice.name.partition("+")[2] not in speech.VARIANTS["held-out"]:
            raise SystemExit(f"{voice.name} is no voice that was held out")
        samples = np.concatenate([SILENCE, speech.speak(text, voice), SILENCE])
        soundfile.write(directory / f"{name}.wav", samples, RATE, subtype="PCM_16")
    for name, scene in PICTURES.items():
        Image.fromarray(pictures.paint(scene, 192, 192, random.Random(3), most_noise=0)).save(directory / f"{name}.png")
    for name in (*(f"{name}.wav" for name in QUESTIONS), *(f"{name}.png" for name in PICTURES)):
        print(f"{directory / name}: {(directory / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
