"""The stream of dispatches of a wgpu device: eager encoding in batches, recording, replay, timing, read-back.

Nothing here imports wgpu: the GPU device and the C library that wgpu-py loads (`ffi`, `lib`) are handed in. The hot
calls go straight to the C functions, because a Python wrapper per call would cost more than the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omni_rt import native
from omni_rt.devices.pace import MOST_DISPATCHES, Pace
from omni_rt.devices.readback import Readback
from omni_rt.errors import DeviceError


@dataclass(frozen=True)
class Dispatch:
    """One dispatch: what it computes (for the trace), and the pipeline, bind group, grid and bytes bound."""

    op: str
    kernel: str
    variant: Mapping[str, int]
    dims: Mapping[str, Any]
    pipeline: Any
    group: Any
    grid: tuple[int, int, int]
    nbytes: int


@dataclass(frozen=True)
class TraceLine:
    """One timed dispatch: op, kernel, variant, dims, GPU time in microseconds, bytes bound."""

    op: str
    kernel: str
    variant: Mapping[str, int]
    dims: Mapping[str, Any]
    microseconds: float
    nbytes: int


class Stream:
    """One ordered stream of dispatches on one GPU device."""

    def __init__(self, gpu: Any, ffi: Any, lib: Any) -> None:
        self._gpu = gpu
        self._ffi = ffi
        self._set_pipeline = lib.wgpuComputePassEncoderSetPipeline
        self._set_group = lib.wgpuComputePassEncoderSetBindGroup
        self._dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
        self._lib = lib
        module = native.load()
        functions = (self._set_pipeline, self._set_group, self._dispatch)
        self.replayer = None if module is None else native.Replayer(module, *map(self._address, functions))
        self._encoder: Any = None
        self._pass: Any = None
        self._pending = 0
        self._readback = Readback(gpu, ffi, lib)
        self.pace: Pace | None = None
        if "timestamp-query" in gpu.features:
            self._period = lib.wgpuQueueGetTimestampPeriod(gpu.queue._internal)
            self.pace = Pace(gpu, self._period, self._readback.begin)
        self._marker = gpu.create_buffer(size=16, usage="COPY_SRC | COPY_DST")
        self.issued = 0
        self.recorder: list[Dispatch] | None = None
        self.trace: list[TraceLine] | None = None

    def issue(self, dispatch: Dispatch) -> None:
        """Record the dispatch, or encode it for execution after all that were issued before."""
        if self.recorder is not None:
            self.recorder.append(dispatch)
            return
        self.issued += 1
        if self.trace is not None:
            self._timed(dispatch)
            return
        if self._pass is None:
            self._encoder = self._gpu.create_command_encoder()
            writes = None if self.pace is None else self.pace.writes()
            self._pass = self._encoder.begin_compute_pass(timestamp_writes=writes)
        inner = self._pass._internal
        self._set_pipeline(inner, dispatch.pipeline._internal)
        self._set_group(inner, 0, dispatch.group._internal, 0, self._ffi.NULL)
        self._dispatch(inner, *dispatch.grid)
        self._pending += 1
        if self._pending >= (MOST_DISPATCHES if self.pace is None else self.pace.limit):
            self.flush()

    def flush(self) -> None:
        """Submit what has been encoded."""
        if self._pass is None:
            return
        self._pass.end()
        if self.pace is not None:
            self.pace.resolve(self._encoder)
        self._gpu.queue.submit([self._encoder.finish()])
        dispatches, self._pending = self._pending, 0
        self._encoder = self._pass = None
        if self.pace is not None:
            self.pace.submitted(dispatches)

    def _address(self, pointer: Any) -> int:
        return int(self._ffi.cast("uintptr_t", pointer))

    def prepare(self, recording: Sequence[Dispatch]) -> Any:
        """Return a recording in the form that `replay` takes: the C handles of each dispatch, and its grid.

        It does not keep the recording alive.
        """
        handles = [(d.pipeline._internal, d.group._internal, *d.grid) for d in recording]
        if self.replayer is None:
            return handles
        return self.replayer.pack([(self._address(p), self._address(g), x, y, z) for p, g, x, y, z in handles])

    def replay(self, recording: Sequence[Dispatch], prepared: Any) -> None:
        """Submit a recording as one compute pass."""
        self.flush()
        self.issued += len(recording)
        if self.trace is not None:
            for dispatch in recording:
                self._timed(dispatch)
            return
        encoder = self._gpu.create_command_encoder()
        compute = encoder.begin_compute_pass()
        self._encode(compute, prepared)
        self._gpu.queue.submit([encoder.finish()])

    def _encode(self, compute: Any, prepared: Any) -> None:
        """Encode a prepared recording into a compute pass and end it: in C where that is built."""
        inner = compute._internal
        if self.replayer is not None:
            self.replayer.encode(self._address(inner), prepared)
            compute.end()
            return
        set_pipeline, set_group, dispatch_groups, null = (
            self._set_pipeline,
            self._set_group,
            self._dispatch,
            self._ffi.NULL,
        )
        last = None
        for pipeline, group, x, y, z in prepared:
            if pipeline is not last:
                set_pipeline(inner, pipeline)
                last = pipeline
            set_group(inner, 0, group, 0, null)
            dispatch_groups(inner, x, y, z)
        compute.end()

    def measure(self, recording: Sequence[Dispatch]) -> float:
        """Run a recording as one compute pass and return the seconds that the GPU spends in it.

        Raises DeviceError when the adapter has no timestamp queries.
        """
        self.flush()
        if "timestamp-query" not in self._gpu.features:
            raise DeviceError("this adapter has no timestamp queries, so its dispatches cannot be timed")
        queries = self._gpu.create_query_set(type="timestamp", count=2)
        resolved = self._gpu.create_buffer(size=256, usage="QUERY_RESOLVE | COPY_SRC")
        encoder = self._gpu.create_command_encoder()
        writes = {"query_set": queries, "beginning_of_pass_write_index": 0, "end_of_pass_write_index": 1}
        self._encode(encoder.begin_compute_pass(timestamp_writes=writes), self.prepare(recording))
        encoder.resolve_query_set(queries, 0, 2, resolved, 0)
        self._gpu.queue.submit([encoder.finish()])
        start, stop = self.read(resolved, 0, 16).view(np.uint64)
        return (int(stop) - int(start)) * self._period / 1e9

    def _timed(self, dispatch: Dispatch) -> None:
        """Run one dispatch in a pass of its own between two timestamps, and append it to the trace."""
        microseconds = self.measure([dispatch]) * 1e6
        assert self.trace is not None
        self.trace.append(
            TraceLine(dispatch.op, dispatch.kernel, dispatch.variant, dispatch.dims, microseconds, dispatch.nbytes)
        )

    def synchronize(self) -> None:
        """Wait until all issued work is done."""
        self.read(self._marker, 0, 4)

    def read(self, buffer: Any, offset: int, size: int) -> np.ndarray:
        """Return `size` bytes of a buffer, uint8, after all issued work. Raises DeviceError past the deadline."""
        return self.read_later(buffer, offset, size)()

    def read_later(self, buffer: Any, offset: int, size: int) -> Callable[[], np.ndarray]:
        """Begin to read `size` bytes as all work issued so far leaves them; the result waits for them."""
        self.flush()
        if size == 0:
            return lambda: np.zeros(0, np.uint8)
        return self._readback.begin(buffer, offset, size)
