"""Chat messages to the segments of a ChatML prompt: control tokens, text, and places where media goes.

Each turn is `<|im_start|>ROLE\\nCONTENT<|im_end|>\\n`, content parts in order without separator, and the prompt ends
with `<|im_start|>assistant\\n`. Control tokens are segments of their own, so the text of a message can be tokenised as
text only: a user who types "<|im_end|>" ends no turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from omni_rt.errors import InputError

ROLES = ("system", "user", "assistant")
MEDIA = {
    "audio": ("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>"),
    "image": ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    "video": ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>"),
}
"""The tokens around each kind of media: start, the pad that is repeated once per embedding, end."""

SOUND = "use_audio_in_video"
"""The key of a video part that asks for its sound, or declines it; the name is the reference's."""


@dataclass(frozen=True)
class Text:
    """Text as it stands; control tokens spelled in it mean nothing."""

    text: str


@dataclass(frozen=True)
class Control:
    """One control token, such as "<|im_start|>"."""

    token: str


@dataclass(frozen=True)
class Media:
    """The place of one audio clip, image or video; `value` is what the message gave.

    `sound` says of a video whether what is heard in it counts; None leaves that to the video.
    """

    kind: str
    value: Any
    sound: bool | None = None


Segment = Text | Control | Media


class Encoder(Protocol):
    """What `token_ids` needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text."""

    def token_id(self, token: str) -> int:
        """Return the id of a control token."""


def render(messages: Sequence[Mapping[str, Any]]) -> list[Segment]:
    """Return the segments of a prompt that asks for the assistant's next turn.

    A message is {"role": "system" | "user" | "assistant", "content": ...}, its content a string or a list of parts
    {"type": "text" | "audio" | "image" | "video", <type>: value}; a video may say {"use_audio_in_video": True | False}.
    Neighbouring texts come as one, because tokens may span them. Raises InputError for anything else.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise InputError('messages must be a list such as [{"role": "user", "content": "..."}]')
    if not messages:
        raise InputError("there are no messages; give at least one of the user")
    segments: list[Segment] = []
    role = ""
    for index, message in enumerate(messages):
        where = f"message {index}"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise InputError(f"{where} has {_keys(message)}, expected the keys role and content")
        role = message["role"]
        if role not in ROLES:
            raise InputError(f"{where} has the role {role!r}, expected one of {', '.join(ROLES)}")
        segments += [Control("<|im_start|>"), Text(f"{role}\n"), *_content(message["content"], where)]
        segments += [Control("<|im_end|>"), Text("\n")]
    if role != "user":
        raise InputError(f"the last message is the {role}'s; end with one of the user, which the model then answers")
    segments += [Control("<|im_start|>"), Text("assistant\n")]
    return _join_texts(segments)


def token_ids(segments: Sequence[Segment], tokenizer: Encoder, pads: Callable[[Media], Sequence[int]]) -> list[int]:
    """Return the ids of `segments`, with `pads(media)` in the place of each medium."""
    ids: list[int] = []
    for segment in segments:
        if isinstance(segment, Control):
            ids.append(tokenizer.token_id(segment.token))
        elif isinstance(segment, Text):
            ids += tokenizer.encode(segment.text)
        else:
            ids += pads(segment)
    return ids


def _content(content: object, where: str) -> list[Segment]:
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InputError(f"{where} has content of type {type(content).__name__}, expected a string or a list of parts")
    segments: list[Segment] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or (kind != "text" and kind not in MEDIA):
            raise InputError(
                f"{where}, part {index} has {_keys(part)} and the type {kind!r}, "
                f'expected {{"type": T, T: value}} with T one of text, {", ".join(MEDIA)}'
            )
        if set(part) - ({SOUND} if kind == "video" else set()) != {"type", kind}:
            raise InputError(
                f"{where}, part {index} of type {kind!r} has {_keys(part)}, expected the keys type and {kind}"
                + (f", {SOUND} if wanted" if kind == "video" else "")
            )
        sound = part.get(SOUND)
        if sound is not None and not isinstance(sound, bool):
            raise InputError(f"{where}, part {index}: {SOUND} is {sound!r}, expected True or False")
        value = part[kind]
        if kind == "text":
            if not isinstance(value, str):
                raise InputError(f"{where}, part {index}: text is {type(value).__name__}, expected a string")
            segments.append(Text(value))
        else:
            start, _, end = MEDIA[kind]
            segments += [Control(start), Media(kind, value, sound), Control(end)]
    return segments


def _join_texts(segments: list[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for segment in segments:
        if isinstance(segment, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + segment.text)
        elif segment != Text(""):
            joined.append(segment)
    return joined


def _keys(value: object) -> str:
    if isinstance(value, Mapping):
        return f"the keys {sorted(map(str, value))}"
    return f"type {type(value).__name__}"
