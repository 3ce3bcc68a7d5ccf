"""Convolutions over time-major rows [T, C], and the two-dimensional one of the audio stem.

A causal convolution reads `tail`, the P rows before the first: zeros at the start of a stream, the last P rows of what
came before within it. So a streamed and a whole run are the same op.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.ops.contract import op


@op(
    "x[T, C], tail[P, C], w[N, J, I]:weight, b[N] -> y[(P + T + right - (J - 1) * dilation - 1) // stride + 1, N]",
)
def conv1d(x: Any, tail: Any, w: Any, b: Any, *, stride: int = 1, dilation: int = 1, right: int = 0) -> Any:
    """Convolve rows: y[u] = b + sum_j w[:, j] @ rows[u * stride + j * dilation], rows = tail, x, `right` zero rows.

    C / I groups: output n reads the I channels of group n // (N / groups).
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
            y += seen @ w[:, tap].T
        elif inputs == 1 and outputs == groups:
            y += seen * w[:, tap, 0]
        else:
            split = seen.reshape(count, groups, inputs)
            y += np.einsum("ugi,gni->ugn", split, w[:, tap].reshape(groups, -1, inputs)).reshape(count, outputs)
    return y + b


@op("x[T, C], tail[P, C], w[M, N, Q, C]:weight, b[N] -> y[M*T, N]")
def conv_transpose1d(x: Any, tail: Any, w: Any, b: Any) -> Any:
    """Transposed convolution of stride M, by phase: y[t * M + m] = b + sum_q w[m, :, q] @ rows[t + q], rows = tail, x.

    Q = P + 1 taps. A kernel W[C, N, k] with k = Q * M becomes w[m, n, q, c] = W[c, n, m + (Q - 1 - q) * M].
    """
    rows = np.concatenate([tail, x])
    phases, outputs, taps, _ = w.shape
    y = np.zeros((len(x), phases * outputs), x.dtype)
    for tap in range(taps):
        y += rows[tap : tap + len(x)] @ w[:, :, tap].reshape(phases * outputs, -1).T
    return y.reshape(-1, outputs) + b


@op(
    "x[B, H, W, C], w[N, J, L, C]:weight, b[N]"
    " -> y[B, (H + 2 * pad - J) // stride + 1, (W + 2 * pad - L) // stride + 1, N]"
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
