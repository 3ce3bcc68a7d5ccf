"""Device memory survives what Python does with the tensors over it."""

from __future__ import annotations

import gc

import numpy as np

from omni_rt import ops
from omni_rt.devices.webgpu import WebGpuDevice


class Holder:
    """An object that refers to itself, as the frames of a caught exception do."""

    def __init__(self, *tensors: object) -> None:
        self.tensors = tensors
        self.cycle = self


def test_tensors_collected_in_a_reference_cycle_leave_usable_buffers(gpu: WebGpuDevice) -> None:
    ones = np.ones((3, 9173), np.float32)
    gc.collect()
    Holder(gpu.tensor(ones), ops.concat_rows(gpu.tensor(ones), gpu.tensor(ones)))
    gc.collect()
    doubled = ops.concat_rows(gpu.tensor(ones), gpu.tensor(2 * ones)).numpy()
    np.testing.assert_array_equal(doubled, np.concatenate([ones, 2 * ones]))
