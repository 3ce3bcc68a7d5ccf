"""The components of Qwen3-Omni: each read from its part of the checkpoint onto its own device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omni_rt.model_part import ModelPart, Progress, read_counter
from omni_rt.models.code_predictor import CodePredictor
from omni_rt.models.code_stream import recorded_bytes
from omni_rt.models.decoder_config import DecoderConfig
from omni_rt.models.qwen3_omni.audio_encoder import AudioEncoder
from omni_rt.models.qwen3_omni.code2wav import Code2Wav, waveform_shape
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_omni.inputs import Encoders
from omni_rt.models.qwen3_omni.processor import Processor
from omni_rt.models.qwen3_omni.talker import DEFAULT_VOICE, Talker, code_sizes
from omni_rt.models.qwen3_omni.thinker import Thinker
from omni_rt.models.qwen3_omni.vision_encoder import VisionEncoder
from omni_rt.state import cache_bytes
from omni_rt.weights import Weights

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

PREFIXES = {
    "audio_encoder": "thinker.audio_tower.",
    "vision_encoder": "thinker.visual.",
    "thinker": "thinker.",
    "code_predictor": "talker.code_predictor.",
    "talker": "talker.",
    "code2wav": "code2wav.",
}
"""Where each component lies in a checkpoint."""


@dataclass(frozen=True)
class Components:
    """The loaded components; the last three are None in a model without speech output."""

    config: Qwen3OmniConfig
    audio_encoder: AudioEncoder
    vision_encoder: VisionEncoder
    thinker: Thinker
    talker: Talker | None
    code_predictor: CodePredictor | None
    code2wav: Code2Wav | None

    def encoders(self, processor: Processor) -> Encoders:
        """Return what turns media into embeddings."""
        return Encoders(processor, self.audio_encoder, self.vision_encoder, self.config, self.thinker.cache.rows)

    def voices(self) -> list[str]:
        """Return the names of the speakers, the default one first."""
        assert self.config.talker is not None
        names = list(self.config.talker.speakers)
        return sorted(names, key=lambda name: name != DEFAULT_VOICE)


def components_of(config: Qwen3OmniConfig) -> dict[str, str]:
    """Return the components that a model has, with their prefixes: without speech output only three."""
    speaks = config.talker is not None
    return {name: prefix for name, prefix in PREFIXES.items() if speaks or prefix.startswith("thinker.")}


def cached_decoders(config: Qwen3OmniConfig) -> dict[str, DecoderConfig]:
    """Return the decoders whose cache grows with the context."""
    talker = {} if config.talker is None else {"talker": config.talker.decoder}
    return {"thinker": config.thinker, **talker}


def planned_bytes(
    part: ModelPart, config: Qwen3OmniConfig, devices: Mapping[str, Device], *, context: int
) -> dict[Device, int]:
    """Return about how many bytes weights, caches and the recordings of streamed speech will take on each device."""
    needed = dict.fromkeys(devices.values(), 0)
    for component, size in part.placed_bytes().items():
        needed[devices[component]] += size
    for component, decoder in cached_decoders(config).items():
        needed[devices[component]] += cache_bytes(decoder.cache_shape(context), part.quants[component])
    if config.code2wav is not None:
        speaking = devices["code2wav"]
        needed[speaking] += recorded_bytes(waveform_shape(config.code2wav), speaking)
    return needed


def load_components(
    part: ModelPart,
    config: Qwen3OmniConfig,
    devices: Mapping[str, Device],
    *,
    context: int,
    progress: Progress,
) -> Components:
    """Read every component. Raises ModelFormatError when tensors are missing, misshapen, or belong to nothing."""
    count = read_counter([part], progress)

    def weights(component: str) -> Weights:
        return part.weights(component, devices[component], count)

    talker_config = config.talker
    audio_encoder = AudioEncoder(weights("audio_encoder"), config.audio)
    vision_encoder = VisionEncoder(weights("vision_encoder"), config.vision)
    thinker = Thinker(
        weights("thinker"),
        config.thinker,
        context=context,
        accept_layer=talker_config.accept_hidden_layer if talker_config else 0,
        stop_id=config.tokens.im_end,
    )
    if talker_config is None or config.code2wav is None:
        return Components(config, audio_encoder, vision_encoder, thinker, None, None, None)
    predictor = CodePredictor(weights("code_predictor"), talker_config.code_predictor, code_sizes(talker_config))
    talker = Talker(weights("talker"), talker_config, config.tokens, predictor, context=context)
    code2wav = Code2Wav(weights("code2wav"), config.code2wav)
    return Components(config, audio_encoder, vision_encoder, thinker, talker, predictor, code2wav)
