"""How a stage picks its next token, and the device state that picking needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from omni_rt import ops
from omni_rt.arguments import whole
from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.tensor import Tensor

SUPPRESSED = -1e30
"""Added to logits that must not be drawn: low enough for any softmax, and finite, as WGSL has no infinities."""


@dataclass(frozen=True)
class Sampling:
    """Temperature, top-k, top-p and repetition penalty. Temperature 0 is greedy; top_k 0 and top_p 1 keep everything.

    Raises InputError for values outside their range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the kinds of values and their ranges."""
        for name in ("temperature", "top_p", "repetition_penalty"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise InputError(f"{name} is {value!r}, expected a number")
        whole("top_k", self.top_k)
        if not 0 <= self.temperature < 100:
            raise InputError(f"temperature must lie in [0, 100), got {self.temperature}; 0 is greedy")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise InputError(f"top_k must be 0 or more and top_p in (0, 1], got {self.top_k} and {self.top_p}")
        if not 0 < self.repetition_penalty < 100:
            raise InputError(f"repetition_penalty must lie in (0, 100), got {self.repetition_penalty}; 1 is none")


class Chooser:
    """What one stage needs on its device to pick tokens: ids seen so far, suppressed ids, and the seed."""

    def __init__(self, device: Device, vocabulary: int, suppressed: Iterable[int] = ()) -> None:
        self.device = device
        self.vocabulary = vocabulary
        bias = np.zeros(vocabulary, np.float32)
        bias[list(suppressed)] = SUPPRESSED
        self.suppresses = bool(bias.any())
        self.bias = device.weight(bias, "f32")
        self.seen = device.zeros((vocabulary,), "i32")
        self.seed = device.zeros((1,), "i32")

    def start(self, seed: int, seen: Iterable[int] = ()) -> None:
        """Begin a reply: set the seed and the ids that the repetition penalty counts from the start."""
        marks = np.zeros(self.vocabulary, np.int32)
        marks[list(seen)] = 1
        self.device.write(self.seen, marks)
        self.device.write(self.seed, np.array([seed & 0x7FFFFFFF], np.int32))

    def __call__(self, logits: Tensor, sampling: Sampling, counter: Tensor, *, salt: int = 0) -> Tensor:
        """Pick one id i32 [1] from logits [1, V] and note it as seen; `counter` i32 [1] differs from step to step."""
        if self.suppresses or sampling.repetition_penalty != 1.0:
            logits = ops.penalise(logits, self.seen, self.bias, penalty=float(sampling.repetition_penalty))
        chosen = draw(logits, sampling, self.seed, counter, salt=salt)
        if sampling.repetition_penalty != 1.0:
            ops.mark(self.seen, chosen)
        return chosen


def draw(logits: Tensor, sampling: Sampling, seed: Tensor, counter: Tensor, *, salt: int = 0) -> Tensor:
    """Pick one id per row of logits [T, V]: the largest when the temperature is 0, else a sample."""
    if sampling.temperature == 0:
        return ops.largest(logits)
    return ops.sample(
        logits,
        seed,
        counter,
        temperature=float(sampling.temperature),
        top_k=sampling.top_k,
        top_p=float(sampling.top_p),
        salt=salt,
    )
