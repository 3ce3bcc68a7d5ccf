"""Every WGSL kernel keeps the rules of shaders/README.md, generated from the declarations, and every rule can fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from omni_rt.devices import shader
from omni_rt.devices.pipelines import binding_kinds
from omni_rt.devices.webgpu import WANTED_FEATURES, WebGpuDevice, adapters
from omni_rt.ops.contract import Kernel
from tests.shader_lint import RULES, Shader, kernels, shader_files

EXAMPLE = "conv1d_f32_skinny"
PACKAGE = Path(shader.__file__).parent.parent


@pytest.fixture(scope="module")
def checked() -> Iterator[WebGpuDevice]:
    """The first adapter with the bounds checks that release mode leaves out."""
    with WebGpuDevice(adapters()[0], strict=True, release=False) as device:
        yield device


@pytest.mark.parametrize("name", sorted(kernels()))
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_kernel_keeps_the_rule(rule: Callable[[Shader], Iterator[str]], name: str) -> None:
    complaints = list(rule(kernels()[name]))
    assert not complaints, f"shaders/{name}.wgsl: " + "; ".join(complaints)


BREAKAGES: dict[str, Callable[[Shader], Shader]] = {
    "file_exists": lambda s: replace(s, text=""),
    "file_exists (name)": lambda s: replace(s, kernel=replace(s.kernel, shader="other")),
    "file_is_short": lambda s: _edit(s, "\n", "\n" * 10, count=40),
    "header_names_the_planes": lambda s: _edit(s, r"w \[", "v ["),
    "header_names_the_planes (order)": lambda s: _edit(s, r"x \[T, C\] f32; ", ""),
    "header_names_the_planes (formula)": lambda s: _edit(s, "// y", "/* y */"),
    "header_names_the_planes (work)": lambda s: _edit(s, "// work:", "// by:"),
    "bindings_are_declared": lambda s: _edit(s, "> w: ", "> weights: "),
    "bindings_are_declared (number)": lambda s: _edit(s, r"@binding\(1\)", "@binding(7)"),
    "bindings_are_declared (access)": lambda s: _edit(s, "<storage, read> x", "<storage, read_write> x"),
    "bindings_are_declared (type)": lambda s: _edit(s, r"x: array<[^;]*;", "x: array<u32>;"),
    "params_are_the_uniforms": lambda s: _edit(s, "T: u32", "S: u32"),
    "params_are_the_uniforms (type)": lambda s: _edit(s, "T: u32", "T: f32"),
    "variants_exist": lambda s: replace(s, kernel=replace(s.kernel, variants=({"UNKNOWN": 1},))),
    "storage_fits": lambda s: _edit(s, r"\Z", "var<workgroup> large: array<vec4<f32>, 1025>;\n"),
    "storage_fits (invocations)": lambda s: _edit(s, r"@workgroup_size\([^)]*\)", "@workgroup_size(32, 9)"),
    "no_forbidden_words": lambda s: _edit(s, r"\Z", "const LOWEST: f32 = -inf;\n"),
    "no_forbidden_words (length)": lambda s: _edit(s, r"\Z", "fn n() -> u32 { return arrayLength(&x); }\n"),
    "no_forbidden_words (entry)": lambda s: _edit(s, r"\Z", "@compute @workgroup_size(1) fn other() {}\n"),
    "no_forbidden_words (subgroup)": lambda s: _edit(s, r"\Z", "fn n(v: f32) -> f32 { return subgroupAdd(v); }\n"),
    "no_forbidden_words (f16)": lambda s: replace(s, kernel=replace(s.kernel, needs=("shader-f16",))),
    "no_return_before_a_barrier": lambda s: _edit(
        s, r"\Z", "fn early(lane: u32) {\n  if (lane > 3u) {\n    return;\n  }\n  workgroupBarrier();\n}\n"
    ),
    "no_return_before_a_barrier (called)": lambda s: _edit(
        s,
        r"\Z",
        "fn b() {\n  workgroupBarrier();\n}\nfn c(lane: u32) {\n  if (lane > 3u) {\n    return;\n  }\n  b();\n}\n",
    ),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_rule_sees_what_is_broken(case: str) -> None:
    rule = next(rule for rule in RULES if rule.__name__ == case.split(" ")[0])
    sound = kernels()[EXAMPLE]
    assert not list(rule(sound)), "the example must be sound before it is broken"
    assert list(rule(BREAKAGES[case](sound)))


def _edit(item: Shader, pattern: str, replacement: str, count: int = 1) -> Shader:
    """Return the shader with the first places that match `pattern` replaced, in the file as in what is compiled."""
    text, changed = re.subn(pattern, lambda _: replacement, item.text, count=count)
    assert changed, f"{pattern} is not in the example"
    return replace(item, text=text, source=text + item.source[len(item.text) :])


def test_every_file_serves_a_kernel() -> None:
    devices = "\n".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "devices").glob("*.py"))
    for path in shader_files():
        if path.parent.name == "lib":
            users = [s for s in kernels().values() if path.stem in _libraries(s.text)]
            assert users, f"shaders/lib/{path.name} is appended to no kernel"
        else:
            assert path.stem in kernels() or f'"{path.stem}"' in devices, f"no op declares shaders/{path.name}"


def test_every_library_is_short_and_says_what_it_is() -> None:
    for path in shader_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 150, f"{path.name} has {len(lines)} lines"
        assert lines[0].startswith("// "), f"{path.name} does not begin with what it computes"
        assert max(map(len, lines)) <= 200, f"{path.name} has a line of {max(map(len, lines))} characters"


@pytest.mark.parametrize("name", sorted(kernels()))
@pytest.mark.parametrize("mode", ["release", "checked"])
def test_kernel_compiles(name: str, mode: str, gpu: WebGpuDevice, checked: WebGpuDevice) -> None:
    device = gpu if mode == "release" else checked
    item = kernels()[name]
    assert set(item.kernel.needs) <= set(WANTED_FEATURES), f"{name} needs a feature that no device asks for"
    if set(item.kernel.needs) <= device.features:
        compile_default(device, item.kernel, item)


def test_broken_source_does_not_compile(gpu: WebGpuDevice) -> None:
    broken = kernels()[EXAMPLE].source.replace("params.J", "params.Q", 1)
    with pytest.raises(Exception, match="Q"):
        gpu._gpu.create_shader_module(label="broken", code=broken)


def compile_default(device: WebGpuDevice, kernel: Kernel, item: Shader) -> None:
    """Make the pipeline of a kernel's default variant."""
    device.pipelines.pipeline(kernel.shader, kernel.variants[0], binding_kinds(item.op, kernel))[0].wait()


def _libraries(text: str) -> set[str]:
    return {name.strip() for line in shader.LIBRARIES.findall(text) for name in line.split(",")}


def test_lanes_are_linked_as_far_as_the_vendor_is_known_to_go() -> None:
    assert [shader.linked_lanes({"vendor_id": vendor}) for vendor in (0x10DE, 0x1002, 0x8086, 0x10005)] == [
        32,
        32,
        4,
        4,
    ]
    assert shader.linked_lanes({}) == 4
    names = [f"llvmpipe (LLVM 15.0.6, {bits} bits)" for bits in (64, 128, 256, 512)]
    assert [shader.linked_lanes({"vendor_id": 0x10005, "device": name}) for name in names] == [4, 4, 8, 16]
    source, _ = shader.specialise(shader.load_source("norm_matmul_q8_0_int8"), {}, 32)
    assert "const LINKED: u32 = 32u;" in source
