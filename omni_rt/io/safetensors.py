"""Read safetensors checkpoints: one file, or shards with an index. Memory-mapped and bounded.

Layout of a file: u64 length N (little-endian), N bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}}, then
the data, which the tensors tile without gap or overlap. Every count and offset is checked before it is used, so a
damaged or hostile file gives a ModelFormatError and never a wild read. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omni_rt.errors import ModelFormatError, ModelNotFoundError, UnsupportedError
from omni_rt.io.files import read_json

MAX_HEADER_BYTES = 32 << 20  # a tensor takes about 120 bytes
MAX_TENSORS = 250_000  # the released Qwen3-Omni has about 28,000
MAX_DIMENSIONS = 8
_MAX_COUNT = 1 << 62  # products stay below what NumPy can index

_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: dtype as the file names it, shape, and its bytes [begin, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """One safetensors file, mapped read-only.

    `entries` maps name to Entry in the file's order, `metadata` is the file's own map of strings.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`; raise ModelFormatError when it is malformed."""
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < 8:
                    raise ModelFormatError(
                        f"{self.path}: {size} bytes, a safetensors file has at least 8; download it again"
                    )
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelFormatError(
                f"{self.path}: cannot be opened ({error.strerror or error}); check that the file exists and is readable"
            ) from error
        self.entries, self.metadata = _parse_header(self._map, self.path)

    def raw(self, name: str) -> np.ndarray:
        """Return the bytes of `name` as a read-only uint8 view of the file [bytes]."""
        entry = self.entries[name]
        return np.frombuffer(self._map, np.uint8, entry.end - entry.begin, entry.begin)

    def array(self, name: str) -> np.ndarray:
        """Return `name` in its shape: a read-only view without copy, or, for BF16, an exact float32 copy."""
        entry = self.entries[name]
        kind = _NUMPY.get(entry.dtype)
        if kind is None:
            raise UnsupportedError(
                f"{self.path}: tensor {name!r} is {entry.dtype}, this build reads {', '.join(_NUMPY)}; "
                "use a checkpoint in BF16, F16 or F32"
            )
        stored = np.frombuffer(self._map, kind, math.prod(entry.shape), entry.begin).reshape(entry.shape)
        if entry.dtype != "BF16":
            return stored
        # bfloat16 is the upper half of a float32: widening is a shift, and every value is exact.
        return np.left_shift(stored, np.uint32(16), dtype=np.uint32).view(np.float32)


class SafetensorsCheckpoint:
    """All tensors of a model directory, single (`model.safetensors`) or sharded (`model.safetensors.index.json`)."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Open the files of `directory`; raise ModelNotFoundError when it holds none, ModelFormatError when damaged."""
        self.directory = Path(directory)
        single = self.directory / "model.safetensors"
        index = self.directory / "model.safetensors.index.json"
        if single.exists():
            file = SafetensorsFile(single)
            self._home = dict.fromkeys(file.entries, file)
        elif index.exists():
            self._home = _open_shards(index)
        else:
            raise ModelNotFoundError(_nothing_here(self.directory))

    def names(self) -> list[str]:
        """Return the names of all tensors, in the order of the files."""
        return list(self._home)

    def __contains__(self, name: str) -> bool:
        return name in self._home

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of `name`."""
        return self._file(name).entries[name].shape

    def dtype(self, name: str) -> str:
        """Return the dtype of `name` as the file names it: "F32", "F16", "BF16", ..."""
        return self._file(name).entries[name].dtype

    def array(self, name: str) -> np.ndarray:
        """Return `name` in its shape: a read-only view without copy, or, for BF16, an exact float32 copy."""
        return self._file(name).array(name)

    def raw(self, name: str) -> np.ndarray:
        """Return the bytes of `name` as a read-only uint8 view of the file [bytes]."""
        return self._file(name).raw(name)

    def _file(self, name: str) -> SafetensorsFile:
        try:
            return self._home[name]
        except KeyError:
            raise ModelFormatError(
                f"{self.directory}: has no tensor {name!r} among its {len(self._home)}; "
                "is this the checkpoint that config.json describes?"
            ) from None


def _open_shards(index: Path) -> dict[str, SafetensorsFile]:
    """Return {tensor: file} for a sharded checkpoint, checked both ways against the index."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFormatError(f"{index}: has no weight_map of tensors to files; download it again")
    files: dict[str, SafetensorsFile] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelFormatError(
                f"{index}: tensor {name!r} lies in {shard!r}, expected the name of a .safetensors file"
            )
        if shard not in files:
            if not (index.parent / shard).exists():
                raise ModelFormatError(
                    f"{index.parent / shard}: is missing, but {index.name} places tensor {name!r} there; download it"
                )
            files[shard] = SafetensorsFile(index.parent / shard)
        if name not in files[shard].entries:
            raise ModelFormatError(
                f"{index.parent / shard}: has no tensor {name!r}, which {index.name} places there; "
                "the files are of different downloads, fetch both again"
            )
    home: dict[str, SafetensorsFile] = {}
    for shard, file in files.items():
        for name in file.entries:
            if weight_map.get(name) != shard:
                raise ModelFormatError(
                    f"{file.path}: holds tensor {name!r}, which {index.name} places in {weight_map.get(name)!r}; "
                    "the files are of different downloads, fetch both again"
                )
            home[name] = file
    return home


def _nothing_here(directory: Path) -> str:
    """Say why `directory` is no checkpoint, and what would make it one."""
    if not directory.is_dir():
        return f"{directory}: is not a directory; give the directory that holds config.json and model.safetensors"
    pickles = sorted(p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        return (
            f"{directory}: holds {pickles[0]} but no model.safetensors; pickled weights can run code and are not read, "
            "convert them to safetensors"
        )
    return (
        f"{directory}: has neither model.safetensors nor model.safetensors.index.json; "
        "give the directory of a downloaded checkpoint"
    )


def _parse_header(data: mmap.mmap, path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the entries and metadata of a mapped file, every field checked."""
    length = int.from_bytes(data[:8], "little")
    start = 8 + length
    if length > MAX_HEADER_BYTES:
        raise ModelFormatError(
            f"{path}: its header claims {length} bytes, at most {MAX_HEADER_BYTES} are allowed; is it safetensors?"
        )
    if start > len(data):
        raise ModelFormatError(f"{path}: its header ends at byte {start}, the file at {len(data)}; download it again")
    try:
        header = json.loads(data[8:start].decode(), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: its header is not JSON ({error}); download it again") from error
    if not isinstance(header, dict):
        raise ModelFormatError(f"{path}: its header is a JSON {type(header).__name__}, expected an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelFormatError(f"{path}: its __metadata__ is not a map of strings")
    if len(header) > MAX_TENSORS:
        raise ModelFormatError(f"{path}: has {len(header)} tensors, at most {MAX_TENSORS} are allowed")
    entries = {name: _entry(name, fields, path, start) for name, fields in header.items()}
    _check_tiling(entries, path, start, len(data))
    return entries, metadata


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """Return `pairs` as a dict, refusing a key that occurs twice."""
    unique = dict(pairs)
    if len(unique) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ModelFormatError(f"{path}: its header names {twice!r} twice; download it again")
    return unique


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _entry(name: str, fields: object, path: Path, start: int) -> Entry:
    """Return one checked entry; `start` is where the file's data begins."""
    where = f"{path}: tensor {name!r}"
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ModelFormatError(f"{where} is described by {str(fields)[:120]}, expected dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise ModelFormatError(f"{where} has dtype {str(dtype)[:40]!r}, known are {', '.join(_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_count, shape)):
        raise ModelFormatError(f"{where} has shape {str(shape)[:120]}, expected at most {MAX_DIMENSIONS} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ModelFormatError(f"{where} has data_offsets {str(offsets)[:120]}, expected [begin, end]")
    if math.prod(max(size, 1) for size in shape) >= _MAX_COUNT:
        raise ModelFormatError(f"{where} has shape {shape}, more values than can be indexed")
    expected, (begin, end) = math.prod(shape) * _BYTES[dtype], offsets
    if end - begin != expected:
        raise ModelFormatError(
            f"{where} is {dtype} {shape}, that is {expected} bytes, but its data_offsets {offsets} span {end - begin}"
        )
    return Entry(dtype, tuple(shape), start + begin, start + end)


def _check_tiling(entries: dict[str, Entry], path: Path, start: int, size: int) -> None:
    """Check that the tensors cover the file from `start` to `size` without gap or overlap."""
    reached, before = start, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.end > size:
            raise ModelFormatError(
                f"{path}: tensor {name!r} ends at byte {entry.end}, the file at {size}: cut short; download it again"
            )
        if entry.begin != reached:
            fault = "overlaps" if entry.begin < reached else "leaves a gap behind"
            raise ModelFormatError(
                f"{path}: tensor {name!r} begins at byte {entry.begin} and {fault} {before}, which ends at {reached}"
            )
        reached, before = entry.end, repr(name)
    if reached != size:
        raise ModelFormatError(f"{path}: its tensors end at byte {reached}, the file at {size}; download it again")
