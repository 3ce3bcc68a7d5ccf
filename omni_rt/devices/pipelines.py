"""Pipelines, parameters and bind groups of a wgpu device, each made once and kept.

Pipelines are compiled by threads, several at once, while Python goes on to the ops behind them: a driver takes tens of
milliseconds for each, and a model's first step needs dozens.

Nothing here imports wgpu: the GPU device object, the maker of shader modules and the C library that wgpu-py loads
(`ffi`, `lib`) are handed in. The C function itself makes the bind groups: a prompt of a new length needs hundreds.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omni_rt.devices import shader
from omni_rt.devices.memory import ALIGNMENT, Span, round_up
from omni_rt.devices.readback import DEADLINE
from omni_rt.errors import DeviceError
from omni_rt.tensor import plane_bytes

if TYPE_CHECKING:
    from omni_rt.ops.contract import Kernel, Op

PARAMS_BYTES = 256
PARAMS_SLOTS = 256
KEPT_GROUPS = 20000
MOST_COMPILERS = 8
"""Threads that compile at most; drivers gain little from more."""

OWN_KERNELS = {
    "copy_words": ("read-only-storage", "storage", "uniform"),
    "round_rows_q8": ("read-only-storage", "storage", "storage", "uniform"),
    "round_rows_q16": ("read-only-storage", "storage", "storage", "uniform"),
}
"""The device's own kernels, of no op, and the kinds of their bindings: `copy_words` makes a view bindable, the others
round rows of activations to int8, one a value or two."""

Params = tuple[Any, int]
"""A uniform buffer and the byte offset of one set of parameters in it."""


def binding_kinds(op: Op, kernel: Kernel) -> list[str]:
    """Return the kind of each binding of a kernel: its planes in order, then the parameters."""
    kinds = []
    for operand in op.operands:
        kind = "storage" if operand.name in op.mutates else "read-only-storage"
        dtype = kernel.rounded.get(operand.name, kernel.dtypes[operand.name])
        kinds += [kind] * len(plane_bytes((), dtype))
    return kinds + ["storage"] * len(op.outputs) + ["uniform"] * bool(kernel.uniforms)


class Pipeline:
    """A pipeline that is being compiled, or is."""

    def __init__(self, name: str, compiled: Future[Any]) -> None:
        self._name = name
        self._compiled = compiled

    @cached_property
    def _internal(self) -> Any:
        """The C library's handle, waited for."""
        return self.wait()._internal

    def wait(self) -> Any:
        """Return what was compiled. Raises DeviceError when the shader does not compile, or not within the deadline."""
        try:
            return self._compiled.result(DEADLINE)
        except TimeoutError as error:
            waited = f"the driver has not compiled the shader {self._name} for {DEADLINE:.0f} s"
            raise DeviceError(f"{waited}: it hangs or is overloaded") from error


class Pipelines:
    """Caches over one GPU device: pipelines by shader and variant, parameters by content, bind groups by spans."""

    def __init__(
        self, gpu: Any, name: str, linked: int, create_module: Callable[[str, str], Any], ffi: Any, lib: Any
    ) -> None:
        self._gpu = gpu
        self._linked = linked
        self._ffi = ffi
        self._lib = lib
        self._name = name
        self._create_module = create_module
        self._storage = gpu.limits["max-compute-workgroup-storage-size"]
        self._invocations = gpu.limits["max-compute-invocations-per-workgroup"]
        self._binding = gpu.limits["max-storage-buffer-binding-size"]
        self._compilers = ThreadPoolExecutor(min(MOST_COMPILERS, os.cpu_count() or 1), "omni-rt pipelines")
        self._pipelines: dict[Any, tuple[Pipeline, Any]] = {}
        self._asked: dict[Any, tuple[int, int]] = {}
        self._params: dict[bytes, Params] = {}
        self._params_buffer: Any = None
        self._groups: dict[Any, Any] = {}

    def pipeline(self, name: str, variant: Mapping[str, int], access: Sequence[str]) -> tuple[Pipeline, Any]:
        """Return (pipeline, bind group layout) of a shader; `access` is the kind of each binding.

        Raises DeviceError when the shader asks for more workgroup storage than the device has; whoever uses a pipeline
        that does not compile hears of it.
        """
        key = (name, tuple(sorted(variant.items())))
        if key not in self._pipelines:
            source, overrides = shader.specialise(shader.load_source(name), variant, self._linked)
            used = shader.workgroup_storage(source, variant)
            if used > self._storage:
                raise DeviceError(
                    f"the shader {name} {dict(variant)} needs {used} bytes of workgroup storage, "
                    f"{self._name} has {self._storage}"
                )
            layout = self._gpu.create_bind_group_layout(
                entries=[
                    {"binding": i, "visibility": "COMPUTE", "buffer": {"type": kind}} for i, kind in enumerate(access)
                ]
            )
            compiled = self._compilers.submit(self._compile, name, variant, source, overrides, layout)
            self._pipelines[key] = (Pipeline(name, compiled), layout)
        return self._pipelines[key]

    def _compile(
        self, name: str, variant: Mapping[str, int], source: str, overrides: Mapping[str, float], layout: Any
    ) -> Any:
        try:
            return self._gpu.create_compute_pipeline(
                label=name,
                layout=self._gpu.create_pipeline_layout(bind_group_layouts=[layout]),
                compute={"module": self._create_module(name, source), "entry_point": "main", "constants": overrides},
            )
        except Exception as error:
            reason = f"the shader {name} {dict(variant)} does not compile on {self._name}: {error}"
            raise DeviceError(reason) from error

    def close(self) -> None:
        """End the threads."""
        self._compilers.shutdown(cancel_futures=True)

    def fits(self, name: str, variant: Mapping[str, int]) -> bool:
        """Say whether a shader's variant keeps within the adapter's workgroup storage and invocations."""
        key = (name, tuple(sorted(variant.items())))
        if key not in self._asked:
            source, _ = shader.specialise(shader.load_source(name), variant, self._linked)
            self._asked[key] = (shader.workgroup_storage(source, variant), shader.invocations(source, variant))
        storage, invocations = self._asked[key]
        return storage <= self._storage and invocations <= self._invocations

    def own(self, name: str) -> tuple[Pipeline, Any]:
        """Return (pipeline, bind group layout) of one of OWN_KERNELS."""
        return self.pipeline(name, {}, OWN_KERNELS[name])

    def params(self, values: Sequence[Any]) -> Params:
        """Return the uniform slot that holds `values` (floats as f32, the rest as u32)."""
        packed = b"".join(
            struct.pack("<f", value) if isinstance(value, float) else struct.pack("<I", int(value) & 0xFFFFFFFF)
            for value in values
        )
        slot = self._params.get(packed)
        if slot is None:
            index = len(self._params) % PARAMS_SLOTS
            if index == 0:
                self._params_buffer = self._gpu.create_buffer(
                    size=PARAMS_SLOTS * PARAMS_BYTES, usage="UNIFORM | COPY_DST"
                )
            slot = (self._params_buffer, index * PARAMS_BYTES)
            if packed:
                self._gpu.queue.write_buffer(slot[0], slot[1], packed)
            self._params[packed] = slot
        return slot

    def group(self, layout: Any, spans: Sequence[Span], params: Params | None) -> Any:
        """Return the bind group over `spans` in order, then the parameters."""
        places = tuple([(span.block.serial, span.offset, span.size) for span in spans])
        key = (id(layout), places, params and (id(params[0]), params[1]))
        group = self._groups.get(key)
        if group is None:
            bound: list[tuple[Any, int, int]] = []
            for span in spans:
                size = min(round_up(max(span.size, 1), ALIGNMENT), span.block.size - span.offset)
                if size > self._binding:
                    raise DeviceError(
                        f"{self._name} binds at most {self._binding} bytes, a tensor has {size}: use smaller chunks"
                    )
                bound.append((span.block.buffer, span.offset, size))
            if params is not None:
                bound.append((*params, PARAMS_BYTES))
            group = self._create_group(layout, bound)
            if len(self._groups) >= KEPT_GROUPS:
                self._groups.clear()
            self._groups[key] = group
        return group

    def _create_group(self, layout: Any, bound: Sequence[tuple[Any, int, int]]) -> Group:
        """Make a bind group over (buffer, offset, bytes)."""
        entries = self._ffi.new("WGPUBindGroupEntry[]", len(bound))
        for i, (buffer, offset, size) in enumerate(bound):
            entry = entries[i]
            entry.binding, entry.buffer, entry.offset, entry.size = i, buffer._internal, offset, size
        descriptor = self._ffi.new("WGPUBindGroupDescriptor *")
        descriptor.layout, descriptor.entryCount, descriptor.entries = layout._internal, len(bound), entries
        return Group(self._lib, self._lib.wgpuDeviceCreateBindGroup(self._gpu._internal, descriptor))


class Group:
    """A bind group of the C library, released when it is dropped."""

    __slots__ = ("_internal", "_lib")

    def __init__(self, lib: Any, handle: Any) -> None:
        self._lib = lib
        self._internal = handle

    def __del__(self) -> None:
        self._lib.wgpuBindGroupRelease(self._internal)


def trusted_module(gpu: Any, name: str, source: str, ffi: Any, lib: Any) -> Any:
    """Return the C library's handle of a shader module compiled without bounds checks and loop limits."""
    code, label = source.encode(), name.encode()
    text, label_text = ffi.new("char[]", code), ffi.new("char[]", label)
    chained = ffi.new("WGPUShaderSourceWGSL *")
    chained.chain.sType = lib.WGPUSType_ShaderSourceWGSL
    chained.code.data, chained.code.length = text, len(code)
    descriptor = ffi.new("WGPUShaderModuleDescriptor *")
    descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", chained)
    descriptor.label.data, descriptor.label.length = label_text, len(label)
    return lib.wgpuDeviceCreateShaderModuleTrusted(gpu._internal, descriptor, 0)
