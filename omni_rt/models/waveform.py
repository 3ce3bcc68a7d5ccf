"""The one codes-to-waveform stack: frames of hidden rows through upsampling and Snake blocks to samples, streamed.

    x [T, N] -> { transposed conv k = s -> ConvNeXt } x ratios -> causal conv 7
             -> { Snake -> transposed conv k = 2s -> 3 residual units, dilation 1, 3, 9 } x rates
             -> Snake -> causal conv 7 -> samples [S, 1]

Whole and streamed decoding are the same code and give the same bits: each convolution reads the rows before its input
from the `Tails` of the stream, and its kernel is chosen by `STEADY_FRAMES`, not by how many frames come. Rows
lead: activations are [T, C]. Kernels are rearranged at load, ConvNeXt's gamma is folded into its second pointwise
weight, and what ends a residual sum leaves its bias to what reads the sum (`pending`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from omni_rt import ops
from omni_rt.state import TailLayout, Tails
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


def looks_back(dilation: int = 1) -> int:
    """Return how many rows before its own an output of a convolution of KERNEL taps sees."""
    return (KERNEL - 1) * dilation


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
        return int(np.clip(CHUNK_BYTES // (4 * max(self._stages())), 1, CHUNK_FRAMES))

    def recorded_bytes(self, frames: int) -> int:
        """Return about how many bytes of activations recordings for so many frames in all keep: three at each stage."""
        return 3 * 4 * sum(self._stages()) * frames

    def _stages(self) -> list[int]:
        """Return how many values one frame has at each stage."""
        rows, values = 1, [4 * self.width]
        for ratio in self.ratios:
            rows *= ratio
            values.append(rows * 4 * self.width)
        for index, rate in enumerate(self.rates):
            rows *= rate
            values.append(rows * (self.decoder_width >> (index + 1)))
        return values


class Entry:
    """What a causal convolution reads: rows x + b behind the rows before them, which the stream keeps.

    `pending` [C] is b: a bias that what came before has left to add.
    """

    def __init__(self, weights: Weights, layout: TailLayout, shape: tuple[int, int], pending: np.ndarray) -> None:
        """Take a slot of `shape` [rows before, C]."""
        self.rows = shape[0]
        self.slot = layout.add(*shape)
        self.bias = weights.place_exact(pending)

    def __call__(self, x: Tensor, tails: Tails) -> Tensor:
        """Return the rows before and those of x: [P + T, C]."""
        return ops.behind_tail(x, self.bias, tails[self.slot])


class Snake:
    """The periodic activation x + sin(e^alpha x)^2 / (e^beta + 1e-9), per channel."""

    def __init__(self, weights: Weights, width: int) -> None:
        alpha, beta = weights.array("alpha", width), weights.array("beta", width)
        self.frequency = weights.place_exact(np.exp(np.asarray(alpha, np.float32)))
        self.amplitude = weights.place_exact(1 / (np.exp(np.asarray(beta, np.float32)) + np.float32(1e-9)))


class SnakeEntry(Entry):
    """The same, through Snake."""

    def __init__(self, weights: Weights, layout: TailLayout, shape: tuple[int, int], pending: np.ndarray) -> None:
        super().__init__(weights, layout, shape, pending)
        self.snake = Snake(weights, shape[1])

    def __call__(self, x: Tensor, tails: Tails) -> Tensor:
        """Return the rows before and the activated ones of x: [P + T, C]."""
        snake = self.snake
        return ops.snake_behind_tail(x, self.bias, snake.frequency, snake.amplitude, tails[self.slot])


class CausalConv:
    """A convolution that sees only the past: [T, inputs] -> [T, outputs]. `rows` come of STEADY_FRAMES frames.

    `taps` and `dilation` say how many rows before its own an output sees, see `looks_back`; `entry` makes these rows.
    """

    def __init__(
        self,
        weights: Weights,
        outputs: int,
        entry: Entry,
        *,
        rows: int,
        taps: int = KERNEL,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        kernel = weights.array("conv.weight", outputs, entry.bias.shape[0] // groups, taps)
        self.kernel = weights.place_half(kernel.transpose(0, 2, 1))
        self.bias = weights.exact("conv.bias", outputs)
        self.dilation = dilation
        self.rows = rows
        self.entry = entry

    def __call__(self, x: Tensor, tails: Tails, after: Snake | None = None) -> Tensor:
        """Convolve rows that follow those of the stream so far, and activate the outputs where that comes next."""
        seen, before = self.entry(x, tails), self.entry.rows
        rule: Any = {"dilation": self.dilation, "as_rows": self.rows, "frame": self.rows // STEADY_FRAMES}
        operands = seen[before:], seen[:before], self.kernel, self.bias
        if after is None:
            return ops.conv1d(*operands, **rule)
        return ops.conv1d_activated(*operands, (after.frequency, after.amplitude), **rule)


class Repeat:
    """A transposed convolution whose kernel is its stride, a product per row: [T, N] -> [stride * T, N].

    `rows` are those of STEADY_FRAMES frames, of the input here as in all that follows.
    """

    def __init__(self, weights: Weights, width: int, stride: int, pending: np.ndarray, *, rows: int) -> None:
        kernel = weights.array("conv.weight", width, width, stride).transpose(2, 1, 0).reshape(stride * width, width)
        self.kernel = weights.place_half(kernel)
        bias = np.tile(weights.array("conv.bias", width), stride)
        self.bias = weights.place_exact((bias + np.asarray(kernel, np.float32) @ pending)[None])
        self.stride = stride
        self.rows = rows

    def __call__(self, x: Tensor) -> Tensor:
        """Return `stride` rows for each row."""
        return ops.matmul_add(x, self.kernel, self.bias, as_rows=self.rows).reshape(self.stride * len(x), -1)


class Upsampling:
    """A transposed convolution whose kernel is twice its stride: block t of the output is made of rows t - 1 and t."""

    def __init__(
        self, weights: Weights, outputs: int, stride: int, entry: Entry, *, rows: int, looks_ahead: bool
    ) -> None:
        inputs = entry.bias.shape[0]
        kernel = weights.array("conv.weight", inputs, outputs, 2 * stride).reshape(inputs, outputs, 2, stride)
        # Phase m takes tap m + stride of the row before and tap m of the row itself.
        self.kernel = weights.place_half(np.ascontiguousarray(kernel[:, :, ::-1].transpose(3, 1, 2, 0)))
        self.bias = weights.exact("conv.bias", outputs)
        self.stride = stride
        self.rows = rows
        self.entry = entry
        self.looks_ahead = looks_ahead

    def __call__(self, x: Tensor, tails: Tails, *, begins: bool) -> Tensor | None:
        """Return `stride` rows for each row, but none for the first of a stream that begins and looks ahead."""
        return self.over(self.entry(x, tails), begins=begins)

    def over(self, seen: Tensor, *, begins: bool) -> Tensor | None:
        """Do what a call does with what the entry made: rows [1 + T, inputs]."""
        if begins and self.looks_ahead:
            seen = seen[1:]
        if len(seen) < 2:
            return None
        rule = {"as_rows": self.rows, "frame": self.rows // STEADY_FRAMES}
        return ops.conv_transpose1d(seen[1:], seen[:1], self.kernel, self.bias, **rule)


class ConvNeXt:
    """x + gamma * pwconv2(gelu(pwconv1(norm(dwconv(x))))), but for the bias of pwconv2, which is `pending`."""

    def __init__(self, weights: Weights, width: int, layout: TailLayout, *, rows: int) -> None:
        wide = 4 * width
        self.rows = rows
        gamma = np.asarray(weights.array("gamma", width), np.float32)
        entry = Entry(weights, layout, (looks_back(), width), np.zeros(width, np.float32))
        self.depthwise = CausalConv(weights.at("dwconv."), width, entry, rows=rows, groups=width)
        self.norm_weight = weights.exact("norm.weight", width)
        self.norm_bias = weights.exact("norm.bias", width)
        self.widen = weights.linear("pwconv1.weight", wide, width)
        self.widen_bias = weights.exact("pwconv1.bias", wide).reshape(1, wide)
        self.narrow = weights.scaled_linear("pwconv2.weight", width, wide, gamma)
        self.pending = np.asarray(weights.array("pwconv2.bias", width), np.float32) * gamma

    def __call__(self, x: Tensor, tails: Tails) -> Tensor:
        """Return the residual sum [T, N] without `pending`."""
        y = ops.layer_norm(self.depthwise(x, tails), self.norm_weight, self.norm_bias, epsilon=NORM_EPSILON)
        y = ops.gelu(ops.matmul_add(y, self.widen, self.widen_bias, as_rows=self.rows))
        return ops.matmul_add(y, self.narrow, x, as_rows=self.rows)


class ResidualUnit:
    """x + conv2(snake(conv1(snake(x)))), conv1 dilated, conv2 of one tap; all biases that x lacks are `pending`."""

    def __init__(self, weights: Weights, layout: TailLayout, dilation: int, pending: np.ndarray, *, rows: int) -> None:
        self.rows = rows
        width = len(pending)
        entry = SnakeEntry(weights.at("act1."), layout, (looks_back(dilation), width), pending)
        self.conv1 = CausalConv(weights.at("conv1."), width, entry, rows=rows, dilation=dilation)
        self.snake2 = Snake(weights.at("act2."), width)
        self.conv2 = weights.place_half(weights.array("conv2.conv.weight", width, width, 1)[:, :, 0])
        self.pending = pending + np.asarray(weights.array("conv2.conv.bias", width), np.float32)

    def __call__(self, x: Tensor, tails: Tails) -> Tensor:
        """Return the residual sum [T, N] without `pending`."""
        return ops.matmul_add(self.conv1(x, tails, after=self.snake2), self.conv2, x, as_rows=self.rows)


class Block:
    """One decoder block: Snake, upsampling to half the width, three residual units."""

    def __init__(
        self,
        weights: Weights,
        layout: TailLayout,
        stride: int,
        pending: np.ndarray,
        *,
        rows: int,
        looks_ahead: bool,
    ) -> None:
        half = len(pending) // 2
        entry = SnakeEntry(weights.at("block.0."), layout, (1, len(pending)), pending)
        self.upsampling = Upsampling(weights.at("block.1."), half, stride, entry, rows=rows, looks_ahead=looks_ahead)
        self.units: list[ResidualUnit] = []
        self.pending = np.zeros(half, np.float32)
        for i, dilation in enumerate(DILATIONS, 2):
            unit = ResidualUnit(weights.at(f"block.{i}."), layout, dilation, self.pending, rows=rows * stride)
            self.units.append(unit)
            self.pending = unit.pending

    def __call__(self, x: Tensor, tails: Tails, *, begins: bool) -> Tensor | None:
        """Return [stride * T, N / 2] without `pending`, or None while there is nothing yet."""
        y = self.upsampling(x, tails, begins=begins)
        if y is not None:
            for unit in self.units:
                y = unit(y, tails)
        return y


class WaveformStack:
    """Everything from hidden rows to samples; names follow the checkpoint (`upsample.0.0.`, `decoder.6.`).

    Biases in front of an Entry or a Repeat are added there, so that a residual sum is one product.
    """

    def __init__(self, weights: Weights, shape: WaveformShape, layout: TailLayout) -> None:
        rows = STEADY_FRAMES
        pending = np.zeros(shape.width, np.float32)
        self.upsample = []
        for i, ratio in enumerate(shape.ratios):
            repeat = Repeat(weights.at(f"upsample.{i}.0."), shape.width, ratio, pending, rows=rows)
            rows *= ratio
            convnext = ConvNeXt(weights.at(f"upsample.{i}.1."), shape.width, layout, rows=rows)
            pending = convnext.pending
            self.upsample.append((repeat, convnext))
        first = Entry(weights, layout, (looks_back(), shape.width), pending)
        self.first = CausalConv(weights.at("decoder.0."), shape.decoder_width, first, rows=rows)
        self.blocks: list[Block] = []
        pending = np.zeros(shape.decoder_width, np.float32)
        for i, rate in enumerate(shape.rates, 1):
            at = weights.at(f"decoder.{i}.")
            block = Block(at, layout, rate, pending, rows=rows, looks_ahead=shape.looks_ahead)
            pending = block.pending
            self.blocks.append(block)
            rows *= rate
        end = len(shape.rates) + 1
        last = SnakeEntry(weights.at(f"decoder.{end}."), layout, (looks_back(), len(pending)), pending)
        self.last = CausalConv(weights.at(f"decoder.{end + 1}."), 1, last, rows=rows)

    def beginnings(self, frames: int) -> tuple[bool, ...]:
        """Return for each block whether no rows have reached it behind `frames` frames, where that matters."""
        rows, begins = frames * self.blocks[0].upsampling.rows // STEADY_FRAMES if self.blocks else 0, []
        for block in self.blocks:
            upsampling = block.upsampling
            begins.append(upsampling.looks_ahead and not rows)
            rows = max(rows - upsampling.looks_ahead, 0) * upsampling.stride
        return tuple(begins)

    @property
    def reach(self) -> int:
        """How many frames before its own the rows of a tail can depend on, at most."""
        convolutions = [convnext.depthwise for _, convnext in self.upsample] + [self.first, self.last]
        for block in self.blocks:
            convolutions += [unit.conv1 for unit in block.units]
        entries = [(conv.entry.rows, conv.rows) for conv in convolutions]
        entries += [(block.upsampling.entry.rows, block.upsampling.rows) for block in self.blocks]
        return ceil(sum(STEADY_FRAMES * before / rows for before, rows in entries)) + 1

    def __call__(self, x: Tensor, tails: Tails, begins: Sequence[bool]) -> Tensor | None:
        """Return the samples [S, 1], not yet clamped, that rows [T, N] complete; None when there are none.

        `begins` says of each block whether these are its first rows, see `beginnings`.
        """
        for repeat, convnext in self.upsample:
            x = convnext(repeat(x), tails)
        y: Tensor | None = self.first(x, tails)
        for block, first in zip(self.blocks, begins, strict=True):
            if y is None:
                return None
            y = block(y, tails, begins=first)
        return None if y is None else self.last(y, tails)
