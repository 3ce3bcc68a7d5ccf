"""The compile check covers every kernel and variant, and complains of what spills, scratches or does not compile."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from omni_rt.benchmark import isa
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.errors import DeviceError
from omni_rt.ops.contract import TABLE
from tests.command_line import Program
from tests.shader_lint import shader_files

SOUND = {name: 8 for name in isa.DRIVER_NAMES.values()} | {
    "Spilled VGPRs": 0,
    "Spilled SGPRs": 0,
    "Scratch size": 0,
    "Branches": 3,
}
PIPELINE = isa.Pipeline("matmul", {"WG": 64, "ROWS": 4}, ())


def test_every_kernel_file_and_every_variant_is_compiled() -> None:
    found = isa.pipelines()
    assert {pipeline.shader for pipeline in found} == {
        path.stem for path in shader_files() if path.parent.name != "lib"
    }
    declared = [
        (kernel.shader, variant) for op in TABLE.values() for kernel in op.kernels for variant in kernel.variants
    ]
    compiled = [(pipeline.shader, pipeline.variant) for pipeline in found]
    assert all(pair in compiled for pair in declared)
    assert len({str(pipeline) for pipeline in found}) == len(found)


def test_names_choose_ops_and_kernels() -> None:
    matmul = {pipeline.shader for pipeline in isa.pipelines(["matmul"])}
    assert matmul == {kernel.shader for kernel in TABLE["matmul"].kernels}
    assert [str(pipeline) for pipeline in isa.pipelines(["silu", "copy_words"])] == ["copy_words", "silu"]
    assert not isa.pipelines(["convolve"])


def test_what_the_driver_says_is_read_by_name() -> None:
    row = isa.parse(PIPELINE, {"wave": 64, "statistics": SOUND | {"VGPRs": 48, "Subgroups per SIMD": 20}})
    assert (row.kernel, row.variant, row.wave, row.vgprs, row.waves_per_simd) == ("matmul", "ROWS=4 WG=64", 64, 48, 20)
    assert row.complaint() == ""
    with pytest.raises(DeviceError, match="says nothing of Scratch size, only of"):
        isa.parse(PIPELINE, {"wave": 64, "statistics": {k: v for k, v in SOUND.items() if k != "Scratch size"}})


@pytest.mark.parametrize(
    ("statistic", "complaint"),
    [
        ("Spilled VGPRs", "matmul ROWS=4 WG=64: spills 3 vector and 0 scalar registers"),
        ("Spilled SGPRs", "matmul ROWS=4 WG=64: spills 0 vector and 3 scalar registers"),
        ("Scratch size", "matmul ROWS=4 WG=64: uses 3 bytes of scratch memory per wave"),
    ],
)
def test_spills_and_scratch_are_complaints(statistic: str, complaint: str) -> None:
    assert isa.parse(PIPELINE, {"wave": 64, "statistics": SOUND | {statistic: 3}}).complaint() == complaint


def test_each_pipeline_is_matched_with_its_own_line(gpu: WebGpuDevice, tmp_path: Path) -> None:
    """An adapter that writes nothing is noticed; lines from before the first pipeline are not taken for its own."""
    statistics = tmp_path / "statistics.jsonl"
    (silent,) = isa.pipelines(["silu"])
    with pytest.raises(DeviceError, match="wrote 0 lines about it, not 1"):
        isa.Compiler(gpu, statistics).compile(silent)
    statistics.write_text("written when the device was opened\n")
    compiler = isa.Compiler(gpu, statistics)
    with statistics.open("a") as file:
        file.write(json.dumps({"wave": 64, "statistics": SOUND | {"VGPRs": 17}}) + "\n")
    assert compiler.compile(silent).vgprs == 17


def test_the_table_is_csv_with_a_header(tmp_path: Path) -> None:
    row = isa.parse(PIPELINE, {"wave": 64, "statistics": SOUND})
    isa.write_csv(tmp_path / "table.csv", [row])
    with (tmp_path / "table.csv").open() as file:
        (read,) = csv.DictReader(file)
    assert (read["kernel"], read["wave"], read["vgprs"], read["scratch_bytes"]) == ("matmul", "64", "8", "0")


def test_unknown_names_are_wrong_usage(program: Program) -> None:
    outcome = program("bench", "isa", "convolve")
    assert outcome.code == 2 and "no op and no kernel is called convolve" in outcome.err
