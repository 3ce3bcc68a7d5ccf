"""The 12 Hz codec, samples to codes: what a reference voice said, as the talker would have written it.

    samples [N] -> { residual unit -> ELU -> strided conv } x strides -> conv -> [T, W] at 25 Hz
      -> transformer -> strided conv, ends repeated -> 12.5 Hz -> two chains of nearest codebook entries -> codes [K, F]

The convolutions run over pieces of the clip with the rows before each piece kept, so memory does not grow with its
length. Attention is plainly causal: the window of 250 in the config is not applied by the version of the reference that
the release pins. The two differ for clips over ten seconds.
"""

from __future__ import annotations

from math import prod

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.models.decoder import frequencies
from omni_rt.models.qwen3_tts.codec_decoder import codebook
from omni_rt.models.qwen3_tts.config import CodecEncoderConfig
from omni_rt.state import KVCache, StreamTails
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

PIECE = 50
"""Rows of 40 ms that pass the convolutions at once: the first of them is the largest activation."""

DOWNSAMPLE_TAPS = 4
DOWNSAMPLE = 2


class StridedConv:
    """A causal convolution [T, inputs] -> [ceil(T / stride), outputs]; names follow the checkpoint under `conv.`."""

    def __init__(self, weights: Weights, outputs: int, inputs: int, taps: int, stride: int = 1) -> None:
        kernel = weights.array("conv.weight", outputs, inputs, taps)
        self.kernel = weights.place_exact(np.ascontiguousarray(kernel.transpose(0, 2, 1)))
        self.bias = weights.exact("conv.bias", outputs)
        self.stride = stride
        self.silence = weights.device.zeros((taps - stride, inputs))

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor:
        """Convolve rows that follow those of the clip so far; only the last piece may end within a stride."""
        before = tails.before(self, self.silence)
        right = -len(x) % self.stride
        y = ops.conv1d(x, before, self.kernel, self.bias, stride=self.stride, right=right)
        tails.keep(self, self.silence, x)
        return y


class ResidualUnit:
    """x + conv_1(elu(conv_3(elu(x)))), half as wide inside."""

    def __init__(self, weights: Weights, width: int, config: CodecEncoderConfig) -> None:
        inner = width // config.compress
        self.wide = StridedConv(weights.at("block.1."), inner, width, config.residual_kernel)
        self.narrow = StridedConv(weights.at("block.3."), width, inner, 1)

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor:
        """Return the residual sum [T, N]."""
        return ops.add(x, self.narrow(ops.elu(self.wide(ops.elu(x), tails)), tails))


class EncoderLayer:
    """One pre-norm layer of the transformer, its LayerScales folded into the projections at load."""

    def __init__(self, weights: Weights, config: CodecEncoderConfig) -> None:
        width, wide, heads = config.width, config.feed_forward, config.heads * config.head_dim
        keys = config.kv_heads * config.head_dim
        self.config = config
        self.attention_norm = weights.norm("input_layernorm", width)
        names = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")
        self.qkv = weights.fused(names, (heads, keys, keys), width)
        self.output = self._scaled(weights, "self_attn.o_proj.weight", "self_attn_layer_scale.scale", width, heads)
        self.final_norm = weights.norm("post_attention_layernorm", width)
        self.wide = weights.linear("mlp.fc1.weight", wide, width)
        self.narrow = self._scaled(weights, "mlp.fc2.weight", "mlp_layer_scale.scale", width, wide)

    @staticmethod
    def _scaled(weights: Weights, name: str, scale: str, outputs: int, inputs: int) -> Tensor:
        return weights.scaled_linear(name, outputs, inputs, weights.array(scale, outputs))

    def __call__(self, x: Tensor, table: Tensor, keys: Tensor, values: Tensor, length: Tensor) -> Tensor:
        """Run the layer over rows x [T, N]."""
        epsilon = self.config.norm_epsilon
        qkv = ops.matmul(ops.layer_norm(x, *self.attention_norm, epsilon=epsilon), self.qkv)
        q = ops.rope_append(qkv, table, keys, values, length)
        y = ops.attention(q, keys, values, length, scale=self.config.head_dim**-0.5, causal=True)
        x = ops.matmul_add(y.reshape(len(x), -1), self.output, x)
        hidden = ops.gelu(ops.matmul(ops.layer_norm(x, *self.final_norm, epsilon=epsilon), self.wide))
        return ops.matmul_add(hidden, self.narrow, x)


class Quantiser:
    """A chain of codebooks behind a projection: each takes the nearest entry of what the ones before left over."""

    def __init__(self, weights: Weights, config: CodecEncoderConfig, count: int) -> None:
        inner, entries = config.codebook_width, config.codebook_size
        self.device = weights.device
        kernel = weights.array("input_proj.weight", inner, config.width, 1)[:, :, 0]
        self.project = weights.place_exact(np.ascontiguousarray(kernel))
        self.tables = []
        for index in range(count):
            vectors = codebook(weights.at(f"layers.{index}.codebook."), "embed_sum", entries, inner)
            # The nearest entry has the largest product less half its own square; ties go to the lowest id.
            half_squares = -0.5 * (vectors.astype(np.float64) ** 2).sum(axis=1)
            self.tables.append(
                (
                    weights.place_exact(vectors),
                    weights.place_exact(half_squares[None]),
                    weights.place_exact(-vectors),
                )
            )

    def __call__(self, rows: Tensor) -> list[np.ndarray]:
        """Return the codes int32 [F] of each codebook for rows [F, W]."""
        rest = ops.matmul(rows, self.project)
        codes = []
        for vectors, half_squares, negative in self.tables:
            chosen = ops.argmax(ops.matmul_add(rest, vectors, half_squares))
            codes.append(chosen)
            rest = ops.add(rest, ops.embed(negative, chosen))
        return [chosen.numpy() for chosen in codes]


class CodecEncoder:
    """Samples to codes; names follow the checkpoint under `encoder.`."""

    def __init__(self, weights: Weights, config: CodecEncoderConfig, *, codebooks: int) -> None:
        self.config = config
        self.device = weights.device
        stem = weights.at("encoder.layers.")
        width, index = config.filters, 1
        self.first = StridedConv(stem.at("0."), width, 1, config.kernel)
        self.stages = []
        for stride in reversed(config.ratios):
            unit = ResidualUnit(stem.at(f"{index}."), width, config)
            down = StridedConv(stem.at(f"{index + 2}."), 2 * width, width, 2 * stride, stride)
            self.stages.append((unit, down))
            width, index = 2 * width, index + 3
        self.last = StridedConv(stem.at(f"{index + 1}."), config.width, width, config.last_kernel)
        layers = weights.at("encoder_transformer.layers.")
        self.layers = [EncoderLayer(layers.at(f"{i}."), config) for i in range(config.layers)]
        kernel = weights.array("downsample.conv.weight", config.width, config.width, DOWNSAMPLE_TAPS)
        self.downsample = weights.place_exact(np.ascontiguousarray(kernel.transpose(0, 2, 1)))
        self.no_bias = weights.place_exact(np.zeros(config.width))
        quantisers = weights.at("quantizer.")
        self.semantic = Quantiser(quantisers.at("semantic_residual_vector_quantizer."), config, 1)
        self.acoustic = Quantiser(quantisers.at("acoustic_residual_vector_quantizer."), config, codebooks - 1)
        self.frequencies = weights.place_exact(frequencies(config.head_dim, config.rope_theta))
        weights.done(ignored=_unused(config, codebooks))

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the codes int32 [K, F] of mono samples [N], a frame for each 1920 begun.

        Raises InputError for an empty clip or more than one channel.
        """
        if samples.ndim != 1 or not len(samples):
            raise InputError(f"the codec encodes samples of one channel, got {list(samples.shape)}")
        rows = self._halve(self._transform(self._convolve(np.asarray(samples, np.float32))))
        return np.stack([*self.semantic(rows), *self.acoustic(rows)])

    def _convolve(self, samples: np.ndarray) -> Tensor:
        """Return the rows [T, W] at 25 Hz that the convolutions make, piece by piece."""
        step = PIECE * prod(self.config.ratios)
        tails = StreamTails()
        rows: Tensor | None = None
        for start in range(0, len(samples), step):
            x = self.first(self.device.tensor(samples[start : start + step, None]), tails)
            for unit, down in self.stages:
                x = down(ops.elu(unit(x, tails)), tails)
            x = self.last(ops.elu(x), tails)
            rows = x if rows is None else ops.concat_rows(rows, x)
        assert rows is not None
        return rows

    def _transform(self, x: Tensor) -> Tensor:
        config = self.config
        cache = KVCache(self.device, (config.layers, len(x), config.kv_heads, config.head_dim))
        cache.extend(len(x))
        positions = self.device.tensor(np.arange(len(x), dtype=np.float32)[:, None])
        table = ops.angles(positions, self.frequencies)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = layer(x, table, keys, values, cache.length)
        return x

    def _halve(self, x: Tensor) -> Tensor:
        """Return the rows [F, W] at 12.5 Hz of rows at 25 Hz, the ends repeated."""
        left = DOWNSAMPLE_TAPS - DOWNSAMPLE
        index = np.pad(np.arange(len(x), dtype=np.int32), (left, -len(x) % DOWNSAMPLE), mode="edge")
        rows = ops.embed(x, self.device.tensor(index))
        return ops.conv1d(rows[left:], rows[:left], self.downsample, self.no_bias, stride=DOWNSAMPLE)


def _unused(config: CodecEncoderConfig, codebooks: int) -> list[str]:
    """Return the tensors that encoding does not read: ways back, flags of training, quantisers beyond those used."""
    chains = ("quantizer.semantic_residual_vector_quantizer.", "quantizer.acoustic_residual_vector_quantizer.")
    names = [f"{chain}output_proj." for chain in chains]
    names += [f"{chain}layers.{i}.codebook.initialized" for chain in chains for i in range(config.quantisers)]
    return names + [f"{chains[1]}layers.{i}." for i in range(codebooks - 1, config.quantisers)]
