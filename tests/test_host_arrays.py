"""Memory for weights and caches: aligned, in large pages where there are any, zeros at first, nobody's twice."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from omni_rt import host_arrays
from omni_rt.host_arrays import LARGE_PAGE, LEAST, SLAB, aligned, zeros

SIZES = [0, 1, 100, LEAST - 1, LEAST, LEAST + 1, 3 << 20, SLAB // 2 - 1, SLAB // 2, SLAB + 5]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [aligned, zeros])
def test_arrays_have_their_shape_and_large_ones_begin_with_a_line(make, size: int) -> None:  # type: ignore[no-untyped-def]
    array = make((size, 2), np.float16)
    assert array.shape == (size, 2) and array.dtype == np.float16 and array.flags.writeable
    if size and (make is aligned or size * 4 >= LEAST):
        assert array.ctypes.data % 64 == 0
    array[...] = 1
    assert array.all()


def test_zeros_are_zeros_after_others_have_written_and_gone() -> None:
    for _ in range(100):
        array = zeros((LEAST + 3,), np.uint8)
        assert not array.any()
        array[...] = 255
        del array


def test_threads_never_share_memory() -> None:
    def make(index: int) -> np.ndarray:
        array = aligned((LEAST + 100 * index,), np.uint8)
        array[...] = index
        return array

    with ThreadPoolExecutor(8) as threads:
        arrays = list(threads.map(make, range(200)))
    assert all((array == index).all() for index, array in enumerate(arrays))
    bounds = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)
    assert all(end <= start for (_, end), (start, _) in pairwise(bounds))


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no large pages")
def test_a_large_array_begins_with_a_large_page() -> None:
    assert aligned((SLAB,), np.uint8).ctypes.data % LARGE_PAGE == 0


def test_without_large_pages_numpy_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    monkeypatch.setattr(host_arrays, "_slabs", None)
    assert aligned((SLAB,), np.uint8).ctypes.data % 64 == 0 and not zeros((LEAST,), np.float32).any()
