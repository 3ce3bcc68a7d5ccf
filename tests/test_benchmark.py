"""The op benchmark times what it says, beside a reading rate of the same run, and refuses to time a wrong result."""

from __future__ import annotations

import pytest

from omni_rt.benchmark import ops as benchmark
from omni_rt.devices.device import Device
from omni_rt.errors import DeviceError, InputError
from omni_rt.ops.contract import TABLE


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and spread little: these tests are about what is reported, not about speed."""
    monkeypatch.setattr(benchmark, "READ_BYTES", dict.fromkeys(benchmark.READ_BYTES, 1 << 22))
    monkeypatch.setattr(benchmark, "SPREAD", 1 << 20)
    monkeypatch.setattr(benchmark, "WARM_SECONDS", 0.0)


def test_timing_says_what_ran_how_long_and_what_share_of_reading(device: Device) -> None:
    reading, *found = benchmark.run(device, ["silu_mul", "kv_append"], seconds=0.01)
    assert (reading.op, reading.share, reading.nbytes) == ("read_all", 1.0, (1 << 22) + 4 * 16)
    assert [timing.op for timing in found] == ["silu_mul"] * 2 + ["kv_append"] * (len(found) - 2)
    for timing in found:
        assert timing.dims in TABLE[timing.op].bench
        assert timing.microseconds > 0 and timing.runs >= 1
        assert timing.gigabytes_per_second == pytest.approx(timing.nbytes / timing.microseconds / 1e3)
        assert timing.share == pytest.approx(timing.gigabytes_per_second / reading.gigabytes_per_second)
    first = TABLE["silu_mul"].bench[0]
    assert found[0].nbytes == 3 * 4 * first["T"] * first["N"]


def test_table_counts_only_the_rows_that_a_call_touches(cpu: Device) -> None:
    dims = TABLE["kv_append"].bench[0]
    timing = next(t for t in benchmark.run(cpu, ["kv_append"], seconds=0.01) if t.op == "kv_append")
    row = 4 * dims["G"] * dims["D"]
    assert timing.nbytes == 4 * dims["T"] * row + 4, "keys, values, as many rows of each cache, and the length"


def test_wrong_result_is_not_timed(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TABLE["silu"], "body", lambda x: 1.01 * x)
    with pytest.raises(DeviceError, match=r"silu on wgpu .* computes y wrongly: error"):
        benchmark.run(gpu, ["silu"], seconds=0.01)


def test_unknown_name_lists_the_known(cpu: Device) -> None:
    with pytest.raises(InputError, match="no op is called convolve; there are add, "):
        benchmark.run(cpu, ["convolve"])


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_op_names_sizes_of_real_models(name: str) -> None:
    assert TABLE[name].bench, f"{name} has no bench: nobody would notice when it becomes slow"


def test_rows_of_the_table_line_up(cpu: Device) -> None:
    lines = benchmark.format_table(benchmark.run(cpu, ["silu_mul"], seconds=0.01)).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[0].endswith("of reading")
