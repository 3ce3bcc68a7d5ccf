"""The one codes-to-waveform stack: frames of hidden rows through upsampling and Snake blocks to samples, streamed.

    x [T, N] -> { transposed conv k = s -> ConvNeXt } x ratios -> causal conv 7
             -> { Snake -> transposed conv k = 2s -> 3 residual units, dilation 1, 3, 9 } x rates
             -> Snake -> causal conv 7 -> samples [S, 1]

Whole and streamed decoding are the same code and give the same bits: each convolution reads the rows before its input
from the `StreamTails` of the stream, and its kernel is chosen by `STEADY_FRAMES`, not by how many frames come. Rows
lead: activations are [T, C]. Kernels are rearranged at load, and ConvNeXt's gamma is folded into its second pointwise
weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.state import StreamTails
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

KERNEL = 7
"""Taps of every causal convolution of the stack."""

DILATIONS = (1, 3, 9)
"""Dilations of the three residual units of a block."""

NORM_EPSILON = 1e-6
"""Epsilon of ConvNeXt's layer norm."""

CHUNK_BYTES = 32 << 20
"""Size that the largest activation of a chunk should not exceed; several such live at a time."""

STEADY_FRAMES = 8
"""Frames for which kernels are chosen, however many are decoded at once: few, as in a stream."""

CHUNK_FRAMES = 300
"""Most frames decoded at once."""


@dataclass(frozen=True)
class WaveformShape:
    """The extents of a stack: input width, strides before and inside the decoder, and the decoder's first width.

    With `looks_ahead` a transposed convolution drops its first block of outputs, as Qwen3-Omni does: each block then
    needs one more input row and the waveform is shorter. Without it, nothing is lost (Qwen3-TTS).
    """

    width: int
    ratios: tuple[int, ...]
    rates: tuple[int, ...]
    decoder_width: int
    looks_ahead: bool

    def chunk_frames(self) -> int:
        """Return how many frames can be decoded at once within the memory that a chunk may use."""
        rows, widest = 1, 4 * self.width
        for ratio in self.ratios:
            rows *= ratio
            widest = max(widest, rows * 4 * self.width)
        for index, rate in enumerate(self.rates):
            rows *= rate
            widest = max(widest, rows * (self.decoder_width >> (index + 1)))
        return int(np.clip(CHUNK_BYTES // (4 * widest), 1, CHUNK_FRAMES))


class CausalConv:
    """A convolution that sees only the past: [T, inputs] -> [T, outputs]. `rows` come of STEADY_FRAMES frames."""

    def __init__(
        self,
        weights: Weights,
        outputs: int,
        inputs: int,
        *,
        rows: int,
        taps: int = KERNEL,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        kernel = weights.array("conv.weight", outputs, inputs // groups, taps)
        self.kernel = weights.place_half(kernel.transpose(0, 2, 1))
        self.bias = weights.exact("conv.bias", outputs)
        self.dilation = dilation
        self.rows = rows
        self.silence = weights.device.zeros(((taps - 1) * dilation, inputs))

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor:
        """Convolve rows that follow those of the stream so far."""
        before = tails.before(self, self.silence)
        frame = self.rows // STEADY_FRAMES
        y = ops.conv1d(x, before, self.kernel, self.bias, dilation=self.dilation, as_rows=self.rows, frame=frame)
        tails.keep(self, self.silence, x)
        return y


class Repeat:
    """A transposed convolution whose kernel is its stride, a product per row: [T, N] -> [stride * T, N].

    `rows` are those of STEADY_FRAMES frames, of the input here as in all that follows.
    """

    def __init__(self, weights: Weights, width: int, stride: int, *, rows: int) -> None:
        kernel = weights.array("conv.weight", width, width, stride)
        self.kernel = weights.place_half(kernel.transpose(2, 1, 0).reshape(stride * width, width))
        bias = weights.array("conv.bias", width)
        self.bias = weights.place_exact(np.tile(bias, stride)[None])
        self.stride = stride
        self.rows = rows

    def __call__(self, x: Tensor) -> Tensor:
        """Return `stride` rows for each row."""
        return ops.matmul_add(x, self.kernel, self.bias, as_rows=self.rows).reshape(self.stride * len(x), -1)


class Upsampling:
    """A transposed convolution whose kernel is twice its stride: block t of the output is made of rows t - 1 and t."""

    def __init__(
        self, weights: Weights, outputs: int, inputs: int, stride: int, *, rows: int, looks_ahead: bool
    ) -> None:
        kernel = weights.array("conv.weight", inputs, outputs, 2 * stride).reshape(inputs, outputs, 2, stride)
        # Phase m takes tap m + stride of the row before and tap m of the row itself.
        self.kernel = weights.place_half(np.ascontiguousarray(kernel[:, :, ::-1].transpose(3, 1, 2, 0)))
        self.bias = weights.exact("conv.bias", outputs)
        self.silence = weights.device.zeros((1, inputs))
        self.rows = rows
        self.looks_ahead = looks_ahead

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor | None:
        """Return `stride` rows for each row, but none for the first of a stream that looks ahead."""
        before = tails.before(self, self.silence)
        later = x
        if self.looks_ahead and not tails.seen(self):
            before, later = x[:1], x[1:]
        tails.keep(self, self.silence, x)
        if not len(later):
            return None
        frame = self.rows // STEADY_FRAMES
        return ops.conv_transpose1d(later, before, self.kernel, self.bias, as_rows=self.rows, frame=frame)


class Snake:
    """The periodic activation x + sin(e^alpha x)^2 / (e^beta + 1e-9), per channel."""

    def __init__(self, weights: Weights, width: int) -> None:
        alpha, beta = weights.array("alpha", width), weights.array("beta", width)
        self.frequency = weights.place_exact(np.exp(np.asarray(alpha, np.float32)))
        self.amplitude = weights.place_exact(1 / (np.exp(np.asarray(beta, np.float32)) + np.float32(1e-9)))

    def __call__(self, x: Tensor) -> Tensor:
        """Activate rows."""
        return ops.snake(x, self.frequency, self.amplitude)


class ConvNeXt:
    """x + gamma * pwconv2(gelu(pwconv1(norm(dwconv(x)))))."""

    def __init__(self, weights: Weights, width: int, *, rows: int) -> None:
        wide = 4 * width
        self.rows = rows
        gamma = np.asarray(weights.array("gamma", width), np.float32)
        self.depthwise = CausalConv(weights.at("dwconv."), width, width, rows=rows, groups=width)
        self.norm_weight = weights.exact("norm.weight", width)
        self.norm_bias = weights.exact("norm.bias", width)
        self.widen = weights.linear("pwconv1.weight", wide, width)
        self.widen_bias = weights.exact("pwconv1.bias", wide).reshape(1, wide)
        self.narrow = weights.scaled_linear("pwconv2.weight", width, wide, gamma)
        self.narrow_bias = weights.place_exact((weights.array("pwconv2.bias", width) * gamma)[None])

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor:
        """Return the residual sum [T, N]."""
        y = ops.layer_norm(self.depthwise(x, tails), self.norm_weight, self.norm_bias, epsilon=NORM_EPSILON)
        y = ops.gelu(ops.matmul_add(y, self.widen, self.widen_bias, as_rows=self.rows))
        return ops.matmul_add(y, self.narrow, ops.add(x, self.narrow_bias), as_rows=self.rows)


class ResidualUnit:
    """x + conv2(snake(conv1(snake(x)))), conv1 dilated, conv2 of one tap."""

    def __init__(self, weights: Weights, width: int, dilation: int, *, rows: int) -> None:
        self.rows = rows
        self.snake1 = Snake(weights.at("act1."), width)
        self.conv1 = CausalConv(weights.at("conv1."), width, width, rows=rows, dilation=dilation)
        self.snake2 = Snake(weights.at("act2."), width)
        self.conv2 = weights.place_half(weights.array("conv2.conv.weight", width, width, 1)[:, :, 0])
        self.conv2_bias = weights.exact("conv2.conv.bias", width).reshape(1, width)

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor:
        """Return the residual sum [T, N]."""
        y = self.snake2(self.conv1(self.snake1(x), tails))
        return ops.matmul_add(y, self.conv2, ops.add(x, self.conv2_bias), as_rows=self.rows)


class Block:
    """One decoder block: Snake, upsampling to half the width, three residual units."""

    def __init__(self, weights: Weights, width: int, stride: int, *, rows: int, looks_ahead: bool) -> None:
        half = width // 2
        self.snake = Snake(weights.at("block.0."), width)
        self.upsampling = Upsampling(weights.at("block.1."), half, width, stride, rows=rows, looks_ahead=looks_ahead)
        self.units = [
            ResidualUnit(weights.at(f"block.{i}."), half, dilation, rows=rows * stride)
            for i, dilation in enumerate(DILATIONS, 2)
        ]

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor | None:
        """Return [stride * T, N / 2], or None while there is nothing yet."""
        y = self.upsampling(self.snake(x), tails)
        if y is not None:
            for unit in self.units:
                y = unit(y, tails)
        return y


class WaveformStack:
    """Everything from hidden rows to samples; names follow the checkpoint (`upsample.0.0.`, `decoder.6.`)."""

    def __init__(self, weights: Weights, shape: WaveformShape) -> None:
        rows = STEADY_FRAMES
        self.upsample = []
        for i, ratio in enumerate(shape.ratios):
            repeat = Repeat(weights.at(f"upsample.{i}.0."), shape.width, ratio, rows=rows)
            rows *= ratio
            self.upsample.append((repeat, ConvNeXt(weights.at(f"upsample.{i}.1."), shape.width, rows=rows)))
        width, last = shape.decoder_width, len(shape.rates) + 1
        self.first = CausalConv(weights.at("decoder.0."), width, shape.width, rows=rows)
        self.blocks = []
        for i, rate in enumerate(shape.rates, 1):
            at, inputs = weights.at(f"decoder.{i}."), width >> (i - 1)
            self.blocks.append(Block(at, inputs, rate, rows=rows, looks_ahead=shape.looks_ahead))
            rows *= rate
        self.snake = Snake(weights.at(f"decoder.{last}."), width >> len(shape.rates))
        self.last = CausalConv(weights.at(f"decoder.{last + 1}."), 1, width >> len(shape.rates), rows=rows)

    def __call__(self, x: Tensor, tails: StreamTails) -> Tensor | None:
        """Return the samples [S, 1], not yet clamped, that rows [T, N] complete; None when there are none."""
        for repeat, convnext in self.upsample:
            x = convnext(repeat(x), tails)
        y: Tensor | None = self.first(x, tails)
        for block in self.blocks:
            if y is None:
                return None
            y = block(y, tails)
        return None if y is None else self.last(self.snake(y), tails)


class CodeStream:
    """Codes in, samples out, in pieces of any length: what is pushed together or apart gives the same waveform."""

    def __init__(
        self, decode: Callable[[np.ndarray], Tensor | None], *, codebooks: int, entries: int, chunk: int
    ) -> None:
        """Stream through `decode`, which takes the next codes int32 [T <= chunk, K] and returns samples [S, 1]."""
        self._decode = decode
        self._codebooks = codebooks
        self._entries = entries
        self._chunk = chunk
        self._finished = False

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Add codes int [K, T] and return the samples that they complete, float32 [S] in [-1, 1].

        Raises InputError for codes of another shape or outside the codebooks, and after `finish`.
        """
        if self._finished:
            raise InputError("codes were pushed to a stream that is finished; open another one")
        frames = checked_codes(codes, self._codebooks, self._entries)
        pieces = [self._decode(frames[i : i + self._chunk]) for i in range(0, len(frames), self._chunk)]
        samples = [np.clip(piece.numpy().reshape(-1), -1, 1) for piece in pieces if piece is not None]
        return np.concatenate(samples) if samples else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """End the stream and return the samples that are left: none, as each is emitted as soon as it is known."""
        self._finished = True
        return np.zeros(0, np.float32)


def checked_codes(codes: np.ndarray, codebooks: int, entries: int) -> np.ndarray:
    """Return codes int [K, T] as int32 rows [T, K]; raise InputError for another shape or value."""
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[0] != codebooks or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"codes are {codes.dtype} {list(codes.shape)}, expected whole numbers [{codebooks} codebooks, frames]"
        )
    if codes.size and not 0 <= codes.min() <= codes.max() < entries:
        raise InputError(
            f"codes run from {codes.min()} to {codes.max()}, but the codebooks have {entries} entries; "
            "stop tokens and other specials are no codes"
        )
    return np.ascontiguousarray(codes.T, np.int32)
