"""The configs of Qwen3-TTS: every released variant is read as published, nothing unknown or contradictory is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from omni_rt.errors import ModelFormatError, UnsupportedError
from omni_rt.models.qwen3_tts.config import CodecConfig, Qwen3TtsConfig
from tests.test_config import PRETRAINED, Json, attention, put

LANGUAGES = {
    "chinese": 2055, "english": 2050, "german": 2053, "italian": 2070, "portuguese": 2071, "spanish": 2054,
    "japanese": 2058, "korean": 2064, "french": 2061, "russian": 2069,
}  # fmt: skip
DIALECTS = {"beijing_dialect": 2074, "sichuan_dialect": 2062}
SPEAKERS = {
    "serena": 3066, "vivian": 3065, "uncle_fu": 3010, "ryan": 3061, "aiden": 2861, "ono_anna": 2873, "sohee": 2864,
    "eric": 2875, "dylan": 2878,
}  # fmt: skip
SPEAK = {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}
RELEASED = [("base", "0b6"), ("base", "1b7"), ("custom_voice", "0b6"), ("custom_voice", "1b7"), ("voice_design", "1b7")]


def released(kind: str = "custom_voice", size: str = "1b7") -> Json:
    """Return the released config.json of a variant."""
    width, custom = {"0b6": 1024, "1b7": 2048}[size], kind == "custom_voice"
    predictor = {
        **PRETRAINED, **attention(1024, 5, 16, 8), "head_dim": 128, "intermediate_size": 3072, "num_code_groups": 16,
        "layer_types": ["full_attention"] * 5, "max_window_layers": 28, "rope_scaling": None, "sliding_window": None,
        "use_sliding_window": False, "tie_word_embeddings": False, "vocab_size": 2048, "typical_p": 1.0,
        "model_type": "qwen3_tts_talker_code_predictor",
    }  # fmt: skip
    talker = {
        **attention(width, 28, 16, 8), "code_predictor_config": predictor, "head_dim": 128,
        "intermediate_size": 3 * width, "codec_bos_id": 2149, "codec_eos_token_id": 2150, "codec_pad_id": 2148,
        "codec_think_id": 2154, "codec_nothink_id": 2155, "codec_think_bos_id": 2156, "codec_think_eos_id": 2157,
        "codec_language_id": LANGUAGES | (DIALECTS if custom else {}), "spk_id": SPEAKERS if custom else {},
        "spk_is_dialect": {name: SPEAK.get(name, False) for name in SPEAKERS} if custom else {},
        "max_position_embeddings": 32768, "model_type": "qwen3_tts_talker", "num_code_groups": 16,
        "position_id_per_seconds": 13, "initializer_range": 0.02, "sliding_window": None, "use_sliding_window": False,
        "rope_scaling": {"interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default", "type": "default"},
        "text_hidden_size": 2048, "text_vocab_size": 151936, "use_cache": True, "vocab_size": 3072,
    }  # fmt: skip
    if size == "0b6":
        talker["pad_token_id"] = 2148
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"], "assistant_token_id": 77091, "im_end_token_id": 151645,
        "im_start_token_id": 151644, "tts_bos_token_id": 151672, "tts_eos_token_id": 151673,
        "tts_pad_token_id": 151671, "model_type": "qwen3_tts", "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": size, "tts_model_type": kind, "talker_config": talker, "transformers_version": "4.57.3",
        "auto_map": {"AutoConfig": "configuration_qwen3_tts.Qwen3TTSConfig"},  # in some copies
        **({"speaker_encoder_config": {"enc_dim": width, "sample_rate": 24000}} if kind == "base" else {}),
    }  # fmt: skip


def released_codec() -> Json:
    """Return the released speech_tokenizer/config.json, the same in every variant."""
    encoder = {
        "_frame_rate": 12.5, "attention_bias": False, "attention_dropout": 0.0, "audio_channels": 1,
        "codebook_dim": 256, "codebook_size": 2048, "compress": 2, "dilation_growth_rate": 2, "dtype": "float32",
        "head_dim": 64, "hidden_act": "gelu", "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048,
        "kernel_size": 7, "last_kernel_size": 3, "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000,
        "norm_eps": 1e-5, "normalize": False, "num_attention_heads": 8, "num_filters": 64, "num_hidden_layers": 8,
        "num_key_value_heads": 8, "num_quantizers": 32, "num_residual_layers": 1, "num_semantic_quantizers": 1,
        "pad_mode": "constant", "residual_kernel_size": 3, "rope_theta": 10000.0, "sampling_rate": 24000,
        "sliding_window": 250, "trim_right_ratio": 1.0, "upsample_groups": 512, "upsampling_ratios": [8, 6, 5, 4],
        "use_cache": False, "use_causal_conv": True, "use_conv_shortcut": False, "use_streaming": False,
        "vector_quantization_hidden_dimension": 256,
    }  # fmt: skip
    decoder = {
        **attention(512, 8, 16, 16), "codebook_dim": 512, "codebook_size": 2048, "decoder_dim": 1536, "head_dim": 64,
        "intermediate_size": 1024, "latent_dim": 1024, "layer_scale_initial_scale": 0.01, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8000, "num_quantizers": 16, "num_semantic_quantizers": 1, "rope_theta": 10000,
        "semantic_codebook_size": 4096, "sliding_window": 72, "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2], "vector_quantization_hidden_dimension": 512,
    }  # fmt: skip
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"], "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_config": encoder, "decoder_config": decoder, "encoder_valid_num_quantizers": 16,
        "input_sample_rate": 24000, "output_sample_rate": 24000, "decode_upsample_rate": 1920,
        "encode_downsample_rate": 1920, "transformers_version": "4.57.3", "dtype": "float32",
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "size"), RELEASED)
def test_a_released_variant_is_read_as_published(kind: str, size: str) -> None:
    config = Qwen3TtsConfig.from_json(released(kind, size))
    talker, predictor = config.talker, config.code_predictor
    assert (config.kind, config.size, talker.width) == (kind, size, {"0b6": 1024, "1b7": 2048}[size])
    assert (talker.layers, talker.heads, talker.kv_heads, talker.head_dim) == (28, 16, 8, 128)
    assert (talker.vocabulary, talker.text_vocabulary, talker.text_width) == (3072, 151936, 2048)
    assert (talker.codec_pad, talker.codec_bos, talker.codec_eos) == (2148, 2149, 2150)
    assert (predictor.width, predictor.layers, predictor.vocabulary, predictor.codebooks) == (1024, 5, 2048, 16)
    assert not talker.rope_sections, "the three axes carry one position"
    custom = kind == "custom_voice"
    assert talker.speakers == (SPEAKERS if custom else {}) and talker.dialects == (SPEAK if custom else {})
    assert len(talker.languages) == (12 if custom else 10)
    encoder = config.speaker_encoder
    assert (encoder is not None) == (kind == "base")
    if encoder is not None:
        assert (encoder.width, encoder.mels, encoder.channels[-1]) == (talker.width, 128, 1536)


def test_the_released_codec_is_read_as_published() -> None:
    codec = CodecConfig.from_json(released_codec())
    encoder, decoder = codec.encoder, codec.decoder
    assert (codec.codebooks, codec.sample_rate, codec.samples_per_frame) == (16, 24000, 1920)
    assert (encoder.quantisers, encoder.ratios, encoder.width, encoder.frame_rate) == (32, (8, 6, 5, 4), 512, 12.5)
    assert (decoder.width, decoder.feed_forward, decoder.head_dim, decoder.sliding_window) == (512, 1024, 64, 72)
    assert not decoder.query_key_norm and decoder.layer_scale and decoder.samples_per_frame == 1920


SECTIONS: list[tuple[Callable[[], Json], Callable[[Json], object], tuple[str, ...]]] = [
    (released, Qwen3TtsConfig.from_json, ()),
    (released, Qwen3TtsConfig.from_json, ("talker_config",)),
    (released, Qwen3TtsConfig.from_json, ("talker_config", "code_predictor_config")),
    (lambda: released("base"), Qwen3TtsConfig.from_json, ("speaker_encoder_config",)),
    (released_codec, CodecConfig.from_json, ()),
    (released_codec, CodecConfig.from_json, ("encoder_config",)),
    (released_codec, CodecConfig.from_json, ("decoder_config",)),
]


@pytest.mark.parametrize(("make", "parse", "path"), SECTIONS)
def test_an_unknown_key_is_refused_and_one_left_out_is_missed_or_changes_nothing(
    make: Callable[[], Json], parse: Callable[[Json], object], path: tuple[str, ...]
) -> None:
    def changed(change: Callable[[Json], object]) -> Json:
        data = copy.deepcopy(make())
        section = data
        for step in path:
            section = section[step]
        change(section)
        return data

    with pytest.raises(ModelFormatError, match="'logit_softcap'"):
        parse(changed(lambda section: section.update(logit_softcap=30.0)))
    section: Any = make()
    for step in path:
        section = section[step]
    needed = 0
    for name in section:
        try:
            assert parse(changed(lambda section, name=name: section.pop(name))) == parse(make()) or name[:3] == "spk"
        except ModelFormatError as error:
            assert name in str(error)
            needed += 1
    assert needed >= 2


TALKER, PREDICTOR = ("talker_config",), ("talker_config", "code_predictor_config")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (put("tts_model_type", value="singing"), ModelFormatError, "tts_model_type is 'singing'"),
        (put("tokenizer_type", value="qwen3_tts_tokenizer_25hz"), UnsupportedError, "25hz"),
        (put(*TALKER, "attention_bias", value=True), UnsupportedError, "attention_bias is True"),
        (put(*TALKER, "sliding_window", value=4096), UnsupportedError, "sliding_window is 4096"),
        (put(*TALKER, "rope_scaling", "rope_type", value="yarn"), UnsupportedError, "yarn"),
        (put(*PREDICTOR, "layer_types", value=["sliding_attention"] * 5), UnsupportedError, "layer_types"),
        (put(*PREDICTOR, "num_code_groups", value=32), ModelFormatError, "codebooks"),
        (put(*TALKER, "spk_id", "ryan", value=3072), ModelFormatError, "ryan"),
        (put(*TALKER, "spk_id", "ryan", value="3061"), ModelFormatError, "ryan is '3061'"),
        (put(*TALKER, "spk_is_dialect", "ryan", value="cockney"), ModelFormatError, "'cockney', no known language"),
        (put(*TALKER, "codec_eos_token_id", value=4000), ModelFormatError, "4000 of codec_eos"),
        (put("tts_eos_token_id", value=151936), ModelFormatError, "151936"),
        (put(*TALKER, "hidden_size", value="2048"), ModelFormatError, "expected a whole number"),
    ],
)
def test_what_changes_the_maths_or_contradicts_itself_is_refused(
    change: Callable[[Json], None], error: type[Exception], says: str
) -> None:
    data = copy.deepcopy(released())
    change(data)
    with pytest.raises(error, match=says):
        Qwen3TtsConfig.from_json(data)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (put("encode_downsample_rate", value=960), ModelFormatError, "960"),
        (put("output_sample_rate", value=48000), ModelFormatError, "48000"),
        (put("encoder_valid_num_quantizers", value=8), ModelFormatError, "codebooks"),
        (put("decoder_config", "upsample_rates", value=[8, 5, 4, 2]), ModelFormatError, "1920"),
        (put("encoder_config", "pad_mode", value="reflect"), UnsupportedError, "pad_mode is 'reflect'"),
        (put("encoder_config", "num_residual_layers", value=2), UnsupportedError, "num_residual_layers is 2"),
    ],
)
def test_a_codec_that_contradicts_itself_is_refused(
    change: Callable[[Json], None], error: type[Exception], says: str
) -> None:
    data = released_codec()
    change(data)
    with pytest.raises(error, match=says):
        CodecConfig.from_json(data)
