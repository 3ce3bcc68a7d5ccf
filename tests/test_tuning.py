"""A tuned table picks the variant measured at the nearest size and never a wrong one; what makes it checks first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from omni_rt.benchmark import call as calls
from omni_rt.benchmark import tune
from omni_rt.devices import tuning
from omni_rt.devices.tuning import Entry, Table
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.errors import DeviceError
from omni_rt.ops.contract import TABLE, Call, Kernel
from tests.command_line import Program

KERNEL = Kernel("example", ("T", "N"), lambda c, v: (1, 1, 1), variants=({"WG": 64}, {"WG": 128}, {"WG": 256}))
TUNED = Path(tuning.__file__).parent / "tuned"


def any_fits(shader: str, variant: object) -> bool:
    return True


def chosen(entries: list[Entry], fits: tuning.Fits = any_fits, **dims: int) -> int:
    return Table({"example": entries}).variant(KERNEL, Call(dims, {}), fits)["WG"]


def test_the_nearest_size_decides() -> None:
    entries = [Entry({"T": 1, "N": 1024}, {"WG": 128}), Entry({"T": 1, "N": 152064}, {"WG": 256})]
    assert chosen(entries, T=1, N=2048) == 128
    assert chosen(entries, T=1, N=100000) == 256
    assert chosen([Entry({}, {"WG": 256})], T=7, N=5) == 256


def test_the_pieces_of_a_stream_take_one_variant() -> None:
    entries = [Entry({"T": 4, "N": 64, "S": 8}, {"WG": 128}), Entry({"T": 512, "N": 64, "S": 900}, {"WG": 256})]
    assert {chosen(entries, T=t, N=64, S=s) for t, s in ((4, 8), (512, 900))} == {128, 256}
    for t, s in ((1, 1), (4, 8), (512, 900), (9000, 9000)):
        assert chosen(entries, T=t, N=64, S=s, as_rows=4) == 128
        assert chosen(entries, T=t, N=64, S=s, as_rows=300) == 256


def test_without_an_entry_the_first_variant_serves() -> None:
    assert chosen([], T=1, N=1) == 64
    assert Table({}).variant(KERNEL, Call({}, {}), any_fits) == {"WG": 64}


def test_a_variant_that_the_kernel_does_not_declare_is_passed_over() -> None:
    stale = [Entry({"T": 1, "N": 64}, {"WG": 512}), Entry({"T": 1, "N": 64}, {"WG": 64, "ROWS": 4})]
    assert chosen(stale, T=1, N=64) == 64
    assert chosen([*stale, Entry({"T": 900, "N": 9}, {"WG": 128})], T=1, N=64) == 128


def test_a_variant_that_does_not_fit_the_adapter_is_passed_over() -> None:
    entries = [Entry({"T": 1, "N": 64}, {"WG": 256}), Entry({"T": 1, "N": 900}, {"WG": 128})]
    assert chosen(entries, lambda shader, variant: variant["WG"] < 256, T=1, N=64) == 128


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"kernels": 3}', '{"kernels": {"add": 3}}', '{"kernels": {"add": [{"at": {}}]}}',
     '{"kernels": {"add": [{"at": {"T": "one"}, "variant": {}}]}}', '{"kernels": {"add": [{"at": [], "variant": 1}]}}',
     "\xff\x00"],
)  # fmt: skip
def test_what_is_no_table_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text, encoding="latin-1")
    assert tuning.read(path) == {} and tuning.read(tmp_path / "missing.json") == {}


def test_names_of_tables() -> None:
    assert tuning.file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3.json"
    assert tuning.file_name("llvmpipe (LLVM 15.0.6, 256 bits)") == tuning.file_name("llvmpipe (LLVM 19.1.0, 512 bits)")
    assert tuning.file_name("Radeon 8060S Graphics (RADV GFX1151)") == "radeon-8060s-graphics-radv-gfx1151.json"


def test_own_measurements_come_before_those_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = tuning.own_path("Some Adapter")
    assert path.is_relative_to(tmp_path) and tuning.load("Some Adapter").entries == {}
    path.parent.mkdir(parents=True)
    path.write_text('{"kernels": {"add": [{"at": {"T": 1}, "variant": {"WG": 8}}]}}')
    assert tuning.load("Some Adapter").entries == {"add": [Entry({"T": 1}, {"WG": 8})]}


@pytest.mark.parametrize("path", sorted(TUNED.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_tables_name_what_exists(path: Path) -> None:
    kernels: dict[str, list[Kernel]] = {}
    for op in TABLE.values():
        for kernel in op.kernels:
            kernels.setdefault(kernel.shader, []).append(kernel)
    entries = tuning.read(path)
    assert entries and {"adapter", "driver", "commit", "kernels"} <= set(json.loads(path.read_text()))
    for shader, measured in entries.items():
        assert shader in kernels, f"{path.name}: no kernel is called {shader}"
        for entry in measured:
            assert any(entry.variant in kernel.variants for kernel in kernels[shader]), f"{path.name}: {shader} {entry}"


def expert_call(dtype: str) -> tuple[dict[str, int], dict[str, str]]:
    """Return sizes and dtypes of a call of expert_down."""
    dtypes = dict.fromkeys(("h", "w", "weights", "r"), "f32") | {"experts": "i32", "w": dtype}
    return {"T": 1, "E": 4, "A": 2, "I": 64, "N": 8}, dtypes


def test_the_device_runs_what_its_table_says(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    op = TABLE["expert_down"]
    made = calls.OpCall(op, *expert_call("f32"))
    name, default = gpu.kernel(op, made.upload(gpu), made.attributes)
    other = next(v for kernel in op.kernels if kernel.shader == name for v in kernel.variants if v != default)
    monkeypatch.setattr(gpu, "_tuned", Table({name: [Entry({}, other)]}))
    monkeypatch.setattr(gpu, "_plans", {})
    assert gpu.kernel(op, made.upload(gpu), made.attributes) == (name, other)


def test_variants_beyond_the_limits_are_not_timed(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = next(k for k in TABLE["expert_down"].kernels if k.shader == "expert_down_q8_0" and len(k.variants) > 1)
    assert tune.fitting(gpu, kernel) == list(kernel.variants)
    wide = replace(kernel, variants=(*kernel.variants, {"WG": 4096, "ROWS": 2}))
    assert tune.fitting(gpu, wide) == list(kernel.variants)
    monkeypatch.setattr(gpu.pipelines, "_storage", 16)
    assert tune.fitting(gpu, wide) == []


def test_kernels_that_take_no_ranges_are_not_tuned_with_weights_that_come_in_ranges(
    gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> set[str]:
        return {kernel.shader for kernel in tune._choices(gpu, TABLE["expert_down"], *expert_call("q8_0"))}

    assert names() == {"expert_down_q8_0_int8", "expert_down_q8_0"}
    monkeypatch.setattr(gpu, "max_binding", 1 << 10)
    assert names() == {"expert_down_q8_0"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SPREAD", 1 << 20)
    monkeypatch.setattr(calls, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(TABLE["expert_down"], "bench", ({"T": 1, "E": 4, "A": 2, "I": 64, "N": 8},))


def test_every_variant_is_timed_and_the_table_is_read_back(
    gpu: WebGpuDevice, quick: None, program: Program, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "table.json"
    outcome = program("bench", "tune", "expert_down", "--device", "wgpu", "--seconds", "0.01", "--output", str(path))
    assert outcome.code == 0, outcome.err
    made = calls.OpCall(TABLE["expert_down"], *expert_call("q8_0"))
    kernels = [kernel for kernel in TABLE["expert_down"].kernels if gpu.accepts(kernel, made.call)]
    assert len(kernels) > 1, "one that rounds to int8, and one that does not"
    for kernel in kernels:
        (line,) = [line for line in outcome.err.splitlines() if line.startswith(kernel.shader + " ")]
        assert line.count(" us ") == len(kernel.variants) and line.count("*") == 1
    assert json.loads(path.read_text())["adapter"] == gpu.adapter.name


def test_a_faster_variant_is_taken_only_where_it_is_worth_it() -> None:
    variants = ({"WG": 64}, {"WG": 128})
    assert tune.Tuned("example", {"T": 1}, variants, (10.0, 9.9)).best == 0
    assert tune.Tuned("example", {"T": 1}, variants, (10.0, 9.0)).best == 1
    slow, fast = (tune.Tuned(name, {"T": 1}, variants, times) for name, times in (("a", (1.0, 2.0)), ("b", (2.0, 1.0))))
    assert tune.table([slow, fast]) == {"b": [{"at": {"T": 1}, "variant": {"WG": 128}, "us": 1.0, "default_us": 2.0}]}


def test_kernels_that_were_not_measured_keep_their_entries(tmp_path: Path) -> None:
    path, variants = tmp_path / "table.json", ({"WG": 64}, {"WG": 128})
    first = [tune.Tuned(name, {"T": 1}, variants, (2.0, 1.0)) for name in ("a", "b")]
    tune.write(path, {"adapter": "x"}, first)
    tune.write(path, {"adapter": "x"}, [tune.Tuned("b", {"T": 1}, variants, (1.0, 2.0))])
    assert tuning.read(path) == {"a": [Entry({"T": 1}, {"WG": 128})]}


def test_a_wrong_variant_is_not_timed(gpu: WebGpuDevice, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TABLE["expert_down"], "body", lambda h, w, experts, weights, r: r * 1.5)
    with pytest.raises(DeviceError, match=r"expert_down_\w+ \{.*\} on wgpu .* computes y wrongly"):
        list(tune.tune(gpu, ["expert_down"], seconds=0.01))


def test_a_cpu_cannot_be_tuned(program: Program) -> None:
    outcome = program("bench", "tune", "--device", "cpu")
    assert outcome.code == 2 and "nothing to tune on a CPU" in outcome.err
