"""Names, shapes and random values of a Qwen3-Omni checkpoint's tensors, from its config.json; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Shapes = Iterator[tuple[str, tuple[int, ...]]]
"""Names and shapes of tensors, in the order in which they are drawn."""


def tensor_shapes(config: dict[str, Any]) -> Shapes:
    """Yield every tensor's released name and shape for `config`."""
    yield from _thinker_shapes(config["thinker_config"])
    yield from _talker_shapes(config["talker_config"])
    yield from _vocoder_shapes(config["code2wav_config"])


def decoder_shapes(prefix: str, config: dict[str, Any]) -> Shapes:
    """Yield the tensors of a language model's layers, dense or with experts, and of the norm behind them."""
    width, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    for layer in range(config["num_hidden_layers"]):
        at = f"{prefix}.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (width,)
        yield f"{at}.post_attention_layernorm.weight", (width,)
        yield f"{at}.self_attn.q_proj.weight", (queries, width)
        yield f"{at}.self_attn.k_proj.weight", (keys, width)
        yield f"{at}.self_attn.v_proj.weight", (keys, width)
        yield f"{at}.self_attn.o_proj.weight", (width, queries)
        yield f"{at}.self_attn.q_norm.weight", (head,)
        yield f"{at}.self_attn.k_norm.weight", (head,)
        if "num_experts" not in config or layer in config["mlp_only_layers"]:
            yield from gated_shapes(f"{at}.mlp", width, config["intermediate_size"])
            continue
        yield f"{at}.mlp.gate.weight", (config["num_experts"], width)
        for expert in range(config["num_experts"]):
            yield from gated_shapes(f"{at}.mlp.experts.{expert}", width, config["moe_intermediate_size"])
        if config["shared_expert_intermediate_size"]:
            yield from gated_shapes(f"{at}.mlp.shared_expert", width, config["shared_expert_intermediate_size"])
            yield f"{at}.mlp.shared_expert_gate.weight", (1, width)
    yield f"{prefix}.norm.weight", (width,)


def gated_shapes(prefix: str, width: int, inner: int) -> Shapes:
    """Yield the three weights of a gated feed-forward layer."""
    yield f"{prefix}.gate_proj.weight", (inner, width)
    yield f"{prefix}.up_proj.weight", (inner, width)
    yield f"{prefix}.down_proj.weight", (width, inner)


def biased(prefix: str, *shape: int) -> Shapes:
    """Yield a weight and the bias of its first axis."""
    yield f"{prefix}.weight", shape
    yield f"{prefix}.bias", shape[:1]


def _thinker_shapes(config: dict[str, Any]) -> Shapes:
    text, audio, vision = config["text_config"], config["audio_config"], config["vision_config"]
    yield "thinker.model.embed_tokens.weight", (text["vocab_size"], text["hidden_size"])
    yield "thinker.lm_head.weight", (text["vocab_size"], text["hidden_size"])
    yield from decoder_shapes("thinker.model", text)

    at, width, channels = "thinker.audio_tower", audio["d_model"], audio["downsample_hidden_size"]
    yield from biased(f"{at}.conv2d1", channels, 1, 3, 3)
    yield from biased(f"{at}.conv2d2", channels, channels, 3, 3)
    yield from biased(f"{at}.conv2d3", channels, channels, 3, 3)
    yield f"{at}.conv_out.weight", (width, channels * audio["num_mel_bins"] // 8)
    for layer in range(audio["encoder_layers"]):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from biased(f"{at}.layers.{layer}.self_attn.{name}", width, width)
        yield from biased(f"{at}.layers.{layer}.self_attn_layer_norm", width)
        yield from biased(f"{at}.layers.{layer}.final_layer_norm", width)
        yield from biased(f"{at}.layers.{layer}.fc1", audio["encoder_ffn_dim"], width)
        yield from biased(f"{at}.layers.{layer}.fc2", width, audio["encoder_ffn_dim"])
    yield from biased(f"{at}.ln_post", width)
    yield from biased(f"{at}.proj1", width, width)
    yield from biased(f"{at}.proj2", audio["output_dim"], width)

    at, width = "thinker.visual", vision["hidden_size"]
    yield from biased(f"{at}.patch_embed.proj", width, 3, 2, 16, 16)
    yield f"{at}.pos_embed.weight", (vision["num_position_embeddings"], width)
    for block in range(vision["depth"]):
        yield from biased(f"{at}.blocks.{block}.norm1", width)
        yield from biased(f"{at}.blocks.{block}.norm2", width)
        yield from biased(f"{at}.blocks.{block}.attn.qkv", 3 * width, width)
        yield from biased(f"{at}.blocks.{block}.attn.proj", width, width)
        yield from biased(f"{at}.blocks.{block}.mlp.linear_fc1", vision["intermediate_size"], width)
        yield from biased(f"{at}.blocks.{block}.mlp.linear_fc2", width, vision["intermediate_size"])
    mergers = [f"{at}.merger"] + [f"{at}.merger_list.{tap}" for tap in range(len(vision["deepstack_visual_indexes"]))]
    for merger in mergers:
        yield from biased(f"{merger}.ln_q", width if merger == mergers[0] else 4 * width)
        yield from biased(f"{merger}.mlp.0", 4 * width, 4 * width)
        yield from biased(f"{merger}.mlp.2", vision["out_hidden_size"], 4 * width)


def _talker_shapes(config: dict[str, Any]) -> Shapes:
    text, predictor = config["text_config"], config["code_predictor_config"]
    width, inner = text["hidden_size"], text["intermediate_size"]
    for name in ("text_projection", "hidden_projection"):
        yield from biased(f"talker.{name}.linear_fc1", inner, config["thinker_hidden_size"])
        yield from biased(f"talker.{name}.linear_fc2", width, inner)
    yield "talker.model.codec_embedding.weight", (text["vocab_size"], width)
    yield "talker.codec_head.weight", (text["vocab_size"], width)
    yield from decoder_shapes("talker.model", text)
    yield from decoder_shapes("talker.code_predictor.model", predictor)
    for book in range(config["num_code_groups"] - 1):
        yield f"talker.code_predictor.model.codec_embedding.{book}.weight", (predictor["vocab_size"], width)
        yield f"talker.code_predictor.lm_head.{book}.weight", (predictor["vocab_size"], width)


def _vocoder_shapes(config: dict[str, Any]) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "code2wav.code_embedding.weight", (config["num_quantizers"] * config["codebook_size"], width)
    for layer in range(config["num_hidden_layers"]):
        at = f"code2wav.pre_transformer.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (width,)
        yield f"{at}.post_attention_layernorm.weight", (width,)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{at}.self_attn.{name}.weight", (width, width)
        yield from gated_shapes(f"{at}.mlp", width, inner)
        yield f"{at}.self_attn_layer_scale.scale", (width,)
        yield f"{at}.mlp_layer_scale.scale", (width,)
    yield "code2wav.pre_transformer.norm.weight", (width,)
    for stage, ratio in enumerate(config["upsampling_ratios"]):
        at = f"code2wav.upsample.{stage}"
        yield f"{at}.0.conv.weight", (width, width, ratio)
        yield f"{at}.0.conv.bias", (width,)
        yield from biased(f"{at}.1.dwconv.conv", width, 1, 7)
        yield from biased(f"{at}.1.norm", width)
        yield f"{at}.1.gamma", (width,)
        yield from biased(f"{at}.1.pwconv1", 4 * width, width)
        yield from biased(f"{at}.1.pwconv2", width, 4 * width)
    yield from waveform_shapes("code2wav.decoder", width, config)


def waveform_shapes(prefix: str, width: int, config: dict[str, Any]) -> Shapes:
    """Yield the tensors of the convolutions that make rows [T, width] a waveform."""
    channels = config["decoder_dim"]
    yield from biased(f"{prefix}.0.conv", channels, width, 7)
    for block, rate in enumerate(config["upsample_rates"], start=1):
        at, half = f"{prefix}.{block}.block", channels // 2
        yield f"{at}.0.alpha", (channels,)
        yield f"{at}.0.beta", (channels,)
        yield f"{at}.1.conv.weight", (channels, half, 2 * rate)
        yield f"{at}.1.conv.bias", (half,)
        for unit in (2, 3, 4):
            for activation in ("act1", "act2"):
                yield f"{at}.{unit}.{activation}.alpha", (half,)
                yield f"{at}.{unit}.{activation}.beta", (half,)
            yield from biased(f"{at}.{unit}.conv1.conv", half, half, 7)
            yield from biased(f"{at}.{unit}.conv2.conv", half, half, 1)
        channels = half
    last = len(config["upsample_rates"]) + 1
    yield f"{prefix}.{last}.alpha", (channels,)
    yield f"{prefix}.{last}.beta", (channels,)
    yield from biased(f"{prefix}.{last + 1}.conv", 1, channels, 7)


def random_tensor(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draw one tensor [shape] f32, scaled by what its name says it is, rounded to what bfloat16 can hold.

    The scales keep activations near one through the depth and give logits a spread, so that greedy choices have
    margins; norms, biases and scales differ from their neutral values, so that leaving one out shows.
    """
    mean, deviation = 0.0, 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
    rules: tuple[tuple[tuple[str, ...], float, float], ...] = (
        (("layer_scale.scale", ".gamma"), 0.3, 0.1),
        ((".alpha", ".beta"), 0.0, 0.3),
        ((".bias",), 0.0, 0.1),
        (("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "ln_post.weight"), 1.0, 0.15),
        (("thinker.model.embed_tokens.weight",), 0.0, 0.8),
        (("code_embedding.weight",), 0.0, 2.0),
        (("pos_embed.weight",), 0.0, 0.5),
        (("codec_embedding.weight",), 0.0, 0.5),
    )
    factors = (
        ("lm_head", 4.0), ("codec_head", 4.0), ("mlp.gate.weight", 2.0), ("shared_expert_gate", 2.0),
        ("linear_fc2.weight", 1.5), (".experts.", 1.3), ("conv2d", 1.5), ("decoder.0.conv", 0.7),
        ("conv1.conv", 0.7), ("conv2.conv", 0.4), ("decoder.6.conv", 0.1),  # the last one sets the loudness
    )  # fmt: skip
    if ".codec_embedding." in name:
        deviation = 0.5
    elif ".block.1.conv.weight" in name or (".0.conv.weight" in name and "upsample" in name):
        # A transposed convolution sums input channels times kernel / stride taps into each output sample.
        taps = 2 if ".block.1." in name else 1
        deviation = 1.0 / np.sqrt(shape[0] * taps)
    else:
        for endings, rule_mean, rule_deviation in rules:
            if name.endswith(endings):
                mean, deviation = rule_mean, rule_deviation
                break
        else:
            deviation *= next((factor for part, factor in factors if part in name), 1.0)
    values = (mean + deviation * generator.standard_normal(shape)).astype(np.float32)
    return (bfloat16_bits(values).astype(np.uint32) << 16).view(np.float32)


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Round f32 values to bfloat16, ties to even, and return the 16-bit patterns."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
