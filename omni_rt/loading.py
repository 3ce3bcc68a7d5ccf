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
from omni_rt.errors import InputError, ModelFormatError, ModelNotFoundError, UnsupportedError
from omni_rt.io.files import read_json
from omni_rt.io.hub import resolve
from omni_rt.io.safetensors import SafetensorsCheckpoint
from omni_rt.models.qwen3_omni.components import load_components as load_omni
from omni_rt.models.qwen3_omni.components import planned_bytes as omni_bytes
from omni_rt.models.qwen3_omni.config import MODEL_TYPE as OMNI
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.models.qwen3_tts.components import load_components as load_tts
from omni_rt.models.qwen3_tts.components import planned_bytes as tts_bytes
from omni_rt.models.qwen3_tts.config import MODEL_TYPE as TTS
from omni_rt.models.qwen3_tts.config import CodecConfig, Qwen3TtsConfig
from omni_rt.models.qwen3_tts.session import TextToSpeech
from omni_rt.placement import DevicePlacement, OmniConfig, WeightFormat
from omni_rt.sampling import Sampling

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
) -> OmniOrchestrator | TextToSpeech:
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
    family = _family(directory)
    open_named = partial(open_device, strict=strict, max_memory=max_memory, threads=threads, level=level)
    devices = _open_devices(device, placement or OmniConfig(), open_named)
    report = progress or (lambda done, total: None)
    try:
        model = family(directory, devices, quant, context, report)
    except BaseException:
        for opened in set(devices.values()):
            opened.close()
        raise
    model.load_seconds = time.perf_counter() - started
    return model


def _family(directory: Path) -> Callable[..., OmniOrchestrator | TextToSpeech]:
    """Return the loader of the family that a directory's config.json names."""
    path = directory / "config.json"
    if not path.is_file():
        raise ModelNotFoundError(
            f"{directory}: has no config.json; give the directory of a downloaded Qwen3-Omni or Qwen3-TTS checkpoint"
        )
    data: Any = read_json(path)
    name = data.get("model_type") if isinstance(data, dict) else None
    families: dict[object, Callable[..., OmniOrchestrator | TextToSpeech]] = {OMNI: _load_omni, TTS: _load_tts}
    if name not in families:
        raise UnsupportedError(f"{path}: model_type is {name!r}; this version runs {OMNI}, {TTS}")
    return families[name]


def _load_omni(
    directory: Path, devices: dict[str, Device], quant: str | None, context: int, progress: Progress
) -> OmniOrchestrator:
    config = Qwen3OmniConfig.from_directory(directory)
    checkpoint = SafetensorsCheckpoint(directory)
    needed = omni_bytes(checkpoint, config, devices, quant=quant, context=context)
    _require(needed, directory)
    components = load_omni(checkpoint, config, devices, quant=quant, context=context, progress=progress)
    return OmniOrchestrator(directory, config, components, devices)


def _load_tts(
    directory: Path, devices: dict[str, Device], quant: str | None, context: int, progress: Progress
) -> TextToSpeech:
    config = Qwen3TtsConfig.from_json(_object(directory / "config.json"))
    tokenizer = directory / "speech_tokenizer"
    if not (tokenizer / "config.json").is_file():
        raise ModelNotFoundError(f"{tokenizer}: has no config.json; the codec of Qwen3-TTS lies there, download it too")
    codec_config = CodecConfig.from_json(_object(tokenizer / "config.json"))
    checkpoint, codec = SafetensorsCheckpoint(directory), SafetensorsCheckpoint(tokenizer)
    _require(tts_bytes(checkpoint, codec, config, devices, quant=quant, context=context), directory)
    components = load_tts(
        checkpoint, codec, config, codec_config, devices, quant=quant, context=context, progress=progress
    )
    defaults = generation_defaults(directory / "generation_config.json")
    return TextToSpeech(directory, config, components, devices, defaults)


def generation_defaults(path: Path) -> tuple[Sampling, Sampling]:
    """Return how talker and code predictor of Qwen3-TTS pick when a call says nothing; a missing file is fine."""
    data = _object(path) if path.is_file() else {}

    def sampling(prefix: str, drawn: str, penalty: float) -> Sampling:
        if data.get(drawn, True) is False:
            return Sampling(repetition_penalty=penalty)
        return Sampling(
            temperature=data.get(f"{prefix}temperature", 0.9),
            top_k=data.get(f"{prefix}top_k", 50),
            top_p=data.get(f"{prefix}top_p", 1.0),
            repetition_penalty=penalty,
        )

    talker = sampling("", "do_sample", data.get("repetition_penalty", 1.05))
    return talker, sampling("subtalker_", "subtalker_dosample", 1.0)


def _require(needed: dict[Device, int], directory: Path) -> None:
    """Raise OutOfMemoryError when a device has not what a model will take."""
    for device, size in needed.items():
        device.ledger.require(size, f"{directory.name} on {device.name}")


def _object(path: Path) -> dict[str, Any]:
    data: Any = read_json(path)
    if not isinstance(data, dict):
        raise ModelFormatError(f"{path}: is no JSON object")
    return data


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
