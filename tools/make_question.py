"""Makes the shipped spoken question, a 16 kHz mono PCM16 WAV, with the command espeak-ng.

    python tools/make_question.py --out examples/what-is-three-plus-four.wav

espeak-ng (GPL-3.0) is a tool for making the sound; nothing of it is shipped. It speaks at 22050 Hz, resampled here.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

QUESTION = "What is three plus four?"
SAMPLE_RATE = 16000
PEAK = 0.5
SILENCE_SECONDS = 0.15


def speak(text: str, voice: str, words_per_minute: int) -> tuple[np.ndarray, int]:
    """Let espeak-ng say `text`; return the samples [S] f32 and their rate in hertz."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SystemExit("espeak-ng is not installed; on Debian and Ubuntu: apt-get install espeak-ng")
    with tempfile.TemporaryDirectory() as directory:
        wave = Path(directory) / "speech.wav"
        arguments = [program, "-v", voice, "-s", str(words_per_minute), "-w", str(wave), text]
        subprocess.run(arguments, check=True)
        samples, rate = soundfile.read(wave, dtype="float32")
    return samples, rate


def main() -> None:
    """Write the question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", default=QUESTION)
    parser.add_argument("--voice", default="en-us")
    parser.add_argument("--words-per-minute", type=int, default=150)
    arguments = parser.parse_args()
    samples, rate = speak(arguments.text, arguments.voice, arguments.words_per_minute)
    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    samples = soxr.resample(samples[loud[0] : loud[-1] + 1], rate, SAMPLE_RATE, quality="VHQ")
    silence = np.zeros(int(SILENCE_SECONDS * SAMPLE_RATE), np.float32)
    samples = np.concatenate([silence, samples * (PEAK / np.abs(samples).max()), silence])
    soundfile.write(arguments.out, samples, SAMPLE_RATE, subtype="PCM_16")
    print(f"{arguments.out}: {len(samples) / SAMPLE_RATE:.2f} s, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
