"""Weights: a view of a checkpoint under a prefix that places tensors on a device and knows what was never read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Protocol

import numpy as np

from omni_rt.devices.device import Device
from omni_rt.errors import ModelFormatError
from omni_rt.quant import NOT_FINITE, Matrix, Quantised, joined, rounded
from omni_rt.quantize_policy import BYTES_PER_VALUE, stored_bytes, stored_type
from omni_rt.tensor import BLOCK, Tensor

MOST_CHECKED = 1 << 20
"""Values of the largest tensor that is looked through for what is not finite: norms, biases, routers, small kernels.

Larger ones would have to be read once more. Those that are rounded at load are judged by what they become, and q8_0
by its scales, whatever their size."""


class Checkpoint(Protocol):
    """What holds named arrays: a safetensors or GGUF reader, or random numbers for benchmarks."""

    def names(self) -> list[str]:
        """List the tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""

    def dtype(self, name: str) -> str:
        """Return how a tensor is stored: F32, F16, BF16, Q8_0 or another name of the file format."""

    def array(self, name: str) -> np.ndarray:
        """Return a tensor's values: float32, or float16 where it is stored so."""

    def raw(self, name: str) -> np.ndarray:
        """Return a tensor's bytes as they are stored, uint8."""


class Weights:
    """The tensors of one component, placed on its device in the precision that its `quant` asks for.

    quant None keeps the file's precision (bf16 becomes f32, exactly). With "q8_0" each tensor is rounded first to the
    type that quantize_policy.py gives it, as a quantised file holds it, and only then used; "f16" does the same but
    leaves linear weights in f16. `on_read` is called with four bytes per value of each tensor that is read.
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

    def array(self, name: str, *shape: int) -> np.ndarray:
        """Return values on the host [shape], float32 or float16, and mark them as read.

        Raises ModelFormatError when the tensor is missing or has another shape than the config implies.
        """
        stored = self._stored(self._found(name, shape))
        return stored.values() if isinstance(stored, Quantised) else stored

    def rows(self, name: str, outputs: int, inputs: int) -> Matrix:
        """Return the weight [outputs, inputs] of a linear layer on the host; q8_0 stays q8_0. Errors as `array`."""
        return self._stored(self._found(name, (outputs, inputs)))

    def exact(self, name: str, *shape: int) -> Tensor:
        """Place a tensor as f32: norms, biases, routers, codebooks."""
        return self.place_exact(self.array(name, *shape))

    def linear(self, name: str, outputs: int, inputs: int) -> Tensor:
        """Place the weight [outputs, inputs] of a linear layer."""
        return self.place_linear(self.rows(name, outputs, inputs))

    def scaled_linear(self, name: str, outputs: int, inputs: int, factors: np.ndarray) -> Tensor:
        """Place the weight [outputs, inputs] of a linear layer in f32, its rows multiplied by factors [outputs].

        LayerScales are small: the products would be lost in the f16 scales of q8_0.
        """
        return self.place_exact(self.array(name, outputs, inputs) * np.asarray(factors, np.float32)[:, None])

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
        parts = [self.rows(name, count, inputs) for name, count in zip(names, outputs, strict=True)]
        return self.place_linear(joined(parts, (sum(outputs), inputs)))

    def place_linear(self, values: Matrix) -> Tensor:
        """Place the values of a linear layer [..., inputs], quantised if asked and possible."""
        quantised = self.quant == "q8_0" and values.shape[-1] % BLOCK == 0
        if isinstance(values, Quantised) or quantised:
            return self.device.weight(values, "q8_0")
        return self.place_half(values) if self.quant == "f16" else self.place_stored(values)

    def place_half(self, values: np.ndarray) -> Tensor:
        """Place an embedding or the kernel of a convolution: f16 in a quantised component, else as stored."""
        return self.device.weight(values, "f16") if self.quant else self.place_stored(values)

    def place_stored(self, values: np.ndarray) -> Tensor:
        """Place values as they are, f16 or f32: what is rearranged after its rounding must not be rounded again."""
        return self.device.weight(values, "f16" if values.dtype == np.float16 else "f32")

    def place_exact(self, values: np.ndarray) -> Tensor:
        """Place values as f32."""
        return self.device.weight(np.asarray(values, np.float32), "f32")

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

    def _found(self, name: str, shape: Sequence[int]) -> str:
        """Return the full name of a tensor that is there in that shape, and mark it as read."""
        full = self.prefix + name
        if full not in self._names:
            raise ModelFormatError(f"the checkpoint lacks the tensor {full} {list(shape)} that its config.json implies")
        stored = self.checkpoint.shape(full)
        if tuple(stored) != tuple(shape):
            raise ModelFormatError(f"{full} has the shape {list(stored)}, but config.json implies {list(shape)}")
        require_floats(full, self.checkpoint.dtype(full))
        if full not in self._read:
            self._read.add(full)
            if self._on_read is not None:
                self._on_read(4 * prod(shape))
        return full

    def _stored(self, full: str) -> Matrix:
        """Return a tensor in the precision that the component keeps it in."""
        kind, shape = self.checkpoint.dtype(full), self.checkpoint.shape(full)
        if kind == "Q8_0":
            return Quantised(shape, [self.checkpoint.raw(full)], names=[full])
        wanted = stored_type(full, shape, self.quant) if self.quant else kind
        if wanted == kind or not self.quant:
            values = self.checkpoint.array(full)
            finite = values.size > MOST_CHECKED or bool(np.isfinite(values).all())
        else:
            bits = self.checkpoint.raw(full).view(np.uint16) if kind == "BF16" else self.checkpoint.array(full)
            if wanted == "Q8_0":
                return Quantised(shape, [bits], names=[full])
            values, finite = rounded(bits.reshape(-1), np.float16 if wanted == "F16" else np.float32)
        if not finite:
            raise ModelFormatError(f"{full}: {NOT_FINITE}")
        return values.reshape(shape)


def require_floats(name: str, kind: str) -> None:
    """Raise ModelFormatError for a weight that is stored as whole numbers: what they stand for is not known."""
    if kind == "BOOL" or kind.startswith(("I", "U")):
        raise ModelFormatError(
            f"{name} holds whole numbers ({kind}), expected floats: another program has quantised this checkpoint; "
            "give the original in BF16, F16 or F32, or a directory that omni-rt quantize wrote"
        )


def placed_bytes(checkpoint: Checkpoint, name: str, quant: str | None) -> int:
    """Return about how many bytes a tensor will take on its device in a component of a precision."""
    shape, kind = checkpoint.shape(name), checkpoint.dtype(name)
    if quant is not None:
        return stored_bytes(name, shape, quant)
    return int(prod(shape) * (2 if kind == "F16" else BYTES_PER_VALUE["Q8_0"] if kind == "Q8_0" else 4))
