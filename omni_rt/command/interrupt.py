"""Ctrl-C: stops within 200 ms, even while the main thread is inside a long call of a C library. So do other signals.

Python runs signal handlers between bytecodes only. The interpreter's own C handler writes a byte into a socket at once,
so a thread that reads the socket can end the process when the main thread does not get to it. Files are written under a
temporary name and renamed, so ending the process leaves none half-written under its real name.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from omni_rt.io.files import unfinished

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that end the program, also where Ctrl-C would only stop a reply."""

PATIENCE = 0.12
"""Seconds that the main thread has for stopping by itself."""


class Interrupts:
    """Watches for Ctrl-C. It ends the process; inside `deferred` the first one only asks for a stop."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._at_prompt = False
        self._partial: list[Path] = []

    def watch(self) -> None:
        """Start to watch; call it once, from the main thread."""
        reader, writer = self._ends = socket.socketpair()
        writer.setblocking(False)
        for number in (signal.SIGINT, *ENDING):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background, or under nohup
                signal.signal(number, self._handle)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._wait, args=(reader,), name="interrupts", daemon=True).start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the work inside go on after Ctrl-C until it looks at `check`; a second Ctrl-C ends the process."""
        self.requested, self._deferred = False, True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise KeyboardInterrupt when a stop has been asked for: call it between steps."""
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def prompting(self) -> Iterator[None]:
        """Let Ctrl-C raise KeyboardInterrupt inside, as input() needs it."""
        self._at_prompt = True
        try:
            yield
        finally:
            self._at_prompt = False

    @contextmanager
    def writing(self, target: Path) -> Iterator[None]:
        """Have what is not yet `target`, or not yet a file in it, removed, should the process end meanwhile."""
        self._partial.append(target)
        try:
            yield
        finally:
            self._partial.remove(target)

    def leave(self, number: int = signal.SIGINT) -> None:
        """End the process now, without waiting for a device or a library; its code is that of shells: 128 + signal."""
        for target in self._partial:
            for leftover in unfinished(target):
                with suppress(OSError):
                    leftover.unlink()
        with suppress(OSError):
            os.write(2, b"\nomni-rt: stopped\n")
        os._exit(128 + number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._at_prompt and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._deferred or number != signal.SIGINT:
            self.leave(number)
        # Noted by the watching thread. Raising here could hit a callback of a C library, which swallows exceptions.

    def _wait(self, reader: socket.socket) -> None:
        while byte := reader.recv(1):
            number = byte[0]
            if number in ENDING:
                time.sleep(PATIENCE)
                self.leave(number)
            if number != signal.SIGINT or self._at_prompt:
                continue
            if self._deferred and not self.requested:
                self.requested = True
                continue
            if not self._deferred:
                time.sleep(PATIENCE)
            self.leave()
