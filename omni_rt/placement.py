"""Where the components of a model live, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

VOCODERS = ("code2wav", "griffin-lim")
"""What can turn the codes of Qwen3-Omni into sound: a network, or a search for the phase of the mels they stand for."""


class DevicePlacement(StrEnum):
    """The device of one component; AUTO follows the `device` that the model was loaded for."""

    CPU = "cpu"
    WGPU = "wgpu"
    AUTO = "auto"


class WeightFormat(StrEnum):
    """The precision of linear weights: as the file stores them, or 8-bit blocks."""

    AS_STORED = "as_stored"
    Q8_0 = "q8_0"


@dataclass(frozen=True)
class OmniConfig:
    """One placement per component of Qwen3-Omni. The talker and its code predictor are fastest side by side."""

    audio_encoder: DevicePlacement = DevicePlacement.AUTO
    vision_encoder: DevicePlacement = DevicePlacement.AUTO
    thinker: DevicePlacement = DevicePlacement.AUTO
    talker: DevicePlacement = DevicePlacement.AUTO
    code_predictor: DevicePlacement = DevicePlacement.AUTO
    code2wav: DevicePlacement = DevicePlacement.AUTO

    def __post_init__(self) -> None:
        """Accept the names of placements as well as the placements themselves; raise ValueError for others."""
        for component in fields(self):
            object.__setattr__(self, component.name, DevicePlacement(getattr(self, component.name)))
