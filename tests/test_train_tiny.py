"""The training of the shipped model: what it is taught does not contradict itself, and its maths are the runtime's."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

import omni_rt
from omni_rt.io.hub import tiny_directory
from omni_rt.io.mel import log_mel
from omni_rt.io.tokenizer import Tokenizer
from tests import recognisers
from tools.train_tiny import grammar, pictures, shape, speech


def test_a_question_has_one_answer() -> None:
    answers: dict[str, str] = {}
    for fact in grammar.facts():
        for question in fact.questions:
            assert answers.setdefault(question, fact.answer) == fact.answer, question
    assert answers["What is three plus four?"] == "Three plus four is seven."


def test_what_is_held_out_is_never_taught() -> None:
    unseen = {question for fact in grammar.facts() if fact.held_out for question in fact.questions}
    chance = random.Random(1)
    assert len(unseen) == 75 and not unseen & {grammar.ask(chance, "sum")[1] for _ in range(5000)}
    variants = [variant for role in speech.VARIANTS.values() for variant in role]
    assert len(variants) == len(set(variants)), "a voice has two roles"
    held_out = {rate for low, high in speech.RATES["held-out"] for rate in range(low, high + 1)}
    assert not held_out & {rate for low, high in speech.RATES["model"] for rate in range(low, high + 1)}


def test_a_picture_answers_each_question_once() -> None:
    chance = random.Random(2)
    for _ in range(200):
        asked = pictures.questions(pictures.draw_scene(chance))
        assert len({question for _, question, _ in asked}) == len(asked)
        assert {word for _, *texts in asked for text in texts for word in grammar.words_of(text)} <= set(
            grammar.words()
        )


def test_the_tokenizer_and_the_recognisers_are_those_that_ship() -> None:
    shipped = json.loads((tiny_directory() / "vocab.json").read_text(encoding="utf-8"))
    assert shape.tokenizer_tables()[0] == shipped
    with np.load(recognisers.WEIGHTS) as file:
        assert tuple(file["words"][1:]) == grammar.words()


def test_a_word_is_one_token_wherever_it_stands() -> None:
    tokenizer = Tokenizer.load(tiny_directory())
    for word in grammar.words():
        assert tokenizer.decode(tokenizer.encode(f"{word} {word}")[:1]) == word
        assert len(tokenizer.encode(f"{word} {word}")) == 2, word


def test_every_held_out_clip_has_its_words() -> None:
    items = json.loads((Path(__file__).parent / "held_out.json").read_text())
    assert len(items) >= 200 and len({item["start"] for item in items}) == len(items)
    assert all(set(grammar.words_of(item["spoken"])) <= set(grammar.words()) for item in items)


@pytest.mark.oracle
def test_log_mels_of_a_batch_are_those_of_the_runtime() -> None:
    import torch

    from tools.train_tiny.augment import LogMel

    generator = np.random.default_rng(3)
    clips = [generator.normal(size=size).astype(np.float32) * 0.1 for size in (9000, 23456, 16000)]
    lengths = torch.tensor([len(clip) for clip in clips])
    waves = torch.from_numpy(np.stack([np.pad(clip, (0, 24000 - len(clip))) for clip in clips]))
    made, frames = LogMel(torch.device("cpu"))(waves, lengths)
    for mel, count, clip in zip(made, frames.tolist(), clips, strict=True):
        np.testing.assert_allclose(mel[:, :count].T.numpy(), log_mel(clip), atol=2e-4)
        assert not mel[:, count:].any()


@pytest.mark.oracle
def test_the_own_ctc_loss_is_that_of_the_library() -> None:
    import torch

    from tools.train_tiny.augment import ctc_loss

    torch.manual_seed(4)
    logits = torch.randn(5, 20, 9, dtype=torch.double, requires_grad=True)
    steps, counts = torch.tensor([20, 18, 15, 20, 7]), torch.tensor([6, 3, 1, 4, 5])
    labels = torch.randint(1, 9, (5, 6))
    labels[0, 1] = labels[0, 0]
    odds = logits.log_softmax(-1)
    own = ctc_loss(odds, steps, labels, counts)
    wanted = torch.nn.functional.ctc_loss(odds.transpose(0, 1), labels, steps, counts)
    assert torch.allclose(own, wanted)
    assert all(torch.allclose(*pair) for pair in zip(*(torch.autograd.grad(loss, logits, retain_graph=True)
                                                       for loss in (own, wanted)), strict=True))  # fmt: skip


@pytest.mark.oracle
def test_the_recognisers_hear_in_numpy_what_they_hear_in_pytorch() -> None:
    import torch

    from tools.train_tiny.recognisers import KINDS

    mel = np.random.default_rng(5).normal(size=(200, 128)).astype(np.float32) * 0.3
    with np.load(recognisers.WEIGHTS) as file:
        for name, kind in KINDS.items():
            model = kind()
            weights = {key.split(".", 1)[1]: file[key] for key in file.files if key.startswith(f"{name}.")}
            model.load_state_dict({key: torch.from_numpy(value.astype(np.float32)) for key, value in weights.items()})
            with torch.no_grad():
                wanted = model(torch.from_numpy(mel.T[None]))[0].numpy()
            np.testing.assert_allclose(recognisers._logits(mel, name), wanted, atol=1e-4)


@pytest.mark.oracle
def test_the_own_history_is_what_greedy_speech_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tools.train_tiny import runs, talker
    from tools.train_tiny.dialogues import Dialogues, text_prompt
    from tools.train_tiny.examples import Writer
    from tools.train_tiny.voice import Talker

    text = "eleven stars"
    with omni_rt.load() as omni:
        *_, done = omni.read(text, sampling=omni_rt.Sampling(temperature=0.0))
    codes = done.reply.codes.T
    writer = Writer(tiny_directory())
    model = Talker(shape.config()["talker_config"])
    runs.load_weights(model, "talker.", tiny_directory())
    words = runs.load(tiny_directory())["thinker.model.embed_tokens.weight"]
    spoken = [codes.astype(np.uint8)], [np.zeros(len(codes), np.uint8)]
    store = Dialogues(writer, [text_prompt(writer, text)], [writer.encode(text)], *spoken, torch.device("cpu"))
    one = torch.zeros(1, dtype=torch.long)
    length = int(store.prefill_rows(one)) + len(codes) + 3
    rows = store.rows(one, one, length)
    # The odds of a dialogue are 1, what each of its frames draws is 0: all are its own.
    monkeypatch.setattr(torch, "rand", lambda *size, device: torch.full(size, float(size[1] == 1), device=device))
    own = talker.own_frames(model, words, store.states, rows)
    assert (own < 0).equal(rows.frames < 0), "frames where there were none"
    there = rows.frames[..., 0] >= 0
    assert there.sum() == len(codes) and (own[there] == rows.frames[there]).all(1).float().mean() > 0.9
