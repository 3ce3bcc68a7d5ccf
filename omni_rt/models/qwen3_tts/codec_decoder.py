"""The 12 Hz codec, codes to samples, whole or streamed.

    codes [K, F] -> first codebook | sum of the others -> two projections, added -> causal conv 3
      -> linear -> windowed transformer -> linear -> waveform stack -> samples: 1920 a frame, none lost

Codebooks are stored as sums and counts; their quotients, already projected, are what is kept: one table of rows per
codebook, so that a frame is one sum of K rows.
"""

from __future__ import annotations

import numpy as np

from omni_rt import ops
from omni_rt.models.code_stream import CodeDecoder
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.qwen3_tts.config import CodecDecoderConfig
from omni_rt.models.waveform import STEADY_FRAMES, CausalConv, Entry, WaveformShape, WaveformStack
from omni_rt.state import KVCache, TailLayout, Tails
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

SMALLEST_USAGE = 1e-5
"""A codebook entry that training hardly used has a count near zero; the reference divides by no less than this."""

LATENT_TAPS = 3
"""Taps of the convolution between codebooks and transformer."""


def codebook(weights: Weights, sums: str, entries: int, width: int) -> np.ndarray:
    """Return the vectors [entries, width] of one codebook: their stored sum over how often each was used."""
    usage = np.asarray(weights.array("cluster_usage", entries), np.float32)
    total = np.asarray(weights.array(sums, entries, width), np.float32)
    return total / np.maximum(usage, np.float32(SMALLEST_USAGE))[:, None]


def waveform_shape(config: CodecDecoderConfig) -> WaveformShape:
    """Return the extents of the waveform stack."""
    return WaveformShape(
        config.latent_width, config.upsample_ratios, config.upsample_rates, config.decoder_width, looks_ahead=False
    )


class CodecDecoder(CodeDecoder):
    """Codes to speech; names follow the checkpoint under `decoder.`."""

    def __init__(self, weights: Weights, config: CodecDecoderConfig, *, chunk: int | None = None) -> None:
        super().__init__()
        self.config = self.sizes = config
        self.device = weights.device
        self.layout = TailLayout()
        shape = waveform_shape(config)
        self.chunk = chunk or shape.chunk_frames()
        self.codebooks = weights.place_exact(self._projected_codebooks(weights.at("quantizer.")))
        nothing = np.zeros(config.codebook_width, np.float32)
        entry = Entry(weights, self.layout, (LATENT_TAPS - 1, config.codebook_width), nothing)
        self.pre_conv = CausalConv(
            weights.at("pre_conv."), config.latent_width, entry, rows=STEADY_FRAMES, taps=LATENT_TAPS
        )
        transformer = weights.at("pre_transformer.")
        self.input = transformer.affine("input_proj", config.width, config.latent_width)
        self.transformer = Decoder(transformer, config, as_rows=STEADY_FRAMES)
        self.output = transformer.affine("output_proj", config.latent_width, config.width)
        self.stack = WaveformStack(weights, shape, self.layout)
        self._offsets = self.device.tensor(np.arange(config.codebooks, dtype=np.int32) * config.codebook_size)
        self._frequencies = weights.place_exact(frequencies(config.head_dim, config.rope_theta))
        weights.done(ignored=("quantizer.rvq_first.input_proj.", "quantizer.rvq_rest.input_proj."))

    def _projected_codebooks(self, weights: Weights) -> np.ndarray:
        """Return the rows [K * entries, W] of all codebooks behind the output projection of their quantiser."""
        config = self.config
        inner, entries = config.codebook_width // 2, config.codebook_size
        tables = []
        for name, count in (("rvq_first.", 1), ("rvq_rest.", config.codebooks - 1)):
            quantiser = weights.at(name)
            project = np.asarray(quantiser.array("output_proj.weight", config.codebook_width, inner, 1), np.float32)
            for index in range(count):
                own = quantiser.at(f"vq.layers.{index}._codebook.")
                tables.append(codebook(own, "embedding_sum", entries, inner) @ project[:, :, 0].T)
        return np.concatenate(tables)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Decode codes int [K, F] to samples float32 [1920 F] in [-1, 1].

        Raises InputError for codes of another shape or outside the codebooks.
        """
        return self.stream().push(codes)

    def hidden(self, codes: Tensor, positions: Tensor, cache: KVCache, tails: Tails) -> Tensor:
        """Return the rows [T, N] of the stack for codes i32 [T, K] at positions [T, 1], which the cache counts."""
        x = ops.embed_sum(self.codebooks, codes, self._offsets)
        x = ops.matmul_add(self.pre_conv(x, tails), *self.input, as_rows=STEADY_FRAMES)
        x, _ = self.transformer(x, ops.angles(positions, self._frequencies), cache)
        return ops.matmul_add(x, *self.output, as_rows=STEADY_FRAMES)
