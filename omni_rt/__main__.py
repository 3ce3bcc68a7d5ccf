"""The command line: `omni-rt`, or `python -m omni_rt`. The only place that reads and sets environment variables."""

from __future__ import annotations

import os
import sys
import tempfile


def main() -> None:
    """Run the command line and exit with its code."""
    # wgpu-native complains on stderr when this is unset; nothing is ever put there.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    # A checkpoint's tokenizer is used from one thread, and says so at length when a process forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    from omni_rt.command.group import CpuSettings, run

    threads = os.environ.get("OMNI_RT_THREADS", "")
    if threads and not (threads.isdecimal() and 1 <= int(threads) <= 1024):
        sys.exit(f"omni-rt: error: OMNI_RT_THREADS is {threads!r}: set it to a number from 1 to 1024, or unset it")
    level = os.environ.get("OMNI_RT_CPU_LEVEL", "")
    sys.exit(run(cpu=CpuSettings(int(threads) if threads else None, level)))


if __name__ == "__main__":
    main()
