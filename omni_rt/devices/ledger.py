"""The memory ledger: what a device has promised, checked against its budget before anything is allocated."""

from __future__ import annotations

from omni_rt.errors import OutOfMemoryError

GIB = 1 << 30


class Ledger:
    """Bytes in use by purpose ("weights", "state", "activations") against an optional budget in bytes."""

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.used: dict[str, int] = {"weights": 0, "state": 0, "activations": 0}
        self.peak = 0

    @property
    def total(self) -> int:
        """Bytes in use."""
        return sum(self.used.values())

    def require(self, needed: int, what: str) -> None:
        """Raise OutOfMemoryError unless `needed` more bytes fit into the budget."""
        if self.budget is not None and self.total + needed > self.budget:
            available = max(self.budget - self.total, 0)
            raise OutOfMemoryError(
                f"{what} needs {needed / GIB:.2f} GiB, but {available / GIB:.2f} GiB of the budget of "
                f"{self.budget / GIB:.2f} GiB are left: quantise (quant='q8_0'), shorten the context, "
                "or raise max_memory",
                needed,
                available,
            )

    def exhausted(self, needed: int, device: str) -> OutOfMemoryError:
        """Return the error for a device that has refused `needed` bytes."""
        return OutOfMemoryError(
            f"{device} has no memory left for {needed / GIB:.2f} GiB beside the {self.total / GIB:.2f} GiB in use: "
            "quantise (quant='q8_0'), shorten the context, or place a component on the CPU",
            needed,
            0,
        )

    def take(self, purpose: str, size: int) -> None:
        """Enter `size` bytes for a purpose, within the budget."""
        self.require(size, purpose)
        self.used[purpose] += size
        self.peak = max(self.peak, self.total)

    def give(self, purpose: str, size: int) -> None:
        """Return `size` bytes of a purpose."""
        self.used[purpose] -= size
