"""Qwen3-TTS as a whole: text to speech in a named voice, a described one, or a cloned one.

    text -> pieces -> framed ids -> prompt -> talker and code predictor -> codes -> codec decoder -> samples
    reference -> speaker encoder -> embedding;   codec encoder -> codes          (a Voice)

Pieces of a long text follow each other through one decoder stream, so there is no seam to hear.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omni_rt import arguments
from omni_rt.arguments import optional, whole
from omni_rt.clock import ReplyClock
from omni_rt.errors import InputError, UnsupportedError
from omni_rt.io.audio import load_audio
from omni_rt.io.tokenizer import Tokenizer
from omni_rt.models.code_stream import PIECES
from omni_rt.models.guard import Guard
from omni_rt.models.long_text import cut
from omni_rt.models.qwen3_tts.components import Codec, TtsComponents
from omni_rt.models.qwen3_tts.config import Qwen3TtsConfig
from omni_rt.models.qwen3_tts.layout import ROLE, TARGET_TAIL, Request
from omni_rt.models.qwen3_tts.talker import MIN_FRAMES
from omni_rt.models.qwen3_tts.text import Framer
from omni_rt.models.talker import TalkerSession
from omni_rt.results import AudioChunk, Done, FinishReason, Speech
from omni_rt.sampling import Sampling
from omni_rt.turns import LoadedModel
from omni_rt.voice import Voice

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

PREPARING = "Good morning."
"""What is spoken to nobody before the first reply."""

SHORTEST_REFERENCE, LONGEST_REFERENCE = 1.0, 60.0
"""Seconds of a reference that are taken; 3 to 15 serve best."""

GOOD_REFERENCE = (3.0, 15.0)
SILENT = 1e-3


@dataclass(frozen=True)
class _Manner:
    """How the pieces of one call are spoken."""

    voice: str | Voice | None
    language: int | None
    instruct_ids: Sequence[int]
    streaming: bool


class TextToSpeech(LoadedModel):
    """A loaded Qwen3-TTS model. Use it as a context manager, or call `close` to free the devices' memory.

    It makes one speech at a time: calls from several threads wait for each other, and a stream that is read on after
    another call raises InputError. Load a model twice to have two speeches at once.

    `codec` encodes and decodes; `config.kind` says what the variant can do; `sampling` is the checkpoint's own.
    """

    stages = ("codec", "_components")

    def __init__(
        self,
        directory: Path,
        config: Qwen3TtsConfig,
        components: TtsComponents,
        devices: Mapping[str, Device],
        defaults: tuple[Sampling, Sampling],
    ) -> None:
        super().__init__(devices)
        self.directory = directory
        self.config = config
        self.codec: Codec = components.codec
        self.sampling = defaults[0]
        self._components = components
        self._defaults = defaults
        self._framer = Framer(Tokenizer.load(directory), config.tokens)

    def generate(
        self,
        text: str,
        *,
        voice: str | Voice | None = None,
        language: str = "auto",
        instruct: str | None = None,
        streaming_text: bool | None = None,
        max_frames: int = 2048,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Speech:
        """Speak a text and return it all.

        `voice` is a speaker's name, a Voice, or None; `instruct` says how to speak, or describes the voice where the
        variant designs voices. `max_frames` bounds each piece of a long text, 80 ms a frame. Speech that does not
        end is tried once more with the next seed; if that does not end either, its pieces that ran away are cut and the
        others stay whole. Raises InputError for what cannot be spoken and UnsupportedError for
        what this variant cannot do, both before any work.
        """
        options: dict[str, Any] = {
            "voice": voice,
            "language": language,
            "instruct": instruct,
            "streaming_text": streaming_text,
            "max_frames": max_frames,
            "sampling": sampling,
        }
        with self._turns.taken():
            *_, last = self.readings(text, seed=seed, **options)
        assert isinstance(last, Done) and isinstance(last.reply, Speech)
        return last.reply

    def readings(self, text: str, *, seed: int | None = None, **options: Any) -> Iterator[AudioChunk | Done]:
        """Speak a text as `generate` does, and let its progress be seen: the speech is that of the last Done.

        What comes before is the first reading, where that did not end.
        """
        seed = secrets.randbits(31) if seed is None else whole("the seed", seed)
        sampling: Sampling | None = optional("sampling", options.get("sampling"), Sampling)
        ways = 1 if sampling is not None and sampling.temperature == 0 else 2  # a greedy reading would be the same
        for attempt in range(ways):
            for event in self.stream(text, seed=seed + attempt, **options):
                if isinstance(event, Done) and isinstance(event.reply, Speech):
                    event = Done(self._without_tail(event.reply, cut(text)))
                yield event
            assert isinstance(event, Done)
            if event.reply.finish_reason != "runaway":
                return

    def _without_tail(self, speech: Speech, pieces: Sequence[str]) -> Speech:
        """Cut a runaway of one piece where its text must have ended, as nobody has heard it yet."""
        if speech.finish_reason != "runaway" or len(pieces) > 1:
            return speech
        frames = self._guard(self._framer.target(pieces[0])).trimmed(speech.codes.shape[1])
        kept = speech.audio[: frames * self.codec.samples_per_frame]
        return replace(speech, codes=speech.codes[:, :frames], audio=kept)

    def _guard(self, target_ids: Sequence[int]) -> Guard:
        return Guard(len(target_ids) - ROLE - TARGET_TAIL)

    def stream(
        self,
        text: str,
        *,
        voice: str | Voice | None = None,
        language: str = "auto",
        instruct: str | None = None,
        streaming_text: bool | None = None,
        max_frames: int = 2048,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Iterator[AudioChunk | Done]:
        """Speak a text as `generate` does, piece by piece: AudioChunk from the first frames on, then Done.

        Closing the iterator cancels the rest. Nothing is tried again, as what was delivered cannot be taken back.
        """
        max_frames = whole("max_frames", max_frames, least=1)
        seed = secrets.randbits(31) if seed is None else whole("the seed", seed)
        pieces = cut(arguments.text("the text", text))
        with self._turns.taken():
            manner = self._manner(voice, language, instruct, streaming_text)
        return self._turns.follow(self._events(pieces, manner, max_frames, self._samplings(sampling), seed))

    def _events(
        self,
        pieces: Sequence[str],
        manner: _Manner,
        max_frames: int,
        samplings: tuple[Sampling, Sampling],
        seed: int,
    ) -> Generator[AudioChunk | Done, None, None]:
        clock = ReplyClock(self.load_seconds)
        rate = self.codec.sample_rate
        stream = self.codec.stream()
        context = manner.voice.codes if isinstance(manner.voice, Voice) else None
        if context is not None:
            stream.skip(context)
        frames: list[np.ndarray] = []
        chunks: list[np.ndarray] = []
        finish: FinishReason = "stop"
        sizes = list(PIECES)
        for piece in pieces:
            session, guard = self._begin(piece, manner, max_frames, samplings, seed)
            clock.prompt()
            spoken: list[np.ndarray] = []
            decoded = 0
            runaway = False
            while not runaway and (codes := session.step()) is not None:
                spoken.append(codes)
                clock.frame()
                if len(spoken) - decoded >= sizes[0]:
                    chunks.append(stream.push(np.stack(spoken[decoded:], axis=1)))
                    decoded = len(spoken)
                    sizes = sizes[1:] or sizes
                    clock.audio(len(chunks[-1]), rate)
                    yield AudioChunk(chunks[-1], rate)
                runaway = guard.runs_away(spoken, _tail(chunks, 2 * rate), rate)
            if runaway:
                spoken = spoken[: max(decoded, guard.trimmed(len(spoken)))]
            if len(spoken) > decoded:
                chunks.append(stream.push(np.stack(spoken[decoded:], axis=1)))
                clock.audio(len(chunks[-1]), rate)
                yield AudioChunk(chunks[-1], rate)
            frames += spoken
            if runaway:
                finish = "runaway"
            elif session.finish_reason == "length" and finish == "stop":
                finish = "length"
        stream.finish()
        empty = np.zeros((self.config.talker.codebooks, 0), np.int32)
        yield Done(
            Speech(
                audio=np.concatenate(chunks) if chunks else np.zeros(0, np.float32),
                sample_rate=rate,
                codes=np.stack(frames, axis=1) if frames else empty,
                finish_reason=finish,
                seed=seed,
                timings=clock.timings(self.devices.values()),
            )
        )

    def _begin(
        self, piece: str, manner: _Manner, max_frames: int, samplings: tuple[Sampling, Sampling], seed: int
    ) -> tuple[TalkerSession, Guard]:
        talker = self._components.talker
        voice = manner.voice
        request = Request(
            self._framer.target(piece),
            instruct_ids=manner.instruct_ids,
            language=manner.language,
            speaker=self.config.talker.speakers[voice] if isinstance(voice, str) else None,
            embedding=voice.embedding if isinstance(voice, Voice) else None,
            streaming=manner.streaming,
        )
        if isinstance(voice, Voice) and voice.codes is not None and voice.text is not None:
            reference = self._framer.reference(voice.text)
            request = replace(request, reference_ids=reference, reference_codes=voice.codes)
        prompt = talker.prompt(request)
        session = TalkerSession(
            talker,
            prompt.inputs,
            np.arange(len(prompt.inputs), dtype=np.float32)[None],
            pad=prompt.pad,
            sampling=samplings[0],
            predictor_sampling=samplings[1],
            seed=seed,
            min_frames=MIN_FRAMES,
            max_frames=max_frames,
        )
        session.push_text(prompt.trailing)
        session.finish_text()
        return session, self._guard(request.target_ids)

    def prepare(self) -> None:
        """Make all that the first reply would make: pipelines, recordings of steps, weights that memory must fetch.

        It takes about as long as that reply would take longer; call it while nobody waits.
        """
        base = self.config.kind == "base"
        voice = Voice(np.zeros(self.config.talker.width, np.float32)) if base else None
        with self._turns.taken():
            self.codec.decoder.prepare()
            for _ in self.stream(PREPARING, voice=voice, max_frames=2, seed=0):
                pass

    # What a variant can do --------------------------------------------------------------------------------------

    def _manner(
        self, voice: str | Voice | None, language: str, instruct: str | None, streaming: bool | None
    ) -> _Manner:
        config = self.config
        optional("the voice", voice, str, Voice)
        instruct = (optional("instruct", instruct, str) or "").strip()
        if instruct and (config.kind == "base" or (config.kind == "custom_voice" and config.size == "0b6")):
            raise UnsupportedError(
                f"the {config.size} {config.kind} variant takes no instruction: leave `instruct` out, or use a "
                "1.7B CustomVoice or VoiceDesign checkpoint"
            )
        if config.kind == "custom_voice":
            voice = self._speaker(voice)
        elif config.kind == "base":
            if not isinstance(voice, Voice):
                raise UnsupportedError(
                    "the base variant has no speakers of its own: clone one with voice(ref_audio), or --ref-audio FILE"
                )
            self._check_fit(voice)
        elif voice is not None:
            raise UnsupportedError("the voice_design variant has no named voices: describe one with `instruct`")
        name = self._language(language, voice)
        ids = self._framer.instruction(instruct) if instruct else []
        return _Manner(voice, name, ids, config.kind == "base" if streaming is None else streaming)

    def _speaker(self, voice: str | Voice | None) -> str:
        known = self.config.talker.speakers
        if isinstance(voice, Voice):
            raise UnsupportedError("the custom_voice variant cannot clone: use a Base checkpoint, or a speaker's name")
        name = next(iter(known)) if voice is None else voice.lower()
        if name not in known:
            raise InputError(f"there is no voice {voice!r}; this model has {', '.join(sorted(known))}")
        return name

    def _check_fit(self, voice: Voice) -> None:
        width = self.config.talker.width
        if voice.embedding.shape != (width,):
            raise InputError(
                f"the voice has an embedding of {len(voice.embedding)} values, this model takes {width}: a voice "
                "belongs to the size of model that made it"
            )
        if not np.isfinite(voice.embedding).all():
            raise InputError("the voice has an embedding with values that are NaN or infinite: clone it again")

    def _language(self, language: str, voice: str | Voice | None) -> int | None:
        talker = self.config.talker
        name = (optional("the language", language, str) or "auto").lower()
        if name not in ("auto", *self.languages()):
            raise InputError(f"there is no language {language!r}; this model has auto, {', '.join(self.languages())}")
        if isinstance(voice, str) and name in ("auto", "chinese") and voice in talker.dialects:
            name = talker.dialects[voice]
        return None if name == "auto" else talker.languages[name]

    def _samplings(self, sampling: Sampling | None) -> tuple[Sampling, Sampling]:
        if sampling is None:
            return self._defaults
        optional("sampling", sampling, Sampling)
        return sampling, replace(sampling, repetition_penalty=1.0)

    def voices(self) -> list[str]:
        """Return the names of the speakers; none in the Base and VoiceDesign variants."""
        return list(self.config.talker.speakers)

    def languages(self) -> list[str]:
        """Return the languages that can be asked for; dialects come with their speakers."""
        return [name for name in self.config.talker.languages if "dialect" not in name]

    # Cloning ----------------------------------------------------------------------------------------------------

    def voice(self, ref_audio: object, ref_text: str | None = None) -> Voice:
        """Clone the voice of a reference: a path, bytes or (samples, rate), 1 to 60 seconds of speech.

        With the text that is said in it the talker also hears the reference itself (in context), which follows its
        manner more closely. Raises UnsupportedError outside the Base variant, InputError for a reference that is too
        short, too long, silent or not finite.
        """
        if self._components.speaker_encoder is None:
            can = f"speaks as {', '.join(self.voices())}" if self.voices() else "takes a description in `instruct`"
            raise UnsupportedError(
                f"the {self.config.kind} variant cannot clone: use a Base checkpoint; this one {can}"
            )
        if ref_text is not None and not ref_text.strip():
            raise InputError("ref_text is empty: give what is said in the reference, or leave it out")
        samples = load_audio(ref_audio, self.codec.sample_rate)  # type: ignore[arg-type]
        advice = self._check_reference(samples)
        with self._turns.taken():
            embedding = self.speaker_embedding(samples)
            if ref_text is None:
                return Voice(embedding, advice=advice)
            return Voice(embedding, self.codec.encode(samples), ref_text.strip(), advice)

    def _check_reference(self, samples: np.ndarray) -> tuple[str, ...]:
        seconds = len(samples) / self.codec.sample_rate
        if not SHORTEST_REFERENCE <= seconds <= LONGEST_REFERENCE:
            taken, best = (SHORTEST_REFERENCE, LONGEST_REFERENCE), GOOD_REFERENCE
            raise InputError(
                f"the reference lasts {seconds:.2f} s; {taken[0]:.0f} to {taken[1]:.0f} s are taken, "
                f"{best[0]:.0f} to {best[1]:.0f} s of clear speech serve best"
            )
        if float(np.abs(samples).max()) < SILENT:
            raise InputError("the reference is silent: record it again, or choose another clip")
        if seconds < GOOD_REFERENCE[0]:
            return (f"the reference lasts only {seconds:.1f} s: 3 s or more sound closer",)
        if seconds > GOOD_REFERENCE[1]:
            return (f"the reference lasts {seconds:.1f} s: 15 s or less start sooner and sound as close",)
        return ()

    def speaker_embedding(self, samples: np.ndarray) -> np.ndarray:
        """Return the embedding float32 [D] of 24 kHz mono samples; raise UnsupportedError outside the Base variant."""
        if self._components.speaker_encoder is None:
            raise UnsupportedError(f"the {self.config.kind} variant has no speaker encoder: use a Base checkpoint")
        return self._components.speaker_encoder(np.asarray(samples, np.float32))


def _tail(chunks: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return the last samples, at least `count` of them if there are as many."""
    taken: list[np.ndarray] = []
    for chunk in reversed(chunks):
        taken.append(chunk)
        if sum(map(len, taken)) >= count:
            break
    return np.concatenate(taken[::-1]) if taken else np.zeros(0, np.float32)
