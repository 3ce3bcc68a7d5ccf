"""The GGUF container, version 3, as reader and writer share it.

Layout, all little-endian: "GGUF", u32 version, u64 tensors, u64 keys; the keys (string name, u32 type, value); the
tensors (string name, u32 dimensions, u64 each, the row length first, u32 type, u64 offset); padding to the alignment;
the data, each tensor at a multiple of the alignment. A string is a u64 length and UTF-8 without a terminator.
"""

from __future__ import annotations

from dataclasses import dataclass

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
"""Of tensors in the data, where a file does not say otherwise."""

MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 63
"""Of a tensor's name, so that readers with a buffer of 64 take it."""


@dataclass(frozen=True)
class TensorType:
    """A tensor type: its number in files, and how many bytes store how many values."""

    number: int
    values: int
    size: int


TENSOR_TYPES = {
    "F32": TensorType(0, 1, 4),
    "F16": TensorType(1, 1, 2),
    "Q8_0": TensorType(8, 32, 34),
    "I8": TensorType(24, 1, 1),
    "I16": TensorType(25, 1, 2),
    "I32": TensorType(26, 1, 4),
    "I64": TensorType(27, 1, 8),
    "F64": TensorType(28, 1, 8),
    "BF16": TensorType(30, 1, 2),
}
"""What this project reads."""

FOREIGN_TYPES = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
    15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
"""Types that exist but are not read, to name them in an error."""

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""Value types of keys by number, as `struct` reads them."""

UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9
