"""Qwen3-Omni as a whole: loads the components, orders the stages, and moves what passes between them.

    messages -> processor -> prompt -> encoders -> Thinker -> text
                                                     |-> Talker (+ code predictor) -> codes -> Code2Wav -> speech

The Talker starts when the first token of the reply is known and goes on while the Thinker still writes.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omni_rt import arguments
from omni_rt.arguments import optional, whole
from omni_rt.clock import ReplyClock
from omni_rt.errors import UnsupportedError
from omni_rt.io.tokenizer import StreamDecoder
from omni_rt.models.code_stream import CodeStream
from omni_rt.models.long_text import cut
from omni_rt.models.qwen3_omni.code2wav import Code2Wav
from omni_rt.models.qwen3_omni.components import Components
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_omni.griffin_lim import GriffinLim, GriffinLimStream
from omni_rt.models.qwen3_omni.inputs import encode_prompt
from omni_rt.models.qwen3_omni.processor import Message, Processor
from omni_rt.models.qwen3_omni.speech import SpeechStage
from omni_rt.models.qwen3_omni.stages import TalkerStage, ThinkerStage
from omni_rt.models.qwen3_omni.thinker import MOST_TOGETHER
from omni_rt.prompt import Prompt
from omni_rt.results import AudioChunk, AudioOutput, Done, FinishReason, Reply, Speech, TextDelta
from omni_rt.sampling import Sampling
from omni_rt.turns import LoadedModel

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

Event = TextDelta | AudioChunk | Done

TRANSCRIBE = "Transcribe the audio into text."
"""What `transcribe` asks for; a language is named when it is given."""


class OmniOrchestrator(LoadedModel):
    """A loaded Qwen3-Omni model. Use it as a context manager, or call `close` to free the devices' memory.

    It makes one reply at a time: calls from several threads wait for each other, and a stream that is read on after
    another call raises InputError. The stages belong to one thread. Load a model twice to have two replies at once.

    `processor`, `audio_encoder`, `vision_encoder`, `thinker`, `talker` and `code2wav` are the stages, each usable
    alone; the last two are None in a model without speech output. `vocoder` is what speaks: `code2wav`, or Griffin-Lim.
    """

    stages = ("audio_encoder", "vision_encoder", "thinker", "talker", "code2wav", "vocoder", "_components")

    def __init__(
        self,
        directory: Path,
        config: Qwen3OmniConfig,
        components: Components,
        devices: Mapping[str, Device],
        *,
        vocoder: str = "code2wav",
    ) -> None:
        """Put the components together. Raises UnsupportedError when the model cannot speak through `vocoder`."""
        super().__init__(devices)
        self.directory = directory
        self.config = config
        self.processor = Processor(directory, config)
        self.audio_encoder = components.audio_encoder
        self.vision_encoder = components.vision_encoder
        self.thinker = ThinkerStage(components, self.processor)
        self.code2wav = components.code2wav
        self.talker = TalkerStage(components, self.processor) if components.talker is not None else None
        self.vocoder: Code2Wav | GriffinLim | None = self.code2wav
        if vocoder == "griffin-lim" and config.code2wav is not None:
            self.vocoder = GriffinLim(directory, config.code2wav)
        self._components = components

    # Conversation -----------------------------------------------------------------------------------------------

    def chat(
        self,
        messages: Sequence[Message],
        *,
        speech: bool = False,
        voice: str | None = None,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Reply:
        """Answer messages in the chat format, in text and with `speech` aloud in `voice`.

        `sampling` None means the checkpoint's own defaults; a `seed` repeats a reply. Raises InputError for input that
        cannot be used, UnsupportedError for speech from a model that has none.
        """
        return self.generate(
            self.prompt(messages),
            speech=speech,
            voice=voice,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
        )

    def stream(
        self,
        messages: Sequence[Message],
        *,
        speech: bool = False,
        voice: str | None = None,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Iterator[Event]:
        """Answer as `chat` does, piece by piece: TextDelta and AudioChunk as they come, then Done with the reply.

        Closing the iterator cancels the rest.
        """
        prompt = self.prompt(messages)
        return self._turns.follow(self._events(prompt, speech, voice, max_new_tokens, sampling, seed))

    def generate(
        self,
        prompt: Prompt,
        *,
        speech: bool = False,
        voice: str | None = None,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Reply:
        """Answer a prompt, as `chat` answers messages."""
        with self._turns.taken():
            *_, done = self._events(prompt, speech, voice, max_new_tokens, sampling, seed)
        assert isinstance(done, Done) and isinstance(done.reply, Reply)
        return done.reply

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Return the prompt that messages make: token ids with placeholders expanded, and the media."""
        with self._turns.taken():
            return self.processor.prompt(messages)

    # Short forms ------------------------------------------------------------------------------------------------

    def transcribe(
        self,
        audio: object,
        language: str | None = None,
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Reply:
        """Write down what is said in `audio`: a path, bytes, or (samples, rate)."""
        request = TRANSCRIBE if language is None else f"Transcribe the {language} audio into text."
        turn = _user_turn(audio, request)
        return self.chat([turn], max_new_tokens=max_new_tokens, sampling=sampling, seed=seed)

    def forward(self, audio: object, text_prompt: str | None = None) -> AudioOutput:
        """Answer a spoken question by speech."""
        reply = self.chat([_user_turn(audio, text_prompt)], speech=True)
        assert reply.audio is not None and reply.sample_rate is not None
        return AudioOutput(reply.audio, reply.sample_rate)

    def generate_text(self, audio: object, text_prompt: str | None = None, max_tokens: int = 256) -> Reply:
        """Answer a spoken question in text."""
        return self.chat([_user_turn(audio, text_prompt)], max_new_tokens=max_tokens)

    def text_to_speech(self, text: str, voice: str | None = None) -> AudioOutput:
        """Speak `text` as if it were the model's own reply."""
        with self._turns.taken():
            *_, done = self.read(text, voice=voice)
        assert isinstance(done, Done) and isinstance(done.reply, Speech)
        return AudioOutput(done.reply.audio, done.reply.sample_rate)

    def read(
        self,
        text: str,
        *,
        voice: str | None = None,
        max_frames: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Iterator[AudioChunk | Done]:
        """Speak `text` as if it were the model's own reply: AudioChunk as they come, then Done with the Speech.

        A long text is spoken piece by piece without a seam; `max_frames` bounds each piece. Raises InputError for an
        empty text, UnsupportedError for a model without speech.
        """
        pieces = cut(arguments.text("the text", text))
        return self._turns.follow(self._reading(pieces, voice, max_frames, sampling, seed))

    def _reading(
        self,
        pieces: Sequence[str],
        voice: str | None,
        max_frames: int | None,
        sampling: Sampling | None,
        seed: int | None,
    ) -> Generator[AudioChunk | Done, None, None]:
        clock = ReplyClock(self.load_seconds)
        seed = _seed(seed)
        chunks: list[np.ndarray] = []
        codes: list[np.ndarray] = []
        finish: FinishReason = "stop"
        stream = None
        for number, piece in enumerate(pieces, 1):
            speech = self._speech(voice, sampling, seed, max_frames, stream)
            speech.clock, stream = clock, speech.stream
            for samples in self._read_piece(piece, speech, more=number < len(pieces)):
                chunks.append(samples)
                clock.audio(len(samples), speech.sample_rate)
                yield AudioChunk(samples, speech.sample_rate)
            codes.append(speech.codes)
            if finish == "stop" or speech.finish_reason == "runaway":
                finish = speech.finish_reason
        timings = clock.timings(self.devices.values())
        whole = np.concatenate(codes, axis=1)
        yield Done(Speech(_join(chunks), speech.sample_rate, whole, finish, seed, timings))

    def _read_piece(self, text: str, speech: SpeechStage, *, more: bool) -> Iterator[np.ndarray]:
        """Return the samples of a text as they come; `more` says that another one follows."""
        prompt = self.processor.prompt([{"role": "user", "content": text}])
        inputs = encode_prompt(prompt, self._components.encoders(self.processor))
        prefill = self._components.thinker.prefill(inputs, states=True)
        speech.start(prompt, prefill.embeddings, prefill.hidden)
        ids = [*self.processor.tokenizer.encode(text), self.config.tokens.im_end]
        return chain(*map(speech.push, ids), speech.finish(more=more))

    def prepare(self, *, speech: bool = True) -> None:
        """Make all that the first reply would make: pipelines, recordings of steps, weights that memory must fetch.

        That is a reply to a text: the encoders of sound and pictures are left out. It takes about as long as
        that reply would take longer; call it while nobody waits.
        """
        greeting = [{"role": "user", "content": "Good morning."}]
        with self._turns.taken():
            speech = speech and self.talker is not None
            if speech and isinstance(self.vocoder, Code2Wav):
                self.vocoder.prepare()
            for event in self._events(self.prompt(greeting), speech, None, 8, None, 0, max_frames=2):
                if isinstance(event, AudioChunk):
                    break
            self.clear_kv_cache()

    def clear_kv_cache(self) -> None:
        """Forget what earlier calls left in the caches."""
        with self._turns.taken():
            self._components.thinker.clear()

    # The stages in order ----------------------------------------------------------------------------------------

    def _events(
        self,
        prompt: Prompt,
        speaking: bool,
        voice: str | None,
        max_new_tokens: int | None,
        sampling: Sampling | None,
        seed: int | None,
        *,
        max_frames: int | None = None,
    ) -> Generator[Event, None, None]:
        clock = ReplyClock(self.load_seconds)
        seed = _seed(seed)
        defaults = self.config.generation
        limit = defaults.max_new_tokens if max_new_tokens is None else whole("max_new_tokens", max_new_tokens, least=0)
        speech = self._speech(voice, sampling, seed, max_frames) if speaking else None
        thinker = self._components.thinker
        inputs = encode_prompt(prompt, self._components.encoders(self.processor))
        prefill = thinker.prefill(inputs, states=speech is not None)
        if speech is not None:
            speech.clock = clock
            speech.start(prompt, prefill.embeddings, prefill.hidden)
        picks = optional("sampling", sampling, Sampling) or defaults.thinker
        text = StreamDecoder(self.processor.tokenizer)
        ids: list[int] = []
        pieces: list[str] = []
        chunks: list[AudioChunk] = []

        def sound(samples: Iterable[np.ndarray], rate: int) -> Iterator[AudioChunk]:
            for piece in samples:
                chunks.append(AudioChunk(piece, rate))
                clock.audio(len(piece), rate)
                yield chunks[-1]

        finish: FinishReason = "length"
        together = MOST_TOGETHER if speech is None else 1  # frames of speech do not wait behind many steps
        for token in thinker.generate(
            inputs, prefill, max_new_tokens=limit, sampling=picks, seed=seed, together=together
        ):
            clock.token()
            if token == thinker.stop_id:
                finish = "stop"
            else:
                ids.append(token)
                pieces.append(text.push(token))
                yield TextDelta(pieces[-1], [token])
            if speech is not None:
                yield from sound(speech.push(token), speech.sample_rate)
        clock.text_done()
        pieces.append(text.finish())
        if pieces[-1]:
            yield TextDelta(pieces[-1], [])
        if speech is not None:
            yield from sound(speech.finish(), speech.sample_rate)
            finish = speech.finish_reason if finish == "stop" else finish
        yield Done(
            Reply(
                text="".join(pieces),
                token_ids=ids,
                audio=_join([chunk.samples for chunk in chunks]) if speech is not None else None,
                sample_rate=speech.sample_rate if speech is not None else None,
                codes=speech.codes if speech is not None else None,
                finish_reason=finish,
                seed=seed,
                timings=clock.timings(self.devices.values()),
            )
        )

    def _speech(
        self,
        voice: str | None,
        sampling: Sampling | None,
        seed: int,
        max_frames: int | None = None,
        stream: CodeStream | GriffinLimStream | None = None,
    ) -> SpeechStage:
        if self._components.talker is None or self.vocoder is None:
            raise UnsupportedError(
                f"{self.directory.name} has no talker (enable_audio_output is false): ask for text only"
            )
        return SpeechStage(
            self._components,
            self.processor,
            stream=stream or self.vocoder.stream(),
            voice=voice,
            sampling=optional("sampling", sampling, Sampling),
            seed=seed,
            max_frames=max_frames,
        )

    def voices(self) -> list[str]:
        """Return the names of the speakers, the default one first."""
        return [] if self._components.talker is None else self._components.voices()


def _user_turn(audio: object, text: str | None) -> Message:
    content: list[Message] = [{"type": "audio", "audio": audio}]
    if text:
        content.append({"type": "text", "text": text})
    return {"role": "user", "content": content}


def _seed(seed: int | None) -> int:
    return secrets.randbits(31) if seed is None else whole("the seed", seed)


def _join(chunks: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
