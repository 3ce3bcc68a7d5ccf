"""The CPU device: the NumPy bodies in float32, and C bodies (omni_rt/native) where they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omni_rt.devices.device import Device, host_planes, host_values, natural_dtype
from omni_rt.tensor import Tensor

if TYPE_CHECKING:
    from omni_rt.ops.contract import Op


class CpuDevice(Device):
    """The host's processor. Planes are NumPy arrays."""

    name = "cpu"
    kind = "cpu"

    def __init__(self, *, strict: bool = False, max_memory: int | None = None) -> None:
        super().__init__(strict=strict, max_memory=max_memory)

    def tensor(self, values: np.ndarray) -> Tensor:
        values = np.asarray(values)
        dtype = natural_dtype(values)
        return Tensor(values.shape, dtype, self, host_planes(values, dtype))

    def weight(self, values: np.ndarray, dtype: str) -> Tensor:
        planes = host_planes(values, dtype)
        self.ledger.take("weights", sum(plane.nbytes for plane in planes))
        return Tensor(values.shape, dtype, self, planes)

    def zeros(self, shape: Sequence[int], dtype: str = "f32") -> Tensor:
        planes = host_planes(np.zeros(shape), dtype)
        self.ledger.take("state", planes[0].nbytes)
        return Tensor(shape, dtype, self, planes)

    def read(self, tensor: Tensor) -> np.ndarray:
        return host_values(tensor.planes, tensor.dtype, tensor.shape)

    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        plane = tensor.planes[0].reshape(tensor.shape)
        plane[...] = values

    def slice_plane(self, plane: np.ndarray, start: int, size: int) -> np.ndarray:
        flat = plane.reshape(-1)
        return flat[start // plane.itemsize : (start + size) // plane.itemsize]

    def run(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Any:
        call = op.bind([t.shape for t in operands], [t.dtype for t in operands], attributes)
        return self.run_reference(op, operands, {name: call.dims[name] for name in op.attributes})

    def run_reference(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Any:
        """Run the NumPy body in float32; mutated operands are handed over as they are stored."""
        arrays = [
            tensor.planes[0].reshape(tensor.shape) if operand.name in op.mutates else self.read(tensor)
            for operand, tensor in zip(op.operands, operands, strict=True)
        ]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            results = op.body(*arrays, **attributes)
        if not op.outputs:
            return None
        if len(op.outputs) == 1:
            results = (results,)
        tensors = tuple(
            Tensor(value.shape, output.dtype_class, self, host_planes(value, output.dtype_class))
            for value, output in zip(results, op.outputs, strict=True)
        )
        return tensors[0] if len(tensors) == 1 else tensors

    def capture(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return step

    def synchronize(self) -> None:
        return None

    def close(self) -> None:
        return None
