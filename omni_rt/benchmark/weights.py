"""Random weights of any shape, made as they are asked for: a component at full size without a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from zlib import crc32

import numpy as np

from omni_rt.devices.device import Device
from omni_rt.devices.ledger import GIB
from omni_rt.errors import OutOfMemoryError
from omni_rt.tensor import BLOCK, Tensor, plane_bytes
from omni_rt.weights import Weights

POOL = 1 << 24
"""Random values that all tensors are cut from: drawing 30 billion of them would take minutes."""

RESERVE = GIB // 2
"""Bytes that stay free beside random weights, for activations and for other programs."""

LOGARITHMS = ("alpha", "beta", "bias")
"""Tensors that stay near 0: biases, and what the model takes exp() of."""


class RandomWeights(Weights):
    """Weights that hold whatever a component asks for, scaled so that activations stay finite at any depth.

    Matrices are normal with a variance of one over their fan-in, norms and scales are near 1. The same name gives the
    same values. Linear weights and tables are made on the device, what is rearranged at load on the host. One that
    the memory left cannot take raises OutOfMemoryError: else the system would end the process, or another.
    """

    def __init__(self, device: Device, *, quant: str | None = None, seed: int = 0) -> None:
        super().__init__(_Nothing(), device, quant=quant)
        self._pool = np.random.default_rng(seed).standard_normal(POOL, np.float32)
        self._pool.flags.writeable = False
        self._scaled: dict[float, np.ndarray] = {}
        self._free, self._made_bytes = device.memory_left(), {"all": 0}

    def linear(self, name: str, outputs: int, inputs: int) -> Tensor:
        """Make the weight [outputs, inputs] of a linear layer on the device."""
        return self.fused([name], [outputs], inputs)

    def fused(self, names: Iterable[str], outputs: Sequence[int], inputs: int) -> Tensor:
        """Make several linear weights as one on the device [sum(outputs), inputs]."""
        dtype = "q8_0" if self.quant == "q8_0" and inputs % BLOCK == 0 else "f32"
        return self._made((sum(outputs), inputs), dtype, "".join(names))

    def half(self, name: str, *shape: int) -> Tensor:
        """Make an embedding table on the device."""
        return self._made(shape, "f16" if self.quant else "f32", name)

    def _made(self, shape: tuple[int, ...], dtype: str, name: str) -> Tensor:
        self._made_bytes["all"] += sum(plane_bytes(shape, dtype))
        needed = self._made_bytes["all"] + RESERVE
        if self._free is not None and needed > self._free:
            raise OutOfMemoryError(
                f"{self.device.name} had {self._free / GIB:.2f} GiB free, up to {self.prefix or name} the shape needs "
                f"{needed / GIB:.2f} GiB or more: measure fewer --layers, or close other programs",
                needed,
                self._free,
            )
        seed = crc32((self.prefix + name).encode())
        return self.device.noise(shape, dtype, deviation=prod(shape[1:]) ** -0.5, seed=seed)

    def at(self, prefix: str) -> Weights:
        """Return the view under a longer prefix."""
        view = super().at(prefix)
        assert isinstance(view, RandomWeights)
        view._pool, view._scaled = self._pool, self._scaled
        view._free, view._made_bytes = self._free, self._made_bytes
        return view

    def rows(self, name: str, outputs: int, inputs: int) -> np.ndarray:
        """Return random values float32 [outputs, inputs]."""
        return self.array(name, outputs, inputs)

    def array(self, name: str, *shape: int) -> np.ndarray:
        """Return random values float32 [shape]."""
        if name.endswith(LOGARITHMS):
            return self._draw(name, shape, 0.01)
        if len(shape) == 1:
            return np.float32(1) + self._draw(name, shape, 0.01)
        return self._draw(name, shape, prod(shape[1:]) ** -0.5)

    def _draw(self, name: str, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        """Return values of that deviation: where the pool reaches, a view into it."""
        pool = self._scaled.get(deviation)
        if pool is None:
            pool = self._scaled[deviation] = self._pool * np.float32(deviation)
        count = prod(shape)
        start = crc32((self.prefix + name).encode()) % (POOL // 2)
        values = pool[start : start + count] if start + count <= POOL else np.resize(pool, count)
        return values.reshape(shape)


class _Nothing:
    """The empty checkpoint."""

    def names(self) -> list[str]:
        """List no tensors."""
        return []

    def shape(self, name: str) -> tuple[int, ...]:
        """Fail: there are none."""
        raise KeyError(name)

    def dtype(self, name: str) -> str:
        """Fail: there are none."""
        raise KeyError(name)

    def array(self, name: str) -> np.ndarray:
        """Fail: there are none."""
        raise KeyError(name)

    def raw(self, name: str) -> np.ndarray:
        """Fail: there are none."""
        raise KeyError(name)
