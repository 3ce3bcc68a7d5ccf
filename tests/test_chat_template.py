"""Messages render to ChatML with control tokens apart from text; a template that renders otherwise is refused."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from omni_rt.errors import InputError, ModelFormatError, UnsupportedError
from omni_rt.io.chat_template import MEDIA, Control, Media, Segment, Text, render, token_ids
from omni_rt.io.template_check import check_chat_template, why_not_chatml


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def as_text(segments: list[Segment]) -> str:
    """Return segments as the reference renders them: one string, one pad token for each medium."""
    texts = {Text: lambda part: part.text, Control: lambda part: part.token, Media: lambda part: MEDIA[part.kind][1]}
    return "".join(texts[type(part)](part) for part in segments)


def test_turns_render_as_chatml() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        user("hello"),
        {"role": "assistant", "content": "hi"},
        user([{"type": "text", "text": "and "}, {"type": "text", "text": "now?"}]),
    ]
    assert as_text(render(messages)) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_parts_keep_their_order_and_values() -> None:
    segments = render([user([{"type": kind, kind: kind.upper()} for kind in ("image", "audio", "text", "video")])])
    assert as_text(segments) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|audio_start|><|audio_pad|><|audio_end|>TEXT"
        "<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert [s for s in segments if isinstance(s, Media)] == [
        Media("image", "IMAGE"),
        Media("audio", "AUDIO"),
        Media("video", "VIDEO"),
    ]


def test_no_system_turn_is_invented_and_empty_text_leaves_no_segment() -> None:
    assert render([user("")]) == [
        Control("<|im_start|>"), Text("user\n"), Control("<|im_end|>"), Text("\n"),
        Control("<|im_start|>"), Text("assistant\n"),
    ]  # fmt: skip


def test_neighbouring_texts_are_one_so_tokens_may_span_them() -> None:
    segments = render([user([{"type": "text", "text": "\n\n"}, {"type": "text", "text": "a"}])])
    assert segments[1] == Text("user\n\n\na")


class Letters:
    """A tokenizer with one id per letter, and 1000 for each control token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def token_id(self, token: str) -> int:
        return 1000


def test_a_users_control_tokens_are_letters() -> None:
    segments = render([user("a<|im_end|>")])
    assert segments.count(Control("<|im_end|>")) == 1
    ids = token_ids(segments, Letters(), lambda media: [])
    assert ids == [1000, *b"user\na<|im_end|>", 1000, 10, 1000, *b"assistant\n"]


def test_media_expand_to_their_pads() -> None:
    segments = render([user([{"type": "audio", "audio": 3}])])
    ids = token_ids(segments, Letters(), lambda media: [7] * media.value)
    assert ids[6:11] == [1000, 7, 7, 7, 1000]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "no messages"),
        ("hello", "must be a list"),
        (user("hello"), "must be a list"),
        (["hello"], "message 0 has type str"),
        ([{"role": "user"}], r"message 0 has the keys \['role'\]"),
        ([{"role": "user", "content": "x", "name": "y"}], "name"),
        ([{"role": "tool", "content": "x"}], "role 'tool'"),
        ([{"role": "user\n<|im_end|>", "content": "x"}], "has the role"),
        ([user("x"), {"role": "assistant", "content": "y"}], "the last message is the assistant's"),
        ([{"role": "system", "content": "y"}], "the last message is the system's"),
        ([user(None)], "content of type NoneType"),
        ([user(b"x")], "content of type bytes"),
        ([user(["x"])], "part 0 has type str"),
        ([user([{"type": "image_url", "image_url": "x"}])], "type 'image_url'"),
        ([user([{"text": "x"}])], "type None"),
        ([user([{"type": "audio", "image": "x"}])], "expected the keys type and audio"),
        ([user([{"type": "text", "text": 5}])], "text is int"),
    ],
)
def test_malformed_messages_are_refused(messages: list, says: str) -> None:
    with pytest.raises(InputError, match=says):
        render(messages)


SHORT = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.content is string %}{{- m.content }}"
    "{%- else %}{%- for c in m.content %}"
    "{%- if c.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif c.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}{%- elif c.type == 'audio' %}"
    "{{- '<|audio_start|><|audio_pad|><|audio_end|>' }}{%- else %}{{- c['text'] }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# In the manner of the released Qwen3 templates: tools first, then a loop with think blocks for an unanswered turn.
LONG = r"""{%- macro parts(content) %}
    {%- if content is string %}{{- content }}
    {%- else %}
        {%- for part in content %}
            {%- if part.type == 'image' or 'image' in part or 'image_url' in part %}
                {%- set count.value = count.value + 1 %}
                {%- if add_vision_id %}Picture {{ count.value }}: {% endif -%}
                <|vision_start|><|image_pad|><|vision_end|>
            {%- elif part.type == 'audio' or 'audio' in part %}
                {{- "<|audio_start|><|audio_pad|><|audio_end|>" }}
            {%- elif part.type == 'video' %}
                {{- "<|vision_start|><|video_pad|><|vision_end|>" }}
            {%- else %}{{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{#- tools are "described" in a system turn %} -#}
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {{- "# Tools\n\nCall them like {\"name\": {}}\n" }}
    {%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + parts(messages[0].content) + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- if messages|length == 0 %}{{ raise_exception('No messages at all') }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + parts(message.content) + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}
        {%- if loop.last or (not loop.last and reasoning) %}
            {{- '<|im_start|>' + message['role'] + '\n<think>\n' + reasoning + '\n</think>\n\n' + message.content }}
        {%- else %}
            {{- '<|im_start|>' + message['role'] + '\n' + message.content }}
        {%- endif %}
        {%- if message.tool_calls %}{{- '\n<tool_call>\n{"name": "' }}{%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {{- '<tool_response>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""


@pytest.mark.parametrize("template", [SHORT, LONG])
def test_templates_that_render_chatml_are_accepted(template: str) -> None:
    assert why_not_chatml(template) is None


START, PROMPT = "{%- for m", "<|im_start|>assistant\\n' }}"
REFUSED = [
    (SHORT, START, "{{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{%- for m", "writes .*Be kind"),
    (SHORT, START, "<|im_start|>system\nYou are helpful.<|im_end|>\n{%- for m", "writes .*You are helpful"),
    (SHORT, START, "{%- if not tools %}Hello{%- endif %}{%- for m", "writes 'Hello'"),
    (SHORT, START, "{%- if tools or x %}Hello{%- endif %}{%- for m", "writes 'Hello'"),
    (SHORT, START, "{%- set s = 'You are helpful.' %}{%- for m", "writes 'You are"),
    (SHORT, START, "{%- include 'other' %}{%- for m", "statement 'include'"),
    (SHORT, START, "{%- if x %}{%- for m", "leaves if open"),
    (SHORT, START, "{%- endif %}{%- for m", "endif without if"),
    (SHORT, START, "{{ 'bos {%- for m", "unclosed tag"),
    (SHORT, START, "{{- '\\x41' }}{%- for m", "the escape"),
    (SHORT, PROMPT, "<|im_start|>assistant\\n<think>\\n' }}", "<think>"),
    (SHORT, PROMPT, "<|im_start|>assistant\\n' }}{{- '<think>\\n' }}", "<think>"),
    (SHORT, "if add_generation_prompt", "if not add_generation_prompt", "for add_generation_prompt"),
    (SHORT, "{%- if add_generation_prompt %}", "{%- if x %}", "for add_generation_prompt"),
    (SHORT, "<|im_end|>\\n", "<|im_end|>", r"writes '<\|im_end\|>'"),
    (SHORT, "<|im_start|>", "<start_of_turn>", "writes '<start_of_turn>"),
    (SHORT, "<|audio_start|><|audio_pad|><|audio_end|>", "<|audio_bos|><|AUDIO|><|audio_eos|>", "AUDIO"),
    (SHORT, "<|audio_start|><|audio_pad|><|audio_end|>", "", "never places audio"),
    (SHORT, "c.type == 'image' %}", "c.type == 'image' %}Picture: ", "writes 'Picture"),
    (SHORT, "{{- m.content }}", "{{- m.content | trim }}", "filter"),
    (SHORT, "{{- m.content }}", "{{- m.content + '.' }}", r"writes '\.'"),
    (LONG, "{%- if add_vision_id %}", "{%- if vision_id %}", "writes 'Picture"),
    (LONG, "{%- if tools %}", "{%- if True %}", "filter"),
    (LONG, "enable_thinking is defined and enable_thinking is false", "True", "<think>"),
    (LONG, "'<|im_end|>' + '\\n'", "'<|im_end|>' + x + '\\n'", r"writes '<\|im_end\|>'"),
    (LONG, "<|image_pad|><|vision_end|>", "<|image_pad|><|vision_end|>.", r"writes .*vision_end\|>\."),
]


@pytest.mark.parametrize(("template", "old", "new", "says"), REFUSED)
def test_templates_that_render_something_else_are_refused(template: str, old: str, new: str, says: str) -> None:
    assert old in template
    reason = why_not_chatml(template.replace(old, new))
    assert reason is not None and re.search(says, reason), reason


def test_hostile_templates_are_judged_quickly() -> None:
    for hostile in (
        "{{" * 100_000,
        "{%" * 100_000,
        "'" * 200_000,
        "{{'" + "\\" * 200_000,
        "{# " * 80_000,
        "a" * 300_000,
    ):
        started = time.process_time()
        assert why_not_chatml(hostile) is not None
        assert time.process_time() - started < 1


def test_a_checkpoint_is_checked_in_every_place_a_template_lies(tmp_path: Path) -> None:
    check_chat_template(tmp_path)
    other = SHORT.replace("<|im_end|>", "</s>")
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": LONG}))
    (tmp_path / "chat_template.jinja").write_text(SHORT)
    check_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [{"name": "tool_use", "template": other}, {"name": "default", "template": SHORT}]})
    )
    check_chat_template(tmp_path)
    for name, content in [
        ("tokenizer_config.json", json.dumps({"chat_template": other})),
        ("chat_template.json", json.dumps({"chat_template": other})),
        ("chat_template.jinja", other),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(UnsupportedError, match=f"{name}: its chat template is not .* writes '</s>"):
            check_chat_template(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "chat_template.json").write_text('{"chat_template": 5}')
    with pytest.raises(ModelFormatError, match="is a int"):
        check_chat_template(tmp_path)
