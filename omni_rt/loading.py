"""Loading a model: the reference to a directory, its family, devices for its components, memory checked first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from omni_rt.errors import InputError, UnsupportedError
from omni_rt.io.files import read_json
from omni_rt.io.hub import resolve
from omni_rt.io.safetensors import SafetensorsCheckpoint
from omni_rt.models.qwen3_omni.components import load_components, planned_bytes
from omni_rt.models.qwen3_omni.config import MODEL_TYPE as OMNI
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.placement import DevicePlacement, OmniConfig, WeightFormat

Progress = Callable[[int, int], None]
"""Called while a model loads with the bytes read so far and the bytes in all."""


def load(
    ref: str | Path = "tiny",
    *,
    device: str = "auto",
    placement: OmniConfig | None = None,
    quant: str | WeightFormat | None = None,
    context: int = 4096,
    max_memory: int | None = None,
    strict: bool = False,
    local_files_only: bool = False,
    threads: int | None = None,
    level: str = "",
    progress: Progress | None = None,
) -> OmniOrchestrator:
    """Load a model: "tiny", a directory in Hugging Face layout, or org/repo[@revision].

    `device` is "auto", "cpu", "wgpu" or "wgpu:1"; `placement` moves single components elsewhere. `quant` "q8_0"
    quantises while loading. `context` is the longest conversation in tokens, `max_memory` a budget in bytes for each
    device. `strict` makes a CPU fallback an error. `threads` and `level` are those of the CPU, see `open_device`.
    Raises ModelNotFoundError, ModelFormatError, UnsupportedError, DeviceError, or OutOfMemoryError before anything is
    allocated.
    """
    started = time.perf_counter()
    if context < 1:
        raise InputError(f"the context must be at least one position, got {context}")
    if quant is not None:
        try:
            quant = WeightFormat(quant)
        except ValueError:
            raise UnsupportedError(
                f"quant={quant!r} is not known: use 'q8_0', or None for the file's precision"
            ) from None
    quant = "q8_0" if quant == WeightFormat.Q8_0 else None
    directory = resolve(str(ref), local_files_only=local_files_only)
    config = _config(directory)
    checkpoint = SafetensorsCheckpoint(directory)
    open_named = partial(open_device, strict=strict, max_memory=max_memory, threads=threads, level=level)
    devices = _open_devices(device, placement or OmniConfig(), open_named)
    try:
        needed = planned_bytes(checkpoint, config, devices, quant=quant, context=context)
        for opened in set(devices.values()):
            opened.ledger.require(needed[opened], f"{directory.name} on {opened.name}")
        components = load_components(
            checkpoint, config, devices, quant=quant, context=context, progress=progress or (lambda done, total: None)
        )
        model = OmniOrchestrator(directory, config, components, devices)
    except BaseException:
        for opened in set(devices.values()):
            opened.close()
        raise
    model.load_seconds = time.perf_counter() - started
    return model


def _config(directory: Path) -> Qwen3OmniConfig:
    """Read the config of a directory by the family that it names."""
    path = directory / "config.json"
    if path.is_file():
        data: Any = read_json(path)
        family = data.get("model_type") if isinstance(data, dict) else None
        if family != OMNI:
            raise UnsupportedError(f"{path}: model_type is {family!r}; this version runs {OMNI!r}")
    return Qwen3OmniConfig.from_directory(directory)


def _open_devices(name: str, placement: OmniConfig, open_named: Callable[[str], Device]) -> dict[str, Device]:
    """Open each device that the placement asks for once, and return the device of every component."""
    opened: dict[str, Device] = {}
    chosen = {}
    try:
        for component in fields(placement):
            wanted = getattr(placement, component.name)
            target = name if wanted == DevicePlacement.AUTO else str(wanted)
            if wanted == DevicePlacement.WGPU and name.startswith("wgpu"):
                target = name
            if target not in opened:
                opened[target] = open_named(target)
            chosen[component.name] = opened[target]
    except BaseException:
        for device in opened.values():
            device.close()
        raise
    return chosen
