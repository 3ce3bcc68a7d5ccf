"""Code2Wav: frames of 16 codes to 24 kHz speech, whole or streamed.

    codes [K, F] -> mean of K embeddings [F, N] -> decoder with a sliding window -> waveform stack -> samples

F frames give 1920 F - 555 samples in the release: each of the four blocks looks one input row ahead.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from omni_rt import ops
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.qwen3_omni.config_sections import Code2WavConfig
from omni_rt.models.waveform import STEADY_FRAMES, CodeStream, WaveformShape, WaveformStack
from omni_rt.results import AudioOutput
from omni_rt.state import KVCache, StreamTails
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights


class Code2Wav:
    """The vocoder of Qwen3-Omni; names follow the checkpoint under `code2wav.`.

    `chunk` frames are decoded at once, however many are asked for, so that memory stays bounded.
    """

    def __init__(self, weights: Weights, config: Code2WavConfig, *, chunk: int | None = None) -> None:
        self.config = config
        self.device = weights.device
        shape = WaveformShape(
            config.width, config.upsample_ratios, config.upsample_rates, config.decoder_width, looks_ahead=True
        )
        self.chunk = chunk or shape.chunk_frames()
        self.code_embedding = weights.exact(
            "code_embedding.weight", config.codebooks * config.codebook_size, config.width
        )
        self.pre_transformer = Decoder(weights.at("pre_transformer."), config, as_rows=STEADY_FRAMES)
        self.stack = WaveformStack(weights, shape)
        self._offsets = self.device.tensor(np.arange(config.codebooks, dtype=np.int32) * config.codebook_size)
        self._frequencies = self.device.tensor(frequencies(config.head_dim, config.rope_theta))
        weights.done()

    def __call__(self, codes: np.ndarray) -> AudioOutput:
        """Decode codes int [K, F] to speech; no frames give no samples.

        Raises InputError for codes of another shape or outside the codebooks.
        """
        return AudioOutput(self.stream().push(codes), self.config.sample_rate)

    def stream(self) -> CodeStream:
        """Open a stream: `push` codes [K, T] and get the samples that they complete."""
        cache = self.pre_transformer.cache(self.config.sliding_window + self.chunk - 1)
        return CodeStream(
            partial(self._decode, cache, StreamTails()),
            codebooks=self.config.codebooks,
            entries=self.config.codebook_size,
            chunk=self.chunk,
        )

    def _decode(self, cache: KVCache, tails: StreamTails, frames: np.ndarray) -> Tensor | None:
        return self.stack(self._hidden(cache, frames), tails)

    def _hidden(self, cache: KVCache, frames: np.ndarray) -> Tensor:
        """Return the rows [T, N] that the transformer makes of codes [T, K]."""
        positions = np.arange(cache.count, cache.count + len(frames), dtype=np.float32)[:, None]
        table = ops.angles(self.device.tensor(positions), self._frequencies)
        ids = self.device.tensor(frames)
        x = ops.embed_sum(self.code_embedding, ids, self._offsets, scale=1 / self.config.codebooks)
        cache.extend(len(frames))
        return self.pre_transformer(x, table, cache)[0]
