"""What the trained model is tested on: items from fixed seeds that it was never trained on.

    python -m tools.train_tiny.held_out tests

writes the set that travels with the tests, held_out.ogg (all clips, one after the other) and held_out.json. The voices
and the speaking rates were held out, the texts follow the same grammar; sums that were never taught are kept apart.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tools.train_tiny import grammar, pictures, speech
from tools.train_tiny.examples import RATE, padded

SEED = 1000
GAP = RATE // 4
QUESTIONS = tuple(task for task in grammar.TASKS if task != "command")


@dataclass
class Item:
    """One thing to ask: a clip float32 at 16 kHz or a picture uint8 or neither, a written text or none, the reply."""

    kind: str
    reply: str
    text: str = ""
    spoken: str = ""
    clip: np.ndarray | None = None
    picture: np.ndarray | None = None


def _say(kind: str, text: str, reply: str, chance: random.Random, request: str = "") -> Item:
    clip = padded(speech.speak(text, speech.draw_voice("held-out", chance)), chance).astype(np.float32)
    return Item(kind, reply, request, text, clip)


def transcripts(count: int) -> list[Item]:
    """Questions, commands, answers and numbers, to be written down."""
    chance = random.Random(SEED)
    texts: list[str] = []
    while len(texts) < count:
        fact, question = grammar.ask(chance)
        texts.append(chance.choice((question, question, fact.answer, grammar.random_numbers(chance))))
    return [_say("transcribe", text, text, chance, grammar.TRANSCRIBE[0]) for text in texts]


def word_strings(count: int) -> list[Item]:
    """Words in no order, to be written down: nothing can be guessed."""
    chance = random.Random(SEED + 6)
    texts = [grammar.random_words(chance) for _ in range(count)]
    return [_say("transcribe", text, text, chance, grammar.TRANSCRIBE[0]) for text in texts]


def commands(count: int) -> list[Item]:
    """Spoken commands."""
    chance = random.Random(SEED + 1)
    asked = [grammar.ask(chance, "command") for _ in range(count)]
    return [_say("command", question, fact.answer, chance) for fact, question in asked]


def questions(count: int) -> list[Item]:
    """Spoken questions about what was taught, of every kind in equal number."""
    chance = random.Random(SEED + 2)
    asked = [grammar.ask(chance, QUESTIONS[index % len(QUESTIONS)]) for index in range(count)]
    return [_say("question", question, fact.answer, chance) for fact, question in asked]


def unseen_sums() -> list[Item]:
    """All sums that were never taught, two phrasings each, spoken."""
    chance = random.Random(SEED + 3)
    listed = grammar.by_task(held_out=True)["sum"]
    return [
        _say("unseen sum", question, fact.answer, chance)
        for fact in listed
        for question in chance.sample(fact.questions, 2)
    ]


def written(count: int) -> list[Item]:
    """Written questions about what was taught."""
    chance = random.Random(SEED + 4)
    asked = [grammar.ask(chance) for _ in range(count)]
    return [Item("written", fact.answer, question) for fact, question in asked]


def seen(count: int) -> list[Item]:
    """Pictures with a written question: shape, colour and number in equal parts, and what else may be asked."""
    chance = random.Random(SEED + 5)
    items = []
    while len(items) < count:
        scene = pictures.draw_scene(chance)
        picture = pictures.paint(scene, *pictures.draw_size(chance), chance)
        wanted = ("shape", "colour", "count", "look", "place", "size")[len(items) % 6]
        asked = [item for item in pictures.questions(scene) if item[0] == wanted]
        if asked:
            _, question, reply = chance.choice(asked)
            items.append(Item(f"picture {wanted}", reply, question, picture=picture))
    return items


def noise_at(clip: np.ndarray, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """Return noise for a clip, with a spectrum that falls by 3 dB an octave, at a ratio of speech to noise."""
    spectrum = np.fft.rfft(generator.normal(size=len(clip)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 4)), len(clip))
    level = np.sqrt(np.mean(clip**2) / 10 ** (decibels / 10) / np.mean(noise**2))
    return (noise * level).astype(np.float32)


def write(directory: Path) -> None:
    """Write the set that travels with the tests."""
    items = [*transcripts(80), *commands(70), *questions(70)]
    starts, parts, place = [], [], 0
    for item in items:
        assert item.clip is not None
        starts.append([place, len(item.clip)])
        parts += [item.clip, np.zeros(GAP, np.float32)]
        place += len(item.clip) + GAP
    with soundfile.SoundFile(
        directory / "held_out.ogg", "w", RATE, 1, "VORBIS", format="OGG", compression_level=0.9
    ) as file:
        for part in parts:  # piece by piece: the encoder takes little at once
            file.write(part)
    listed = [
        {"kind": item.kind, "spoken": item.spoken, "reply": item.reply, "start": start, "samples": length}
        for item, (start, length) in zip(items, starts, strict=True)
    ]
    (directory / "held_out.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in listed) + "\n]\n")


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
