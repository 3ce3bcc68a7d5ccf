"""Code2Wav: frames of 16 codes to 24 kHz speech, whole or streamed.

    codes [K, F] -> mean of K embeddings [F, N] -> decoder with a sliding window -> waveform stack -> samples

F frames give 1920 F - 555 samples in the release: each of the four blocks looks one input row ahead.
"""

from __future__ import annotations

import numpy as np

from omni_rt import ops
from omni_rt.models.code_stream import CodeDecoder
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.qwen3_omni.config_sections import Code2WavConfig
from omni_rt.models.waveform import STEADY_FRAMES, WaveformShape, WaveformStack
from omni_rt.results import AudioOutput
from omni_rt.state import KVCache, TailLayout, Tails
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights


def waveform_shape(config: Code2WavConfig) -> WaveformShape:
    """Return the extents of the waveform stack."""
    return WaveformShape(
        config.width, config.upsample_ratios, config.upsample_rates, config.decoder_width, looks_ahead=True
    )


class Code2Wav(CodeDecoder):
    """The vocoder of Qwen3-Omni; names follow the checkpoint under `code2wav.`."""

    def __init__(self, weights: Weights, config: Code2WavConfig, *, chunk: int | None = None) -> None:
        super().__init__()
        self.config = self.sizes = config
        self.device = weights.device
        self.layout = TailLayout()
        shape = waveform_shape(config)
        self.chunk = chunk or shape.chunk_frames()
        self.code_embedding = weights.exact(
            "code_embedding.weight", config.codebooks * config.codebook_size, config.width
        )
        self.transformer = Decoder(weights.at("pre_transformer."), config, as_rows=STEADY_FRAMES)
        self.stack = WaveformStack(weights, shape, self.layout)
        self._offsets = self.device.tensor(np.arange(config.codebooks, dtype=np.int32) * config.codebook_size)
        self._frequencies = self.device.tensor(frequencies(config.head_dim, config.rope_theta))
        weights.done()

    def __call__(self, codes: np.ndarray) -> AudioOutput:
        """Decode codes int [K, F] to speech; no frames give no samples.

        Raises InputError for codes of another shape or outside the codebooks.
        """
        return AudioOutput(self.stream().push(codes), self.config.sample_rate)

    def hidden(self, codes: Tensor, positions: Tensor, cache: KVCache, tails: Tails) -> Tensor:
        """Return the rows [T, N] of the stack for codes i32 [T, K] at positions [T, 1], which the cache counts."""
        table = ops.angles(positions, self._frequencies)
        x = ops.embed_sum(self.code_embedding, codes, self._offsets, scale=1 / self.config.codebooks)
        return self.transformer(x, table, cache)[0]
