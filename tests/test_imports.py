"""The layers keep their arrows: who may import what, how long a file may be, and what `import omni_rt` must not do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import omni_rt.ops  # noqa: F401 (fills the table)
from omni_rt.ops.contract import TABLE

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "omni_rt"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))
FAMILIES = sorted(path.parent.name for path in (PACKAGE / "models").glob("*/__init__.py"))
MOST_LINES = 400
FOREIGN = ("torch", "transformers", "mlx", "scipy", "numba", "librosa", "gguf")
IMPORT_SECONDS = 0.2

# What may import the readers of files: what turns bytes into models, and what talks to people.
READERS = (
    "omni_rt/io/",
    "omni_rt/weights.py",
    "omni_rt/loading.py",
    "omni_rt/model_facts.py",
    "omni_rt/model_files.py",
    "omni_rt/quantize_files.py",
    "omni_rt/results.py",
    "omni_rt/voice.py",
    "omni_rt/command/",
    "omni_rt/__main__.py",
)
FAMILY_READERS = (
    "config.py",
    "processor.py",
    "text.py",
    "speaker_encoder.py",
    "griffin_lim.py",
    "orchestrator.py",
    "session.py",
)


def imports(source: str) -> Iterator[str]:
    """Yield the full name of everything that a module imports when it runs, imports inside functions included.

    What only a type checker imports (`if TYPE_CHECKING:`) creates no dependency and is left out.
    """
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def complaints(path: str, source: str) -> Iterator[str]:
    """Yield what a file of the package, given by its path from the root and its text, imports against the rules."""
    layer = path.split("/")[1]
    for name in imports(source):
        top = name.split(".")[0]
        inside = name.split(".")[1] if name.startswith("omni_rt.") else ""
        if top in FOREIGN:
            yield f"imports {name}: the package runs without it"
        if top == "wgpu" and path != "omni_rt/devices/webgpu.py":
            yield f"imports {name}: only devices/webgpu.py knows wgpu"
        if top == "cffi" and layer != "native":
            yield f"imports {name}: only native/ knows cffi"
        if inside in ("devices", "models") and layer == "ops":
            yield f"imports {name}: ops say what is computed, not where or for whom"
        if inside == "models" and layer in ("devices", "native", "io"):
            yield f"imports {name}: {layer}/ knows no model"
        if inside == "devices" and layer == "models":
            yield f"imports {name}: a model takes its device from its weights"
        if inside == "ops" and layer == "devices" and not name.startswith("omni_rt.ops.contract"):
            yield f"imports {name}: a device knows the contract, no op"
        if inside == "io" and not path.startswith(READERS) and not path.endswith(FAMILY_READERS):
            yield f"imports {name}: files are read by weights, sessions and the command line"
        if inside == "command" and layer not in ("command", "__main__.py"):
            yield f"imports {name}: nothing but the program itself uses the command line"
        for family in FAMILIES:
            if name.startswith(f"omni_rt.models.{family}") and layer == "models" and path.split("/")[2] != family:
                yield f"imports {name}: {path} is shared or of another family"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and layer != "__main__.py":
            yield f"line {node.lineno} reads the environment: only __main__.py may"
        if layer == "devices" and isinstance(node, ast.Compare | ast.Subscript | ast.Dict):
            named = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & set(TABLE)
            if named:
                yield f"line {node.lineno} asks for the op {', '.join(sorted(named))}"


@pytest.mark.parametrize("path", FILES)
def test_file_imports_what_its_layer_may(path: str) -> None:
    found = list(complaints(path, (ROOT / path).read_text(encoding="utf-8")))
    assert not found, f"{path}: " + "; ".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("omni_rt/ops/norm.py", "import torch"),
        ("omni_rt/io/audio.py", "def f():\n    from transformers import AutoModel"),
        ("omni_rt/devices/stream.py", "import wgpu"),
        ("omni_rt/quant.py", "import cffi"),
        ("omni_rt/ops/norm.py", "from omni_rt.devices import open_device"),
        ("omni_rt/ops/norm.py", "from omni_rt.models.config import key"),
        ("omni_rt/devices/cpu.py", "import omni_rt.models.decoder"),
        ("omni_rt/models/decoder.py", "from omni_rt.devices.cpu import CpuDevice"),
        ("omni_rt/devices/cpu.py", "from omni_rt.ops.norm import rms_norm"),
        ("omni_rt/devices/cpu.py", "def f(op):\n    return op.name == 'rms_norm'"),
        ("omni_rt/models/decoder.py", "from omni_rt.io.files import read_json"),
        ("omni_rt/weights.py", "from omni_rt.command.report import table"),
        ("omni_rt/models/qwen3_tts/codec.py", "from omni_rt.models.qwen3_omni.code2wav import Code2Wav"),
        ("omni_rt/models/waveform.py", "from omni_rt.models.qwen3_omni.code2wav import Code2Wav"),
        ("omni_rt/tensor.py", "import os\nprint(os.environ['HOME'])"),
        ("omni_rt/tensor.py", "from os import getenv\nimport os\nos.getenv('HOME')"),
    ],
)
def test_rule_sees_a_forbidden_import(path: str, source: str) -> None:
    assert list(complaints(path, source))


def test_imports_for_type_checkers_are_free() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from omni_rt.devices.device import Device\n"
    assert not list(complaints("omni_rt/ops/norm.py", source))


@pytest.mark.parametrize("path", FILES)
def test_file_is_short(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES, f"{path} has {lines} lines, {MOST_LINES} are allowed: split it"


def test_import_opens_no_device_and_loads_no_driver() -> None:
    code = "import omni_rt, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "omni_rt" in loaded
    heavy = {name for name in loaded if name.split(".")[0] in ("wgpu", "cffi", "tokenizers", "soundfile", *FOREIGN)}
    assert not heavy, f"`import omni_rt` loads {sorted(heavy)}"


def test_import_is_fast() -> None:
    code = "import time; start = time.process_time(); import omni_rt; print(time.process_time() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    best = min(float(run.stdout) for run in runs)
    assert best <= IMPORT_SECONDS, (
        f"`import omni_rt` takes {best * 1000:.0f} ms, {IMPORT_SECONDS * 1000:.0f} are allowed"
    )
