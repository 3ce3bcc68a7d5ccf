"""The Thinker agrees with the reference from spliced embeddings to greedy tokens, on both devices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni import thinker as thinker_module
from omni_rt.models.qwen3_omni.thinker import Thinker, ThinkerInputs
from omni_rt.sampling import Sampling
from tests.reference import Reference, assert_close

TOLERANCE = 1e-4
SCENARIOS = ["text", "audio", "turns", "empty", "image", "video", "mixed", "av"]


@pytest.fixture(scope="module")
def thinker(reference: Reference, device: Device) -> Thinker:
    config = reference.config
    accept = config.talker.accept_hidden_layer if config.talker else 0
    weights = reference.weights(device, "thinker.")
    return Thinker(weights, config.thinker, context=700, accept_layer=accept, stop_id=config.tokens.im_end)


def inputs_of(reference: Reference, scenario: str) -> ThinkerInputs:
    """Return a scenario's prompt with the reference's own spliced embeddings."""
    ids = reference[f"thinker.{scenario}.input_ids"].reshape(-1).tolist()
    positions = reference[f"thinker.{scenario}.position_ids"].reshape(3, -1).astype(np.float32)
    delta = float(reference[f"thinker.{scenario}.rope_delta"].reshape(-1)[0])
    media = reference[f"thinker.{scenario}.hidden0"]
    tokens = reference.config.tokens
    seen = [kind for kind, pad in (("image", tokens.image_pad), ("video", tokens.video_pad)) if pad in ids]
    visual, deepstack = None, []
    if seen:
        places = np.flatnonzero(np.isin(ids, [tokens.image_pad, tokens.video_pad]))
        visual = np.full(len(ids), -1, np.int32)
        visual[places] = np.arange(len(places))
        layers = range(len(reference.config.vision.deepstack_layers))
        deepstack = [np.concatenate([reference[f"{kind}.deepstack{i}"] for kind in seen]) for i in layers]
    return ThinkerInputs(ids, positions, delta, media, np.arange(len(ids), dtype=np.int32), deepstack, visual)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_logits_and_hidden_states_equal_the_reference(thinker: Thinker, reference: Reference, scenario: str) -> None:
    output = thinker.forward(inputs_of(reference, scenario))
    accepted = f"thinker.{scenario}.hidden{thinker.accept_layer}"
    if accepted in reference:
        assert_close(output.hidden, reference[accepted], TOLERANCE)
    if f"thinker.{scenario}.logits" in reference:
        assert_close(output.text_logits, reference[f"thinker.{scenario}.logits"], TOLERANCE)
    assert_close(output.text_logits[-1], reference[f"thinker.{scenario}.greedy_logits"][0], TOLERANCE)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_greedy_tokens_equal_the_reference(thinker: Thinker, reference: Reference, scenario: str) -> None:
    expected = reference[f"thinker.{scenario}.greedy_ids"].tolist()
    inputs = inputs_of(reference, scenario)
    prefill = thinker.prefill(inputs)
    got = list(thinker.generate(inputs, prefill, max_new_tokens=len(expected), sampling=Sampling()))
    assert got == expected


def test_text_rows_are_embedded_as_in_the_reference(thinker: Thinker, reference: Reference) -> None:
    inputs = inputs_of(reference, "text")
    got = thinker.embed_ids(inputs.token_ids)
    assert_close(got, reference["thinker.text.hidden0"], 1e-6)


def test_decode_equals_prefill(thinker: Thinker, reference: Reference) -> None:
    """The logits after each generated token are those of a prefill over prompt and tokens."""
    inputs = inputs_of(reference, "text")
    ids = reference["thinker.text.greedy_ids"].tolist()
    count = len(inputs.token_ids)
    whole = ThinkerInputs(
        [*inputs.token_ids, *ids[:-1]], np.stack([np.arange(count + len(ids) - 1, dtype=np.float32)] * 3), 0.0
    )
    logits = thinker.forward(whole).text_logits[count - 1 :]
    assert_close(logits, reference["thinker.text.greedy_logits"], TOLERANCE)


NONE = -1
"""A stop token that never comes."""


def test_a_reply_across_256_positions_leaves_the_cache_of_a_prefill(
    thinker: Thinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a step is recorded anew, with its keys in runs: positions and places in the cache go on as before."""
    monkeypatch.setattr(thinker, "stop_id", NONE)
    ids = np.random.default_rng(0).integers(0, 200, 250).tolist()
    inputs = ThinkerInputs(ids, np.stack([np.arange(250, dtype=np.float32)] * 3), 0.0)
    reply = list(thinker.generate(inputs, thinker.prefill(inputs), max_new_tokens=15, sampling=Sampling()))
    kept = [cache.numpy()[:264] for cache in (*thinker.cache.keys, *thinker.cache.values)]
    whole = ThinkerInputs(ids + reply[:-1], np.stack([np.arange(264, dtype=np.float32)] * 3), 0.0)
    assert thinker.forward(whole).text_logits[249:].argmax(axis=1).tolist() == reply
    for got, cache in zip(kept, (*thinker.cache.keys, *thinker.cache.values), strict=True):
        assert_close(got, cache.numpy()[:264], TOLERANCE)


def test_a_prompt_in_slices_equals_a_prompt_at_once(
    thinker: Thinker, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scenario in ("image", "mixed"):
        inputs = inputs_of(reference, scenario)
        whole = thinker.forward(inputs)
        monkeypatch.setattr(thinker.slices, "rows", lambda start, left: min(left, 5))
        sliced = thinker.forward(inputs)
        monkeypatch.undo()
        assert_close(sliced.text_logits, whole.text_logits, 1e-5)
        assert_close(sliced.hidden, whole.hidden, 1e-5)


def test_a_seed_repeats_a_sampled_reply_and_another_changes_it(thinker: Thinker, reference: Reference) -> None:
    inputs = inputs_of(reference, "text")
    sampling = Sampling(temperature=1.5, top_k=40, top_p=0.95)

    def reply(seed: int) -> list[int]:
        prefill = thinker.prefill(inputs)
        return list(thinker.generate(inputs, prefill, max_new_tokens=12, sampling=sampling, seed=seed))

    assert reply(7) == reply(7)
    assert len({tuple(reply(seed)) for seed in range(4)}) > 1


SAMPLED = Sampling(temperature=1.5)


def read_on(thinker: Thinker, inputs: ThinkerInputs, together: int) -> list[list[int]]:
    """Return the 39 tokens behind the first of a sampled reply, as the host reads them."""
    prefill = thinker.prefill(inputs)
    next(thinker.generate(inputs, prefill, max_new_tokens=1, sampling=SAMPLED, seed=1))
    return list(thinker._run_on(prefill, SAMPLED, 39, together))


def test_the_host_reads_tokens_together_when_steps_are_quick(
    thinker: Thinker, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(reference, "text")
    alone = read_on(thinker, inputs, 1)
    assert [len(tokens) for tokens in alone] == [1] * 39
    monkeypatch.setattr(thinker_module, "TOGETHER_SECONDS", 1e9)
    sizes = {4: [1, 1, 1, 2, *[4] * 8, 2], 3: [1, 1, 1, 2, *[3] * 11, 1]}
    for together, expected in sizes.items():
        got = read_on(thinker, inputs, together)
        assert [len(tokens) for tokens in got] == (expected if thinker.device.steps_ahead else [1] * 39)
        assert [token for tokens in got for token in tokens] == [token for (token,) in alone]
    monkeypatch.setattr(thinker_module, "TOGETHER_SECONDS", 0.0)
    assert read_on(thinker, inputs, 4) == alone


def test_a_reply_ends_among_tokens_that_were_read_together(
    thinker: Thinker, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its stop token, or because another prompt takes the cache."""
    inputs = inputs_of(reference, "text")
    monkeypatch.setattr(thinker_module, "TOGETHER_SECONDS", 1e9)
    monkeypatch.setattr(thinker, "stop_id", NONE)

    def reply() -> Iterator[int]:
        return thinker.generate(inputs, thinker.prefill(inputs), max_new_tokens=40, sampling=SAMPLED, seed=1)

    whole = list(reply())
    stop = next(place for place in range(12, 40) if whole[place] not in whole[:place])
    monkeypatch.setattr(thinker, "stop_id", whole[stop])
    assert list(reply()) == whole[: stop + 1]
    taken = reply()
    assert [next(taken) for _ in range(12)] == whole[:12]
    thinker.clear()
    with pytest.raises(InputError, match="taken over"):
        next(taken)


def test_a_full_context_is_a_clear_error(thinker: Thinker) -> None:
    ids = [1] * 701
    inputs = ThinkerInputs(ids, np.stack([np.arange(701, dtype=np.float32)] * 3), 0.0)
    with pytest.raises(InputError, match="context of 700 positions"):
        thinker.prefill(inputs)


def test_a_reply_ends_where_the_context_ends(reference: Reference, device: Device) -> None:
    config = reference.config
    weights = reference.weights(device, "thinker.")
    inputs = inputs_of(reference, "text")
    count = len(inputs.token_ids)
    short = Thinker(weights, config.thinker, context=count + 3, accept_layer=1, stop_id=config.tokens.im_end)
    got = list(short.generate(inputs, short.prefill(inputs), max_new_tokens=100, sampling=Sampling()))
    assert got == reference["thinker.text.greedy_ids"][:4].tolist()


def test_an_empty_prompt_is_a_clear_error(thinker: Thinker) -> None:
    with pytest.raises(InputError, match="empty"):
        thinker.prefill(ThinkerInputs([], np.zeros((3, 0), np.float32), 0.0))
