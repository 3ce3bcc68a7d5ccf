"""The stream of dispatches of a wgpu device: eager submission in batches, recording, replay, timing, read-back.

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

FIRST_PIECE = 48
"""Dispatches of a replay's first submission when the GPU is idle: it begins while the rest is encoded. Each further
submission has twice as many, as encoding a dispatch takes less than half of the time that the GPU spends on it."""


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
        self.replayer = self._replayer(lib)
        self._pending: list[Dispatch] = []
        self._readback = Readback(gpu, ffi, lib)
        self.pace: Pace | None = None
        if "timestamp-query" in gpu.features:
            self._period = lib.wgpuQueueGetTimestampPeriod(gpu.queue._internal)
            self.pace = Pace(gpu, self._period, self._readback.begin)
        self._marker = gpu.create_buffer(size=16, usage="COPY_SRC | COPY_DST")
        self.issued = 0
        self.submissions = 0
        self._done = 0
        self.recorder: list[Dispatch] | None = None
        self.trace: list[TraceLine] | None = None

    def issue(self, dispatch: Dispatch) -> None:
        """Record the dispatch, or keep it for execution after all that were issued before."""
        if self.recorder is not None:
            self.recorder.append(dispatch)
            return
        self.issued += 1
        if self.trace is not None:
            self._timed(dispatch)
            return
        self._pending.append(dispatch)
        if len(self._pending) >= (MOST_DISPATCHES if self.pace is None else self.pace.limit):
            self.flush()

    def flush(self) -> None:
        """Submit what has been issued."""
        if not self._pending:
            return
        dispatches, self._pending = self._pending, []
        encoder = self._gpu.create_command_encoder()
        compute = encoder.begin_compute_pass(timestamp_writes=None if self.pace is None else self.pace.writes())
        self._encode(compute, dispatches)
        compute.end()
        if self.pace is not None:
            self.pace.resolve(encoder)
        self._submit(encoder)
        if self.pace is not None:
            self.pace.submitted(len(dispatches))

    def _submit(self, encoder: Any) -> None:
        self._gpu.queue.submit([encoder.finish()])
        self.submissions += 1

    @property
    def idle(self) -> bool:
        """Whether the GPU has nothing left to do, as far as results that were waited for tell."""
        return self._done == self.submissions

    def _address(self, pointer: Any) -> int:
        return int(self._ffi.cast("uintptr_t", pointer))

    def _replayer(self, lib: Any) -> native.Replayer | None:
        """Return the replay in C, or None where that is not built."""
        module = native.load()
        if module is None:
            return None
        functions = [self._address(getattr(lib, name)) for name in native.REPLAY_FUNCTIONS]
        return native.Replayer(
            module, functions, self._address(self._gpu._internal), self._address(self._gpu.queue._internal)
        )

    def prepare(self, recording: Sequence[Dispatch]) -> Any:
        """Return the handles and grids of a recording as C takes them, or None where C is not built.

        They do not keep the recording alive.
        """
        if self.replayer is None:
            return None
        handles = [(d.pipeline._internal, d.group._internal, *d.grid) for d in recording]
        return self.replayer.pack([(self._address(p), self._address(g), x, y, z) for p, g, x, y, z in handles])

    def replay(self, recording: Sequence[Dispatch], prepared: Any) -> None:
        """Submit a recording, one compute pass per submission: in pieces when the GPU waits for them, else as one.

        C submits what is prepared, and an invalid dispatch or a lost device then ends the process. Without (None) both
        are errors.
        """
        self.flush()
        self.issued += len(recording)
        if self.trace is not None:
            for dispatch in recording:
                self._timed(dispatch)
            return
        piece = FIRST_PIECE if self.idle else max(len(recording), 1)
        if self.replayer is not None and prepared is not None:
            self.submissions += self.replayer.submit(prepared, piece)
            return
        at = 0
        while at < len(recording):
            encoder = self._gpu.create_command_encoder()
            compute = encoder.begin_compute_pass()
            self._encode(compute, recording[at : at + piece])
            compute.end()
            self._submit(encoder)
            at, piece = at + piece, 2 * piece

    def _encode(self, compute: Any, dispatches: Sequence[Dispatch]) -> None:
        """Encode dispatches into a compute pass."""
        inner, null, last = compute._internal, self._ffi.NULL, None
        for dispatch in dispatches:
            if dispatch.pipeline is not last:
                last = dispatch.pipeline
                self._set_pipeline(inner, last._internal)
            self._set_group(inner, 0, dispatch.group._internal, 0, null)
            self._dispatch(inner, *dispatch.grid)

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
        compute = encoder.begin_compute_pass(timestamp_writes=writes)
        self._encode(compute, recording)
        compute.end()
        encoder.resolve_query_set(queries, 0, 2, resolved, 0)
        self._submit(encoder)
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
        pending, submissions = self._readback.begin(buffer, offset, size), self.submissions

        def take() -> np.ndarray:
            values = pending()
            self._done = max(self._done, submissions)
            return values

        return take
