"""Build the native module with the package where a C compiler is there; without one the package runs on NumPy.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import sys
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext


class OptionalBuild(build_ext):
    """Builds extensions, and carries on without them after one clear line when that fails."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self._skip(error)

    def build_extension(self, extension: Any) -> None:
        try:
            super().build_extension(extension)
        except Exception as error:
            self._skip(error)

    def copy_extensions_to_source(self) -> None:
        try:
            super().copy_extensions_to_source()
        except OSError as error:
            self._skip(error)

    def get_outputs(self) -> list[str]:
        return [] if getattr(self, "skipped", False) else super().get_outputs()

    def _skip(self, error: Exception) -> None:
        if not getattr(self, "skipped", False):
            self.skipped = True
            print(f"omni-rt: the C kernels are not built ({error}): it runs on NumPy", file=sys.stderr)


setup(
    cffi_modules=["omni_rt/native/build.py:builder"],
    cmdclass={"build_ext": OptionalBuild},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
