"""What the tests share: the devices and the directory of the reference data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from tests.reference import Reference

GOLDENS = Path(__file__).parent / "goldens" / "omni-seed1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-dir", default=str(GOLDENS), help="reference data of tools/golden.py to test against")


@pytest.fixture(scope="session")
def golden_dir(request: pytest.FixtureRequest) -> Path:
    """The directory with a checkpoint and what the reference computes on it."""
    return Path(request.config.getoption("--golden-dir"))


@pytest.fixture(scope="session")
def cpu() -> Device:
    """The CPU device."""
    return open_device("cpu")


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
