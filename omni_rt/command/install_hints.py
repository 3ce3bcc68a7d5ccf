"""How to get what is missing, in the words of this distribution's package manager."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

VULKAN = {
    "debian": "apt install libvulkan1 mesa-vulkan-drivers",
    "fedora": "dnf install vulkan-loader mesa-vulkan-drivers",
    "arch": "pacman -S vulkan-icd-loader and vulkan-radeon (AMD), vulkan-intel (Intel) or nvidia-utils (NVIDIA)",
    "suse": "zypper install libvulkan1 and libvulkan_radeon (AMD) or libvulkan_intel (Intel)",
    "alpine": "apk add vulkan-loader and mesa-vulkan-ati (AMD) or mesa-vulkan-intel (Intel)",
}
COMPILER = {
    "debian": "apt install gcc libc6-dev python3-dev",
    "fedora": "dnf install gcc python3-devel",
    "arch": "pacman -S gcc",
    "suse": "zypper install gcc python3-devel",
    "alpine": "apk add gcc musl-dev python3-dev",
}
TOOLS = {"vulkan": VULKAN, "compiler": COMPILER}


def distribution() -> str | None:
    """Return the family of the Linux distribution, one of the keys above, or None."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    for name in names:
        known = "debian" if name == "ubuntu" else "suse" if "suse" in name else "fedora" if name == "rhel" else name
        if known in VULKAN:
            return known
    return None


def tool_hint(tool: str) -> str:
    """Return the command that installs a tool here, or for every known distribution when this one is unknown."""
    commands = TOOLS[tool]
    family = distribution()
    if family is not None:
        return commands[family]
    return "; ".join(f"{name}: {command}" for name, command in commands.items())


def package_hint() -> str:
    """Return how to install a Vulkan driver here."""
    if sys.platform == "darwin":
        return "Metal is part of macOS: this machine offers no GPU"
    if sys.platform == "win32":
        return "install the driver of the GPU's maker"
    return f"{tool_hint('vulkan')} (an NVIDIA GPU: its own driver, which brings Vulkan)"


def render_group_hint() -> str | None:
    """Return how to get access to the GPU's device file, None when that is not what is wrong."""
    nodes = sorted(Path("/dev/dri").glob("renderD*")) if Path("/dev/dri").is_dir() else []
    if nodes and not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return f"{nodes[0]} may not be opened by this user: sudo usermod -aG render,video $USER, then log in again"
    return None
