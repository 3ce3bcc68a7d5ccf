"""Weights: a view of a checkpoint under a prefix that places tensors on a device and knows what was never read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Protocol

import numpy as np

from omni_rt.devices.device import Device
from omni_rt.errors import ModelFormatError
from omni_rt.tensor import BLOCK, Tensor


class Checkpoint(Protocol):
    """What holds named arrays: a safetensors or GGUF reader, or random numbers for benchmarks."""

    def names(self) -> list[str]:
        """List the tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""

    def array(self, name: str) -> np.ndarray:
        """Return a tensor's values: float32, or float16 where it is stored so."""


class Weights:
    """The tensors of one component, placed on its device in the precision that its `quant` asks for.

    quant None keeps the file's precision (bf16 becomes f32, exactly); "q8_0" quantises linear layers whose rows are a
    multiple of 32 long and stores embeddings and convolutions as f16. Norms, biases, routers and codebooks stay f32.
    `on_read` is called with four bytes per value of each tensor that is read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: Device,
        *,
        quant: str | None = None,
        prefix: str = "",
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self._on_read = on_read
        self.checkpoint = checkpoint
        self.device = device
        self.quant = quant
        self.prefix = prefix
        self._read: set[str] = set()
        self._names = frozenset(checkpoint.names())

    def at(self, prefix: str) -> Weights:
        """Return the view under a longer prefix; what it reads counts as read here."""
        view = type(self).__new__(type(self))
        view.checkpoint, view.device, view.quant = self.checkpoint, self.device, self.quant
        view.prefix, view._read, view._names = self.prefix + prefix, self._read, self._names
        view._on_read = self._on_read
        return view

    def parent(self) -> Weights:
        """Return the view one name shorter: that of `layers.0.` from `layers.0.mlp.`."""
        shorter = self.prefix.rstrip(".").rpartition(".")[0]
        view = self.at("")
        view.prefix = shorter + "." if shorter else ""
        return view

    def has(self, name: str) -> bool:
        """Say whether the checkpoint holds a tensor."""
        return self.prefix + name in self._names

    def array(self, name: str, *shape: int) -> np.ndarray:
        """Return values on the host [shape] and mark them as read.

        Raises ModelFormatError when the tensor is missing or has another shape than the config implies.
        """
        full = self.prefix + name
        if full not in self._names:
            raise ModelFormatError(f"the checkpoint lacks the tensor {full} {list(shape)} that its config.json implies")
        stored = self.checkpoint.shape(full)
        if tuple(stored) != shape:
            raise ModelFormatError(f"{full} has the shape {list(stored)}, but config.json implies {list(shape)}")
        if self._on_read is not None and full not in self._read:
            self._on_read(4 * prod(shape))
        self._read.add(full)
        return self.checkpoint.array(full)

    def exact(self, name: str, *shape: int) -> Tensor:
        """Place a tensor as f32: norms, biases, routers, codebooks."""
        return self.device.weight(np.asarray(self.array(name, *shape), np.float32), "f32")

    def linear(self, name: str, outputs: int, inputs: int) -> Tensor:
        """Place the weight [outputs, inputs] of a linear layer."""
        return self.place_linear(self.array(name, outputs, inputs))

    def half(self, name: str, *shape: int) -> Tensor:
        """Place an embedding table."""
        return self.place_half(self.array(name, *shape))

    def affine(self, name: str, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        """Place a linear layer with a bias: its weight [outputs, inputs] and the bias as one row [1, outputs]."""
        bias = self.exact(f"{name}.bias", outputs)
        return self.linear(f"{name}.weight", outputs, inputs), bias.reshape(1, outputs)

    def norm(self, name: str, width: int) -> tuple[Tensor, Tensor]:
        """Place the weight and bias [width] of a LayerNorm."""
        return self.exact(f"{name}.weight", width), self.exact(f"{name}.bias", width)

    def fused(self, names: Iterable[str], outputs: Sequence[int], inputs: int) -> Tensor:
        """Place several linear weights as one: their rows one after the other [sum(outputs), inputs]."""
        parts = [self.array(name, rows, inputs) for name, rows in zip(names, outputs, strict=True)]
        return self.place_linear(np.concatenate(parts))

    def place_linear(self, values: np.ndarray) -> Tensor:
        """Place the values of a linear layer [..., inputs], quantised if asked and possible."""
        quantised = self.quant == "q8_0" and values.shape[-1] % BLOCK == 0
        return self.device.weight(values, "q8_0" if quantised else self._plain(values))

    def place_half(self, values: np.ndarray) -> Tensor:
        """Place an embedding or the kernel of a convolution: f16 in a quantised component, else as stored."""
        return self.device.weight(values, "f16" if self.quant else self._plain(values))

    def place_exact(self, values: np.ndarray) -> Tensor:
        """Place values as f32."""
        return self.device.weight(np.asarray(values, np.float32), "f32")

    def _plain(self, values: np.ndarray) -> str:
        return "f16" if values.dtype == np.float16 else "f32"

    def done(self, ignored: Iterable[str] = ()) -> None:
        """Raise ModelFormatError when tensors under the prefix were never read, but for `ignored` prefixes."""
        skipped = tuple(self.prefix + name for name in ignored)
        left = sorted(
            name
            for name in self._names - self._read
            if name.startswith(self.prefix) and not (skipped and name.startswith(skipped))
        )
        if left:
            listed = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            raise ModelFormatError(
                f"{len(left)} tensors of the checkpoint belong to nothing that config.json describes: {listed}"
            )
