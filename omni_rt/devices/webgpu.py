"""The wgpu device: runs ops as compute dispatches, captures steps and replays them.

All work is one stream. Ops are submitted in batches, when a result is read, or when the host writes. Under `capture`
the dispatches are kept instead and replayed as one submission, or as a few when the GPU has nothing else to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import wgpu
from wgpu.backends.wgpu_native import ffi, lib

from omni_rt.devices import tuning
from omni_rt.devices.cpu import CpuDevice
from omni_rt.devices.device import Device, host_planes, host_values, natural_dtype
from omni_rt.devices.memory import ALIGNMENT, Pool, Span, round_up, words
from omni_rt.devices.noise import GpuNoise
from omni_rt.devices.pipelines import Pipelines, binding_kinds, trusted_module
from omni_rt.devices.plan import Plan, in_parts, row_ranges
from omni_rt.devices.shader import linked_lanes
from omni_rt.devices.stream import Dispatch, Stream, TraceLine
from omni_rt.devices.upload import Uploads
from omni_rt.errors import DeviceError
from omni_rt.quant import Matrix, cut_rows
from omni_rt.tensor import SCALED_TOGETHER, Tensor, plane_bytes

if TYPE_CHECKING:
    from omni_rt.ops.contract import Call, Kernel, Op

STORAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
WANTED_FEATURES = ("timestamp-query", "subgroup", "shader-f16")


@dataclass(frozen=True)
class Adapter:
    """A Vulkan, Metal or D3D12 adapter: its name, backend, and whether it computes in software."""

    name: str
    backend: str
    software: bool
    handle: Any


def adapters() -> list[Adapter]:
    """List the adapters that can run compute shaders, real GPUs first."""
    found = []
    for handle in wgpu.gpu.enumerate_adapters_sync():
        info = handle.info
        if info["backend_type"] in ("Vulkan", "Metal", "D3D12"):
            found.append(Adapter(info["device"], info["backend_type"], info["adapter_type"] == "CPU", handle))
    return sorted(found, key=lambda adapter: adapter.software)


class WebGpuDevice(Device):
    """A GPU (or a software adapter) behind WebGPU.

    `release` leaves out the bounds checks and loop limits that the driver would add to shaders. `trace`, when set to a
    list, collects one TraceLine per dispatch and times each by itself.
    """

    kind = "wgpu"
    steps_ahead = 2
    records_pieces = True

    def __init__(
        self,
        adapter: Adapter,
        *,
        strict: bool = False,
        max_memory: int | None = None,
        activations: str = "q8",
        release: bool = True,
    ) -> None:
        super().__init__(strict=strict, max_memory=max_memory, activations=activations)
        self.name = f"wgpu ({adapter.name})"
        self.adapter = adapter
        self.own_memory = adapter.handle.info if adapter.handle.info["adapter_type"] == "DiscreteGPU" else None
        self.release = release
        self.features = frozenset(WANTED_FEATURES) & adapter.handle.features
        limits = {
            name: value for name, value in adapter.handle.limits.items() if name.startswith("max-") and value < 1 << 53
        }
        wanted = ("compute", "storage", "uniform", "buffer", "bind")
        self._gpu = adapter.handle.request_device_sync(
            required_features=sorted(self.features),
            required_limits={name: value for name, value in limits.items() if any(word in name for word in wanted)},
        )
        self.limits = dict(self._gpu.limits)
        self.max_binding = min(self.limits["max-storage-buffer-binding-size"], self.limits["max-buffer-size"])
        self._align = max(self.limits["min-storage-buffer-offset-alignment"], ALIGNMENT)
        self._pool = Pool(self._create_buffer, self.ledger)
        linked = linked_lanes(adapter.handle.info)
        self.pipelines = Pipelines(self._gpu, self.name, linked, self._create_module, ffi, lib)
        self._noise = GpuNoise(self._gpu)
        self._uploads = Uploads(self._gpu, ffi, lib)
        self.stream = Stream(self._gpu, ffi, lib)
        self._tuned = tuning.load(adapter.name)
        self._plans: dict[Any, Plan | None] = {}
        self._reference = CpuDevice()

    # Memory -----------------------------------------------------------------------------------------------------

    def _create_buffer(self, size: int) -> Any:
        if size > self.limits["max-buffer-size"]:
            raise DeviceError(
                f"{self.name} allows buffers of {self.limits['max-buffer-size']} bytes, an activation needs {size}: "
                "use shorter input or smaller chunks"
            )
        try:
            return self._gpu.create_buffer(size=size, usage=STORAGE)
        except wgpu.GPUError as error:
            if "memory" not in str(error).lower():
                raise
            raise self.ledger.exhausted(size, self.name) from error

    def tensor(self, values: np.ndarray) -> Tensor:
        values = np.asarray(values)
        dtype = natural_dtype(values)
        (plane,) = host_planes(values, dtype)
        result = self._empty(values.shape, dtype)
        self._upload(result.planes[0], plane)
        return result

    def weight(self, values: Matrix, dtype: str) -> Tensor:
        def place(start: int, shape: tuple[int, ...]) -> Tensor:
            tensor, buffers = self._fresh(shape, dtype, "weights")
            self._uploads.fill(buffers, values if len(shape) == 1 else cut_rows(values, start, start + shape[0]), dtype)
            return tensor

        return in_parts(self, values.shape, dtype, place)

    def noise(self, shape: Sequence[int], dtype: str, *, deviation: float, seed: int) -> Tensor:
        def place(start: int, shape: tuple[int, ...]) -> Tensor:
            tensor, buffers = self._fresh(shape, dtype, "weights")
            self._noise.fill(buffers, dtype, deviation, seed + start)
            return tensor

        return in_parts(self, shape, dtype, place)

    def zeros(self, shape: Sequence[int], dtype: str = "f32") -> Tensor:
        return self._fresh(shape, dtype, "state")[0]

    def _fresh(self, shape: Sequence[int], dtype: str, purpose: str) -> tuple[Tensor, list[Any]]:
        """Return a tensor that stays for long, zeros as every new buffer is, and the buffers of its planes."""
        sizes = plane_bytes(shape, dtype)
        whole = [round_up(max(size, 1), ALIGNMENT) for size in sizes]
        self.ledger.take(purpose, sum(whole))
        buffers = [self._create_buffer(size) for size in whole]
        blocks = [self._pool.adopt(buffer, buffer.size, purpose) for buffer in buffers]
        spans = tuple(Span(block, 0, size) for block, size in zip(blocks, sizes, strict=True))
        return Tensor(shape, dtype, self, spans), buffers

    def _empty(self, shape: Sequence[int], dtype: str) -> Tensor:
        sizes = plane_bytes(shape, dtype)
        return Tensor(shape, dtype, self, tuple(Span(self._pool.acquire(size), 0, size) for size in sizes))

    def _upload(self, span: Span, plane: np.ndarray) -> None:
        if self.stream.recorder is not None:
            raise DeviceError("a captured step must not upload values: make its constants before the capture")
        self.stream.flush()
        if plane.nbytes:
            self._gpu.queue.write_buffer(span.block.buffer, span.offset, words(plane))

    def read(self, tensor: Tensor) -> np.ndarray:
        if tensor.parts:
            return np.concatenate([self.read(part) for part in tensor.parts]).reshape(tensor.shape)
        return self.read_later(tensor)()

    def read_later(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        if self.stream.recorder is not None:
            raise DeviceError("a captured step must not read values back")
        pending = [self.stream.read_later(span.block.buffer, span.offset, span.size) for span in tensor.planes]
        return lambda: host_values([take() for take in pending], tensor.dtype, tensor.shape)

    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        (plane,) = host_planes(np.broadcast_to(values, tensor.shape), tensor.dtype)
        self._upload(tensor.planes[0], plane)

    def slice_plane(self, plane: Span, start: int, size: int) -> Span:
        return Span(plane.block, plane.offset + start, size)

    # Running ops ------------------------------------------------------------------------------------------------

    def run(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Any:
        plan = self._planned(op, operands, attributes)
        if plan is None:
            return self._fall_back(op, operands, attributes)
        return self.launch(op, plan, operands)

    def launch(self, op: Op, plan: Plan, operands: Sequence[Tensor]) -> Any:
        """Run a planned call and return its outputs."""
        outputs = tuple(self._empty(shape, dtype) for shape, dtype in plan.outputs)
        self.dispatch(op, plan, operands, outputs)
        return None if not outputs else outputs[0] if len(outputs) == 1 else outputs

    def kernel(
        self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, int]]:
        plan = self._planned(op, operands, attributes)
        return (plan.kernel.shader, plan.variant) if plan else super().kernel(op, operands, attributes)

    def _planned(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Plan | None:
        key = (op.name, tuple([(t.shape, t.dtype, len(t.parts)) for t in operands]), tuple(attributes.items()))
        if key not in self._plans:
            self._plans[key] = self._plan(op, operands, attributes)
        return self._plans[key]

    def _plan(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Plan | None:
        call = op.bind([t.shape for t in operands], [t.dtype for t in operands], attributes)
        split = {o.name for o, t in zip(op.operands, operands, strict=True) if t.parts}
        for kernel in op.kernels:
            if self.accepts(kernel, call) and split <= {kernel.splits}:
                return self.plan(op, kernel, self._tuned.variant(kernel, call, self.pipelines.fits), call, operands)
        return None

    def accepts(self, kernel: Kernel, call: Call) -> bool:
        """Say whether a kernel takes a call on this device."""
        if kernel.int8 and self.activations != "q8":
            return False
        matches = all(call.dtypes[name] == dtype for name, dtype in kernel.dtypes.items())
        return matches and set(kernel.needs) <= self.features and kernel.when(call)

    def plan(self, op: Op, kernel: Kernel, variant: Mapping[str, int], call: Call, operands: Sequence[Tensor]) -> Plan:
        """Prepare a call for one kernel and variant."""
        pipeline, layout = self.pipelines.pipeline(kernel.shader, variant, binding_kinds(op, kernel))
        ranges = []
        for start, count in row_ranges(op, kernel, operands):
            call.dims.update(row_start=start, row_count=count)
            grid = kernel.grid(call, variant)
            limit = self.limits["max-compute-workgroups-per-dimension"]
            if max(grid) > limit:
                raise DeviceError(
                    f"{kernel.shader}: grid {grid} exceeds the {limit} workgroups that {self.name} allows"
                )
            ranges.append((self.pipelines.params([call.dims[name] for name in kernel.uniforms]), grid))
        outputs = tuple((output.shape(call.dims), output.dtype_class) for output in op.outputs)
        return Plan(kernel, variant, pipeline, layout, tuple(ranges), outputs, call)

    def dispatch(self, op: Op, plan: Plan, operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Issue the dispatches of a planned call into given outputs."""
        names = [operand.name for operand in op.operands]
        if rounded := plan.kernel.rounded:
            operands = [
                self._rounded(tensor, rounded[name]) if name in rounded else tensor
                for name, tensor in zip(names, operands, strict=True)
            ]
        for index, (params, grid) in enumerate(plan.ranges):
            spans: list[Span] = []
            for name, tensor in zip(names, operands, strict=True):
                part = tensor.parts[index] if tensor.parts and name == plan.kernel.splits else tensor
                spans += [self._aligned(span, name in op.mutates) for span in part.planes]
            for tensor in outputs:
                spans += tensor.planes
            if 0 in grid:
                continue
            group = self.pipelines.group(plan.layout, spans, params if plan.kernel.uniforms else None)
            size, dims = sum(span.size for span in spans), plan.call.dims
            self.stream.issue(
                Dispatch(op.name, plan.kernel.shader, plan.variant, dims, plan.pipeline, group, grid, size)
            )

    def _rounded(self, tensor: Tensor, dtype: str) -> Tensor:
        """Return f32 rows as q8 or q16, int8 quants and f32 scales, made by a dispatch of its own."""
        rounded = self._empty(tensor.shape, dtype)
        source, chunks = self._aligned(tensor.planes[0], False), tensor.size // SCALED_TOGETHER[dtype]
        self._issue_own(f"round_rows_{dtype}", [source, *rounded.planes], {"C": chunks}, min(-(-chunks // 64), 65535))
        return rounded

    def _issue_own(self, name: str, spans: list[Span], params: dict[str, int], groups: int) -> None:
        """Issue one of the device's own kernels over spans in the order of its bindings, in `groups` workgroups."""
        pipeline, layout = self.pipelines.own(name)
        group = self.pipelines.group(layout, spans, self.pipelines.params(list(params.values())))
        size = sum(span.size for span in spans)
        self.stream.issue(Dispatch(name, name, {}, params, pipeline, group, (groups, 1, 1), size))

    def _aligned(self, span: Span, writable: bool) -> Span:
        """Return the span, or a copy of it where its offset cannot be bound."""
        if span.offset % self._align == 0:
            return span
        if span.offset % 4:
            raise DeviceError(
                f"a view starts at byte {span.offset}, which is not a multiple of 4: slice f16 rows in pairs"
            )
        if writable:
            raise DeviceError(
                f"an op would change a view that starts at byte {span.offset}, but {self.name} binds multiples of "
                f"{self._align}: change the whole tensor, or rows that start there"
            )
        copy = Span(self._pool.acquire(span.size), 0, span.size)
        start = span.offset // self._align * self._align
        whole = Span(span.block, start, span.offset - start + span.size)
        params = {"start": (span.offset - start) // 4, "words": -(-span.size // 4)}
        self._issue_own("copy_words", [whole, copy], params, min(-(-params["words"] // 256), 4096))
        return copy

    def _fall_back(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Any:
        """Run the NumPy body on values read back, and upload what it returns."""
        shapes = ", ".join(f"{o.name}{list(t.shape)} {t.dtype}" for o, t in zip(op.operands, operands, strict=True))
        if self.strict or self.stream.recorder is not None:
            rule = "strict mode allows no fallback" if self.strict else "a captured step cannot fall back"
            raise DeviceError(
                f"no kernel of {self.name} takes {op.name}({shapes}, {dict(attributes)}): {rule} to the CPU"
            )
        self.fallbacks[op.name] += 1
        hosted = [
            Tensor(t.shape, "f32" if t.dtype in ("f16", "q8_0") else t.dtype, self._reference, (self.read(t),))
            for t in operands
        ]
        results = self._reference.run(op, hosted, attributes)
        for operand, tensor, host in zip(op.operands, operands, hosted, strict=True):
            if operand.name in op.mutates:
                self.write(tensor, host.planes[0])
        if results is None:
            return None
        if isinstance(results, tuple):
            return tuple(self.tensor(result.numpy()) for result in results)
        return self.tensor(results.numpy())

    # Capture and replay -----------------------------------------------------------------------------------------

    def capture(self, step: Callable[..., Any]) -> Callable[..., Any]:
        recordings: dict[tuple[Any, ...], tuple[list[Dispatch], Any, Any]] = {}
        pool = Pool(self._create_buffer, self.ledger)  # of all recordings: what is alike in them shares its bind groups

        def run(*key: Any) -> Any:
            if key not in recordings:
                with self._recording(pool) as dispatches:
                    result = step(*key)
                self.stream.replay(dispatches, None)  # once so that what is wrong with it is an error
                recordings[key] = (dispatches, self.stream.prepare(dispatches), result)
            else:
                self.stream.replay(*recordings[key][:2])
            return recordings[key][2]

        return run

    @contextmanager
    def _recording(self, pool: Pool) -> Iterator[list[Dispatch]]:
        """Keep the dispatches issued inside, with activations from a pool that nothing else uses."""
        if self.stream.recorder is not None:
            raise DeviceError("a capture cannot start inside another")
        self.stream.flush()
        outer, self._pool = self._pool, pool
        recorded: list[Dispatch] = []
        self.stream.recorder = recorded
        try:
            yield recorded
        finally:
            self.stream.recorder = None
            self._pool = outer

    def stopwatch(self, step: Callable[[], Any]) -> Callable[[], float]:
        if "timestamp-query" not in self.features:
            return super().stopwatch(self.capture(step))
        pool = Pool(self._create_buffer, self.ledger)
        with self._recording(pool) as dispatches:
            step()
        return lambda: self.stream.measure(dispatches)

    def dispatches_in_time(self) -> int | None:
        return None if self.stream.pace is None else self.stream.pace.limit

    def settle(self) -> None:
        self._uploads.close()

    def synchronize(self) -> None:
        self.stream.synchronize()

    @property
    def trace(self) -> list[TraceLine] | None:
        """The trace that is being collected, or None."""
        return self.stream.trace

    @trace.setter
    def trace(self, lines: list[TraceLine] | None) -> None:
        self.stream.flush()
        self.stream.trace = lines

    def close(self) -> None:
        self.settle()
        self.stream.flush()
        self.pipelines.close()
        self._pool.close()
        self._plans.clear()
        self.stream.replayer = None  # C would end the process at a replay on a device that is gone
        self._gpu.destroy()

    def _create_module(self, name: str, source: str) -> Any:
        """Compile WGSL; in release mode without the checks that guard against shaders of strangers."""
        if not self.release:
            return self._gpu.create_shader_module(label=name, code=source)
        module = trusted_module(self._gpu, name, source, ffi, lib)
        return wgpu.backends.wgpu_native.GPUShaderModule(name, module, self._gpu)
