"""Names, shapes and random values of the tensors of Qwen3-TTS checkpoints; needs no PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from golden_tensors import Shapes, biased, decoder_shapes, gated_shapes, waveform_shapes


def voice_shapes(config: dict[str, Any]) -> Shapes:
    """Yield every tensor of a voice model's model.safetensors."""
    talker = config["talker_config"]
    predictor = talker["code_predictor_config"]
    width, text, inner = talker["hidden_size"], talker["text_hidden_size"], predictor["hidden_size"]
    yield "talker.model.text_embedding.weight", (talker["text_vocab_size"], text)
    yield "talker.model.codec_embedding.weight", (talker["vocab_size"], width)
    yield from biased("talker.text_projection.linear_fc1", text, text)
    yield from biased("talker.text_projection.linear_fc2", width, text)
    yield from decoder_shapes("talker.model", talker)
    yield "talker.codec_head.weight", (talker["vocab_size"], width)
    if width != inner:
        yield from biased("talker.code_predictor.small_to_mtp_projection", inner, width)
    yield from decoder_shapes("talker.code_predictor.model", predictor)
    for book in range(talker["num_code_groups"] - 1):
        yield f"talker.code_predictor.model.codec_embedding.{book}.weight", (predictor["vocab_size"], width)
        yield f"talker.code_predictor.lm_head.{book}.weight", (predictor["vocab_size"], inner)
    if config["tts_model_type"] == "base":
        yield from _speaker(config["speaker_encoder_config"])


def _speaker(config: dict[str, Any]) -> Shapes:
    channels, last = config["enc_channels"][0], config["enc_channels"][-1]
    squeezed, attended = config["enc_se_channels"], config["enc_attention_channels"]
    yield from biased("speaker_encoder.blocks.0.conv", channels, 128, 5)
    for block in (1, 2, 3):
        at = f"speaker_encoder.blocks.{block}"
        yield from biased(f"{at}.tdnn1.conv", channels, channels, 1)
        for part in range(7):
            yield from biased(f"{at}.res2net_block.blocks.{part}.conv", channels // 8, channels // 8, 3)
        yield from biased(f"{at}.tdnn2.conv", channels, channels, 1)
        yield from biased(f"{at}.se_block.conv1", squeezed, channels, 1)
        yield from biased(f"{at}.se_block.conv2", channels, squeezed, 1)
    yield from biased("speaker_encoder.mfa.conv", last, last, 1)
    yield from biased("speaker_encoder.asp.tdnn.conv", attended, 3 * last, 1)
    yield from biased("speaker_encoder.asp.conv", last, attended, 1)
    yield from biased("speaker_encoder.fc", config["enc_dim"], 2 * last, 1)


def codec_shapes(config: dict[str, Any]) -> Shapes:
    """Yield every tensor of speech_tokenizer/model.safetensors; a cluster_usage comes before its sums."""
    yield from _codec_encoder(config["encoder_config"])
    yield from _codec_decoder(config["decoder_config"])


def _codec_encoder(config: dict[str, Any]) -> Shapes:
    channels, width, inner = config["num_filters"], config["hidden_size"], config["intermediate_size"]
    at = "encoder.encoder.layers"
    yield from biased(f"{at}.0.conv", channels, 1, 7)
    for block, rate in enumerate(reversed(config["upsampling_ratios"])):
        yield from biased(f"{at}.{1 + 3 * block}.block.1.conv", channels // 2, channels, 3)
        yield from biased(f"{at}.{1 + 3 * block}.block.3.conv", channels, channels // 2, 1)
        yield from biased(f"{at}.{3 + 3 * block}.conv", 2 * channels, channels, 2 * rate)
        channels *= 2
    yield from biased(f"{at}.14.conv", width, channels, 3)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.encoder_transformer.layers.{layer}"
        yield from biased(f"{at}.input_layernorm", width)
        yield from biased(f"{at}.post_attention_layernorm", width)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{at}.self_attn.{name}.weight", (width, width)
        yield f"{at}.mlp.fc1.weight", (inner, width)
        yield f"{at}.mlp.fc2.weight", (width, inner)
        yield f"{at}.self_attn_layer_scale.scale", (width,)
        yield f"{at}.mlp_layer_scale.scale", (width,)
    yield "encoder.downsample.conv.weight", (width, width, 4)
    size, depth = config["codebook_size"], config["codebook_dim"]
    for chain, count in (("semantic", 1), ("acoustic", config["num_quantizers"] - 1)):
        at = f"encoder.quantizer.{chain}_residual_vector_quantizer"
        yield f"{at}.input_proj.weight", (depth, width, 1)
        yield f"{at}.output_proj.weight", (width, depth, 1)
        for layer in range(count):
            yield f"{at}.layers.{layer}.codebook.initialized", (1,)
            yield f"{at}.layers.{layer}.codebook.cluster_usage", (size,)
            yield f"{at}.layers.{layer}.codebook.embed_sum", (size, depth)


def _codec_decoder(config: dict[str, Any]) -> Shapes:
    width, latent, size = config["codebook_dim"], config["latent_dim"], config["codebook_size"]
    for chain, count in (("first", 1), ("rest", config["num_quantizers"] - 1)):
        at = f"decoder.quantizer.rvq_{chain}"
        yield f"{at}.input_proj.weight", (width // 2, width, 1)
        yield f"{at}.output_proj.weight", (width, width // 2, 1)
        for layer in range(count):
            yield f"{at}.vq.layers.{layer}._codebook.cluster_usage", (size,)
            yield f"{at}.vq.layers.{layer}._codebook.embedding_sum", (size, width // 2)
    yield from biased("decoder.pre_conv.conv", latent, width, 3)
    yield from biased("decoder.pre_transformer.input_proj", config["hidden_size"], latent)
    yield from biased("decoder.pre_transformer.output_proj", latent, config["hidden_size"])
    yield from _pre_transformer("decoder.pre_transformer", config)
    for stage, ratio in enumerate(config["upsampling_ratios"]):
        at = f"decoder.upsample.{stage}"
        yield f"{at}.0.conv.weight", (latent, latent, ratio)
        yield f"{at}.0.conv.bias", (latent,)
        yield from biased(f"{at}.1.dwconv.conv", latent, 1, 7)
        yield from biased(f"{at}.1.norm", latent)
        yield from biased(f"{at}.1.pwconv1", 4 * latent, latent)
        yield from biased(f"{at}.1.pwconv2", latent, 4 * latent)
        yield f"{at}.1.gamma", (latent,)
    yield from waveform_shapes("decoder.decoder", latent, config)


def _pre_transformer(prefix: str, config: dict[str, Any]) -> Shapes:
    width, queries = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    for layer in range(config["num_hidden_layers"]):
        at = f"{prefix}.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (width,)
        yield f"{at}.post_attention_layernorm.weight", (width,)
        yield f"{at}.self_attn.q_proj.weight", (queries, width)
        yield f"{at}.self_attn.k_proj.weight", (keys, width)
        yield f"{at}.self_attn.v_proj.weight", (keys, width)
        yield f"{at}.self_attn.o_proj.weight", (width, queries)
        yield f"{at}.self_attn_layer_scale.scale", (width,)
        yield f"{at}.mlp_layer_scale.scale", (width,)
        yield from gated_shapes(f"{at}.mlp", width, config["intermediate_size"])
    yield f"{prefix}.norm.weight", (width,)


def random_voice_tensor(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draw one tensor [shape] f32 of a voice model, scaled by what its name says it is."""
    mean, deviation = 0.0, 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
    if name.endswith(".bias"):
        deviation = 0.1
    elif name.endswith("norm.weight"):
        mean, deviation = 1.0, 0.15
    elif "text_embedding" in name:
        deviation = 0.8
    elif "codec_embedding" in name:
        deviation = 0.5
    elif "codec_head" in name or "lm_head" in name:
        deviation *= 4.0
    elif "speaker_encoder" in name:
        deviation *= 0.5 if ".blocks.0." in name else 1.4
    elif "linear_fc2" in name:
        deviation *= 2.0
    return (mean + deviation * generator.standard_normal(shape)).astype(np.float32)


def random_codec_tensor(
    name: str, shape: tuple[int, ...], generator: np.random.Generator, made: dict[str, np.ndarray]
) -> np.ndarray:
    """Draw one tensor [shape] f32 of the codec; sums of a codebook belong to the usage drawn before, in `made`."""
    if name.endswith("initialized"):
        return np.ones(shape, np.float32)
    if name.endswith("cluster_usage"):
        usage = generator.uniform(0.5, 4.0, shape)
        usage[-1] = 0.0  # an entry that training never used: divided by the floor, it stands for zero
        return usage.astype(np.float32)
    if name.endswith(("embed_sum", "embedding_sum")):
        layer = int(name.split(".layers.")[1].split(".")[0]) if "semantic" not in name and "first" not in name else 0
        usage = made[name.rsplit(".", 1)[0] + ".cluster_usage"]
        entries = generator.standard_normal(shape) * 0.92**layer
        return (entries * usage[:, None]).astype(np.float32)
    mean, deviation = 0.0, 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
    if name.endswith((".scale", ".gamma")):
        mean, deviation = 0.3, 0.1
    elif name.endswith((".alpha", ".beta")):
        deviation = 0.3
    elif name.endswith(".bias"):
        deviation = 0.1
    elif name.endswith("norm.weight"):
        mean, deviation = 1.0, 0.15
    elif ".block.1.conv.weight" in name and name.startswith("decoder."):
        deviation = 1.0 / np.sqrt(2 * shape[0])  # two taps of each transposed kernel meet in a sample
    elif "upsample" in name and ".0.conv.weight" in name:
        deviation = 1.0 / np.sqrt(shape[0])
    else:
        factors = {
            "encoder.encoder.layers.0.": 4.0, "encoder.encoder": 1.4, "input_proj": 2.0, "decoder.decoder.0": 0.7,
            "decoder.decoder.6": 0.1, "conv1.conv": 0.7, "conv2.conv": 0.4,
        }  # fmt: skip
        deviation *= next((factor for part, factor in factors.items() if part in name), 1.0)
    return (mean + deviation * generator.standard_normal(shape)).astype(np.float32)
