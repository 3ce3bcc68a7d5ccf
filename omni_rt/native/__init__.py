"""The C bodies of ops, where they are built: finding them, the thread pool they run on, and the replay of GPU steps.

Absent is normal: `load` then returns None and NumPy serves. `python omni_rt/native/build.py` builds in a checkout.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from omni_rt.errors import DeviceError
from omni_rt.native.sources import digest

MODULE = "omni_rt.native._kernels"
NUMPY = "numpy"
"""The level without C bodies."""


@cache
def load() -> ModuleType | None:
    """Return the compiled module (`ffi`, `lib`), or None where it is not built.

    One that was built from other C files than those beside it is as good as none, and a warning says so: its bodies may
    take other operands than Python hands them.
    """
    try:
        module = import_module(MODULE)
    except ImportError:
        return None
    wanted = digest(Path(__file__).parent)
    if wanted and _built_from(module) != wanted:
        warnings.warn(
            f"{module.__file__} was built from other C files than those beside it: NumPy serves, many times slower. "
            "Build it again: python omni_rt/native/build.py",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return module


def is_built() -> bool:
    """Say whether there is a compiled module, be it usable or not."""
    return find_spec(MODULE) is not None


def _built_from(module: ModuleType) -> str:
    """Return the digest of the C files that a module was built from, "" where it does not tell."""
    tell = getattr(module.lib, "omni_built_from", None)
    return "" if tell is None else str(module.ffi.string(tell()).decode())


def levels() -> list[str]:
    """List the dispatch levels that this processor supports, best first; empty where the module is not built."""
    module = load()
    if module is None:
        return []
    lib, text = module.lib, module.ffi.string
    return [text(lib.omni_level_name(i)).decode() for i in range(lib.omni_level_count()) if lib.omni_level_supported(i)]


def physical_cores() -> int:
    """Return the number of physical cores that this process may use."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for processor in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(processor))
    return max(min(len(cores), _quota()), 1)


def _quota() -> int:
    """Return the whole processors that the control group grants, or a large number."""
    try:
        granted, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return 1 << 16 if granted == "max" else max(int(granted) // int(period), 1)
    except (OSError, ValueError):
        return 1 << 16


class Pool:
    """Threads that run C bodies at one dispatch level. `threads` counts the caller's; one body runs at a time."""

    def __init__(self, module: ModuleType, threads: int | None, level: str) -> None:
        """Start the threads; raise DeviceError when this processor does not support `level` ("": the best)."""
        wanted = threads or physical_cores()
        handle = module.lib.omni_pool_new(wanted, level.encode())
        if handle == module.ffi.NULL:
            raise DeviceError(
                f"this processor or build has no CPU level {level!r}: choose one of {', '.join([*levels(), 'numpy'])}"
            )
        self.handle = module.ffi.gc(handle, module.lib.omni_pool_free)
        self.level: str = module.ffi.string(module.lib.omni_pool_level(handle)).decode()
        self.threads: int = module.lib.omni_pool_threads(handle)
        self.run = module.lib.omni_run
        self._run_steps = module.lib.omni_run_steps
        self.address = module.ffi.from_buffer
        self._find = module.lib.omni_find
        self._ffi = module.ffi

    def find(self, function: str) -> Any:
        """Return the body of that name, or None."""
        body = self._find(self.handle, function.encode())
        return None if body == self._ffi.NULL else body

    def pack(self, values: Sequence[Any]) -> Any:
        """Return uniforms as C takes them: 8 bytes each, floats as double, the rest as int64."""
        packed = self._ffi.new("omni_value[]", len(values))
        for index, value in enumerate(values):
            if isinstance(value, float):
                packed[index].f = value
            else:
                packed[index].i = int(value)
        return packed

    def pack_steps(self, calls: Sequence[tuple[Any, Sequence[np.ndarray], Sequence[np.ndarray], Any]]) -> Any:
        """Return calls (body or None, planes, outputs, uniforms) in the form that `run_steps` takes."""
        ffi = self._ffi
        steps, kept = ffi.new("omni_step[]", len(calls)), []
        for step, (body, planes, outputs, uniforms) in zip(steps, calls, strict=True):
            if body is None:
                continue
            pointers = [ffi.new("void *[]", [self.address(plane) for plane in group]) for group in (planes, outputs)]
            kept.append((planes, outputs, uniforms, pointers))
            step.body, step.planes, step.outputs, step.uniforms = body, *pointers, uniforms
        return steps, kept

    def run_steps(self, packed: Any, at: int, end: int) -> int:
        """Run packed calls from `at` on; return the index of the first that was not run by C, or `end`."""
        return int(self._run_steps(self.handle, packed[0], at, end))


_conversion: tuple[int | None, str] = (None, "")
"""Threads and level that convert weights."""


def convert_with(threads: int | None, level: str) -> None:
    """Let weights be converted with so many threads at a level from now on, whatever device they are for.

    None and "" stand for the physical cores and the best level. Raises DeviceError when there is no such level.
    """
    global _conversion
    _weight_pool(threads, level)
    _conversion = (threads, level)


def weight_pool() -> Pool | None:
    """Return the threads that convert weights; None where NumPy does it."""
    return _weight_pool(*_conversion)


@cache
def _weight_pool(threads: int | None, level: str) -> Pool | None:
    module = None if level == NUMPY else load()
    return None if module is None else Pool(module, threads, level)


REPLAY_FUNCTIONS = (
    "wgpuDeviceCreateCommandEncoder",
    "wgpuCommandEncoderBeginComputePass",
    "wgpuComputePassEncoderSetPipeline",
    "wgpuComputePassEncoderSetBindGroup",
    "wgpuComputePassEncoderDispatchWorkgroups",
    "wgpuComputePassEncoderEnd",
    "wgpuComputePassEncoderRelease",
    "wgpuCommandEncoderFinish",
    "wgpuCommandEncoderRelease",
    "wgpuQueueSubmit",
    "wgpuCommandBufferRelease",
)
"""What wgpu-native calls the functions of omni_replay_functions, in its order."""


class Replayer:
    """Encodes and submits the dispatches of captured GPU steps in C."""

    def __init__(self, module: ModuleType, functions: Sequence[int], device: int, queue: int) -> None:
        """Take the addresses of wgpu-native's REPLAY_FUNCTIONS, of a device and of its queue."""
        self._ffi = module.ffi
        self._replay = module.lib.omni_replay
        self._functions = module.ffi.new("omni_replay_functions *", list(functions))
        self._device = device
        self._queue = queue

    def pack(self, dispatches: Sequence[tuple[int, int, int, int, int]]) -> Any:
        """Return dispatches (pipeline, bind group, x, y, z; handles as addresses) in the form that `submit` takes."""
        return self._ffi.new("omni_dispatch[]", [(*dispatch, 0) for dispatch in dispatches])

    def submit(self, packed: Any, piece: int) -> int:
        """Submit all dispatches, `piece` of them first, then twice as many each time; return the submissions."""
        return int(self._replay(self._functions, self._device, self._queue, packed, len(packed), piece))
