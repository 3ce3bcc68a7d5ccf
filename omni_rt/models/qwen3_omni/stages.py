"""The stages that need more than one component, as users call them one by one: from a prompt, not from tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from omni_rt.models.qwen3_omni.inputs import encode_prompt, layout_of
from omni_rt.models.qwen3_omni.positions import prompt_positions
from omni_rt.models.qwen3_omni.processor import Processor
from omni_rt.models.qwen3_omni.speech import SpeechStage
from omni_rt.prompt import Prompt
from omni_rt.results import CodecTokens, ThinkerOutput
from omni_rt.sampling import Sampling

if TYPE_CHECKING:
    from omni_rt.models.qwen3_omni.components import Components


class ThinkerStage:
    """The Thinker with the encoders before it."""

    def __init__(self, components: Components, processor: Processor) -> None:
        self._components = components
        self._processor = processor

    def positions(self, prompt: Prompt) -> tuple[np.ndarray, float]:
        """Return the positions [3, T] of a prompt and the delta of what follows: token n lies at T + n + delta."""
        return prompt_positions(prompt.token_ids, self._components.config.tokens, layout_of(prompt, self._processor))

    def forward(self, prompt: Prompt) -> ThinkerOutput:
        """Run one pass over a prompt; return logits, input embeddings and the Talker's hidden states of every row."""
        inputs = encode_prompt(prompt, self._components.encoders(self._processor))
        return self._components.thinker.forward(inputs)

    def generate(
        self, prompt: Prompt, max_new_tokens: int = 1024, sampling: Sampling | None = None, *, seed: int = 0
    ) -> list[int]:
        """Return the ids of the reply, with the stop token where it came within the limit."""
        thinker = self._components.thinker
        inputs = encode_prompt(prompt, self._components.encoders(self._processor))
        prefill = thinker.prefill(inputs)
        picks = sampling or self._components.config.generation.thinker
        return list(thinker.generate(inputs, prefill, max_new_tokens=max_new_tokens, sampling=picks, seed=seed))


class TalkerStage:
    """The Talker with the Thinker's states before it."""

    def __init__(self, components: Components, processor: Processor) -> None:
        self._components = components
        self._processor = processor

    def prefill(
        self, prompt: Prompt, reply_ids: Sequence[int], voice: str | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what the Talker reads for a reply: inputs [T, D], one row per later frame [S, D], the pad row [D]."""
        speech = self._begin(prompt, voice, None, 0)
        return speech.layout(reply_ids)

    def generate(
        self,
        prompt: Prompt,
        reply_ids: Sequence[int],
        voice: str | None = None,
        max_frames: int | None = None,
        sampling: Sampling | None = None,
        *,
        seed: int = 0,
    ) -> CodecTokens:
        """Return the codes [K, T] of a reply's speech, at most `max_frames`; the stop token makes no frame."""
        speech = self._begin(prompt, voice, sampling, seed, max_frames)
        return CodecTokens(speech.speak(reply_ids))

    def _begin(
        self, prompt: Prompt, voice: str | None, sampling: Sampling | None, seed: int, max_frames: int | None = None
    ) -> SpeechStage:
        inputs = encode_prompt(prompt, self._components.encoders(self._processor))
        states = self._components.thinker.prefill(inputs, states=True)
        speech = SpeechStage(
            self._components,
            self._processor,
            voice=voice,
            sampling=sampling,
            seed=seed,
            max_frames=max_frames,
            own_penalty=True,
        )
        speech.start(prompt, states.embeddings, states.hidden)
        return speech
