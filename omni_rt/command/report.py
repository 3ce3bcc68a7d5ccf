"""What a command says: results on stdout, progress and timings on stderr."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm

    from omni_rt.results import Timings

MIB = 1 << 20


@dataclass(frozen=True)
class Report:
    """How much a command says, and whether its result is one JSON object per line."""

    as_json: bool
    quiet: bool
    verbose: bool

    def note(self, text: str) -> None:
        """Say something on stderr, unless quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def result(self, data: Mapping[str, Any]) -> None:
        """Print a result on stdout as one line of JSON, escaped where stdout does not take every character."""
        click.echo(json.dumps(data, ensure_ascii=codecs.lookup(sys.stdout.encoding).name != "utf-8"))

    def timings(self, timings: Timings) -> None:
        """Say on stderr how long a reply took."""
        parts = [
            ("loaded in {:.2f} s", timings.load_s),
            ("first token {:.0f} ms", timings.first_token_ms),
            ("first audio {:.0f} ms", timings.first_audio_ms),
            ("{:.1f} tokens/s", timings.tokens_per_s),
            ("RTF {:.2f}", timings.rtf),
            ("peak {:.0f} MiB", timings.peak_memory_bytes / MIB or None),
        ]
        self.note(" · ".join(text.format(value) for text, value in parts if value is not None))

    def progress(self, total: int | None, unit: str, what: str, *, binary: bool = False) -> tqdm[Any]:
        """Return a progress bar on stderr that shows itself on a terminal only; `binary` counts in KiB and MiB."""
        from tqdm import tqdm

        hidden = True if self.quiet else None
        return tqdm(
            total=total, unit=unit, desc=what, file=sys.stderr, disable=hidden, leave=False, dynamic_ncols=True,
            unit_scale=binary, unit_divisor=1024 if binary else 1000,
        )  # fmt: skip

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a progress bar of bytes; yield what moves it, given the bytes that are done and the bytes in all."""
        with self.progress(0, "B", what, binary=True) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield advance


def timings_as_json(timings: Timings) -> dict[str, Any]:
    """Return the timings by name, rounded to a millionth."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(timings).items()}


def printable(text: str) -> str:
    """Return text without the control characters that would steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of left-aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
