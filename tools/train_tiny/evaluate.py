"""The gates of the tiny model, through this runtime: what it hears, answers, sees and says, with counts.

    python -m tools.train_tiny.evaluate [MODEL] [--count N] [--only understand sentences ...]

MODEL is what omni_rt.load takes, "tiny" when left out. Every item comes from a fixed seed (held_out.py).
The pace means something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

import omni_rt
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from tests.recognisers import word_errors
from tools.train_tiny import grammar, held_out
from tools.train_tiny.examples import RATE, user
from tools.train_tiny.held_out import Item
from tools.train_tiny.spoken_gates import GREEDY, Gate, copy_gates, question_gates, speaking_gates

PARTS = ("understand", "sentences", "words", "copies", "answers")
"""What is measured; sentences and words are spoken, copies are of the original voice, answers to spoken questions."""

ASK = """
import sys
from omni_rt.command import group
group.run(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""Runs a command line and says how much memory it took; rusage would count what the process was forked from."""


def message(item: Item, noise: np.ndarray | None = None) -> dict[str, object]:
    """Return the user's message of an item."""
    parts: list[tuple[str, object]] = []
    if item.clip is not None:
        parts.append(("audio", (item.clip if noise is None else item.clip + noise, RATE)))
    if item.picture is not None:
        parts.append(("image", item.picture))
    if item.text:
        parts.append(("text", item.text))
    return user(*parts)


def answers(omni: OmniOrchestrator, items: Iterable[Item], decibels: float | None = None) -> list[tuple[Item, str]]:
    """Return each item with the model's reply."""
    generator = np.random.default_rng(held_out.SEED)
    found = []
    for item in items:
        noise = None
        if decibels is not None and item.clip is not None:
            noise = held_out.noise_at(item.clip, decibels, generator)
        found.append((item, omni.chat([message(item, noise)]).text))
    return found


def exact(name: str, found: Sequence[tuple[Item, str]], least: float = 0.0) -> Gate:
    """Count the replies that are right to the letter."""
    return Gate(name, sum(reply == item.reply for item, reply in found), len(found), least)


def words_right(name: str, found: Sequence[tuple[Item, str]], least: float) -> Gate:
    """Count the words that are written down rightly: all but the errors between the two texts."""
    pairs = [(grammar.words_of(reply), grammar.words_of(item.reply)) for item, reply in found]
    total = sum(len(wanted) for _, wanted in pairs)
    return Gate(name, max(0, total - sum(word_errors(*pair) for pair in pairs)), total, least)


def understanding(omni: OmniOrchestrator, count: int) -> Iterator[Gate]:
    """Measure what the model hears, answers and sees, in text."""
    heard = held_out.transcripts(count)
    yield words_right("written down, unseen voices: words right", answers(omni, heard), 0.95)
    yield words_right("written down, unseen voices, noise at 10 dB: words right", answers(omni, heard, 10), 0.88)
    strings = answers(omni, held_out.word_strings(count))
    yield words_right("words in no order written down, unseen voices (no gate): words right", strings, 0.0)
    yield exact("commands from speech, unseen voices", answers(omni, held_out.commands(count)), 0.95)
    yield exact("questions from speech, unseen voices", answers(omni, held_out.questions(count)), 0.92)
    yield exact("sums that were never taught, from speech (no gate)", answers(omni, held_out.unseen_sums()))
    yield exact("questions and commands in writing", answers(omni, held_out.written(count)), 0.95)
    pictures = answers(omni, held_out.seen(count))
    yield exact("pictures", pictures, 0.95)
    for kind in sorted({item.kind for item, _ in pictures}):
        yield exact(f"of these, {kind}", [pair for pair in pictures if pair[0].kind == kind])


def measured(omni: OmniOrchestrator, part: str, count: int) -> Iterable[Gate]:
    """Measure one of `PARTS`."""
    if part == "understand":
        return understanding(omni, count)
    if part == "copies":
        return copy_gates(omni, count)
    if part == "answers":
        return question_gates(omni, count)
    return chain.from_iterable(speaking_gates(omni, part, manner, count) for manner in ("greedy", "sampled"))


def pace(omni: OmniOrchestrator) -> str:
    """Measure how long spoken answers take, and the memory of the command line that gives one."""
    seconds = sound = 0.0
    for item in held_out.questions(14):
        began = time.perf_counter()
        reply = omni.chat([message(item)], speech=True, sampling=GREEDY)
        seconds += time.perf_counter() - began
        sound += 0 if reply.audio is None else len(reply.audio) / 24000
    question = Path(__file__).parents[2] / "examples" / "what-is-three-plus-four.wav"
    with tempfile.TemporaryDirectory() as directory:
        asked = [
            "chat",
            str(question),
            "--device",
            "cpu",
            "-o",
            f"{directory}/answer.wav",
            "--model",
            str(omni.directory),
        ]
        done = subprocess.run([sys.executable, "-c", ASK, *asked], check=True, capture_output=True, text=True)
    peak = int(done.stdout.split()[-2]) / 1024
    return (
        f"spoken answers: real-time factor {seconds / max(sound, 1e-9):.3f}; omni-rt chat: {peak:.0f} MiB at its peak"
    )


def main() -> None:
    """Print the table; exit with 1 when a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--count", type=int, default=200, help="items of each kind")
    parser.add_argument("--only", choices=(*PARTS, "pace"), nargs="+", default=(*PARTS, "pace"))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    met = True
    with omni_rt.load(arguments.model, device=arguments.device) as omni:
        assert isinstance(omni, OmniOrchestrator)
        asked = (measured(omni, part, arguments.count) for part in PARTS if part in arguments.only)
        for gate in chain.from_iterable(asked):
            print(gate, flush=True)
            met &= gate.met
        if "pace" in arguments.only:
            print(pace(omni))
    sys.exit(not met)


if __name__ == "__main__":
    main()
