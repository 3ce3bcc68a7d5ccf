"""A captured step of the CPU device: its C bodies in a row, run by one call into C; what NumPy serves stays between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omni_rt.native import Pool
from omni_rt.tensor import Tensor

Reference = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class Step:
    """One call: a C body (None: NumPy) with its uniforms, its tensors, and the NumPy body over the same operands."""

    body: Any
    uniforms: Any
    operands: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    reference: Reference

    def run_reference(self) -> None:
        """Compute the outputs with NumPy, in place."""
        for output, value in zip(self.outputs, self.reference(), strict=True):
            np.copyto(output.planes[0], value.planes[0].reshape(output.planes[0].shape))


@dataclass
class Recording:
    """The calls of a step in order. They read and write the same memory each time, which the recording keeps alive."""

    pool: Pool | None
    steps: list[Step] = field(default_factory=list)
    result: Any = None
    _packed: Any = None

    def replay(self) -> Any:
        """Run all calls again; return what the step returned, overwritten."""
        pool, at, end = self.pool, 0, len(self.steps)
        if pool is None:
            for step in self.steps:
                step.run_reference()
            return self.result
        if self._packed is None:
            calls = [(s.body, planes(s.operands), planes(s.outputs), s.uniforms) for s in self.steps]
            self._packed = pool.pack_steps(calls)
        while (at := pool.run_steps(self._packed, at, end)) < end:  # a call that C does not take, or gave back
            self.steps[at].run_reference()
            at += 1
        return self.result


def planes(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Return the planes of tensors, in order."""
    return [plane for tensor in tensors for plane in tensor.planes]
