"""`omni-rt show` counts what is in the files, and a model that cannot fit is refused before anything is allocated."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import omni_rt
from omni_rt import OutOfMemoryError, devices
from omni_rt.devices import cpu, gpu_memory, host_memory, webgpu
from omni_rt.io.hub import tiny_directory
from omni_rt.model_facts import facts
from omni_rt.models.qwen3_omni.code2wav import waveform_shape
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from tests.command_line import Program
from tests.conftest import GOLDENS

OMNI = GOLDENS / "checkpoint"


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return omni_rt.quantize(OMNI, tmp_path_factory.mktemp("show") / "q8").directory


def test_parameters_and_bytes_are_those_of_the_file() -> None:
    found = facts(OMNI)
    with safe_open(OMNI / "model.safetensors", "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
    assert found.parameters == sum(math.prod(shape) for shape in shapes.values())
    assert found.nbytes == 2 * found.parameters
    thinker = next(part for part in found.components if part.name == "thinker")
    own = [s for n, s in shapes.items() if n.startswith("thinker.") and ".visual." not in n and ".audio_" not in n]
    assert thinker.parameters == sum(map(math.prod, own)) and thinker.types == {"BF16": len(own)}


def test_a_quantised_directory_shows_its_own_bytes_and_what_loading_it_takes(quantised: Path) -> None:
    found = facts(quantised)
    assert found.parameters == facts(OMNI).parameters and found.precisions == ("as stored",)
    on_disk = sum(path.stat().st_size for path in quantised.glob("*.gguf"))
    assert 0.8 * on_disk < found.nbytes < on_disk
    with omni_rt.load(quantised, device="cpu", context=100) as model:
        used = model.devices["thinker"].ledger.used
    assert found.loaded("as stored") == pytest.approx(used["weights"], rel=0.25)
    kv = 100 * sum(found.kv_bytes["as stored"].values())
    assert kv <= used["state"] <= 1.2 * kv + 100_000


def test_the_command_names_components_memory_and_what_fits(program: Program, quantised: Path) -> None:
    text = program("show", str(OMNI)).out
    assert f"Qwen3-Omni, {facts(OMNI).parameters / 1000:.2f} k parameters" in text
    for part in ("audio_encoder", "vision_encoder", "thinker", "talker", "code_predictor", "code2wav"):
        assert part in text
    assert "a position of the context takes" in text and "Loaded q8_0, the weights take" in text
    assert "this machine: " in text and "they fit with a context of 65,536 positions" in text
    report = json.loads(program("show", str(quantised), "--json").out)
    assert report["parameters"] == facts(OMNI).parameters and report["memory"][0]["available"] > 0
    assert report["components"][0]["name"] == "audio_encoder"


def test_tiny_is_told_plainly(program: Program) -> None:
    about = program("show", "tiny").out.splitlines()[1]
    card = (tiny_directory() / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert len(about) > 80 and about.split(".")[0] in " ".join(card.split())


def test_what_is_no_model_is_a_clear_error(program: Program, tmp_path: Path) -> None:
    done = program("show", str(tmp_path))
    assert done.code == 1 and "has no config.json" in done.err
    assert program("show", "nobody/nothing").code == 1


@pytest.mark.parametrize("device", ["cpu", "wgpu"])
def test_a_model_that_cannot_fit_is_refused_before_the_first_allocation(
    device: str, quantised: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*arguments: object, **options: object) -> None:
        raise AssertionError("a weight was placed")

    for kind in (cpu.CpuDevice, webgpu.WebGpuDevice):
        monkeypatch.setattr(kind, "weight", allocate)
        monkeypatch.setattr(kind, "zeros", allocate)
    needed = facts(quantised).loaded("as stored")
    if device == "wgpu":  # which records the steps of a stream
        config = Qwen3OmniConfig.from_directory(quantised).code2wav
        assert config is not None
        needed += waveform_shape(config).recorded_bytes(1 + 2 + 4 + 8)
    with pytest.raises(OutOfMemoryError, match=r"needs .* GiB, but .* of the budget") as budget:
        omni_rt.load(quantised, device=device, context=16, max_memory=1000)
    assert budget.value.available == 1000 and budget.value.needed >= needed
    monkeypatch.setattr(devices.device, "available_bytes", lambda: 5000)
    with pytest.raises(OutOfMemoryError, match="of memory are free") as machine:
        omni_rt.load(quantised, device=device, context=16)
    assert machine.value.available == 5000 and machine.value.needed >= needed


def test_a_gpu_with_memory_of_its_own_is_asked_for_what_it_has_left(
    quantised: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = gpu_memory.gpu_memory()
    assert known and all(0 <= gpu.available <= gpu.total and gpu.total > 1 << 20 for gpu in known)
    open_gpu = webgpu.WebGpuDevice.__init__

    def discrete(device: webgpu.WebGpuDevice, *arguments: Any, **options: Any) -> None:
        open_gpu(device, *arguments, **options)
        device.own_memory = device.adapter.handle.info

    monkeypatch.setattr(webgpu.WebGpuDevice, "__init__", discrete)
    monkeypatch.setattr(gpu_memory, "gpu_memory", lambda: [dataclasses.replace(gpu, available=7000) for gpu in known])
    with pytest.raises(OutOfMemoryError, match="of memory are free") as caught:
        omni_rt.load(quantised, device="wgpu", context=16)
    assert caught.value.available == 7000


def test_free_memory_keeps_to_the_limit_of_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 2000 kB\nMemAvailable: 1000 kB\nHugePages_Total: 0\n")
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "GROUP", tmp_path)
    assert host_memory.available_bytes() == 1000 * 1024 and host_memory.total_bytes() == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert host_memory.available_bytes() == 1000 * 1024
    (tmp_path / "memory.max").write_text("600000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 1000\n")
    assert host_memory.available_bytes() == 101_000
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "nothing")
    (tmp_path / "memory.max").unlink()
    assert host_memory.available_bytes() is None
