"""Q8_0 means the same here as in GGUF files: bit for bit, in both layouts, for any values."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from omni_rt import native, quant
from omni_rt.errors import ModelFormatError
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
@settings(max_examples=200)
def test_blocks_equal_those_of_the_reference_quantiser_bit_for_bit(values: np.ndarray) -> None:
    ours = quant.planes_to_blocks(*quant.quantise(values))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        reference = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(ours, reference)


@given(rows())
@settings(max_examples=200)
def test_dequantised_values_equal_those_of_the_reference(values: np.ndarray) -> None:
    quants, scales = quant.quantise(values)
    reference = gguf.quants.dequantize(quant.planes_to_blocks(quants, scales), gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(quant.dequantise(quants, scales), reference)


@given(rows())
@settings(max_examples=200)
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
@settings(max_examples=100)
def test_planes_to_blocks_and_back_keeps_every_bit(quants: np.ndarray, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 1 << 16, (quants.shape[0], quants.shape[1] // BLOCK), np.uint16)
    blocks = quant.planes_to_blocks(quants, bits.view(np.float16))
    assert blocks.shape == (quants.shape[0], quants.shape[1] // BLOCK * quant.BLOCK_BYTES)
    again, scales = quant.blocks_to_planes(blocks)
    np.testing.assert_array_equal(again, quants)
    np.testing.assert_array_equal(scales.view(np.uint16), bits)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 4).map(lambda n: n * quant.BLOCK_BYTES))))
@settings(max_examples=100)
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


LEVELS = [None, *native.levels()]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_every_level_and_source_gives_the_bits_of_the_numpy_body(
    level: str | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = native.load()
    pool = None if level is None or module is None else native.Pool(module, 3, level)
    rng = np.random.default_rng(9)
    values = (rng.standard_normal((301, 96)) * 10.0 ** rng.integers(-9, 5, (301, 1))).astype(np.float32)
    values[7] = 0
    source = values.astype(np.float16) if kind == "float16" else values
    if kind == "bfloat16":
        source = (values.view(np.uint32) >> 16).astype(np.uint16)
        values = (source.astype(np.uint32) << 16).view(np.float32)
    monkeypatch.setattr(native, "weight_pool", lambda: None)
    quants, scales = quant.quantise(np.asarray(source if kind == "float16" else values, np.float32))
    monkeypatch.setattr(native, "weight_pool", lambda: pool)
    monkeypatch.setattr(quant, "NUMPY_VALUES", 1024)
    blocks, fits = quant.quantise_blocks(source)
    assert fits and blocks.tobytes() == quant.planes_to_blocks(quants, scales).tobytes()
    matrix = quant.Quantised((301, 96), [source[:100], blocks.reshape(301, -1)[100:200], source[200:]])
    for got in (matrix.planes(), matrix.rows(50, 250).planes()):
        rows = slice(0, 301) if len(got[0]) == 301 else slice(50, 250)
        assert np.array_equal(got[0], quants[rows]) and got[1].tobytes() == scales[rows].tobytes()
    with np.errstate(over="ignore"):
        expected = np.asarray(source if kind == "float16" else values, np.float32).reshape(-1)[:-3].astype(np.float16)
    halves, finite = quant.rounded(source.reshape(-1)[:-3], np.float16)
    assert halves.tobytes() == expected.tobytes() and finite == bool(np.isfinite(expected).all())


@pytest.fixture(params=LEVELS)
def at_each_level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are repacked by the C kernels of a level, or by NumPy."""
    module = native.load()
    pool = None if request.param is None or module is None else native.Pool(module, 2, request.param)
    monkeypatch.setattr(native, "weight_pool", lambda: pool)


@pytest.mark.usefixtures("at_each_level")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_do_not_fit_are_noticed_wherever_they_lie(bad: float) -> None:
    for place in (0, 31, 37, 6 * 64 - 1):
        values = np.ones((6, 64), np.float32)
        values.reshape(-1)[place] = bad
        assert not quant.quantise_blocks(values)[1] and not quant.rounded(values.reshape(-1), np.float16)[1]
        with pytest.raises(ModelFormatError, match="some: holds values"):
            quant.Quantised((12, 64), [np.ones((6, 64), np.float32), values], names=["other", "some"]).planes()


@pytest.mark.usefixtures("at_each_level")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_whose_scale_is_not_finite_is_noticed_and_its_tensor_named(bad: float) -> None:
    good = quant.planes_to_blocks(*quant.quantise(np.ones((200, 1024), np.float32)))
    for row in (0, 199):
        scales = np.ones((200, 32), np.float16)
        scales[row, 31] = bad
        blocks = quant.planes_to_blocks(np.ones((200, 1024), np.int8), scales)
        matrix = quant.joined(
            [quant.Quantised((200, 1024), [part], names=[name]) for name, part in (("q", good), ("k", blocks))],
            (400, 1024),
        )
        assert isinstance(matrix, quant.Quantised)
        for rows in (matrix, matrix.rows(200 + row, 201 + row)):
            with pytest.raises(ModelFormatError, match="k: holds values that are not finite"):
                rows.planes()
        matrix.rows(0, 200).planes()
