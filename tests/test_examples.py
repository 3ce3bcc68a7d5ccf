"""Every example runs as it stands, prints something, and writes the sound that it promises."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import soundfile

from tests.command_line import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
WRITTEN = {"chat_by_voice": ["answer.wav"], "speak_a_text": ["speech.wav"], "stream_to_a_file": ["stream.wav"]}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()
    written = list(tmp_path.iterdir())
    assert [path.name for path in written] == WRITTEN.get(example.stem, [])
    for path in written:
        assert soundfile.read(path)[0].any(), f"{path.name} is silent"
