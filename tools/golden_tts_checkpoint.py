"""Tiny Qwen3-TTS checkpoints with random weights, in the layout and under the names of the released ones; no PyTorch.

A voice model (talker, code predictor, with a speaker encoder in the base variant) is stored as BF16, the codec, which
all variants share, as F32. Ids keep the released order: text specials count from the size of the vocabulary, codec ids
are the released ones less 2048 minus the size of a codebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from golden_checkpoint import SPECIAL_TOKENS, special_token_ids, tokenizer_tables
from golden_files import write_json, write_safetensors, write_tokenizer
from golden_tensors import bfloat16_bits
from golden_tts_tensors import codec_shapes, random_codec_tensor, random_voice_tensor, voice_shapes

WORDS = ("assistant", "user", "Ġworld", "hello", "Ġthe", "Ġvoice", "Ġand", "Ġa", "ok", "in", "er", "on", "Ġdeep")

LANGUAGES = {
    "chinese": 2055, "english": 2050, "german": 2053, "italian": 2070, "portuguese": 2071, "spanish": 2054,
    "japanese": 2058, "korean": 2064, "french": 2061, "russian": 2069,
}  # fmt: skip
DIALECTS = {"beijing_dialect": 2074, "sichuan_dialect": 2062}
SPEAKERS = {
    "serena": 3066, "vivian": 3065, "uncle_fu": 3010, "ryan": 3061, "aiden": 2861, "ono_anna": 2873, "sohee": 2864,
    "eric": 2875, "dylan": 2878,
}  # fmt: skip
DIALECT_OF = {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}
CODEC_SPECIALS = {
    "codec_pad_id": 2148, "codec_bos_id": 2149, "codec_eos_token_id": 2150, "codec_think_id": 2154,
    "codec_nothink_id": 2155, "codec_think_bos_id": 2156, "codec_think_eos_id": 2157,
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One release: its size ("0b6" or "1b7"), kind ("custom_voice", "voice_design", "base") and widths."""

    size: str
    kind: str
    codebook_size: int = 32
    predictor_width: int = 32
    text_width: int = 48

    @property
    def width(self) -> int:
        """Width of the talker: the predictor's in 0b6, wider in 1b7, which adds a projection."""
        return self.predictor_width if self.size == "0b6" else self.predictor_width + 8

    @property
    def name(self) -> str:
        """Name of the variant's directory."""
        return f"tiny-{self.size}-{self.kind.replace('_', '')}"


VARIANTS = (
    Variant("0b6", "custom_voice"),
    Variant("1b7", "custom_voice"),
    Variant("1b7", "voice_design"),
    Variant("0b6", "base"),
    Variant("1b7", "base"),
)


def voice_configuration(variant: Variant) -> dict[str, Any]:
    """Write config.json of a voice model."""
    vocabulary, _ = tokenizer_tables(WORDS)
    ids = special_token_ids(len(vocabulary))
    config: dict[str, Any] = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "assistant_token_id": vocabulary["assistant"],
        "im_end_token_id": ids["<|im_end|>"],
        "im_start_token_id": ids["<|im_start|>"],
        "model_type": "qwen3_tts",
        "talker_config": _talker(variant, vocabulary),
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "transformers_version": "4.57.3",
        "tts_bos_token_id": ids["<tts_text_bos>"],
        "tts_eos_token_id": ids["<tts_text_eod>"],
        "tts_model_size": variant.size,
        "tts_model_type": variant.kind,
        "tts_pad_token_id": ids["<tts_pad>"],
    }  # fmt: skip
    if variant.kind == "base":
        config["speaker_encoder_config"] = {
            "enc_attention_channels": 8, "enc_channels": [16, 16, 16, 16, 48], "enc_dim": variant.width,
            "enc_se_channels": 8, "sample_rate": 24000,
        }  # fmt: skip
    return config


def _talker(variant: Variant, vocabulary: dict[str, int]) -> dict[str, Any]:
    """Write talker_config: speakers and dialects in custom_voice only."""
    shift = 2048 - variant.codebook_size
    custom = variant.kind == "custom_voice"
    languages = LANGUAGES | (DIALECTS if custom else {})
    speakers = SPEAKERS if custom else {}
    attention = {
        "attention_bias": False, "attention_dropout": 0, "head_dim": 16, "hidden_act": "silu",
        "num_attention_heads": 4, "num_code_groups": 16, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000, "sliding_window": None, "use_cache": True,
        "use_sliding_window": False,
    }  # fmt: skip
    return {
        **attention,
        **{name: released - shift for name, released in CODEC_SPECIALS.items()},
        "code_predictor_config": {
            **attention,
            "hidden_size": variant.predictor_width,
            "intermediate_size": 48,
            "layer_types": ["full_attention", "full_attention"],
            "max_position_embeddings": 65536,
            "max_window_layers": 28,
            "model_type": "qwen3_tts_talker_code_predictor",
            "rope_scaling": None,
            "vocab_size": variant.codebook_size,
        },
        "codec_language_id": {name: released - shift for name, released in languages.items()},
        "hidden_size": variant.width,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "max_position_embeddings": 32768,
        "model_type": "qwen3_tts_talker",
        "position_id_per_seconds": 13,
        "rope_scaling": {"interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default",
                         "type": "default"},
        "spk_id": {name: released - shift for name, released in speakers.items()},
        "spk_is_dialect": {name: DIALECT_OF.get(name, False) for name in speakers},
        "text_hidden_size": variant.text_width,
        "text_vocab_size": -(-(len(vocabulary) + len(SPECIAL_TOKENS)) // 16) * 16,
        "vocab_size": variant.codebook_size + 1024,
    }  # fmt: skip


def codec_configuration(codebook_size: int = 32) -> dict[str, Any]:
    """Write config.json of the codec: the released rates and structure, 20 stored quantizers of which 16 are used."""
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "decode_upsample_rate": 1920,
        "decoder_config": {
            "attention_bias": False, "attention_dropout": 0.0, "codebook_dim": 32, "codebook_size": codebook_size,
            "decoder_dim": 32, "head_dim": 16, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
            "latent_dim": 32, "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000,
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 4, "num_quantizers": 16,
            "num_semantic_quantizers": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000, "semantic_codebook_size": 4096,
            "sliding_window": 4, "upsample_rates": [8, 5, 4, 3], "upsampling_ratios": [2, 2],
            "vector_quantization_hidden_dimension": 32,
        },
        "encode_downsample_rate": 1920,
        "encoder_config": {
            "_frame_rate": 12.5, "audio_channels": 1, "codebook_dim": 16, "codebook_size": codebook_size,
            "compress": 2, "dilation_growth_rate": 2, "head_dim": 8, "hidden_act": "gelu", "hidden_size": 32,
            "intermediate_size": 64, "kernel_size": 7, "last_kernel_size": 3, "layer_scale_initial_scale": 0.01,
            "max_position_embeddings": 8000, "norm_eps": 1e-5, "num_attention_heads": 4, "num_filters": 2,
            "num_hidden_layers": 2, "num_key_value_heads": 4, "num_quantizers": 20, "num_residual_layers": 1,
            "num_semantic_quantizers": 1, "pad_mode": "constant", "residual_kernel_size": 3, "rope_theta": 10000,
            "sliding_window": 8, "trim_right_ratio": 1.0, "upsample_groups": 32, "upsampling_ratios": [8, 6, 5, 4],
            "use_causal_conv": True, "use_conv_shortcut": False, "vector_quantization_hidden_dimension": 16,
        },
        "encoder_valid_num_quantizers": 16,
        "input_sample_rate": 24000,
        "model_type": "qwen3_tts_tokenizer_12hz",
        "output_sample_rate": 24000,
        "transformers_version": "4.57.3",
    }  # fmt: skip


def generation_configuration() -> dict[str, Any]:
    """Write generation_config.json with the released values."""
    return {
        "do_sample": True, "max_new_tokens": 8192, "repetition_penalty": 1.05, "subtalker_dosample": True,
        "subtalker_temperature": 0.9, "subtalker_top_k": 50, "subtalker_top_p": 1.0, "temperature": 0.9, "top_k": 50,
        "top_p": 1.0,
    }  # fmt: skip


def write_codec(directory: Path, generator: np.random.Generator, codebook_size: int = 32) -> None:
    """Write the directory speech_tokenizer/."""
    directory.mkdir(parents=True, exist_ok=True)
    config = codec_configuration(codebook_size)
    write_json(directory / "config.json", config)
    write_json(
        directory / "preprocessor_config.json",
        {
            "chunk_length_s": None, "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1,
            "overlap": None, "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True,
            "sampling_rate": 24000,
        },
    )  # fmt: skip
    tensors: dict[str, np.ndarray] = {}
    for name, shape in codec_shapes(config):
        tensors[name] = random_codec_tensor(name, shape, generator, tensors)
    write_safetensors(directory / "model.safetensors", tensors)


def write_voice(directory: Path, variant: Variant, generator: np.random.Generator) -> None:
    """Write a voice model's directory, without its speech_tokenizer/."""
    directory.mkdir(parents=True, exist_ok=True)
    config = voice_configuration(variant)
    write_json(directory / "config.json", config)
    write_json(directory / "generation_config.json", generation_configuration())
    write_json(directory / "preprocessor_config.json", {"processor_class": "Qwen3TTSProcessor"})
    write_tokenizer(directory, *tokenizer_tables(WORDS))
    (directory / "chat_template.json").unlink()  # the released voice models have none
    tensors = {}
    for name, shape in voice_shapes(config):
        values = random_voice_tensor(name, shape, generator)
        tensors[name] = (bfloat16_bits(values).astype(np.uint32) << 16).view(np.float32)
    write_safetensors(directory / "model.safetensors", tensors, bfloat16=True)
