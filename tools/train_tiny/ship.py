"""Stage: the checkpoint as it ships, its linear weights in 8 bits, into the package.

    python -m tools.train_tiny.ship CHECKPOINT [OUT]

OUT is omni_rt/tiny when left out. Writes what `omni_rt.quantize` writes and SHA256SUMS.txt; MODEL_CARD.md there stays.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import omni_rt

MOST_BYTES = 20_000_000
"""What the model may add to the package."""


def main() -> None:
    """Write the directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(omni_rt.__file__).parent / "tiny")
    arguments = parser.parse_args()
    for path in arguments.out.glob("*"):
        if path.name != "MODEL_CARD.md":
            path.unlink()
    omni_rt.quantize(arguments.checkpoint, arguments.out)
    files = sorted(path for path in arguments.out.iterdir() if path.name not in ("MODEL_CARD.md", "SHA256SUMS.txt"))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (arguments.out / "SHA256SUMS.txt").write_text("".join(sums))
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    if size >= MOST_BYTES:
        raise SystemExit(f"{arguments.out}: {size:,} bytes, at most {MOST_BYTES:,} may ship")
    print(f"{arguments.out}: {size:,} bytes")


if __name__ == "__main__":
    main()
