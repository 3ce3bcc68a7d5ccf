"""What is packaged is what is there: every package, shader, data file and dependency."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from omni_rt.command.doctor import PACKAGES
from omni_rt.io.hub import tiny_directory
from tests.test_imports import imports

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
SHIPPED = {".py", ".wgsl", ".json", ".md", ".safetensors", ".txt", ".jinja", ".typed", ".gguf"}
MADE = re.compile(r"__pycache__|\.egg-info|\.(so|pyc|pyd)$|native/_\w+\.c$|^answer\.wav$")
"""What .gitignore leaves out; a checkout without git has no other list."""

SOURCES_ONLY = {".c", ".h"}
"""In the source distribution, from which the module is compiled."""


def tracked() -> list[Path]:
    """Return the files that belong to the project, without what building and running leaves behind."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in ("omni_rt", "shaders", "tests", "tools", "bench", "examples", ".ci"):
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(ROOT) for path in found]
    return sorted(name for name in names if not MADE.search(name.as_posix()))


def test_every_package_is_listed() -> None:
    directories = {path.parent for path in tracked() if path.parts[0] == "omni_rt" and path.name == "__init__.py"}
    names = {".".join(directory.parts) for directory in directories} | {"omni_rt.shaders", "omni_rt.shaders.lib"}
    assert set(SETUPTOOLS["packages"]) == names


def test_every_data_file_of_the_package_is_shipped() -> None:
    left_out = []
    for path in tracked():
        if path.parts[0] not in ("omni_rt", "shaders") or path.suffix in {".py", *SOURCES_ONLY}:
            continue
        assert path.suffix in SHIPPED or path.name == "py.typed", f"{path}: is this meant for users?"
        inside = Path("omni_rt", *path.parts) if path.parts[0] == "shaders" else path
        patterns = [
            (Path(*package.split(".")), pattern)
            for package, entries in SETUPTOOLS["package-data"].items()
            for pattern in entries
        ]
        if not any(inside.is_relative_to(at) and inside.relative_to(at).match(glob) for at, glob in patterns):
            left_out.append(str(path))
    assert not left_out, f"package-data in pyproject.toml names no {left_out}"


def test_every_import_is_a_dependency_and_every_dependency_is_justified() -> None:
    stated = {re.match(r"[\w-]+", line)[0].lower() for line in PROJECT["project"]["dependencies"]}  # type: ignore[index]
    extras = {
        re.match(r"[\w-]+", line)[0].lower()  # type: ignore[index]
        for name, lines in PROJECT["project"]["optional-dependencies"].items()
        if name not in ("test", "oracle", "dev", "train")
        for line in lines
    }
    by_module = packages_distributions()
    used = set()
    for path in tracked():
        if path.parts[0] == "omni_rt" and path.suffix == ".py":
            for name in imports((ROOT / path).read_text(encoding="utf-8")):
                used |= {distribution.lower() for distribution in by_module.get(name.split(".")[0], [])}
    used -= {"omni-rt", "omni_rt"}
    assert used <= stated | extras, f"{used - stated - extras} are imported and not stated"
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert not [name for name in stated | extras if f"| {name} |" not in readme and f"`{name}`" not in readme]
    assert {name.lower() for name in PACKAGES} == stated, "omni-rt doctor looks for other packages"


def test_the_shipped_model_is_small_and_whole() -> None:
    files = {file.name: file.stat().st_size for file in tiny_directory().iterdir()}
    assert {"config.json", "vocab.json", "merges.txt", "tokenizer_config.json"} <= set(files)
    assert sum(files.values()) < 20e6


def test_the_readme_names_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in ("tools/quickstart.sh", "tools/check.sh"):
        assert f"sh {script}" in readme and (ROOT / script).is_file()
    named = re.findall(r"`((?:omni_rt|shaders|tools|tests|bench|examples)/[\w./-]*)`", readme)
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_nothing_names_a_registry_or_a_path_of_one_machine() -> None:
    places = re.compile(r"(^|[^\w.])/(root|home/\w+|farm)/|files\.pythonhosted|pypi\.org|registry\.npmjs|deb\.debian")
    found = []
    for path in tracked():
        if path.suffix in {".py", ".md", ".sh", ".toml", ".wgsl", ".c", ".h", ".json", ".in"} or path.parts[0] == ".ci":
            for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
                if places.search(line) and path != Path("tests/test_packaging.py"):
                    found.append(f"{path}:{number}")
    assert not found
