"""The ECAPA-TDNN of the Base models: a voice to one embedding.

    samples 24 kHz -> log-mel [F, M] -> TDNN -> 3 SE-Res2Net blocks -> TDNN over their outputs side by side
      -> attentive mean and deviation over time -> linear -> [D]

Rows are time. What the original cuts into or joins from pieces of channels is done on the weights at load: a block's
first convolution is one product per piece, and a convolution over joined pieces a sum of products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.io.mel import mel_filterbank, power_spectrum
from omni_rt.models.qwen3_tts.config import SpeakerEncoderConfig
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

WINDOW = 1024
HOP = 256
HIGHEST = 12_000
"""Hz of the upper edge of the mel filters."""

LEAST_FRAMES = 5
"""Mel frames without which the widest dilated convolution could not be reflected at the ends."""


def speaker_mel(samples: np.ndarray, mels: int, rate: int) -> np.ndarray:
    """Return natural-log mels [F, M] of 24 kHz mono samples [N], float32; F = N // 256.

    Raises InputError for fewer samples than five frames.
    """
    pad = (WINDOW - HOP) // 2
    if samples.ndim != 1 or len(samples) < LEAST_FRAMES * HOP:
        raise InputError(
            f"the reference voice has {list(samples.shape)} samples at {rate} Hz; at least {LEAST_FRAMES * HOP} of one "
            "channel are needed, and 3 to 15 seconds serve best"
        )
    padded = np.pad(samples.astype(np.float64), pad, mode="reflect")
    magnitude = np.sqrt(power_spectrum(padded, WINDOW, HOP) + 1e-9)
    filters = mel_filterbank(WINDOW // 2 + 1, mels, 0, HIGHEST, rate)
    return np.log(np.maximum(magnitude @ filters, 1e-5)).astype(np.float32)


class SameConv:
    """A convolution with as many outputs as inputs, the ends reflected."""

    def __init__(self, weights: Weights, outputs: int, inputs: int, taps: int, dilation: int) -> None:
        kernel = weights.array("conv.weight", outputs, inputs, taps)
        self.kernel = weights.place_exact(np.ascontiguousarray(kernel.transpose(0, 2, 1)))
        self.bias = weights.exact("conv.bias", outputs)
        self.dilation = dilation
        self.reach = (taps - 1) * dilation

    def __call__(self, x: Tensor, device: Device) -> Tensor:
        """Convolve rows x [T, C]."""
        left = self.reach // 2
        index = np.pad(np.arange(len(x), dtype=np.int32), (left, self.reach - left), mode="reflect")
        rows = ops.embed(x, device.tensor(index))
        return ops.conv1d(rows[self.reach :], rows[: self.reach], self.kernel, self.bias, dilation=self.dilation)


class JoinedLinear:
    """A convolution of one tap over pieces of channels that lie apart: the sum of one product per piece."""

    def __init__(self, weights: Weights, outputs: int, pieces: list[int]) -> None:
        """Read `weight` and `bias` under a prefix that ends in the convolution's name."""
        kernel = weights.array("weight", outputs, sum(pieces), 1)[:, :, 0]
        ends = np.cumsum(pieces)
        self.parts = [
            weights.place_exact(np.ascontiguousarray(kernel[:, end - width : end]))
            for end, width in zip(ends, pieces, strict=True)
        ]
        self.bias = weights.exact("bias", outputs).reshape(1, outputs)

    def __call__(self, pieces: list[Tensor]) -> Tensor:
        """Return [T, outputs] of pieces [T, C] each."""
        total = ops.matmul_add(pieces[0], self.parts[0], self.bias)
        for piece, part in zip(pieces[1:], self.parts[1:], strict=True):
            total = ops.matmul_add(piece, part, total)
        return total


class SqueezeRes2Net:
    """One SE-Res2Net block: split, convolve in a chain, join, gate channels by the mean over time, add the input."""

    def __init__(self, weights: Weights, config: SpeakerEncoderConfig, index: int) -> None:
        width, scale = config.channels[index], config.res2net_scale
        piece = width // scale
        kernel = weights.array("tdnn1.conv.weight", width, width, 1)[:, :, 0]
        bias = weights.array("tdnn1.conv.bias", width)
        cuts = [slice(start, start + piece) for start in range(0, width, piece)]
        self.split = [
            (weights.place_exact(np.ascontiguousarray(kernel[cut])), weights.place_exact(bias[None, cut]))
            for cut in cuts
        ]
        self.chain = [
            SameConv(
                weights.at(f"res2net_block.blocks.{j}."), piece, piece, config.kernels[index], config.dilations[index]
            )
            for j in range(scale - 1)
        ]
        self.join = JoinedLinear(weights.at("tdnn2.conv."), width, [piece] * scale)
        narrow = config.squeeze_channels
        self.squeeze = JoinedLinear(weights.at("se_block.conv1."), narrow, [width])
        self.excite = JoinedLinear(weights.at("se_block.conv2."), width, [narrow])

    def __call__(self, x: Tensor, device: Device) -> Tensor:
        """Run the block over rows x [T, C]."""
        pieces = [ops.relu(ops.matmul_add(x, *linear)) for linear in self.split]
        joined = [pieces[0]]
        for j, convolution in enumerate(self.chain):
            piece = pieces[j + 1] if j == 0 else ops.add(pieces[j + 1], joined[-1])
            joined.append(ops.relu(convolution(piece, device)))
        y = ops.relu(self.join(joined))
        mean, _ = ops.pool(y, device.tensor(np.zeros(y.shape, np.float32)))
        gate = self.excite([ops.relu(self.squeeze([mean]))])
        return ops.gate_channels(y, gate, x)


class SpeakerEncoder:
    """The speaker encoder of Qwen3-TTS; names follow the checkpoint under `speaker_encoder.`."""

    def __init__(self, weights: Weights, config: SpeakerEncoderConfig) -> None:
        self.config = config
        self.device = weights.device
        last = config.channels[-1]
        self.first = SameConv(
            weights.at("blocks.0."), config.channels[0], config.mels, config.kernels[0], config.dilations[0]
        )
        inner = range(1, len(config.channels) - 1)
        self.blocks = [SqueezeRes2Net(weights.at(f"blocks.{i}."), config, i) for i in inner]
        self.join = JoinedLinear(weights.at("mfa.conv."), last, [config.channels[i] for i in inner])
        self.attend = JoinedLinear(weights.at("asp.tdnn.conv."), config.attention_channels, [last, last, last])
        self.score = JoinedLinear(weights.at("asp.conv."), last, [config.attention_channels])
        self.output = JoinedLinear(weights.at("fc."), config.width, [last, last])
        weights.done()

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the embedding float32 [D] of a voice: mono samples [N] at the config's rate.

        Raises InputError for a clip that is too short.
        """
        return self.embed(speaker_mel(samples, self.config.mels, self.config.sample_rate))

    def embed(self, mel: np.ndarray) -> np.ndarray:
        """Return the embedding float32 [D] of log-mels [F, M]."""
        device = self.device
        x = ops.relu(self.first(device.tensor(mel), device))
        outputs = []
        for block in self.blocks:
            x = block(x, device)
            outputs.append(x)
        x = ops.relu(self.join(outputs))
        even = device.tensor(np.zeros(x.shape, np.float32))
        repeated = device.tensor(np.zeros(len(x), np.int32))
        mean, deviation = (ops.embed(row, repeated) for row in ops.pool(x, even))
        hidden = ops.tanh(ops.relu(self.attend([x, mean, deviation])))
        pooled = ops.pool(x, self.score([hidden]))
        return self.output(list(pooled)).numpy()[0]
