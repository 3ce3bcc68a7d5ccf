"""The CPU device: the NumPy bodies in float32, and C bodies (omni_rt/native) where they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np

from omni_rt import native
from omni_rt.devices.arena import Arena
from omni_rt.devices.device import Device, host_planes, host_values, natural_dtype
from omni_rt.devices.noise import Noise
from omni_rt.devices.recording import Recording, Step
from omni_rt.errors import DeviceError
from omni_rt.host_arrays import aligned, zeros
from omni_rt.native import NUMPY
from omni_rt.quant import Matrix
from omni_rt.tensor import HOST_TYPES, Tensor, plane_bytes

if TYPE_CHECKING:
    from omni_rt.ops.contract import Call, Native, Op

KEPT_PLANS = 10000


@dataclass(frozen=True, slots=True)
class Plan:
    """How calls of one kind are run: the C body (None: NumPy) with its uniforms, the outputs, the attributes."""

    body: Any
    uniforms: Any
    outputs: tuple[tuple[tuple[int, ...], np.dtype[Any], str], ...]
    attributes: Mapping[str, Any]


class RecordingThread(local):
    """The recording of a captured step that runs in this thread, or None."""

    current: Recording | None = None


class CpuDevice(Device):
    """The host's processor. Planes are NumPy arrays."""

    name = "cpu"
    kind = "cpu"

    def __init__(
        self,
        *,
        strict: bool = False,
        max_memory: int | None = None,
        threads: int | None = None,
        level: str = "",
        activations: str = "q8",
    ) -> None:
        """Open the device.

        `threads` defaults to the physical cores. `level` forces a dispatch level of the C bodies (see native.levels),
        or "numpy"; "" takes the best.
        """
        super().__init__(strict=strict, max_memory=max_memory, activations=activations)
        module = None if level == NUMPY else native.load()
        if module is None and level not in ("", NUMPY):
            raise DeviceError(
                f"the CPU level {level!r} needs the C kernels, which are not built: "
                f"python omni_rt/native/build.py, or take {NUMPY!r}"
            )
        self.pool = None if module is None else native.Pool(module, threads, level)
        self.level = NUMPY if self.pool is None else self.pool.level
        self.threads = 1 if self.pool is None else self.pool.threads
        self._plans: dict[Any, Plan] = {}
        self._recording = RecordingThread()
        self._arena = Arena()
        self._noise = Noise()

    def tensor(self, values: np.ndarray) -> Tensor:
        values = np.asarray(values)
        dtype = natural_dtype(values)
        return Tensor(values.shape, dtype, self, host_planes(values, dtype))

    def weight(self, values: Matrix, dtype: str) -> Tensor:
        planes = host_planes(values, dtype)
        self.ledger.take("weights", sum(plane.nbytes for plane in planes))
        return Tensor(values.shape, dtype, self, planes)

    def noise(self, shape: Sequence[int], dtype: str, *, deviation: float, seed: int) -> Tensor:
        sizes = plane_bytes(shape, dtype)
        self.ledger.take("weights", sum(sizes))
        planes = tuple(aligned((size,), np.uint8) for size in sizes)
        self._noise.fill(planes, dtype, deviation, seed)
        return Tensor(shape, dtype, self, planes)

    def zeros(self, shape: Sequence[int], dtype: str = "f32") -> Tensor:
        planes = (zeros(shape, HOST_TYPES[dtype]),)
        self.ledger.take("state", planes[0].nbytes)
        return Tensor(shape, dtype, self, planes)

    def read(self, tensor: Tensor) -> np.ndarray:
        if self._recording.current is not None:
            raise DeviceError("a captured step must not read values back: they would be those of its first run")
        values = host_values(tensor.planes, tensor.dtype, tensor.shape)
        return values.copy() if tensor.dtype in ("f32", "i32") else values

    def read_later(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        values = self.read(tensor)
        return lambda: values

    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        plane = tensor.planes[0].reshape(tensor.shape)
        plane[...] = values

    def slice_plane(self, plane: np.ndarray, start: int, size: int) -> np.ndarray:
        flat = plane.reshape(-1)
        return flat[start // plane.itemsize : (start + size) // plane.itemsize]

    def run(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Any:
        key = (op, tuple([(t.shape, t.dtype) for t in operands]), tuple(attributes.items()))
        plan = self._plans.get(key)
        if plan is None:
            plan = self.plan(op, operands, attributes)
            if len(self._plans) >= KEPT_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        tensors = self._run_planned(op, plan, operands)
        if (recording := self._recording.current) is not None:
            again = partial(self.run_reference, op, operands, plan.attributes)
            recording.steps.append(Step(plan.body, plan.uniforms, tuple(operands), tensors, again))
        return tensors[0] if len(tensors) == 1 else tensors or None

    def _run_planned(self, op: Op, plan: Plan, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run a call by its C body, or by NumPy where there is none or it gives the call back."""
        if plan.body is not None:
            results = [self._arena.empty(shape, kind) for shape, kind, _ in plan.outputs]
            if self.call(plan, operands, results):
                return tuple(
                    [
                        Tensor(shape, dtype, self, (plane,))
                        for (shape, _, dtype), plane in zip(plan.outputs, results, strict=True)
                    ]
                )
        return self.run_reference(op, operands, plan.attributes)

    def plan(
        self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any], chosen: Native | None = None
    ) -> Plan:
        """Check a call against the op and choose the C body for calls like it, if there is one (tests name theirs)."""
        call = op.bind([t.shape for t in operands], [t.dtype for t in operands], attributes)
        outputs = tuple((o.shape(call.dims), HOST_TYPES[o.dtype_class], o.dtype_class) for o in op.outputs)
        body, uniforms = None, None
        chosen = chosen or self.choose(op, call)
        if chosen is not None and self.pool is not None:
            body = self.pool.find(chosen.function)
            uniforms = self.pool.pack([call.dims[name] for name in chosen.uniforms])
        return Plan(body, uniforms, outputs, {name: call.dims[name] for name in op.attributes})

    def kernel(
        self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, int]]:
        chosen = self.choose(op, op.bind([t.shape for t in operands], [t.dtype for t in operands], attributes))
        return (NUMPY if chosen is None or self.pool is None else chosen.function), {}

    def choose(self, op: Op, call: Call) -> Native | None:
        """Return the first C body declared for the op that takes the call here."""
        for candidate in op.natives:
            if candidate.int8 and self.activations != "q8":
                continue
            if candidate.takes(op, call):
                return candidate
        return None

    def call(self, plan: Plan, operands: Sequence[Tensor], outputs: Sequence[np.ndarray]) -> bool:
        """Run a planned C body into given outputs; False says that it left the call to NumPy."""
        pool = self.pool
        assert pool is not None
        address = pool.address
        planes = [address(plane) for tensor in operands for plane in tensor.planes]
        return pool.run(pool.handle, plan.body, planes, [address(output) for output in outputs], plan.uniforms) == 0

    def run_reference(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Run the NumPy body in float32; mutated operands are handed over as they are stored."""
        arrays = [
            tensor.planes[0].reshape(tensor.shape)
            if operand.name in op.mutates
            else host_values(tensor.planes, tensor.dtype, tensor.shape)
            for operand, tensor in zip(op.operands, operands, strict=True)
        ]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            results = op.body(*arrays, **attributes)
        if not op.outputs:
            return ()
        if len(op.outputs) == 1:
            results = (results,)
        return tuple(
            Tensor(value.shape, output.dtype_class, self, host_planes(value, output.dtype_class))
            for value, output in zip(results, op.outputs, strict=True)
        )

    def capture(self, step: Callable[..., Any]) -> Callable[..., Any]:
        recordings: dict[tuple[Any, ...], Recording] = {}

        def run(*key: Any) -> Any:
            if key in recordings:
                return recordings[key].replay()
            if self._recording.current is not None:
                raise DeviceError("a capture cannot start inside another")
            self._recording.current = recording = Recording(self.pool)
            try:
                recording.result = step(*key)
            finally:
                self._recording.current = None
            recordings[key] = recording
            return recording.result

        return run

    def synchronize(self) -> None:
        return None

    def close(self) -> None:
        return None
