"""Read GGUF files: memory-mapped and bounded.

Every count and offset is checked against the bytes that remain before it is used, so a damaged or hostile file gives a
ModelFormatError that names the field and its offset, and never a wild read, a large allocation or a long loop.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omni_rt.errors import ModelFormatError, UnsupportedError
from omni_rt.io import gguf_format as form

MAX_TENSORS = 250_000  # the Thinker has about 19,000
MAX_KEYS = 10_000
MAX_KEY_BYTES = 1024
MAX_STRING_BYTES = 64 << 20  # the largest real one, a tokenizer.json, is about 12 MB
MAX_ITEMS = 4_000_000  # of an array; a vocabulary has 152,064
MAX_HEADER_BYTES = 256 << 20
_MAX_COUNT = 1 << 62  # products stay below what NumPy can index

_TYPES = {kind.number: name for name, kind in form.TENSOR_TYPES.items()}
_NUMPY = {"F32": "<f4", "F16": "<f2", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F64": "<f8", "BF16": "<u2"}


@dataclass(frozen=True)
class GgufEntry:
    """One tensor of a file: its type, its shape with the row length last, and its bytes [begin, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class GgufFile:
    """One GGUF file, mapped read-only.

    `metadata` maps keys to Python values (arrays to lists), `entries` names to GgufEntry in the file's order.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`; raise ModelFormatError when it is malformed, UnsupportedError for types that are not read."""
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < 24:
                    raise ModelFormatError(f"{self.path}: is shorter than the 24 bytes that a GGUF file begins with")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelFormatError(
                f"{self.path}: cannot be opened ({error.strerror or error}); check that the file exists and is readable"
            ) from error
        self.metadata, self.entries = _Header(self._map, self.path).parse()

    def raw(self, name: str) -> np.ndarray:
        """Return the bytes of `name` as a read-only uint8 view of the file [bytes]."""
        entry = self.entries[name]
        return np.frombuffer(self._map, np.uint8, entry.end - entry.begin, entry.begin)

    def array(self, name: str) -> np.ndarray:
        """Return `name` in its shape: a read-only view without copy, or, for BF16, an exact float32 copy.

        Raises UnsupportedError for Q8_0, which `raw` hands out as blocks.
        """
        entry = self.entries[name]
        if entry.dtype not in _NUMPY:
            raise UnsupportedError(f"{self.path}: tensor {name!r} is {entry.dtype}, which has no plain values")
        stored = np.frombuffer(self._map, _NUMPY[entry.dtype], math.prod(entry.shape), entry.begin)
        if entry.dtype == "BF16":
            stored = np.left_shift(stored, np.uint32(16), dtype=np.uint32).view(np.float32)
        return stored.reshape(entry.shape)


class _Header:
    """A cursor over the header of a mapped file; each step checks what it reads against the bytes that remain."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 0
        self.size = len(data)
        self.end = min(self.size, MAX_HEADER_BYTES)

    def fail(self, at: int, fault: str, cure: str = "download or quantise it again") -> ModelFormatError:
        """Return the error for a fault in the field at byte `at`."""
        return ModelFormatError(f"{self.path}: at byte {at}, {fault}; {cure}")

    def take(self, size: int, what: str) -> int:
        """Step over `size` bytes of a field and return where they begin."""
        at = self.at
        if size > self.end - at:
            limit = "the file" if self.end == self.size else f"a header of {MAX_HEADER_BYTES} bytes"
            raise self.fail(at, f"{what} takes {size} bytes, {self.end - at} are left of {limit}")
        self.at = at + size
        return at

    def number(self, what: str, code: str) -> Any:
        """Read one number, given as `struct` names it."""
        return struct.unpack_from(code, self.data, self.take(struct.calcsize(code), what))[0]

    def count(self, what: str, most: int, smallest: int) -> int:
        """Read a u64 count of things that take at least `smallest` bytes each."""
        at = self.at
        count: int = self.number(what, "<Q")
        if count > most:
            raise self.fail(at, f"{what} is {count}, at most {most} are read")
        if count * smallest > self.end - self.at:
            raise self.fail(at, f"{what} is {count}, but {self.end - self.at} bytes are left for them")
        return count

    def string(self, what: str, most: int) -> str:
        """Read a string of at most `most` bytes."""
        at = self.at
        length = self.count(f"the length of {what}", most, 1)
        begin = self.take(length, what)
        try:
            return self.data[begin : begin + length].decode()
        except UnicodeDecodeError as error:
            raise self.fail(at, f"{what} is not UTF-8") from error

    def parse(self) -> tuple[dict[str, Any], dict[str, GgufEntry]]:
        """Return the metadata and the tensors."""
        magic = self.data[self.take(4, "the magic") : 4]
        if magic != form.MAGIC:
            raise self.fail(0, f"the magic is {magic!r}, expected {form.MAGIC!r}", "it is no GGUF file")
        version = self.number("the version", "<I")
        if version not in (2, form.VERSION):
            big = " of a big-endian file" if version >> 24 else ""
            raise self.fail(4, f"the version is {version}{big}, versions 2 and 3 are read", "convert it")
        tensors = self.count("the number of tensors", MAX_TENSORS, 24)
        keys = self.count("the number of keys", MAX_KEYS, 13)
        metadata: dict[str, Any] = {}
        for index in range(keys):
            at = self.at
            key = self.string(f"the name of key {index}", MAX_KEY_BYTES)
            if not key or key in metadata:
                raise self.fail(at, f"key {key!r} occurs twice" if key else f"key {index} has no name")
            kind = self.number(f"the type of {key!r}", "<I")
            metadata[key] = self.value(kind, repr(key))
        alignment = metadata.get("general.alignment", form.ALIGNMENT)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.fail(self.at, f"general.alignment is {alignment!r}, expected a power of two from 8 on")
        found = [self.tensor(index, alignment) for index in range(tensors)]
        start = -(-self.at // alignment) * alignment
        return metadata, self.placed(found, start, alignment)

    def value(self, kind: int, key: str) -> Any:
        """Read the value of a key."""
        if kind == form.ARRAY:
            return self.items(key)
        if kind == form.STRING:
            return self.string(f"the value of {key}", MAX_STRING_BYTES)
        if kind not in form.SCALARS:
            raise self.fail(self.at - 4, f"the type of {key} is {kind}, known are 0 to 12")
        if kind == form.BOOL and self.data[self.at : self.at + 1] not in (b"\0", b"\1", b""):
            raise self.fail(self.at, f"the value of {key} is a bool of {self.data[self.at]}, expected 0 or 1")
        return self.number(f"the value of {key}", form.SCALARS[kind])

    def items(self, key: str) -> list[Any]:
        """Read an array of scalars or strings."""
        at = self.at
        kind = self.number(f"the item type of {key}", "<I")
        if kind == form.STRING:
            count = self.count(f"the number of items of {key}", MAX_ITEMS, 8)
            return [self.string(f"item {i} of {key}", MAX_STRING_BYTES) for i in range(count)]
        if kind not in form.SCALARS:
            fault = "arrays of arrays are not read" if kind == form.ARRAY else "known are 0 to 12"
            raise self.fail(at, f"the item type of {key} is {kind}: {fault}")
        code = form.SCALARS[kind]
        count = self.count(f"the number of items of {key}", MAX_ITEMS, struct.calcsize(code))
        begin = self.take(count * struct.calcsize(code), f"the value of {key}")
        if kind == form.BOOL:
            code = "<B"  # any byte is false or true
        values = np.frombuffer(self.data, code[0] + np.dtype(code[1]).str[1:], count, begin)
        return [bool(v) for v in values] if kind == form.BOOL else values.tolist()

    def tensor(self, index: int, alignment: int) -> tuple[str, str, tuple[int, ...], int, int]:
        """Read one tensor: its name, type, shape, offset in the data, and size in bytes."""
        at = self.at
        name = self.string(f"the name of tensor {index}", MAX_KEY_BYTES)
        if not name:
            raise self.fail(at, f"tensor {index} has no name")
        where = f"tensor {name!r}"
        dimensions = self.number(f"the number of dimensions of {where}", "<I")
        if dimensions > form.MAX_DIMENSIONS:
            raise self.fail(
                self.at - 4, f"{where} has {dimensions} dimensions, at most {form.MAX_DIMENSIONS} are allowed"
            )
        sizes = struct.unpack_from(
            f"<{dimensions}Q", self.data, self.take(8 * dimensions, f"the dimensions of {where}")
        )
        if math.prod(max(size, 1) for size in sizes) >= _MAX_COUNT:
            raise self.fail(self.at - 8 * dimensions, f"{where} has dimensions {list(sizes)}, more than can be indexed")
        number = self.number(f"the type of {where}", "<I")
        if number in form.FOREIGN_TYPES:
            raise UnsupportedError(
                f"{self.path}: {where} is {form.FOREIGN_TYPES[number]}, this build reads "
                f"{', '.join(form.TENSOR_TYPES)}; quantise the original checkpoint with omni-rt quantize"
            )
        if number not in _TYPES:
            raise self.fail(self.at - 4, f"the type of {where} is {number}, known are {', '.join(form.TENSOR_TYPES)}")
        kind = form.TENSOR_TYPES[_TYPES[number]]
        if kind.values > 1 and (not sizes or sizes[0] % kind.values):
            raise self.fail(
                self.at - 4, f"{where} is {_TYPES[number]} with dimensions {list(sizes)}: rows come in {kind.values}s"
            )
        offset = self.number(f"the offset of {where}", "<Q")
        if offset % alignment:
            raise self.fail(self.at - 8, f"the offset of {where} is {offset}, no multiple of the alignment {alignment}")
        size = math.prod(sizes) // kind.values * kind.size
        return name, _TYPES[number], tuple(reversed(sizes)), offset, size

    def placed(
        self, found: list[tuple[str, str, tuple[int, ...], int, int]], start: int, alignment: int
    ) -> dict[str, GgufEntry]:
        """Return the entries, after checking that the tensors tile the data from byte `start` to the file's end."""
        entries: dict[str, GgufEntry] = {}
        for name, kind, shape, offset, size in found:
            if name in entries:
                raise self.fail(self.at, f"tensor {name!r} occurs twice")
            entry = GgufEntry(kind, shape, start + offset, start + offset + size)
            if entry.end > self.size:
                fault = f"tensor {name!r} ends at byte {entry.end}, the file at {self.size}: it is cut short"
                raise self.fail(entry.begin, fault)
            entries[name] = entry
        reached, before = start, "the header"
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
            if entry.begin != -(-reached // alignment) * alignment:
                fault = "overlaps" if entry.begin < reached else "leaves a gap behind"
                raise self.fail(entry.begin, f"tensor {name!r} {fault} {before}, which ends at {reached}")
            reached, before = entry.end, f"tensor {name!r}"
        if self.size - reached >= alignment:
            raise self.fail(reached, f"{before} is the last, but the file ends at {self.size}")
        return entries
