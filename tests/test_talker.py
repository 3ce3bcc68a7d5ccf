"""The Talker and its code predictor agree with the reference, frame by frame, on both devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from omni_rt import ops
from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.models import talker as talker_module
from omni_rt.models.qwen3_omni.talker import Talker
from omni_rt.models.qwen3_omni.talker_layout import talker_layout
from omni_rt.models.talker import TalkerSession
from omni_rt.sampling import Sampling
from tests.reference import Reference, assert_close
from tests.talkers import (
    GREEDY,
    SCENARIOS,
    WHOLE,
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

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def talker(reference: Reference, device: Device) -> Talker:
    return load(reference, device)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_prompt_rows_and_text_rows_equal_the_reference(talker: Talker, reference: Reference, scenario: str) -> None:
    assert (
        talker.layout(prompt_ids(reference, scenario)).ids == reference[f"speech.{scenario}.talker_input_ids"].tolist()
    )
    prompt = prompt_of(reference, talker, scenario)
    assert_close(prompt.inputs, reference[f"speech.{scenario}.inputs_embeds"], TOLERANCE)
    assert_close(prompt.trailing, reference[f"speech.{scenario}.trailing_text_hidden"], TOLERANCE)
    if scenario in WHOLE:
        assert_close(prompt.pad, reference[f"speech.{scenario}.tts_pad_embed"], TOLERANCE)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_codes_logits_and_states_equal_the_reference(talker: Talker, reference: Reference, scenario: str) -> None:
    limit = limit_of(reference, scenario)
    session = session_of(reference, talker, scenario, max_frames=limit, ahead=0)
    expected = reference[f"speech.{scenario}.codes"]
    steps = len(reference[f"speech.{scenario}.codec0"]) - (limit < 100)  # at the limit the last token is not computed
    got = []
    for step in range(steps):
        codes = session.step()
        assert session.hidden is not None and session.logits is not None
        assert_close(session.hidden.numpy()[0], reference[f"speech.{scenario}.step_hidden"][step], TOLERANCE)
        if scenario in WHOLE:
            assert_close(session.logits.numpy()[0], reference[f"speech.{scenario}.step_logits"][step], TOLERANCE)
        got += [] if codes is None else [codes]
    np.testing.assert_array_equal(np.stack(got, axis=1), expected)
    assert session.finish_reason == ("stop" if limit == 100 else "length")
    assert session.step() is None


def test_the_repetition_penalty_counts_the_codes_so_far(talker: Talker, reference: Reference) -> None:
    limit = limit_of(reference, "text_rp2")
    session = session_of(reference, talker, "text", sampling=Sampling(repetition_penalty=2.0), max_frames=limit)
    np.testing.assert_array_equal(frames_of(session), reference["speech.text_rp2.codes"])
    # The penalty starts afresh with each reply.
    session = session_of(reference, talker, "text", max_frames=limit_of(reference, "text"))
    np.testing.assert_array_equal(frames_of(session), reference["speech.text.codes"])


@pytest.mark.parametrize("scenario", WHOLE)
def test_the_code_predictor_alone_equals_the_reference(talker: Talker, reference: Reference, scenario: str) -> None:
    predictor, codes = talker.predictor, reference[f"speech.{scenario}.codes"]
    for frame in range(min(3, codes.shape[1])):
        hidden, embedded = reference[f"speech.{scenario}.cp{frame}.in"]
        first = predictor.device.tensor(np.array([codes[0, frame]], np.int32))
        assert_close(predictor.tables.one(0, first).numpy()[0], embedded, TOLERANCE)
        got = predictor.from_host(hidden, codes[0, frame], Sampling(), 0, 0)
        np.testing.assert_array_equal(got, codes[:, frame])
        logits = np.concatenate([row.numpy() for row in predictor.logits])
        assert_close(logits, reference[f"speech.{scenario}.cp{frame}.logits"], TOLERANCE)


def test_decode_equals_prefill(talker: Talker, reference: Reference) -> None:
    """Frames fed back one by one leave the states that one pass over prompt and fed rows has."""
    inputs = prompt_of(reference, talker, "image").inputs
    rows = np.concatenate([inputs, reference["speech.image.step_embeds"]])
    positions = np.concatenate(
        [positions_of(reference, "image"), reference["speech.image.step_position"][:, 1:]], axis=1
    )
    cache = talker.decoder.cache(len(rows))
    cache.extend(len(rows))
    table = ops.angles(talker.device.tensor(np.ascontiguousarray(positions.T)), talker.frequencies)
    states, _ = talker.decoder(talker.device.tensor(rows), table, cache)
    assert_close(states.numpy()[len(inputs) - 1 :], reference["speech.image.step_hidden"], TOLERANCE)


def test_speech_across_256_positions_leaves_the_cache_of_one_pass(reference: Reference, device: Device) -> None:
    """There a step is recorded anew, with its keys in runs: positions and places in the cache go on as before."""
    talker = load(reference, device, context=300)
    inputs = np.random.default_rng(0).normal(size=(250, talker.width)).astype(np.float32)
    positions = np.broadcast_to(np.arange(264, dtype=np.float32), (3, 264))
    session = TalkerSession(
        talker, inputs, positions[:, :250], pad=inputs[0], sampling=GREEDY, predictor_sampling=GREEDY,
        min_frames=15, max_frames=15,
    )  # fmt: skip
    session.finish_text()
    frames = frames_of(session).T[:-1]
    fed = [talker.tables.sum(device.tensor(frame)).numpy() + inputs[0] for frame in frames]
    cache = talker.decoder.cache(264)
    cache.extend(264)
    table = ops.angles(device.tensor(np.ascontiguousarray(positions.T)), talker.frequencies)
    talker.decoder.states(device.tensor(np.concatenate([inputs, *fed])), table, cache)
    kept = (*talker.cache.keys, *talker.cache.values)
    for got, expected in zip(kept, (*cache.keys, *cache.values), strict=True):
        assert_close(got.numpy()[:264], expected.numpy(), TOLERANCE)


def test_a_prompt_in_slices_equals_a_prompt_at_once(
    reference: Reference, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(reference, cpu)
    monkeypatch.setattr(model.slices, "rows", lambda start, left: min(left, 5))
    session = session_of(reference, model, "audio", max_frames=limit_of(reference, "audio"))
    np.testing.assert_array_equal(frames_of(session), reference["speech.audio.codes"])


@pytest.mark.parametrize("rows", [2, 17, 18, 40])
def test_a_recorded_prompt_reads_its_own_rows_alone(
    reference: Reference, gpu: Device, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt is filled up to a length that is recorded, behind a longer one too: no frame knows of it."""
    talker = load(reference, gpu)

    def spoken(count: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = np.random.default_rng(count).normal(size=(count, talker.width)).astype(np.float32)
        positions = np.broadcast_to(np.arange(count, dtype=np.float32), (3, count))
        session = TalkerSession(
            talker, inputs, positions, pad=inputs[0], sampling=GREEDY, predictor_sampling=GREEDY,
            min_frames=3, max_frames=3,
        )  # fmt: skip
        session.finish_text()
        codes = [session.step() for _ in range(3)]
        assert session.logits is not None
        return np.stack([frame for frame in codes if frame is not None]), session.logits.numpy()

    spoken(60)
    codes, logits = spoken(rows)
    monkeypatch.setattr(talker_module, "RECORDED_ROWS", ())
    expected_codes, expected = spoken(rows)
    np.testing.assert_array_equal(codes, expected_codes)
    assert_close(logits, expected, TOLERANCE)


def test_the_voice_is_read_and_ethan_is_the_default(talker: Talker, reference: Reference) -> None:
    default = prompt_of(reference, talker, "text").inputs
    np.testing.assert_array_equal(prompt_of(reference, talker, "text", voice="Ethan").inputs, default)
    others = sorted(set(talker.config.speakers) - {"ethan"})
    assert others
    other = prompt_of(reference, talker, "text", voice=others[0]).inputs
    changed = np.flatnonzero((other != default).any(axis=1))
    assert changed.tolist() == [len(default) - 3]
    with pytest.raises(InputError, match=rf"'nobody'.*{others[0]}"):
        talker.speaker("nobody")


def test_earlier_answers_and_system_turns_are_left_out(reference: Reference) -> None:
    tokens = reference.config.tokens
    start, end, line = tokens.im_start, tokens.im_end, 7
    system = [start, tokens.system, line, 1, end, line]
    question = [start, tokens.user, line, 2, tokens.audio_pad, end, line]
    answer = [start, tokens.assistant, line, 3, end, line]
    header = [start, tokens.assistant, line]
    layout = talker_layout([*system, *question, *answer, *question, *header], tokens)
    assert layout.ids == [*question, *question, *[tokens.tts_pad] * 9]
    assert layout.media.tolist() == [False, False, False, False, True, False, False] * 2
    assert layout.user.tolist() == [*range(6, 13), *range(19, 26)]
    assert layout.header.tolist() == [26, 27, 28]
    assert layout.spoken.tolist() == []
    # What the prompt puts behind the header (an empty block of thought) would be spoken.
    assert talker_layout([*question, *header, 8, 9], tokens).spoken.tolist() == [10, 11]
    # Only the header: the text to speak has no question.
    assert talker_layout(header, tokens).ids == [tokens.tts_pad] * 9


def test_prompts_that_cannot_be_spoken_are_refused(talker: Talker, reference: Reference) -> None:
    tokens = reference.config.tokens
    header = [tokens.im_start, tokens.assistant, 7]
    for ids in ([], [tokens.im_start, tokens.user, 7], header[:2], [*header, tokens.im_start, tokens.user, 7, 1]):
        with pytest.raises(InputError, match="header of an answer"):
            talker_layout(ids, tokens)
    with pytest.raises(InputError, match="role id 5"):
        talker_layout([tokens.im_start, 5, *header], tokens)
    with pytest.raises(InputError, match="no token that could be spoken"):
        layout = talker.layout(prompt_ids(reference, "text"))
        talker.prefill(layout, states_of(reference, talker, "text"), embed(reference, []))


def test_quantised_weights_give_nearly_the_same_logits(reference: Reference, device: Device) -> None:
    model = load(reference, device, quant="q8_0")
    session = session_of(reference, model, "text", max_frames=1)
    session.step()
    assert session.logits is not None
    expected = reference["speech.text.step_logits"][0]
    error = session.logits.numpy()[0] - expected
    assert np.sqrt(np.mean(error**2) / np.mean(expected**2)) < 0.05
    assert model.codec_head.dtype == "q8_0" and model.tables.rows.dtype == "f16"


# Faults that others made: each must show in the comparison with the reference. ------------------------------------


def positions_restart(talker: Talker) -> None:
    run = talker.run

    def restarted(inputs: np.ndarray, positions: np.ndarray) -> None:
        run(inputs, positions)
        talker.device.write(talker.position, np.zeros((1, 3), np.float32))

    talker.run = restarted  # type: ignore[method-assign]


def frames_not_fed_back(talker: Talker) -> None:
    total = talker.tables.sum
    talker.tables.sum = lambda codes: total(talker.device.tensor(talker.tables.nothing))  # type: ignore[method-assign]


def only_the_first_code_fed_back(talker: Talker) -> None:
    talker.tables.sum = lambda codes: talker.tables.one(0, codes[:1])  # type: ignore[method-assign]


def predictor_without_the_talkers_state(talker: Talker) -> None:
    passes = talker.predictor.passes
    nothing = talker.device.tensor(np.zeros((1, talker.config.decoder.width), np.float32))
    talker.predictor.passes = lambda hidden, *rest: passes(nothing, *rest)  # type: ignore[method-assign]


def predictor_heads_shifted(talker: Talker) -> None:
    talker.predictor.heads = [*talker.predictor.heads[1:], talker.predictor.heads[0]]


def shared_expert_left_out(talker: Talker) -> None:
    for layer in talker.decoder.layers:
        layer.feed_forward.shared_gate = None  # type: ignore[union-attr]


def norms_of_queries_and_keys_left_out(talker: Talker) -> None:
    for layer in talker.decoder.layers:
        layer.attention.config = replace(layer.attention.config, query_key_norm=False)


@pytest.mark.parametrize(
    "fault",
    [
        positions_restart,
        frames_not_fed_back,
        only_the_first_code_fed_back,
        predictor_without_the_talkers_state,
        predictor_heads_shifted,
        shared_expert_left_out,
        norms_of_queries_and_keys_left_out,
    ],
)
def test_a_known_fault_would_show(reference: Reference, cpu: Device, fault: Callable[[Talker], None]) -> None:
    model, scenario = load(reference, cpu), longest(reference)
    expected = reference[f"speech.{scenario}.codes"]
    limit = expected.shape[1]
    np.testing.assert_array_equal(frames_of(session_of(reference, model, scenario, max_frames=limit)), expected)
    model = load(reference, cpu)  # what has been captured would go on without the fault
    fault(model)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(frames_of(session_of(reference, model, scenario, max_frames=limit)), expected)


def test_text_padded_early_would_show(reference: Reference, cpu: Device) -> None:
    model, scenario = load(reference, cpu), longest(reference)
    session = session_of(reference, model, scenario, max_frames=limit_of(reference, scenario))
    session._text.clear()
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(frames_of(session), reference[f"speech.{scenario}.codes"])
