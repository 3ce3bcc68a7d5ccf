"""Which state of the source a measurement belongs to."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def revision() -> str:
    """Return the commit of the checkout, with `-dirty` where files differ from it; the version of an installed package.

    "unknown" when there is neither.
    """
    root = Path(__file__).parent.parent.parent
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.strip()
    try:
        return version("omni-rt")
    except PackageNotFoundError:
        return "unknown"
