"""`omni-rt chat`: a question by voice or text, an answer in text and speech; without a question a conversation."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from omni_rt.command.files import check_output, look_at, part_of, readable
from omni_rt.command.options import (
    GenerationChoice,
    ModelChoice,
    current_state,
    generation_options,
    model_options,
    report_options,
)
from omni_rt.command.report import Report, printable, timings_as_json
from omni_rt.command.trace import traced

if TYPE_CHECKING:
    from omni_rt.command.group import State
    from omni_rt.results import Reply

HELP = """\
/audio FILE [QUESTION]   ask by voice, or about a recording
/image FILE [QUESTION]   ask about a picture
/video FILE [QUESTION]   ask about a video
/reset                   forget the conversation
/help                    this list
/exit                    leave (also Ctrl-D)
Anything else is said to the model. Ctrl-C stops a reply."""

FINISH = {
    "length": "the reply was cut at its longest length: raise --max-new-tokens, or --context when that is full",
    "cancelled": "the reply was stopped",
    "runaway": "the speech did not end by itself and was cut: try another --seed",
}


@dataclass(frozen=True)
class Answering:
    """How a question is answered: what the command line asked for."""

    generation: GenerationChoice
    report: Report
    speech: bool
    voice: str | None
    output: str | None
    trace: bool


@click.command(
    epilog="""\b
Examples:
  omni-rt chat question.wav --speech -o answer.wav
  omni-rt chat "What is three plus four?" --temperature 0
  omni-rt chat "What is said here?" --audio interview.mp3
  omni-rt chat "What is in the picture?" --image photo.jpg
  omni-rt chat "What happens?" --video clip.mp4 --no-video-audio
  omni-rt chat question.wav -o - -q | aplay
  omni-rt chat question.wav --speech --device wgpu --place code2wav=cpu
  omni-rt chat                          (a conversation; /help, /exit)
"""
)
@click.argument("question", required=False, metavar="[AUDIO_OR_TEXT]")
@click.option("--audio", multiple=True, metavar="FILE", help="An audio file that the question is about.")
@click.option("--image", multiple=True, metavar="FILE", help="A picture that the question is about.")
@click.option("--video", multiple=True, metavar="FILE", help="A video that the question is about.")
@click.option(
    "--video-audio/--no-video-audio",
    default=None,
    help="Hear the sound of a video, or only look at it; left out, it is heard where the file has one.",
)
@click.option("--speech/--no-speech", default=None, help="Answer in speech too; implied by -o.")
@click.option("-o", "--output", metavar="FILE", help="Where speech goes: .wav, .flac, .ogg, .mp3; - is stdout.")
@click.option("--voice", metavar="NAME", help="The voice that speaks; the checkpoint's first choice when left out.")
@click.option("--trace", is_flag=True, help="Print one line per GPU dispatch on stderr, each timed by itself.")
@model_options
@generation_options
@report_options
def chat(
    question: str | None,
    audio: tuple[str, ...],
    image: tuple[str, ...],
    video: tuple[str, ...],
    video_audio: bool | None,
    speech: bool | None,
    output: str | None,
    voice: str | None,
    trace: bool,
    model: ModelChoice,
    generation: GenerationChoice,
    report: Report,
) -> None:
    """Ask by voice or text and get an answer in text, and in speech with --speech.

    The argument is an audio file, a picture, a video, a text file, or the text itself. Without an argument and without
    --audio, --image or --video a conversation starts.
    """
    if output is not None and speech is False:
        raise click.UsageError("-o says where speech goes, but --no-speech asks for none: leave one of them out")
    wants_speech = bool(speech) or output is not None
    if wants_speech and output is None:
        output = "answer.wav"
    if output == "-" and report.as_json:
        raise click.UsageError("--json and -o - both want stdout: give -o a file")
    check_output(output)
    parts: list[dict[str, Any]] = [{"type": "audio", "audio": readable(file)} for file in audio]
    parts += [{"type": "image", "image": readable(file)} for file in image]
    parts += [{"type": "video", "video": readable(file)} for file in video]
    if question is not None:
        parts.append(part_of(question))
    if video_audio is not None:
        films = [part for part in parts if part["type"] == "video"]
        if not films:
            raise click.UsageError("--video-audio is about the sound of a video: give one with --video")
        for part in films:
            part["use_audio_in_video"] = video_audio
    state = current_state()
    answering = Answering(generation, report, wants_speech, voice, output, trace)
    if parts:
        look_at(parts)
        with model.load_omni(report) as omni:
            answer(omni, state, [{"role": "user", "content": parts}], answering)
        return
    from omni_rt.command.conversation import converse

    if report.as_json or output == "-":
        raise click.UsageError("a conversation needs stdout for itself: give a question, or leave out --json and -o -")
    with model.load_omni(report) as omni:
        converse(omni, state, answering)


def answer(omni: Any, state: State, messages: list[dict[str, Any]], how: Answering) -> Reply:
    """Answer the last message: text on stdout as it comes, speech to the output, timings on stderr."""
    reply = stream(omni, state, messages, how)
    written: str | None = None
    if how.speech and reply.audio is not None and how.output is not None:
        written = write_speech(reply, how.output, state)
        if written is not None:
            assert reply.sample_rate is not None
            how.report.note(f"{written}: {len(reply.audio) / reply.sample_rate:.2f} s of speech")
    if reply.finish_reason != "stop":
        how.report.note(FINISH[reply.finish_reason])
    how.report.timings(reply.timings)
    if how.report.as_json:
        how.report.result(as_json(reply, written))
    return reply


def stream(omni: Any, state: State, messages: list[dict[str, Any]], how: Answering) -> Reply:
    """Run the model, print text as it comes, and return the whole reply."""
    from omni_rt.results import AudioChunk, Done, Reply, TextDelta

    generation = how.generation
    events = omni.stream(
        messages, speech=how.speech, voice=how.voice, max_new_tokens=generation.max_new_tokens,
        sampling=generation.sampling, seed=generation.seed,
    )  # fmt: skip
    to_stderr = how.output == "-"
    shown = not how.report.as_json and not (to_stderr and how.report.quiet)
    reply: Reply | None = None
    with closing(events), traced(omni, how.trace), how.report.progress(None, "s", "speech") as bar:
        for event in events:
            state.interrupts.check()
            if isinstance(event, TextDelta) and shown:
                click.echo(printable(event.text), nl=False, err=to_stderr)
                sys.stdout.flush()
            elif isinstance(event, AudioChunk):
                bar.update(round(len(event.samples) / event.sample_rate, 2))
            elif isinstance(event, Done):
                assert isinstance(event.reply, Reply)
                reply = event.reply
        if shown:
            click.echo(err=to_stderr)
    assert reply is not None, "a stream ends with Done"
    return reply


def write_speech(reply: Reply, output: str, state: State) -> str | None:
    """Write the speech of a reply; return the file's name, None for stdout."""
    assert reply.audio is not None and reply.sample_rate is not None
    if output == "-":
        from omni_rt.io.audio import wav_bytes

        sys.stdout.buffer.write(wav_bytes(reply.audio, reply.sample_rate))
        sys.stdout.buffer.flush()
        return None
    with state.interrupts.writing(Path(output)):
        reply.save(output)
    return output


def as_json(reply: Reply, written: str | None) -> dict[str, Any]:
    """Return a reply as plain data; its speech is the name of the file."""
    seconds = None if reply.audio is None or not reply.sample_rate else len(reply.audio) / reply.sample_rate
    return {
        "text": reply.text,
        "token_ids": [int(token) for token in reply.token_ids],
        "finish_reason": reply.finish_reason,
        "seed": reply.seed,
        "audio": written,
        "audio_seconds": None if seconds is None else round(seconds, 6),
        "sample_rate": reply.sample_rate,
        "frames": None if reply.codes is None else int(reply.codes.shape[1]),
        "timings": timings_as_json(reply.timings),
    }


def numbered(output: str, number: int) -> str:
    """Return the name for the reply `number` (from 1) of a conversation: answer.wav, answer-2.wav, ..."""
    path = Path(output)
    return output if number == 1 else str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def with_output(how: Answering, number: int) -> Answering:
    """Return `how` with the output of the reply `number`."""
    return how if how.output is None else replace(how, output=numbered(how.output, number))
