"""Tuned variants: for each adapter a small table that says which variant of a kernel is fastest there."""

from __future__ import annotations

import json
import re
from importlib import resources


def load(adapter: str) -> dict[str, int]:
    """Return {shader: index of its variant} for an adapter; empty, so the defaults, when it was never tuned."""
    name = re.sub(r"[^a-z0-9]+", "-", adapter.lower()).strip("-")
    path = resources.files("omni_rt.devices") / "tuned" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
