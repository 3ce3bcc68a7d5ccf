"""No kernel shows what an earlier one left in workgroup memory: GPUs do not clear it, whatever WGSL says.

What is left is often no number, and 0 times that is none either: a value that does not count must not be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from omni_rt.devices import open_device, shader
from omni_rt.devices.webgpu import WebGpuDevice
from tests.parity import Case, cases, check
from tests.shader_lint import kernels

ARRAY = re.compile(r"^var<workgroup> (\w+): array<([\w<>]+), (.+)>;", re.MULTILINE)
ATOMIC = re.compile(r"^var<workgroup> (\w+): atomic<u32>;", re.MULTILINE)
MAIN = re.compile(r"@workgroup_size\((\w+)\)\s*fn main\([^{]*\{")
LEFT = "0x7fc00000u"
"""The bits of a float that is no number, and of a large integer."""


def left_behind(source: str) -> str:
    """Return a kernel that finds its workgroup memory as another may have left it."""
    begin = MAIN.search(source)
    assert begin, "there is no main"
    bits = f"({LEFT} + (lane & 0u))"  # not a constant: WGSL refuses such a float
    lines = [f"atomicStore(&{name}, {bits});" for name in ATOMIC.findall(source)]
    for name, kind, size in ARRAY.findall(source):
        scalar = re.sub(r"vec\d<(\w+)>", r"\1", kind)
        value = bits if scalar == "u32" else f"bitcast<{scalar}>({bits})"
        lines.append(f"for (var i = lane; i < {size}; i += {begin[1]}) {{ {name}[i] = {kind}({value}); }}")
    return source[: begin.end()] + "\n  " + "\n  ".join([*lines, "workgroupBarrier();"]) + source[begin.end() :]


def sharing(name: str) -> bool:
    """Return whether a kernel has workgroup memory."""
    return "var<workgroup>" in kernels()[name].source


@pytest.fixture(scope="module")
def littered() -> Iterator[WebGpuDevice]:
    """A device on which every kernel that has workgroup memory finds it in disorder."""
    clean = shader.load_source

    def load_source(name: str) -> str:
        return left_behind(clean(name)) if name in kernels() and sharing(name) else clean(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shader, "load_source", load_source)
        with open_device("wgpu", strict=True) as device:
            assert isinstance(device, WebGpuDevice)
            yield device


CASES = [case for case in cases() if case.values == "normal" and sharing(case.kernel.shader)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_kernel_does_not_show_what_an_earlier_one_left(littered: WebGpuDevice, case: Case) -> None:
    check(littered, case)


def test_all_workgroup_memory_is_littered() -> None:
    for name in filter(sharing, kernels()):
        source = kernels()[name].source
        declared = set(re.findall(r"var<workgroup> (\w+)", re.sub(r"//.*", "", source)))
        assert declared == {*ATOMIC.findall(source), *(array for array, _, _ in ARRAY.findall(source))}, name
