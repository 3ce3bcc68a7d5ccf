"""Attention and its caches: random shapes and masks, rings that wrap, and a prefill that equals decoding one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rt import ops
from omni_rt.devices.device import Device
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.tensor import Tensor

ONCE_PER_DEVICE = settings(max_examples=25)


def attend_slowly(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, end: int, *, causal: bool, window: int, block: int
) -> np.ndarray:
    """Attention spelled out query by query, head by head, over whole histories k, v [end, G, D]."""
    out = np.zeros(q.shape)
    repeat = q.shape[1] // k.shape[1]
    for t in range(len(q)):
        own = end - len(q) + t
        shown = [
            p
            for p in range(end)
            if not (causal and p > own)
            and not (window and own - p >= window)
            and not (block and p // block != own // block)
        ]
        for h in range(q.shape[1]):
            scores = k[shown, h // repeat].astype(np.float64) @ q[t, h] * q.shape[2] ** -0.5
            weights = np.exp(scores - scores.max())
            out[t, h] = weights @ v[shown, h // repeat] / weights.sum()
    return out


def ring(device: Device, rows: int, groups: int, width: int, dtype: str = "f32") -> tuple[Tensor, Tensor]:
    return device.zeros((rows, groups, width), dtype), device.zeros((rows, groups, width), dtype)


def length_of(device: Device, positions: int) -> Tensor:
    return device.tensor(np.array([positions], np.int32))


@ONCE_PER_DEVICE
@given(data=st.data())
def test_any_shape_and_mask_agrees_with_attention_spelled_out(device: Device, data: st.DataObject) -> None:
    """Appends in random pieces to a ring, then attends; what the ring has forgotten lies outside the mask."""
    groups, repeat = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    width = data.draw(st.sampled_from([2, 4, 10, 24, 64, 72, 128]))
    queries = data.draw(st.integers(1, 40))
    window = data.draw(st.sampled_from([0, 1, 5, 40]))
    block = data.draw(st.sampled_from([0, 0, 7, 32]))
    causal = data.draw(st.booleans())
    history = data.draw(st.integers(0, 90))
    end = history + queries
    rows = window + queries - 1 + data.draw(st.integers(0, 9)) if window else end + data.draw(st.integers(0, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    q = rng.normal(size=(queries, groups * repeat, width)).astype(np.float32)
    k, v = rng.normal(size=(2, end, groups, width)).astype(np.float32)
    cache_k, cache_v = ring(device, rows, groups, width)
    written = 0
    while written < end:
        count = min(data.draw(st.integers(1, rows)), end - written)
        piece = [device.tensor(values[written : written + count]) for values in (k, v)]
        written += count
        ops.kv_append(*piece, cache_k, cache_v, length_of(device, written))
    rule = {"causal": causal, "window": window, "block": block}
    got = ops.attention(device.tensor(q), cache_k, cache_v, length_of(device, end), scale=width**-0.5, **rule)
    np.testing.assert_allclose(device.read(got), attend_slowly(q, k, v, end, **rule), atol=2e-5)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize(("width", "window"), [(24, 0), (72, 0), (128, 9)])
def test_prefill_equals_decoding_one_by_one(device: Device, dtype: str, width: int, window: int) -> None:
    """37 rows at once give the outputs and the caches of 37 steps of one."""
    rng = np.random.default_rng(width)
    total, heads, groups = 37, 4, 2
    rows = window + total - 1 if window else total + 20
    qkv = rng.normal(size=(total, (heads + 2 * groups) * width)).astype(np.float32)
    p = np.arange(total, dtype=np.float32)[:, None]
    f = device.tensor((1e4 ** -np.linspace(0, 1, width // 2))[None].astype(np.float32))
    norms = [device.tensor(rng.normal(size=width).astype(np.float32)) for _ in range(2)]

    def feed(piece: int) -> tuple[np.ndarray, list[np.ndarray]]:
        caches = ring(device, rows, groups, width, dtype)
        out = []
        for start in range(0, total, piece):
            stop = min(start + piece, total)
            table = ops.angles(device.tensor(p[start:stop]), f)
            length = length_of(device, stop)
            q = ops.norm_rope_append(device.tensor(qkv[start:stop]), *norms, table, *caches, length, epsilon=1e-6)
            out.append(device.read(ops.attention(q, *caches, length, scale=width**-0.5, causal=True, window=window)))
        return np.concatenate(out), [device.read(cache) for cache in caches]

    whole, whole_caches = feed(total)
    for piece in (1, 5):
        stepped, caches = feed(piece)
        np.testing.assert_allclose(stepped, whole, atol=5e-5)
        for got, expected in zip(caches, whole_caches, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("window", "end"), [(0, 1), (0, 700), (0, 1700), (600, 1700)])
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_attention_in_parts_is_attention(device: Device, dtype: str, window: int, end: int) -> None:
    """Over 900 rows, from one key to a ring that wrapped, runs of keys merged give what `attention` gives."""
    rng = np.random.default_rng(end)
    rows, groups, width = 900, 2, 24
    k, v = (device.weight(rng.normal(size=(rows, groups, width)).astype(np.float32), dtype) for _ in range(2))
    queries = min(2, end)
    q = device.tensor(rng.normal(size=(queries, 6, width)).astype(np.float32))
    rule = {"scale": 0.3, "causal": True, "window": window}
    whole = device.read(ops.attention(q, k, v, length_of(device, end), **rule))
    np.testing.assert_allclose(device.read(ops.attend(q, k, v, length_of(device, end), **rule)), whole, atol=1e-5)
    for parts in (1, 7):
        merged = ops.attention_merge(*ops.attention_parts(q, k, v, length_of(device, end), parts=parts, **rule))
        np.testing.assert_allclose(device.read(merged), whole, atol=1e-5)


@pytest.mark.parametrize("queries", [1, 20])
def test_query_heads_repeat_key_heads_in_groups(device: Device, queries: int) -> None:
    """With one value vector per key head, query head h returns the vector of key head h // (H / G), not of h mod G."""
    groups, repeat, width = 3, 4, 8
    v = np.broadcast_to(np.arange(groups, dtype=np.float32)[None, :, None], (queries, groups, width))
    q = device.tensor(np.ones((queries, groups * repeat, width), np.float32))
    k = device.tensor(np.ones((queries, groups, width), np.float32))
    y = device.read(ops.attention(q, k, device.tensor(v), length_of(device, queries), scale=1.0, causal=True))
    np.testing.assert_allclose(y[:, :, 0], np.tile(np.repeat(np.arange(groups), repeat), (queries, 1)), atol=1e-6)


@pytest.mark.parametrize("queries", [2, 33])
def test_hidden_keys_are_never_read(device: Device, queries: int) -> None:
    """Not-a-number in rows that no query may see leaves no trace in the output."""
    rows, width = 64, 16
    k, v = np.full((2, rows, 1, width), np.nan, np.float32)
    k[:queries], v[:queries] = 1, 2
    q = device.tensor(np.ones((queries, 2, width), np.float32))
    for rule in ({"causal": True}, {"causal": False}, {"causal": True, "window": 3}, {"causal": False, "block": 4}):
        y = ops.attention(q, device.tensor(k), device.tensor(v), length_of(device, queries), scale=1.0, **rule)
        np.testing.assert_allclose(device.read(y), 2, atol=1e-6)


def test_length_is_read_when_the_step_is_replayed(device: Device) -> None:
    """A captured decode step appends and attends one position further each time, from state on the device alone."""
    rng = np.random.default_rng(5)
    k, v = rng.normal(size=(2, 6, 1, 8)).astype(np.float32)
    caches = ring(device, 16, 1, 8)
    row_k, row_v = device.zeros((1, 1, 8)), device.zeros((1, 1, 8))
    q = rng.normal(size=(1, 2, 8)).astype(np.float32)
    query, length = device.tensor(q), length_of(device, 1)
    token, position, chosen = length_of(device, 0), device.zeros((1, 3)), length_of(device, 9)

    def decode() -> Any:
        ops.kv_append(row_k, row_v, *caches, length)
        y = ops.attention(query, *caches, length, scale=8**-0.5, causal=True)
        ops.advance(token, position, length, chosen)
        return y

    step = device.capture(decode)
    for end in range(1, 7):
        device.write(row_k, k[end - 1 : end])
        device.write(row_v, v[end - 1 : end])
        expected = attend_slowly(q, k[:end], v[:end], end, causal=True, window=0, block=0)
        np.testing.assert_allclose(device.read(step()), expected, atol=1e-5)
    assert device.read(length).tolist() == [7] and device.read(token).tolist() == [9]
    assert device.read(position).tolist() == [[6, 6, 6]]


@pytest.mark.parametrize("parts", [1, 8])
def test_a_step_without_subgroups_is_the_same_step(
    gpu: WebGpuDevice, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    random = np.random.default_rng(0)
    row, norm, table = (random.normal(size=shape).astype(np.float32) for shape in ((1, 512), 64, (1, 64)))
    past = random.normal(size=(90, 1, 64)).astype(np.float32)

    def step() -> tuple[np.ndarray, np.ndarray]:
        cache = ring(gpu, 90, 1, 64, "f16")
        for tensor in cache:
            gpu.write(tensor, past)
        norms = gpu.tensor(norm), gpu.tensor(norm)
        y = ops.attend_appended(
            gpu.tensor(row), norms, gpu.tensor(table), cache, length_of(gpu, 300), epsilon=1e-6, scale=0.1, parts=parts
        )
        return y.numpy(), cache[0].numpy()

    fused = step()
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "features", gpu.features - {"subgroup"})
        patch.setattr(gpu, "strict", True)
        patch.setattr(gpu, "_plans", {})
        plain = step()
    for one, other in zip(fused, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)  # fused, the newest key is used before it is rounded
