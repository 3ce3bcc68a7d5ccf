"""Q8_0: blocks of 32 values, each block an f16 scale and 32 int8 quants; value = scale * quant.

Two layouts of the same bits: GGUF blocks (34 bytes: scale, then quants) as files hold them, and planes (all quants, all
scales) as devices compute with them. Rounding is that of the reference quantiser: scale = max|x| / 127 in float32,
quant = x / scale rounded half away from zero, and only then is the scale stored as f16.
"""

from __future__ import annotations

import numpy as np

from omni_rt.tensor import BLOCK

BLOCK_BYTES = 2 + BLOCK
"""Bytes of one GGUF block."""


def quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (quants int8 [..., K], scales float16 [..., K / 32]) of `values` [..., K].

    Raises ValueError when K is not a multiple of 32.
    """
    if values.shape[-1] % BLOCK:
        raise ValueError(f"q8_0 rows come in blocks of {BLOCK}: got rows of {values.shape[-1]}")
    blocks = np.ascontiguousarray(values, np.float32).reshape(*values.shape[:-1], -1, BLOCK)
    scales = np.abs(blocks).max(axis=-1) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scales
    # A block of zeros, or of values so small that 1 / scale overflows (and the scale is 0 in f16), has quants of zero.
    inverse[np.isinf(inverse)] = 0
    scaled = blocks * inverse[..., None]
    magnitude = np.abs(scaled)
    floor = np.floor(magnitude)
    rounded = np.copysign(floor + np.floor(np.float32(2) * (magnitude - floor)), scaled)
    return rounded.astype(np.int8).reshape(values.shape), scales.astype(np.float16)


def dequantise(quants: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return float32 values [..., K] of planes (quants [..., K], scales [..., K / 32])."""
    blocks = quants.reshape(*scales.shape, BLOCK).astype(np.float32)
    return (blocks * scales.astype(np.float32)[..., None]).reshape(quants.shape)


def planes_to_blocks(quants: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return GGUF blocks, uint8 [..., K / 32 * 34], of the planes of a tensor."""
    blocks = np.empty((*scales.shape, BLOCK_BYTES), np.uint8)
    blocks[..., :2] = np.ascontiguousarray(scales).view(np.uint8).reshape(*scales.shape, 2)
    blocks[..., 2:] = quants.view(np.uint8).reshape(*scales.shape, BLOCK)
    return blocks.reshape(*scales.shape[:-1], -1)


def blocks_to_planes(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (quants int8 [..., K], scales float16 [..., K / 32]) of GGUF blocks, uint8 [..., K / 32 * 34]."""
    split = blocks.reshape(*blocks.shape[:-1], -1, BLOCK_BYTES)
    scales = np.ascontiguousarray(split[..., :2]).view(np.float16)[..., 0]
    quants = np.ascontiguousarray(split[..., 2:]).view(np.int8)
    return quants.reshape(*blocks.shape[:-1], -1), scales
