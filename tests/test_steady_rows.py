"""What a call computes for a row does not depend on the rows around it, where a call asks for that: the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from omni_rt import ops
from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from omni_rt.tensor import Tensor

ROWS = 300
PIECES = ((0, 1), (1, 2), (3, 5), (8, 17), (25, 40), (65, 128), (193, 107))
"""First row and number of rows of the calls that together cover ROWS rows."""


@pytest.fixture(scope="module", params=["cpu", "numpy", "wgpu"])
def steady(request: pytest.FixtureRequest) -> Device:
    """Each device, and the CPU without its C bodies."""
    if request.param == "numpy":
        return open_device("cpu", level="numpy")
    device: Device = request.getfixturevalue("cpu" if request.param == "cpu" else "gpu")
    return device


def values(*shape: int) -> np.ndarray:
    """Return ordinary float32 values, the same for the same shape."""
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def framed(frame: int) -> list[tuple[int, int]]:
    """Return first rows and numbers of rows of calls that meet only at whole frames, counted from the last row."""
    cuts = np.clip(ROWS - frame * np.array([1 << 20, 9, 6, 5, 1, 0]), 0, ROWS).tolist()
    return [(first, end - first) for first, end in pairwise(cuts) if end > first]


def assert_rows_stand_alone(
    device: Device,
    run: Callable[[np.ndarray, int], Tensor],
    per_row: int = 1,
    pieces: Sequence[tuple[int, int]] = PIECES,
) -> None:
    """Assert that `run`, which gets rows of x and the number of the first, gives a row the same bits in any company.

    `per_row` rows come out for each that goes in. Sums in float64 that are rounded once may differ in the last bit.
    """
    whole = run(values(ROWS, WIDTH), 0).numpy()
    for first, count in pieces:
        got = run(values(ROWS, WIDTH)[first : first + count], first).numpy()
        expected = whole[first * per_row : (first + count) * per_row]
        if device.name == "cpu" and device.level == "numpy":
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
        else:
            np.testing.assert_array_equal(got, expected)


WIDTH = 96
DTYPES = ("f32", "f16", "q8_0")
KERNELS = ("f32", "f16")
"""Dtypes of the kernels of convolutions."""


@pytest.mark.parametrize("as_rows", [1, 2, 8, 32, 120, 1200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products(steady: Device, dtype: str, as_rows: int) -> None:
    w, b = steady.weight(values(40, WIDTH), dtype), steady.tensor(values(1, 40))
    assert_rows_stand_alone(steady, lambda x, _: ops.matmul(steady.tensor(x), w, as_rows=as_rows))
    assert_rows_stand_alone(steady, lambda x, _: ops.matmul_add(steady.tensor(x), w, b, as_rows=as_rows))


@pytest.mark.parametrize("as_rows", [8, 32, 1200])
@pytest.mark.parametrize(("outputs", "groups"), [(40, 1), (1, 1), (WIDTH, WIDTH)])
@pytest.mark.parametrize("dtype", KERNELS)
def test_convolutions(steady: Device, dtype: str, outputs: int, groups: int, as_rows: int) -> None:
    w, b = steady.weight(values(outputs, 7, WIDTH // groups), dtype), steady.tensor(values(outputs))
    before = values(18 + ROWS, WIDTH)
    before[18:] = values(ROWS, WIDTH)

    def run(x: np.ndarray, first: int) -> Tensor:
        tail = steady.tensor(before[first : first + 18])
        return ops.conv1d(steady.tensor(x), tail, w, b, dilation=3, as_rows=as_rows)

    assert_rows_stand_alone(steady, run)


@pytest.mark.parametrize("as_rows", [8, 32, 1200])
@pytest.mark.parametrize("dtype", KERNELS)
def test_transposed_convolutions(steady: Device, dtype: str, as_rows: int) -> None:
    w, b = steady.weight(values(3, 20, 2, WIDTH), dtype), steady.tensor(values(20))
    before = values(1 + ROWS, WIDTH)
    before[1:] = values(ROWS, WIDTH)

    def run(x: np.ndarray, first: int) -> Tensor:
        tail = steady.tensor(before[first : first + 1])
        return ops.conv_transpose1d(steady.tensor(x), tail, w, b, as_rows=as_rows)

    assert_rows_stand_alone(steady, run, per_row=3)


@pytest.mark.parametrize(("frame", "dilation"), [(8, 1), (32, 1), (32, 3), (32, 9), (50, 9), (11, 20)])
@pytest.mark.parametrize("dtype", KERNELS)
def test_convolutions_of_whole_frames(steady: Device, dtype: str, frame: int, dilation: int) -> None:
    """A stream that is cut at frames only, the first of which may be a part of one."""
    w, b, tail = steady.weight(values(40, 7, WIDTH), dtype), steady.tensor(values(40)), 6 * dilation
    before = values(tail + ROWS, WIDTH)
    before[tail:] = values(ROWS, WIDTH)

    def run(x: np.ndarray, first: int) -> Tensor:
        rows = steady.tensor(before[first : first + tail])
        return ops.conv1d(steady.tensor(x), rows, w, b, dilation=dilation, as_rows=8 * frame, frame=frame)

    assert_rows_stand_alone(steady, run, pieces=framed(frame))


@pytest.mark.parametrize("frame", [8, 32, 50])
@pytest.mark.parametrize("dtype", KERNELS)
def test_transposed_convolutions_of_whole_frames(steady: Device, dtype: str, frame: int) -> None:
    w, b = steady.weight(values(3, 20, 2, WIDTH), dtype), steady.tensor(values(20))
    before = values(1 + ROWS, WIDTH)
    before[1:] = values(ROWS, WIDTH)

    def run(x: np.ndarray, first: int) -> Tensor:
        tail = steady.tensor(before[first : first + 1])
        return ops.conv_transpose1d(steady.tensor(x), tail, w, b, as_rows=8 * frame, frame=frame)

    assert_rows_stand_alone(steady, run, per_row=3, pieces=framed(frame))


@pytest.mark.parametrize("as_rows", [1, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_normed_products(steady: Device, dtype: str, as_rows: int) -> None:
    w, g = steady.weight(values(80, WIDTH), dtype), steady.tensor(values(WIDTH))
    for op in (ops.project_normed, ops.gate_up_normed):
        assert_rows_stand_alone(steady, lambda x, _, op=op: op(steady.tensor(x), g, w, epsilon=1e-6, as_rows=as_rows))


@pytest.mark.parametrize("window", [9, 72])
def test_attention_of_a_stream(steady: Device, window: int) -> None:
    """Queries over a window of the keys before them, which lie in a ring of as many rows as the pieces need."""
    heads, width, rows = 2, 48, window + ROWS - 1
    keys, queries = values(ROWS, heads, width), values(ROWS, WIDTH)

    def run(x: np.ndarray, first: int) -> Tensor:
        ring = np.zeros((rows, heads, width), np.float32)
        ring[: first + len(x)] = keys[: first + len(x)]
        k = steady.tensor(ring)
        length = steady.tensor(np.array([first + len(x)], np.int32))
        q = steady.tensor(queries[first : first + len(x)].reshape(-1, heads, width))
        y = ops.attend(q, k, k, length, scale=0.3, causal=True, window=window, as_rows=8)
        return y.reshape(len(x), WIDTH)

    assert_rows_stand_alone(steady, run)


@pytest.mark.parametrize("name", ["gelu", "silu", "softmax", "snake", "layer_norm", "rms_norm"])
def test_ops_on_single_rows(steady: Device, name: str) -> None:
    near_one = steady.tensor(1 + 0.1 * values(WIDTH))
    more: dict[str, Any] = {"snake": (near_one, near_one), "layer_norm": (near_one, near_one), "rms_norm": (near_one,)}
    attributes = {"epsilon": 1e-6} if name.endswith("norm") else {}
    op = getattr(ops, name)
    assert_rows_stand_alone(steady, lambda x, _: op(steady.tensor(x), *more.get(name, ()), **attributes))
