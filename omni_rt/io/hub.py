"""From a model reference to a directory on this machine: the shipped model, a directory, or the Hugging Face cache."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

from omni_rt.errors import ModelNotFoundError

TINY = "tiny"
"""The reference of the model inside the package."""

_REPOSITORY = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.][\w./-]*))?")
_WANTED = ("*.json", "*.safetensors", "*.gguf", "*.txt", "*.jinja", "LICENSE*", "MODEL_CARD.md")
_FORMS = "a reference is 'tiny', a directory, or ORG/REPO[@REVISION] of the Hugging Face hub"


def tiny_directory() -> Path:
    """Return the directory of the model that ships in the package."""
    return Path(str(resources.files("omni_rt"))) / "tiny"


def resolve(ref: str, *, local_files_only: bool = False) -> Path:
    """Return the directory that `ref` names; a repository that is not in the cache is downloaded unless forbidden.

    Raises ModelNotFoundError when there is no such directory or repository, saying what would be.
    """
    path = _path(ref)
    if ref == TINY:
        path = tiny_directory()
        if not (path / "config.json").is_file():
            raise ModelNotFoundError(f"{path}: the shipped model is missing from the package; install omni-rt again")
        return path
    if ref and path is not None and path.is_dir():
        return path
    if path is not None and path.is_file():
        raise ModelNotFoundError(f"{ref}: is a file; give the directory that holds it and its config.json")
    match = _REPOSITORY.fullmatch(ref)
    if match is None:
        raise ModelNotFoundError(f"{ref[:200]}: no such directory, and no repository's name; {_FORMS}")
    name, revision = match["name"], match["revision"]
    cached = _snapshot(name, revision, local_files_only=True)
    if cached is not None:
        return cached
    if local_files_only:
        raise ModelNotFoundError(
            f"{ref}: neither a directory nor a repository in the Hugging Face cache; "
            f"download it with: omni-rt pull {ref}"
        )
    return pull(ref)


def _path(ref: str) -> Path | None:
    """Return what a reference is as a path, None when it can be none: too long, or the home of nobody."""
    try:
        path = Path(ref).expanduser()
        path.exists()
    except (OSError, RuntimeError):
        return None
    return path


def pull(ref: str) -> Path:
    """Download a repository of the Hugging Face hub into its cache and return its directory.

    Files that are there already are kept, and a download that was stopped goes on where it was. Raises
    ModelNotFoundError when the name is malformed, unknown, gated, or the hub cannot be reached.
    """
    match = _REPOSITORY.fullmatch(ref)
    if match is None:
        raise ModelNotFoundError(f"{ref}: is no repository's name; give ORG/REPO or ORG/REPO@REVISION")
    found = _snapshot(match["name"], match["revision"], local_files_only=False)
    assert found is not None
    return found


def _snapshot(name: str, revision: str | None, *, local_files_only: bool) -> Path | None:
    """Return the directory of a repository, None when it is not in the cache and must come from there."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    options: dict[str, Any] = {"revision": revision, "allow_patterns": list(_WANTED)}
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=local_files_only, **options))
    except LocalEntryNotFoundError as error:
        if local_files_only:
            return None
        raise ModelNotFoundError(f"{name}: {_reason(error)}; check the network, then try again") from error
    except (ValueError, OSError, RuntimeError) as error:  # the hub's own errors are OSErrors or ValueErrors
        hint = "check the name, and for a gated model log in with: hf auth login"
        raise ModelNotFoundError(f"{name}: {_reason(error)}; {hint}") from error


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"the hub says {type(error).__name__}" + (f" ({lines[0][:160]})" if lines else "")
