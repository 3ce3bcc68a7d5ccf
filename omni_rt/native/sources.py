"""Which C files the native module was built from, so that a module of other files is never called.

It uses the standard library alone, because builds run it where nothing else is installed.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def digest(folder: Path) -> str:
    """Return a digest of the names and the text of the C files in a folder; "" where there are none, as in a wheel."""
    files = [path for path in sorted(folder.glob("*.[ch]")) if not path.name.startswith("_")]  # cffi writes _kernels.c
    if not files:
        return ""
    hashed = sha256()
    for path in files:
        hashed.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()
