"""Build the native module in place: `python omni_rt/native/build.py [--sanitize]`.

The wheel builds the same `builder` through setup.py. One build serves all processors: each level_*.c is compiled for
its own instructions, and the level is chosen at run time. `--sanitize` builds with the address and undefined-behaviour
sanitizers; run Python with LD_PRELOAD set to what the command prints.
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
digest = runpy.run_path(str(HERE / "sources.py"))["digest"]  # setup.py runs this file outside of its package
SOURCES = (
    "pool.c", "registry.c", "replay.c", "level_portable.c", "level_avx2.c", "level_avx2_vnni.c", "level_avx512.c",
    "level_neon.c", "level_neon_dotprod.c",
)  # fmt: skip
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-pthread", "-Wall", "-Wextra"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1"]


def declarations() -> str:
    """Return the C declarations that Python sees: entry.h without its preprocessor lines."""
    lines = (HERE / "entry.h").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def builder(folder: Path = Path("omni_rt/native"), extra: Sequence[str] = ()) -> FFI:
    """Return the cffi builder; `folder` holds the sources, as the compiler finds them (setup.py runs in the root)."""
    ffi = FFI()
    built_from = f'-DOMNI_BUILT_FROM="{digest(HERE)}"'
    ffi.cdef(declarations())
    ffi.set_source(
        "omni_rt.native._kernels",
        '#include "entry.h"',
        sources=[str(folder / name) for name in SOURCES],
        depends=[str(folder / path.name) for path in sorted(HERE.glob("*.[ch]")) if path.name != "_kernels.c"],
        include_dirs=[str(folder)],
        extra_compile_args=[*FLAGS, built_from, *extra],
        extra_link_args=["-pthread", *extra],
        py_limited_api=True,
    )
    return ffi


def main() -> None:
    """Build beside this file."""
    parser = argparse.ArgumentParser(description="Build the native module in place.")
    parser.add_argument("--sanitize", action="store_true", help="with the address and undefined-behaviour sanitizers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = builder(HERE, SANITIZE if arguments.sanitize else ()).compile(tmpdir=scratch)
        target = HERE / Path(made).name
        target.unlink(missing_ok=True)  # a process may have the old one mapped
        shutil.copy(made, target)
    print(target, file=sys.stderr)
    if arguments.sanitize:
        command = ["gcc", "-print-file-name=libasan.so"]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
