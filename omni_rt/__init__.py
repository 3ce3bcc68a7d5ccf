"""omni_rt: a local runtime for speech-and-vision models on any GPU, without PyTorch.

Importing the package opens no device and reads no model; what is heavy is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omni_rt.errors import (
    CancelledError,
    DeviceError,
    InputError,
    ModelFormatError,
    ModelNotFoundError,
    OmniError,
    OutOfMemoryError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from omni_rt import ops
    from omni_rt.devices import open_device
    from omni_rt.loading import load
    from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
    from omni_rt.models.qwen3_tts.session import TextToSpeech
    from omni_rt.placement import DevicePlacement, OmniConfig, WeightFormat
    from omni_rt.prompt import Prompt, Video
    from omni_rt.quantize_files import quantize
    from omni_rt.results import (
        AudioChunk,
        AudioOutput,
        AudioTokens,
        CodecTokens,
        Done,
        Reply,
        Speech,
        TextDelta,
        ThinkerOutput,
        VisionTokens,
    )
    from omni_rt.sampling import Sampling
    from omni_rt.tensor import Tensor
    from omni_rt.voice import Voice

_LAZY = {
    "load": "omni_rt.loading",
    "open_device": "omni_rt.devices",
    "quantize": "omni_rt.quantize_files",
    "ops": "omni_rt.ops",
    "Tensor": "omni_rt.tensor",
    "Prompt": "omni_rt.prompt",
    "Video": "omni_rt.prompt",
    "Sampling": "omni_rt.sampling",
    "OmniConfig": "omni_rt.placement",
    "DevicePlacement": "omni_rt.placement",
    "WeightFormat": "omni_rt.placement",
    **dict.fromkeys(
        ("AudioChunk", "AudioOutput", "AudioTokens", "CodecTokens", "Done", "Reply", "TextDelta", "ThinkerOutput"),
        "omni_rt.results",
    ),
    "Speech": "omni_rt.results",
    "VisionTokens": "omni_rt.results",
    "Voice": "omni_rt.voice",
    "OmniOrchestrator": "omni_rt.models.qwen3_omni.orchestrator",
    "TextToSpeech": "omni_rt.models.qwen3_tts.session",
}

__all__ = [
    "AudioChunk",
    "AudioOutput",
    "AudioTokens",
    "CancelledError",
    "CodecTokens",
    "DeviceError",
    "DevicePlacement",
    "Done",
    "InputError",
    "ModelFormatError",
    "ModelNotFoundError",
    "OmniConfig",
    "OmniError",
    "OmniOrchestrator",
    "OutOfMemoryError",
    "Prompt",
    "Reply",
    "Sampling",
    "Speech",
    "Tensor",
    "TextDelta",
    "TextToSpeech",
    "ThinkerOutput",
    "UnsupportedError",
    "Video",
    "VisionTokens",
    "Voice",
    "WeightFormat",
    "load",
    "open_device",
    "ops",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"omni_rt has no {name!r}")
    module = import_module(_LAZY[name])
    value = module if name == "ops" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
