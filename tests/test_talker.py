"""The Talker and its code predictor agree with the reference, frame by frame, on both devices and across them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from omni_rt import ops
from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.models import talker as talker_module
from omni_rt.models.code_predictor import CodePredictor
from omni_rt.models.qwen3_omni.talker import Talker, ThinkerStates, code_sizes
from omni_rt.models.qwen3_omni.talker_layout import talker_layout
from omni_rt.models.talker import TalkerPrompt, TalkerSession
from omni_rt.sampling import Sampling
from tests.reference import Reference, assert_close

TOLERANCE = 1e-4
WHOLE = ["text", "audio", "image"]
SCENARIOS = [*WHOLE, "mixed", "av", "turns", "empty"]
GREEDY = Sampling(repetition_penalty=1.05)
DRAWN = Sampling(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.05)


def load(
    reference: Reference,
    device: Device,
    *,
    predictor_device: Device | None = None,
    context: int = 200,
    quant: str | None = None,
) -> Talker:
    config = reference.config.talker
    assert config is not None
    weights = reference.weights(predictor_device or device, "talker.code_predictor.", quant)
    predictor = CodePredictor(weights, config.code_predictor, code_sizes(config))
    own = reference.weights(device, "talker.", quant)
    return Talker(own, config, reference.config.tokens, predictor, context=context)


@pytest.fixture(scope="module")
def talker(reference: Reference, device: Device) -> Talker:
    return load(reference, device)


def prompt_ids(reference: Reference, scenario: str) -> list[int]:
    return reference[f"thinker.{scenario}.input_ids"].reshape(-1).tolist()


def embed(reference: Reference, ids: list[int]) -> np.ndarray:
    return reference.checkpoint.array("thinker.model.embed_tokens.weight")[ids]


def states_of(reference: Reference, talker: Talker, scenario: str) -> ThinkerStates:
    """Return the reference's own embeddings and hidden states of a scenario's prompt."""
    tokens = reference.config.tokens
    return ThinkerStates(
        reference[f"thinker.{scenario}.hidden0"],
        reference[f"thinker.{scenario}.hidden{talker.config.accept_hidden_layer}"],
        embed(reference, [tokens.tts_pad, tokens.tts_bos, tokens.tts_eos]),
    )


def prompt_of(reference: Reference, talker: Talker, scenario: str, *, voice: str | None = None) -> TalkerPrompt:
    layout = talker.layout(prompt_ids(reference, scenario))
    spoken = embed(reference, reference[f"thinker.{scenario}.greedy_ids"].tolist()[:-1])
    return talker.prefill(layout, states_of(reference, talker, scenario), spoken, voice=voice)


def positions_of(reference: Reference, scenario: str) -> np.ndarray:
    return reference[f"speech.{scenario}.position_ids"].reshape(4, -1)[1:]


def session_of(
    reference: Reference,
    talker: Talker,
    scenario: str,
    *,
    sampling: Sampling = GREEDY,
    min_frames: int = 0,
    max_frames: int = 100,
    seed: int = 0,
    voice: str | None = None,
    ahead: int = 1,
) -> TalkerSession:
    """Open a session with all of the scenario's text pushed; the code predictor is greedy when the Talker is."""
    prompt = prompt_of(reference, talker, scenario, voice=voice)
    session = TalkerSession(
        talker,
        prompt.inputs,
        positions_of(reference, scenario),
        pad=prompt.pad,
        sampling=sampling,
        predictor_sampling=replace(sampling, repetition_penalty=1.0),
        seed=seed,
        min_frames=min_frames,
        max_frames=max_frames,
        ahead=ahead,
    )
    session.push_text(prompt.trailing)
    session.finish_text()
    return session


def frames_of(session: TalkerSession) -> np.ndarray:
    """Return all codes [K, F] of a session."""
    frames = []
    while (codes := session.step()) is not None:
        frames.append(codes)
    return np.stack(frames, axis=1) if frames else np.zeros((session.talker.config.codebooks, 0), np.int32)


def limit_of(reference: Reference, scenario: str) -> int:
    """Return a limit on frames under which the reference's reply ends where it does: by itself, or by the limit."""
    codec0 = reference[f"speech.{scenario}.codec0"]
    stopped = codec0[-1] == reference.config.talker.codec_eos  # type: ignore[union-attr]
    return 100 if stopped else len(codec0) - 1


def longest(reference: Reference) -> str:
    """Return the scenario with the most frames."""
    return max(SCENARIOS, key=lambda scenario: reference[f"speech.{scenario}.codes"].shape[1])


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


def test_a_prompt_in_slices_equals_a_prompt_at_once(
    reference: Reference, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(reference, cpu)
    monkeypatch.setattr(talker_module, "SLICE", 5)
    session = session_of(reference, model, "audio", max_frames=limit_of(reference, "audio"))
    np.testing.assert_array_equal(frames_of(session), reference["speech.audio.codes"])


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


def frames_apart(reference: Reference, first: Device, second: Device, sampling: Sampling, seed: int) -> np.ndarray:
    """Return four frames of a Talker on one device with its code predictor on another."""
    model = load(reference, first, predictor_device=second)
    return frames_of(session_of(reference, model, "text", sampling=sampling, min_frames=4, max_frames=4, seed=seed))


def test_the_predictor_may_live_on_another_device(reference: Reference, cpu: Device, gpu: Device) -> None:
    expected = reference["speech.text.codes"][:, :4]
    for first, second in ((cpu, gpu), (gpu, cpu)):
        np.testing.assert_array_equal(frames_apart(reference, first, second, GREEDY, 0), expected)


def test_draws_do_not_depend_on_where_the_predictor_lives(reference: Reference, cpu: Device, gpu: Device) -> None:
    """One draw in 100,000 hangs on the rounding of a device, so of three seeds one may differ."""
    seeds = (3, 4, 5)
    expected = [frames_apart(reference, cpu, cpu, DRAWN, seed) for seed in seeds]
    for first, second in ((cpu, gpu), (gpu, cpu)):
        got = [frames_apart(reference, first, second, DRAWN, seed) for seed in seeds]
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
    """A GPU makes the next frame while one is read, but none behind the limit; the last is the same one by one."""
    model = load(reference, device)
    drawn = {}
    for ahead in (0, 1, 2):
        sampling = Sampling(0.8, repetition_penalty=1.2)
        session = session_of(reference, model, "text", sampling=sampling, min_frames=6, max_frames=6, ahead=ahead)
        codes, before = [], model.cache.count
        for number in range(6):
            codes.append(session.step())
            issued = min(number + 1 + min(ahead, device.steps_ahead), 6)
            assert model.cache.count - before == issued - 1 and session.frames == number + 1
        drawn[ahead] = np.array(codes)
        assert session.finish_reason == "length" and session.step() is None
    np.testing.assert_array_equal(drawn[1], drawn[0])
    np.testing.assert_array_equal(drawn[2], drawn[0])
    assert len({frame.tobytes() for frame in drawn[0]}) > 1


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


def test_a_talker_speaks_one_reply_at_a_time(talker: Talker, reference: Reference) -> None:
    first = session_of(reference, talker, "text")
    session_of(reference, talker, "audio")
    with pytest.raises(InputError, match="one reply at a time"):
        first.step()


def test_rows_without_positions_are_refused(talker: Talker) -> None:
    rows = np.zeros((5, talker.config.decoder.width), np.float32)
    with pytest.raises(InputError, match=r"\[3, 4\]"):
        TalkerSession(talker, rows, np.zeros((3, 4)), pad=rows[0], sampling=GREEDY, predictor_sampling=GREEDY)


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
