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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

PATIENCE = 0.12
"""Seconds that the main thread has for stopping by itself."""

PROMPT_PATIENCE = 2.0
"""The same where it returns to a prompt, which takes as long as the step that it is in."""


class Interrupts:
    """Watches for Ctrl-C, which ends the process, or where a prompt waits for more, raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._patience = PATIENCE
        self._resumes = False
        self._raised = 0  # interrupts that reached the main thread
        self._settled = 0  # those of them after which the process goes on
        self._partial: list[Path] = []

    def watch(self) -> None:
        """Start to watch; call it once, from the main thread."""
        reader, writer = self._ends = socket.socketpair()
        writer.setblocking(False)
        signal.signal(signal.SIGINT, self._handle)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._wait, args=(reader,), name="interrupts", daemon=True).start()

    def resume(self) -> None:
        """Raise KeyboardInterrupt from now on, and end the process only when nobody settles it in time."""
        self._patience = PROMPT_PATIENCE
        self._resumes = True

    def settle(self) -> None:
        """Say that the interrupt has been dealt with and the process goes on."""
        self._settled = self._raised

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
        if not self._resumes:
            self.leave()
        self._raised += 1
        raise KeyboardInterrupt

    def _wait(self, reader: socket.socket) -> None:
        received = 0
        while True:
            reader.settimeout(None)
            received += reader.recv(1) == bytes([signal.SIGINT])
            reader.settimeout(self._patience)
            with suppress(TimeoutError):  # a second Ctrl-C ends the wait
                received += reader.recv(1) == bytes([signal.SIGINT])
            if self._settled < received:
                self.leave()
