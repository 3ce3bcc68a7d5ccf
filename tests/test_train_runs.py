"""Runs of the training that were cut and go on: the weights are those of the run that was never cut, to the bit."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import copytree, ignore_patterns
from types import ModuleType

import pytest

from omni_rt.io.hub import tiny_directory

STEPS, CUT, SAVED_EVERY = 10, 7, 4
"""A run of ten steps is cut after seven, of which four were saved."""


class Cut(Exception):
    """The power goes."""


@pytest.mark.train
@pytest.mark.parametrize("stage", ["understand", "talker", "vocoder"])
def test_a_run_that_was_cut_becomes_the_whole_run(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tools.train_tiny import codec, runs, talker, understand, vocoder

    monkeypatch.setattr(runs, "SAVED_EVERY", SAVED_EVERY)
    seed_step = runs.seed_step
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def begin(module: ModuleType, name: str, *options: str, cut: int = STEPS) -> Path:
        def seed(number: int, step: int) -> int:
            if step == cut:
                raise Cut
            steps.append(step)
            return seed_step(number, step)

        steps.clear()
        monkeypatch.setattr(runs, "seed_step", seed)
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "argv", [stage, str(out), *options, "--dry-run"])
        module.main()
        return out

    steps: list[int] = []
    module, file = {
        "understand": (understand, "thinker.pt"), "talker": (talker, "talker.pt"), "vocoder": (vocoder, "code2wav.pt")
    }[stage]  # fmt: skip
    more = ["--steps", str(STEPS)]
    if stage == "talker":
        more = [str(tiny_directory()), "--start", str(tiny_directory()), "--judged", "0", *more]
    try:
        if stage == "vocoder":
            begin(codec, "whole")
        whole = begin(module, "whole", *more)
        assert steps == [*range(STEPS)]
        made = ignore_patterns(file, file.replace(".pt", "-run.pt"))
        copytree(whole, tmp_path / "cut", ignore=made)  # the data: they cannot be made twice
        with pytest.raises(Cut):
            begin(module, "cut", *more, cut=CUT)
        assert not (tmp_path / "cut" / file).exists()
        with pytest.raises(SystemExit, match=r"is of a run with --rate .*, this one has 0.5"):
            begin(module, "cut", *more, "--rate", "0.5")
        again = begin(module, "cut", *more)
        assert steps == [*range(SAVED_EVERY, STEPS)]
        assert begin(module, "cut", *more) and not steps, "a run that has ended goes on"
        wanted, got = (torch.load(out / file) for out in (whole, again))
    finally:
        torch.set_num_threads(threads)
    assert wanted.keys() == got.keys()
    assert not [name for name, value in wanted.items() if not torch.equal(value, got[name])]
