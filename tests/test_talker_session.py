"""Speech of the Talker ends, waits, repeats and draws as it was asked to, on both devices and across them."""

from __future__ import annotations

import numpy as np
import pytest

from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni.talker import Talker
from omni_rt.models.talker import TalkerSession
from omni_rt.sampling import Sampling
from tests.reference import Reference
from tests.talkers import (
    GREEDY,
    embed,
    frames_of,
    limit_of,
    load,
    longest,
    positions_of,
    prompt_ids,
    prompt_of,
    session_of,
    states_of,
)

DRAWN = Sampling(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.05)


@pytest.fixture(scope="module")
def talker(reference: Reference, device: Device) -> Talker:
    return load(reference, device)


def test_text_may_come_row_by_row_while_frames_are_made(reference: Reference, device: Device) -> None:
    """The Talker starts with the reply's first token, waits for late text, and reads the pad row only after its end."""
    model = load(reference, device)
    whole = prompt_of(reference, model, "text")
    wanted = len(whole.trailing) + 4
    at_once = frames_of(session_of(reference, model, "text", min_frames=wanted, max_frames=wanted)).T
    first = embed(reference, reference["thinker.text.greedy_ids"].tolist()[:1])
    layout = model.layout(prompt_ids(reference, "text"))
    start = model.prefill(layout, states_of(reference, model, "text"), first)
    np.testing.assert_allclose(start.inputs, whole.inputs, atol=1e-6)
    np.testing.assert_allclose(start.trailing, whole.trailing[-1:], atol=1e-6)
    session = TalkerSession(
        model,
        start.inputs,
        positions_of(reference, "text"),
        pad=start.pad,
        sampling=GREEDY,
        predictor_sampling=Sampling(),
        min_frames=wanted,
        max_frames=wanted,
    )
    frames: list[np.ndarray | None] = []
    for row in whole.trailing:
        while session.ready:
            frames.append(session.step())
        with pytest.raises(InputError, match="not come yet"):
            session.step()
        session.push_text(row[None])
        np.testing.assert_array_equal(frames, at_once[: len(frames)])
    session.finish_text()
    while (codes := session.step()) is not None:
        frames.append(codes)
    np.testing.assert_array_equal(frames, at_once)
    np.testing.assert_array_equal(model.text.numpy()[0], start.pad)
    with pytest.raises(InputError, match="ended"):
        session.push_text(start.trailing)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_max_frames_bounds_the_speech(talker: Talker, reference: Reference, limit: int) -> None:
    scenario = longest(reference)
    session = session_of(reference, talker, scenario, max_frames=limit)
    codes = frames_of(session)
    np.testing.assert_array_equal(codes, reference[f"speech.{scenario}.codes"][:, :limit])
    assert session.finish_reason == "length"


def test_a_full_context_ends_the_speech(reference: Reference, cpu: Device) -> None:
    scenario = longest(reference)
    rows = len(reference[f"speech.{scenario}.inputs_embeds"])
    session = session_of(reference, load(reference, cpu, context=rows + 2), scenario)
    np.testing.assert_array_equal(frames_of(session), reference[f"speech.{scenario}.codes"][:, :3])
    assert session.finish_reason == "length"
    with pytest.raises(InputError, match="larger context"):
        session_of(reference, load(reference, cpu, context=rows - 1), scenario)


def frames_apart(
    reference: Reference, first: Device, second: Device, sampling: Sampling, *, seed: int = 0, count: int = 4
) -> np.ndarray:
    """Return some frames of a Talker on one device with its code predictor on another."""
    model = load(reference, first, predictor_device=second)
    limits = {"min_frames": count, "max_frames": count}
    return frames_of(session_of(reference, model, "text", sampling=sampling, seed=seed, **limits))


def test_the_predictor_may_live_on_another_device(reference: Reference, cpu: Device, gpu: Device) -> None:
    expected = reference["speech.text.codes"][:, :4]
    for first, second in ((cpu, gpu), (gpu, cpu)):
        got = frames_apart(reference, first, second, GREEDY, count=expected.shape[1])
        np.testing.assert_array_equal(got, expected)


def test_draws_do_not_depend_on_where_the_predictor_lives(reference: Reference, cpu: Device, gpu: Device) -> None:
    """One draw in 100,000 hangs on the rounding of a device, so of three seeds one may differ."""
    seeds = (3, 4, 5)
    expected = [frames_apart(reference, cpu, cpu, DRAWN, seed=seed) for seed in seeds]
    for first, second in ((cpu, gpu), (gpu, cpu)):
        got = [frames_apart(reference, first, second, DRAWN, seed=seed) for seed in seeds]
        assert sum(map(np.array_equal, got, expected)) >= 2


def test_a_seed_repeats_the_speech_and_another_changes_it(talker: Talker, reference: Reference) -> None:
    first, again, other = (
        frames_of(session_of(reference, talker, "text", sampling=DRAWN, seed=seed, min_frames=4, max_frames=4))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_stop_token_is_not_exempt_from_top_k(talker: Talker, reference: Reference) -> None:
    only_the_best = Sampling(temperature=5.0, top_k=1, repetition_penalty=1.05)
    limit = limit_of(reference, "text")
    session = session_of(reference, talker, "text", sampling=only_the_best, max_frames=limit)
    np.testing.assert_array_equal(frames_of(session), reference["speech.text.codes"])


def test_ids_that_are_no_codes_are_never_drawn(reference: Reference, cpu: Device) -> None:
    """When all ids are nearly alike, only codes and the stop token come; without suppression others would."""
    model = load(reference, cpu)
    wild = Sampling(temperature=90.0)
    entries = model.config.code_predictor.vocabulary
    drawn = [
        frames_of(session_of(reference, model, "text", sampling=wild, seed=seed, max_frames=9)) for seed in range(6)
    ]
    codes = np.concatenate(drawn, axis=1)
    assert codes.shape[1] > 5 and codes.max() < entries
    model._suppressed[:] = 0
    session_of(reference, model, "text", sampling=wild)
    assert max(model.step(wild)[1].numpy()[0] for _ in range(10)) >= entries


@pytest.mark.parametrize("frames", [0, 2])
def test_the_stop_token_makes_no_frame(reference: Reference, device: Device, frames: int) -> None:
    """A model that wants to stop at once stops when it may, and what it made before is all."""
    model = load(reference, device)
    model._suppressed[model.stop_id] = 1e6
    session = session_of(reference, model, "text", min_frames=frames)
    assert frames_of(session).shape == (16, frames)
    assert (session.finish_reason, session.frames, session.ready) == ("stop", frames, False)


def test_frames_made_ahead_are_the_same_frames(reference: Reference, device: Device) -> None:
    """A GPU makes the next frame while one is read, but for the first, and none behind the limit."""
    model = load(reference, device)
    drawn = {}
    for ahead in (0, 1, 2):
        sampling = Sampling(0.8, repetition_penalty=1.2)
        session = session_of(reference, model, "text", sampling=sampling, min_frames=6, max_frames=6, ahead=ahead)
        codes, before = [], model.cache.count
        for number in range(6):
            codes.append(session.step())
            issued = min(number + 1 + (min(ahead, device.steps_ahead) if number else 0), 6)
            assert model.cache.count - before == issued - 1 and session.frames == number + 1
        drawn[ahead] = np.array(codes)
        assert session.finish_reason == "length" and session.step() is None
    np.testing.assert_array_equal(drawn[1], drawn[0])
    np.testing.assert_array_equal(drawn[2], drawn[0])
    assert len({frame.tobytes() for frame in drawn[0]}) > 1


def test_a_talker_speaks_one_reply_at_a_time(talker: Talker, reference: Reference) -> None:
    first = session_of(reference, talker, "text")
    session_of(reference, talker, "audio")
    with pytest.raises(InputError, match="one reply at a time"):
        first.step()


def test_rows_without_positions_are_refused(talker: Talker) -> None:
    rows = np.zeros((5, talker.config.decoder.width), np.float32)
    with pytest.raises(InputError, match=r"\[3, 4\]"):
        TalkerSession(talker, rows, np.zeros((3, 4)), pad=rows[0], sampling=GREEDY, predictor_sampling=GREEDY)
