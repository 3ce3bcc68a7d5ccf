"""Configuration and tokenizer of tiny Qwen3-Omni checkpoints: the released keys and token order, small sizes.

Nothing here needs PyTorch. The golden generator loads what comes of it into the PyTorch reference, which checks the
keys; the shipped tiny checkpoint is written by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>", "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>",
    "<tts_text_bos_single>", "<|audio_pad|>",
)  # fmt: skip
"""The released added tokens, in the released order (the first is 151643 there)."""

MERGED_WORDS = ("user", "assistant", "system", "Ġthe", "Ġis", "what", "hello", "ing", "er", "on", "Ġa", "Ġplus")
"""Words that get one token each. The role words must: the talker finds the turns by their ids."""

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}{{- message['content'] }}"
    "{%- else %}{%- for part in message['content'] %}"
    "{%- if part['type'] == 'audio' %}{{- '<|audio_start|><|audio_pad|><|audio_end|>' }}"
    "{%- elif part['type'] == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- else %}{{- part['text'] }}{%- endif %}"
    "{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

CODEC_SPECIALS = {
    "codec_pad_id": 0, "codec_bos_id": 1, "codec_eos_token_id": 2, "codec_nothink_id": 7, "codec_think_bos_id": 8,
    "codec_think_eos_id": 9,
}  # fmt: skip
"""Offsets from codebook size + 100, as the released 2148..2157 lie above 2048."""

ROPE = {"interleaved": True, "mrope_interleaved": True, "rope_type": "default", "type": "default"}
"""How the thinker and the talker turn positions, besides the shares of the axes."""


@dataclass(frozen=True)
class Dimensions:
    """The sizes that make a checkpoint small; everything else is as released."""

    thinker_width: int = 64
    thinker_layers: int = 4
    thinker_heads: tuple[int, int, int] = (6, 2, 16)  # query heads, key-value heads, head width
    thinker_mrope: tuple[int, int, int] = (3, 3, 2)
    thinker_experts: tuple[int, int, int] = (4, 2, 32)  # experts, experts per token, expert width
    thinker_dense: tuple[int, ...] = ()  # layers without experts
    thinker_feed_forward: int = 64
    # Width, layers, heads, feed-forward, convolution channels.
    audio: tuple[int, int, int, int, int] = (64, 2, 4, 96, 8)
    audio_window_frames: int = 200
    vision: tuple[int, int, int, int] = (24, 3, 2, 40)  # width, depth, heads, feed-forward
    vision_positions: int = 64
    deepstack: tuple[int, ...] = (0, 1)
    talker_width: int = 32
    talker_layers: int = 2
    talker_heads: tuple[int, int, int] = (4, 2, 16)
    talker_mrope: tuple[int, int, int] = (3, 3, 2)
    talker_experts: tuple[int, int, int, int] = (4, 3, 32, 32)  # experts, experts per token, width, shared width
    talker_projection: int = 64
    accept_hidden_layer: int = 3
    predictor_layers: int = 2
    predictor_heads: tuple[int, int, int] = (4, 2, 16)
    predictor_feed_forward: int = 64
    codebooks: int = 16
    codebook_size: int = 32
    vocoder_ratios: tuple[int, ...] = (2, 2)
    vocoder: tuple[int, int, int, int] = (32, 2, 4, 64)  # width, layers, heads, feed-forward
    vocoder_window: int = 4
    vocoder_decoder_width: int = 32
    positions: int = 4096


def byte_alphabet() -> list[str]:
    """List the printable stand-in of each byte, indexed by byte, as byte-level BPE writes it."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    stand_in = {byte: chr(byte) for byte in printable}
    spare = 256
    for byte in range(256):
        if byte not in stand_in:
            stand_in[byte] = chr(spare)
            spare += 1
    return [stand_in[byte] for byte in range(256)]


def tokenizer_tables(words: tuple[str, ...] = MERGED_WORDS) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Build the vocabulary and the merge list: 256 bytes, then what is needed to merge `words` left to right."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(byte_alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in words:
        left = word[0]
        for right in word[1:]:
            merged = left + right
            if merged not in vocabulary:
                merges.append((left, right))
                vocabulary[merged] = len(vocabulary)
            left = merged
    return vocabulary, merges


def special_token_ids(first: int) -> dict[str, int]:
    """Map each special token to its id when the first of them is `first`."""
    return {token: first + offset for offset, token in enumerate(SPECIAL_TOKENS)}


def configuration(dims: Dimensions, vocabulary: dict[str, int]) -> dict[str, Any]:
    """Write config.json: the released keys, the sizes of `dims`, ids counted from the size of the vocabulary."""
    ids = special_token_ids(len(vocabulary))
    return {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "assistant_token_id": vocabulary["assistant"],
        "code2wav_config": _code2wav(dims),
        "dtype": "bfloat16",
        "enable_audio_output": True,
        "im_end_token_id": ids["<|im_end|>"],
        "im_start_token_id": ids["<|im_start|>"],
        "model_type": "qwen3_omni_moe",
        "system_token_id": vocabulary["system"],
        "talker_config": _talker(dims, ids),
        "thinker_config": _thinker(dims, vocabulary, ids),
        "transformers_version": "4.57.0.dev0",
        "tts_bos_token_id": ids["<tts_text_bos>"],
        "tts_eos_token_id": ids["<tts_text_eod>"],
        "tts_pad_token_id": ids["<tts_pad>"],
        "user_token_id": vocabulary["user"],
    }


def _thinker(dims: Dimensions, vocabulary: dict[str, int], ids: dict[str, int]) -> dict[str, Any]:
    """Write thinker_config."""
    text_vocabulary = -(-(len(vocabulary) + len(ids) + 1) // 16) * 16  # some ids stand for nothing, as released
    return {
        **_modality_ids(ids),
        "audio_config": {
            "activation_dropout": 0, "activation_function": "gelu", "attention_dropout": 0, "conv_chunksize": 500,
            "d_model": dims.audio[0], "downsample_hidden_size": dims.audio[4], "dropout": 0,
            "encoder_attention_heads": dims.audio[2], "encoder_ffn_dim": dims.audio[3],
            "encoder_layers": dims.audio[1], "initializer_range": 0.02, "max_source_positions": 1500,
            "model_type": "qwen3_omni_moe_audio_encoder", "n_window": 50, "n_window_infer": dims.audio_window_frames,
            "num_mel_bins": 128, "output_dim": dims.thinker_width,
            "scale_embedding": False,
        },
        "dtype": "bfloat16",
        "initializer_range": 0.02,
        "model_type": "qwen3_omni_moe_thinker",
        "text_config": {
            **_attention(dims, dims.thinker_heads),
            **_experts(*dims.thinker_experts, 0),
            "hidden_size": dims.thinker_width,
            "intermediate_size": dims.thinker_feed_forward,
            "mlp_only_layers": list(dims.thinker_dense),
            "model_type": "qwen3_omni_moe_text",
            "num_hidden_layers": dims.thinker_layers,
            "rope_scaling": {**ROPE, "mrope_section": list(dims.thinker_mrope)},
            "use_qk_norm": True,
            "vocab_size": text_vocabulary,
        },
        "user_token_id": vocabulary["user"],
        "vision_config": {
            "deepstack_visual_indexes": list(dims.deepstack), "depth": dims.vision[1],
            "hidden_act": "gelu_pytorch_tanh", "hidden_size": dims.vision[0], "image_size": 384, "in_channels": 3,
            "initializer_range": 0.02, "intermediate_size": dims.vision[3],
            "model_type": "qwen3_omni_moe_vision_encoder", "num_heads": dims.vision[2],
            "num_position_embeddings": dims.vision_positions, "out_hidden_size": dims.thinker_width,
            "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        "vision_end_token_id": ids["<|vision_end|>"],
    }  # fmt: skip


def _talker(dims: Dimensions, ids: dict[str, int]) -> dict[str, Any]:
    """Write talker_config."""
    codec = {name: dims.codebook_size + 100 + offset for name, offset in CODEC_SPECIALS.items()}
    talker_vocabulary = dims.codebook_size + 1024  # the upper 1024 are specials, all suppressed but one
    return {
        **_modality_ids(ids),
        **codec,
        "accept_hidden_layer": dims.accept_hidden_layer,
        "code_predictor_config": {
            **_attention(dims, dims.predictor_heads),
            "hidden_size": dims.talker_width,
            "intermediate_size": dims.predictor_feed_forward,
            "layer_types": ["full_attention"] * dims.predictor_layers,
            "max_window_layers": 28,
            "model_type": "qwen3_omni_moe_talker_code_predictor",
            "num_code_groups": dims.codebooks,
            "num_hidden_layers": dims.predictor_layers,
            "rope_scaling": None,
            "use_sliding_window": False,
            "vocab_size": dims.codebook_size,
        },
        "initializer_range": 0.02,
        "model_type": "qwen3_omni_moe_talker",
        "num_code_groups": dims.codebooks,
        "output_router_logits": False,
        "spatial_merge_size": 2,
        "speaker_id": {"chelsie": codec["codec_bos_id"] + 152, "ethan": codec["codec_bos_id"] + 153,
                       "aiden": codec["codec_bos_id"] + 154},
        "text_config": {
            **_attention(dims, dims.talker_heads),
            **_experts(*dims.talker_experts),
            "hidden_size": dims.talker_width,
            "intermediate_size": dims.talker_projection,
            "model_type": "qwen3_omni_moe_talker_text",
            "num_hidden_layers": dims.talker_layers,
            "rope_scaling": {**ROPE, "mrope_section": list(dims.talker_mrope)},
            "use_sliding_window": False,
            "vocab_size": talker_vocabulary,
        },
        "thinker_hidden_size": dims.thinker_width,
    }  # fmt: skip


def _code2wav(dims: Dimensions) -> dict[str, Any]:
    """Write code2wav_config."""
    return {
        "attention_bias": False, "attention_dropout": 0.0, "codebook_dim": 512,
        "codebook_size": dims.codebook_size, "decoder_dim": dims.vocoder_decoder_width, "hidden_act": "silu",
        "hidden_size": dims.vocoder[0], "intermediate_size": dims.vocoder[3],
        "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000,
        "model_type": "qwen3_omni_moe_code2wav", "num_attention_heads": dims.vocoder[2],
        "num_hidden_layers": dims.vocoder[1], "num_key_value_heads": dims.vocoder[2],
        "num_quantizers": dims.codebooks, "num_semantic_quantizers": 1, "rms_norm_eps": 1e-5,
        "rope_theta": 10000, "semantic_codebook_size": 4096, "sliding_window": dims.vocoder_window,
        "upsample_rates": [8, 5, 4, 3], "upsampling_ratios": list(dims.vocoder_ratios),
        "vector_quantization_hidden_dimension": 512,
    }  # fmt: skip


def _modality_ids(ids: dict[str, int]) -> dict[str, Any]:
    """Keys that thinker and talker have in common: the ids around media, and how time counts."""
    return {
        "audio_end_token_id": ids["<|audio_end|>"], "audio_start_token_id": ids["<|audio_start|>"],
        "audio_token_id": ids["<|audio_pad|>"], "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"], "vision_start_token_id": ids["<|vision_start|>"],
        "position_id_per_seconds": 13, "seconds_per_chunk": 2,
    }  # fmt: skip


def _attention(dims: Dimensions, heads: tuple[int, int, int]) -> dict[str, Any]:
    """Keys of attention of (query heads, key-value heads, head width)."""
    return {
        "attention_bias": False, "attention_dropout": 0.0, "head_dim": heads[2], "hidden_act": "silu",
        "initializer_range": 0.02, "max_position_embeddings": dims.positions, "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1], "rms_norm_eps": 1e-6, "rope_theta": 1000000, "sliding_window": None,
        "tie_word_embeddings": False, "use_cache": True,
    }  # fmt: skip


def _experts(count: int, per_token: int, width: int, shared: int) -> dict[str, Any]:
    """Keys of a mixture of experts."""
    return {
        "decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": width, "norm_topk_prob": True,
        "num_experts": count, "num_experts_per_tok": per_token, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": shared, "output_router_logits": False,
    }  # fmt: skip
