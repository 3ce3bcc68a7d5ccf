"""Drawing tokens: `sample` follows its distribution and its cuts, alike on every device; penalties and step state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omni_rt import ops
from omni_rt.devices.device import Device
from omni_rt.ops.sampling import uniform


def draw(device: Device, logits: np.ndarray, seeds: int, **attributes: Any) -> np.ndarray:
    """Return ids [seeds, T] drawn with seeds 0, 1, ...; kept on the device until all are issued."""
    values = device.tensor(np.asarray(logits, np.float32))
    counter = device.tensor(np.array([3], np.int32))
    tensors = [
        ops.sample(values, device.tensor(np.array([seed], np.int32)), counter, **attributes) for seed in range(seeds)
    ]
    return np.stack([device.read(tensor) for tensor in tensors])


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    scaled = np.exp((logits - logits.max()) / temperature)
    return scaled / scaled.sum()


def test_draws_follow_the_softmax(device: Device) -> None:
    """1200 draws, 100 rows at a time, agree with the probabilities in a chi-squared test."""
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5])
    drawn = draw(device, np.tile(logits, (100, 1)), 12, temperature=0.8)
    counts = np.bincount(drawn.ravel(), minlength=7)
    expected = probabilities(logits, 0.8) * drawn.size
    assert ((counts - expected) ** 2 / expected).sum() < 22.5, f"{counts} against {expected}"  # p = 0.001, 6 degrees


def test_rows_counters_salts_and_seeds_draw_independently(device: Device) -> None:
    """Over 64 equal logits any two streams agree in about one draw of 64, never in most."""
    flat = device.tensor(np.zeros((256, 64), np.float32))

    def ids(seed: int, counter: int, salt: int) -> np.ndarray:
        state = [device.tensor(np.array([value], np.int32)) for value in (seed, counter)]
        return device.read(ops.sample(flat, *state, temperature=1.0, salt=salt))

    base = ids(1, 2, 3)
    for other in (ids(2, 2, 3), ids(1, 3, 3), ids(1, 2, 4), np.roll(base, 1)):
        assert (base == other).mean() < 0.1


@pytest.mark.parametrize("vocabulary", [7, 100, 3072])
@pytest.mark.parametrize(
    "cuts", [{}, {"top_k": 5}, {"top_p": 0.6}, {"top_k": 50, "top_p": 0.9}], ids=lambda cuts: "-".join(cuts) or "all"
)
def test_the_gpu_draws_the_same_ids_as_the_body(gpu: Device, vocabulary: int, cuts: dict[str, Any]) -> None:
    """Same logits, seed, counter and salt: same id, row by row, with ties, all equal, and without."""
    rng = np.random.default_rng(vocabulary)
    logits = (3 * rng.normal(size=(24, vocabulary))).astype(np.float32)
    logits[12:] = np.round(logits[12:])
    logits[0] = 1
    got = draw(gpu, logits, 12, temperature=0.9, salt=7, **cuts)
    state = np.array([3], np.int32)
    for seed, ids in enumerate(got):
        body = ops.sample.body(logits, np.array([seed], np.int32), state, **({"temperature": 0.9, "salt": 7} | cuts))
        assert ids.tolist() == body.tolist(), f"seed {seed}"


def test_top_k_keeps_the_k_largest_and_their_equals(device: Device) -> None:
    """Of 5, 4, 4, 4, 1 the top 2 are four ids, all of which are drawn."""
    drawn = draw(device, np.tile([4.0, 1.0, 5.0, 4.0, 4.0], (25, 1)), 4, temperature=2.0, top_k=2)
    assert set(drawn.ravel()) == {0, 2, 3, 4}


def test_the_nucleus_ends_with_the_id_that_reaches_p(device: Device) -> None:
    """Probabilities 0.5, 0.3, 0.15, 0.05: p 0.79 keeps two, p 0.81 three, p 0 the largest alone."""
    logits = np.tile(np.log([0.05, 0.3, 0.5, 0.15]), (25, 1))
    for top_p, kept in ((0.79, {1, 2}), (0.81, {1, 2, 3}), (0.0, {2}), (1.0, {0, 1, 2, 3})):
        assert set(draw(device, logits, 4, temperature=1.0, top_p=top_p).ravel()) == kept, top_p


def test_the_nucleus_is_taken_of_the_mass_that_top_k_left(device: Device) -> None:
    """Of 0.4, 0.3, 0.2, 0.1 the top 2 hold 0.57 and 0.43 of what is left: p 0.5 keeps one."""
    logits = np.tile(np.log([0.4, 0.3, 0.2, 0.1]), (25, 1))
    assert set(draw(device, logits, 4, temperature=1.0, top_k=2, top_p=0.5).ravel()) == {0}
    assert set(draw(device, logits, 4, temperature=1.0, top_p=0.5).ravel()) == {0, 1}


def test_a_suppressed_id_is_never_drawn(device: Device) -> None:
    """A bias of -1e30 wins over the largest logit, at any temperature."""
    logits = device.tensor(np.tile(np.array([0.0, 50.0, 1.0], np.float32), (200, 1)))
    seen = device.tensor(np.zeros(3, np.int32))
    bias = device.tensor(np.array([0, -1e30, 0], np.float32))
    kept = device.read(ops.penalise(logits, seen, bias, penalty=1.0))
    assert set(draw(device, kept, 3, temperature=5.0).ravel()) == {0, 2}


def test_the_penalty_lowers_seen_logits_of_either_sign(device: Device) -> None:
    """Positive ones are divided, negative ones multiplied, others left alone."""
    logits = device.tensor(np.array([[2.0, -2.0, 2.0, -2.0, 0.0]], np.float32))
    seen = device.tensor(np.zeros(5, np.int32))
    ops.mark(seen, device.tensor(np.array([0, 1, 0], np.int32)))
    assert device.read(seen).tolist() == [1, 1, 0, 0, 0]
    bias = device.tensor(np.zeros(5, np.float32))
    punished = device.read(ops.penalise(logits, seen, bias, penalty=2))
    assert punished.tolist() == [[1.0, -4.0, 2.0, -2.0, 0.0]]


def test_argmax_takes_the_lowest_of_equals(device: Device) -> None:
    """The largest value lies at three places, one of them in each lane's second stride."""
    logits = np.zeros((2, 1000), np.float32)
    logits[0, [900, 400, 656]] = 3
    logits[1] = -1e30
    assert device.read(ops.argmax(device.tensor(logits))).tolist() == [400, 0]


def test_uniform_numbers_fill_the_unit_interval() -> None:
    """10000 numbers have the mean and spread of a uniform distribution and stay below 1."""
    numbers = np.array([uniform(seed, counter, 1, 0) for seed in range(100) for counter in range(100)])
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01 and abs(numbers.var() - 1 / 12) < 0.003
    assert len(np.unique(numbers)) > 9900
