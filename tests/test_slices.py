"""Slices of a prompt follow the time that the GPU takes, and what is computed does not depend on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omni_rt.benchmark import full_size
from omni_rt.benchmark.weights import RandomWeights
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.models.qwen3_omni.thinker import Thinker, ThinkerInputs
from omni_rt.models.slices import FIRST_ROWS, LEAST_ROWS, MOST_ROWS, QUICK, SHORTEST, SLOW, Slices

CONFIG = replace(
    full_size.THINKER, width=64, layers=1, heads=4, kv_heads=2, head_dim=32, rope_sections=(6, 5, 5),
    experts=32, experts_per_token=2, expert_width=32, vocabulary=40,
)  # fmt: skip


class Timed:
    """A device that says how many dispatches it does in a tenth of a second."""

    def __init__(self, fitting: int | None) -> None:
        self.fitting = fitting

    def dispatches_in_time(self) -> int | None:
        return self.fitting


def cuts(slices: Slices, count: int) -> list[int]:
    """Return the rows of each slice of a prompt."""
    rows: list[int] = []
    while sum(rows) < count:
        rows.append(slices.rows(sum(rows), count - sum(rows)))
    return rows


@pytest.fixture
def timed() -> Timed:
    return Timed(64)


@pytest.fixture
def slices(timed: Timed) -> Slices:
    return Slices(timed)  # type: ignore[arg-type]


def test_a_quick_gpu_gets_larger_slices_step_by_step(slices: Slices) -> None:
    assert cuts(slices, 8000) == [512, 1024, 2048, 2048, 2048, 320]
    assert cuts(slices, 2048) == [2048]


def test_a_slow_gpu_gets_smaller_slices_at_once(slices: Slices, timed: Timed) -> None:
    cuts(slices, 4000)
    timed.fitting = SLOW - 1
    assert cuts(slices, 3328) == [1024, 512, 256, 256, 256, 256, 256, 256, 256]
    timed.fitting = QUICK - 1
    assert cuts(slices, 1024) == [256] * 4, "long enough for its time"


def test_only_a_full_slice_speaks_for_longer_ones(slices: Slices) -> None:
    for _ in range(9):
        assert cuts(slices, FIRST_ROWS - 1) == [FIRST_ROWS - 1]
    assert cuts(slices, 3000) == [512, 1024, 1464]


def test_without_a_clock_slices_stay_long() -> None:
    assert cuts(Slices(Timed(None)), 5000) == [2048, 2048, 904]  # type: ignore[arg-type]


def test_slices_grow_shorter_behind_many_positions(slices: Slices) -> None:
    cuts(slices, 4000)
    rows = [slices.rows(start, 9000) for start in (0, 2048, 8192, 16384, 65536, 262144)]
    assert rows == [2048, 2048, 2048, 1024, 256, 256]


@pytest.mark.parametrize("limit", [SHORTEST, 512, 1024, MOST_ROWS])
def test_no_slice_has_so_few_rows_that_other_kernels_serve_it(timed: Timed, limit: int) -> None:
    timed.fitting = QUICK - 1
    for count in range(1, 5000, 7):
        slices = Slices(timed)  # type: ignore[arg-type]
        slices.limit = limit
        rows = cuts(slices, count)
        assert sum(rows) == count and max(rows) <= limit and min(rows) >= min(count, LEAST_ROWS)


@pytest.fixture
def thinker(gpu: WebGpuDevice, quant: str | None) -> Thinker:
    weights = RandomWeights(gpu, quant=quant).at("thinker.")
    return Thinker(weights, CONFIG, context=1100, accept_layer=1, stop_id=-1)


def prompt(count: int) -> ThinkerInputs:
    """Return a prompt of random ids."""
    ids = np.random.default_rng(0).integers(0, CONFIG.vocabulary, count).tolist()
    return ThinkerInputs(ids, np.stack([np.arange(count, dtype=np.float32)] * 3), 0.0)


@pytest.mark.parametrize("quant", ["q8_0"])
def test_a_prompt_is_cut_by_the_time_that_its_device_takes(
    thinker: Thinker, gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[int] = []
    extend = thinker.cache.extend
    monkeypatch.setattr(thinker.cache, "extend", lambda rows: (cut.append(rows), extend(rows)))
    monkeypatch.setattr(gpu, "dispatches_in_time", lambda: SLOW - 1)
    thinker.prefill(prompt(600))
    assert cut == [300, 150, 150]


@pytest.mark.parametrize("quant", ["q8_0", None])
def test_the_bits_of_a_prompt_do_not_depend_on_its_slices(thinker: Thinker) -> None:
    results = []
    for rows in ([1100], [512, 588], [512, 256, 166, 166], [LEAST_ROWS] * 7 + [204]):
        turns = iter(rows)
        thinker.slices.rows = lambda start, left, turns=turns: next(turns)  # type: ignore[method-assign]
        output = thinker.forward(prompt(1100))
        caches = [cache.numpy() for cache in (*thinker.cache.keys, *thinker.cache.values)]
        results.append([output.text_logits, output.hidden, *caches])
    for other in results[1:]:
        for got, whole in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, whole)
