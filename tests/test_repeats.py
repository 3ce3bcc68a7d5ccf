"""Kernels whose lanes wait for each other are right each time: a race shows on real GPUs, and only now and then."""

from __future__ import annotations

import re

import pytest

from omni_rt.devices import shader
from omni_rt.devices.pipelines import OWN_KERNELS
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.ops.contract import TABLE
from tests.parity import Case, cases, check
from tests.shader_lint import BARRIER, kernels

REPEATS = {"gpu": 50, "software": 2}


def largest_cases() -> list[Case]:
    """Return, for every kernel with a barrier and each of its variants, the largest call of its domain."""
    found: dict[tuple[str, str], Case] = {}
    for case in cases():
        name = case.kernel.shader
        if case.values == "normal" and BARRIER.search(re.sub(r"//.*", "", kernels()[name].source)):
            size = sum(value for value in case.dims.values() if isinstance(value, int))
            best = found.get((name, str(case.variant)))
            if best is None or size >= sum(value for value in best.dims.values() if isinstance(value, int)):
                found[name, str(case.variant)] = case
    return list(found.values())


@pytest.mark.parametrize("case", largest_cases(), ids=str)
def test_kernel_with_a_barrier_is_right_every_time(gpu: WebGpuDevice, case: Case) -> None:
    check(gpu, case, repeats=REPEATS["software" if gpu.adapter.software else "gpu"])


def test_every_kernel_with_a_barrier_is_repeated_with_every_value_of_its_constants() -> None:
    waiting = {name for name, item in kernels().items() if BARRIER.search(re.sub(r"//.*", "", item.source))}
    assert {"softmax", "conv1d_f16_tiled", "conv1d_f32_few"} <= waiting and "add" not in waiting
    variants = [(k.shader, v) for op in TABLE.values() for k in op.kernels for v in k.variants if k.shader in waiting]
    declared = {(shader, *value) for shader, variant in variants for value in variant.items()}
    repeated = {(case.kernel.shader, *value) for case in largest_cases() for value in case.variant.items()}
    left_out = [f"{shader} {name}={value}" for shader, name, value in sorted(declared - repeated)]
    assert not left_out, f"no call of a domain reaches {', '.join(left_out)}"
    assert waiting == {case.kernel.shader for case in largest_cases()}


def test_kernels_of_the_device_itself_have_no_barrier() -> None:
    for name in OWN_KERNELS:
        assert not BARRIER.search(re.sub(r"//.*", "", shader.load_source(name))), f"nothing here repeats {name}"
