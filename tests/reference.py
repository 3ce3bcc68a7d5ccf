"""The reference data of a directory made by tools/golden.py: its checkpoint, its arrays and its index."""

from __future__ import annotations

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors.numpy import load_file

from omni_rt.devices.device import Device
from omni_rt.io.safetensors import SafetensorsCheckpoint
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.weights import Weights


class Reference:
    """One directory of reference data for Qwen3-Omni. `tts_directory` is that of Qwen3-TTS, which tests list."""

    tts_directory: ClassVar[Path]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.checkpoint_directory = directory / "checkpoint"
        self.config = Qwen3OmniConfig.from_directory(self.checkpoint_directory)
        self.checkpoint = SafetensorsCheckpoint(self.checkpoint_directory)
        self._arrays = load_file(directory / "golden.safetensors")

    @cached_property
    def index(self) -> dict[str, Any]:
        """What golden.json says."""
        return json.loads((self.directory / "golden.json").read_text(encoding="utf-8"))

    def speaking_at_most(self, frames: int, directory: Path) -> Path:
        """Copy the checkpoint into a new directory, told to stop after so many frames of speech."""
        shutil.copytree(self.checkpoint_directory, directory)
        path = directory / "generation_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(settings | {"talker_max_new_tokens": frames}), encoding="utf-8")
        return directory

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def names(self, prefix: str) -> list[str]:
        """List the arrays whose name starts with a prefix."""
        return sorted(name for name in self._arrays if name.startswith(prefix))

    def weights(self, device: Device, prefix: str, quant: str | None = None) -> Weights:
        """Return the weights under a prefix for a device."""
        return Weights(self.checkpoint, device, prefix=prefix, quant=quant)


def assert_close(got: np.ndarray, reference: np.ndarray, tolerance: float) -> None:
    """Assert that arrays differ by at most `tolerance` of the reference's largest magnitude (at least 1)."""
    assert got.shape == reference.shape, f"shape {got.shape} is not {reference.shape}"
    scale = max(float(np.abs(reference).max(initial=0)), 1.0)
    error = float(np.abs(got - reference).max(initial=0))
    assert error <= tolerance * scale, f"off by {error:.2e} where {tolerance * scale:.2e} is allowed"
