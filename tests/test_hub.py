"""A reference leads to the shipped model, a directory, or a snapshot in the Hugging Face cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from omni_rt.errors import ModelNotFoundError
from omni_rt.io import hub
from tests.command_line import SHORT, separately

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A Hugging Face cache that holds the shipped model as someone/speaks, revision main."""
    repository = tmp_path / "cache" / "models--someone--speaks"
    shutil.copytree(hub.tiny_directory(), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path / "cache"


@pytest.mark.parametrize("ref", ["someone/speaks", "someone/speaks@main", f"someone/speaks@{COMMIT}"])
def test_a_repository_in_the_cache_is_used_without_the_network(cache: Path, tmp_path: Path, ref: str) -> None:
    nowhere = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}
    arguments = ("chat", "hello", "--model", ref, "--device", "cpu", "--json", *SHORT)
    code, out, err = separately(*arguments, cwd=tmp_path, **nowhere)
    assert code == 0, err
    assert len(json.loads(out)["token_ids"]) == 4


def test_another_revision_or_repository_is_not_in_the_cache(cache: Path, tmp_path: Path) -> None:
    nowhere = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}
    for ref in ("someone/speaks@v2", "someone/else"):
        code, out, err = separately("chat", "hello", "--model", ref, "--device", "cpu", cwd=tmp_path, **nowhere)
        assert code == 1 and out == b""
        assert f"omni-rt pull {ref}" in err and "Traceback" not in err


def test_pull_without_a_network_fails_clearly(cache: Path, tmp_path: Path) -> None:
    nowhere = {"HF_HUB_CACHE": str(tmp_path / "empty"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    code, out, err = separately("pull", "someone/speaks", cwd=tmp_path, **nowhere)
    assert code == 1 and out == b""
    assert "someone/speaks" in err and "network" in err and "Traceback" not in err


def test_directories_and_the_shipped_model_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.resolve(str(tmp_path)) == tmp_path
    assert (hub.resolve("tiny") / "config.json").is_file()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert hub.resolve("tiny") == hub.tiny_directory(), "a directory called tiny must not hide the shipped model"
    assert hub.resolve("./tiny") == Path("./tiny")


@pytest.mark.parametrize("ref", ["", "nowhere", "a/b/c", "../a/b", "a/b@", "a b/c"])
def test_what_is_neither_names_what_a_reference_is(ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"ORG/REPO\[@REVISION\]"):
        hub.resolve(ref, local_files_only=True)
