"""The op benchmark times what it says, beside a reading rate of the same run, and refuses to time a wrong result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from omni_rt.benchmark import call, reading
from omni_rt.benchmark import ops as benchmark
from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from omni_rt.errors import DeviceError
from omni_rt.ops.contract import TABLE
from omni_rt.tensor import Tensor

Stopwatch = Callable[[], float]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and spread little: these tests are about what is reported, not about speed."""
    monkeypatch.setattr(reading, "READ_BYTES", dict.fromkeys(reading.READ_BYTES, 1 << 22))
    monkeypatch.setattr(call, "SPREAD", 1 << 20)
    monkeypatch.setattr(call, "WARM_SECONDS", 0.0)


def timings(device: Device, names: list[str], *, dtypes: tuple[str, ...] = ()) -> list[benchmark.OpTiming]:
    """Time ops as quickly as can be, the yardstick first."""
    return list(benchmark.timings(device, names, seconds=0.01, dtypes=dtypes))


def test_timing_says_what_ran_how_long_and_what_share_of_reading(device: Device) -> None:
    yardstick, *found = timings(device, ["silu_mul", "kv_append"])
    assert (yardstick.op, yardstick.share, yardstick.nbytes) == ("read_all", 1.0, (1 << 22) + 4 * 16)
    assert yardstick.reading_microseconds == yardstick.microseconds
    assert [timing.op for timing in found] == ["silu_mul"] * 2 + ["kv_append"] * (len(found) - 2)
    for timing in found:
        assert timing.dims in TABLE[timing.op].bench
        assert timing.microseconds > 0 and timing.runs >= 1
        assert timing.gigabytes_per_second == pytest.approx(timing.nbytes / timing.microseconds / 1e3)
        assert timing.share == pytest.approx(timing.gigabytes_per_second / yardstick.gigabytes_per_second)
        assert timing.as_json()["share_of_as_much"] == timing.reading_microseconds / timing.microseconds > 0
        apart = timing.side_by_side_microseconds
        assert (apart is None) == (device.kind == "cpu") == (timing.share_side_by_side is None)
        if apart is not None:
            rate = timing.nbytes / apart / 1e3
            assert timing.share_side_by_side == pytest.approx(rate / yardstick.gigabytes_per_second)
    first = TABLE["silu_mul"].bench[0]
    assert found[0].nbytes == 3 * 4 * first["T"] * first["N"]


@pytest.mark.parametrize("waiting", [True, False])
def test_calls_wait_by_writing_where_the_one_before_wrote(gpu: Device, waiting: bool) -> None:
    op = TABLE["silu"]
    single = call.OpCall(op, {"T": 3, "N": 40}, {"x": "f32"})
    written = []

    def launch(operands: Sequence[Tensor]) -> Tensor:
        output = op(*operands)
        written.append(output.planes[0].block.serial)
        return output

    single.stopwatch(gpu, launch, [single.upload(gpu) for _ in range(5)], waiting=waiting)()
    assert len(written) == 5 and len(set(written)) == (1 if waiting else 5)


@pytest.mark.parametrize("nbytes", [1, 20_040, 13_411_008, 26_813_440])
def test_reading_as_much_reads_hardly_more(nbytes: int) -> None:
    ways = reading.grids(nbytes)
    assert all(nbytes <= 16 * rows * length <= 1.01 * nbytes + 16 for rows, length in ways)
    assert len({rows for rows, _ in ways}) == len(ways) and (len(ways) == 4 or nbytes < 1 << 16)


def test_as_many_bytes_are_read_whole_and_over_distinct_memory(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    nbytes = 1 << 18
    counts = []

    class Watched(call.OpCall):
        def stopwatch(self, device: Device, launch: call.Launch, sets: Sequence[Sequence[Tensor]]) -> Stopwatch:
            for (x,) in sets:
                assert launch([x]).numpy().sum() == pytest.approx(x.numpy().ravel()[: nbytes // 4].sum(), abs=0.1)
            assert len({id(x) for (x,) in sets}) == len(sets)
            counts.append(len(sets))
            seconds = 1e-6 * (9 - len(counts))
            return lambda: seconds

    monkeypatch.setattr(reading, "OpCall", Watched)
    same = reading.SameBytes(device, 0.0, most=1 << 22, rate=2.0)
    assert same.microseconds(nbytes) == same.microseconds(nbytes) == pytest.approx(9 - len(counts))
    assert counts == [1] + [call.SPREAD // (nbytes + 4)] * len(reading.grids(nbytes))
    assert same.microseconds(1 << 22) == pytest.approx((1 << 22) / 2e3), "by the rate of the yardstick"


def test_table_counts_only_the_rows_that_a_call_touches(cpu: Device) -> None:
    dims = TABLE["kv_append"].bench[0]
    timing = next(t for t in timings(cpu, ["kv_append"]) if t.op == "kv_append")
    row = 4 * dims["G"] * dims["D"]
    assert timing.nbytes == 4 * dims["T"] * row + 4, "keys, values, as many rows of each cache, and the length"


def test_what_no_kernel_takes_is_left_out(gpu: Device) -> None:
    assert [timing.dtypes["w"] for timing in timings(gpu, ["sample_embed"])[1:]] == ["f16"]


def test_wrong_result_is_not_timed(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TABLE["silu"], "body", lambda x: 1.01 * x)
    with pytest.raises(DeviceError, match=r"silu on wgpu .* computes y wrongly: error"):
        timings(gpu, ["silu"])


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_op_names_sizes_of_real_models(name: str) -> None:
    assert TABLE[name].bench, f"{name} has no bench: nobody would notice when it becomes slow"


def test_rows_of_the_table_line_up(device: Device) -> None:
    lines = benchmark.format_table(timings(device, ["silu_mul"])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].endswith("NumPy us  ratio" if device.kind == "cpu" else "GFLOP/s")


@pytest.mark.usefixtures("kernels")
def test_numpy_is_timed_beside_c_on_a_cpu(cpu: Device) -> None:
    timing = timings(cpu, ["silu_mul"])[1]
    assert timing.kernel != "numpy" and timing.numpy_microseconds is not None
    assert timing.numpy_microseconds != timing.microseconds
    with open_device("cpu", level="numpy") as plain:
        timing = timings(plain, ["silu_mul"])[1]
    assert (timing.kernel, timing.numpy_microseconds) == ("numpy", timing.microseconds)


def test_a_table_is_uploaded_once_and_other_parts_of_it_are_chosen(cpu: Device) -> None:
    dims = {"T": 1, "E": 64, "A": 2, "I": 32, "N": 64}
    dtypes = dict.fromkeys(("h", "w", "weights", "r"), "f32") | {"experts": "i32"}
    made = call.OpCall(TABLE["expert_down"], dims, dtypes)
    sets = made.spread(cpu, made.upload(cpu), 1e-6)
    assert len(sets) == call.MOST_SETS
    assert len({id(weights) for _, weights, *_ in sets}) == 1 and len({id(h) for h, *_ in sets}) == len(sets)
    assert len({expert for _, _, experts, *_ in sets for expert in experts.numpy().ravel()}) > 30


def test_dtypes_can_be_chosen_where_there_is_a_choice(cpu: Device) -> None:
    found = timings(cpu, ["silu", "norm_matmul"], dtypes=("q8_0",))[1:]
    assert {timing.dtypes.get("w") for timing in found} == {None, "q8_0"}


def test_operations_are_counted_where_a_product_is(cpu: Device) -> None:
    dims = {"T": 3, "N": 64, "K": 96}
    timing = benchmark._time(cpu, call.OpCall(TABLE["matmul"], dims, {"x": "f32", "w": "q8_0"}), 0.01)
    assert timing.gflops == pytest.approx(2 * 3 * 64 * 96 / timing.microseconds / 1e3)
    assert timings(cpu, ["silu"])[1].gflops is None


def test_changed_operands_are_checked_too(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TABLE["kv_append"], "body", lambda *operands: None)
    with pytest.raises(DeviceError, match=r"kv_append on wgpu .* computes \w+ wrongly"):
        timings(gpu, ["kv_append"])


@pytest.mark.parametrize("name", ["advance", "behind_tail", "snake_behind_tail"])
def test_operands_that_a_call_moves_on_are_fresh_for_its_check(device: Device, name: str) -> None:
    """The CPU device takes arrays as they are, so one call would change what the next is compared with."""
    assert [timing.op for timing in timings(device, [name])][1:] == [name] * len(TABLE[name].bench)


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_values_are_what_a_dtype_holds_so_that_uploading_rounds_nothing(cpu: Device, dtype: str) -> None:
    made = call.OpCall(TABLE["matmul"], {"T": 1, "N": 64, "K": 96}, {"x": "f32", "w": dtype})
    assert (made.upload(cpu)[1].numpy() == made.host[1]).all()
