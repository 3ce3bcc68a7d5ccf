"""How much memory GPUs have left, as Vulkan tells it: WebGPU has no call for it.

The loader is called through ctypes, with an instance of its own that is given back at once. Without Vulkan (Metal,
Direct3D only) nothing is known.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIBRARY = "vulkan-1.dll" if sys.platform == "win32" else "libvulkan.so.1"
_APPLICATION, _INSTANCE, _PROPERTIES, _BUDGET = 0, 1, 1000059006, 1000237000
"""VkStructureType of what is handed over."""
_VERSION_1_1 = 1 << 22 | 1 << 12
_DEVICE_LOCAL = 1
_CPU = 4
_MOST_GPUS = 16
_PROPERTY_BYTES = 4096  # VkPhysicalDeviceProperties has 824; only its first words are read


@dataclass(frozen=True)
class GpuMemory:
    """The memory of one GPU in bytes: all of it, and what this program may still take.

    `software` says that the GPU is a program on the CPU, and its memory the machine's.
    """

    name: str
    software: bool
    vendor: int
    device: int
    total: int
    available: int


class _Application(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32), ("next", ctypes.c_void_p), ("name", ctypes.c_char_p), ("version", ctypes.c_uint32),
        ("engine", ctypes.c_char_p), ("engine_version", ctypes.c_uint32), ("api", ctypes.c_uint32),
    ]  # fmt: skip


class _Instance(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32), ("next", ctypes.c_void_p), ("flags", ctypes.c_uint32),
        ("application", ctypes.POINTER(_Application)), ("layers", ctypes.c_uint32), ("layer_names", ctypes.c_void_p),
        ("extensions", ctypes.c_uint32), ("extension_names", ctypes.c_void_p),
    ]  # fmt: skip


class _Heap(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint64), ("flags", ctypes.c_uint32)]


class _Budget(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32), ("next", ctypes.c_void_p),
        ("budget", ctypes.c_uint64 * 16), ("usage", ctypes.c_uint64 * 16),
    ]  # fmt: skip


class _Memory(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32), ("next", ctypes.POINTER(_Budget)), ("type_count", ctypes.c_uint32),
        ("types", ctypes.c_uint32 * 64), ("heap_count", ctypes.c_uint32), ("heaps", _Heap * 16),
    ]  # fmt: skip


def gpu_memory() -> list[GpuMemory]:
    """List the GPUs that Vulkan finds with the memory of their own heap; empty when it finds none."""
    try:
        vulkan = ctypes.CDLL(LIBRARY)
        create, destroy = vulkan.vkCreateInstance, vulkan.vkDestroyInstance
    except (OSError, AttributeError):
        return []
    application = _Application(kind=_APPLICATION, api=_VERSION_1_1)
    wanted = _Instance(kind=_INSTANCE, application=ctypes.pointer(application))
    instance = ctypes.c_void_p()
    if create(ctypes.byref(wanted), None, ctypes.byref(instance)) != 0:
        return []
    try:
        count, handles = ctypes.c_uint32(_MOST_GPUS), (ctypes.c_void_p * _MOST_GPUS)()
        if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles) not in (0, 5):  # 5: there are more
            return []
        return [_memory(vulkan, ctypes.c_void_p(handles[i])) for i in range(count.value)]
    finally:
        destroy(instance, None)


def left_on(adapter: Mapping[str, Any]) -> int | None:
    """Return the bytes that a GPU has left, given its adapter's info; None where Vulkan does not find it."""
    alike = [gpu for gpu in gpu_memory() if (gpu.vendor, gpu.device) == (adapter["vendor_id"], adapter["device_id"])]
    return max((gpu.available for gpu in alike), default=None)


def _memory(vulkan: ctypes.CDLL, handle: ctypes.c_void_p) -> GpuMemory:
    words = (ctypes.c_uint32 * (_PROPERTY_BYTES // 4))()
    vulkan.vkGetPhysicalDeviceProperties(handle, ctypes.byref(words))
    budget = _Budget(kind=_BUDGET)
    memory = _Memory(kind=_PROPERTIES, next=ctypes.pointer(budget))
    vulkan.vkGetPhysicalDeviceMemoryProperties2(handle, ctypes.byref(memory))
    own = [i for i in range(memory.heap_count) if memory.heaps[i].flags & _DEVICE_LOCAL]
    largest = max(own, key=lambda i: memory.heaps[i].size, default=0)
    total = memory.heaps[largest].size
    left = total
    if budget.budget[largest]:  # zero: a driver without VK_EXT_memory_budget
        left = max(budget.budget[largest] - budget.usage[largest], 0)
    name = bytes(words)[20:276].partition(b"\0")[0].decode(errors="replace")
    return GpuMemory(name, words[4] == _CPU, words[2], words[3], total, left)
