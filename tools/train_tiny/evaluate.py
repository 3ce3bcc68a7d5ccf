"""The gates of the tiny model, through this runtime: what it hears, answers, sees and says, with counts.

    python -m tools.train_tiny.evaluate [MODEL] [--count N] [--only understand|speak] [--json FILE]

MODEL is what omni_rt.load takes, "tiny" when left out. Every item comes from a fixed seed (held_out.py).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import omni_rt
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.sampling import Sampling
from tests.recognisers import NAMES, word_errors, words_heard
from tools.train_tiny import grammar, held_out, speech
from tools.train_tiny.examples import RATE, user
from tools.train_tiny.held_out import Item

GREEDY = Sampling()


@dataclass
class Gate:
    """One line of the table: how many are good of how many, and the share that is wanted, at least or at most."""

    name: str
    good: int
    total: int
    least: float | None = None
    most: float | None = None

    @property
    def share(self) -> float:
        """The share in per cent."""
        return 100 * self.good / max(self.total, 1)

    def __str__(self) -> str:
        """The line."""
        if self.least is None and self.most is None:
            return f"{self.name:58} {self.good:5}/{self.total:<5} {self.share:6.2f} %"
        met = self.share >= self.least if self.least is not None else self.share <= (self.most or 0)
        wanted = f">= {self.least}" if self.least is not None else f"<= {self.most}"
        return (
            f"{self.name:58} {self.good:5}/{self.total:<5} {self.share:6.2f} %  {wanted:8} {'met' if met else 'MISSED'}"
        )


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


def noise_at(clip: np.ndarray, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """Return noise for a clip, with a spectrum that falls by 3 dB an octave, at a ratio of speech to noise."""
    spectrum = np.fft.rfft(generator.normal(size=len(clip)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 4)), len(clip))
    level = np.sqrt(np.mean(clip**2) / 10 ** (decibels / 10) / np.mean(noise**2))
    return (noise * level).astype(np.float32)


def answers(omni: OmniOrchestrator, items: Iterable[Item], decibels: float | None = None) -> list[tuple[Item, str]]:
    """Return each item with the model's reply."""
    generator = np.random.default_rng(held_out.SEED)
    found = []
    for item in items:
        noise = None
        if decibels is not None and item.clip is not None:
            noise = noise_at(item.clip, decibels, generator)
        found.append((item, omni.chat([message(item, noise)]).text))
    return found


def exact(name: str, found: Sequence[tuple[Item, str]], least: float | None) -> Gate:
    """Count the replies that are right to the letter."""
    return Gate(name, sum(reply == item.reply for item, reply in found), len(found), least)


def wrong_words(name: str, found: Sequence[tuple[Item, str]], most: float) -> Gate:
    """Count the words that are written down wrongly."""
    pairs = [(grammar.words_of(reply), grammar.words_of(item.reply)) for item, reply in found]
    return Gate(name, sum(word_errors(*pair) for pair in pairs), sum(len(wanted) for _, wanted in pairs), most=most)


def understanding(omni: OmniOrchestrator, count: int) -> list[Gate]:
    """Measure what the model hears, answers and sees, in text."""
    heard = held_out.transcripts(count)
    gates = [wrong_words("word error, unseen voices, clean", answers(omni, heard), 5)]
    gates += [wrong_words("word error, unseen voices, 10 dB", answers(omni, heard, 10), 12)]
    gates += [exact("commands from speech", answers(omni, held_out.commands(count)), 95)]
    gates += [exact("questions from speech", answers(omni, held_out.questions(count)), 92)]
    gates += [exact("sums never taught, from speech (no gate)", answers(omni, held_out.unseen_sums()), None)]
    gates += [exact("questions and commands in writing", answers(omni, held_out.written(count)), 95)]
    pictures = answers(omni, held_out.seen(count))
    gates += [exact("pictures", pictures, 95)]
    for kind in sorted({item.kind for item, _ in pictures}):
        gates += [exact(f"  {kind}", [pair for pair in pictures if pair[0].kind == kind], None)]
    return gates


def speaking(omni: OmniOrchestrator, count: int) -> list[Gate]:
    """Measure what the model says, by both recognisers."""
    gates = []
    for name, sampling, least in (("greedy", GREEDY, 97), ("sampled", None, 93)):
        said = [omni.chat([message(item)], speech=True, sampling=sampling, seed=index)
                for index, item in enumerate(held_out.written(count))]  # fmt: skip
        for recogniser in NAMES:
            pairs = [(words_heard(_sound(reply), 24000, recogniser), grammar.words_of(reply.text)) for reply in said]
            total = sum(len(wanted) for _, wanted in pairs)
            right = total - sum(word_errors(*pair) for pair in pairs)
            gates += [Gate(f"spoken replies, {name}: words, {recogniser} recogniser", right, total, least)]
        stopped = sum(reply.finish_reason == "stop" for reply in said)
        gates += [Gate(f"spoken replies, {name}: end by themselves", stopped, len(said), 99.5)]
        ratios = [len(_sound(reply)) / len(speech.speak(reply.text, speech.TARGET, 24000)) for reply in said]
        fit = sum(0.8 <= ratio <= 1.25 for ratio in ratios)
        gates += [Gate(f"spoken replies, {name}: length 0.8 to 1.25 of the teacher's", fit, len(said), 95)]
    asked = [*held_out.questions(count // 2), *held_out.commands(count // 2)]
    replies = [(item, omni.chat([message(item)], speech=True, sampling=GREEDY)) for item in asked]
    for recogniser in NAMES:
        right = sum(words_heard(_sound(reply), 24000, recogniser) == grammar.words_of(item.reply)
                    for item, reply in replies)  # fmt: skip
        gates += [Gate(f"spoken question to spoken answer, {recogniser} recogniser", right, len(replies), 88)]
    return gates


def _sound(reply: omni_rt.Reply) -> np.ndarray:
    """Return the speech of a reply; some silence where there is none, so that it counts as nothing heard."""
    return reply.audio if reply.audio is not None and len(reply.audio) > 2400 else np.zeros(2400, np.float32)


def pace(omni: OmniOrchestrator) -> str:
    """Measure how long spoken answers take, and the memory at its peak."""
    seconds = sound = 0.0
    for item in held_out.questions(14):
        began = time.perf_counter()
        reply = omni.chat([message(item)], speech=True, sampling=GREEDY)
        seconds += time.perf_counter() - began
        sound += len(_sound(reply)) / 24000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"real-time factor of spoken answers {seconds / sound:.3f}, peak memory of this process {peak:.0f} MiB"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--count", type=int, default=200, help="items of each kind")
    parser.add_argument("--only", choices=("understand", "speak"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    gates: list[Gate] = []
    with omni_rt.load(arguments.model, device=arguments.device) as omni:
        assert isinstance(omni, OmniOrchestrator)
        for name, measure in (("understand", understanding), ("speak", speaking)):
            if arguments.only in (None, name):
                for gate in measure(omni, arguments.count):
                    print(gate, flush=True)
                    gates.append(gate)
        if arguments.only != "understand":
            print(pace(omni))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(gate) | {"share": gate.share} for gate in gates], indent=1))


if __name__ == "__main__":
    main()
