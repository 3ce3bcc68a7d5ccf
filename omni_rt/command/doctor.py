"""`omni-rt doctor`: what this machine has and lacks for running a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from omni_rt.command.install_hints import package_hint, render_group_hint, tool_hint
from omni_rt.command.options import NoDevice, cpu_settings, device_option, report_options
from omni_rt.command.report import Report, table
from omni_rt.devices.ledger import GIB
from omni_rt.errors import OmniError

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

GOOD, WARNING, MISSING = "ok", "warning", "missing"
PACKAGES = (
    "numpy",
    "wgpu",
    "cffi",
    "safetensors",
    "tokenizers",
    "soundfile",
    "soxr",
    "huggingface_hub",
    "click",
    "tqdm",
    "Pillow",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ok, a warning (it runs without) or missing (it does not), and the cure."""

    what: str
    state: str
    found: str
    cure: str = ""


@click.command(
    epilog="""\b
Examples:
  omni-rt doctor
  omni-rt doctor --device wgpu     (exit code 3 when there is no GPU driver)
"""
)
@device_option
@report_options
def doctor(device: str, report: Report) -> None:
    """Check Python, packages, the native module, the Vulkan driver and each GPU, memory and the shipped model.

    Says what is missing and how to get it on this distribution. Exit code 1 when something that is needed is missing, 3
    when the device asked for cannot be used.
    """
    findings: list[Finding] = []
    for check in (python, packages, audio_library, native, vulkan, gpus, memory, tiny):
        try:
            findings += check()
        except Exception as error:  # a check that fails is a finding, whatever it is
            findings.append(Finding(check.__name__, MISSING, f"{type(error).__name__}: {error}", "reinstall omni-rt"))
    if report.as_json:
        report.result({"findings": [asdict(finding) for finding in findings], "device": device})
    else:
        click.echo(table([(f.state, f.what, f.found) for f in findings]))
        for finding in findings:
            if finding.cure:
                click.echo(f"{finding.what}: {finding.cure}")
    if device != "auto":
        try_device(device)
    if any(finding.state == MISSING for finding in findings):
        raise click.exceptions.Exit(1)


def python() -> Iterator[Finding]:
    """Look at the interpreter."""
    yield Finding("Python", GOOD, ".".join(str(part) for part in sys.version_info[:3]))


def packages() -> Iterator[Finding]:
    """Look for the packages that omni-rt depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found, absent = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    if absent:
        yield Finding("packages", MISSING, f"without {', '.join(absent)}", f"pip install {' '.join(absent)}")
    else:
        yield Finding("packages", GOOD, ", ".join(found))


def audio_library() -> Iterator[Finding]:
    """Look at the library that decodes audio files."""
    import soundfile

    formats = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name in soundfile.available_formats()]
    state = GOOD if len(formats) == 4 else WARNING
    cure = "" if state == GOOD else "pip install --upgrade soundfile (its wheel brings libsndfile 1.1 or newer)"
    yield Finding("audio files", state, f"libsndfile {soundfile.__libsndfile_version__}: {', '.join(formats)}", cure)


def native() -> Iterator[Finding]:
    """Look at the module of C kernels."""
    from omni_rt import native

    if native.load() is None:
        found = "built from other C files" if native.is_built() else "not built"
        cure = f"for speed on the CPU get a C compiler ({tool_hint('compiler')}), then install omni-rt again"
        yield Finding("C kernels", WARNING, f"{found}: the CPU runs on NumPy", cure)
    else:
        yield Finding("C kernels", GOOD, f"{', '.join(native.levels())}; {native.physical_cores()} cores")


def vulkan() -> Iterator[Finding]:
    """Look for the Vulkan loader, where GPUs are reached through it."""
    if not sys.platform.startswith("linux"):
        yield Finding("GPU interface", GOOD, "Metal" if sys.platform == "darwin" else "Direct3D 12 or Vulkan")
        return
    import ctypes

    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        yield Finding("Vulkan loader", WARNING, "libvulkan.so.1 not found: no GPU can be used", package_hint())
    else:
        yield Finding("Vulkan loader", GOOD, "libvulkan.so.1")


def gpus() -> Iterator[Finding]:
    """Run a small op on each GPU."""
    from omni_rt.devices import open_device
    from omni_rt.devices.webgpu import adapters

    found = adapters()
    if not found:
        cure = render_group_hint() or package_hint()
        yield Finding("GPU", WARNING, "no adapter found: models run on the CPU", cure)
    for index, adapter in enumerate(found):
        name = f"wgpu:{index}"
        what = adapter.name + (", computed in software" if adapter.software else "")
        try:
            with open_device(name, strict=True) as device:
                computes(device)
        except OmniError as error:
            yield Finding(name, WARNING, f"{what}: {error}", "update the GPU driver")
        else:
            yield Finding(name, GOOD, f"{what}: computes")
    if found and all(adapter.software for adapter in found):
        cure = render_group_hint() or f"if this machine has a GPU, install its driver: {package_hint()}"
        yield Finding("GPU", WARNING, "only a software adapter: --device auto takes the CPU", cure)


def computes(device: Device) -> None:
    """Add four numbers on the device; raise DeviceError when the sum is wrong."""
    import numpy as np

    from omni_rt import ops
    from omni_rt.errors import DeviceError

    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    total = ops.add(device.tensor(values), device.tensor(values)).numpy()
    if not np.array_equal(total, 2 * values):
        raise DeviceError(f"{device.name} adds {values.tolist()} to itself and gets {total.tolist()}")


def memory() -> Iterator[Finding]:
    """Look at the memory of the machine."""
    from omni_rt.devices.host_memory import available_bytes, total_bytes

    available, total = available_bytes(), total_bytes()
    if available is not None and total is not None:
        yield Finding("memory", GOOD, f"{available / GIB:.1f} of {total / GIB:.1f} GiB available")


def tiny() -> Iterator[Finding]:
    """Look at the model in the package."""
    from omni_rt.io.hub import resolve
    from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig

    directory = resolve("tiny")
    Qwen3OmniConfig.from_directory(directory)
    size = sum(file.stat().st_size for file in directory.iterdir())
    yield Finding("model 'tiny'", GOOD, f"{size / 1e6:.1f} MB in the package")


def try_device(name: str) -> None:
    """Open a device and compute on it; raise NoDevice when that fails."""
    from omni_rt.devices import open_device

    try:
        with open_device(name, **cpu_settings()) as device:
            computes(device)
    except OmniError as error:
        raise NoDevice(str(error)) from error
