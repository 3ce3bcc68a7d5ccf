"""The components of Qwen3-TTS, each read from its part of the checkpoint onto its own device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from omni_rt.errors import ModelFormatError
from omni_rt.models.code_predictor import CodePredictor
from omni_rt.models.qwen3_tts.codec_decoder import CodecDecoder
from omni_rt.models.qwen3_tts.codec_encoder import CodecEncoder
from omni_rt.models.qwen3_tts.config import CodecConfig, Qwen3TtsConfig
from omni_rt.models.qwen3_tts.speaker_encoder import SpeakerEncoder
from omni_rt.models.qwen3_tts.talker import TtsTalker, code_sizes
from omni_rt.models.waveform import CodeStream
from omni_rt.tensor import BLOCK
from omni_rt.weights import Checkpoint, Weights

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

PREFIXES = {"code_predictor": "talker.code_predictor.", "talker": "talker.", "audio_encoder": "speaker_encoder."}
"""Where each component lies in model.safetensors, under the names of its placement; the first that fits wins."""

CODEC_PREFIXES = ("encoder.", "decoder.")


class Codec:
    """The 12 Hz codec, both ways; `sample_rate` in Hz."""

    def __init__(self, encoder: CodecEncoder, decoder: CodecDecoder, config: CodecConfig) -> None:
        self.sample_rate = config.sample_rate
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return the codes int32 [K, T] of 24 kHz mono samples [N]."""
        return self.encoder(samples)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the samples float32 [1920 T] of codes [K, T]."""
        return self.decoder(codes)

    def stream(self) -> CodeStream:
        """Open a decoder stream: `push` codes [K, T] and get their samples."""
        return self.decoder.stream()


@dataclass(frozen=True)
class TtsComponents:
    """The loaded components; only the Base variant has a speaker encoder."""

    talker: TtsTalker
    codec: Codec
    speaker_encoder: SpeakerEncoder | None


def planned_bytes(
    checkpoint: Checkpoint,
    codec: Checkpoint,
    config: Qwen3TtsConfig,
    devices: Mapping[str, Device],
    *,
    quant: str | None,
    context: int,
) -> dict[Device, int]:
    """Return about how many bytes weights and caches will take on each device."""
    needed = dict.fromkeys(devices.values(), 0)
    for name in checkpoint.names():
        component = _component(name)
        if component is not None:
            shape = checkpoint.shape(name)
            linear = quant == "q8_0" and len(shape) == 2 and shape[1] % BLOCK == 0
            needed[devices[component]] += int(prod(shape) * (34 / 32 if linear else 4))
    needed[devices["code2wav"]] += sum(4 * prod(codec.shape(name)) for name in codec.names())
    talker = config.talker
    needed[devices["talker"]] += 8 * talker.layers * context * talker.kv_heads * talker.head_dim
    return needed


def _component(name: str) -> str | None:
    return next((component for component, prefix in PREFIXES.items() if name.startswith(prefix)), None)


def load_components(
    checkpoint: Checkpoint,
    codec_checkpoint: Checkpoint,
    config: Qwen3TtsConfig,
    codec_config: CodecConfig,
    devices: Mapping[str, Device],
    *,
    quant: str | None,
    context: int,
    progress: Callable[[int, int], None],
) -> TtsComponents:
    """Read every component. Raises ModelFormatError when tensors are missing, misshapen, or belong to nothing."""
    strangers = [name for name in checkpoint.names() if _component(name) is None]
    strangers += [name for name in codec_checkpoint.names() if not name.startswith(CODEC_PREFIXES)]
    if config.speaker_encoder is None:
        strangers += [name for name in checkpoint.names() if name.startswith("speaker_encoder.")]
    if strangers:
        raise ModelFormatError(f"the checkpoint holds tensors of no known component: {', '.join(strangers[:5])}")
    parts = (checkpoint, codec_checkpoint)
    total = sum(4 * prod(part.shape(name)) for part in parts for name in part.names())
    done = 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    def weights(component: str) -> Weights:
        return Weights(checkpoint, devices[component], quant=quant, prefix=PREFIXES[component], on_read=report)

    def codec_weights(prefix: str) -> Weights:
        return Weights(codec_checkpoint, devices["code2wav"], quant=quant, prefix=prefix, on_read=report)

    predictor = CodePredictor(weights("code_predictor"), config.code_predictor, code_sizes(config))
    talker = TtsTalker(weights("talker"), config, predictor, context=context)
    speaker = None
    if config.speaker_encoder is not None:
        speaker = SpeakerEncoder(weights("audio_encoder"), config.speaker_encoder)
    encoder = CodecEncoder(codec_weights("encoder."), codec_config.encoder, codebooks=codec_config.codebooks)
    decoder = CodecDecoder(codec_weights("decoder."), codec_config.decoder)
    return TtsComponents(talker, Codec(encoder, decoder, codec_config), speaker)
