"""Write GGUF files one tensor at a time: the header first, from names, types and shapes, then the data as it comes."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from omni_rt.io import gguf_format as form


@dataclass(frozen=True)
class Planned:
    """A tensor that will be written: its name in the file, its type, and its shape with the row length last."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        kind = form.TENSOR_TYPES[self.dtype]
        return math.prod(self.shape) // kind.values * kind.size


class GgufWriter:
    """Writes one file: make it with everything that the header says, then `write` each tensor's bytes in order."""

    def __init__(self, file: BinaryIO, metadata: Mapping[str, Any], tensors: Sequence[Planned]) -> None:
        """Write the header. Values of `metadata` are bool, int, float, str, or lists of str or of small int.

        Raises ValueError for what the format cannot hold: long names, many dimensions, broken rows.
        """
        self._file = file
        self._tensors = tensors
        self._next = 0
        header = [form.MAGIC, struct.pack("<IQQ", form.VERSION, len(tensors), len(metadata))]
        for key, value in metadata.items():
            header += [_string(key), *_value(value)]
        offset = 0
        for tensor in tensors:
            header.append(_described(tensor, offset))
            offset += -(-tensor.nbytes // form.ALIGNMENT) * form.ALIGNMENT
        size = sum(map(len, header))
        file.write(b"".join(header) + bytes(-size % form.ALIGNMENT))

    def write(self, chunks: Iterable[np.ndarray]) -> None:
        """Write the next tensor, given as contiguous arrays whose bytes follow one another."""
        tensor = self._tensors[self._next]
        self._next += 1
        written = 0
        for chunk in chunks:
            written += self._file.write(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
        if written != tensor.nbytes:
            raise ValueError(f"{tensor.name}: {written} bytes were given, its header says {tensor.nbytes}")
        self._file.write(bytes(-written % form.ALIGNMENT))


def _described(tensor: Planned, offset: int) -> bytes:
    """Return a tensor's entry in the header."""
    kind = form.TENSOR_TYPES[tensor.dtype]
    name = tensor.name.encode()
    if not 0 < len(name) <= form.MAX_NAME_BYTES:
        raise ValueError(f"{tensor.name}: a name has 1 to {form.MAX_NAME_BYTES} bytes, this one {len(name)}")
    if len(tensor.shape) > form.MAX_DIMENSIONS:
        raise ValueError(f"{tensor.name}: {list(tensor.shape)} has more than {form.MAX_DIMENSIONS} dimensions")
    if kind.values > 1 and (not tensor.shape or tensor.shape[-1] % kind.values):
        raise ValueError(f"{tensor.name}: rows of {tensor.dtype} come in {kind.values}s, it is {list(tensor.shape)}")
    sizes = tuple(reversed(tensor.shape))
    return _string(tensor.name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind.number, offset)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> list[bytes]:
    """Return a value's type and bytes: u32 for numbers that fit, else i64."""
    if isinstance(value, bool):
        return [struct.pack("<I?", form.BOOL, value)]
    if isinstance(value, int):
        small = 0 <= value < 1 << 32
        return [struct.pack("<II", form.UINT32, value) if small else struct.pack("<Iq", 11, value)]
    if isinstance(value, float):
        return [struct.pack("<If", 6, value)]
    if isinstance(value, str):
        return [struct.pack("<I", form.STRING), _string(value)]
    if all(isinstance(item, int) for item in value):
        return [struct.pack(f"<IIQ{len(value)}I", form.ARRAY, form.UINT32, len(value), *value)]
    return [struct.pack("<IIQ", form.ARRAY, form.STRING, len(value)), *map(_string, value)]
