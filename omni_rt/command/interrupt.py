"""Ctrl-C: stops within 200 ms, even while the main thread is inside a long call of a C library.

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

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

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
        signal.signal(signal.SIGINT, self._handle)
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
        """Have the temporary files beside `target` removed, should the process end while it is written."""
        self._partial.append(target)
        try:
            yield
        finally:
            self._partial.remove(target)

    def leave(self) -> None:
        """End the process now, without waiting for a device or a library."""
        for target in self._partial:
            for leftover in target.parent.glob(f".{target.stem}-*{target.suffix}"):
                with suppress(OSError):
                    leftover.unlink()
        with suppress(OSError):
            os.write(2, b"\nomni-rt: stopped\n")
        os._exit(INTERRUPTED)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._at_prompt:
            raise KeyboardInterrupt
        if not self._deferred:
            self.leave()
        # Noted by the watching thread. Raising here could hit a callback of a C library, which swallows exceptions.

    def _wait(self, reader: socket.socket) -> None:
        while byte := reader.recv(1):
            if byte[0] != signal.SIGINT or self._at_prompt:
                continue
            if self._deferred and not self.requested:
                self.requested = True
                continue
            if not self._deferred:
                time.sleep(PATIENCE)
            self.leave()
