"""What the stages share: weights by their released names, the learning rate, and runs that can be cut and go on.

The random numbers of a step hang on its number alone, and batches are drawn anew up to the step where a run goes on.
So a run that was cut and goes on is the run that was never cut: to the bit, on one thread of a CPU. Data that cannot
be made twice, as the synthesiser has noise of its own, are kept beside it.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch

from omni_rt.devices import open_device
from omni_rt.model_files import open_model
from omni_rt.weights import Weights

SAVED_EVERY = 200
"""Steps between two times that a run is saved."""


class Part(Protocol):
    """A model or an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learned."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take that over."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file; whoever reads it finds the old one or the new one, never half of it."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        yield file
    os.replace(aside, path)


def write_weights(model: torch.nn.Module, prefix: str, path: Path) -> None:
    """Write the weights of a model under their released names, in bfloat16."""
    weights = {f"{prefix}{name}": value.to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    with replacing(path) as file:
        torch.save(weights, file)


def load_weights(model: torch.nn.Module, prefix: str, path: Path) -> None:
    """Load the part `prefix` of what `load` reads into a model that has just it."""
    known = {name.removeprefix(prefix): value for name, value in load(path).items() if name.startswith(prefix)}
    model.load_state_dict(known)


def load(path: Path) -> dict[str, torch.Tensor]:
    """Return weights by their released names, float32: of a file of `write_weights`, or of a model's directory.

    The directory may be the one that ships: weights in 8 bits are read as the numbers that they stand for.
    """
    if not path.is_dir():
        return {name: value.float() for name, value in torch.load(path, map_location="cpu").items()}
    checkpoint = open_model(path).parts[0].checkpoint
    weights = Weights(checkpoint, open_device("cpu"))
    arrays = {name: weights.array(name, *checkpoint.shape(name)) for name in checkpoint.names()}
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: a rise over a twentieth of the run, then half a cosine down to 0."""
    return peak * min(1.0, 20 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))


def seed_step(seed: int, step: int) -> int:
    """Seed what a step draws at random, noise, dropout, corruption; return the seed."""
    torch.manual_seed(seed * 10_000_019 + step)
    return seed * 10_000_019 + step


class Run:
    """A run of a stage: its parts and its step, kept in one file.

    `options` are the stage's arguments; a run goes on with those that it began with.
    """

    def __init__(self, path: Path, parts: Mapping[str, Part], options: argparse.Namespace) -> None:
        self.path, self.parts = path, parts
        self.options = {name: str(value) for name, value in vars(options).items() if name != "out"}

    def save(self, step: int) -> None:
        """Write the run after `step` steps."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        with replacing(self.path) as file:
            torch.save({"step": step, "options": self.options, "parts": parts}, file)

    def resume(self) -> int:
        """Load the run if there is one; return how many steps it has made. Exit when its options are others."""
        if not self.path.exists():
            return 0
        kept = torch.load(self.path, map_location="cpu")
        for name in sorted(self.options.keys() | kept["options"].keys()):
            own, began = self.options.get(name), kept["options"].get(name)
            if own != began:
                raise SystemExit(
                    f"{self.path} is of a run with --{name} {began}, this one has {own}: repeat what it began with, "
                    "or remove the file to begin anew"
                )
        for name, part in self.parts.items():
            part.load_state_dict(kept["parts"][name])
        return int(kept["step"])
