"""Ops on the GPU agree with their NumPy bodies for any shape and dtype, whole or with the weight split by rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rt import ops, quant
from omni_rt.devices.plan import SPLIT_ROWS
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.ops.contract import Op
from omni_rt.tensor import plane_bytes
from tests.parity import rounded

DTYPES = ("f32", "f16", "q8_0")
Operands = dict[str, np.ndarray]
counts = st.integers
bounded = settings(max_examples=25)
seeds = st.integers(0, 2**31)


@contextmanager
def rows_split(device: WebGpuDevice, dtype: str, length: int) -> Iterator[None]:
    """Let the device bind at most SPLIT_ROWS rows of a weight with rows of `length` values while inside."""
    before, device.max_binding = device.max_binding, SPLIT_ROWS * plane_bytes((1, length), dtype)[0]
    try:
        yield
    finally:
        device.max_binding = before


def held(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return what a weight of `dtype` holds of `values`, as float64."""
    if dtype == "q8_0":
        return quant.dequantise(*quant.quantise(values)).astype(np.float64)
    return values.astype({"f32": np.float32, "f16": np.float16}[dtype]).astype(np.float64)


def assert_agrees(gpu: WebGpuDevice, op: Op, values: Operands, dtype: str, **attributes: Any) -> None:
    """Run an op with its weight w as `dtype`, and compare every output with the body in float64.

    Where the kernel rounds its activations to int8 the body gets rounded ones too; what it rounds of a product inside
    is not known, and leaves some per cent of the largest output.
    """
    operands = [gpu.weight(array, dtype) if name == "w" else gpu.tensor(array) for name, array in values.items()]
    exact = [
        held(array, dtype) if name == "w" else array.astype(np.float64) if array.dtype.kind == "f" else array
        for name, array in values.items()
    ]
    plan = gpu._planned(op, operands, attributes)
    assert plan is not None, f"no kernel takes {op}"
    tolerance = 2e-5
    if plan.kernel.int8 and "g" in values:
        tolerance = 0.1
    elif plan.kernel.int8:
        exact[0], (flipped, _) = rounded(plan.kernel, exact[0])
        tolerance = flipped.peak / 10  # a few are rounded to the neighbour
    got, truth = op(*operands, **attributes), op.body(*exact, **attributes)
    for output, expected in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, truth)), strict=True):
        scale = float(np.abs(expected).max()) + 1e-30
        np.testing.assert_allclose(output.numpy(), expected, rtol=0, atol=tolerance * scale)


def row_length(dtype: str, length: int) -> int:
    """Return a row length that the dtype can hold."""
    return -(-length // 32) * 32 if dtype == "q8_0" else length


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return ordinary float32 values."""
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=counts(1, 220), outputs=counts(1, 150), length=counts(1, 300), residual=st.booleans(), seed=seeds)
@bounded
def test_matmul_of_any_shape(
    gpu: WebGpuDevice, dtype: str, rows: int, outputs: int, length: int, residual: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    length = row_length(dtype, length)
    values = {"x": normal(rng, rows, length), "w": normal(rng, outputs, length)}
    assert_agrees(gpu, ops.matmul, values, dtype)
    values["r"] = normal(rng, rows if residual else 1, outputs)
    assert_agrees(gpu, ops.matmul_add, values, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=counts(1, 3), outputs=counts(1, 200), blocks=counts(1, 9), split=st.booleans(), seed=seeds)
@bounded
def test_products_of_normalised_rows_of_any_shape(
    gpu: WebGpuDevice, dtype: str, rows: int, outputs: int, blocks: int, split: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    length = 32 * blocks
    values = {"x": normal(rng, rows, length), "g": normal(rng, length), "w": normal(rng, 2 * outputs, length)}
    with rows_split(gpu, dtype, length) if split else nullcontext():
        assert_agrees(gpu, ops.norm_matmul, values, dtype, epsilon=1e-3)
        assert_agrees(gpu, ops.norm_gate_up, values, dtype, epsilon=1e-3)


@pytest.mark.parametrize("rows", [1, 5])
def test_normalised_products_in_one_step_or_several_are_the_same(gpu: WebGpuDevice, rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, g, w = gpu.tensor(normal(rng, rows, 64)), gpu.tensor(normal(rng, 64)), gpu.weight(normal(rng, 10, 64), "f32")
    products = ops.matmul(ops.rms_norm(x, g, epsilon=1e-6), w)
    hidden = ops.silu_mul(products).numpy()
    np.testing.assert_allclose(
        ops.project_normed(x, g, w, epsilon=1e-6).numpy(), products.numpy(), atol=1e-5, rtol=1e-5
    )
    np.testing.assert_allclose(ops.gate_up_normed(x, g, w, epsilon=1e-6).numpy(), hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 8, 40])
def test_matmul_with_a_weight_split_by_rows(gpu: WebGpuDevice, dtype: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    values = {
        "x": normal(rng, rows, 64),
        "w": normal(rng, 3 * SPLIT_ROWS - 5, 64),
        "r": normal(rng, 1, 3 * SPLIT_ROWS - 5),
    }
    with rows_split(gpu, dtype, 64):
        assert len(gpu.weight(values["w"], dtype).parts) == 3
        assert_agrees(gpu, ops.matmul_add, values, dtype)


def test_odd_rows_split_by_rows(gpu: WebGpuDevice) -> None:
    rng = np.random.default_rng(3)
    values = {"x": normal(rng, 3, 61), "w": normal(rng, 3 * SPLIT_ROWS - 5, 61)}
    for dtype in ("f32", "f16"):
        with rows_split(gpu, dtype, 61):
            assert len(gpu.weight(values["w"], dtype).parts) == 3
            assert_agrees(gpu, ops.matmul, values, dtype)


def test_more_weight_rows_than_a_grid_dimension_holds(gpu: WebGpuDevice) -> None:
    rng = np.random.default_rng(8)
    values = {"x": normal(rng, 5, 32), "w": normal(rng, 152064, 32)}
    assert_agrees(gpu, ops.matmul, values, "q8_0")


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=counts(1, 40), tables=counts(1, 5), size=counts(1, 60), length=counts(1, 300), seed=seeds)
@bounded
def test_embeddings_of_any_shape(
    gpu: WebGpuDevice, dtype: str, rows: int, tables: int, size: int, length: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    w = normal(rng, tables * size, row_length(dtype, length))
    with rows_split(gpu, dtype, w.shape[1]):
        values = {"w": w, "ids": rng.integers(0, tables * size, rows)}
        assert_agrees(gpu, ops.embed, values, dtype)
        values = {"w": w, "ids": rng.integers(0, size, (rows, tables)), "offsets": np.arange(tables) * size}
        assert_agrees(gpu, ops.embed_sum, values, dtype, scale=0.25)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    rows=counts(1, 20),
    experts=counts(1, 5),
    chosen=counts(1, 8),
    width=counts(1, 3),
    hidden=counts(1, 60),
    split=st.booleans(),
    seed=seeds,
)
@bounded
def test_experts_of_any_shape_whole_or_split_anywhere(
    gpu: WebGpuDevice,
    dtype: str,
    rows: int,
    experts: int,
    chosen: int,
    width: int,
    hidden: int,
    split: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    chosen = min(chosen, experts)
    outputs = int(rng.integers(1, 100))
    logits = {"logits": normal(rng, rows, experts)}
    assert_agrees(gpu, ops.route, logits, dtype, top=chosen, normalise=bool(rng.integers(2)))
    ids = np.array([rng.permutation(experts)[:chosen] for _ in range(rows)])
    with rows_split(gpu, dtype, 32 * width) if split else nullcontext():
        up = {
            "x": normal(rng, rows, 32 * width),
            "w": normal(rng, experts, 2 * hidden, 32 * width),
            "experts": ids,
        }
        assert_agrees(gpu, ops.expert_gate_up, up, dtype)
        down = {
            "h": normal(rng, rows, chosen, 32 * width),
            "w": normal(rng, experts, outputs, 32 * width),
            "experts": ids,
        }
        down |= {"weights": normal(rng, rows, chosen), "r": normal(rng, rows, outputs)}
        assert_agrees(gpu, ops.expert_down, down, dtype)
        slots, ends = ops.expert_slots.body(ids, E=experts)
        assert_agrees(gpu, ops.grouped_gate_up, {"x": up["x"], "w": up["w"], "slots": slots, "ends": ends}, dtype)
        assert_agrees(gpu, ops.grouped_product, {"x": down["h"], "w": down["w"], "slots": slots, "ends": ends}, dtype)


@given(rows=counts(1, 40), sources=counts(1, 12), length=counts(1, 600), seed=seeds)
@bounded
def test_joining_rows_of_any_shape(gpu: WebGpuDevice, rows: int, sources: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, x = normal(rng, rows, length), normal(rng, sources, length)
    index = rng.integers(-1, sources, rows)
    assert_agrees(gpu, ops.splice, {"h": h, "x": x, "index": index}, "f32")
    assert_agrees(gpu, ops.add_rows, {"h": h, "x": x, "index": index}, "f32")
    assert_agrees(gpu, ops.concat_rows, {"a": x, "b": h}, "f32")
    assert_agrees(gpu, ops.add_gated, {"x": h, "s": h[::-1], "g": normal(rng, rows, 1) * 100}, "f32")


@pytest.mark.parametrize(("experts", "top"), [(8, 8), (116, 40), (128, 8)])
def test_equal_experts_are_ranked_by_their_ids(gpu: WebGpuDevice, experts: int, top: int) -> None:
    """Whole logits have many equals; -0 and 0 are equal too."""
    rng = np.random.default_rng(experts)
    logits = np.round(rng.normal(size=(3, experts))).astype(np.float32)
    assert (np.signbit(logits) & (logits == 0)).any()
    w, table = gpu.weight(normal(rng, experts, 6, 64), "q8_0"), gpu.tensor(logits)
    x, g = gpu.tensor(normal(rng, 3, 64)), gpu.tensor(normal(rng, 64))
    in_order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(ops.route(table, top=top)[1].numpy(), in_order)
    routed = ops.route_gate_up(x, g, table, w, epsilon=1e-6, top=top)
    np.testing.assert_array_equal(routed[2].numpy(), in_order)


@pytest.mark.parametrize(("rows", "dtype", "off"), [(1, "q8_0", 0.02), (30, "f32", 1e-5)])
def test_experts_of_rows_together_are_those_of_each_row(gpu: WebGpuDevice, rows: int, dtype: str, off: float) -> None:
    rng = np.random.default_rng(rows)
    x, g, router, r = (gpu.tensor(normal(rng, *shape)) for shape in ((rows, 64), (64,), (8, 64), (rows, 50)))
    gate_up, down = (gpu.weight(normal(rng, 8, *shape), dtype) for shape in ((128, 64), (50, 64)))
    normed = ops.rms_norm(x, g, epsilon=1e-6)
    weights, experts = ops.route(ops.matmul(normed, router), top=4)
    each = ops.expert_down(ops.expert_gate_up(normed, gate_up, experts), down, experts, weights, r).numpy()
    together = ops.add_experts(x, g, router, gate_up, down, r, epsilon=1e-6, top=4).numpy()
    np.testing.assert_allclose(together, each, rtol=0, atol=off * np.abs(each).max())


@pytest.mark.parametrize("as_rows", [8, 1024])
@pytest.mark.parametrize(("channels", "outputs", "inputs"), [(8, 12, 8), (8, 6, 8), (6, 8, 6), (8, 8, 1)])
def test_convolving_and_activating_at_any_width(
    gpu: WebGpuDevice, channels: int, outputs: int, inputs: int, as_rows: int
) -> None:
    rng = np.random.default_rng(channels + outputs + inputs)
    x, tail, w, b = (
        normal(rng, 9, channels),
        normal(rng, 4, channels),
        normal(rng, outputs, 3, inputs),
        normal(rng, outputs),
    )
    frequency, amplitude = np.abs(normal(rng, outputs)), normal(rng, outputs)
    got = ops.conv1d_activated(
        gpu.tensor(x),
        gpu.tensor(tail),
        gpu.weight(w, "f32"),
        gpu.tensor(b),
        (gpu.tensor(frequency), gpu.tensor(amplitude)),
        dilation=2,
        as_rows=as_rows,
    )
    exact = [values.astype(np.float64) for values in (x, tail, w, b, frequency, amplitude)]
    np.testing.assert_allclose(got.numpy(), ops.conv1d_snake.body(*exact, dilation=2), rtol=0, atol=1e-4)
