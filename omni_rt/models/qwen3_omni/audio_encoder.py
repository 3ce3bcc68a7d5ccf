"""The audio tower: log-mel frames to one embedding per 80 ms.

    mel [F, M] -> chunks [B, 100, M] -> 3 x (conv2d stride 2, GELU) -> [B, 13, 16 * C] -> linear -> + sinusoids
      -> layers with attention inside windows -> LayerNorm -> linear, GELU, linear -> [T, D]

Images of the stem are [time, mel, channels], so that its last output is already one row per time step.
"""

from __future__ import annotations

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni.config_sections import AudioEncoderConfig
from omni_rt.results import AudioTokens
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

EPSILON = 1e-5

STEM_CHUNKS = 16
"""Seconds of audio that pass the stem at once: its first image is the largest activation of the encoder."""


def halved(frames: int) -> int:
    """Return the time steps that the three convolutions of stride 2 make of `frames`."""
    for _ in range(3):
        frames = (frames + 1) // 2
    return frames


def audio_token_count(frames: int, chunk: int) -> int:
    """Return the embeddings of a clip of `frames` mel frames, cut into chunks of `chunk`."""
    return frames // chunk * halved(chunk) + halved(frames % chunk)


def sinusoids(rows: int, width: int) -> np.ndarray:
    """Return the position table [rows, width]: sines, then cosines, of the position inside the chunk."""
    half = width // 2
    rates = np.exp(-np.log(10000.0) / (half - 1) * np.arange(half, dtype=np.float32)).astype(np.float32)
    phases = np.arange(rows, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.sin(phases), np.cos(phases)], axis=1).astype(np.float32)


class AudioLayer:
    """One pre-norm layer with biases: self-attention within blocks, then a GELU feed-forward."""

    def __init__(self, weights: Weights, config: AudioEncoderConfig) -> None:
        width, wide = config.width, config.feed_forward
        self.config = config
        self.attention_norm = weights.norm("self_attn_layer_norm", width)
        attention = weights.at("self_attn.")
        self.query, self.key, self.value, self.output = (
            attention.affine(f"{name}_proj", width, width) for name in ("q", "k", "v", "out")
        )
        self.final_norm = weights.norm("final_layer_norm", width)
        self.wide = weights.affine("fc1", wide, width)
        self.narrow = weights.affine("fc2", width, wide)

    def __call__(self, x: Tensor, length: Tensor, block: int) -> Tensor:
        """Run the layer over rows x [T, N]."""
        heads, head_dim = self.config.heads, self.config.head_dim
        normed = ops.layer_norm(x, *self.attention_norm, epsilon=EPSILON)
        query, key, value = (
            ops.matmul_add(normed, *linear).reshape(-1, heads, head_dim)
            for linear in (self.query, self.key, self.value)
        )
        mixed = ops.attention(query, key, value, length, scale=head_dim**-0.5, causal=False, block=block)
        x = ops.add(x, ops.matmul_add(mixed.reshape(len(x), -1), *self.output))
        normed = ops.layer_norm(x, *self.final_norm, epsilon=EPSILON)
        hidden = ops.gelu(ops.matmul_add(normed, *self.wide))
        return ops.add(x, ops.matmul_add(hidden, *self.narrow))


class AudioEncoder:
    """The audio tower of Qwen3-Omni; names follow the checkpoint under `thinker.audio_tower.`."""

    def __init__(self, weights: Weights, config: AudioEncoderConfig) -> None:
        self.config = config
        self.device = weights.device
        channels, mels = config.channels, halved(config.mels)
        self.stem = [_convolution(weights, f"conv2d{i}", channels, 1 if i == 1 else channels) for i in (1, 2, 3)]
        flat = weights.array("conv_out.weight", config.width, channels * mels)
        by_mel = flat.reshape(config.width, channels, mels).transpose(0, 2, 1)
        self.stem_output = weights.place_stored(np.ascontiguousarray(by_mel).reshape(config.width, -1))
        self.layers = [AudioLayer(weights.at(f"layers.{i}."), config) for i in range(config.layers)]
        self.output_norm = weights.norm("ln_post", config.width)
        self.projections = (
            weights.affine("proj1", config.width, config.width),
            weights.affine("proj2", config.output_width, config.width),
        )
        weights.done()

    def __call__(self, mel: np.ndarray, longest: int | None = None) -> AudioTokens:
        """Encode one clip, log-mel float32 [F, M]; `longest` are the frames of the longest clip of the same prompt.

        Raises InputError for another number of mels or no frame at all.
        """
        mel = np.asarray(mel)
        if mel.ndim != 2 or mel.shape[1] != self.config.mels or not len(mel):
            raise InputError(f"the audio encoder takes log-mel [frames, {self.config.mels}], got {list(mel.shape)}")
        chunk = min(max(len(mel), longest or 0), self.config.chunk_frames)
        x = self._embed_chunks(mel, chunk)
        block = halved(chunk) * self.config.window_chunks
        length = self.device.tensor(np.array([len(x)], np.int32))
        for layer in self.layers:
            x = layer(x, length, block)
        x = ops.layer_norm(x, *self.output_norm, epsilon=EPSILON)
        first, second = self.projections
        return AudioTokens(ops.matmul_add(ops.gelu(ops.matmul_add(x, *first)), *second).numpy())

    def _embed_chunks(self, mel: np.ndarray, chunk: int) -> Tensor:
        """Run the convolutional stem over chunks of `chunk` frames, the last padded with zeros.

        Returns the rows that stand for real frames [T, N].
        """
        frames = len(mel)
        count = -(-frames // chunk)
        padded = np.zeros((count * chunk, mel.shape[1]), np.float32)
        padded[:frames] = mel
        steps = halved(chunk)
        table = self.device.tensor(sinusoids(steps, self.config.width))
        parts = []
        for start in range(0, count, STEM_CHUNKS):
            images = padded[start * chunk : (start + STEM_CHUNKS) * chunk].reshape(-1, chunk, mel.shape[1], 1)
            parts.append(self._stem(self.device.tensor(images), table))
        rows = parts[0]
        for part in parts[1:]:
            rows = ops.concat_rows(rows, part)
        return rows[: audio_token_count(frames, self.config.chunk_frames)]

    def _stem(self, x: Tensor, table: Tensor) -> Tensor:
        count = len(x)
        for kernel, bias in self.stem:
            x = ops.conv2d(x, kernel, bias, stride=2, pad=1)
            x = ops.gelu(x.reshape(-1, x.shape[-1])).reshape(*x.shape)
        x = ops.matmul(x.reshape(count * len(table), -1), self.stem_output)
        return ops.add(x.reshape(count, -1), table.reshape(1, -1)).reshape(count * len(table), -1)


def _convolution(weights: Weights, name: str, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Place a kernel stored [outputs, inputs, mel, time] as [outputs, time, mel, inputs], and its bias."""
    kernel = weights.array(f"{name}.weight", outputs, inputs, 3, 3).transpose(0, 3, 2, 1)
    return weights.place_half(np.ascontiguousarray(kernel)), weights.exact(f"{name}.bias", outputs)
