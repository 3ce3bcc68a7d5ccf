"""How much memory this machine has left for a model."""

from __future__ import annotations

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return the bytes that programs can still take without swapping, None where the system does not tell.

    Counts files in the page cache as free, and keeps to the limit of the control group.
    """
    free = _meminfo().get("MemAvailable")
    try:
        limit, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        left = limit - used + int(cached.get("inactive_file", 0))
        free = left if free is None else min(free, left)
    except (OSError, ValueError):  # no group, or "max": no limit
        pass
    return free


def total_bytes() -> int | None:
    """Return the bytes of memory of this machine, None where the system does not tell."""
    total = _meminfo().get("MemTotal")
    if total is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total


def _meminfo() -> dict[str, int]:
    try:
        lines = MEMINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {line.partition(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith("kB")}
