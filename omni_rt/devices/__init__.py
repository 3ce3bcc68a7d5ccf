"""Devices: where ops run."""

from __future__ import annotations

from typing import Any

from omni_rt import native
from omni_rt.arguments import whole
from omni_rt.devices.device import Device
from omni_rt.errors import DeviceError, InputError

MOST_THREADS = 1024


def open_device(
    name: str = "auto",
    *,
    strict: bool = False,
    max_memory: int | None = None,
    threads: int | None = None,
    level: str = "",
    activations: str = "q8",
) -> Device:
    """Open a device by name: "auto", "cpu", "wgpu", "wgpu:1".

    "auto" takes the first real GPU and else the CPU; a software adapter is used only when asked for by name. `threads`
    and `level` are those of the CPU: see CpuDevice; weights of any device are converted with them from then on.
    `activations` is explained at Device. Raises DeviceError when no such adapter exists, naming those that do, or when
    this machine has no such level, InputError for threads outside 1 to 1024.
    """
    from omni_rt.devices.cpu import CpuDevice

    if threads is not None and not 1 <= whole("threads", threads) <= MOST_THREADS:
        raise InputError(f"threads is {threads}, expected 1 to {MOST_THREADS}, or None for the physical cores")
    if threads is not None or level:
        native.convert_with(threads, level)
    common: Any = {"strict": strict, "max_memory": max_memory, "activations": activations}
    if name == "cpu":
        return CpuDevice(**common, threads=threads, level=level)
    kind, _, index = str(name).partition(":")
    if kind not in ("auto", "wgpu") or (index and not index.isdigit()) or (kind == "auto" and index):
        raise DeviceError(f"unknown device {name!r}: the names are auto, cpu, wgpu, wgpu:0, wgpu:1, ...")
    from omni_rt.devices.webgpu import WebGpuDevice, adapters

    found = adapters()
    if kind == "auto":
        real = [adapter for adapter in found if not adapter.software]
        if not real:
            return CpuDevice(**common, threads=threads, level=level)
        return WebGpuDevice(real[0], **common)
    chosen = int(index or 0)
    if chosen >= len(found):
        listing = ", ".join(f"wgpu:{i} = {adapter.name}" for i, adapter in enumerate(found)) or "none"
        raise DeviceError(
            f"no Vulkan adapter for device {name!r} (found: {listing}). Install a Vulkan driver "
            "(Debian, Ubuntu: apt install mesa-vulkan-drivers), or use --device cpu"
        )
    return WebGpuDevice(found[chosen], **common)
