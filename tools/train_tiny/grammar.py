"""What the tiny model is taught: facts with several phrasings each, commands, and texts to hear or to speak.

Everything is enumerated in a fixed order, so a seed fixes every example. The words sound different ("two" but no "to"),
so that a transcript is a fair judge of what was heard; only `SOUNDS_LIKE` has two pairs that no listener tells apart.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

TRANSCRIBE = ("Transcribe the audio into text.", "Transcribe the English audio into text.")
"""What the runtime's `transcribe` asks for, without and with a language."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross")
ROOMS = ("kitchen", "bedroom", "bathroom", "office", "garage", "garden", "hall", "cellar")
SWITCHED = ("light", "fan", "heater", "radio", "lamp", "music")
OPENED = ("door", "window", "curtain")
LEGS = {
    "dog": "four", "cat": "four", "horse": "four", "cow": "four", "sheep": "four", "pig": "four", "lion": "four",
    "tiger": "four", "elephant": "four", "rabbit": "four", "mouse": "four", "frog": "four", "spider": "eight",
    "scorpion": "eight", "bird": "two", "chicken": "two", "duck": "two", "penguin": "two", "human": "two",
    "kangaroo": "two", "ant": "six", "fly": "six", "beetle": "six", "butterfly": "six", "snake": "no", "fish": "no",
    "worm": "no",
}  # fmt: skip
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("left", "right"), ("open", "closed"), ("day", "night"),
    ("fast", "slow"), ("happy", "sad"), ("old", "young"), ("long", "short"), ("wet", "dry"), ("hard", "soft"),
    ("full", "empty"), ("light", "dark"), ("rich", "poor"), ("strong", "gentle"), ("early", "late"), ("thick", "thin"),
    ("loud", "quiet"), ("clean", "dirty"), ("first", "last"), ("inside", "outside"), ("good", "bad"),
    ("sweet", "bitter"), ("summer", "winter"), ("above", "below"), ("always", "never"), ("near", "far"),
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
COLOUR_OF = {
    "grass": "green", "snow": "white", "coal": "black", "blood": "red", "the sky": "blue", "a banana": "yellow",
    "a carrot": "orange", "a lemon": "yellow", "a strawberry": "red", "milk": "white", "a cucumber": "green",
    "a plum": "purple", "a pumpkin": "orange", "a tomato": "red", "a raven": "black", "the ocean": "blue",
    "a swan": "white", "a leaf": "green", "lavender": "purple", "a canary": "yellow",
}  # fmt: skip
SIDES = {"triangle": "three", "square": "four", "pentagon": "five", "hexagon": "six", "octagon": "eight"}
SMALL_TALK = (
    (("Hello.", "Hello!", "Good day."), "Hello. How can I help you?"),
    (("Good morning.",), "Good morning."),
    (("Good night.", "Goodbye."), "Goodbye."),
    (("How are you?", "Are you well?"), "I am well, thank you."),
    (("Who are you?", "What are you?", "What is your name?"), "I am a tiny model."),
    (("What can you do?", "How can you help me?"), "I answer small questions."),
    (("Thank you.", "Thanks."), "You are welcome."),
    (("Can you hear me?", "Do you hear me?"), "Yes, I can hear you."),
    (("Can you speak?", "Do you speak?"), "Yes, I can speak."),
    (("Is anybody there?",), "Yes, I am here."),
)
UNKNOWN = "I do not know that."
SOUNDS_LIKE = {"here": "hear", "no": "know"}
"""Words that the synthesiser speaks as another one, in every accent. In what is heard, either counts as the other."""


@dataclass(frozen=True)
class Fact:
    """One thing to know: what is asked in several ways, and the one answer. `held_out` facts are never taught."""

    task: str
    questions: tuple[str, ...]
    answer: str
    held_out: bool = False


def number_words(value: int) -> str:
    """Return 0 to 99 in words, without hyphens."""
    if value < 20:
        return (*DIGITS, *TEENS)[value]
    tens, ones = divmod(value, 10)
    return TENS[tens - 2] + (f" {DIGITS[ones]}" if ones else "")


def sentence(text: str) -> str:
    """Return `text` with a capital at its start and a full stop."""
    return text[:1].upper() + text[1:] + "."


@cache
def facts() -> tuple[Fact, ...]:
    """Return all facts and commands, in a fixed order."""
    return (*_sums(), *_legs(), *_opposites(), *_orders(), *_colours(), *_commands(), *_talk())


def _sums() -> Iterator[Fact]:
    chance = random.Random("sums")
    for plus in (True, False):
        pairs = [(a, b) for a in range(10) for b in range(10) if plus or a >= b]
        teachable = [pair for pair in pairs if pair not in ((3, 4), (2, 2), (1, 1)) and 0 not in pair]
        unseen = set(chance.sample(teachable, len(pairs) // 10))
        for a, b in pairs:
            first, second, sign = number_words(a), number_words(b), "plus" if plus else "minus"
            both = f"{first} {sign} {second}"
            other = f"Add {first} and {second}." if plus else f"Take {second} away from {first}."
            questions = (
                f"What is {both}?", f"How much is {both}?", f"What does {both} make?", other, f"Tell me {both}.",
            )  # fmt: skip
            answer = sentence(f"{both} is {number_words(a + b if plus else a - b)}")
            yield Fact("sum", questions, answer, (a, b) in unseen)


def _legs() -> Iterator[Fact]:
    for animal, legs in LEGS.items():
        one = f"{'an' if animal[0] in 'aeiou' else 'a'} {animal}"
        questions = (f"How many legs does {one} have?", f"How many legs has {one}?", f"Count the legs of {one}.")
        yield Fact("legs", questions, sentence(f"{one} has {legs} legs"))
    for shape, sides in SIDES.items():
        one = f"{'an' if shape[0] in 'aeiou' else 'a'} {shape}"
        questions = (f"How many sides does {one} have?", f"How many sides has {one}?", f"Count the sides of {one}.")
        yield Fact("legs", questions, sentence(f"{one} has {sides} sides"))


def _opposites() -> Iterator[Fact]:
    for pair in OPPOSITES:
        for word, other in (pair, pair[::-1]):
            questions = (
                f"What is the opposite of {word}?", f"Tell me the opposite of {word}.", f"What is not {word}?",
            )  # fmt: skip
            yield Fact("opposite", questions, f"The opposite of {word} is {other}.")


def _orders() -> Iterator[Fact]:
    numbers = tuple(number_words(value) for value in range(100))
    for task, kind, names in (("day", "day", DAYS), ("day", "month", MONTHS), ("number", "number", numbers)):
        for index, name in enumerate(names):
            for step, word in ((1, "after"), (-1, "before")):
                if kind == "number" and not 0 <= index + step < len(names):
                    continue
                found = names[(index + step) % len(names)]
                questions = (
                    f"What {kind} comes {word} {name}?", f"Which {kind} comes {word} {name}?",
                    f"What comes {word} {name}?",
                )  # fmt: skip
                yield Fact(task, questions, f"{found[0].upper()}{found[1:]} comes {word} {name}.")


def _colours() -> Iterator[Fact]:
    for thing, colour in COLOUR_OF.items():
        questions = (f"What colour is {thing}?", f"Which colour is {thing}?", f"Tell me the colour of {thing}.")
        yield Fact("colour", questions, sentence(f"{thing} is {colour}"))


def _commands() -> Iterator[Fact]:
    def polite(*orders: str) -> tuple[str, ...]:
        return tuple(form for order in orders for form in (sentence(order), sentence(f"please {order}"), order))

    for room in ROOMS:
        for thing in SWITCHED:
            for state in ("on", "off"):
                orders = polite(
                    f"turn {state} the {room} {thing}", f"turn the {room} {thing} {state}",
                    f"switch {state} the {thing} in the {room}",
                )  # fmt: skip
                yield Fact("command", orders, f"{room} {thing} {state}")
        for thing in OPENED:
            for order, state in (("open", "open"), ("close", "closed")):
                orders = polite(f"{order} the {room} {thing}", f"{order} the {thing} in the {room}")
                yield Fact("command", orders, f"{room} {thing} {state}")
    for minutes in range(2, 61):
        count = number_words(minutes)
        orders = polite(f"start a timer of {count} minutes", f"set a timer of {count} minutes")
        yield Fact("command", orders, f"timer {count} minutes")
    for degrees in range(15, 31):
        count = number_words(degrees)
        yield Fact("command", polite(f"make it {count} degrees", f"heat up until {count} degrees"), f"{count} degrees")


def _talk() -> Iterator[Fact]:
    for questions, answer in SMALL_TALK:
        yield Fact("talk", questions, answer)


@cache
def by_task(held_out: bool = False) -> dict[str, tuple[Fact, ...]]:
    """Return the facts of each task that are taught, or those that are held out."""
    found: dict[str, list[Fact]] = {}
    for fact in facts():
        if fact.held_out == held_out:
            found.setdefault(fact.task, []).append(fact)
    return {task: tuple(listed) for task, listed in found.items()}


TASKS = {"sum": 8, "legs": 3, "opposite": 4, "day": 3, "number": 5, "colour": 3, "command": 8, "talk": 2}
"""How often each task is drawn, relative to the others."""


def ask(chance: random.Random, task: str | None = None) -> tuple[Fact, str]:
    """Draw a taught fact and one of its phrasings."""
    task = task or chance.choices(list(TASKS), weights=list(TASKS.values()))[0]
    fact = chance.choice(by_task()[task])
    return fact, chance.choice(fact.questions)


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


@cache
def words() -> tuple[str, ...]:
    """Return every word that is ever spoken, sorted."""
    texts = [text for fact in facts() for text in (*fact.questions, fact.answer)]
    texts += [UNKNOWN, *PICTURE_WORDS, *COLOURS, *SHAPES]
    return tuple(sorted({word for text in texts for word in words_of(text)}))


PICTURE_WORDS = (
    "What shape is this? Which shape do you see? What colour is the circle? How many circles are there? Count them.",
    "It is a large red circle. There are three blue squares. There is one. What do you see? Describe the picture.",
    "triangles stars crosses shapes left right top bottom middle on in the at small large Where is it? What size?",
    "What colour are they? They are blue. What shapes are these?",
)
"""Sentences with the words that only pictures need."""


def random_words(chance: random.Random, least: int = 1, most: int = 8) -> str:
    """Return a string of words in no order, lower case: it must be heard or spoken, not guessed."""
    return " ".join(chance.choice(words()) for _ in range(chance.randint(least, most)))


def random_numbers(chance: random.Random) -> str:
    """Return one to four numbers below 100 in words."""
    return " ".join(number_words(chance.randrange(100)) for _ in range(chance.randint(1, 4)))


def spoken_text(chance: random.Random) -> str:
    """Draw a text as it may be heard, or as the model may have to speak it."""
    kind = chance.random()
    if kind < 0.25:
        return random_words(chance)
    if kind < 0.35:
        return random_numbers(chance)
    fact, question = ask(chance)
    return question if kind < 0.7 else fact.answer
