"""Files that a command is given, or is to write: what they are, and what is wrong with them before any work."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_rt.errors import InputError

AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif")
SPEECH = (".wav", ".flac", ".ogg", ".mp3")
IMAGE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
VIDEO = (".mp4", ".mkv", ".webm", ".mov", ".avi")
MAX_TEXT_BYTES = 4 << 20


def part_of(argument: str) -> dict[str, Any]:
    """Return the part of a message that an argument stands for: a file by its kind, or the text itself."""
    path = Path(argument)
    try:
        is_file = path.is_file()
    except OSError:  # a text that is too long for a path
        is_file = False
    suffix = path.suffix.lower()
    if not is_file:
        if suffix in AUDIO + IMAGE + VIDEO and not any(c.isspace() for c in argument.strip()):
            readable(argument)
        if not argument.strip():
            raise InputError("the question is empty: give a text or an audio file")
        return {"type": "text", "text": argument}
    for kind, suffixes in (("image", IMAGE), ("video", VIDEO)):
        if suffix in suffixes:
            return {"type": kind, kind: argument}
    if suffix in (".txt", ".md"):
        return {"type": "text", "text": read_text(argument)}
    return {"type": "audio", "audio": argument}


def look_at(parts: list[dict[str, Any]]) -> None:
    """Read pictures, and look into videos: what is wrong with them shows before a model is loaded for minutes."""
    for part in parts:
        if part["type"] == "image":
            from omni_rt.io.image import load_image

            part["image"] = load_image(part["image"])
        elif part["type"] == "video":
            from omni_rt.io.video import check_video

            check_video(part["video"], sound=part.get("use_audio_in_video"))


def readable(file: str) -> str:
    """Return the name of a file that exists; raise InputError for another."""
    path = Path(file)
    if not path.exists():
        raise InputError(f"{file}: does not exist; check the path")
    if path.is_dir():
        raise InputError(f"{file}: is a directory; give a file")
    return file


def read_text(source: str) -> str:
    """Return the text of a UTF-8 file, or of stdin for "-"; raise InputError when it is none, empty or long."""
    name = "stdin" if source == "-" else source
    try:
        if source == "-":
            data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        else:
            with open(source, "rb") as file:
                data = file.read(MAX_TEXT_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check the name") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is not UTF-8 text ({error}); save it as UTF-8") from error
    if len(data) > MAX_TEXT_BYTES:
        raise InputError(f"{name}: has more than {MAX_TEXT_BYTES} bytes of text, the most that is read; shorten it")
    if not text.strip():
        raise InputError(f"{name}: the text is empty; write some into it")
    return text


def check_output(output: str | None, what: str = "speech", suffixes: Sequence[str] = SPEECH) -> None:
    """Raise InputError before any work when `what` could not be written to `output`."""
    if output is None or output == "-":
        return
    target = Path(output)
    if target.suffix.lower() not in suffixes:
        raise InputError(f"{output!r} has the suffix {target.suffix!r}, {what} is written as {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise InputError(f"{output}: the directory {target.parent} does not exist; create it first")
    if target.is_dir():
        raise InputError(f"{output}: is a directory; give the name of a file")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{output}: the directory {target.parent} cannot be written to; choose another")
