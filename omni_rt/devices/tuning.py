"""Tuned variants: for each adapter a table of what was fastest there, as `omni-rt bench tune` measured it.

A table is a JSON file, `<adapter>.json`, in `tuned/` beside this module or, for the machine's own measurements, in the
user's cache; kernels of the latter win. It lists, by kernel, the sizes that were measured and the variant to use there:

    {"adapter": ..., "kernels": {"matmul_q8_0_gemv": [{"at": {"T": 1, "N": 2048, "K": 4096}, "variant": {"ROWS": 4}}]}}

A call takes the variant of the size nearest to its own. A call with `as_rows`, which asks for the bits of so many rows
however many come, counts as one of so many, and extents that differ between the pieces of a stream do not count.
Variants are written out, so that a table older than a kernel picks no wrong one: what the kernel does not declare, or
what does not fit the adapter, is passed over. Without an entry the first variant serves that fits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni_rt.ops.contract import Call, Kernel

Fits = Callable[[str, Mapping[str, int]], bool]
"""Says whether a shader's variant keeps within an adapter's limits."""


PIECES = ("T", "S", "P")
"""Extents that differ between the pieces of a stream: rows, positions of a cache, rows of a tail."""


@dataclass(frozen=True)
class Entry:
    """The variant to use at sizes like `at`; an empty `at` means at any."""

    at: Mapping[str, int]
    variant: Mapping[str, int]

    def distance(self, call: Call) -> float:
        """Return how far a call's sizes are from these: the sum of the logarithms of their ratios."""
        sizes = dict(call.dims)
        if rows := sizes.get("as_rows"):
            sizes = {name: size for name, size in sizes.items() if name not in PIECES} | {"T": rows}
        return sum(abs(log2((size + 1) / (int(sizes.get(name, size)) + 1))) for name, size in self.at.items())


class Table:
    """The entries of one adapter, by kernel."""

    def __init__(self, entries: Mapping[str, Sequence[Entry]]) -> None:
        self.entries = dict(entries)

    def variant(self, kernel: Kernel, call: Call, fits: Fits) -> Mapping[str, int]:
        """Return the variant with which a kernel runs a call."""
        known = [entry for entry in self.entries.get(kernel.shader, ()) if entry.variant in kernel.variants]
        known = [entry for entry in known if fits(kernel.shader, entry.variant)]
        if known:
            return min(known, key=lambda entry: entry.distance(call)).variant
        return next((v for v in kernel.variants if fits(kernel.shader, v)), kernel.variants[0])


def load(adapter: str) -> Table:
    """Return the table of an adapter; empty, so the defaults, when it was never tuned."""
    shipped = Path(str(resources.files("omni_rt.devices"))) / "tuned" / file_name(adapter)
    return Table(read(shipped) | read(own_path(adapter)))


def own_path(adapter: str) -> Path:
    """Return where this machine's own table of an adapter lies."""
    return Path("~/.cache/omni-rt/tuned").expanduser() / file_name(adapter)


def file_name(adapter: str) -> str:
    """Return the name of an adapter's table; the software adapter is one, whatever LLVM it was built with."""
    plain = re.sub(r"\(llvm [^)]*\)", "", adapter.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") + ".json"


def read(path: Path) -> dict[str, list[Entry]]:
    """Return the entries of a table, by kernel; none of a file that is missing or is no table."""
    try:
        kernels = json.loads(path.read_text(encoding="utf-8"))["kernels"]
        return {
            str(shader): [Entry(_integers(entry["at"]), _integers(entry["variant"])) for entry in entries]
            for shader, entries in kernels.items()
        }
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _integers(values: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in values.items()}
