"""Pictures to look at, drawn in NumPy, and what may be asked about them: shapes, colours, sizes, places and counts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tools.train_tiny.grammar import COLOURS, SHAPES, number_words, sentence

RGB = {
    "red": (215, 30, 35), "green": (35, 160, 55), "blue": (35, 70, 215), "yellow": (245, 225, 40),
    "orange": (245, 135, 25), "purple": (135, 40, 165), "black": (18, 18, 20), "white": (250, 250, 250),
}  # fmt: skip
PLACES = {"on the left": (0.25, 0.5), "on the right": (0.75, 0.5), "at the top": (0.5, 0.25),
          "at the bottom": (0.5, 0.75), "in the middle": (0.5, 0.5)}  # fmt: skip
PLURAL = {"cross": "crosses"}
MOST = 4
"""Shapes in one picture at most."""


@dataclass(frozen=True)
class Mark:
    """One shape: its kind, colour, centre (x, y) as fractions, and radius as a fraction of the shorter side."""

    shape: str
    colour: str
    centre: tuple[float, float]
    radius: float
    turn: float = 0.0


@dataclass(frozen=True)
class Scene:
    """The marks of a picture; `place` and `size` are set where one mark stands at a place with a name."""

    marks: tuple[Mark, ...]
    place: str = ""
    size: str = ""


def draw_scene(chance: random.Random) -> Scene:
    """Draw what is to be seen: one mark with a size and a place, or up to four of one kind."""
    shape, colour = chance.choice(SHAPES), chance.choice(COLOURS)
    count = chance.choices((1, 2, 3, 4), weights=(5, 2, 2, 2))[0]
    if count == 1:
        size, place = chance.choice(("small", "large")), chance.choice(list(PLACES))
        radius = chance.uniform(0.1, 0.14) if size == "small" else chance.uniform(0.2, 0.24)
        x, y = (value + chance.uniform(-0.03, 0.03) for value in PLACES[place])
        return Scene((Mark(shape, colour, (x, y), radius, chance.uniform(-0.25, 0.25)),), place, size)
    cells = chance.sample([(x, y) for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8)], count)
    mixed = chance.random() < 0.3
    marks = tuple(
        Mark(
            shape, chance.choice(COLOURS) if mixed else colour,
            (x + chance.uniform(-0.03, 0.03), y + chance.uniform(-0.03, 0.03)), chance.uniform(0.1, 0.13),
            chance.uniform(-0.25, 0.25),
        )
        for x, y in cells
    )  # fmt: skip
    return Scene(marks)


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) - 0.85


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(0.866 * x - 0.5 * y, -0.866 * x - 0.5 * y), y) - 0.55


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle = (np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    along, across = np.hypot(x, y) * np.cos(angle), abs(np.hypot(x, y) * np.sin(angle))
    return 0.45 * (along - 1.05) + 0.9 * across


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    far, near = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    return np.maximum(far - 1, near - 0.3)


INSIDE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "cross": _cross,
}  # fmt: skip
"""Signed distances, below 0 inside, in units of the radius; y points down."""


def paint(scene: Scene, height: int, width: int, chance: random.Random, most_noise: float = 6) -> np.ndarray:
    """Paint a scene on a plain or shaded ground with up to so many levels of noise; return uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shorter = min(height, width)
    colours = {mark.colour for mark in scene.marks}
    greys = [(90, 125), (150, 190)] + [(235, 255)] * ("white" not in colours) + [(0, 20)] * ("black" not in colours)
    grey = chance.uniform(*chance.choice(greys))
    ground = np.array([grey + chance.uniform(-8, 8) for _ in range(3)], np.float32)
    slope = chance.uniform(-20, 20) * (x / width - 0.5) + chance.uniform(-20, 20) * (y / height - 0.5)
    picture = ground + slope[..., None]
    for mark in scene.marks:
        radius = mark.radius * shorter
        dx, dy = (x - mark.centre[0] * width) / radius, (y - mark.centre[1] * height) / radius
        cosine, sine = np.cos(mark.turn), np.sin(mark.turn)
        distance = INSIDE[mark.shape](cosine * dx + sine * dy, cosine * dy - sine * dx) * radius
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        colour = np.array([value + chance.uniform(-12, 12) for value in RGB[mark.colour]], np.float32)
        picture = picture * (1 - cover) + colour * cover
    noise = np.random.default_rng(chance.getrandbits(32)).normal(0, chance.uniform(0, most_noise), picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def draw_size(chance: random.Random) -> tuple[int, int]:
    """Draw the height and width of a picture in pixels."""
    side = chance.choice((96, 128, 128, 160, 224, 256))
    return (side, side) if chance.random() < 0.6 else (side, int(side * chance.choice((0.75, 4 / 3))))


def one_of(colour: str, shape: str) -> str:
    """Return "a red circle" or "an orange star"."""
    words = f"{colour} {shape}".strip()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def many(count: int, shape: str) -> str:
    """Return "one circle" or "three crosses"."""
    return f"{number_words(count)} {shape if count == 1 else PLURAL.get(shape, shape + 's')}"


def questions(scene: Scene) -> list[tuple[str, str, str]]:
    """Return all (kind, question, answer) of a scene."""
    shape, count = scene.marks[0].shape, len(scene.marks)
    plural = PLURAL.get(shape, shape + "s")
    colours = {mark.colour for mark in scene.marks}
    counted = sentence(f"there {'is' if count == 1 else 'are'} {many(count, shape)}")
    found = [("count", f"How many {plural} are there?", counted)]
    found += [("count", question, counted) for question in ("How many shapes are there?", "Count the shapes.")]
    if count == 1:
        colour = scene.marks[0].colour
        named = sentence(f"it is {one_of('', shape)}")
        found += [("shape", question, named) for question in ("What shape is this?", "Which shape is it?")]
        coloured = sentence(f"it is {colour}")
        asked = (f"What colour is the {shape}?", "What colour is it?", "Which colour is this?")
        found += [("colour", question, coloured) for question in asked]
        seen = sentence(f"{one_of(scene.size, f'{colour} {shape}')} {scene.place}")
        found += [("look", question, seen) for question in ("What do you see?", "Describe the picture.")]
        found += [("place", question, sentence(f"it is {scene.place}")) for question in (f"Where is the {shape}?",)]
        found += [("size", "What size is it?", sentence(f"it is {scene.size}"))]
    elif len(colours) == 1:
        colour = next(iter(colours))
        shown = sentence(f"{number_words(count)} {colour} {plural}")
        found += [("look", question, shown) for question in ("What do you see?", "Describe the picture.")]
        asked = (f"What colour are the {plural}?", "What colour are they?")
        found += [("colour", question, sentence(f"they are {colour}")) for question in asked]
        named = sentence(f"they are {plural}")
        found += [("shape", question, named) for question in ("What shapes are these?", "Which shapes are they?")]
    return found
