"""Weights on their way to a GPU: the large ones through a ring of mapped buffers, copied while the next one is filled.

Nothing here imports wgpu: the GPU device and the C library that wgpu-py loads (`ffi`, `lib`) are handed in.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from omni_rt.devices.device import host_planes
from omni_rt.devices.memory import round_up, words
from omni_rt.devices.readback import DEADLINE
from omni_rt.errors import DeviceError
from omni_rt.quant import Matrix, Quantised, cut_rows
from omni_rt.tensor import HOST_TYPES, plane_bytes

STAGE = 32 << 20
"""Bytes of one buffer of the ring."""
STAGES = 3
SMALL = 1 << 20
"""Bytes below which a weight is handed to the queue, which keeps a copy until the next submission."""


class Uploads:
    """The ring of one device. It is made when it is first needed, and `close` gives it back."""

    def __init__(self, gpu: Any, ffi: Any, lib: Any) -> None:
        self._gpu, self._ffi, self._lib = gpu, ffi, lib
        self._ring: list[Any] = []
        self._next = 0
        self._ready: set[int] = set()
        self._failed = 0

        @ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")
        def mapped(status: int, _message: Any, index: Any, _unused: Any) -> None:
            self._failed |= int(status != lib.WGPUMapAsyncStatus_Success)
            self._ready.add(int(ffi.cast("uintptr_t", index)))

        self._mapped = mapped

    def fill(self, buffers: Sequence[Any], values: Matrix, dtype: str) -> None:
        """Write the planes of rows [N, K] into their buffers, one per plane, in stream order."""
        rows, width = prod(values.shape[:-1]), values.shape[-1]
        row_bytes = plane_bytes((1, width), dtype)
        if rows * sum(row_bytes) < SMALL:
            for buffer, plane in zip(buffers, host_planes(values, dtype), strict=True):
                if plane.nbytes:
                    self._gpu.queue.write_buffer(buffer, 0, words(plane))
            return
        # Even numbers of rows, so that every plane of every piece is whole 32-bit words.
        step = max(STAGE // sum(row_bytes) // 2 * 2, 2)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            sizes = [count * size for size in row_bytes]
            offsets = [0, round_up(sizes[0], 16)][: len(sizes)]
            stage, view = self._stage(offsets[-1] + round_up(sizes[-1], 4))
            planes = [view[at : at + size] for at, size in zip(offsets, sizes, strict=True)]
            _write(cut_rows(values, start, start + count), dtype, planes)
            targets = [start * size for size in row_bytes]
            self._send(stage, list(zip(buffers, offsets, targets, sizes, strict=True)))

    def close(self) -> None:
        """Give the ring back when everything has been copied."""
        for index in range(len(self._ring)):
            self._wait(index)
        for stage in self._ring:
            stage.destroy()
        self._ring.clear()
        self._ready.clear()
        self._next = 0

    def _stage(self, size: int) -> tuple[int, np.ndarray]:
        """Return the number of the next free buffer of the ring and its bytes."""
        if size > STAGE:
            raise DeviceError(f"two rows of a weight take {size} bytes, more than the {STAGE} of an upload")
        index, self._next = self._next, (self._next + 1) % STAGES
        if index == len(self._ring):
            usage = "MAP_WRITE | COPY_SRC"
            self._ring.append(self._gpu.create_buffer(size=STAGE, usage=usage, mapped_at_creation=True))
        else:
            self._wait(index)
        pointer = self._lib.wgpuBufferGetMappedRange(self._ring[index]._internal, 0, STAGE)
        return index, np.frombuffer(self._ffi.buffer(pointer, STAGE), np.uint8)

    def _wait(self, index: int) -> None:
        started = time.perf_counter()
        while index not in self._ready:
            self._lib.wgpuDevicePoll(self._gpu._internal, False, self._ffi.NULL)
            if time.perf_counter() - started > DEADLINE:
                raise DeviceError(f"the GPU has not taken a weight for {DEADLINE:.0f} s: it hangs or is overloaded")
            if index not in self._ready:
                time.sleep(0.00005)
        if self._failed:
            raise DeviceError("the GPU could not take a weight: the device may be lost")

    def _send(self, index: int, copies: list[tuple[Any, int, int, int]]) -> None:
        """Submit copies (target, offset here, offset there, bytes) from a filled buffer, and ask for it back."""
        stage = self._ring[index]
        self._ready.discard(index)
        self._lib.wgpuBufferUnmap(stage._internal)
        encoder = self._gpu.create_command_encoder()
        for target, here, there, size in copies:
            encoder.copy_buffer_to_buffer(stage, here, target, there, round_up(size, 4))
        self._gpu.queue.submit([encoder.finish()])
        info = self._ffi.new("WGPUBufferMapCallbackInfo *")
        info.mode = self._lib.WGPUCallbackMode_AllowProcessEvents
        info.callback = self._mapped
        info.userdata1 = self._ffi.cast("void *", index)
        self._lib.wgpuBufferMapAsync(stage._internal, self._lib.WGPUMapMode_Write, 0, STAGE, info[0])


def _write(values: Matrix, dtype: str, planes: Sequence[np.ndarray]) -> None:
    """Write the planes of rows into bytes."""
    if dtype == "q8_0":
        matrix = values if isinstance(values, Quantised) else Quantised(values.shape, [np.asarray(values, np.float32)])
        matrix.fill(planes[0].view(np.int8), planes[1].view(np.float16))
        return
    assert isinstance(values, np.ndarray)
    np.copyto(planes[0].view(HOST_TYPES[dtype]).reshape(values.shape), values, casting="unsafe")
