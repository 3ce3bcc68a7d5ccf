"""Every kernel computes what its op declares: each kernel x variant x size x kind of values against float64."""

from __future__ import annotations

import pytest

import omni_rt.ops  # noqa: F401 (fills the table)
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.ops.contract import TABLE
from tests.parity import Case, cases, check


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_kernel_agrees_with_the_body_in_float64(gpu: WebGpuDevice, case: Case) -> None:
    check(gpu, case)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_op_has_a_kernel_and_a_domain(name: str) -> None:
    assert TABLE[name].kernels, f"{name} has no kernel: on a GPU it would fall back to the CPU"
    assert TABLE[name].domain, f"{name} has no domain: nothing checks its kernels"
