"""The times of one reply."""

from __future__ import annotations

import time
from collections.abc import Iterable

from omni_rt.devices.device import Device
from omni_rt.results import Timings


class ReplyClock:
    """Runs from its making: note tokens and audio as they come, then ask for the timings."""

    def __init__(self, load_seconds: float | None) -> None:
        self._started = time.perf_counter()
        self._load_seconds = load_seconds
        self._first_token: float | None = None
        self._first_audio: float | None = None
        self._text_done: float | None = None
        self._prompt: float | None = None
        self._first_frame: float | None = None
        self._tokens = 0
        self._seconds_of_audio = 0.0

    def token(self) -> None:
        """Note one token of text."""
        self._tokens += 1
        self._first_token = self._first_token or time.perf_counter()

    def text_done(self) -> None:
        """Note the end of the text."""
        self._text_done = time.perf_counter()

    def prompt(self) -> None:
        """Note that the prompt of what speaks is on its way through it."""
        self._prompt = self._prompt or time.perf_counter()

    def frame(self) -> None:
        """Note a frame of codes."""
        self._first_frame = self._first_frame or time.perf_counter()

    def audio(self, samples: int, sample_rate: int) -> None:
        """Note a piece of audio."""
        self._first_audio = self._first_audio or time.perf_counter()
        self._seconds_of_audio += samples / sample_rate

    def timings(self, devices: Iterable[Device]) -> Timings:
        """Return what is known by now, with the peak memory of the devices."""
        now = time.perf_counter()
        writing = (self._text_done or now) - (self._first_token or now)
        return Timings(
            load_s=self._load_seconds,
            first_token_ms=self._since_start(self._first_token),
            first_audio_ms=self._since_start(self._first_audio),
            tokens_per_s=(self._tokens - 1) / writing if self._tokens > 1 and writing > 0 else None,
            rtf=(now - self._started) / self._seconds_of_audio if self._seconds_of_audio else None,
            peak_memory_bytes=sum(device.ledger.peak for device in set(devices)),
            prompt_ms=self._since_start(self._prompt),
            first_frame_ms=self._since_start(self._first_frame),
        )

    def _since_start(self, moment: float | None) -> float | None:
        """Return the milliseconds from the start to a moment."""
        return None if moment is None else (moment - self._started) * 1000
