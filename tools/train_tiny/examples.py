"""What the model is shown: clips, pictures and texts as token sequences in the runtime's own layout, all from seeds."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from omni_rt.io.chat_template import render, token_ids
from omni_rt.io.patches import PatchSettings, image_patches
from omni_rt.io.tokenizer import Tokenizer
from omni_rt.models.qwen3_omni.audio_encoder import audio_token_count
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_omni.positions import Grid, MediaLayout, prompt_positions
from tools.train_tiny import grammar, pictures, speech

RATE = 16000
HOP = 160


@dataclass
class Example:
    """Token ids of a prompt and its reply (`start` is the reply's first), and which clip and picture belong to it.

    `positions` [3, T] are set where a picture makes them differ from 0, 1, 2, ...
    """

    task: str
    ids: list[int]
    start: int
    clip: int = -1
    picture: int = -1
    positions: np.ndarray | None = None


@dataclass
class Corpus:
    """Clips int16 [N] at 16 kHz with their words, pictures uint8 levels [P, C] with their grids, and the examples."""

    clips: list[np.ndarray] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    patches: list[np.ndarray] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


class Writer:
    """Turns messages into examples with the tokenizer and settings of a checkpoint directory."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer = Tokenizer.load(directory)
        self.config = Qwen3OmniConfig.from_directory(directory)
        self._encode = cache(self.tokenizer.encode)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._encode(text)

    def token_id(self, token: str) -> int:
        """Return the id of a control token."""
        return self.tokenizer.token_id(token)

    def example(
        self,
        task: str,
        messages: Sequence[dict[str, Any]],
        reply: str,
        corpus: Corpus,
        clip: int = -1,
        picture: int = -1,
    ) -> Example:
        """Return the example of messages whose audio and image parts stand for `clip` and `picture` of the corpus."""
        tokens = self.config.tokens
        grid = corpus.grids[picture] if picture >= 0 else None
        samples = len(corpus.clips[clip]) if clip >= 0 else 0

        def pads(medium: Any) -> list[int]:
            if medium.kind == "audio":
                return [tokens.audio_pad] * audio_token_count(samples // HOP, self.config.audio.chunk_frames)
            assert grid is not None
            return [tokens.image_pad] * (grid[1] * grid[2] // 4)

        ids = token_ids(render(messages), self, pads)
        start = len(ids)
        positions = None
        if grid is not None:
            seen, delta = prompt_positions(ids, tokens, MediaLayout(images=[grid]))
            rest = len(self.encode(reply)) + 1
            positions = np.concatenate(
                [seen, np.tile(start + delta + np.arange(rest, dtype=np.float32), (3, 1))], axis=1
            )
        return Example(task, [*ids, *self.encode(reply), tokens.im_end], start, clip, picture, positions)


def user(*parts: tuple[str, Any]) -> dict[str, Any]:
    """Return a user's message of (kind, value) parts."""
    return {"role": "user", "content": [{"type": kind, kind: value} for kind, value in parts]}


def with_history(chance: random.Random, message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the message, in one case of ten behind an earlier turn about something else."""
    if chance.random() > 0.1:
        return [message]
    fact, question = grammar.ask(chance)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": fact.answer}, message]


def typed(question: str, chance: random.Random) -> str:
    """Return a question as somebody may type it: in lower case, without punctuation, with digits."""
    kind = chance.random()
    if kind < 0.7:
        return question
    if kind < 0.8:
        digits = {word: str(index) for index, word in enumerate(grammar.DIGITS)}
        question = re.sub(r"[a-z]+", lambda match: digits.get(match[0], match[0]), question)
    else:
        question = question.lower()
    return question.rstrip("?.!") if chance.random() < 0.5 else question


def padded(clip: np.ndarray, chance: random.Random) -> np.ndarray:
    """Return a clip with up to 0.4 s of silence on both sides."""
    before, after = (int(chance.uniform(0.03, 0.4) * RATE) for _ in range(2))
    return np.pad(clip, (before, after))


def _speakable(chance: random.Random) -> tuple[str, str, str]:
    """Draw (task, spoken text, answer); an answer of "" means that the text can only be written down."""
    if chance.random() < 0.5:
        text = grammar.random_words(chance) if chance.random() < 0.5 else grammar.spoken_text(chance)
        return "transcribe", text, ""
    fact, question = grammar.ask(chance)
    return fact.task, question, fact.answer


def add_speech(corpus: Corpus, writer: Writer, count: int, role: str, chance: random.Random) -> None:
    """Add `count` clips in voices of `role`: each to be written down, and each question to be answered too."""
    drawn = [_speakable(chance) for _ in range(count)]
    # The synthesiser loads a voice faster than an accent: the same voices come one after the other.
    voices = sorted((speech.draw_voice(role, chance) for _ in range(count)), key=lambda voice: voice.name)
    clips = speech.speak_all([text for _, text, _ in drawn], voices)
    for (task, text, answer), clip in zip(drawn, clips, strict=True):
        index = len(corpus.clips)
        corpus.clips.append(padded(clip, chance))
        corpus.texts.append(text)
        heard = ("audio", None)
        if not answer or chance.random() < 0.4:
            request = grammar.TRANSCRIBE[chance.random() < 0.15]
            messages = with_history(chance, user(heard, ("text", request)))
            corpus.examples.append(writer.example("transcribe", messages, text, corpus, index))
        if answer:
            messages = with_history(chance, user(heard))
            corpus.examples.append(writer.example(task, messages, answer, corpus, index))


def add_texts(corpus: Corpus, writer: Writer, count: int, chance: random.Random) -> None:
    """Add `count` written questions and commands, and texts to repeat."""
    for _ in range(count):
        if chance.random() < 0.15:
            text = grammar.spoken_text(chance)
            task, question, answer = "repeat", f"Say: {text}", text
        else:
            fact, question = grammar.ask(chance)
            task, question, answer = fact.task, typed(question, chance), fact.answer
        corpus.examples.append(writer.example(task, with_history(chance, user(("text", question))), answer, corpus))


def _picture(job: tuple[int, int, int]) -> tuple[pictures.Scene, np.ndarray, Grid]:
    seed, least, most = job
    chance = random.Random(seed)
    scene = pictures.draw_scene(chance)
    settings = PatchSettings(min_pixels=least, max_pixels=most)
    values, grid = image_patches(pictures.paint(scene, *pictures.draw_size(chance), chance), settings)
    # Both temporal slots of a still picture hold the same levels: one is kept.
    one = values.reshape(len(values), 3, 2, -1)[:, :, 0]
    return scene, np.round((one + 1) * 127.5).astype(np.uint8).reshape(len(values), -1), grid


def add_pictures(corpus: Corpus, writer: Writer, count: int, chance: random.Random, directory: Path) -> None:
    """Add `count` pictures with three written questions each, and for some a clip of the corpus that asks."""
    settings = PatchSettings.from_directory(directory)
    jobs = [(chance.getrandbits(40), settings.min_pixels, settings.max_pixels) for _ in range(count)]
    for scene, values, grid in in_parallel(_picture, jobs):
        index = len(corpus.patches)
        corpus.patches.append(values)
        corpus.grids.append(grid)
        asked = pictures.questions(scene)
        kinds = chance.sample(sorted({kind for kind, _, _ in asked}), min(3, len({kind for kind, _, _ in asked})))
        for wanted in kinds:
            kind, question, answer = chance.choice([item for item in asked if item[0] == wanted])
            messages = [user(("image", None), ("text", typed(question, chance)))]
            corpus.examples.append(writer.example(f"picture {kind}", messages, answer, corpus, picture=index))


def add_spoken_pictures(
    corpus: Corpus, writer: Writer, count: int, role: str, chance: random.Random, directory: Path
) -> None:
    """Add `count` pictures, each with one spoken question."""
    settings = PatchSettings.from_directory(directory)
    jobs = [(chance.getrandbits(40), settings.min_pixels, settings.max_pixels) for _ in range(count)]
    drawn = in_parallel(_picture, jobs)
    asked = [chance.choice(pictures.questions(scene)) for scene, _, _ in drawn]
    voices = sorted((speech.draw_voice(role, chance) for _ in range(count)), key=lambda voice: voice.name)
    clips = speech.speak_all([question for _, question, _ in asked], voices)
    for (_, values, grid), (kind, question, answer), clip in zip(drawn, asked, clips, strict=True):
        corpus.patches.append(values)
        corpus.grids.append(grid)
        corpus.clips.append(padded(clip, chance))
        corpus.texts.append(question)
        media = [("audio", None), ("image", None)]  # the order of the command line
        at = {"clip": len(corpus.clips) - 1, "picture": len(corpus.patches) - 1}
        corpus.examples.append(writer.example(f"spoken picture {kind}", [user(*media)], answer, corpus, **at))


def in_parallel(work: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    """Return `work` of every job, on all cores when there are many."""
    workers = len(os.sched_getaffinity(0))
    if workers < 2 or len(jobs) < 256:
        return [work(job) for job in jobs]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return pool.map(work, jobs, chunksize=32)
