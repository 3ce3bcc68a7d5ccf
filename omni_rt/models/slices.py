"""Slices of a prompt: how many rows pass a decoder at once, by the time that the GPU took for those before.

More rows at once read the weights less often; fewer keep each dispatch short, which nothing else can divide. What is
computed does not change with the time it takes: in slices of LEAST_ROWS rows or more, every kernel of a GPU sums up a
row in the same order, and no shorter ones are cut (tests/test_slices.py compares the bits).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

MOST_ROWS = 2048
"""Rows at once at most, which bounds the activations. All experts are read for each slice."""

FIRST_ROWS = 512
"""Rows at once before a time is known."""

SHORTEST = 256
"""Limit below which slices do not shrink: only a processor that computes in software takes 0.1 s for 256 rows of the
largest weights here, 13 GFLOP."""

LEAST_ROWS = SHORTEST // 2
"""Rows of a slice at least, unless the prompt has fewer: below, other kernels sum up in another order."""

SCORES = 1 << 24
"""Scores of a head behind which slices grow shorter, so that no dispatch of attention takes long."""

SLOW, QUICK = 8, 16
"""Dispatches in 0.1 s: with fewer, slices are halved; with more, a full one is followed by one twice as long, whose
dispatches then take at most 0.2 s."""


class Slices:
    """The slices of one decoder's prompts; what was learnt from one prompt serves the next."""

    def __init__(self, device: Device, *, most: int = MOST_ROWS) -> None:
        """Take `most` rows at once at most, and always where a device does not measure its dispatches."""
        self.limit = most if device.dispatches_in_time() is None else min(FIRST_ROWS, most)
        self._device = device
        self._most = most
        self._last = 0

    def rows(self, start: int, left: int) -> int:
        """Return the rows of the next slice, from row `start` of a prompt on, which has `left` rows from there."""
        fitting = self._device.dispatches_in_time()
        if fitting is not None and self._last:
            if fitting < SLOW:
                self.limit = max(self.limit // 2, SHORTEST)
            elif fitting >= QUICK and self._last >= self.limit:
                self.limit = min(2 * self.limit, self._most)
        most = min(self.limit, max(SHORTEST, SCORES // max(start, 1)))
        self._last = left if left <= most else most if left - most >= LEAST_ROWS else left // 2
        return self._last
