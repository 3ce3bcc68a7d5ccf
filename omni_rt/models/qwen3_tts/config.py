"""The configs of Qwen3-TTS, read strictly: config.json of the talker, speech_tokenizer/config.json of the codec.

Class defaults of the reference are wrong for the releases, so none is used; the few defaults here are for keys which
the released files leave out, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from omni_rt.errors import ModelFormatError
from omni_rt.models.config import (
    BOILERPLATE,
    PLAIN_ATTENTION,
    Fixed,
    agree,
    full_attention,
    key,
    plain_rope,
    read,
    read_sampling,
    require,
    section_of,
)
from omni_rt.models.decoder_config import DecoderConfig
from omni_rt.sampling import Sampling

MODEL_TYPE = "qwen3_tts"

_ELSEWHERE = "is read on its own"
_NO_WINDOW = {**PLAIN_ATTENTION, "sliding_window": Fixed((None,)), "tie_word_embeddings": Fixed((False,))}
_IGNORED_DECODER = {
    **BOILERPLATE,
    "max_window_layers": "is read only with a sliding window, which is refused",
    "position_id_per_seconds": "is read by nothing: all three position axes count rows",
    "mrope_section": "assigns frequencies to axes, which all carry the same position here",
}
_IGNORED_TOP = {**BOILERPLATE, "talker_config": _ELSEWHERE, "speaker_encoder_config": _ELSEWHERE}
_IGNORED_CODEC = {
    **BOILERPLATE,
    **dict.fromkeys(("encoder_config", "decoder_config"), _ELSEWHERE),
}
_IGNORED_CODEC_DECODER = {
    **BOILERPLATE,
    **dict.fromkeys(
        ("semantic_codebook_size", "num_semantic_quantizers", "vector_quantization_hidden_dimension"),
        "describes the quantiser of training; the stored codebooks all have codebook_size entries",
    ),
}
_IGNORED_CODEC_ENCODER = {
    **BOILERPLATE,
    "max_position_embeddings": "bounds nothing in the encoder's own code",
    "sliding_window": "is not applied by the reference that the release pins (plain causal attention)",
    "frame_rate": "repeats _frame_rate",
    "sampling_rate": "repeats the codec's input_sample_rate",
    "upsample_groups": "belongs to the decoder of Mimi, which is not stored",
    "trim_right_ratio": "belongs to the decoder of Mimi, which is not stored",
    "use_streaming": "is about how the reference is run",
    "normalize": "says nothing at inference: the input is taken as it is",
}


@dataclass(frozen=True, kw_only=True)
class TtsTalkerConfig(DecoderConfig):
    """The dense talker. `text_vocabulary` rows of width `text_width` are projected to its own width.

    The codec_* ids, `languages` and `speakers` are rows of the codec embedding of `vocabulary` entries.
    """

    vocabulary: int = key("vocab_size")
    text_vocabulary: int = key("text_vocab_size")
    text_width: int = key("text_hidden_size")
    codebooks: int = key("num_code_groups", minimum=2)
    codec_pad: int = key("codec_pad_id", minimum=0)
    codec_bos: int = key("codec_bos_id", minimum=0)
    codec_eos: int = key("codec_eos_token_id", minimum=0)
    codec_think: int = key("codec_think_id", minimum=0)
    codec_nothink: int = key("codec_nothink_id", minimum=0)
    codec_think_bos: int = key("codec_think_bos_id", minimum=0)
    codec_think_eos: int = key("codec_think_eos_id", minimum=0)
    languages: Mapping[str, int] = key("codec_language_id", minimum=0)
    speakers: Mapping[str, int] = field(default_factory=dict)
    dialects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TtsCodePredictorConfig(DecoderConfig):
    """The dense decoder that adds codebooks 1 to `codebooks` - 1 of a frame, each of `vocabulary` entries."""

    vocabulary: int = key("vocab_size")
    codebooks: int = key("num_code_groups", minimum=2)


@dataclass(frozen=True, kw_only=True)
class SpeakerEncoderConfig:
    """The ECAPA-TDNN of the Base models, which writes an embedding of `width` values.

    The released files hold only the width and the sample rate; the other sizes are those of the stored tensors.
    """

    width: int = key("enc_dim")
    sample_rate: int = key("sample_rate")
    mels: int = key("mel_dim", default=128)
    channels: tuple[int, ...] = key("enc_channels", default=(512, 512, 512, 512, 1536))
    kernels: tuple[int, ...] = key("enc_kernel_sizes", default=(5, 3, 3, 3, 1))
    dilations: tuple[int, ...] = key("enc_dilations", default=(1, 2, 3, 4, 1))
    attention_channels: int = key("enc_attention_channels", default=128)
    res2net_scale: int = key("enc_res2net_scale", default=8)
    squeeze_channels: int = key("enc_se_channels", default=128)


@dataclass(frozen=True, kw_only=True)
class TtsTokenIds:
    """Ids of the text tokens that frame a request."""

    im_start: int = key("im_start_token_id", minimum=0)
    im_end: int = key("im_end_token_id", minimum=0)
    assistant: int = key("assistant_token_id", minimum=0)
    tts_pad: int = key("tts_pad_token_id", minimum=0)
    tts_bos: int = key("tts_bos_token_id", minimum=0)
    tts_eos: int = key("tts_eos_token_id", minimum=0)


@dataclass(frozen=True, kw_only=True)
class Qwen3TtsConfig:
    """Everything that config.json says. `kind` is "base", "custom_voice" or "voice_design", `size` "0b6" or "1b7"."""

    kind: str
    size: str
    tokens: TtsTokenIds
    talker: TtsTalkerConfig
    code_predictor: TtsCodePredictorConfig
    speaker_encoder: SpeakerEncoderConfig | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Qwen3TtsConfig:
        """Return the config of a parsed config.json.

        Raises ModelFormatError for a missing, unknown or contradictory key, UnsupportedError for a setting of which
        only the released value is implemented.
        """
        where = "config.json"
        agree("kind of model", (f"{where} model_type", data.get("model_type")), ("this reader's", MODEL_TYPE))
        top = read(_Top, data, where, ignored=_IGNORED_TOP | dict.fromkeys(_TOKENS, _ELSEWHERE), fixed=_TOP_FIXED)
        tokens = read(TtsTokenIds, {name: data[name] for name in _TOKENS if name in data}, where)
        section = section_of(data, "talker_config", where)
        where = f"{where}: talker_config"
        ignored = _IGNORED_DECODER | dict.fromkeys(("code_predictor_config", "spk_id", "spk_is_dialect"), _ELSEWHERE)
        speakers, dialects = _speakers(section)
        talker = read(
            TtsTalkerConfig, plain_rope(section, where), where, ignored=ignored, fixed=_NO_WINDOW,
            given={"speakers": speakers, "dialects": dialects, "rope_sections": ()},
        )  # fmt: skip
        predictor = plain_rope(section_of(section, "code_predictor_config", where), f"{where}.code_predictor_config")
        full = {**_NO_WINDOW, "layer_types": full_attention(predictor)}
        code_predictor = read(
            TtsCodePredictorConfig, predictor, f"{where}.code_predictor_config", ignored=_IGNORED_DECODER, fixed=full
        )
        encoder = None
        if top.kind == "base":
            part = section_of(data, "speaker_encoder_config", "config.json")
            encoder = read(SpeakerEncoderConfig, part, "config.json: speaker_encoder_config")
        config = cls(
            kind=top.kind,
            size=top.size,
            tokens=tokens,
            talker=talker,
            code_predictor=code_predictor,
            speaker_encoder=encoder,
        )
        config._check()
        return config

    def _check(self) -> None:
        talker, predictor = self.talker, self.code_predictor
        require(self.kind in KINDS, f"config.json: tts_model_type is {self.kind!r}, expected one of {', '.join(KINDS)}")
        agree("codebooks", ("talker num_code_groups", talker.codebooks), ("code predictor's", predictor.codebooks))
        ids = {name: value for name, value in vars(talker).items() if name.startswith("codec_")}
        for name, value in {**ids, **talker.languages, **talker.speakers}.items():
            require(value < talker.vocabulary, f"id {value} of {name} is outside the vocabulary of {talker.vocabulary}")
        for name, value in vars(self.tokens).items():
            require(
                value < talker.text_vocabulary, f"token {name} {value} is outside {talker.text_vocabulary} text ids"
            )
        for speaker, dialect in talker.dialects.items():
            require(dialect in talker.languages, f"speaker {speaker} has the dialect {dialect!r}, no known language")
        if self.speaker_encoder is not None:
            width = ("speaker_encoder_config enc_dim", self.speaker_encoder.width)
            agree("width of the talker", width, ("hidden_size", talker.width))


KINDS = ("base", "custom_voice", "voice_design")
_TOKENS = [
    "im_start_token_id", "im_end_token_id", "assistant_token_id",
    "tts_pad_token_id", "tts_bos_token_id", "tts_eos_token_id",
]  # fmt: skip
_TOP_FIXED = {"tokenizer_type": Fixed(("qwen3_tts_tokenizer_12hz",)), "quantization_config": Fixed((None,))}


@dataclass(frozen=True, kw_only=True)
class _Top:
    kind: str = key("tts_model_type")
    size: str = key("tts_model_size")


def _speakers(talker: dict[str, Any]) -> tuple[dict[str, int], dict[str, str]]:
    """Return speakers by name and the dialects of those that have one; names in lower case."""
    speakers, dialects = talker.get("spk_id") or {}, talker.get("spk_is_dialect") or {}
    if not isinstance(speakers, dict) or not isinstance(dialects, dict):
        raise ModelFormatError("config.json: talker_config: spk_id and spk_is_dialect must be JSON objects")
    for name, value in speakers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ModelFormatError(f"config.json: talker_config.spk_id: {name} is {value!r}, expected a row number")
    spoken = {name.lower(): dialect for name, dialect in dialects.items() if isinstance(dialect, str) and dialect}
    return {name.lower(): value for name, value in speakers.items()}, spoken


def sampling_defaults(data: Mapping[str, Any]) -> tuple[Sampling, Sampling]:
    """Return how talker and code predictor pick when a call says nothing, by a parsed generation_config.json or {}.

    Raises ModelFormatError for a value of the wrong type or out of range.
    """
    talker = read_sampling(data, "", Sampling(0.9, 50, 1.0, 1.05))
    predictor = replace(read_sampling(data, "subtalker_", Sampling(0.9, 50)), repetition_penalty=1.0)
    if data.get("do_sample") is False:
        talker = Sampling(repetition_penalty=talker.repetition_penalty)
    return talker, Sampling() if data.get("subtalker_dosample") is False else predictor


@dataclass(frozen=True, kw_only=True)
class CodecDecoderConfig(DecoderConfig):
    """Codes to samples: split codebooks, a windowed transformer between two projections, the waveform stack.

    Codebook vectors are `codebook_width` / 2 wide before their output projection; `latent_width` is that of the rows
    around the transformer.
    """

    query_key_norm: bool = False
    layer_scale: bool = True
    sliding_window: int = key("sliding_window")
    latent_width: int = key("latent_dim")
    codebooks: int = key("num_quantizers")
    codebook_size: int = key("codebook_size")
    codebook_width: int = key("codebook_dim")
    decoder_width: int = key("decoder_dim")
    upsample_ratios: tuple[int, ...] = key("upsampling_ratios")
    upsample_rates: tuple[int, ...] = key("upsample_rates")

    @property
    def samples_per_frame(self) -> int:
        """Samples of one frame of codes: 1920 in the release."""
        return prod(self.upsample_ratios) * prod(self.upsample_rates)


@dataclass(frozen=True, kw_only=True)
class CodecEncoderConfig:
    """Samples to codes: strided convolutions, a transformer, a downsampling convolution, residual quantisers.

    `ratios` are stored from the last stride to the first. Of the stored `quantisers` the codec uses its own number.
    """

    filters: int = key("num_filters")
    kernel: int = key("kernel_size")
    residual_kernel: int = key("residual_kernel_size")
    last_kernel: int = key("last_kernel_size")
    compress: int = key("compress")
    ratios: tuple[int, ...] = key("upsampling_ratios")
    width: int = key("hidden_size")
    layers: int = key("num_hidden_layers")
    heads: int = key("num_attention_heads")
    kv_heads: int = key("num_key_value_heads")
    head_dim: int = key("head_dim")
    feed_forward: int = key("intermediate_size")
    norm_epsilon: float = key("norm_eps", minimum=0)
    rope_theta: float = key("rope_theta")
    quantisers: int = key("num_quantizers")
    codebook_size: int = key("codebook_size")
    codebook_width: int = key("codebook_dim")
    frame_rate: float = key("_frame_rate", minimum=0, default=12.5)


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """The 12 Hz codec: both directions, and the rates that tie them together."""

    encoder: CodecEncoderConfig
    decoder: CodecDecoderConfig
    codebooks: int
    sample_rate: int
    samples_per_frame: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CodecConfig:
        """Return the config of a parsed speech_tokenizer/config.json; raises as Qwen3TtsConfig.from_json does."""
        where = "speech_tokenizer/config.json"
        top = read(_CodecTop, data, where, ignored=_IGNORED_CODEC)
        decoding = plain_rope(section_of(data, "decoder_config", where), where)
        decoder = read(
            CodecDecoderConfig, decoding, f"{where}: decoder_config",
            ignored=_IGNORED_CODEC_DECODER, fixed=PLAIN_ATTENTION, given={"rope_sections": ()},
        )  # fmt: skip
        encoding = plain_rope(section_of(data, "encoder_config", where), where)
        encoder = read(
            CodecEncoderConfig, encoding, f"{where}: encoder_config",
            ignored=_IGNORED_CODEC_ENCODER, fixed=_ENCODER_FIXED,
        )  # fmt: skip
        agree("rate", (f"{where} input_sample_rate", top.input_rate), ("output_sample_rate", top.output_rate))
        agree("samples of a frame", ("decode_upsample_rate", top.upsample), ("the strides", decoder.samples_per_frame))
        agree("samples of a frame", ("encode_downsample_rate", top.downsample), ("decode_upsample_rate", top.upsample))
        agree("codebooks", ("encoder_valid_num_quantizers", top.codebooks), ("num_quantizers", decoder.codebooks))
        agree("entries of a codebook", ("encoder", encoder.codebook_size), ("decoder", decoder.codebook_size))
        require(
            encoder.quantisers >= top.codebooks, f"{where}: {encoder.quantisers} quantisers give no {top.codebooks}"
        )
        return cls(
            encoder=encoder,
            decoder=decoder,
            codebooks=top.codebooks,
            sample_rate=top.output_rate,
            samples_per_frame=top.upsample,
        )


_ENCODER_FIXED = {
    "hidden_act": Fixed(("gelu",), required=True),
    "audio_channels": Fixed((1,)),
    "num_residual_layers": Fixed((1,)),
    "dilation_growth_rate": Fixed((2,)),
    "num_semantic_quantizers": Fixed((1,)),
    "pad_mode": Fixed(("constant",)),
    "use_causal_conv": Fixed((True,)),
    "use_conv_shortcut": Fixed((False,)),
    "attention_bias": Fixed((False,)),
    "vector_quantization_hidden_dimension": Fixed((None, 256, 16)),
}


@dataclass(frozen=True, kw_only=True)
class _CodecTop:
    codebooks: int = key("encoder_valid_num_quantizers")
    input_rate: int = key("input_sample_rate")
    output_rate: int = key("output_sample_rate")
    upsample: int = key("decode_upsample_rate")
    downsample: int = key("encode_downsample_rate")
