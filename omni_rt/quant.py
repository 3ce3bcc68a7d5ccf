"""Q8_0: blocks of 32 values, each block an f16 scale and 32 int8 quants; value = scale * quant.

Two layouts of the same bits: GGUF blocks (34 bytes: scale, then quants) as files hold them, and planes (all quants, all
scales) as devices compute with them. Rounding is that of the reference quantiser: scale = max|x| / 127 in float32,
quant = x / scale rounded half away from zero, and only then is the scale stored as f16. C does it where it is built,
with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from omni_rt import native
from omni_rt.errors import ModelFormatError
from omni_rt.host_arrays import aligned
from omni_rt.tensor import BLOCK

BLOCK_BYTES = 2 + BLOCK
"""Bytes of one GGUF block."""

NUMPY_VALUES = 1 << 20
"""Values that NumPy quantises at once: what it holds meanwhile is several times as large."""

NOT_FINITE = "holds values that are not finite; download or quantise the model again"
"""What is wrong with a tensor and what to do, for errors."""

_BAD_VALUE = 3
"""What a C body returns for values that q8_0 cannot hold."""

_QUANTISERS = {"float32": "quantise_f32", "float16": "quantise_f16", "uint16": "quantise_bf16"}


def quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (quants int8 [..., K], scales float16 [..., K / 32]) of `values` [..., K].

    Raises ValueError when K is not a multiple of 32.
    """
    _require_blocks(values.shape)
    quants = aligned(values.shape, np.int8)
    scales = aligned((*values.shape[:-1], values.shape[-1] // BLOCK), np.float16)
    if values.dtype not in (np.float32, np.float16):
        values = values.astype(np.float32)
    _quantise_into(values, quants.reshape(-1), scales.reshape(-1))
    return quants, scales


def quantise_blocks(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the GGUF blocks, uint8 [bytes], of rows [N, K] (float32, float16, or the bits of bfloat16 as uint16).

    The second result says whether all values were finite and small enough for an f16 scale.
    """
    _require_blocks(values.shape)
    pool = native.weight_pool()
    if pool is None:
        quants, scales = np.empty(values.size, np.int8), np.empty(values.size // BLOCK, np.float16)
        fits = _quantise_numpy(values, quants, scales)
        return planes_to_blocks(quants, scales), fits
    blocks = np.empty(values.size // BLOCK * BLOCK_BYTES, np.uint8)
    status = _run(pool, _QUANTISERS[values.dtype.name], values, (blocks[2:], blocks), BLOCK_BYTES, BLOCK_BYTES)
    return blocks, status != _BAD_VALUE


def rounded(values: np.ndarray, kind: type[np.floating[Any]]) -> tuple[np.ndarray, bool]:
    """Return flat values (float32, float16, or the bits of bfloat16 as uint16) as float16 or float32.

    The second result says whether all are finite there.
    """
    pool = native.weight_pool()
    if pool is not None and kind is np.float16 and values.dtype != np.float16:
        halves = np.empty(values.size, np.float16)
        body = "halve_f32" if values.dtype == np.float32 else "halve_bf16"
        planes, uniforms = [pool.address(np.ascontiguousarray(values))], pool.pack([values.size])
        status = pool.run(pool.handle, pool.find(body), planes, [pool.address(halves)], uniforms)
        return halves, status != _BAD_VALUE
    with np.errstate(over="ignore"):
        made = _widened(values).astype(kind, copy=False) if values.dtype != kind else values
    return made, bool(np.isfinite(made).all())


def dequantise(quants: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return float32 values [..., K] of planes (quants [..., K], scales [..., K / 32])."""
    blocks = quants.reshape(*scales.shape, BLOCK).astype(np.float32)
    blocks *= scales.astype(np.float32)[..., None]
    return blocks.reshape(quants.shape)


def planes_to_blocks(quants: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return GGUF blocks, uint8 [..., K / 32 * 34], of the planes of a tensor."""
    blocks = np.empty((*scales.shape, BLOCK_BYTES), np.uint8)
    blocks[..., :2] = np.ascontiguousarray(scales).view(np.uint8).reshape(*scales.shape, 2)
    blocks[..., 2:] = quants.view(np.uint8).reshape(*scales.shape, BLOCK)
    return blocks.reshape(*scales.shape[:-1], -1)


def blocks_to_planes(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (quants int8 [..., K], scales float16 [..., K / 32]) of GGUF blocks, uint8 [..., K / 32 * 34]."""
    count = blocks.shape[-1] // BLOCK_BYTES
    quants = aligned((*blocks.shape[:-1], count * BLOCK), np.int8)
    scales = aligned((*blocks.shape[:-1], count), np.float16)
    _split_into(blocks, quants.reshape(-1), scales.reshape(-1))
    return quants, scales


class Quantised:
    """A q8_0 matrix on the host that no device holds yet: rows of GGUF blocks, or of floats that are still to quantise.

    `shape` is [..., K]. `pieces` are consecutive rows: uint8 [bytes] blocks of a file, or float32, float16 or (the bits
    of bfloat16) uint16 [R, K]. Nothing is copied or computed before `fill`.
    """

    def __init__(self, shape: Sequence[int], pieces: Sequence[np.ndarray], *, names: Sequence[str] = ()) -> None:
        """`names` are those of the pieces, for errors."""
        _require_blocks(shape)
        self.shape = tuple(shape)
        self.pieces = tuple(pieces)
        self.names = tuple(names) or ("a weight",) * len(self.pieces)
        self.ndim = len(self.shape)
        self.dtype = "q8_0"

    def fill(self, quants: np.ndarray, scales: np.ndarray) -> None:
        """Write the planes, all of them: quants int8 [size], scales float16 [size / 32].

        Raises ModelFormatError for values that q8_0 cannot hold: infinite, no numbers, or above 8.3 million.
        """
        start = 0
        for piece, name in zip(self.pieces, self.names, strict=True):
            count = piece.size // BLOCK_BYTES * BLOCK if piece.dtype == np.uint8 else piece.size
            inner, outer = quants[start : start + count], scales[start // BLOCK : (start + count) // BLOCK]
            if piece.dtype == np.uint8:
                if not _split_into(piece, inner, outer):
                    raise ModelFormatError(f"{name}: {NOT_FINITE}")
            elif not _quantise_into(piece, inner, outer):
                raise ModelFormatError(
                    f"{name}: holds values that are not finite or above 8.3 million, which q8_0 cannot hold; "
                    "load without quant, or download the checkpoint again"
                )
            start += count

    def planes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the planes (quants int8 [..., K], scales float16 [..., K / 32])."""
        quants = aligned(self.shape, np.int8)
        scales = aligned((*self.shape[:-1], self.shape[-1] // BLOCK), np.float16)
        self.fill(quants.reshape(-1), scales.reshape(-1))
        return quants, scales

    def values(self) -> np.ndarray:
        """Return the values float32 [..., K] that the planes stand for."""
        return dequantise(*self.planes())

    def rows(self, start: int, stop: int) -> Quantised:
        """Return rows [start, stop) of all leading axes taken together, [stop - start, K]."""
        width = self.shape[-1]
        pieces, names = zip(*self._cut(start, stop), strict=True)
        return Quantised((stop - start, width), pieces, names=names)

    def _cut(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, str]]:
        width, at = self.shape[-1], 0
        for piece, name in zip(self.pieces, self.names, strict=True):
            flat = piece.reshape(-1, width // BLOCK * BLOCK_BYTES if piece.dtype == np.uint8 else width)
            first, last = max(start - at, 0), min(stop - at, len(flat))
            if first < last:
                yield flat[first:last], name
            at += len(flat)


Matrix = np.ndarray | Quantised
"""Rows on the host: values, or what will be q8_0 planes."""


def joined(parts: Sequence[Matrix], shape: Sequence[int]) -> Matrix:
    """Return matrices of one width one after the other, as one of `shape` [..., K]."""
    if not any(isinstance(part, Quantised) for part in parts):
        return np.concatenate([np.asarray(part) for part in parts]).reshape(shape)
    assert sum(prod(part.shape) for part in parts) == prod(shape)
    together = [part if isinstance(part, Quantised) else Quantised(part.shape, [part]) for part in parts]
    pieces, names = ([item for part in together for item in getattr(part, of)] for of in ("pieces", "names"))
    return Quantised(shape, pieces, names=names)


def cut_rows(values: Matrix, start: int, stop: int) -> Matrix:
    """Return rows [start, stop) of a matrix, all its leading axes taken together."""
    if isinstance(values, Quantised):
        return values.rows(start, stop)
    return values.reshape(-1, values.shape[-1])[start:stop]


def _require_blocks(shape: Sequence[int]) -> None:
    if shape[-1] % BLOCK:
        raise ValueError(f"q8_0 rows come in blocks of {BLOCK}: got rows of {shape[-1]}")


def _widened(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint16:
        return np.left_shift(values, np.uint32(16), dtype=np.uint32).view(np.float32)
    return np.ascontiguousarray(values, np.float32)


def _run(pool: native.Pool, body: str, source: np.ndarray, outputs: Sequence[np.ndarray], *strides: int) -> int:
    """Run a C body of native/blocks.c over all blocks of `source`."""
    size = BLOCK_BYTES if source.dtype == np.uint8 else BLOCK * source.itemsize
    planes = [pool.address(np.ascontiguousarray(source))]
    uniforms = pool.pack([source.nbytes // size, *strides])
    status: int = pool.run(pool.handle, pool.find(body), planes, [pool.address(o) for o in outputs], uniforms)
    return status


def _quantise_into(values: np.ndarray, quants: np.ndarray, scales: np.ndarray) -> bool:
    """Quantise rows into flat planes; say whether all values and scales are finite."""
    pool = native.weight_pool()
    if pool is not None:
        return _run(pool, _QUANTISERS[values.dtype.name], values, (quants, scales), BLOCK, 2) != _BAD_VALUE
    return _quantise_numpy(values, quants, scales)


def _split_into(blocks: np.ndarray, quants: np.ndarray, scales: np.ndarray) -> bool:
    """Take GGUF blocks, uint8, apart into flat planes; say whether all scales are finite."""
    pool = native.weight_pool()
    if pool is not None:
        return _run(pool, "split_blocks", blocks, (quants, scales), BLOCK, 2) != _BAD_VALUE
    split = blocks.reshape(-1, BLOCK_BYTES)
    scales.view(np.uint8).reshape(-1, 2)[...] = split[:, :2]
    quants.view(np.uint8).reshape(-1, BLOCK)[...] = split[:, 2:]
    return bool(np.isfinite(scales).all())


def _quantise_numpy(values: np.ndarray, quants: np.ndarray, scales: np.ndarray) -> bool:
    """Quantise rows into flat planes, some blocks at a time; say whether all values and scales are finite."""
    flat, fits = values.reshape(-1), True
    for start in range(0, flat.size, NUMPY_VALUES):
        stop = start + NUMPY_VALUES
        blocks = _widened(flat[start:stop]).reshape(-1, BLOCK)
        scale = np.abs(blocks).max(axis=-1) / np.float32(127)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            inverse = np.float32(1) / scale
            # A block of zeros, or of values so small that 1 / scale overflows (the scale is 0 in f16), has quants of 0.
            inverse[np.isinf(inverse)] = 0
            scaled = blocks * inverse[:, None]
            magnitude = np.abs(scaled)
            floor = np.floor(magnitude)
            rounded = np.copysign(floor + np.floor(np.float32(2) * (magnitude - floor)), scaled)
            quants[start:stop] = rounded.astype(np.int8).reshape(-1)
            stored = scale.astype(np.float16)
        scales[start // BLOCK : stop // BLOCK] = stored
        fits = fits and bool(np.isfinite(stored).all() and np.isfinite(blocks).all())
    return fits
