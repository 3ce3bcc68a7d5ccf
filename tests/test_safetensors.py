"""A safetensors checkpoint is read exactly, without copies, and no damage to it gets past the header check."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from omni_rt.errors import ModelFormatError, ModelNotFoundError, OmniError, UnsupportedError
from omni_rt.io.safetensors import SafetensorsCheckpoint, SafetensorsFile

RNG = np.random.default_rng(5)
TENSORS = {
    "a.weight": RNG.standard_normal((3, 5)).astype(np.float32),
    "b": RNG.standard_normal((2, 1, 4)).astype(np.float16),
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


def write(path: Path, header: object, data: bytes = b"") -> Path:
    """Write a file with exactly this header and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def f32(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "np"})
    checkpoint = SafetensorsCheckpoint(tmp_path)
    assert sorted(checkpoint.names()) == sorted(TENSORS)
    for name, expected in TENSORS.items():
        got = checkpoint.array(name)
        assert got.dtype == expected.dtype and checkpoint.shape(name) == expected.shape
        np.testing.assert_array_equal(got, expected)
        assert checkpoint.raw(name).tobytes() == expected.tobytes()
    assert (checkpoint.dtype("a.weight"), checkpoint.dtype("b")) == ("F32", "F16")
    assert SafetensorsFile(tmp_path / "model.safetensors").metadata == {"format": "np"}


def test_float_arrays_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    checkpoint = SafetensorsCheckpoint(tmp_path)
    first, second = checkpoint.array("a.weight"), checkpoint.array("a.weight")
    assert np.shares_memory(first, second) and not first.flags.writeable


def test_bf16_widens_exactly(tmp_path: Path) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    header = {"w": {"dtype": "BF16", "shape": [256, 256], "data_offsets": [0, 1 << 17]}}
    file = SafetensorsFile(write(tmp_path / "model.safetensors", header, every.tobytes()))
    bits = file.array("w").view(np.uint32).reshape(-1)
    np.testing.assert_array_equal(bits >> 16, every)
    assert not (bits & 0xFFFF).any() and file.array("w").shape == (256, 256)


def test_an_unaligned_data_section_is_read(tmp_path: Path) -> None:
    header = json.dumps({"w": f32([2], 0, 8)}).encode()
    header += b" " * ((1 - len(header)) % 4)
    file = SafetensorsFile(write(tmp_path / "m.safetensors", header, struct.pack("<2f", 1.5, -2.0)))
    assert file.array("w").tolist() == [1.5, -2.0]


def test_a_sharded_checkpoint_equals_the_single_file(tmp_path: Path) -> None:
    shards = {
        "model-00001-of-00002.safetensors": ["a.weight", "b"],
        "model-00002-of-00002.safetensors": ["scalar", "empty"],
    }
    for shard, names in shards.items():
        save_file({name: TENSORS[name] for name in names}, tmp_path / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, names in shards.items() for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = SafetensorsCheckpoint(tmp_path)
    for name, expected in TENSORS.items():
        np.testing.assert_array_equal(checkpoint.array(name), expected)


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({"a": "one.safetensors", "b": "two.safetensors"}, "two.safetensors: is missing"),
        ({"a": "one.safetensors", "b": "one.safetensors"}, "has no tensor 'b'"),
        ({"c": "one.safetensors"}, "has no tensor 'c'"),
        ({}, "no weight_map"),
        ({"a": "../one.safetensors"}, "expected the name"),
        ({"a": 3}, "expected the name"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path: Path, weight_map: dict, says: str) -> None:
    save_file({"a": TENSORS["a.weight"]}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelFormatError, match=says):
        SafetensorsCheckpoint(tmp_path)


def test_a_tensor_that_only_the_shard_knows_is_refused(tmp_path: Path) -> None:
    save_file({"a": TENSORS["a.weight"], "stray": TENSORS["b"]}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    with pytest.raises(ModelFormatError, match="holds tensor 'stray'"):
        SafetensorsCheckpoint(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file({"a": TENSORS["a.weight"]}, whole)
    content = whole.read_bytes()
    for length in range(len(content)):
        (tmp_path / "cut.safetensors").write_bytes(content[:length])
        with pytest.raises(ModelFormatError, match=r"cut\.safetensors"):
            SafetensorsFile(tmp_path / "cut.safetensors")
    with pytest.raises(ModelFormatError, match=f"tensor 'a' ends at byte {len(content)}, the file at .*: cut short"):
        SafetensorsFile(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"a": f32([2], 0, 8), "b": f32([2], 4, 12)}, 12, "'b' begins at byte .* and overlaps 'a'"),
        ({"a": f32([2], 0, 8), "b": f32([2], 12, 20)}, 20, "leaves a gap behind 'a'"),
        ({"a": f32([2], 4, 12)}, 12, "leaves a gap behind the header"),
        ({"a": f32([2], 0, 8)}, 12, "its tensors end at byte"),
        ({"a": f32([3], 0, 8)}, 8, r"F32 \[3\], that is 12 bytes, but its data_offsets \[0, 8\] span 8"),
        ({"a": f32([2], 8, 0)}, 8, "span -8"),
        ({"a": f32([-2], 0, 8)}, 8, "has shape"),
        ({"a": f32([True, 2], 0, 8)}, 8, "has shape"),
        ({"a": f32([2.0], 0, 8)}, 8, "has shape"),  # type: ignore[list-item]
        ({"a": f32([1 << 40, 1 << 40], 0, 8)}, 8, "more values than can be indexed"),
        ({"a": f32([0, 1 << 61, 1 << 61], 0, 0)}, 0, "more values than can be indexed"),
        ({"a": f32([1] * 9, 0, 4)}, 4, "at most 8 sizes"),
        ({"a": {"dtype": "Q4", "shape": [2], "data_offsets": [0, 8]}}, 8, "has dtype 'Q4'"),
        ({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}, 8, "has dtype"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "expected dtype, shape and data_offsets"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": 1}}, 8, "expected dtype"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 70]}}, 8, "has data_offsets"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
        ([], 0, "a JSON list"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "shape": [1]}}', 4, "names 'shape' twice"),
        (
            b'{"a": ' + json.dumps(f32([1], 0, 4)).encode() + b', "a": ' + json.dumps(f32([1], 0, 4)).encode() + b"}",
            4,
            "twice",
        ),
        (b"[" * 200_000, 0, "not JSON"),
        (b'{"a": 1' + b"0" * 10_000 + b"}", 0, "not JSON"),
        (b"\xff\xfe{}", 0, "not JSON"),
        (b"", 0, "not JSON"),
    ],
)
def test_a_wrong_header_is_refused_by_its_fault(tmp_path: Path, header: object, data: int, says: str) -> None:
    with pytest.raises(ModelFormatError, match=says):
        SafetensorsFile(write(tmp_path / "model.safetensors", header, bytes(data)))


def test_a_huge_header_length_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for length in (33 << 20, 1 << 63, (1 << 64) - 1):
        (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(ModelFormatError, match=f"claims {length} bytes"):
            SafetensorsFile(tmp_path / "m.safetensors")


def test_a_dtype_without_a_numpy_twin_is_named(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    file = SafetensorsFile(write(tmp_path / "m.safetensors", header, bytes(4)))
    assert file.raw("w").shape == (4,)
    with pytest.raises(UnsupportedError, match="'w' is F8_E4M3"):
        file.array("w")


def test_a_directory_without_weights_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"neither model\.safetensors nor"):
        SafetensorsCheckpoint(tmp_path)
    with pytest.raises(ModelNotFoundError, match="is not a directory"):
        SafetensorsCheckpoint(tmp_path / "nowhere")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelNotFoundError, match=r"pytorch_model\.bin .* not read"):
        SafetensorsCheckpoint(tmp_path)


def test_an_unknown_name_is_a_clear_error(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    with pytest.raises(ModelFormatError, match="has no tensor 'nope' among its 4"):
        SafetensorsCheckpoint(tmp_path).array("nope")


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(), st.text(max_size=5))
JSON = st.recursive(
    SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3), max_leaves=6
)
FIELDS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL"]) | JSON,
        "shape": st.lists(st.integers(-1, 6), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | JSON,
    }
)


@settings(max_examples=300)
@given(header=st.dictionaries(st.text(max_size=4), FIELDS | JSON, max_size=3) | JSON, data=st.binary(max_size=48))
def test_any_header_gives_arrays_within_the_file_or_a_clear_error(tmp_path: Path, header: object, data: bytes) -> None:
    path = write(tmp_path / "fuzz.safetensors", header, data)
    try:
        file = SafetensorsFile(path)
        total = sum(file.raw(name).nbytes for name in file.entries)
    except OmniError as error:
        assert "fuzz.safetensors" in str(error)
    else:
        assert total == len(data)


@settings(max_examples=200)
@given(at=st.integers(0, 400), value=st.integers(0, 255))
def test_one_changed_byte_never_reads_outside_the_file(tmp_path: Path, at: int, value: int) -> None:
    save_file({"a": TENSORS["a.weight"], "b": TENSORS["b"]}, tmp_path / "good.safetensors")
    content = bytearray((tmp_path / "good.safetensors").read_bytes())
    content[at % len(content)] = value
    (tmp_path / "bad.safetensors").write_bytes(content)
    try:
        file = SafetensorsFile(tmp_path / "bad.safetensors")
        for name in file.entries:
            assert file.array(name).size == np.prod(file.entries[name].shape, dtype=np.int64)
    except OmniError as error:
        assert "bad.safetensors" in str(error)
