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

    from omni_rt.command.group import run

    sys.exit(run())


if __name__ == "__main__":
    main()
