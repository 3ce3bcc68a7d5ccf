"""`omni-rt say`: a text read aloud."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from omni_rt.command.files import check_output, read_text
from omni_rt.command.options import (
    ModelChoice,
    current_state,
    model_options,
    report_options,
    seed_option,
    temperature_option,
)
from omni_rt.command.report import Report, timings_as_json
from omni_rt.errors import InputError, UnsupportedError
from omni_rt.models.qwen3_tts.session import TextToSpeech
from omni_rt.results import AudioChunk, Done, Speech
from omni_rt.sampling import Sampling
from omni_rt.voice import Voice

CUT = {
    "length": "the speech was cut at its longest length: raise --max-frames, or --context when that is full",
    "runaway": "the speech did not end by itself and was cut; another --seed may help",
}


@click.command(
    epilog="""\b
Examples:
  omni-rt say "turn on the kitchen light"
  omni-rt say "Good morning." --voice vivian --model DIRECTORY -o morning.wav
  omni-rt say -i chapter.txt --instruct "a calm old man" --model DIRECTORY -o chapter.flac
  omni-rt say "It is me." --ref-audio me.wav --ref-text "What I said there." --model DIRECTORY
  echo "Read me." | omni-rt say -i - -o - --model DIRECTORY | aplay -f S16_LE -r 24000 -c 1
"""
)
@click.argument("text", required=False)
@click.option("-i", "--input", "source", metavar="FILE", help="Read the text from a file; - is stdin.")
@click.option(
    "-o",
    "--output",
    default="speech.wav",
    show_default=True,
    metavar="FILE",
    help=".wav, .flac, .ogg or .mp3; - writes raw 16-bit samples to stdout as they come.",
)
@click.option("--voice", metavar="NAME", help="A speaker of the model, or a .safetensors voice that was saved.")
@click.option("--language", default="auto", show_default=True, metavar="NAME", help="The language of the text.")
@click.option("--instruct", metavar="TEXT", help="How to speak; describes the voice where the model designs voices.")
@click.option("--ref-audio", metavar="FILE", help="Clone the voice of a recording of 1 to 60 seconds.")
@click.option("--ref-text", metavar="TEXT", help="What is said in the recording: clones more closely.")
@click.option("--save-voice", metavar="FILE", help="Keep the cloned voice as .safetensors, for --voice.")
@click.option(
    "--max-frames",
    type=click.IntRange(1, 100000),
    default=2048,
    show_default=True,
    help="Frames of codes at most for each piece of a long text; most models make 12.5 a second.",
)
@seed_option
@temperature_option
@model_options
@report_options
def say(
    text: str | None,
    source: str | None,
    output: str,
    voice: str | None,
    language: str,
    instruct: str | None,
    ref_audio: str | None,
    ref_text: str | None,
    save_voice: str | None,
    max_frames: int,
    seed: int | None,
    temperature: float | None,
    model: ModelChoice,
    report: Report,
) -> None:
    """Read TEXT aloud, with a model of Qwen3-TTS or in the own voice of one that converses."""
    if (text is None) == (source is None):
        raise click.UsageError("give the text as an argument, or a file of it with --input")
    if ref_audio is None and (ref_text is not None or save_voice is not None):
        raise click.UsageError("--ref-text and --save-voice belong to --ref-audio")
    if ref_audio is not None and voice is not None:
        raise click.UsageError("--voice and --ref-audio both name a voice: give one of them")
    raw = output == "-"
    if raw and report.as_json:
        raise click.UsageError("-o - and --json both write to stdout: give -o a file")
    check_output(output)
    check_output(save_voice, "a voice", (".safetensors",))
    words = read_text(str(source)) if text is None else text
    if not words.strip():
        raise InputError("there is nothing to say: the text is empty")
    with model.load(report) as speaker:
        options: dict[str, Any] = {"max_frames": max_frames, "sampling": None, "seed": seed}
        if temperature is not None:
            own = speaker.sampling if isinstance(speaker, TextToSpeech) else Sampling()
            options["sampling"] = replace(own, temperature=temperature)
        if isinstance(speaker, TextToSpeech):
            options |= {
                "voice": _voice(speaker, voice, ref_audio, ref_text, save_voice, report), "language": language,
                "instruct": instruct,
            }  # fmt: skip
            events = (speaker.stream if raw else speaker.readings)(words, **options)
        else:
            asked = {"--ref-audio": ref_audio, "--instruct": instruct, "--language": language.replace("auto", "")}
            if given := [option for option, value in asked.items() if value]:
                raise UnsupportedError(
                    f"{model.ref}: this model converses and speaks in its own voices only: leave out "
                    f"{', '.join(given)}, or give a Qwen3-TTS checkpoint with --model"
                )
            events = speaker.read(words, voice=voice, **options)
        speech = _followed(events, report, raw=raw)
        if not raw:
            with current_state().interrupts.writing(Path(output)):
                speech.save(output)
            report.note(f"speech in {output}")
    report.timings(speech.timings)
    if speech.finish_reason != "stop":
        report.note(CUT[speech.finish_reason])
    if report.as_json:
        report.result(
            {
                "output": output, "seconds": len(speech.audio) / speech.sample_rate, "frames": speech.codes.shape[1],
                "finish_reason": speech.finish_reason, "seed": speech.seed, "timings": timings_as_json(speech.timings),
            }
        )  # fmt: skip


def _voice(
    tts: TextToSpeech,
    voice: str | None,
    ref_audio: str | None,
    ref_text: str | None,
    save_voice: str | None,
    report: Report,
) -> str | Voice | None:
    """Return the speaker's name, the saved voice, or the voice cloned of a recording."""
    if ref_audio is not None:
        cloned = tts.voice(ref_audio, ref_text)
        for advice in cloned.advice:
            report.note(advice)
        if save_voice is not None:
            cloned.save(save_voice)
            report.note(f"voice in {save_voice}")
        return cloned
    if voice is not None and voice.endswith(".safetensors"):
        return Voice.load(voice)
    return voice


def _followed(stream: Iterator[AudioChunk | Done], report: Report, *, raw: bool) -> Speech:
    """Return the last speech of a stream behind a progress bar; `raw` writes 16-bit samples to stdout as they come."""
    speech: Speech | None = None
    with closing(stream) as events, report.progress(None, "s", "speech") as bar:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Done):
                assert isinstance(event.reply, Speech)
                speech = event.reply
                continue
            bar.update(round(len(event.samples) / event.sample_rate, 2))
            if raw:
                pcm = np.round(np.clip(event.samples, -1, 1) * 32767).astype("<i2")
                sys.stdout.buffer.write(pcm.tobytes())
                sys.stdout.buffer.flush()
    assert speech is not None, "a stream ends with Done"
    return speech
