"""What the tests share: the devices and the directory of the reference data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import omni_rt
from omni_rt import native
from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from omni_rt.models.qwen3_tts.session import TextToSpeech
from tests.command_line import Program
from tests.reference import Reference

# The same examples in every run, however long each takes: a failure is somebody's change, not the day's luck or load.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")

GOLDENS = Path(__file__).parent / "goldens" / "omni-seed1"
TTS_GOLDENS = Path(__file__).parent / "goldens" / "tts-seed1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-dir", default=str(GOLDENS), help="reference data of tools/golden.py to test against")
    parser.addoption("--tts-golden-dir", default=str(TTS_GOLDENS), help="the same of tools/golden_tts.py")
    parser.addoption("--tiny-items", type=int, default=12, help="items of each set that the shipped model is tested on")


def pytest_configure(config: pytest.Config) -> None:
    """Hand the directory of the speech models to tests that are parametrised by its contents."""
    Reference.tts_directory = Path(config.getoption("--tts-golden-dir"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With other reference data than the committed, leave only the tests that read them."""
    if config.getoption("--golden-dir") != str(GOLDENS):
        others = [item for item in items if "golden_dir" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The voice models, each with the codec in its place as a release has it."""
    root = tmp_path_factory.mktemp("tts")
    for directory in Reference.tts_directory.glob("tiny-*"):
        shutil.copytree(directory, root / directory.name)
        codec = root / directory.name / "speech_tokenizer"
        shutil.copytree(Reference.tts_directory / "speech_tokenizer", codec, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module", params=["cpu", "wgpu"])
def models(request: pytest.FixtureRequest, released: Path) -> Iterator[dict[str, TextToSpeech]]:
    """Every voice model on one device."""
    loaded = {
        path.name: omni_rt.load(path, device=request.param, strict=True, context=512) for path in released.iterdir()
    }
    yield loaded  # type: ignore[misc]
    for model in loaded.values():
        model.close()


@pytest.fixture(scope="session")
def golden_dir(request: pytest.FixtureRequest) -> Path:
    """The directory with a checkpoint and what the reference computes on it."""
    return Path(request.config.getoption("--golden-dir"))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """The command line, in this process."""
    return Program(monkeypatch, capsys)


@pytest.fixture(scope="session")
def kernels() -> None:
    """The C kernels, for tests that are about nothing else: without a compiler there are none, and NumPy serves."""
    if not native.is_built():
        pytest.skip("the C kernels are not built")


@pytest.fixture(scope="session")
def cpu() -> Device:
    """The CPU device; OMNI_RT_CPU_LEVEL=numpy takes it without its C bodies."""
    return open_device("cpu", level=os.environ.get("OMNI_RT_CPU_LEVEL", ""))


@pytest.fixture(scope="session")
def gpu() -> Iterator[Device]:
    """The first Vulkan adapter, software included; the tests fail without one."""
    with open_device("wgpu", strict=True) as device:
        yield device


@pytest.fixture(scope="session", params=["cpu", "wgpu"])
def device(request: pytest.FixtureRequest) -> Device:
    """Each device in turn."""
    return request.getfixturevalue("cpu" if request.param == "cpu" else "gpu")


@pytest.fixture(scope="session")
def reference(golden_dir: Path) -> Reference:
    """What PyTorch computes on a tiny checkpoint, and the checkpoint."""
    return Reference(golden_dir)
