"""The rules that every WGSL kernel keeps, each a function from what is declared and written to complaints.

The rules read text only: what the driver says is for the tests that compile. shaders/README.md has them in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import omni_rt.ops  # noqa: F401 (fills the table)
from omni_rt.devices import shader
from omni_rt.ops.contract import DTYPE_CLASSES, TABLE, Kernel, Op, Operand

MOST_LINES = 150
DEFAULT_STORAGE = 16 << 10
DEFAULT_INVOCATIONS = 256

PLANES = {
    "f32": (("", "f32"),),
    "i32": (("", "i32"),),
    "f16": (("", "f16"),),
    "q8_0": (("_q", "int8"), ("_d", "f16")),
    "q8": (("_q", "int8"), ("_d", "f32")),
    "q16": (("_q", "int8"), ("_d", "f32")),
}
"""The planes of a dtype: what its name ends in, and what the header calls its values."""

STORED_AS = {
    "f32": ("f32",),
    "i32": ("i32", "atomic<i32>"),
    "f16": ("u32", "f16", "atomic<u32>"),
    "int8": ("u32", "i32"),
}
"""The scalar types that a plane may be bound as; vectors of them are allowed too."""

BINDING = re.compile(r"^@group\(0\) @binding\((\d+)\) var<(storage|uniform)(?:, (\w+))?> (\w+): (.+);", re.MULTILINE)
HEADER_PLANE = re.compile(r"(\w+) \[([^\]]*)\] (f32|f16|i32|int8|u32)")
FUNCTION = re.compile(r"^\s*(?:@compute.*\n)?fn (\w+)\(", re.MULTILINE)
BARRIER = re.compile(r"\b(?:workgroupBarrier|storageBarrier|workgroupUniformLoad)\b")


@dataclass(frozen=True)
class Shader:
    """A kernel with its declaration: the op, the kernel, the file's own text, and the text with its libraries."""

    op: Op
    kernel: Kernel
    text: str
    source: str


@cache
def kernels() -> dict[str, Shader]:
    """Return every declared kernel by the name of its file."""
    found = {}
    for op in TABLE.values():
        for kernel in op.kernels:
            path = shader.shader_directory() / f"{kernel.shader}.wgsl"
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            found[kernel.shader] = Shader(op, kernel, text, shader.load_source(kernel.shader) if text else "")
    return found


def planes(item: Shader) -> list[tuple[str, str, bool]]:
    """Return (name, value type, written) of every plane that the kernel binds, in order."""
    result = []
    for operand in (*item.op.operands, *item.op.outputs):
        written = operand.name in item.op.mutates or operand in item.op.outputs
        result += [(operand.name + end, kind, written) for end, kind in PLANES[dtype_of(item.kernel, operand)]]
    return result


def dtype_of(kernel: Kernel, operand: Operand) -> str:
    """Return the dtype that the kernel takes for an operand: the one it names, or the first of its class."""
    plain = DTYPE_CLASSES[operand.dtype_class][0]
    return kernel.rounded.get(operand.name, kernel.dtypes.get(operand.name, plain))


def file_exists(item: Shader) -> Iterator[str]:
    """The file lies in shaders/ under the name that the kernel declares, which begins with the op's."""
    if not item.text:
        yield f"shaders/{item.kernel.shader}.wgsl does not exist"
    if not re.sub("_(f32|f16|q8_0)", "", item.kernel.shader).startswith(item.op.name):
        yield f"the name {item.kernel.shader} does not begin with the op's, {item.op.name}"


def file_is_short(item: Shader) -> Iterator[str]:
    """No file is longer than 150 lines."""
    lines = item.text.splitlines()
    if len(lines) > MOST_LINES:
        yield f"{len(lines)} lines, {MOST_LINES} are allowed"


def header_names_the_planes(item: Shader) -> Iterator[str]:
    """The first line is the formula; `bindings:` gives name, shape, type of every plane in order; `work:` follows."""
    lines = item.text.splitlines()
    first = lines[0] if lines else ""
    if not first.startswith("// ") or not re.search("[=~]", first):
        yield f"the first line is not the formula: {first!r}"
    header = " ".join(line.removeprefix("//").strip() for line in lines[1:] if line.startswith("//"))
    match = re.search(r"\bbindings: (.*?)(?= work: |$)", header)
    listed = [(name, kind) for name, _, kind in HEADER_PLANE.findall(match[1])] if match else []
    wanted = [(name, kind) for name, kind, _ in planes(item)]
    if listed != wanted:
        yield f"the header lists {listed}, the declaration says {wanted}"
    if "work: " not in header:
        yield "the header has no `work:` line"


def bindings_are_declared(item: Shader) -> Iterator[str]:
    """Binding i is plane i of the declaration: its name, access and scalar type; Params comes last."""
    declared = [match.groups() for match in BINDING.finditer(item.text)]
    wanted = planes(item)
    names = [name for name, _, _ in wanted] + ["params"] * bool(item.kernel.uniforms)
    if [name for _, _, _, name, _ in declared] != names:
        yield f"binds {[name for _, _, _, name, _ in declared]}, the declaration says {names}"
        return
    for index, (number, space, access, name, kind) in enumerate(declared):
        if int(number) != index:
            yield f"{name} is binding {number}, its place is {index}"
        if name == "params" and index == len(wanted):
            if (space, kind) != ("uniform", "Params"):
                yield f"params is var<{space}> of type {kind}"
            continue
        _, values, written = wanted[index]
        if (space, access) != ("storage", "read_write" if written else "read"):
            yield f"{name} is var<{space}, {access}>, it is {'written' if written else 'only read'}"
        scalar = re.sub(r"^array<(.+)>$", r"\1", kind)
        scalar = re.sub(r"^vec[234]<(.+)>$", r"\1", scalar)
        if scalar not in STORED_AS[values]:
            yield f"{name} holds {values} and is bound as {kind}"


def params_are_the_uniforms(item: Shader) -> Iterator[str]:
    """The fields of Params are the declared uniforms, in order: f32 for floats, u32 (or i32) for the rest."""
    match = re.search(r"struct Params \{([^}]*)\}", item.text)
    fields = re.findall(r"(\w+): (\w+)", match[1]) if match else []
    if [name for name, _ in fields] != list(item.kernel.uniforms):
        yield f"Params has {[name for name, _ in fields]}, the declaration says {list(item.kernel.uniforms)}"
    for name, kind in fields:
        allowed = ("f32",) if name in item.op.floats else ("u32", "i32")
        if kind not in allowed:
            yield f"Params.{name} is {kind}, allowed: {allowed}"


def variants_exist(item: Shader) -> Iterator[str]:
    """Every constant that a variant names is declared as tunable, with `// tune` or as an override."""
    tunable = {match[1] for match in shader.TUNABLE.finditer(item.source)}
    overrides = {match[1] for match in shader.OVERRIDE.finditer(item.source)}
    for variant in item.kernel.variants:
        if unknown := set(variant) - tunable - overrides:
            yield f"the variant {dict(variant)} sets {sorted(unknown)}, tunable are {sorted(tunable | overrides)}"


def storage_fits(item: Shader) -> Iterator[str]:
    """A variant needs at most 16 KiB of workgroup storage and 256 invocations: what any adapter has."""
    complaints = []
    for variant in item.kernel.variants:
        source, _ = shader.specialise(item.source, variant)
        used, invocations = shader.workgroup_storage(source, variant), shader.invocations(source, variant)
        if used <= DEFAULT_STORAGE and 1 <= invocations <= DEFAULT_INVOCATIONS:
            return
        complaints.append(
            f"{used} bytes of workgroup storage and {invocations} invocations, "
            f"{DEFAULT_STORAGE} and {DEFAULT_INVOCATIONS} are allowed everywhere"
        )
    yield from complaints


def no_forbidden_words(item: Shader) -> Iterator[str]:
    """No infinities, no NaN, no arrayLength, no templating; `enable subgroups` is rejected by naga."""
    code = re.sub(r"//.*", "", item.source)
    for word in (
        r"\b(?:inf|nan|infinity)\b",
        r"\barrayLength\b",
        r"\benable subgroups\b",
        r"\{\{|\{%",
        r"\b0x7f800000u?\b",
    ):
        if match := re.search(word, code, re.IGNORECASE):
            yield f"contains {match[0]!r}"
    if len(re.findall(r"@compute", code)) != 1 or not re.search(r"\bfn main\b", item.text):
        yield "must have one entry point, main, in the file itself"
    shuffles = bool(re.search(r"\bsubgroup|\bquad(?:Swap|Broadcast)", code))
    if shuffles != ("subgroup" in item.kernel.needs):
        yield f"uses subgroup operations: {shuffles}, the kernel needs {item.kernel.needs}"
    if ("enable f16" in code) != ("shader-f16" in item.kernel.needs):
        yield f"enables f16: {'enable f16' in code}, the kernel needs {item.kernel.needs}"


def no_return_before_a_barrier(item: Shader) -> Iterator[str]:
    """A function that reaches a barrier returns before its last one only where a comment says why all lanes do."""
    told = re.sub(r"\breturn\b.*// uniform: .+", "", item.source)
    functions = _functions(re.sub(r"//.*", "", told))
    reaching = {name for name, body in functions.items() if BARRIER.search(body)}
    while True:
        calls = re.compile(r"\b(?:" + "|".join(reaching) + r")\(") if reaching else None
        more = {name for name, body in functions.items() if calls and calls.search(body)} - reaching
        if not more:
            break
        reaching |= more
    for name in sorted(reaching):
        places = [match.start() for match in BARRIER.finditer(functions[name])]
        places += [match.start() for match in calls.finditer(functions[name])] if calls else []
        early = re.search(r"\breturn\b", functions[name])
        if early and places and early.start() < max(places):
            yield f"{name} returns before a barrier"


RULES = (
    file_exists,
    file_is_short,
    header_names_the_planes,
    bindings_are_declared,
    params_are_the_uniforms,
    variants_exist,
    storage_fits,
    no_forbidden_words,
    no_return_before_a_barrier,
)


def _functions(code: str) -> dict[str, str]:
    """Return the bodies of the functions of WGSL code, by name."""
    bodies = {}
    for match in FUNCTION.finditer(code):
        start = code.index("{", code.index(")", match.end()))
        depth, at = 1, start + 1
        while depth:
            depth += {"{": 1, "}": -1}.get(code[at], 0)
            at += 1
        bodies[match[1]] = code[start:at]
    return bodies


def shader_files() -> list[Path]:
    """Return every WGSL file of the project: kernels and libraries."""
    return sorted(shader.shader_directory().rglob("*.wgsl"))
