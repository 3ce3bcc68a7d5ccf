"""How well a model speaks, measured through the runtime: by two recognisers, its own stops, and the clock.

    python -m tools.train_tiny.spoken_gates tests/spoken_texts.json

writes the sentences for the tests; evaluate.py has the gates.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from omni_rt import Done, Sampling, Speech
from omni_rt.models.qwen3_omni.griffin_lim import GriffinLim
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from tests.recognisers import NAMES, word_errors, words_heard
from tools.train_tiny import grammar, speech
from tools.train_tiny.codec import FRAME, SAMPLE_RATE, Codec, with_silence

GREEDY = Sampling(temperature=0.0)
DURATION = (0.8, 1.25)
"""How long speech may take, relative to the voice that it was learned from."""


@dataclass(frozen=True)
class Gate:
    """A share that must be reached, with its counts."""

    name: str
    right: int
    total: int
    least: float

    @property
    def met(self) -> bool:
        """Whether the share is reached."""
        return self.right >= self.least * self.total

    def __str__(self) -> str:
        """Return the gate as a row of a table."""
        share = 100 * self.right / max(1, self.total)
        verdict = "met" if self.met else "MISSED"
        return f"| {self.name} | {self.right}/{self.total} | {share:.2f} % | >= {100 * self.least:.1f} % | {verdict} |"


def draw_texts(kind: str, count: int, seed: int = 0) -> list[str]:
    """Return texts to speak: "sentences" of the grammar, or "words" in no order."""
    chance = random.Random(f"gate {kind} {seed}")
    if kind == "words":
        return [grammar.random_words(chance, 2, 8) for _ in range(count)]
    facts = [grammar.ask(chance) for _ in range(count)]
    return [fact.answer if index % 2 else question for index, (fact, question) in enumerate(facts)]


def said_wrongly(clips: Iterable[tuple[np.ndarray, str]], name: str) -> tuple[int, int]:
    """Return how many words recogniser `name` hears wrongly in clips at 24 kHz with their texts, of how many."""
    wrong = total = 0
    for samples, text in clips:
        wanted = grammar.words_of(text)
        heard = words_heard(np.pad(samples, SAMPLE_RATE // 10), SAMPLE_RATE, name) if len(samples) else []
        wrong, total = wrong + word_errors(heard, wanted), total + len(wanted)
    return wrong, total


def frames_of(text: str) -> int:
    """Return how many frames the original voice takes for a text."""
    return len(with_silence(speech.speak(text, speech.TARGET, SAMPLE_RATE))) // FRAME


def spoken(omni: OmniOrchestrator, texts: Sequence[str], sampling: Sampling | None) -> list[Speech]:
    """Return each text spoken by the model, its number as the seed."""
    found = []
    for seed, text in enumerate(texts):
        *_, done = omni.read(text, sampling=sampling, seed=seed)
        assert isinstance(done, Done) and isinstance(done.reply, Speech)
        found.append(done.reply)
    return found


def speaking_gates(omni: OmniOrchestrator, kind: str, manner: str, count: int) -> list[Gate]:
    """Let the model speak texts of a kind "greedy" or "sampled", by its own defaults, and judge the speech."""
    texts = draw_texts(kind, count)
    said = spoken(omni, texts, GREEDY if manner == "greedy" else None)
    name, least = f"{kind} spoken, {manner}", 0.97 if manner == "greedy" else 0.93
    gates = []
    for recogniser in NAMES:
        wrong, total = said_wrongly(zip((one.audio for one in said), texts, strict=True), recogniser)
        gates.append(Gate(f"{name}: words right, {recogniser} recogniser", max(0, total - wrong), total, least))
    gates.append(Gate(f"{name}: stops by itself", sum(one.finish_reason == "stop" for one in said), count, 0.995))
    ratios = np.array([one.codes.shape[1] / frames for one, frames in zip(said, map(frames_of, texts), strict=True)])
    in_time = int(((ratios >= DURATION[0]) & (ratios <= DURATION[1])).sum())
    gates.append(Gate(f"{name}: takes 0.8 to 1.25 of the time of the original", in_time, count, 0.99))
    return gates


def copy_gates(omni: OmniOrchestrator, count: int) -> list[Gate]:
    """Judge what the vocoders make of the codes of the original: at most 1 % more words wrong than in the original."""
    codec = Codec.load(omni.directory, torch.device("cpu"))
    texts = draw_texts("sentences", count, 1)
    clips = [with_silence(speech.speak(text, speech.TARGET, SAMPLE_RATE)).astype(np.float32) for text in texts]
    codes = [codec.encode(torch.from_numpy(clip)).numpy().T.astype(np.int32) for clip in clips]
    assert omni.code2wav is not None and omni.config.code2wav is not None
    makers = {"code2wav": omni.code2wav, "griffin-lim": GriffinLim(omni.directory, omni.config.code2wav)}
    gates = []
    for recogniser in NAMES:
        wrong, total = said_wrongly(zip(clips, texts, strict=True), recogniser)
        natural = 1 - wrong / total
        gates.append(
            Gate(f"the original voice (no gate): words right, {recogniser} recogniser", total - wrong, total, 0)
        )
        for name, vocoder in makers.items():
            made = [vocoder(one).waveform for one in codes]
            wrong, total = said_wrongly(zip(made, texts, strict=True), recogniser)
            gate = Gate(
                f"copied by {name}: words right, {recogniser} recogniser", max(0, total - wrong), total, natural - 0.01
            )
            gates.append(gate)
    return gates


def question_gates(omni: OmniOrchestrator, count: int) -> list[Gate]:
    """Ask questions in voices that the model never heard, and judge the words of the spoken answers."""
    chance = random.Random("gate questions")
    answers = []
    for seed in range(count):
        fact, question = grammar.ask(chance)
        asked = speech.speak(question, speech.draw_voice("held-out", chance), 16000)
        message = {"role": "user", "content": [{"type": "audio", "audio": (np.pad(asked, 3200), 16000)}]}
        reply = omni.chat([message], speech=True, seed=seed, sampling=GREEDY)
        assert reply.audio is not None
        answers.append((reply.audio, fact.answer))
    right = sum(any(said_wrongly([answer], name)[0] == 0 for name in NAMES) for answer in answers)
    return [Gate("spoken question to spoken answer, all words right", right, count, 0.88)]


def main() -> None:
    """Write the sentences of the tests, with the frames that the original voice takes for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    frames = {text: frames_of(text) for text in draw_texts("sentences", 200)}
    parser.parse_args().file.write_text(json.dumps(frames, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
