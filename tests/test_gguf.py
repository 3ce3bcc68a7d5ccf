"""GGUF files are read exactly, both ways with the reference package, and no damage gets past the header check."""

from __future__ import annotations

import gc
import random
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from omni_rt.errors import ModelFormatError, OmniError, UnsupportedError
from omni_rt.io.gguf import GgufFile
from omni_rt.io.gguf_writer import GgufWriter, Planned
from omni_rt.quant import Quantised
from tests.gguf_damage import GOOD, KINDS, SAYS, mutate

SECONDS, BYTES = 0.05, 64 << 20
PER_KIND = 5
RNG = np.random.default_rng(3)
ARRAYS = {
    "f32": RNG.standard_normal((3, 5)).astype(np.float32),
    "f16": RNG.standard_normal((2, 3, 4)).astype(np.float16),
    "i32": np.arange(6, dtype=np.int32).reshape(2, 3),
    "one": np.array([7.5], np.float32),
}
ROWS = RNG.standard_normal((4, 96)).astype(np.float32)


def test_reads_what_the_reference_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("a.text", "grün")
    writer.add_uint64("a.large", 1 << 40)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_array("some.words", ["one", "two"])
    writer.add_array("some.numbers", [1, -2, 3])
    for name, values in ARRAYS.items():
        writer.add_tensor(name, values)
    blocks = gguf.quants.quantize(ROWS, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blocks", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    assert file.metadata == {
        "general.architecture": "llama", "a.text": "grün", "a.large": 1 << 40, "a.float": 0.5, "a.flag": True,
        "some.words": ["one", "two"], "some.numbers": [1, -2, 3],
    }  # fmt: skip
    for name, values in ARRAYS.items():
        got = file.array(name)
        assert got.dtype == values.dtype and not got.flags.writeable
        np.testing.assert_array_equal(got, values)
    assert (file.entries["blocks"].dtype, file.entries["blocks"].shape) == ("Q8_0", (4, 96))
    assert file.raw("blocks").tobytes() == blocks.tobytes()
    expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(Quantised((4, 96), [file.raw("blocks")]).values(), expected)
    with pytest.raises(UnsupportedError, match="'blocks' is Q8_0"):
        file.array("blocks")


def test_the_reference_package_reads_what_is_written_here(tmp_path: Path) -> None:
    path = tmp_path / "ours.gguf"
    metadata = {"general.architecture": "x", "a.text": "grün", "a.int": 7, "a.long": -(1 << 40), "a.float": 0.5}
    metadata |= {"a.flag": False, "some.words": ["one", "two"], "some.numbers": [24, 3, 2]}
    blocks = gguf.quants.quantize(ROWS, gguf.GGMLQuantizationType.Q8_0)
    with open(path, "wb") as stream:
        planned = [Planned(name, name.upper().replace("ONE", "F32"), a.shape) for name, a in ARRAYS.items()]
        writer = GgufWriter(stream, metadata, [*planned, Planned("blocks", "Q8_0", (4, 96))])
        for values in ARRAYS.values():
            writer.write([values])
        writer.write([blocks[:1], blocks[1:]])
    reader = gguf.GGUFReader(path)
    found = {name: reader.fields[name].contents() for name in metadata}
    assert found == metadata
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, values in ARRAYS.items():
        assert tensors[name].data.tobytes() == values.tobytes()
        assert tensors[name].shape.tolist() == list(reversed(values.shape))
    assert tensors["blocks"].data.tobytes() == blocks.tobytes()
    ours = GgufFile(path)
    assert ours.metadata == metadata and ours.array("f16").shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (Planned("n" * 64, "F32", (1,)), "a name has 1 to 63 bytes"),
        (Planned("w", "F32", (1, 1, 1, 1, 1)), "more than 4 dimensions"),
        (Planned("w", "Q8_0", (2, 33)), "rows of Q8_0 come in 32s"),
    ],
)
def test_what_the_format_cannot_hold_is_not_written(tmp_path: Path, tensor: Planned, says: str) -> None:
    with open(tmp_path / "out.gguf", "wb") as stream, pytest.raises(ValueError, match=says):
        GgufWriter(stream, {}, [tensor])


def test_the_file_that_damage_starts_from_is_good(tmp_path: Path) -> None:
    (tmp_path / "good.gguf").write_bytes(GOOD.content())
    file = GgufFile(tmp_path / "good.gguf")
    assert [entry.dtype for entry in file.entries.values()] == ["Q8_0", "F32", "F16", "BF16", "I32"]
    assert file.metadata["some.flags"] == [False, True] and file.array("scalar").shape == ()
    assert len(KINDS) >= 30 and len(KINDS) * PER_KIND >= 200


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Keep Python from looking through all objects of the test run, which would count as the reader's time."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_quickly_and_in_little_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "damaged.gguf"
    for seed in range(PER_KIND):
        path.write_bytes(KINDS[kind](random.Random(seed)).content())
        tracemalloc.start()
        started = time.process_time()
        with pytest.raises(
            (ModelFormatError, UnsupportedError), match=r"damaged\.gguf: (at byte \d+|tensor|is shor)"
        ) as e:
            GgufFile(path)
        took, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert re.search(SAYS.get(kind, "damaged"), str(e.value)), f"seed {seed}: {e.value}"
        assert took <= SECONDS and peak <= BYTES, f"seed {seed}: {took:.3f} s, {peak} bytes"


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content, path = GOOD.content(), tmp_path / "cut.gguf"
    needed = GgufFile(_write(path, content)).entries["scalar"].end
    for length in range(needed):
        with pytest.raises(ModelFormatError, match=r"cut\.gguf"):
            GgufFile(_write(path, content[:length]))


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_mutations_give_arrays_within_the_file_or_a_clear_error(tmp_path: Path) -> None:
    rng, content, refused = random.Random(11), GOOD.content(), 0
    for _ in range(3000):
        path = _write(tmp_path / "mutated.gguf", mutate(content, rng))
        try:
            file = GgufFile(path)
            for name, entry in file.entries.items():
                assert file.raw(name).nbytes == entry.end - entry.begin
        except OmniError as error:
            assert "mutated.gguf" in str(error)
            refused += 1
    assert 1500 < refused < 3000


def test_the_fuzzer_runs_and_reports(tmp_path: Path) -> None:
    tool = Path(__file__).parent.parent / "tools" / "fuzz_gguf.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--mutations", "500", "--seed", "3"], capture_output=True, text=True, check=True
    )
    assert "500 mutations" in done.stdout and "0 outside the error tree" in done.stdout
