"""Convolutions over time-major rows [T, C], and the two-dimensional one of the audio stem.

A causal convolution reads `tail`, the P rows before the first: zeros at the start of a stream, the last P rows of what
came before within it. So a streamed and a whole run are the same op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from omni_rt.ops.contract import DTYPE_CLASSES, Call, Kernel, Native, by_weight, cdiv, op
from omni_rt.ops.elementwise import activated, snake, snake_example
from omni_rt.ops.grids import GRID_LIMIT
from omni_rt.ops.matmul import product
from omni_rt.tensor import Tensor

DTYPES = DTYPE_CLASSES["float"]
"""Dtypes of kernels: quantised models keep theirs in f16."""

FEW_ROWS = 32
"""From this many output rows on a convolution may go by tiles."""

MANY_ROWS = 1024
"""Below this many output rows the lanes of a workgroup share a sum instead of a tile, where they may do either."""

LEAST_FRAME = 8
"""Rows of a frame from which on the C bodies make four of its rows together."""

SKINNY = ({"COLS": 4, "ROWS": 8},)
TILED = ({"LANES_N": 16, "MB": 2, "NB": 1}, {"LANES_N": 8, "MB": 1, "NB": 3})

CONV1D_UNIFORMS = ("T", "C", "P", "N", "J", "I", "stride", "dilation", "right")

Shape = Callable[[Call], tuple[int, int]]
"""Output rows and columns of a call, as the matrix product that a convolution is."""


def _wide_kernels(name: str, uniforms: tuple[str, ...], shape: Shape, wide: Callable[[Call], bool]) -> list[Kernel]:
    """Return the kernels of a convolution for calls that are `wide`, by the dtypes of w; the first that takes one runs.

    `wide` says that the window of an output is made of whole vec4, of one group.
    """

    def skinny(call: Call) -> bool:
        return wide(call) and _judged_rows(call, shape) < MANY_ROWS

    def tiled(call: Call) -> bool:
        return wide(call) and call.N % 4 == 0 and _judged_rows(call, shape) >= FEW_ROWS

    def skinny_grid(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
        rows, columns = shape(call)
        return cdiv(columns, variant["ROWS"]), cdiv(rows, variant["COLS"]), 1

    def tiled_grid(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
        rows, columns = shape(call)
        lanes = variant["LANES_N"]
        return cdiv(columns, 4 * lanes * variant["NB"]), cdiv(rows, 1024 // lanes * variant["MB"]), 1

    kernels = []
    for dtype in DTYPES:
        weight = {"w": dtype}
        kernels += [
            Kernel(f"{name}_{dtype}_skinny", uniforms, skinny_grid, weight, skinny, SKINNY),
            Kernel(f"{name}_{dtype}_tiled", uniforms, tiled_grid, weight, tiled, TILED),
        ]
    return kernels


def _kernels(name: str, uniforms: tuple[str, ...], shape: Shape, wide: Callable[[Call], bool]) -> list[Kernel]:
    """Return the kernels of a convolution, the first that takes a call serves it; `wide` as in _wide_kernels."""

    def grid(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
        return min(cdiv(prod(shape(call)), 256), GRID_LIMIT), 1, 1

    direct = [Kernel(f"{name}_{dtype}_direct", uniforms, grid, {"w": dtype}) for dtype in DTYPES]
    return _wide_kernels(name, uniforms, shape, wide) + direct


def _few() -> list[Kernel]:
    """Return the kernels for conv1d with so few outputs that tiles would stand empty, one per weight dtype."""

    def takes(call: Call) -> bool:
        span = 63 * call.stride + (call.J - 1) * call.dilation + 1
        many = _judged_rows(call, _conv1d_shape) >= FEW_ROWS
        return call.I == call.C and call.C % 4 == 0 and call.N <= 3 and many and span <= 110

    def grid(call: Call, variant: Mapping[str, int]) -> tuple[int, int, int]:
        rows, outputs = _conv1d_shape(call)
        return cdiv(rows, 64), outputs, 1

    return [Kernel(f"conv1d_{dtype}_few", CONV1D_UNIFORMS, grid, {"w": dtype}, takes) for dtype in DTYPES]


def _judged_rows(call: Call, shape: Shape) -> int:
    """Return the output rows by which a call's kernel is chosen: its own, or those that it asks to be taken for."""
    return call.dims.get("as_rows") or shape(call)[0]


def _conv1d_shape(call: Call) -> tuple[int, int]:
    rows = (call.P + call.T + call.right - (call.J - 1) * call.dilation - 1) // call.stride + 1
    return rows, call.N


def _conv1d_wide(call: Call) -> bool:
    return bool(call.I == call.C and call.I % 4 == 0)


def _conv2d_shape(call: Call) -> tuple[int, int]:
    rows = (call.H + 2 * call.pad - call.J) // call.stride + 1
    columns = (call.W + 2 * call.pad - call.L) // call.stride + 1
    return call.B * rows * columns, call.N


def _minimal(name: str, uniforms: tuple[str, ...], takes: Callable[[Call], bool]) -> list[Native]:
    """Return the C bodies that make four rows of a frame together, with fewer products than one by one."""

    def when(call: Call) -> bool:
        return call.frame >= LEAST_FRAME and call.T > 0 and call.C % 16 == 0 and takes(call)

    return [Native(f"{name}_{dtype}_minimal", uniforms, {"w": dtype}, when) for dtype in DTYPES]


def _seven_taps(call: Call) -> bool:
    causal = 6 * call.dilation == call.P and call.right == 0 and call.stride == 1
    return causal and call.J == 7 and call.I == call.C and call.N >= 16


def _framed(**call: int) -> dict[str, int]:
    """Return a call of 7 taps in frames."""
    return {"P": 6 * call["dilation"], "J": 7, "I": call["C"], "stride": 1, "right": 0, **call}


@op(
    "x[T, C], tail[P, C], w[N, J, I]:float, b[N] -> y[(P + T + right - (J - 1) * dilation - 1) // stride + 1, N]",
    kernels=_few() + _kernels("conv1d", CONV1D_UNIFORMS, _conv1d_shape, _conv1d_wide),
    natives=(
        *_minimal("conv1d", ("T", "C", "N", "dilation", "frame"), _seven_taps),
        *by_weight("conv1d", *CONV1D_UNIFORMS, "as_rows", dtypes=DTYPES),
    ),
    domain=(
        {"T": 1, "C": 3, "P": 0, "N": 2, "J": 1, "I": 3, "stride": 1, "dilation": 1, "right": 0},
        {"T": 33, "C": 5, "P": 6, "N": 5, "J": 7, "I": 1, "stride": 1, "dilation": 1, "right": 0},
        {"T": 21, "C": 12, "P": 2, "N": 6, "J": 5, "I": 4, "stride": 2, "dilation": 1, "right": 1},
        {"T": 300, "C": 36, "P": 6, "N": 1, "J": 7, "I": 36, "stride": 1, "dilation": 1, "right": 0},
        {"T": 290, "C": 32, "P": 6, "N": 3, "J": 5, "I": 32, "stride": 1, "dilation": 2, "right": 3},
        {"T": 5, "C": 32, "P": 18, "N": 9, "J": 7, "I": 32, "stride": 1, "dilation": 3, "right": 0},
        {"T": 77, "C": 36, "P": 4, "N": 20, "J": 3, "I": 36, "stride": 2, "dilation": 2, "right": 2},
        {"T": 130, "C": 32, "P": 18, "N": 68, "J": 3, "I": 32, "stride": 1, "dilation": 9, "right": 0},
        {"T": 9, "C": 36, "P": 6, "N": 21, "J": 7, "I": 36, "stride": 1, "dilation": 1, "right": 2, "as_rows": 32},
        _framed(T=11, C=112, N=16, dilation=1, frame=8),
        _framed(T=75, C=32, N=72, dilation=9, frame=32),
        _framed(T=1000, C=32, N=20, dilation=3, frame=160),
    ),
    flops=lambda c: 2 * _conv1d_shape(c)[0] * c.N * c.J * c.I,
    bench=(
        # Code2Wav of Qwen3-Omni and the codec of Qwen3-TTS, four frames and one: the widest and the narrowest block.
        _framed(T=128, C=768, N=768, dilation=3, frame=32),
        _framed(T=7680, C=96, N=96, dilation=9, frame=1920),
        {
            "T": 4,
            "C": 1024,
            "P": 6,
            "N": 1536,
            "J": 7,
            "I": 1024,
            "stride": 1,
            "dilation": 1,
            "right": 0,
            "as_rows": 32,
        },
        {"T": 7680, "C": 96, "P": 6, "N": 1, "J": 7, "I": 96, "stride": 1, "dilation": 1, "right": 0},
        {"T": 16, "C": 1024, "P": 6, "N": 1024, "J": 7, "I": 1, "stride": 1, "dilation": 1, "right": 0},
    ),
)
def conv1d(
    x: Any,
    tail: Any,
    w: Any,
    b: Any,
    *,
    stride: int = 1,
    dilation: int = 1,
    right: int = 0,
    as_rows: int = 0,
    frame: int = 0,
) -> Any:
    """Convolve rows: y[u] = b + sum_j w[:, j] @ rows[u * stride + j * dilation], rows = tail, x, `right` zero rows.

    C / I groups: output n reads the I channels of group n // (N / groups). `as_rows` as in matmul, of outputs.
    `frame` > 0 says that a stream is cut only between whole frames of so many rows x, counted from the last row of a
    call: rows of a frame may then share roundings, and still have the same bits however the stream is cut.
    """
    rows = np.concatenate([tail, x, np.zeros((right, x.shape[1]), x.dtype)])
    outputs, taps, inputs = w.shape
    groups = x.shape[1] // inputs
    count = (len(rows) - (taps - 1) * dilation - 1) // stride + 1
    y = np.zeros((count, outputs), x.dtype)
    for tap in range(taps):
        start = tap * dilation
        seen = rows[start : start + (count - 1) * stride + 1 : stride]
        if groups == 1:
            y += product(seen, w[:, tap], as_rows)
        elif inputs == 1 and outputs == groups:
            y += seen * w[:, tap, 0]
        else:
            split = seen.reshape(count, groups, inputs)
            y += np.einsum("ugi,gni->ugn", split, w[:, tap].reshape(groups, -1, inputs)).reshape(count, outputs)
    return y + b


def _snake_example(rng: np.random.Generator, dims: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Weights whose sums of spikes stay where f32 tells one angle from another."""
    shape = (dims["N"], dims["J"], dims["I"])
    weights = rng.normal(size=shape) / np.sqrt(dims["J"] * dims["I"])
    return {"w": weights, **snake_example(rng, {"T": 2, "C": dims["N"]})}


@op(
    "x[T, C], tail[P, C], w[N, J, I]:float, b[N], frequency[N], amplitude[N]"
    " -> y[(P + T + right - (J - 1) * dilation - 1) // stride + 1, N]",
    kernels=_wide_kernels("conv1d_snake", CONV1D_UNIFORMS, _conv1d_shape, _conv1d_wide),
    domain=(
        {"T": 5, "C": 32, "P": 18, "N": 9, "J": 7, "I": 32, "stride": 1, "dilation": 3, "right": 0},
        {"T": 130, "C": 32, "P": 18, "N": 68, "J": 3, "I": 32, "stride": 1, "dilation": 9, "right": 0},
    ),
    example=_snake_example,
    flops=lambda c: 2 * _conv1d_shape(c)[0] * c.N * c.J * c.I,
    bench=(
        # The residual units of Code2Wav of Qwen3-Omni and of the codec of Qwen3-TTS, four frames.
        {"T": 128, "C": 768, "P": 18, "N": 768, "J": 7, "I": 768, "stride": 1, "dilation": 3, "right": 0},
        {"T": 7680, "C": 96, "P": 54, "N": 96, "J": 7, "I": 96, "stride": 1, "dilation": 9, "right": 0},
    ),
)
def conv1d_snake(
    x: Any,
    tail: Any,
    w: Any,
    b: Any,
    frequency: Any,
    amplitude: Any,
    *,
    stride: int = 1,
    dilation: int = 1,
    right: int = 0,
    as_rows: int = 0,
) -> Any:
    """Convolve rows as conv1d does, then activate them as snake does."""
    y = conv1d.body(x, tail, w, b, stride=stride, dilation=dilation, right=right, as_rows=as_rows)
    return activated(y, frequency, amplitude)


def conv1d_activated(
    x: Tensor, tail: Tensor, w: Tensor, b: Tensor, activation: tuple[Tensor, Tensor], **rule: int
) -> Tensor:
    """Return snake(conv1d(x, tail, w, b)), the snake of (frequency, amplitude): on a GPU in one step.

    w is f32 or f16; odd widths and groups, which no released model has here, take two steps. `rule` are attributes of
    conv1d.
    """
    outputs, _, inputs = w.shape
    if x.device.kind == "wgpu" and inputs == x.shape[1] and inputs % 4 == outputs % 4 == 0:
        rule.pop("frame", None)
        y: Tensor = conv1d_snake(x, tail, w, b, *activation, **rule)
        return y
    y = snake(conv1d(x, tail, w, b, **rule), *activation)
    return y


@op(
    "x[T, C], tail[P, C], w[M, N, Q, C]:float, b[N] -> y[M*T, N]",
    kernels=_kernels(
        "conv_transpose1d",
        ("T", "C", "P", "M", "N", "Q"),
        lambda c: (c.T, c.M * c.N),
        wide=lambda c: c.C % 4 == 0,
    ),
    natives=(
        *_minimal("conv_transpose1d", ("T", "C", "M", "N", "frame"), lambda c: c.Q == 2 and c.P == 1),
        *by_weight("conv_transpose1d", "T", "C", "P", "M", "N", "Q", "as_rows", dtypes=DTYPES),
    ),
    domain=(
        {"T": 1, "C": 3, "P": 0, "M": 2, "N": 3, "Q": 1},
        {"T": 5, "C": 32, "P": 1, "M": 3, "N": 5, "Q": 2},
        {"T": 37, "C": 36, "P": 2, "M": 2, "N": 12, "Q": 3},
        {"T": 9, "C": 36, "P": 1, "M": 2, "N": 5, "Q": 2, "as_rows": 32},
        {"T": 130, "C": 64, "P": 1, "M": 5, "N": 28, "Q": 2},
        {"T": 11, "C": 112, "P": 1, "M": 3, "N": 5, "Q": 2, "frame": 8},
        {"T": 1000, "C": 112, "P": 1, "M": 4, "N": 16, "Q": 2, "frame": 32},
    ),
    flops=lambda c: 2 * c.T * c.M * c.N * c.Q * c.C,
    bench=(
        # The upsamplers of Code2Wav of Qwen3-Omni, four frames: the first and the last.
        {"T": 16, "C": 1536, "P": 1, "M": 8, "N": 768, "Q": 2, "frame": 4, "as_rows": 32},
        {"T": 2560, "C": 192, "P": 1, "M": 3, "N": 96, "Q": 2, "frame": 640},
    ),
)
def conv_transpose1d(x: Any, tail: Any, w: Any, b: Any, *, as_rows: int = 0, frame: int = 0) -> Any:
    """Transposed convolution of stride M, by phase: y[t * M + m] = b + sum_q w[m, :, q] @ rows[t + q], rows = tail, x.

    Q = P + 1 taps. A kernel W[C, N, k] with k = Q * M becomes w[m, n, q, c] = W[c, n, m + (Q - 1 - q) * M].
    `as_rows` as in matmul, `frame` as in conv1d.
    """
    rows = np.concatenate([tail, x])
    phases, outputs, taps, _ = w.shape
    y = np.zeros((len(x), phases * outputs), x.dtype)
    for tap in range(taps):
        y += product(rows[tap : tap + len(x)], w[:, :, tap].reshape(phases * outputs, -1), as_rows)
    return y.reshape(-1, outputs) + b


@op(
    "x[B, H, W, C], w[N, J, L, C]:float, b[N]"
    " -> y[B, (H + 2 * pad - J) // stride + 1, (W + 2 * pad - L) // stride + 1, N]",
    kernels=_kernels(
        "conv2d",
        ("B", "H", "W", "C", "N", "J", "L", "stride", "pad"),
        _conv2d_shape,
        wide=lambda c: c.C % 4 == 0,
    ),
    natives=by_weight("conv2d", "B", "H", "W", "C", "N", "J", "L", "stride", "pad", dtypes=DTYPES),
    domain=(
        {"B": 2, "H": 7, "W": 5, "C": 1, "N": 3, "J": 3, "L": 3, "stride": 2, "pad": 1},
        {"B": 1, "H": 4, "W": 6, "C": 32, "N": 5, "J": 3, "L": 2, "stride": 2, "pad": 0},
        {"B": 3, "H": 9, "W": 11, "C": 36, "N": 20, "J": 3, "L": 3, "stride": 2, "pad": 1},
        {"B": 1, "H": 11, "W": 10, "C": 32, "N": 100, "J": 3, "L": 3, "stride": 1, "pad": 2},
    ),
    flops=lambda c: 2 * _conv2d_shape(c)[0] * c.N * c.J * c.L * c.C,
    bench=(
        # The audio stem of Qwen3-Omni, one chunk of 100 frames: 128 x 100 x 1 -> 64 x 50 x 480 -> 32 x 25 x 480.
        {"B": 1, "H": 128, "W": 100, "C": 1, "N": 480, "J": 3, "L": 3, "stride": 2, "pad": 1},
        {"B": 1, "H": 64, "W": 50, "C": 480, "N": 480, "J": 3, "L": 3, "stride": 2, "pad": 1},
    ),
)
def conv2d(x: Any, w: Any, b: Any, *, stride: int, pad: int) -> Any:
    """Convolve B images, channels last, with `pad` zeros on all sides."""
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    outputs, tall, wide, _ = w.shape
    rows = (padded.shape[1] - tall) // stride + 1
    columns = (padded.shape[2] - wide) // stride + 1
    y = np.zeros((x.shape[0], rows, columns, outputs), x.dtype)
    for j in range(tall):
        for i in range(wide):
            seen = padded[:, j : j + (rows - 1) * stride + 1 : stride, i : i + (columns - 1) * stride + 1 : stride]
            y += seen @ w[:, j, i].T
    return y + b
