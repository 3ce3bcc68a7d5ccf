"""What every device offers: memory for tensors, one way to run an op, capture and replay, and its accounts."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from omni_rt import quant
from omni_rt.devices.gpu_memory import left_on
from omni_rt.devices.host_memory import available_bytes
from omni_rt.devices.ledger import Ledger
from omni_rt.tensor import BLOCK, HOST_TYPES, Tensor

if TYPE_CHECKING:
    from omni_rt.ops.contract import Op


class Device(ABC):
    """A place where tensors live and ops run.

    `name` says which, `kind` is "cpu" or "wgpu". `fallbacks` counts calls that no kernel of this device took, by op;
    under `strict` such a call raises DeviceError instead. `ledger` accounts for memory. `steps_ahead` is how many
    decode steps are best issued before the result of the first is read. `records_pieces` says that it pays to capture
    steps of milliseconds too, although a recording keeps its activations. `own_memory` identifies a GPU with its own
    memory, None where tensors take from the machine's. `features` are what kernels may need. `activations` "q8" lets
    kernels round rows of activations to int8 before they meet q8_0 weights, and caches beside such weights hold f16,
    which costs somewhat less accuracy than the weights' own rounding did; "f32" forbids both.
    """

    name: str
    kind: str
    steps_ahead: int = 0
    records_pieces: bool = False
    own_memory: Mapping[str, Any] | None = None
    features: frozenset[str] = frozenset()

    def __init__(self, *, strict: bool, max_memory: int | None, activations: str) -> None:
        if activations not in ("q8", "f32"):
            raise ValueError(f"activations are computed in 'q8' or 'f32', not {activations!r}")
        self.strict = strict
        self.activations = activations
        self.fallbacks: Counter[str] = Counter()
        self.ledger = Ledger(max_memory)

    @abstractmethod
    def tensor(self, values: np.ndarray) -> Tensor:
        """Upload `values` (floats become f32, float16 stays f16, integers become i32) for use by the next ops."""

    @abstractmethod
    def weight(self, values: quant.Matrix, dtype: str) -> Tensor:
        """Upload a weight that stays for long as `dtype` (f32, f16, q8_0); rows are split where binding limits ask."""

    @abstractmethod
    def noise(self, shape: Sequence[int], dtype: str, *, deviation: float, seed: int) -> Tensor:
        """Return a weight of random values around 0, for benchmarks; equal seeds give equal values."""

    @abstractmethod
    def zeros(self, shape: Sequence[int], dtype: str = "f32") -> Tensor:
        """Return a tensor of zeros that holds state (caches, positions)."""

    @abstractmethod
    def read(self, tensor: Tensor) -> np.ndarray:
        """Return the values on the host (float32 or int32), after all work that leads to them."""

    @abstractmethod
    def read_later(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """Begin to read the values as they are after the work issued so far; the result, called once, returns them."""

    @abstractmethod
    def write(self, tensor: Tensor, values: np.ndarray) -> None:
        """Overwrite a state tensor, after the ops issued so far and before those that follow."""

    @abstractmethod
    def slice_plane(self, plane: Any, start: int, size: int) -> Any:
        """Return `size` bytes of a plane from byte `start` on, without a copy."""

    @abstractmethod
    def run(self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]) -> Any:
        """Run an op and return its outputs."""

    def kernel(
        self, op: Op, operands: Sequence[Tensor], attributes: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, int]]:
        """Return the name and variant of the kernel that would run a call: "numpy" when it is the op's own body."""
        return "numpy", {}

    @abstractmethod
    def capture(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a callable that runs `step` once per set of (hashable) arguments and replays it afterwards.

        What changes between replays must live in tensors that exist before the first call: write them with `write`.
        The outputs are the same tensors each time, overwritten by the next call, whatever its arguments. A step must
        not read values back.
        """

    def stopwatch(self, step: Callable[[], Any]) -> Callable[[], float]:
        """Return a callable that runs `step` again and returns the seconds that the device spends on it."""

        def run() -> float:
            started = time.perf_counter()
            step()
            self.synchronize()
            return time.perf_counter() - started

        return run

    def dispatches_in_time(self) -> int | None:
        """Return how many dispatches such as the last a submission may hold; None where nothing measures them."""
        return None

    def memory_left(self) -> int | None:
        """Return the bytes that a model can take here, None where the system does not tell."""
        return available_bytes() if self.own_memory is None else left_on(self.own_memory)

    def settle(self) -> None:  # noqa: B027 (nothing to do where a weight is placed at once)
        """Finish placing weights, and give back what only that needed."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work issued so far is done."""

    @abstractmethod
    def close(self) -> None:
        """Free the device's memory; the device and its tensors cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def host_planes(values: quant.Matrix, dtype: str) -> tuple[np.ndarray, ...]:
    """Return the planes of `values` in `dtype`: (values,) or, for q8_0, (quants, scales)."""
    if isinstance(values, quant.Quantised):
        return values.planes()
    if dtype == "q8_0":
        return quant.quantise(np.asarray(values))
    # A view of a mapped file stays one; C reads whole values, so one at an odd offset is copied.
    return (np.require(values, HOST_TYPES[dtype], ["C", "ALIGNED"]),)


def natural_dtype(values: np.ndarray) -> str:
    """Return the dtype that `Device.tensor` gives to host values."""
    if values.dtype == np.float16:
        return "f16"
    return "i32" if np.issubdtype(values.dtype, np.integer) or values.dtype == bool else "f32"


def host_values(planes: Sequence[np.ndarray], dtype: str, shape: Sequence[int]) -> np.ndarray:
    """Return host values, float32 or int32 [shape], of planes given as arrays or bytes."""
    if dtype == "q8_0":
        quants = planes[0].view(np.int8).reshape(shape)
        scales = planes[1].view(np.float16).reshape(*shape[:-1], shape[-1] // BLOCK)
        return quant.dequantise(quants, scales)
    values = planes[0].view(HOST_TYPES[dtype]).reshape(shape)
    return values if dtype == "i32" else values.astype(np.float32, copy=False)
