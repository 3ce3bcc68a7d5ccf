"""The op contract: one declaration per op, from which everything else is derived.

A declaration holds a signature (operands, shapes, dtypes), a NumPy body that is the reference, and the kernels that
compute the same thing on a GPU. Parity tests, shader lint, microbenchmarks, the op listing and the trace read it.

Signature grammar: `"x[T, K], w[N, K]:weight -> y[T, N]"`. An extent is a symbol, a number, or (inputs) a number times a
symbol, or (outputs) any expression of symbols and attributes. The dtype follows a colon and is f32 when left out:
`i32`; `weight` = f32, f16 or q8_0; `float` = f32 or f16.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any

import numpy as np

from omni_rt.tensor import Tensor

DTYPE_CLASSES: dict[str, tuple[str, ...]] = {
    "f32": ("f32",),
    "i32": ("i32",),
    "weight": ("f32", "f16", "q8_0"),
    "float": ("f32", "f16"),
}

TABLE: dict[str, Op] = {}
"""Every declared op by name."""


def cdiv(a: int, b: int) -> int:
    """Return a / b rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class Operand:
    """One operand or output of a signature: its name, extents (source text and code) and dtype class."""

    name: str
    extents: tuple[str, ...]
    dtype_class: str
    code: tuple[CodeType, ...]

    def shape(self, dims: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the shape for known `dims` (symbols and attributes)."""
        return tuple(int(eval(code, {"__builtins__": {}}, dims)) for code in self.code)


class Call:
    """The extents, attributes and operand dtypes of one call: `c.T`, `c.scale`, `c.dtypes["w"]`."""

    __slots__ = ("dims", "dtypes")

    def __init__(self, dims: dict[str, Any], dtypes: dict[str, str]) -> None:
        self.dims = dims
        self.dtypes = dtypes

    def __getattr__(self, name: str) -> Any:
        try:
            return self.dims[name]
        except KeyError:
            raise AttributeError(name) from None


def always(call: Call) -> bool:
    """Accept every call."""
    return True


@dataclass(frozen=True)
class Tolerance:
    """Largest error that parity allows: `nmse` over the whole output, `peak` per element, both relative to its RMS."""

    nmse: float = 1e-10
    peak: float = 1e-4


INT8_ROUNDING = Tolerance(nmse=1e-3, peak=0.2)
"""What rows of activations lose when they are rounded to int8: half a step of 1/127 of the largest in 16."""

FINE_ROUNDING = Tolerance(nmse=1e-8, peak=1e-3)
"""What they lose in two int8 a value, of which the second is 256 times as fine: 16 bits."""


@dataclass(frozen=True)
class Kernel:
    """A WGSL kernel that computes an op for some calls.

    `uniforms` name the extents and attributes that make up `Params`, in order. `dtypes` restricts operands (an absent
    operand takes its first dtype). `when` sees the call. `grid` returns the workgroups. `variants` are values for the
    tunable constants, the first is the default. `needs` are device features. `splits` names the operand that may come
    in row ranges: `row_start` and `row_count` then belong to `uniforms`, and the kernel runs once per range. `int8`
    says that it rounds rows of activations to int8, which a device may forbid; `tolerance` is its own, if any.
    `rounded` says as what it takes f32 operands that the device rounds beforehand, by name: q8 or q16, which are int8
    quants, one a value or two, and f32 scales.
    """

    shader: str
    uniforms: tuple[str, ...]
    grid: Callable[[Call, Mapping[str, int]], tuple[int, int, int]]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    when: Callable[[Call], bool] = always
    variants: tuple[Mapping[str, int], ...] = ({},)
    needs: tuple[str, ...] = ()
    splits: str | None = None
    int8: bool = False
    rounded: Mapping[str, str] = field(default_factory=dict)
    tolerance: Tolerance | None = None


@dataclass(frozen=True)
class Native:
    """A C body that computes an op for some calls on the CPU; see omni_rt/native.

    `uniforms` name the extents and attributes that it takes, in order. `dtypes` and `when` restrict as in Kernel.
    `int8` says that it rounds rows of activations to int8, which a device may forbid; `tolerance` is its own, if any.
    """

    function: str
    uniforms: tuple[str, ...]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    when: Callable[[Call], bool] = always
    int8: bool = False
    tolerance: Tolerance | None = None

    def takes(self, op: Op, call: Call) -> bool:
        """Say whether the body takes operands of the call's dtypes, and the call."""
        return self.when(call) and all(
            call.dtypes[o.name] == self.dtypes.get(o.name, DTYPE_CLASSES[o.dtype_class][0]) for o in op.operands
        )


def by_weight(name: str, *uniforms: str, dtypes: Sequence[str] = DTYPE_CLASSES["weight"]) -> list[Native]:
    """Return a C body for each dtype of the weight w."""
    return [Native(f"{name}_{dtype}", uniforms, {"w": dtype}) for dtype in dtypes]


Example = Callable[[np.random.Generator, Mapping[str, Any]], Mapping[str, np.ndarray]]
"""Makes the operands that must obey a rule (ids in range, lengths): from extents to arrays, by operand name."""


class Op:
    """A declared op. Calling it runs it on the device of its operands."""

    def __init__(
        self,
        signature: str,
        body: Callable[..., Any],
        kernels: Sequence[Kernel],
        natives: Sequence[Native],
        mutates: Sequence[str],
        tolerance: Tolerance,
        domain: Sequence[Mapping[str, Any]],
        example: Example | None,
        bench: Sequence[Mapping[str, Any]],
        touched: Mapping[str, Callable[[Mapping[str, Any]], float]],
        flops: Callable[[Call], float] | None,
    ) -> None:
        self.name = body.__name__
        self.signature = signature
        self.body = body
        self.natives = tuple(natives)
        self.mutates = tuple(mutates)
        self.tolerance = tolerance
        self.domain = tuple(domain)
        self.example = example
        self.bench = tuple(bench)
        self.touched = dict(touched)
        self.flops = flops
        left, right = signature.split("->")
        self.operands = _parse(left)
        self.outputs = _parse(right)
        plain = {operand.name: DTYPE_CLASSES[operand.dtype_class][0] for operand in self.operands}
        self.kernels = tuple(replace(kernel, dtypes=plain | dict(kernel.dtypes)) for kernel in kernels)
        self.attributes: dict[str, Any] = {
            name: parameter.default
            for name, parameter in inspect.signature(body).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        self.floats = {
            name for name, parameter in inspect.signature(body).parameters.items() if parameter.annotation == "float"
        } & set(self.attributes)
        names = [
            name
            for name, parameter in inspect.signature(body).parameters.items()
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        ]
        if names != [operand.name for operand in self.operands]:
            raise TypeError(f"{self.name}: the signature names {[o.name for o in self.operands]}, the body {names}")
        self.__doc__ = body.__doc__

    def __call__(self, *operands: Tensor, **attributes: Any) -> Any:
        """Run on the device that holds the operands; return the outputs (one tensor, a tuple, or None)."""
        return operands[0].device.run(self, operands, attributes)

    def bind(self, shapes: Sequence[Sequence[int]], dtypes: Sequence[str], attributes: Mapping[str, Any]) -> Call:
        """Check shapes and dtypes against the signature and return the call's extents.

        Raises TypeError for a wrong operand count, dtype or attribute; ValueError for extents that disagree.
        """
        if len(shapes) != len(self.operands):
            raise TypeError(f"{self.name} takes {len(self.operands)} operands ({self.signature}), got {len(shapes)}")
        dims: dict[str, Any] = dict(self.attributes)
        for name, value in attributes.items():
            if name not in dims:
                raise TypeError(f"{self.name} has no attribute {name}; it has {sorted(self.attributes) or 'none'}")
            dims[name] = float(value) if name in self.floats else value
        for name in self.attributes:
            if dims[name] is inspect.Parameter.empty:
                raise TypeError(f"{self.name} needs the attribute {name}")
        for operand, shape, dtype in zip(self.operands, shapes, dtypes, strict=True):
            if dtype not in DTYPE_CLASSES[operand.dtype_class]:
                allowed = ", ".join(DTYPE_CLASSES[operand.dtype_class])
                raise TypeError(f"{self.name}: {operand.name} is {dtype}, allowed: {allowed}")
            if len(shape) != len(operand.extents):
                raise ValueError(f"{self.name}: {operand.name}{list(shape)} does not fit {self.signature}")
            for extent, size in zip(operand.extents, shape, strict=True):
                self._bind_extent(operand, shape, extent, size, dims)
        return Call(dims, {operand.name: dtype for operand, dtype in zip(self.operands, dtypes, strict=True)})

    def _bind_extent(
        self, operand: Operand, shape: Sequence[int], extent: str, size: int, dims: dict[str, Any]
    ) -> None:
        factor, _, symbol = extent.rpartition("*")
        multiple = int(factor) if factor else 1
        symbol = symbol.strip()
        expected = int(symbol) if symbol.isdigit() else dims.get(symbol)
        if expected is None and size % multiple == 0:
            dims[symbol] = size // multiple
        elif expected is None or size != expected * multiple:
            raise ValueError(
                f"{self.name}: {operand.name}{list(shape)} has {extent} = {size}, "
                f"but {symbol} = {expected} ({self.signature})"
            )

    def __repr__(self) -> str:
        return f"<op {self.name}({self.signature})>"


def op(
    signature: str,
    *,
    kernels: Sequence[Kernel] = (),
    natives: Sequence[Native] = (),
    mutates: Sequence[str] = (),
    tolerance: Tolerance = Tolerance(),
    domain: Sequence[Mapping[str, Any]] = (),
    example: Example | None = None,
    bench: Sequence[Mapping[str, Any]] = (),
    touched: Mapping[str, Callable[[Mapping[str, Any]], float]] | None = None,
    flops: Callable[[Call], float] | None = None,
) -> Callable[[Callable[..., Any]], Op]:
    """Declare an op: decorate its NumPy body with the signature and all that is known about it.

    `domain` lists the calls that the parity tests make, each a mapping of every input symbol and attribute to a value.
    `bench` lists calls of real models in the same form. `example` makes the operands that must obey a rule. `touched`
    says which share of an operand a call reads, by its extents, where that is not all (rows chosen from a table).
    `flops` counts a call's multiplications and additions, where they may be what takes the time.
    """

    def declare(body: Callable[..., Any]) -> Op:
        declared = Op(
            signature, body, kernels, natives, mutates, tolerance, domain, example, bench, touched or {}, flops
        )
        if declared.name in TABLE:
            raise TypeError(f"the op {declared.name} is declared twice")
        TABLE[declared.name] = declared
        return declared

    return declare


def _parse(side: str) -> tuple[Operand, ...]:
    operands = []
    for match in re.finditer(r"(\w+)\[([^\]]*)\](?::(\w+))?", side):
        name, inside, dtype = match.groups()
        extents = tuple(extent.strip() for extent in inside.split(","))
        code = tuple(compile(extent, f"<extent of {name}>", "eval") for extent in extents)
        operands.append(Operand(name, extents, dtype or "f32", code))
    return tuple(operands)
