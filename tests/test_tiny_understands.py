"""The shipped model understands speech, writing and pictures, as numbers with bounds.

Speech is in voices and at rates that were held out in training (tools/train_tiny/held_out.py made it). The first items
of each kind are looked at in every run; --tiny-items 200 looks at all.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import omni_rt
from omni_rt import Sampling
from omni_rt.models.qwen3_omni.orchestrator import TRANSCRIBE, OmniOrchestrator
from omni_rt.results import Reply
from tests.command_line import QUESTION, ROOT, Program
from tests.recognisers import NAMES, word_errors, words_heard
from tools.train_tiny import grammar, pictures
from tools.train_tiny.held_out import noise_at

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def omni() -> Iterator[OmniOrchestrator]:
    with omni_rt.load("tiny", device="cpu") as model:
        assert isinstance(model, OmniOrchestrator)
        yield model


@pytest.fixture(scope="module")
def count(request: pytest.FixtureRequest) -> int:
    """Items of each kind to look at."""
    return int(request.config.getoption("--tiny-items"))


@pytest.fixture(scope="module")
def clips(count: int) -> dict[str, list[dict[str, Any]]]:
    """By kind, clips that were held out: what is said, the reply, and float32 samples at 16 kHz."""
    samples, rate = soundfile.read(HERE / "held_out.ogg", dtype="float32")
    assert rate == 16000
    found: dict[str, list[dict[str, Any]]] = {}
    for item in json.loads((HERE / "held_out.json").read_text()):
        listed = found.setdefault(item["kind"], [])
        if len(listed) < count:
            listed.append(item | {"clip": samples[item["start"] : item["start"] + item["samples"]]})
    return found


def ask(omni: OmniOrchestrator, *parts: tuple[str, Any]) -> Reply:
    """Return the reply to one message of (kind, value) parts."""
    return omni.chat([{"role": "user", "content": [{"type": kind, kind: value} for kind, value in parts]}])


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.mark.parametrize(("decibels", "most"), [(None, 0.07), (10, 0.14)], ids=["clean", "10 dB"])
def test_unseen_voices_are_written_down(
    omni: OmniOrchestrator, clips: dict[str, list[dict[str, Any]]], decibels: int | None, most: float
) -> None:
    generator = np.random.default_rng(5)
    wrong = total = 0
    for item in clips["transcribe"]:
        clip = item["clip"]
        if decibels is not None:
            clip = clip + noise_at(clip, decibels, generator)
        heard = ask(omni, ("audio", (clip, 16000)), ("text", TRANSCRIBE)).text
        wrong += word_errors(words(heard), words(item["spoken"]))
        total += len(words(item["spoken"]))
    assert wrong <= most * total, f"{wrong} of {total} words are wrong"


@pytest.mark.parametrize(("kind", "least"), [("command", 0.9), ("question", 0.85)])
def test_unseen_voices_are_answered(
    omni: OmniOrchestrator, clips: dict[str, list[dict[str, Any]]], kind: str, least: float
) -> None:
    asked = clips[kind]
    replies = [(ask(omni, ("audio", (item["clip"], 16000))).text, item) for item in asked]
    wrong = [f"{item['spoken']} -> {reply}" for reply, item in replies if reply != item["reply"]]
    assert len(wrong) <= (1 - least) * len(asked), f"{len(wrong)} of {len(asked)}: {wrong}"


def test_spoken_questions_are_answered_aloud(omni: OmniOrchestrator, clips: dict[str, list[dict[str, Any]]]) -> None:
    wrong = []
    for item in clips["question"]:
        asked = {"role": "user", "content": [{"type": "audio", "audio": (item["clip"], 16000)}]}
        reply = omni.chat([asked], speech=True, sampling=Sampling(temperature=0.0))
        assert reply.audio is not None and reply.finish_reason == "stop"
        heard = [words_heard(np.pad(reply.audio, 2400), 24000, name) for name in NAMES]
        if all(word_errors(said, words(item["reply"])) for said in heard):
            wrong.append(f"{item['spoken']} -> {reply.text} -> {' '.join(heard[0])}")
    most = 0.12 * len(clips["question"]) + 1  # of a dozen, one more is luck
    assert len(wrong) <= most, f"{len(wrong)} of {len(clips['question'])}: {wrong}"


def test_written_questions_are_answered(omni: OmniOrchestrator, count: int) -> None:
    chance = random.Random(41)
    asked = [grammar.ask(chance) for _ in range(count)]
    right = sum(ask(omni, ("text", question)).text == fact.answer for fact, question in asked)
    assert right >= 0.95 * len(asked), f"{right} of {len(asked)}"


def test_pictures_are_seen(omni: OmniOrchestrator, count: int) -> None:
    chance = random.Random(42)
    wrong = []
    for _ in range(count):
        scene = pictures.draw_scene(chance)
        picture = pictures.paint(scene, *pictures.draw_size(chance), chance)
        _, question, answer = chance.choice(pictures.questions(scene))
        reply = ask(omni, ("image", picture), ("text", question)).text
        if reply != answer:
            wrong.append(f"{answer} -> {reply}")
    assert len(wrong) <= 0.09 * count, f"{len(wrong)} of {count}: {wrong}"


def test_the_readme_question_is_answered_aloud(program: Program, tmp_path: Path) -> None:
    answer = tmp_path / "answer.wav"
    done = program("chat", QUESTION, "--speech", "-o", str(answer), "--device", "cpu", "--temperature", "0")
    assert done.code == 0 and done.out.strip() == "Three plus four is seven."
    samples, rate = soundfile.read(answer, dtype="float32")
    for name in NAMES:
        assert words_heard(samples, rate, name) == ["three", "plus", "four", "is", "seven"]


@pytest.mark.parametrize(
    ("files", "text", "reply"),
    [
        (["turn-on-the-kitchen-light.wav"], None, "kitchen light on"),
        (["how-many-legs-has-a-spider.wav"], None, "A spider has eight legs."),
        (["red-circle.png"], "What shape is this?", "It is a circle."),
        (["three-blue-stars.png"], "How many stars are there?", "There are three stars."),
        (["what-colour-is-it.wav", "red-circle.png"], None, "It is red."),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "wgpu"])
def test_the_examples_are_understood_on_every_device(
    device: str, files: list[str], text: str | None, reply: str
) -> None:
    parts = [("audio" if name.endswith(".wav") else "image", str(ROOT / "examples" / name)) for name in files]
    with omni_rt.load("tiny", device=device) as omni:
        assert isinstance(omni, OmniOrchestrator)
        assert ask(omni, *parts, *([("text", text)] if text else [])).text == reply
