"""Q8_0 means the same here as in GGUF files: bit for bit, in both layouts, for any values."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from omni_rt import quant
from omni_rt.tensor import BLOCK

LARGEST = 65504.0 * 127
"""Above this the scale of a block does not fit into f16."""

magnitudes = st.sampled_from([0.0, 1e-45, 1e-40, 1e-38, 1e-30, 6e-8, 1e-5, 1.0, 127.0, 3e4, LARGEST])
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4).map(lambda blocks: blocks * BLOCK))


@st.composite
def rows(draw: st.DrawFn) -> np.ndarray:
    """Draw rows [rows, K]: random, constant, half-way between quants, or mostly zero; tiny or huge by block."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    blocks = rng.uniform(-1, 1, (*shape[:-1], shape[-1] // BLOCK, BLOCK))
    kind = draw(st.sampled_from(["random", "constant", "ties", "sparse"]))
    if kind == "constant":
        blocks[...] = rng.choice([-1.0, 1.0])
    elif kind == "ties":
        blocks = (rng.integers(-127, 127, blocks.shape) + 0.5) / 127
        blocks[..., 0] = 1.0
    elif kind == "sparse":
        blocks *= rng.random(blocks.shape) < 0.05
    scales = np.array([draw(magnitudes) for _ in range(blocks.size // BLOCK)]).reshape(blocks.shape[:-1])
    return (blocks * scales[..., None]).reshape(shape).astype(np.float32)


@given(rows())
@settings(max_examples=200, deadline=None)
def test_blocks_equal_those_of_the_reference_quantiser_bit_for_bit(values: np.ndarray) -> None:
    ours = quant.planes_to_blocks(*quant.quantise(values))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        reference = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(ours, reference)


@given(rows())
@settings(max_examples=200, deadline=None)
def test_dequantised_values_equal_those_of_the_reference(values: np.ndarray) -> None:
    quants, scales = quant.quantise(values)
    reference = gguf.quants.dequantize(quant.planes_to_blocks(quants, scales), gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(quant.dequantise(quants, scales), reference)


@given(rows())
@settings(max_examples=200, deadline=None)
def test_a_value_moves_by_at_most_half_a_step_and_the_rounding_of_its_scale(values: np.ndarray) -> None:
    quants, scales = quant.quantise(values)
    blocks = values.reshape(*scales.shape, BLOCK).astype(np.float64)
    step = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    # The f16 scale is off by up to 2^-11 of itself, or half of the smallest f16 number, times a quant of up to 127.
    stored = np.maximum(step * 2.0**-11, 2.0**-25) * 127
    error = np.abs(quant.dequantise(quants, scales).reshape(blocks.shape) - blocks)
    assert (error <= step / 2 * (1 + 1e-5) + stored).all()


@given(
    arrays.arrays(np.int8, shapes, elements=st.integers(-128, 127)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_planes_to_blocks_and_back_keeps_every_bit(quants: np.ndarray, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 1 << 16, (quants.shape[0], quants.shape[1] // BLOCK), np.uint16)
    blocks = quant.planes_to_blocks(quants, bits.view(np.float16))
    assert blocks.shape == (quants.shape[0], quants.shape[1] // BLOCK * quant.BLOCK_BYTES)
    again, scales = quant.blocks_to_planes(blocks)
    np.testing.assert_array_equal(again, quants)
    np.testing.assert_array_equal(scales.view(np.uint16), bits)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 4).map(lambda n: n * quant.BLOCK_BYTES))))
@settings(max_examples=100, deadline=None)
def test_blocks_to_planes_and_back_keeps_every_bit(blocks: np.ndarray) -> None:
    np.testing.assert_array_equal(quant.planes_to_blocks(*quant.blocks_to_planes(blocks)), blocks)


@given(st.integers(1, 200).filter(lambda length: length % BLOCK != 0))
@example(BLOCK - 1)
def test_rows_that_are_no_whole_blocks_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"blocks of {BLOCK}: got rows of {length}"):
        quant.quantise(np.zeros((2, length), np.float32))


def test_quantising_twice_changes_nothing_more() -> None:
    values = np.random.default_rng(5).normal(size=(7, 4 * BLOCK)).astype(np.float32)
    once = quant.dequantise(*quant.quantise(values))
    np.testing.assert_array_equal(quant.dequantise(*quant.quantise(once)), once)
