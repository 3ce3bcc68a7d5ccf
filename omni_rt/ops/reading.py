"""The op that does nothing but read: it tells how fast memory can be read, and serves no model."""

from __future__ import annotations

from typing import Any

from omni_rt.ops.contract import Kernel, Native, Tolerance, op


@op(
    "x[T, 4*Q] -> y[T]",
    kernels=(Kernel("read_all", ("T", "Q"), lambda c, v: (c.T, 1, 1)),),
    natives=(Native("read_all", ("T", "Q")),),
    domain=({"T": 1, "Q": 1}, {"T": 3, "Q": 257}, {"T": 33, "Q": 1031}),
    tolerance=Tolerance(nmse=1e-9, peak=1e-4),  # thousands of values of either sign cancel in one sum
    bench=({"T": 256, "Q": 16384},),  # 64 MiB; the bench of ops takes more where it fits
)
def read_all(x: Any) -> Any:
    """Sum each row: y[t] = sum_n x[t, n]."""
    return x.sum(axis=1)
