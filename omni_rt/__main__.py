"""The command line: `omni-rt`, or `python -m omni_rt`. The only place that reads and sets environment variables."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile


def main() -> None:
    """Run the command line and exit with its code."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))  # while the modules below are imported
    _complete_streams()
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


def _complete_streams() -> None:
    """Give closed streams the null device, and have no name or text fail for what a stream's encoding lacks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Opened first of all, it gets the number of the closed stream, which no file gets by chance any more.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


if __name__ == "__main__":
    main()
