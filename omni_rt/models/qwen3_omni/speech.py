"""A spoken reply while it is written: tokens go in one by one, samples come out as soon as they are known.

    token -> embedding -> text projection -> TalkerSession -> frames -> stream of a vocoder -> samples

A token is spoken when the one after it is known: the last token of a reply, normally the stop token, is silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from omni_rt.models.code_stream import PIECES, CodeStream
from omni_rt.models.guard import Guard
from omni_rt.models.qwen3_omni.griffin_lim import GriffinLimStream
from omni_rt.models.qwen3_omni.inputs import layout_of
from omni_rt.models.qwen3_omni.positions import MediaLayout, prompt_positions, sound_in_video_as_text
from omni_rt.models.qwen3_omni.processor import Processor
from omni_rt.models.qwen3_omni.talker import ThinkerStates
from omni_rt.models.talker import TalkerSession
from omni_rt.prompt import Prompt
from omni_rt.results import FinishReason
from omni_rt.sampling import Sampling

if TYPE_CHECKING:
    from omni_rt.clock import ReplyClock
    from omni_rt.models.qwen3_omni.components import Components


class SpeechStage:
    """The speech of one reply: `start` with the prompt, `push` every token, `finish`; `codes` and samples come out.

    `sampling` None means the checkpoint's defaults; otherwise it holds for the Talker and the code predictor, but for
    the repetition penalty, which is the Talker's only when `own_penalty` says so. Codes go to `stream`; None opens one
    of Code2Wav. `clock`, where it is set, notes what the first sound is made of.
    """

    def __init__(
        self,
        components: Components,
        processor: Processor,
        *,
        stream: CodeStream | GriffinLimStream | None = None,
        voice: str | None,
        sampling: Sampling | None,
        seed: int,
        max_frames: int | None = None,
        own_penalty: bool = False,
    ) -> None:
        assert components.talker is not None and components.code2wav is not None
        self._talker = components.talker
        self._thinker = components.thinker
        self._processor = processor
        self._tokens = components.config.tokens
        self._voice = voice
        self._talker.speaker(voice)  # an unknown voice is an error before any work is done
        defaults = components.config.generation
        self._max_frames = defaults.max_frames if max_frames is None else max_frames
        self._samplings = _samplings(sampling, defaults.talker, own_penalty)
        self._predictor = replace(sampling, repetition_penalty=1.0) if sampling else defaults.code_predictor
        self._seed = seed
        self.stream = stream or components.code2wav.stream()
        self.sample_rate: int = components.code2wav.config.sample_rate
        self._frame_rate = components.code2wav.config.frame_rate
        self._codebooks: int = components.config.talker.codebooks if components.config.talker else 0
        self._session: TalkerSession | None = None
        self._held: int | None = None
        self._frames: list[np.ndarray] = []
        self._decoded = 0
        self._spoken = 0
        self._heard = np.zeros(0, np.float32)
        self._guard: Guard | None = None
        self._ran_away = False
        self._chunks = 0
        self.clock: ReplyClock | None = None

    def start(self, prompt: Prompt, embeddings: np.ndarray, hidden: np.ndarray) -> None:
        """Take the prompt and the Thinker's states of all its rows [P, M]."""
        self._layout = self._talker.layout(prompt.token_ids)
        media = layout_of(prompt, self._processor)
        self._positions = _talker_positions(self._layout.ids, media, self._processor)
        tokens = self._tokens
        specials = self._thinker.embed_ids([tokens.tts_pad, tokens.tts_bos, tokens.tts_eos])
        self._states = ThinkerStates(embeddings, hidden, specials)

    def push(self, token: int) -> Iterator[np.ndarray]:
        """Take the next token of the reply and yield the samples that can be made by now."""
        spoken, self._held = self._held, token
        if spoken is not None:
            self._speak(spoken)
            yield from self._drain()

    def finish(self, *, more: bool = False) -> Iterator[np.ndarray]:
        """Take the end of the reply and yield the rest of the samples; `more`: another one goes on with the stream."""
        if self._session is None and len(self._layout.spoken):
            self._open(np.zeros((0, self._states.embeddings.shape[1]), np.float32))
        if self._session is not None:
            self._session.push_text(self._end)
            self._session.finish_text()
            self._guard = Guard(self._spoken, self._frame_rate)
            yield from self._drain()
            if len(self._frames) > self._decoded and len(samples := self._decode()):
                yield samples
        if not more and len(rest := self.stream.finish()):
            yield rest

    def layout(self, reply_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (inputs [T, D], trailing [S, D], pad [D]) for a whole reply; its last token is silent."""
        spoken = self._thinker.embed_ids(reply_ids[:-1]) if len(reply_ids) > 1 else self._states.embeddings[:0]
        prompt = self._talker.prefill(self._layout, self._states, spoken, voice=self._voice)
        return prompt.inputs, prompt.trailing, prompt.pad

    def speak(self, reply_ids: Sequence[int]) -> np.ndarray:
        """Return the codes [K, T] of a whole reply without decoding them."""
        if len(reply_ids) < 2 and not len(self._layout.spoken):
            return self.codes
        for token in reply_ids[:-1]:
            self._speak(token)
        if self._session is None:
            self._open(np.zeros((0, self._states.embeddings.shape[1]), np.float32))
        assert self._session is not None
        self._session.push_text(self._end)
        self._session.finish_text()
        while (codes := self._session.step()) is not None:
            self._frames.append(codes)
        return self.codes

    @property
    def codes(self) -> np.ndarray:
        """The codes so far, int32 [K, T]."""
        return np.stack(self._frames, axis=1) if self._frames else np.zeros((self._codebooks, 0), np.int32)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the speech ended: by its own stop token, at the limit of frames, or cut because it never ended."""
        if self._ran_away:
            return "runaway"
        reason = self._session.finish_reason if self._session is not None else "stop"
        return reason or "cancelled"

    def _speak(self, token: int) -> None:
        self._spoken += 1
        row = self._thinker.embed_ids([token])
        if self._session is None:
            self._open(row)
        else:
            self._session.push_text(self._talker.text_projection(row))

    def _open(self, first: np.ndarray) -> None:
        prompt = self._talker.prefill(self._layout, self._states, first, voice=self._voice)
        self._end = prompt.trailing[-1:]
        self._session = TalkerSession(
            self._talker,
            prompt.inputs,
            self._positions,
            pad=prompt.pad,
            sampling=self._samplings,
            predictor_sampling=self._predictor,
            seed=self._seed,
            max_frames=self._max_frames,
        )
        if self.clock is not None:
            self.clock.prompt()
        self._session.push_text(prompt.trailing[:-1])

    def _drain(self) -> Iterator[np.ndarray]:
        """Make the frames whose text is there, and yield samples whenever a chunk of them is full."""
        assert self._session is not None
        while self._session.ready:
            codes = self._session.step()
            if codes is None:
                return
            self._frames.append(codes)
            if self.clock is not None:
                self.clock.frame()
            if self._guard is not None and self._guard.runs_away(self._frames, self._heard, self.sample_rate):
                self._ran_away = True
                del self._frames[max(self._decoded, self._guard.trimmed(len(self._frames))) :]
                return
            wanted = PIECES[min(self._chunks, len(PIECES) - 1)]
            if len(self._frames) - self._decoded >= wanted and len(samples := self._decode()):
                yield samples

    def _decode(self) -> np.ndarray:
        codes = np.stack(self._frames[self._decoded :], axis=1)
        self._decoded = len(self._frames)
        self._chunks += 1
        samples = self.stream.push(codes)
        self._heard = np.concatenate([self._heard, samples])[-2 * self.sample_rate :]
        return samples


def _samplings(sampling: Sampling | None, defaults: Sampling, own_penalty: bool) -> Sampling:
    if sampling is None:
        return defaults
    return sampling if own_penalty else replace(sampling, repetition_penalty=defaults.repetition_penalty)


def _talker_positions(ids: list[int], media: MediaLayout, processor: Processor) -> np.ndarray:
    """Return the positions [3, T] of the Talker's rows; sound inside a video counts there as text does."""
    tokens = processor.config.tokens
    return prompt_positions(*sound_in_video_as_text(ids, tokens, media))[0]
