"""How much work a submission holds: the GPU's own clock says how long the last ones took.

A driver resets a GPU that does not answer for two seconds, and a screen on it freezes meanwhile: a submission should
take a tenth of a second or less. Nothing here imports wgpu: the GPU device is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

MOST_DISPATCHES = 64
"""Dispatches of a submission at most, so that the GPU starts while Python goes on."""

FIRST_DISPATCHES = 16
LEAST_TIMED = 8
"""Dispatches from which on a submission is timed; fewer say little, and each timing is a read-back."""

TARGET_SECONDS = 0.1
KEPT = 4
"""Submissions whose times are under way at most; before there are more, the oldest is waited for."""

SLOT_BYTES = 256

Read = Callable[[Any, int, int], Callable[[], np.ndarray]]
"""Begins to read bytes of a buffer, and returns a function that waits for them."""


class Pace:
    """The number of dispatches per submission, `limit`: it changes when work is done, never what is computed."""

    def __init__(self, gpu: Any, period: float, read: Read) -> None:
        """Use the timestamps of a GPU device, each `period` nanoseconds, read back by `read`."""
        self.limit = FIRST_DISPATCHES
        self._period = period
        self._read = read
        self._waiting: deque[tuple[int, Callable[[], np.ndarray]]] = deque()
        self._slot = 0
        self._kept = 0
        self._queries = gpu.create_query_set(type="timestamp", count=2 * (KEPT + 1))
        self._resolved = gpu.create_buffer(size=(KEPT + 1) * SLOT_BYTES, usage="QUERY_RESOLVE | COPY_SRC")

    def writes(self) -> dict[str, Any]:
        """Return the `timestamp_writes` of the pass of the next submission."""
        at = 2 * self._slot
        return {
            "query_set": self._queries,
            "beginning_of_pass_write_index": at,
            "end_of_pass_write_index": at + 1,
        }

    def resolve(self, encoder: Any) -> None:
        """Encode, behind that pass, where its times go."""
        encoder.resolve_query_set(self._queries, 2 * self._slot, 2, self._resolved, self._slot * SLOT_BYTES)

    def submitted(self, dispatches: int) -> None:
        """Begin to read the times of a submission, and learn from those that have come."""
        if dispatches < min(LEAST_TIMED, self.limit):
            return
        self._waiting.append((dispatches, self._read(self._resolved, self._slot * SLOT_BYTES, 16)))
        self._slot = (self._slot + 1) % (KEPT + 1)
        while len(self._waiting) > self._kept:
            count, times = self._waiting.popleft()
            start, stop = times().view(np.uint64)
            self.learn(count, (int(stop) - int(start)) * self._period / 1e9)

    def learn(self, dispatches: int, seconds: float) -> None:
        """Set the limit by what a submission took: at once when that was long, by a quarter when it was short.

        A submission of few dispatches may hold none of the slow ones of a layer, and would speak for all. After a long
        one, and before any, each is waited for, so that none is issued in ignorance; quick ones overlap.
        """
        fitting = int(dispatches * TARGET_SECONDS / max(seconds, 1e-9))
        self.limit = max(1, min(fitting, self.limit + self.limit // 4 + 1, MOST_DISPATCHES))
        self._kept = min(self._kept + 1, KEPT) if seconds < TARGET_SECONDS else 0
