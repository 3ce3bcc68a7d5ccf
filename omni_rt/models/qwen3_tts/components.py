"""The components of Qwen3-TTS, each read from its part of the checkpoint onto its own device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omni_rt.arguments import whole
from omni_rt.model_part import ModelPart, Progress, read_counter
from omni_rt.models.code_predictor import CodePredictor
from omni_rt.models.code_stream import CodeStream, recorded_bytes
from omni_rt.models.decoder_config import DecoderConfig
from omni_rt.models.qwen3_tts.codec_decoder import CodecDecoder, waveform_shape
from omni_rt.models.qwen3_tts.codec_encoder import CodecEncoder
from omni_rt.models.qwen3_tts.config import CodecConfig, Qwen3TtsConfig
from omni_rt.models.qwen3_tts.speaker_encoder import SpeakerEncoder
from omni_rt.models.qwen3_tts.talker import TtsTalker, code_sizes
from omni_rt.state import cache_bytes
from omni_rt.weights import Weights

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

PREFIXES = {"code_predictor": "talker.code_predictor.", "talker": "talker.", "speaker_encoder": "speaker_encoder."}
"""Where each component lies in model.safetensors."""

CODEC_PREFIXES = {"codec_encoder": "encoder.", "codec_decoder": "decoder."}
"""The same for speech_tokenizer/model.safetensors."""

PLACES = {"speaker_encoder": "audio_encoder", "codec_encoder": "code2wav", "codec_decoder": "code2wav"}
"""The name under which a component is placed, where it is not its own."""


class Codec:
    """The 12 Hz codec, both ways; `sample_rate` in Hz."""

    def __init__(self, encoder: CodecEncoder, decoder: CodecDecoder, config: CodecConfig) -> None:
        self.sample_rate = config.sample_rate
        self.samples_per_frame = config.samples_per_frame
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return the codes int32 [K, T] of 24 kHz mono samples [N]."""
        return self.encoder(samples)

    def decode(self, codes: np.ndarray, *, chunk: int | None = None, context: int = 25) -> np.ndarray:
        """Return the samples float32 [1920 T] of codes [K, T].

        With `chunk` (the original's is 300) they are those of the original for long speech, an approximation: so many
        frames at a time are decoded afresh behind `context` frames that come before them.
        """
        if chunk is None:
            return self.decoder(codes)
        chunk, context = whole("chunk", chunk, least=1), whole("context", context)
        pieces = [np.zeros(0, np.float32)]
        for start in range(0, np.shape(codes)[-1], chunk):
            before = min(context, start)
            piece = self.decoder(codes[:, start - before : start + chunk])
            pieces.append(piece[before * self.samples_per_frame :])
        return np.concatenate(pieces)

    def stream(self) -> CodeStream:
        """Open a decoder stream: `push` codes [K, T] and get their samples."""
        return self.decoder.stream()


@dataclass(frozen=True)
class TtsComponents:
    """The loaded components; only the Base variant has a speaker encoder."""

    talker: TtsTalker
    codec: Codec
    speaker_encoder: SpeakerEncoder | None


def components_of(config: Qwen3TtsConfig) -> dict[str, str]:
    """Return the components that a variant has in model.safetensors, with their prefixes."""
    has_speaker = config.speaker_encoder is not None
    return {name: prefix for name, prefix in PREFIXES.items() if has_speaker or name != "speaker_encoder"}


def cached_decoders(config: Qwen3TtsConfig) -> dict[str, DecoderConfig]:
    """Return the decoder whose cache grows with the context."""
    return {"talker": config.talker}


def planned_bytes(
    part: ModelPart,
    codec: ModelPart,
    config: Qwen3TtsConfig,
    codec_config: CodecConfig,
    devices: Mapping[str, Device],
    *,
    context: int,
) -> dict[Device, int]:
    """Return about how many bytes weights, caches and the recordings of streamed speech will take on each device."""
    needed = dict.fromkeys(devices.values(), 0)
    for component, size in (part.placed_bytes() | codec.placed_bytes()).items():
        needed[devices[PLACES.get(component, component)]] += size
    for component, decoder in cached_decoders(config).items():
        needed[devices[component]] += cache_bytes(decoder.cache_shape(context), part.quants[component])
    speaking = devices[PLACES["codec_decoder"]]
    needed[speaking] += recorded_bytes(waveform_shape(codec_config.decoder), speaking)
    return needed


def load_components(
    part: ModelPart,
    codec: ModelPart,
    config: Qwen3TtsConfig,
    codec_config: CodecConfig,
    devices: Mapping[str, Device],
    *,
    context: int,
    progress: Progress,
) -> TtsComponents:
    """Read every component. Raises ModelFormatError when tensors are missing, misshapen, or belong to nothing."""
    count = read_counter([part, codec], progress)

    def weights(component: str, part: ModelPart = part) -> Weights:
        return part.weights(component, devices[PLACES.get(component, component)], count)

    predictor = CodePredictor(weights("code_predictor"), config.code_predictor, code_sizes(config))
    talker = TtsTalker(weights("talker"), config, predictor, context=context)
    speaker = None
    if config.speaker_encoder is not None:
        speaker = SpeakerEncoder(weights("speaker_encoder"), config.speaker_encoder)
    listening, speaking = (weights(name, codec) for name in CODEC_PREFIXES)
    encoder = CodecEncoder(listening, codec_config.encoder, codebooks=codec_config.codebooks)
    decoder = CodecDecoder(speaking, codec_config.decoder)
    return TtsComponents(talker, Codec(encoder, decoder, codec_config), speaker)
