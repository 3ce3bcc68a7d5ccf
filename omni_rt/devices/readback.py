"""Reading results back from a wgpu device: at once, or begun now and taken later while the GPU goes on.

Nothing here imports wgpu: the GPU device and the C library that wgpu-py loads (`ffi`, `lib`) are handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from omni_rt.devices.memory import round_up
from omni_rt.errors import DeviceError

DEADLINE = 120.0
"""Seconds after which a wait for the GPU is given up."""

SPIN_SECONDS = 0.002
"""How long a wait polls without sleeping, because most waits are short."""

SMALLEST = 256
"""Bytes of the smallest staging buffer."""


class Readback:
    """Staging buffers of one device. A read is a copy in stream order, then an asynchronous map."""

    def __init__(self, gpu: Any, ffi: Any, lib: Any) -> None:
        self._gpu = gpu
        self._ffi = ffi
        self._lib = lib
        self._free: dict[int, list[Any]] = {}
        self._status: dict[int, int] = {}
        self._numbers = 0
        self._abandoned: list[tuple[int, Any]] = []

        @ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")
        def mapped(status: int, _message: Any, number: Any, _unused: Any) -> None:
            self._status[int(ffi.cast("uintptr_t", number))] = int(status)

        self._mapped = mapped

    def begin(self, buffer: Any, offset: int, size: int) -> Callable[[], np.ndarray]:
        """Copy `size` bytes of a buffer behind all submitted work; the result waits for them, uint8."""
        self._sweep()
        capacity = max(SMALLEST, 1 << (size - 1).bit_length())
        free = self._free.setdefault(capacity, [])
        staging = free.pop() if free else self._gpu.create_buffer(size=capacity, usage="MAP_READ | COPY_DST")
        encoder = self._gpu.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, offset, staging, 0, round_up(size, 4))
        self._gpu.queue.submit([encoder.finish()])
        self._numbers += 1
        number = self._numbers
        info = self._ffi.new("WGPUBufferMapCallbackInfo *")
        info.mode = self._lib.WGPUCallbackMode_AllowProcessEvents
        info.callback = self._mapped
        info.userdata1 = self._ffi.cast("void *", number)
        self._lib.wgpuBufferMapAsync(staging._internal, self._lib.WGPUMapMode_Read, 0, capacity, info[0])
        return _Pending(self, number, staging, size)

    def take(self, number: int, staging: Any, size: int) -> np.ndarray:
        """Wait for a read that was begun and return its bytes.

        Raises DeviceError when the GPU does not answer within the deadline, or hands back an error.
        """
        started = time.perf_counter()
        while number not in self._status:
            self._poll()
            waited = time.perf_counter() - started
            if waited > DEADLINE:
                raise DeviceError(f"the GPU has not answered for {DEADLINE:.0f} s: it hangs or is overloaded")
            if waited > SPIN_SECONDS:
                time.sleep(0.0001)
        status = self._status.pop(number)
        if status != self._lib.WGPUMapAsyncStatus_Success:
            raise DeviceError(f"the GPU could not hand back a result (status {status}): the device may be lost")
        pointer = self._lib.wgpuBufferGetConstMappedRange(staging._internal, 0, round_up(size, 4))
        values = np.frombuffer(self._ffi.buffer(pointer, size), np.uint8).copy()
        self._release(staging)
        return values

    def abandon(self, number: int, staging: Any) -> None:
        """Let go of a read that nobody waits for; its buffer is used again when the map has come."""
        self._abandoned.append((number, staging))

    def _sweep(self) -> None:
        waiting = self._abandoned
        if waiting:
            self._poll()
            self._abandoned = [(number, staging) for number, staging in waiting if number not in self._status]
            for number, staging in waiting:
                if self._status.pop(number, None) is not None:
                    self._release(staging)

    def _release(self, staging: Any) -> None:
        self._lib.wgpuBufferUnmap(staging._internal)
        self._free[staging.size].append(staging)

    def _poll(self) -> None:
        self._lib.wgpuDevicePoll(self._gpu._internal, False, self._ffi.NULL)


class _Pending:
    """A read that was begun: call it once for its bytes."""

    def __init__(self, readback: Readback, number: int, staging: Any, size: int) -> None:
        self._readback: Readback | None = readback
        self._number = number
        self._staging = staging
        self._size = size

    def __call__(self) -> np.ndarray:
        readback, self._readback = self._readback, None
        assert readback is not None, "a read is taken once"
        return readback.take(self._number, self._staging, self._size)

    def __del__(self) -> None:
        if self._readback is not None:
            self._readback.abandon(self._number, self._staging)
