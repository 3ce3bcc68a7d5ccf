"""A cloned voice that can be kept: what the model heard of a reference, saved as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from omni_rt.errors import ModelFormatError
from omni_rt.io.files import atomic_write
from omni_rt.io.safetensors import SafetensorsFile

FORMAT = "omni_rt.voice.1"


@dataclass(frozen=True)
class Voice:
    """A voice of one model: a speaker embedding float32 [D], and for a clone in context also codes and text.

    `codes` int32 [K, F] are what the reference sounds like to the talker, `text` what was said in it; both None for a
    voice that is an embedding only. `advice` says what could be better about the reference, empty when nothing.
    """

    embedding: np.ndarray
    codes: np.ndarray | None = None
    text: str | None = None
    advice: tuple[str, ...] = ()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the voice to a safetensors file, whole or not at all; raise InputError where it cannot be written."""
        tensors = {"embedding": np.asarray(self.embedding, np.float32)}
        metadata = {"format": FORMAT}
        if self.codes is not None and self.text is not None:
            tensors["codes"] = np.ascontiguousarray(self.codes, np.int32)
            metadata["text"] = self.text
        with atomic_write(path) as temporary:
            Path(temporary).write_bytes(save(tensors, metadata))

    @classmethod
    def saved(cls, directory: str | PathLike[str]) -> dict[str, Voice]:
        """Return the voices saved in a directory, by file name without suffix; other files are passed over."""
        voices = {}
        for path in sorted(Path(directory).glob("*.safetensors")):
            with suppress(ModelFormatError):
                voices[path.stem] = cls.load(path)
        return voices

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Voice:
        """Read a voice that `save` wrote. Raises ModelFormatError for anything else."""
        file = SafetensorsFile(Path(path))
        metadata: Mapping[str, str] = file.metadata
        if metadata.get("format") != FORMAT or "embedding" not in file.entries:
            raise ModelFormatError(f"{path}: holds no voice (format {metadata.get('format')!r}, expected {FORMAT!r})")
        embedding = np.array(file.array("embedding"), np.float32)
        if embedding.ndim != 1:
            raise ModelFormatError(f"{path}: the embedding has the shape {list(embedding.shape)}, expected one axis")
        if "codes" not in file.entries:
            return cls(embedding)
        codes = np.array(file.array("codes"), np.int32)
        if codes.ndim != 2 or "text" not in metadata:
            raise ModelFormatError(f"{path}: codes {list(codes.shape)} need two axes and the text they stand for")
        return cls(embedding, codes, metadata["text"])
