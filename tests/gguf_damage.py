"""Damaged GGUF files of many kinds, made from a good one: for the tests of the reader and for fuzzing it."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from omni_rt.io.gguf_format import ALIGNMENT, TENSOR_TYPES

HUGE = (1 << 31, 1 << 32, (1 << 62) + 1, 1 << 63, (1 << 64) - 1)


def text(value: bytes, length: int | None = None) -> bytes:
    """Return a string as files hold it, with a wrong length if one is given."""
    return struct.pack("<Q", len(value) if length is None else length) + value


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry in a header; what is None follows from the rest."""

    name: bytes = b"w"
    sizes: tuple[int, ...] = (32, 2)
    number: int = TENSOR_TYPES["F32"].number
    offset: int | None = None
    name_length: int | None = None
    dimensions: int | None = None

    def size(self) -> int:
        """Return the bytes of its data, 0 for a type that is not known."""
        count = 1
        for size in self.sizes:
            count *= size
        kinds = {kind.number: kind for kind in TENSOR_TYPES.values()}
        return count // kinds[self.number].values * kinds[self.number].size if self.number in kinds else 0


@dataclass(frozen=True)
class Header:
    """A whole file, field by field."""

    magic: bytes = b"GGUF"
    version: int = 3
    keys: tuple[bytes, ...] = ()
    tensors: tuple[Tensor, ...] = field(default_factory=tuple)
    key_count: int | None = None
    tensor_count: int | None = None
    cut: int = 0
    extra: int = 0

    def content(self) -> bytes:
        """Return the bytes of the file."""
        keys = len(self.keys) if self.key_count is None else self.key_count
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        parts = [self.magic, struct.pack("<IQQ", self.version, tensors, keys), *self.keys]
        offset = 0
        for tensor in self.tensors:
            count = len(tensor.sizes) if tensor.dimensions is None else tensor.dimensions
            here = offset if tensor.offset is None else tensor.offset
            parts += [text(tensor.name, tensor.name_length), struct.pack("<I", count)]
            parts += [struct.pack(f"<{len(tensor.sizes)}Q", *tensor.sizes), struct.pack("<IQ", tensor.number, here)]
            offset += -(-min(tensor.size(), 1 << 16) // ALIGNMENT) * ALIGNMENT
        head = b"".join(parts)
        whole = head + bytes(-len(head) % ALIGNMENT + offset + self.extra)
        return whole[: len(whole) - self.cut]


def key(name: bytes, kind: int, value: bytes) -> bytes:
    """Return a key of the metadata."""
    return text(name) + struct.pack("<I", kind) + value


def array(name: bytes, kind: int, count: int, items: bytes) -> bytes:
    """Return a key whose value is an array."""
    return key(name, 9, struct.pack("<IQ", kind, count) + items)


GOOD_KEYS = (
    key(b"general.architecture", 8, text(b"qwen3_tts")), key(b"general.alignment", 4, struct.pack("<I", 32)),
    key(b"a.byte", 0, b"\x07"), key(b"a.flag", 7, b"\x01"), key(b"a.float", 6, struct.pack("<f", 1.5)),
    key(b"a.wide", 12, struct.pack("<d", 2.5)), key(b"a.long", 11, struct.pack("<q", -3)),
    array(b"some.numbers", 5, 3, struct.pack("<3i", 1, -2, 3)), array(b"some.words", 8, 2, text(b"one") + text(b"two")),
    array(b"some.flags", 7, 2, b"\x00\x01"),
)  # fmt: skip
GOOD = Header(
    keys=GOOD_KEYS,
    tensors=(
        Tensor(b"layers.0.weight", (64, 3), 8), Tensor(b"layers.0.norm", (5,), 0), Tensor(b"table", (8, 4), 1),
        Tensor(b"kernel", (3, 2, 2, 2), 30), Tensor(b"scalar", (), 26),
    ),
)  # fmt: skip
"""A file with every kind of value and several kinds of tensors."""

Damage = Callable[[random.Random], Header]


def _keys(*keys: bytes) -> Header:
    return replace(GOOD, keys=(*GOOD_KEYS, *keys))


def _first(**changes: object) -> Header:
    return replace(GOOD, tensors=(replace(GOOD.tensors[0], **changes), *GOOD.tensors[1:]))  # type: ignore[arg-type]


def _alignment(kind: int, value: bytes) -> Header:
    return replace(GOOD, keys=(GOOD_KEYS[0], key(b"general.alignment", kind, value), *GOOD_KEYS[2:]))


KINDS: dict[str, Damage] = {
    "cut to less than a header": lambda r: replace(GOOD, cut=len(GOOD.content()) - r.randrange(24)),
    "another magic": lambda r: replace(GOOD, magic=r.choice([b"GGUE", b"FUGG", b"\0\0\0\0", b"gguf", b"ggml"])),
    "another version": lambda r: replace(GOOD, version=r.choice([0, 1, 4, 99, 0x03000000, 0xFFFFFFFF])),
    "a huge number of tensors": lambda r: replace(GOOD, tensor_count=r.choice(HUGE)),
    "tensors that are not there": lambda r: replace(GOOD, tensor_count=r.randrange(30, 250_000)),
    "one tensor too many": lambda r: replace(GOOD, tensor_count=len(GOOD.tensors) + r.randrange(1, 4)),
    "a tensor that is not counted": lambda r: replace(GOOD, tensor_count=r.randrange(len(GOOD.tensors) - 1)),
    "a huge number of keys": lambda r: replace(GOOD, key_count=r.choice(HUGE)),
    "keys that are not there": lambda r: replace(GOOD, key_count=r.randrange(100, 10_000)),
    "one key too many": lambda r: replace(GOOD, key_count=len(GOOD_KEYS) + r.randrange(1, 4)),
    "a key that is not counted": lambda r: replace(GOOD, key_count=len(GOOD_KEYS) - r.randrange(1, 4)),
    "a key of huge length": lambda r: _keys(text(b"k", r.choice(HUGE))),
    "a key longer than the file": lambda r: _keys(text(b"k", r.randrange(900, 1024)) + bytes(2)),
    "a key without a name": lambda r: _keys(key(b"", r.choice([0, 4]), bytes(4))),
    "a key twice": lambda r: _keys(r.choice(GOOD_KEYS)),
    "a key that is not UTF-8": lambda r: _keys(key(bytes([r.randrange(0x80, 0xC0), 0xFF]), 0, b"\0")),
    "an unknown type of value": lambda r: _keys(key(b"k", r.choice([13, 14, 255, 1 << 31]), bytes(8))),
    "a flag that is neither": lambda r: _keys(key(b"k", 7, bytes([r.randrange(2, 256)]))),
    "a text of huge length": lambda r: _keys(key(b"k", 8, text(b"v", r.choice(HUGE)))),
    "a text longer than the file": lambda r: _keys(key(b"k", 8, text(b"v", r.randrange(1 << 16, 1 << 25)))),
    "a text that is not UTF-8": lambda r: _keys(key(b"k", 8, text(bytes([0xC3, r.randrange(0x80)])))),
    "an unknown type of items": lambda r: _keys(array(b"k", r.choice([13, 77, 1 << 30]), 1, bytes(8))),
    "an array of arrays": lambda r: _keys(array(b"k", 9, r.choice([1, 2, 1 << 40]), bytes(24))),
    "an array of huge length": lambda r: _keys(array(b"k", r.choice([0, 4, 8, 10]), r.choice(HUGE), bytes(8))),
    "an array longer than the file": lambda r: _keys(array(b"k", r.choice([4, 12]), r.randrange(1000, 1 << 20), b"")),
    "texts in an array that are too long": lambda r: _keys(array(b"k", 8, 2, text(b"x") + text(b"y", r.choice(HUGE)))),
    "no alignment": lambda r: _alignment(4, struct.pack("<I", r.choice([0, 1, 3, 7]))),
    "an odd alignment": lambda r: _alignment(4, struct.pack("<I", r.choice([24, 33, 1 << 21, 0xFFFFFFFF]))),
    "an alignment that is no number": lambda r: r.choice([_alignment(8, text(b"32")), _alignment(7, b"\1")]),
    "a tensor without a name": lambda r: _first(name=b"", sizes=(32 * r.randrange(1, 9),)),
    "a tensor name of huge length": lambda r: _first(name_length=r.choice([1025, *HUGE])),
    "a tensor name that is not UTF-8": lambda r: _first(name=bytes([r.randrange(0x80, 0xC0)])),
    "a tensor twice": lambda r: _first(name=r.choice(GOOD.tensors[1:]).name),
    "too many dimensions": lambda r: _first(sizes=(32,) * r.randrange(5, 9)),
    "a huge number of dimensions": lambda r: _first(dimensions=r.choice([1 << 16, 1 << 31, (1 << 32) - 1])),
    "dimensions that overflow": lambda r: _first(sizes=(1 << 32, 1 << r.randrange(30, 40), 32)),
    "dimensions that overflow behind a zero": lambda r: _first(sizes=(0, 1 << 40, 1 << r.randrange(23, 60))),
    "an unknown type of tensor": lambda r: _first(number=r.choice([4, 5, 31, 99, 1 << 31])),
    "a type that is not read": lambda r: _first(number=r.choice([2, 3, 10, 12, 14, 20])),
    "rows that are no whole blocks": lambda r: _first(sizes=(r.randrange(33, 64), 3)),
    "blocks without a row": lambda r: _first(sizes=()),
    "an offset off the alignment": lambda r: _first(offset=r.randrange(1, 32)),
    "an offset behind the file": lambda r: _first(offset=32 * r.randrange(1 << 10, 1 << 40)),
    "an offset that overflows": lambda r: _first(offset=(1 << 64) - 32 * r.randrange(1, 9)),
    "tensors that overlap": lambda r: replace(GOOD, tensors=(*GOOD.tensors, Tensor(b"more", (8,), 0, 0))),
    "a gap between tensors": lambda r: replace(
        GOOD, tensors=(GOOD.tensors[0], Tensor(b"far", (8,), 0, 256 + 32 * r.randrange(1, 9))), extra=1024
    ),
    "a larger tensor than the file": lambda r: _first(sizes=(32, r.randrange(1 << 10, 1 << 30))),
    "cut data": lambda r: replace(GOOD, cut=r.randrange(33, 200)),
    "a cut header": lambda r: replace(GOOD, cut=r.randrange(420, len(GOOD.content()) - 24)),
    "something behind the data": lambda r: replace(GOOD, extra=r.randrange(64, 4096)),
}  # fmt: skip
"""Ways to damage a file; each makes a file that must be refused."""

SAYS = {
    "another magic": "the magic is",
    "another version": "the version is",
    "a huge number of tensors": "the number of tensors is .* at most",
    "a huge number of keys": "keys is .* at most",
    "tensors that are not there": "the number of tensors is .* bytes are left",
    "keys that are not there": "the number of keys is .* bytes are left",
    "a key of huge length": "name of key .* at most",
    "a key longer than the file": "name of key .* bytes are left",
    "a key without a name": "has no name",
    "a key twice": "occurs twice",
    "a key that is not UTF-8": "not UTF-8",
    "an unknown type of value": "the type of 'k' is",
    "a flag that is neither": "is a bool of",
    "a text of huge length": "the length of the value of 'k' is .* at most",
    "a text longer than the file": "the length of the value of 'k' is .* bytes are left",
    "a text that is not UTF-8": "not UTF-8",
    "an unknown type of items": "the item type of 'k' is",
    "an array of arrays": "arrays of arrays",
    "an array of huge length": "number of items of 'k' is .* at most",
    "an array longer than the file": "number of items of 'k' is .* bytes are left",
    "texts in an array that are too long": "the length of item 1 of 'k' is",
    "no alignment": "general.alignment is",
    "an odd alignment": "general.alignment is",
    "an alignment that is no number": "general.alignment is",
    "a tensor without a name": "has no name",
    "a tensor name of huge length": "name of tensor 0 is .* at most",
    "a tensor name that is not UTF-8": "not UTF-8",
    "a tensor twice": "occurs twice",
    "too many dimensions": "dimensions, at most 4",
    "a huge number of dimensions": "dimensions, at most 4",
    "dimensions that overflow": "more than can be indexed",
    "dimensions that overflow behind a zero": "can be indexed",
    "an unknown type of tensor": "the type of tensor .* known are",
    "a type that is not read": "this build reads",
    "rows that are no whole blocks": "rows come in 32s",
    "blocks without a row": "rows come in 32s",
    "an offset off the alignment": "no multiple of the alignment",
    "an offset behind the file": "it is cut short",
    "an offset that overflows": "it is cut short",
    "tensors that overlap": "overlaps",
    "a gap between tensors": "a gap behind",
    "a larger tensor than the file": "it is cut short",
    "cut data": "it is cut short",
    "something behind the data": "is the last, but the file ends",
}
"""What the refusal of a kind says; the others are refused where chance leads the reader."""


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return a file with a few random changes: bytes, numbers, pieces cut out, doubled or moved, or a cut end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(max(len(data), 1))
        kind = rng.randrange(7)
        if kind <= 1 and data:
            data[at] = rng.randrange(256)
        elif kind == 2 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            number = rng.choice((0, 1, 7, 255, 1 << 16, *HUGE, rng.getrandbits(64)))
            size = rng.choice((4, 8))
            data[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif kind == 4:
            del data[at : at + rng.choice((1, 4, 8, 33))]
        elif kind == 5:
            start = rng.randrange(max(len(data), 1))
            data[at:at] = data[start : start + rng.choice((1, 8, 40))]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)
