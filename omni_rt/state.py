"""State that survives a step: key-value caches of decoders and the last rows of streamed convolutions."""

from __future__ import annotations

from math import prod

import numpy as np

from omni_rt import ops
from omni_rt.devices.device import Device
from omni_rt.errors import InputError
from omni_rt.tensor import Tensor

KEPT_BYTES = 1 << 20
"""Largest activation that is kept whole for the sake of its last rows."""

TAIL_VALUES = 64
"""Tails begin at multiples of so many values: at 256 bytes, every adapter can bind them."""


def cache_bytes(shape: tuple[int, int, int, int], quant: str | None) -> int:
    """Return the bytes of keys and values [layers, rows, kv_heads, head_dim]: f16 beside q8_0, else f32."""
    return 2 * prod(shape) * (2 if quant == "q8_0" else 4)


class KVCache:
    """Keys and values of all layers of one decoder, rings of `rows` positions [rows, kv_heads, head_dim].

    `count` positions have been appended; `length` holds that number on the device, i32 [1].
    """

    def __init__(
        self, device: Device, shape: tuple[int, int, int, int], *, window: int = 0, dtype: str = "f32"
    ) -> None:
        """Make the rings of `shape` [layers, rows, kv_heads, head_dim], f32 or f16."""
        layers, rows, kv_heads, head_dim = shape
        self.device = device
        self.rows = rows
        self.window = window
        self.count = 0
        self.keys = [device.zeros((rows, kv_heads, head_dim), dtype) for _ in range(layers)]
        self.values = [device.zeros((rows, kv_heads, head_dim), dtype) for _ in range(layers)]
        self.length = device.zeros((1,), "i32")

    @property
    def parts(self) -> int:
        """The runs into which a decode step cuts its attention: few values, as each is recorded by itself."""
        return ops.parts_for(min(self.count, self.window or self.count))

    def extend(self, count: int) -> None:
        """Make room for `count` positions that the next pass appends.

        Raises InputError when the positions exceed the cache, or one pass exceeds what its window leaves free.
        """
        if self.window:
            if count > self.rows - self.window + 1:
                raise InputError(
                    f"{count} rows at once exceed a cache of {self.rows} rows with a window of {self.window}"
                )
        elif self.count + count > self.rows:
            raise InputError(
                f"the context of {self.rows} positions is full: {self.count} are used and {count} more are needed; "
                "load the model with a larger context"
            )
        self.count += count
        self.device.write(self.length, np.array([self.count], np.int32))

    def holding(self, count: int) -> KVCache:
        """Return the same rows as a cache that always holds `count` positions, for passes that start over each time."""
        view = KVCache.__new__(KVCache)
        vars(view).update(vars(self), count=count, length=self.device.tensor(np.array([count], np.int32)))
        return view

    def advance(self) -> None:
        """Note one position that a captured step has appended and counted on the device by itself."""
        if not self.window and self.count >= self.rows:
            raise InputError(f"the context of {self.rows} positions is full; load the model with a larger context")
        self.count += 1

    def clear(self) -> None:
        """Forget all positions; the memory is kept."""
        self.count = 0
        self.device.write(self.length, np.zeros(1, np.int32))


class TailLayout:
    """Where the rows before each causal convolution of a model lie: a slot for each, in the order of `add`."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def add(self, rows: int, width: int) -> int:
        """Return the slot of another convolution, which looks back on `rows` rows of `width` channels."""
        self.shapes.append((rows, width))
        return len(self.shapes) - 1


class Tails:
    """The rows before each causal convolution of one stream, by slot: state that a step moves on by itself."""

    def __init__(self, device: Device, layout: TailLayout) -> None:
        self._device = device
        self._slots: list[Tensor] = []
        sizes = [-(-rows * width // TAIL_VALUES) * TAIL_VALUES for rows, width in layout.shapes]
        self._all, start = device.zeros((sum(sizes),)), 0
        for (rows, width), size in zip(layout.shapes, sizes, strict=True):
            self._slots.append(self._all[start : start + rows * width].reshape(rows, width))
            start += size

    def __getitem__(self, slot: int) -> Tensor:
        """Return the rows [P, C] of a slot."""
        return self._slots[slot]

    def clear(self) -> None:
        """Silence all: the stream begins."""
        self._device.write(self._all, np.zeros(self._all.shape, np.float32))


class StreamTails:
    """The last rows of one stream at each causal convolution: what the convolution looks back on.

    For passes over much sound at once: the rows are views of what came. A step that is captured takes `Tails`.
    """

    def __init__(self) -> None:
        self._rows: dict[object, Tensor] = {}

    def before(self, owner: object, start: Tensor) -> Tensor:
        """Return the rows that came last at `owner`, or `start` [rows, channels] at the beginning of the stream."""
        return self._rows.get(owner, start)

    def seen(self, owner: object) -> bool:
        """Say whether rows have come at `owner`."""
        return owner in self._rows

    def keep(self, owner: object, start: Tensor, x: Tensor) -> None:
        """Note that the rows x [T, channels] have come at `owner`; as many are kept as `start` has."""
        rows = len(start)
        if len(x) < rows:
            self._rows[owner] = ops.concat_rows(self.before(owner, start)[len(x) :], x)
        elif x.nbytes <= KEPT_BYTES:
            self._rows[owner] = x[len(x) - rows :]
        else:  # a view would keep all of x
            self._rows[owner] = ops.add(x[len(x) - rows :], x.device.tensor(np.zeros((1, x.shape[1]), np.float32)))
