"""Every C body computes what its op declares, at every dispatch level of this processor and with 1, 2 and 3 threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omni_rt import native, ops
from omni_rt.devices import open_device
from omni_rt.devices.cpu import CpuDevice
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.errors import DeviceError
from omni_rt.native import sources
from omni_rt.ops.contract import FINE_ROUNDING, TABLE, Call, Native, Op, Tolerance
from omni_rt.tensor import BLOCK, Tensor
from tests.parity import (
    CANARY,
    CANARY_BYTES,
    POISON,
    compare,
    describe,
    make_operands,
    rounded_to_int8,
    rounded_to_int16,
)

pytestmark = pytest.mark.usefixtures("kernels")

LEVELS = native.levels() or ["not-built"]
THREADS = (1, 2, 3)
BODIES = [(op, body) for op in TABLE.values() for body in op.natives]


@dataclass(frozen=True)
class NativeCase:
    """One call of an op's domain for one C body, with one kind of values."""

    op: Op
    native: Native
    dims: Mapping[str, Any]
    values: str

    def __str__(self) -> str:
        return f"{self.op.name}:{self.native.function}:{dict(self.dims)}:{self.values}"


@cache
def open_cpu(level: str, threads: int) -> CpuDevice:
    return CpuDevice(level=level, threads=threads)


def cases(op: Op, body: Native) -> Iterator[tuple[NativeCase, Call]]:
    """Every call of the domain that the body takes, with every kind of values."""
    for dims, values in product(op.domain, ("normal", "spiky", "equal", "negative")):
        call = describe(op, body, dims)
        rows = [(o.shape(call.dims)[-1], call.dtypes[o.name]) for o in op.operands]
        if all(size % BLOCK == 0 for size, dtype in rows if dtype == "q8_0") and body.takes(op, call):
            yield NativeCase(op, body, dims, values), call


def guarded(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return an output full of poison and the canary bytes behind it."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.full(size + CANARY_BYTES, POISON, np.uint8)
    raw[size:] = CANARY
    return raw[:size].view(dtype).reshape(shape), raw[size:]


def place(device: CpuDevice, values: np.ndarray, dtype: str) -> Tensor:
    return device.tensor(values.astype(np.int32)) if dtype == "i32" else device.weight(values, dtype)


def check(device: CpuDevice, case: NativeCase, call: Call) -> None:
    """Run one case and compare it with the body in float64; int8 bodies also, strictly, on rounded activations."""
    op, body = case.op, case.native
    rng = np.random.default_rng(sum(map(ord, str(case))))
    host = make_operands(case, call, rng)  # type: ignore[arg-type]
    attributes = {name: call.dims[name] for name in op.attributes}
    operands = [place(device, values.copy(), call.dtypes[o.name]) for o, values in zip(op.operands, host, strict=True)]
    plan = device.plan(op, operands, attributes, body)
    guards = [guarded(shape, dtype) for shape, dtype, _ in plan.outputs]
    assert device.call(plan, operands, [values for values, _ in guards]), f"{case}: the body left the call to NumPy"
    truths = [(host, body.tolerance or op.tolerance)]
    if body.int8:
        rounded = rounded_to_int16(host[0]) if body.tolerance == FINE_ROUNDING else rounded_to_int8(host[0])
        # Now and then two scales of a chunk leave the same error but for the last bit, and the other one is taken.
        exact = Tolerance(nmse=max(op.tolerance.nmse, 1e-7), peak=5e-3)
        if case.values == "spiky":  # beside a spike of 1e4 the rest of its chunk rounds to nothing: no bound holds
            truths = []
            # Biased weights leave 2^-24 of 128 x the spike in a sum: a millionth of what rounding the rest to int8 did,
            # a thousandth of it with two planes.
            exact = Tolerance(nmse=max(exact.nmse, 1e-6), peak=2e-2)
        truths.append(([rounded, *host[1:]], exact))
    for given, tolerance in truths:
        judge: Any = SimpleNamespace(op=SimpleNamespace(tolerance=tolerance))
        after = [values.copy() for values in given]
        with np.errstate(all="ignore"):
            truth = op.body(*after, **attributes)
        expected = [] if not op.outputs else [truth] if len(op.outputs) == 1 else list(truth)
        for output, (got, canary), reference in zip(op.outputs, guards, expected, strict=True):
            assert got.shape == reference.shape, f"{case} {output.name}: {got.shape} is not {reference.shape}"
            compare(judge, f"{case} {output.name}", got, reference)
            assert (canary == CANARY).all(), f"{case} {output.name}: the body wrote behind its output"
        for operand, tensor, reference in zip(op.operands, operands, after, strict=True):
            if operand.name in op.mutates:
                got, stored = device.read(tensor), call.dtypes[operand.name]
                if stored == "f16":
                    with np.errstate(over="ignore"):
                        too_large = np.isinf(reference.astype(np.float16))
                    assert np.isinf(got[too_large]).all(), f"{case} {operand.name}: finite where f16 has no such value"
                    got, reference = np.where(too_large, 0, got), np.where(too_large, 0, reference)
                compare(judge, f"{case} {operand.name}", got, reference, stored)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_a_row_has_the_same_bits_alone_and_among_others(dtype: str, level: str, threads: int) -> None:
    """Products, convolutions and windowed attention of 300 rows in pieces of 1, 4 and 79, as a stream brings them."""
    device, rng = open_cpu(level, threads), np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rows, x = 300, device.tensor(normal(300, 160))
    matrix, kernel = device.weight(normal(70, 160), dtype), device.weight(normal(40, 7, 160), dtype)
    phases, residual = device.weight(normal(3, 20, 2, 160), dtype), device.tensor(normal(300, 70))
    bias, tail, few = device.tensor(normal(40)), device.zeros((18, 160)), device.tensor(normal(20))
    q, k, v = (device.tensor(normal(300, 2, 32)) for _ in range(3))

    def run(start: int, stop: int, caches: list[Tensor]) -> list[np.ndarray]:
        before = tail if start == 0 else ops.concat_rows(tail[: max(18 - start, 0)], x[max(start - 18, 0) : start])
        device.write(caches[2], np.array([stop], np.int32))
        ops.kv_append(k[start:stop], v[start:stop], *caches)
        attended = ops.attention(q[start:stop], *caches, scale=0.2, causal=True, window=72)
        results = [
            ops.matmul(x[start:stop], matrix, as_rows=8),
            ops.matmul_add(x[start:stop], matrix, residual[start:stop], as_rows=8),
            ops.conv1d(x[start:stop], before, kernel, bias, dilation=3, as_rows=8),
            ops.conv_transpose1d(x[start:stop], before[17:], phases, few, as_rows=8).reshape(stop - start, -1),
            attended.reshape(stop - start, -1),
        ]
        return [result.numpy() for result in results]

    def cache() -> list[Tensor]:
        return [device.zeros((400, 2, 32)), device.zeros((400, 2, 32)), device.zeros((1,), "i32")]

    together = run(0, rows, cache())
    for piece in (1, 4, 79):
        caches = cache()
        pieces = [run(start, min(start + piece, rows), caches) for start in range(0, rows, piece)]
        for index, whole in enumerate(together):
            apart = np.concatenate([results[index] for results in pieces])
            np.testing.assert_array_equal(apart, whole, err_msg=f"result {index} in pieces of {piece}")


def test_the_module_is_built() -> None:
    assert native.load() is not None, "the C bodies are not built: python omni_rt/native/build.py"


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("op", "body"), BODIES, ids=lambda item: getattr(item, "function", ""))
def test_body_agrees_with_the_op_in_float64(op: Op, body: Native, level: str, threads: int) -> None:
    checked = 0
    for case, call in cases(op, body):
        check(open_cpu(level, threads), case, call)
        checked += 1
    assert checked, f"no call of the domain of {op.name} reaches {body.function}"


@pytest.mark.parametrize("activations", ["q8", "f32"])
def test_activations_decide_whether_int8_bodies_run(activations: str) -> None:
    device = CpuDevice(activations=activations)
    call = describe(TABLE["matmul"], Native("", (), {"w": "q8_0"}), {"T": 1, "N": 8, "K": 64})
    chosen = device.choose(TABLE["matmul"], call)
    assert chosen is not None and chosen.int8 == (activations == "q8")


def test_an_unknown_level_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(DeviceError, match=r"no CPU level 'sse9'.*numpy"):
        CpuDevice(level="sse9")


def test_mapped_weights_are_not_copied(tmp_path: Path) -> None:
    """A weight of a memory-mapped file is computed with in place; at an odd offset it is copied and still right."""
    values = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    device = CpuDevice(threads=2)
    x = device.tensor(values[:2])
    for offset in (8, 9):
        path = tmp_path / f"weight{offset}"
        path.write_bytes(bytes(offset) + values.tobytes())
        mapped = np.frombuffer(np.memmap(path, np.uint8, "r"), np.float32, 240, offset).reshape(6, 40)
        weight = device.weight(mapped, "f32")
        assert np.shares_memory(weight.planes[0], mapped) == (offset == 8)
        np.testing.assert_allclose(ops.matmul(x, weight).numpy(), values[:2] @ values.T, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells how often a thread has slept")
def test_every_worker_of_a_new_pool_takes_part() -> None:
    """However long it takes to start them all: the first task wakes those that went to sleep meanwhile."""
    before = sleeps()
    device = CpuDevice(threads=64)
    x, w = device.tensor(np.ones((256, 256), np.float32)), device.weight(np.ones((256, 256), np.float32), "f32")
    time.sleep(0.2)
    asleep = {thread: count for thread, count in sleeps().items() if thread not in before}
    assert len(asleep) == 63
    ops.matmul(x, w)
    deadline = time.monotonic() + 10
    while any(sleeps()[thread] == count for thread, count in asleep.items()):
        assert time.monotonic() < deadline, "a worker was not woken"
        time.sleep(0.05)


def sleeps() -> dict[str, int]:
    """Return how often each thread of this process went to sleep."""
    counts = {}
    for thread in Path("/proc/self/task").iterdir():
        lines = (thread / "status").read_text().splitlines()
        counts[thread.name] = next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
    return counts


def test_two_devices_run_at_once() -> None:
    """Threads of Python that share a device, and a second device, get the results of one alone."""
    rng = np.random.default_rng(0)
    devices = [CpuDevice(threads=2), CpuDevice(threads=3)]
    rows, matrix = rng.normal(size=(9, 256)).astype(np.float32), rng.normal(size=(300, 256))
    placed = [(device.tensor(rows), device.weight(matrix, "q8_0")) for device in devices]
    expected = ops.matmul(*placed[0]).numpy()

    def work(index: int) -> bool:
        x, w = placed[index % 2]
        return all((ops.matmul(x, w).numpy() == expected).all() for _ in range(200))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


def test_the_loop_in_c_replays_the_same_bits(gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of several pipelines and grids, replayed by C and by Python on changed inputs."""
    rng = np.random.default_rng(0)
    w = gpu.weight(rng.normal(size=(40, 64)), "q8_0")
    x = gpu.zeros((3, 64))

    def step() -> Tensor:
        y = ops.matmul(x, w)
        return ops.silu(ops.add(y, y))

    monkeypatch.setattr(gpu.stream, "replayer", None)
    by_python = gpu.capture(step)
    expected = []
    inputs = rng.normal(size=(3, 3, 64)).astype(np.float32)
    for values in inputs:
        gpu.write(x, values)
        expected.append(by_python().numpy())
    monkeypatch.undo()
    assert gpu.stream.replayer is not None
    by_c = gpu.capture(step)
    for values, reference in zip(inputs, expected, strict=True):
        gpu.write(x, values)
        assert (by_c().numpy() == reference).all()
    assert np.abs(expected[0] - expected[1]).max() > 0.1


def test_numpy_level_uses_no_native_body() -> None:
    device = CpuDevice(level="numpy")
    x, w = device.tensor(np.ones((2, 4), np.float32)), device.weight(np.ones((3, 4), np.float32), "f32")
    assert device.pool is None
    assert (ops.matmul(x, w).numpy() == 4).all()


def test_a_module_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one whose C files have changed since, nor one so old that it does not tell what it was built from."""
    here = Path(native.__file__).parent
    assert sources.digest(here) and native.load.__wrapped__() is not None
    with monkeypatch.context() as patch:
        patch.setattr(native, "digest", lambda folder: sources.digest(folder)[1:])
        with pytest.warns(RuntimeWarning, match=r"built from other C files.*python omni_rt/native/build\.py"):
            assert native.load.__wrapped__() is None
    module = native.load()
    old = SimpleNamespace(lib=SimpleNamespace(), ffi=None, __file__="_kernels.so")
    monkeypatch.setattr(native, "import_module", lambda name: old)
    with pytest.warns(RuntimeWarning, match="other C files"):
        assert native.load.__wrapped__() is None
    assert module is not None and native.is_built()


def test_a_change_of_any_source_changes_the_digest(tmp_path: Path) -> None:
    assert sources.digest(tmp_path) == ""
    (tmp_path / "a.c").write_text("int a;")
    first = sources.digest(tmp_path)
    (tmp_path / "_kernels.c").write_text("made by the build")
    assert sources.digest(tmp_path) == first
    (tmp_path / "a.c").write_text("int b;")
    second = sources.digest(tmp_path)
    (tmp_path / "a.c").rename(tmp_path / "b.c")
    assert len({first, second, sources.digest(tmp_path)}) == 3


def test_weights_are_converted_by_the_threads_asked_for() -> None:
    try:
        for threads in (1, 3):
            open_device("cpu", threads=threads, level="portable")
            pool = native.weight_pool()
            assert pool is not None and (pool.threads, pool.level) == (threads, "portable")
        open_device("cpu", level="numpy")
        assert native.weight_pool() is None
        with pytest.raises(DeviceError, match="no CPU level 'sse9'"):
            open_device("cpu", level="sse9")
        assert native.weight_pool() is None
    finally:
        native.convert_with(None, "")
