"""One model makes one reply at a time: interrupted, interleaved, from several threads, and not after it was closed."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omni_rt
from omni_rt import Done, InputError, Prompt, Sampling
from omni_rt.models.code_stream import CodeDecoder
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.turns import Turns

QUESTIONS = ("hello", "What is three plus four?", "What is two plus five?")


@pytest.fixture(scope="module")
def omni() -> Iterator[OmniOrchestrator]:
    with omni_rt.load("tiny", device="cpu", context=256) as model:
        assert isinstance(model, OmniOrchestrator)
        yield model


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def replies(omni: OmniOrchestrator, times: int) -> list[bytes]:
    """Return the codes of sampled, spoken replies."""
    asked = {"speech": True, "sampling": Sampling(0.7), "max_new_tokens": 12}
    return [omni.chat(said(QUESTIONS[i % 3]), seed=i, **asked).codes.tobytes() for i in range(times)]  # type: ignore[union-attr,arg-type]


def together(*work: Callable[[], Any]) -> list[Any]:
    """Do several things in a thread each, and return what each returned or raised."""
    results: list[Any] = [None] * len(work)

    def do(index: int) -> None:
        try:
            results[index] = work[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=do, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_calls_from_several_threads_wait_for_each_other(omni: OmniOrchestrator) -> None:
    alone = replies(omni, 4)
    assert together(*[lambda: replies(omni, 4)] * 3) == [alone] * 3


def test_two_models_reply_at_the_same_time(omni: OmniOrchestrator) -> None:
    alone = replies(omni, 4)
    with omni_rt.load("tiny", device="cpu", context=256) as other:
        assert isinstance(other, OmniOrchestrator)
        assert together(lambda: replies(omni, 4), lambda: replies(other, 4)) == [alone] * 2


@pytest.mark.parametrize("speech", [False, True])
@pytest.mark.parametrize(
    "between",
    [
        lambda omni: omni.chat(said("hello")),
        lambda omni: omni.thinker.forward(omni.prompt(said("hello"))),
        lambda omni: omni.clear_kv_cache(),
        lambda omni: omni.text_to_speech("hello"),
    ],
    ids=["chat", "thinker", "clear", "speech"],
)
def test_a_stream_that_was_overtaken_says_so(
    omni: OmniOrchestrator, speech: bool, between: Callable[[OmniOrchestrator], Any]
) -> None:
    events = omni.stream(said(QUESTIONS[1]), speech=speech)
    next(events)
    between(omni)
    with pytest.raises(InputError, match="taken over"):
        list(events)
    assert omni.chat(said(QUESTIONS[1])).text == "Three plus four is seven."


def test_a_stream_that_was_not_begun_or_was_broken_off_stands_in_nobodys_way(omni: OmniOrchestrator) -> None:
    waiting = omni.stream(said(QUESTIONS[1]))
    broken = omni.stream(said(QUESTIONS[2]), speech=True)
    next(broken)
    broken.close()  # type: ignore[attr-defined]
    assert list(broken) == []
    *_, done = waiting
    assert isinstance(done, Done) and done.reply.text == "Three plus four is seven."  # type: ignore[union-attr]


def test_a_model_serves_on_after_an_error(omni: OmniOrchestrator) -> None:
    for wrong in (lambda: omni.chat(said("x " * 500)), lambda: omni.chat(said("x"), speech=True, voice="nobody")):
        with pytest.raises(InputError):
            wrong()
        assert omni.chat(said(QUESTIONS[1])).text == "Three plus four is seven."


@pytest.mark.parametrize("device", ["cpu", "wgpu"])
def test_a_closed_model_says_so_whatever_is_asked_of_it(device: str) -> None:
    omni = omni_rt.load("tiny", device=device, context=64)
    assert isinstance(omni, OmniOrchestrator) and omni.talker is not None and omni.code2wav is not None
    prompt, events = omni.prompt(said("hello")), omni.stream(said("hello"))
    next(events)
    memory = weakref.ref(omni.thinker)
    omni.close()
    omni.close()
    gc.collect()
    assert memory() is None, "a closed model keeps its weights"
    for used in (
        lambda: next(events),
        lambda: omni.chat(said("hello")),
        lambda: next(omni.stream(said("hello"))),
        lambda: omni.generate(prompt),
        lambda: omni.prompt(said("hello")),
        lambda: next(omni.read("hello")),
        lambda: omni.text_to_speech("hello"),
        lambda: omni.clear_kv_cache(),
        lambda: omni.prepare(),
        lambda: omni.thinker.forward(prompt),
        lambda: omni.talker.generate(prompt, [1, 2]),  # type: ignore[union-attr]
        lambda: omni.audio_encoder(np.zeros((100, 128), np.float32)),
        lambda: omni.code2wav(np.zeros((4, 1), np.int32)),  # type: ignore[misc]
    ):
        with pytest.raises(InputError, match="closed: load it again"):
            used()


def test_a_speaking_model_waits_in_threads_notices_overtaking_and_closes(released: Path) -> None:
    tts = omni_rt.load(released / "tiny-0b6-customvoice", device="cpu", context=256)
    assert isinstance(tts, omni_rt.TextToSpeech)

    def speak() -> bytes:
        return tts.generate("hello", max_frames=6, seed=3).codes.tobytes()

    alone = speak()
    assert together(speak, speak) == [alone] * 2
    events = tts.stream("hello world", max_frames=40, seed=3)
    next(events)
    assert speak() == alone
    with pytest.raises(InputError, match="taken over"):
        list(events)
    tts.close()
    for used in (speak, lambda: tts.codec.decode(np.zeros((16, 1), np.int32)), lambda: next(tts.stream("hello"))):
        with pytest.raises(InputError, match="closed: load it again"):
            used()


def test_preparing_waits_for_the_reply_of_another_thread(
    omni: OmniOrchestrator, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    monkeypatch.setattr(CodeDecoder, "prepare", lambda *_: begun.set())
    with omni_rt.load(released / "tiny-0b6-customvoice", device="cpu", context=256) as tts:
        for model in (omni, tts):
            begun.clear()
            with model._turns.taken():
                preparing = threading.Thread(target=model.prepare)
                preparing.start()
                assert not begun.wait(0.2)
            preparing.join()
            assert begun.is_set()


def test_closing_waits_for_the_reply_of_another_thread() -> None:
    turns, taken, closed = Turns(), threading.Event(), threading.Event()

    def work() -> bool:
        with turns.taken():
            taken.set()
            return closed.wait(0.1)

    def close() -> bool:
        taken.wait()
        was_open = turns.close()
        closed.set()
        return was_open

    assert together(work, close) == [False, True]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda omni: omni.chat(said("hello"), max_new_tokens=1.5), "max_new_tokens is 1.5"),
        (lambda omni: omni.chat(said("hello"), max_new_tokens=-1), "max_new_tokens is -1"),
        (lambda omni: omni.chat(said("hello"), seed="a"), "the seed is 'a'"),
        (lambda omni: omni.text_to_speech(None), "the text is NoneType"),
        (lambda omni: omni.generate(Prompt([-1])), "whole numbers from 0 to 1247"),
        (lambda omni: omni.generate(Prompt([1 << 40])), "whole numbers from 0 to 1247"),
        (lambda omni: omni.generate(Prompt([1248])), "whole numbers from 0 to 1247"),
        (lambda omni: omni.talker.generate(omni.prompt(said("hello")), [5000, 3]), "whole numbers from 0 to 1247"),
        (lambda omni: omni.vision_encoder(np.zeros((64, 1536), np.float32), (64, 1)), r"expected \(time, height"),
        (lambda omni: omni.audio_encoder([[0.0] * 100]), r"got \[1, 100\]"),
        (lambda omni: omni.chat(said("hello"), sampling="greedy"), "sampling is str, expected a Sampling"),
        (lambda omni: omni.chat(said("hello"), speech=True, sampling="greedy"), "sampling is str, expected a Sampling"),
        (lambda omni: omni_rt.load("tiny", context=16.5), "the context is 16.5"),  # type: ignore[arg-type]
        (lambda omni: omni_rt.load("tiny", placement={"talker": "cpu"}), "placement is dict"),  # type: ignore[arg-type]
        (lambda omni: omni_rt.open_device("cpu", threads=-3), "threads is -3"),
        (lambda omni: Sampling(temperature="hot"), "temperature is 'hot'"),  # type: ignore[arg-type]
        (lambda omni: Sampling(top_k=1.5), "top_k is 1.5"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_kind_of_value_is_named(omni: OmniOrchestrator, call: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        call(omni)
