"""Feed the GGUF reader random mutations of good files: `python tools/fuzz_gguf.py --mutations 1000000 [--seed 0]`.

Every mutation must be read or be refused with an OmniError, within a second and a bound on the address space. One
that is not is written to the current directory, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent.parent))

from omni_rt.errors import OmniError
from omni_rt.io.gguf import GgufFile
from tests.gguf_damage import GOOD, KINDS, mutate

MOST_SECONDS = 1.0
MOST_BYTES = 512 << 20
"""Of address space beyond what the program had at its start."""


def read(path: Path) -> str:
    """Read a file whole; return "read", or the kind of its refusal."""
    try:
        file = GgufFile(path)
        for name, entry in file.entries.items():
            raw = file.raw(name)
            assert raw.nbytes == entry.end - entry.begin
            raw.sum()
            if entry.dtype != "Q8_0":
                assert file.array(name).shape == entry.shape
    except OmniError as error:
        return type(error).__name__
    return "read"


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"longer than {MOST_SECONDS} s")


def main() -> None:
    """Run the mutations and print the counts."""
    parser = argparse.ArgumentParser(description="Fuzz the GGUF reader.")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    # Damaged files mutate into other damage than the good one does.
    sources = [GOOD.content()] * 20 + [make(rng).content() for make in KINDS.values()]
    signal.signal(signal.SIGALRM, _too_long)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 1 << 20
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counts: collections.Counter[str] = collections.Counter()
    bad, slowest, started = 0, 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.gguf"
        for index in range(arguments.mutations):
            content = mutate(rng.choice(sources), rng)
            path.write_bytes(content)
            signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
            began = time.perf_counter()
            try:
                counts[read(path)] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                bad += 1
                Path(f"gguf-{arguments.seed}-{index}.bad").write_bytes(content)
                print(f"mutation {index}: {type(error).__name__}: {error}", file=sys.stderr)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, time.perf_counter() - began)
    seconds = time.perf_counter() - started
    print(
        f"{arguments.mutations} mutations, seed {arguments.seed}: {dict(counts)}, {bad} outside the error tree, "
        f"slowest {slowest * 1000:.1f} ms, {seconds:.0f} s in all"
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
