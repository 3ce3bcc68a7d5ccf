"""Speech that never ends, seen while it is made.

The model's own stop token decides when speech ends. Only past the length that the text should take does the guard look:
for silence, for codes that go round in a circle, and for a cap.
"""

from __future__ import annotations

import numpy as np

SECONDS_PER_TOKEN = 1.0
"""A very slow reading: ordinary speech takes about a third of it."""

SLACK_SECONDS = 3.0
CAP_FACTOR = 2.0
SILENCE_SECONDS = 1.5
SILENCE_LEVEL = 1e-3
LONGEST_CYCLE = 12
CYCLES = 4


class Guard:
    """Watches the frames and samples of one piece of text of `tokens` tokens, at `rate` frames a second."""

    def __init__(self, tokens: int, rate: float = 12.5) -> None:
        expected = SLACK_SECONDS + SECONDS_PER_TOKEN * tokens
        self.expected_frames = int(expected * rate)
        self.most_frames = int(expected * CAP_FACTOR * rate)

    def runs_away(self, codes: list[np.ndarray], samples: np.ndarray, sample_rate: int) -> bool:
        """Say whether speech with these frames (codes [K] each) and last samples goes on without end."""
        if len(codes) <= self.expected_frames:
            return False
        if len(codes) >= self.most_frames:
            return True
        quiet = int(SILENCE_SECONDS * sample_rate)
        if len(samples) >= quiet and float(np.abs(samples[-quiet:]).max()) < SILENCE_LEVEL:
            return True
        return _cycles(codes)

    def trimmed(self, frames: int) -> int:
        """Return how many frames of a runaway are kept: as many as the text may take."""
        return min(frames, self.expected_frames)


def _cycles(codes: list[np.ndarray]) -> bool:
    """Say whether the last frames repeat themselves exactly, CYCLES times over."""
    for period in range(1, LONGEST_CYCLE + 1):
        span = period * CYCLES
        if len(codes) >= span:
            tail = np.stack(codes[-span:]).reshape(CYCLES, period, -1)
            if (tail == tail[0]).all():
                return True
    return False
