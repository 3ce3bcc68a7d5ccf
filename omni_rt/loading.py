"""Loading a model: the reference to a directory, its family, devices for its components, memory checked first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

from omni_rt.arguments import whole
from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from omni_rt.devices.ledger import GIB
from omni_rt.errors import InputError, OutOfMemoryError, UnsupportedError
from omni_rt.io.files import read_json
from omni_rt.io.hub import resolve
from omni_rt.model_files import OmniFiles, TtsFiles, open_model
from omni_rt.model_part import Progress
from omni_rt.models.qwen3_omni import components as omni
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.models.qwen3_tts import components as tts
from omni_rt.models.qwen3_tts.config import sampling_defaults
from omni_rt.models.qwen3_tts.session import TextToSpeech
from omni_rt.placement import VOCODERS, DevicePlacement, OmniConfig, WeightFormat


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
    vocoder: str = VOCODERS[0],
    progress: Progress | None = None,
) -> OmniOrchestrator | TextToSpeech:
    """Load a model: "tiny", a directory in Hugging Face layout or one that `quantize` wrote, or org/repo[@revision].

    `device` is "auto", "cpu", "wgpu" or "wgpu:1"; `placement` moves single components elsewhere. `quant` "q8_0"
    quantises while loading. `context` is the longest conversation in tokens, `max_memory` a budget in bytes for each
    device. `strict` makes a CPU fallback an error. `threads` and `level` are those of the CPU, see `open_device`.
    `vocoder` "griffin-lim" speaks without Code2Wav, from tables of mels that some models of Qwen3-Omni bring.
    Raises ModelNotFoundError, ModelFormatError, UnsupportedError, DeviceError, or OutOfMemoryError before anything is
    allocated.
    """
    started = time.perf_counter()
    context = whole("the context", context, least=1)
    if placement is not None and not isinstance(placement, OmniConfig):
        raise InputError(f"placement is {type(placement).__name__}, expected an OmniConfig")
    if vocoder not in VOCODERS:
        raise UnsupportedError(f"vocoder={vocoder!r} is not known: use {' or '.join(map(repr, VOCODERS))}")
    precision = _precision(quant)
    directory = resolve(str(ref), local_files_only=local_files_only)
    files = open_model(directory, precision)
    open_named = partial(open_device, strict=strict, max_memory=max_memory, threads=threads, level=level)
    devices = _open_devices(device, placement or OmniConfig(), open_named)
    report = progress or (lambda done, total: None)
    try:
        model: OmniOrchestrator | TextToSpeech
        if isinstance(files, OmniFiles):
            model = _load_omni(files, devices, context, vocoder, report)
        elif vocoder != VOCODERS[0]:
            raise UnsupportedError(f"{directory}: Qwen3-TTS speaks through its own codec, not through {vocoder}")
        else:
            model = _load_tts(files, devices, context, report)
        for opened in set(devices.values()):
            opened.settle()
    except BaseException:
        for opened in set(devices.values()):
            opened.close()
        raise
    model.load_seconds = time.perf_counter() - started
    return model


def _precision(quant: str | WeightFormat | None) -> str | None:
    """Return "q8_0", or None for the file's own; raise UnsupportedError for a name that stands for neither."""
    try:
        return "q8_0" if quant is not None and WeightFormat(quant) == WeightFormat.Q8_0 else None
    except ValueError:
        raise UnsupportedError(f"quant={quant!r} is not known: use 'q8_0', or None for the file's precision") from None


def _load_omni(
    files: OmniFiles, devices: dict[str, Device], context: int, vocoder: str, progress: Progress
) -> OmniOrchestrator:
    _require(omni.planned_bytes(files.main, files.config, devices, context=context), files.directory)
    components = omni.load_components(files.main, files.config, devices, context=context, progress=progress)
    return OmniOrchestrator(files.directory, files.config, components, devices, vocoder=vocoder)


def _load_tts(files: TtsFiles, devices: dict[str, Device], context: int, progress: Progress) -> TextToSpeech:
    parts = files.main, files.codec, files.config, files.codec_config, devices
    _require(tts.planned_bytes(*parts, context=context), files.directory)
    components = tts.load_components(*parts, context=context, progress=progress)
    settings = files.directory / "generation_config.json"
    defaults = sampling_defaults(read_json(settings) if settings.is_file() else {})
    return TextToSpeech(files.directory, files.config, components, devices, defaults)


def _require(needed: dict[Device, int], directory: Path) -> None:
    """Raise OutOfMemoryError when a device has not what a model will take.

    Without a budget the free memory counts: the machine's own for all that lies in it together, and each GPU's.
    """
    for device, size in needed.items():
        device.ledger.require(size, f"{directory.name} on {device.name}")
    free = [device for device in needed if device.ledger.budget is None]
    shared = [device for device in free if device.own_memory is None]
    for group in [shared, *([device] for device in free if device.own_memory is not None)]:
        size, left = sum(needed[device] for device in group), group[0].memory_left() if group else None
        if left is not None and size > left:
            raise OutOfMemoryError(
                f"{directory.name} on {' and '.join(device.name for device in group)} needs {size / GIB:.2f} GiB, but "
                f"{left / GIB:.2f} GiB of memory are free: quantise (quant='q8_0'), shorten the context, close other "
                "programs, place a component elsewhere, or set max_memory to try all the same",
                size,
                left,
            )


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
