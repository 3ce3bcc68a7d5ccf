"""Talkers of the reference data, and sessions of them with the reference's own inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from omni_rt.devices.device import Device
from omni_rt.models.code_predictor import CodePredictor
from omni_rt.models.qwen3_omni.talker import Talker, ThinkerStates, code_sizes
from omni_rt.models.talker import TalkerPrompt, TalkerSession
from omni_rt.sampling import Sampling
from tests.reference import Reference

WHOLE = ["text", "audio", "image"]
"""Scenarios of which the reference data hold every stage."""
SCENARIOS = [*WHOLE, "mixed", "av", "turns", "empty"]
GREEDY = Sampling(repetition_penalty=1.05)


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
