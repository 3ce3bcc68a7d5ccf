"""WGSL files: finding them, appending their libraries, setting their tunable constants, reading their headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

from omni_rt.errors import DeviceError

TUNABLE = re.compile(r"^const (\w+): u32 = (\d+)u; // tune", re.MULTILINE)
OVERRIDE = re.compile(r"^override (\w+): u32 = (\d+)u;", re.MULTILINE)
LIBRARIES = re.compile(r"^// lib: (.+)$", re.MULTILINE)
LINKED = re.compile(r"^const LINKED: u32 = 4u;", re.MULTILINE)
FEWEST_LINKED, MOST_LINKED = 4, 32
WIDE_VENDORS = {0x10DE: "NVIDIA", 0x1002: "AMD", 0x106B: "Apple"}
"""PCI numbers of vendors whose subgroups have 32 lanes or more."""
SOFTWARE = re.compile(r"llvmpipe .*\b(\d+) bits")
"""A software adapter's name, which tells the width of its vectors: a subgroup is one, a lane 32 bits of it."""


@cache
def shader_directory() -> Path:
    """Return the folder of the WGSL files: in the installed package, or beside it in a checkout."""
    installed = Path(str(resources.files("omni_rt"))) / "shaders"
    return installed if installed.is_dir() else installed.parent.parent / "shaders"


@cache
def load_source(name: str) -> str:
    """Return a kernel's WGSL with the libraries appended that its `// lib:` line names.

    Raises DeviceError when the file is missing.
    """
    path = shader_directory() / f"{name}.wgsl"
    if not path.is_file():
        raise DeviceError(f"the shader {name} is missing: {path} does not exist; reinstall omni-rt")
    source = path.read_text(encoding="utf-8")
    wanted: list[str] = []
    for line in LIBRARIES.findall(source):
        wanted += [library.strip() for library in line.split(",")]
    parts = [source]
    for library in wanted:
        parts.append((shader_directory() / "lib" / f"{library}.wgsl").read_text(encoding="utf-8"))
    return "\n".join(parts)


def specialise(source: str, variant: Mapping[str, int], linked: int = FEWEST_LINKED) -> tuple[str, dict[str, float]]:
    """Apply a variant: return the source with its `// tune` constants set, and the values of its overrides.

    `linked` neighbouring lanes certainly share a subgroup. Raises DeviceError when the variant names a constant that
    the source does not declare as tunable.
    """
    constants = {match[1] for match in TUNABLE.finditer(source)}
    overrides = {match[1] for match in OVERRIDE.finditer(source)}
    unknown = set(variant) - constants - overrides
    if unknown:
        raise DeviceError(f"no tunable constant {sorted(unknown)} in a shader that has {sorted(constants | overrides)}")

    def replace(match: re.Match[str]) -> str:
        return f"const {match[1]}: u32 = {variant.get(match[1], int(match[2]))}u; // tune"

    source = LINKED.sub(f"const LINKED: u32 = {linked}u;", TUNABLE.sub(replace, source))
    return source, {name: float(variant[name]) for name in overrides if name in variant}


def linked_lanes(info: Mapping[str, Any]) -> int:
    """Return how many neighbouring lanes certainly share a subgroup of an adapter: what its vendor never goes below.

    The smallest size that wgpu reports is 4 for every adapter. A software adapter says by its name what it has.
    """
    if match := SOFTWARE.match(info.get("device", "")):
        return max(int(match[1]) // 32, FEWEST_LINKED)
    return MOST_LINKED if info.get("vendor_id") in WIDE_VENDORS else FEWEST_LINKED


TYPE_BYTES = {"f16": 2, "f32": 4, "u32": 4, "i32": 4, "atomic<u32>": 4, "vec2<f32>": 8, "vec2<u32>": 8, "vec2<i32>": 8}
TYPE_BYTES |= dict.fromkeys(("vec3<f32>", "vec4<f32>", "vec4<u32>", "vec4<i32>"), 16)
ALIAS = re.compile(r"^alias (\w+) = (.+);", re.MULTILINE)
WORKGROUP = re.compile(r"^var<workgroup>\s+\w+\s*:\s*(.+);", re.MULTILINE)
WORKGROUP_SIZE = re.compile(r"@workgroup_size\(([^)]*)\)")
FUNCTIONS = {"min": min, "max": max}
CONSTANT = re.compile(r"^(?:const|override) (\w+)(?:: u32)? = (.+?);", re.MULTILINE)


def workgroup_storage(source: str, variant: Mapping[str, int]) -> int:
    """Return the bytes of workgroup storage that a specialised source declares; wgpu itself does not check them."""
    values = _constants(source, variant)
    for alias, meant in ALIAS.findall(source):
        source = re.sub(rf"\b{alias}\b", meant, source)
    return sum(_type_bytes(declared.strip(), values) for declared in WORKGROUP.findall(source))


def invocations(source: str, variant: Mapping[str, int]) -> int:
    """Return the invocations per workgroup of a specialised source; 0 when it does not say."""
    match = WORKGROUP_SIZE.search(source)
    values = _constants(source, variant)
    return prod(_value(part, values) for part in match[1].split(",")) if match else 0


def _constants(source: str, variant: Mapping[str, int]) -> dict[str, int]:
    """Return the values of the module's constants and overrides that follow from numbers alone."""
    values: dict[str, int] = {}
    for name, expression in CONSTANT.findall(source):
        plain = re.sub(r"(\d)u\b", r"\1", expression)
        known = {*values, *FUNCTIONS}
        if re.fullmatch(r"[\w\s+*/%(),-]+", plain) and set(re.findall(r"[A-Za-z_]\w*", plain)) <= known:
            values[name] = variant.get(name, _value(plain, values))
    return values


def _value(expression: str, values: Mapping[str, int]) -> int:
    plain = re.sub(r"(\d)u\b", r"\1", expression).replace("/", "//")
    return int(eval(plain, {"__builtins__": {}} | FUNCTIONS, dict(values)))


def _type_bytes(declared: str, values: Mapping[str, int]) -> int:
    match = re.fullmatch(r"array<(.+),\s*([^,>]+)>", declared)
    if not match:
        return TYPE_BYTES.get(declared, 16)
    return _type_bytes(match[1].strip(), values) * _value(match[2], values)
