"""One reply at a time: what keeps the replies of one model apart, in one thread and in several."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, NoReturn, TypeVar

from omni_rt.errors import InputError

Event = TypeVar("Event")

CLOSED = "this model was closed: load it again"


class Turns:
    """Who may use a model now: one thread at a time, and none once it is closed."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._closed = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the model for a block, which other threads wait for; raise InputError when it is closed."""
        with self._lock:
            if self._closed:
                raise InputError(CLOSED)
            yield

    def follow(self, events: Generator[Event, None, None]) -> Generator[Event, None, None]:
        """Yield `events`, having the model while each of them is made and not between them."""
        with closing(events):
            while True:
                with self.taken():
                    try:
                        event = next(events)
                    except StopIteration:
                        return
                yield event

    def close(self) -> bool:
        """Let nobody use the model again, after the one who does now; return whether it was open until then."""
        with self._lock:
            was_open, self._closed = not self._closed, True
        return was_open


class Closed:
    """What stands where a stage of a closed model stood: using it raises InputError."""

    def __call__(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise InputError(CLOSED)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name) if name.startswith("__") else InputError(CLOSED)
