"""Speech to train on, made by espeak-ng through the library that `espeakng_loader` carries (GPL-3.0, never shipped).

Voices are divided by role, so that the model, its test, and each of the two recognisers hear different ones. A seed
fixes what is said and how; the breath in a voice is noise that the library draws anew in each process.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soxr

ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-us-nyc")
VARIANTS = {
    "target": ("f2",),
    "held-out": (
        "Alicia", "Michael", "m3", "f4", "belinda", "edward2", "klatt3", "marcelo", "paul", "quincy", "steph2", "zac",
    ),
    "first recogniser": (
        "f1", "m1", "Andrea", "Denis", "Lee", "adam", "boris", "ed", "iven", "linda", "klatt", "pablo", "robert",
        "steph3",
    ),
    "second recogniser": (
        "f3", "m2", "Annie", "Hugo", "Mario", "aunty", "caleb", "gustave", "iven3", "klatt2", "miguel", "rob",
        "shelby", "victor",
    ),
    "model": (
        "Alex", "Andy", "Diogo", "Gene", "Gene2", "Henrique", "Jacky", "Marco", "Mike", "Reed", "RicishayMax",
        "RicishayMax3", "anika", "announcer", "antonio", "benjamin", "david", "edward", "f5", "grandma", "grandpa",
        "ian", "iven2", "iven4", "john", "kaukovalta", "klatt4", "klatt5", "klatt6", "m4", "m5", "m6", "m7", "m8",
        "max", "michel", "mike2", "norbert", "pedro", "sandro", "steph", "travis",
    ),
}  # fmt: skip
"""Which variants of the synthesiser's voices belong to whom. No variant has two roles."""

RATES = {"held-out": ((182, 198),), "model": ((110, 180), (200, 225))}
"""Bands of words a minute; the recognisers hear 115 to 215. The model never hears the band of its test."""


@dataclass(frozen=True)
class Voice:
    """One way to speak: an espeak-ng voice, words a minute, pitch and its range (0 to 99)."""

    name: str
    rate: int = 150
    pitch: int = 50
    spread: int = 50


TARGET = Voice("en-us+f2", rate=150, pitch=50, spread=50)
"""The one voice in which the model itself speaks."""


def draw_voice(role: str, chance: random.Random) -> Voice:
    """Draw a voice of a role, with rate, pitch and range."""
    if role == "target":
        return TARGET
    low, high = chance.choice(RATES.get(role, ((115, 215),)))
    name = f"{chance.choice(ACCENTS)}+{chance.choice(VARIANTS[role])}"
    return Voice(name, chance.randint(low, high), chance.randint(25, 75), chance.randint(25, 75))


class _Event(ctypes.Structure):
    """What the synthesiser says about its sound: espeak_EVENT of its header."""

    WORD = 1
    _fields_ = (
        ("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("name", ctypes.c_char * 8),
    )  # fmt: skip


class _Synthesiser:
    """The library, once per process: it keeps global state.

    `words` are of the last text: where each word begins, as (character, milliseconds).
    """

    RATE, PITCH, SPREAD = 1, 3, 4  # parameter numbers of espeak_SetParameter

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.rate = self._library.espeak_Initialize(2, 0, data, 0)  # 2: synchronous, the sound comes to the callback
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng does not start: code {self.rate}")
        self._parts: list[np.ndarray] = []
        self.words: list[tuple[int, int]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._take)  # kept, or it would be freed under the library
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: ctypes._Pointer, count: int, events: ctypes._Pointer) -> int:
        index = 0
        while events[index].type:
            if events[index].type == _Event.WORD:
                self.words.append((events[index].text_position - 1, events[index].audio_position))
            index += 1
        if count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(self, text: str, voice: Voice) -> np.ndarray:
        """Return the samples [N] int16 of `text` at `self.rate`."""
        self._parts.clear()
        self.words.clear()
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((self.RATE, voice.rate), (self.PITCH, voice.pitch), (self.SPREAD, voice.spread)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(
            data, len(data), 0, 1, 0, 1, None, None
        )  # position kind 1: characters; flags 1: UTF-8
        self._library.espeak_Synchronize()
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)


@cache
def _synthesiser() -> _Synthesiser:
    return _Synthesiser()


def speak(text: str, voice: Voice, rate: int = 16000, peak: float = 0.5) -> np.ndarray:
    """Return `text` spoken, float32 [N] at `rate` Hz, without silence at the ends, its loudest sample at `peak`."""
    return timed(text, voice, rate, peak)[0]


def timed(text: str, voice: Voice, rate: int, peak: float = 0.5) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Return what `speak` does, and where the words begin, as (character, seconds)."""
    source = _synthesiser()
    samples = source(text, voice).astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=1e-6))
    if not len(loud):
        raise ValueError(f"espeak-ng says nothing for {text!r}")
    samples = soxr.resample(samples[loud[0] : loud[-1] + 1], source.rate, rate)
    words = [(place, time / 1000 - loud[0] / source.rate) for place, time in source.words]
    return (samples * (peak / np.abs(samples).max())).astype(np.float32), words


def _job(job: tuple[str, Voice, int]) -> tuple[np.ndarray, list[tuple[int, float]]]:
    samples, words = timed(*job)
    return np.round(samples * 32767).astype(np.int16), words


def speak_all(texts: Sequence[str], voices: Iterable[Voice], rate: int = 16000) -> list[np.ndarray]:
    """Return every text spoken by its voice, int16 [N] at `rate` Hz, on all cores."""
    return [samples for samples, _ in timed_all(texts, voices, rate)]


def timed_all(
    texts: Sequence[str], voices: Iterable[Voice], rate: int
) -> list[tuple[np.ndarray, list[tuple[int, float]]]]:
    """Return what `speak_all` does, and for each text where its words begin, as (character, seconds)."""
    jobs = [(text, voice, rate) for text, voice in zip(texts, voices, strict=True)]
    workers = len(os.sched_getaffinity(0))
    if workers < 2 or len(jobs) < 256:
        return [_job(job) for job in jobs]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return pool.map(_job, jobs, chunksize=64)
