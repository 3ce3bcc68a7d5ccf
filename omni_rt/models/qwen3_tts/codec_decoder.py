"""The 12 Hz codec, codes to samples, whole or streamed.

    codes [K, F] -> first codebook | sum of the others -> two projections, added -> causal conv 3
      -> linear -> windowed transformer -> linear -> waveform stack -> samples: 1920 a frame, none lost

Codebooks are stored as sums and counts; their quotients, already projected, are what is kept: one table of rows per
codebook, so that a frame is one sum of K rows.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from omni_rt import ops
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.qwen3_tts.config import CodecDecoderConfig
from omni_rt.models.waveform import STEADY_FRAMES, CausalConv, CodeStream, WaveformShape, WaveformStack
from omni_rt.state import KVCache, StreamTails
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


class CodecDecoder:
    """Codes to speech; names follow the checkpoint under `decoder.`.

    `chunk` frames are decoded at once, however many are asked for, so that memory stays bounded.
    """

    def __init__(self, weights: Weights, config: CodecDecoderConfig, *, chunk: int | None = None) -> None:
        self.config = config
        self.device = weights.device
        shape = WaveformShape(
            config.latent_width, config.upsample_ratios, config.upsample_rates, config.decoder_width, looks_ahead=False
        )
        self.chunk = chunk or shape.chunk_frames()
        self.codebooks = weights.place_exact(self._projected_codebooks(weights.at("quantizer.")))
        self.pre_conv = CausalConv(
            weights.at("pre_conv."), config.latent_width, config.codebook_width, rows=STEADY_FRAMES, taps=LATENT_TAPS
        )
        transformer = weights.at("pre_transformer.")
        self.input = transformer.affine("input_proj", config.width, config.latent_width)
        self.transformer = Decoder(transformer, config, as_rows=STEADY_FRAMES)
        self.output = transformer.affine("output_proj", config.latent_width, config.width)
        self.stack = WaveformStack(weights, shape)
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

    def stream(self) -> CodeStream:
        """Open a stream: `push` codes [K, T] and get their samples, as many as the whole decode would give."""
        cache = self.transformer.cache(self.config.sliding_window + self.chunk - 1)
        return CodeStream(
            partial(self._decode, cache, StreamTails()),
            codebooks=self.config.codebooks,
            entries=self.config.codebook_size,
            chunk=self.chunk,
        )

    def _decode(self, cache: KVCache, tails: StreamTails, frames: np.ndarray) -> Tensor | None:
        x = ops.embed_sum(self.codebooks, self.device.tensor(frames), self._offsets)
        x = ops.matmul_add(self.pre_conv(x, tails), *self.input, as_rows=STEADY_FRAMES)
        positions = np.arange(cache.count, cache.count + len(frames), dtype=np.float32)[:, None]
        table = ops.angles(self.device.tensor(positions), self._frequencies)
        cache.extend(len(frames))
        x, _ = self.transformer(x, table, cache)
        return self.stack(ops.matmul_add(x, *self.output, as_rows=STEADY_FRAMES), tails)
