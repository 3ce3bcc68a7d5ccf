"""Run the tests of the C bodies under the address and undefined-behaviour sanitizers: `python tools/sanitize.py`.

Builds the module in place with the sanitizers, runs tests/test_native.py in a process that has loaded their library
first, and builds the module anew without them. Needs GCC.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = [sys.executable, str(ROOT / "omni_rt" / "native" / "build.py")]
TESTS = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "tests/test_native.py", "-k", "not replays"]


def main() -> int:
    """Return the exit code of the tests."""
    built = subprocess.run([*BUILD, "--sanitize"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    library = built.stdout.split()[-1]
    # CPython keeps memory until it ends; a GPU driver is not on trial, so the replay of GPU steps stays out.
    options = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    try:
        return subprocess.run(TESTS, cwd=ROOT, env={**os.environ, **options}, check=False).returncode
    finally:
        subprocess.run(BUILD, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
