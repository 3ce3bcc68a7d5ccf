"""A quantised model: a directory with one GGUF file per component, read as one checkpoint under the original names.

A file holds its component's tensors under their original names without the component's prefix (`blocks.0.norm.weight`
for `thinker.visual.blocks.0.norm.weight`), long words shortened (SHORT), and says in its metadata what it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omni_rt.errors import ModelFormatError, ModelNotFoundError
from omni_rt.io.files import read_json
from omni_rt.io.gguf import GgufFile

PRECISIONS = ("q8_0", "f16")

SHORT = {
    "acoustic_residual_vector_quantizer": "acoustic_rvq",
    "semantic_residual_vector_quantizer": "semantic_rvq",
}
"""Words of original names that would make a name longer than files may have, and what stands for them."""

COMPONENT, CONFIG, PRECISION, SHAPE = "omni_rt.component", "omni_rt.config", "omni_rt.precision", "omni_rt.shape."
"""Keys of the metadata; SHAPE and a tensor's name give the shape of one with more dimensions than files may have."""


def file_name(component: str, precision: str) -> str:
    """Return the name of a component's file."""
    return f"{component}-{precision}.gguf"


def shortened(name: str) -> str:
    """Return a tensor's name as a file holds it; `name` is without the component's prefix."""
    for word, short in SHORT.items():
        name = name.replace(word, short)
    return name


def restored(name: str) -> str:
    """Return the original name of a tensor from the one in a file."""
    for word, short in SHORT.items():
        name = name.replace(short, word)
    return name


def is_quantised(directory: str | os.PathLike[str]) -> bool:
    """Say whether a directory holds a quantised model and not, or not only, an original one."""
    folder = Path(directory)
    original = any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json"))
    return not original and any(folder.glob("[!.]*.gguf"))


class GgufCheckpoint:
    """The tensors of some components of a quantised directory. `quants` maps each component to q8_0 or f16."""

    def __init__(self, directory: str | os.PathLike[str], prefixes: Mapping[str, str]) -> None:
        """Open the files of the components in `prefixes`, which maps them to where they lie in an original checkpoint.

        Raises ModelNotFoundError when one is missing, ModelFormatError when one is damaged, belongs to another
        component, or was made from another config.json than the directory's.
        """
        self.directory = Path(directory)
        config = read_json(self.directory / "config.json")
        self.quants: dict[str, str | None] = {}
        self._home: dict[str, tuple[GgufFile, str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for component, prefix in prefixes.items():
            file = GgufFile(_find(self.directory, component))
            self.quants[component] = _precision(file, component, config)
            for name, entry in file.entries.items():
                full = prefix + restored(name)
                self._home[full] = (file, name)
                self._shapes[full] = _shape(file, name, entry.shape)

    def names(self) -> list[str]:
        """Return the original names of all tensors, component by component."""
        return list(self._home)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the original shape of a tensor."""
        return self._shapes[name]

    def dtype(self, name: str) -> str:
        """Return the type of a tensor: F32, F16, Q8_0, ..."""
        file, own = self._home[name]
        return file.entries[own].dtype

    def array(self, name: str) -> np.ndarray:
        """Return the values of a tensor that is not Q8_0 in its original shape, without a copy where possible."""
        file, own = self._home[name]
        return file.array(own).reshape(self._shapes[name])

    def raw(self, name: str) -> np.ndarray:
        """Return the bytes of a tensor as a read-only uint8 view of its file [bytes]."""
        file, own = self._home[name]
        return file.raw(own)


def _find(directory: Path, component: str) -> Path:
    """Return the file of a component."""
    found = [path for precision in PRECISIONS if (path := directory / file_name(component, precision)).exists()]
    if not found:
        raise ModelNotFoundError(
            f"{directory}: lacks {file_name(component, PRECISIONS[0])}, though its config.json describes that "
            f"component; make it from the original: omni-rt quantize ORIGINAL {directory} --components {component}"
        )
    if len(found) > 1:
        raise ModelFormatError(
            f"{directory}: holds both {found[0].name} and {found[1].name}; remove the one that is not meant"
        )
    return found[0]


def _precision(file: GgufFile, component: str, config: Mapping[str, Any]) -> str:
    """Return the precision that a file says it has, after checking that it belongs to the component and the config."""
    says = file.metadata.get(COMPONENT)
    if says != component:
        raise ModelFormatError(
            f"{file.path}: holds the component {says!r} by its key {COMPONENT}, by its name {component!r}; "
            "rename it, or quantise again"
        )
    try:
        own = json.loads(file.metadata.get(CONFIG, ""))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"{file.path}: its key {CONFIG} is no JSON; quantise it again") from error
    if own != config:
        raise ModelFormatError(
            f"{file.path}: was made from another config.json than the one beside it; "
            "the files are of different models, quantise again"
        )
    precision = file.metadata.get(PRECISION)
    if precision not in PRECISIONS:
        raise ModelFormatError(
            f"{file.path}: its key {PRECISION} is {precision!r}, expected {' or '.join(PRECISIONS)}; quantise it again"
        )
    return str(precision)


def _shape(file: GgufFile, name: str, stored: tuple[int, ...]) -> tuple[int, ...]:
    """Return the original shape of a tensor."""
    given = file.metadata.get(SHAPE + name)
    if given is None:
        return stored
    sizes = 1
    for size in given if isinstance(given, list) else [0]:
        sizes *= size if type(size) is int else 0
    if sizes != int(np.prod(stored, dtype=object)):
        raise ModelFormatError(f"{file.path}: its key {SHAPE}{name} is {str(given)[:80]}, but it is {list(stored)}")
    return tuple(given)
