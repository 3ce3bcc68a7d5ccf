"""One reply at a time: what keeps the replies of one model apart, in one thread and in several, and its end."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeVar

from omni_rt.errors import InputError

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

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


class LoadedModel:
    """What a loaded model has in common: it serves by turns, and is closed once, as a context manager by itself."""

    stages: ClassVar[tuple[str, ...]]
    """The attributes that hold weights."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self.devices = devices
        self.load_seconds: float | None = None
        self._turns = Turns()

    def close(self) -> None:
        """Free the memory of the devices; the model and its stages cannot be used afterwards."""
        if self._turns.close():
            for name in self.stages:
                setattr(self, name, Closed())
            for device in set(self.devices.values()):
                device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
