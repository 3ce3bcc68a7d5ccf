"""Picture files and arrays to RGB. Files are untrusted: their format and size are checked before they are decoded."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from omni_rt.errors import InputError
from omni_rt.io.files import open_input

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 1 << 26
"""Most pixels that are decoded: 67 million, above the largest phone cameras."""
_MAX_BYTES = 256 << 20
_READABLE = f"{', '.join(FORMATS)} are read"


def load_image(source: ImageSource) -> np.ndarray:
    """Return a picture as uint8 [H, W, 3], upright by its EXIF orientation.

    `source` is a path, the bytes of a file, or an array uint8 [H, W], [H, W, 3] or [H, W, 4]. Of an animation the first
    frame is taken, transparency is laid over white, 16-bit grey is scaled to 8. Raises InputError for other formats,
    damaged files, and pictures of more than 67 million pixels, before decoding them.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise InputError("image is empty (0 bytes); give the bytes of an image file")
        return _from_file(io.BytesIO(source), f"image of {len(source)} bytes")
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"image came as {type(source).__name__}; give a path, bytes or an array uint8 [H, W, 3]")
    with open_input(source, "image") as file:
        return _from_file(file, str(Path(source)))


def _from_array(source: np.ndarray) -> np.ndarray:
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (3, 4)):
        raise InputError(f"image is {source.dtype} {source.shape}, expected uint8 [H, W], [H, W, 3] or [H, W, 4]")
    _check_size("image", *source.shape[1::-1])
    return _to_rgb(Image.fromarray(np.ascontiguousarray(source)), "image")


def _from_file(file: BinaryIO, name: str) -> np.ndarray:
    start = file.read(16)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > _MAX_BYTES:
        raise InputError(f"{name}: has {size} bytes, at most {_MAX_BYTES} are read; save it smaller")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that are checked right below, and of odd metadata
            with Image.open(file, formats=FORMATS) as picture:
                _check_size(name, *picture.size)
                return _to_rgb(ImageOps.exif_transpose(picture), name)
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: is not a picture that can be read; it begins with {start!r}, {_READABLE}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {error}; save it smaller") from error
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more for damage
        raise InputError(f"{name}: is damaged ({error}); save or download it again") from error


def _check_size(name: str, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{name}: is {width} x {height} pixels; it has nothing to look at")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: is {width} x {height} = {width * height} pixels, at most {MAX_PIXELS} are read; save it smaller"
        )


def _to_rgb(picture: Image.Image, name: str) -> np.ndarray:
    """Return `picture` as uint8 [H, W, 3]."""
    if picture.mode == "F":
        raise InputError(f"{name}: holds floating-point values, whose white is unknown; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        deep = np.asarray(picture)
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise InputError(f"{name}: holds 32-bit values, whose white is unknown; save it with 8 or 16 bits")
        # 65535 / 257 = 255: the whole range maps onto the whole range.
        grey = ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
        picture = opaque
    return np.array(picture.convert("RGB"))
