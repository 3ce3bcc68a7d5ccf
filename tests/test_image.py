"""Pictures of any usual kind become RGB and then the reference's patches; damaged and oversized ones are refused."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from omni_rt.errors import InputError, ModelFormatError
from omni_rt.io.image import MAX_PIXELS, load_image
from omni_rt.io.patches import (
    IMAGE,
    VIDEO,
    PatchSettings,
    image_patches,
    patchify,
    resize_bicubic,
    smart_resize,
    video_patches,
)

RNG = np.random.default_rng(3)
PICTURE = RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)


def encoded(picture: Image.Image, container: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, container, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("container", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ],
)
def test_every_format_is_read_from_disk_and_from_memory(tmp_path: Path, container: str, options: dict) -> None:
    content = encoded(Image.fromarray(PICTURE), container, **options)
    (tmp_path / "picture").write_bytes(content)
    got = load_image(content)
    assert got.dtype == np.uint8 and got.shape == (40, 60, 3) and got.flags.writeable
    assert np.abs(got.astype(int) - PICTURE).max() <= (8 if container == "JPEG" else 0)
    np.testing.assert_array_equal(load_image(tmp_path / "picture"), got)
    np.testing.assert_array_equal(load_image(str(tmp_path / "picture")), got)


def test_arrays_pass_through() -> None:
    np.testing.assert_array_equal(load_image(PICTURE), PICTURE)
    np.testing.assert_array_equal(load_image(PICTURE[:, ::-1]), PICTURE[:, ::-1])
    np.testing.assert_array_equal(load_image(PICTURE[..., 0])[..., 2], PICTURE[..., 0])


def test_of_an_animation_the_first_frame_is_taken() -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    got = load_image(encoded(red, "GIF", save_all=True, append_images=[blue]))
    assert (got == (255, 0, 0)).all()


def test_palettes_grey_levels_and_inks_become_rgb() -> None:
    flat = Image.new("RGB", (4, 4), (200, 100, 50))
    assert (load_image(encoded(flat.convert("P"), "PNG")) == np.array(flat.convert("P").convert("RGB"))).all()
    assert (load_image(encoded(Image.new("L", (4, 4), 77), "PNG")) == 77).all()
    assert (load_image(encoded(Image.new("1", (4, 4), 1), "PNG")) == 255).all()
    assert (load_image(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "TIFF")) == 0).all()


def test_transparency_lies_over_white() -> None:
    for alpha, expected in ((0, (255, 255, 255)), (255, (255, 0, 0)), (51, (255, 204, 204))):
        picture = Image.new("RGBA", (4, 4), (255, 0, 0, alpha))
        assert (load_image(encoded(picture, "PNG")) == expected).all()
        assert (load_image(np.array(picture)) == expected).all()
    grey = Image.new("LA", (4, 4), (0, 0))
    assert (load_image(encoded(grey, "PNG")) == 255).all()
    see_through = Image.new("P", (4, 4), 0)
    assert (load_image(encoded(see_through, "PNG", transparency=0)) == 255).all()


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    assert load_image(encoded(Image.fromarray(deep), "PNG"))[0, :, 1].tolist() == [0, 0, 1, 128, 255]


def test_pictures_stand_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are to become columns
    got = load_image(encoded(Image.fromarray(PICTURE), "PNG", exif=exif))
    np.testing.assert_array_equal(got, np.rot90(PICTURE, -1))


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("dear reader")
    (tmp_path / "empty.png").touch()
    for path, says in [
        (tmp_path / "text.png", r"text\.png: is not a picture .* begins with b'dear reader'"),
        (tmp_path / "empty.png", r"empty \(0 bytes\)"),
        (tmp_path, "is a directory"),
        (tmp_path / "nowhere.png", "does not exist"),
    ]:
        with pytest.raises(InputError, match=says):
            load_image(path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "empty"),
        (b"%PDF-1.4 nothing", "not a picture"),
        (encoded(Image.new("RGB", (4, 4)), "PPM"), "not a picture"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"), "32-bit values"),
        (PICTURE.astype(np.float32), "is float32"),
        (PICTURE[..., :2], r"\(40, 60, 2\)"),
        (PICTURE[:0], "nothing to look at"),
        (5, "came as int"),
    ],
)
def test_unusable_sources_are_refused(source: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_image(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_short_is_refused(container: str) -> None:
    content = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)), container)
    for length in range(1, len(content) // 2, max(1, len(content) // 24)):
        with pytest.raises(InputError, match=f"image of {length} bytes"):
            load_image(content[:length])


@settings(max_examples=150)
@given(
    container=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_give_a_picture_or_a_clear_refusal(container: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(encoded(Image.fromarray(PICTURE[:12, :12]), container))
    for at, value in changes:
        content[at % len(content)] = value
    try:
        assert load_image(bytes(content)).shape[2] == 3
    except InputError as error:
        assert "image of" in str(error)


def png_bomb(width: int, height: int) -> bytes:
    """Return a small file that unpacks to width x height black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def test_decompression_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    for width, height in ((8193, 8192), (20_000, 20_000), (2_000_000, 1_000_000)):
        (tmp_path / "bomb.png").write_bytes(png_bomb(width, height))
        started = time.process_time()
        with pytest.raises(InputError, match=r"bomb\.png.*pixels"):
            load_image(tmp_path / "bomb.png")
        assert time.process_time() - started < 2
    assert MAX_PIXELS == 8192 * 8192


def test_a_refused_bomb_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_bomb(30_000, 30_000))
    # The peak is read from the process's own status: what getrusage reports is inherited from the parent.
    program = (
        "import sys\n"
        "from omni_rt.io.image import load_image\n"
        "try:\n    load_image(sys.argv[1])\n"
        "except Exception as error:\n"
        "    peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "    print(type(error).__name__, int(peak.split()[1]) // 1024)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "bomb.png")]
    name, mebibytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert name == "InputError" and int(mebibytes) < 256


def slow_bicubic(values: np.ndarray, size: int) -> np.ndarray:
    """Return `values` [N] resampled by the textbook: antialiased cubic with a = -0.5, float64, not rounded."""
    scale = len(values) / size
    stretch = max(scale, 1.0)
    result = []
    for out in range(size):
        total = weight_sum = 0.0
        for i, value in enumerate(values):
            d = abs((i + 0.5 - (out + 0.5) * scale) / stretch)
            w = 1.5 * d**3 - 2.5 * d**2 + 1 if d < 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0
            total, weight_sum = total + w * value, weight_sum + w
        result.append(total / weight_sum)
    return np.array(result)


@settings(max_examples=40)
@given(source=st.integers(1, 70), target=st.integers(1, 70), seed=st.integers(0, 99))
def test_resizing_equals_the_textbook_to_one_level(source: int, target: int, seed: int) -> None:
    line = np.random.default_rng(seed).integers(0, 256, source).astype(np.uint8)
    expected = np.clip(slow_bicubic(line, target), 0, 255)
    down = resize_bicubic(np.repeat(line[:, None, None], 3, axis=2), target, 1)[:, 0, 0]
    across = resize_bicubic(np.repeat(line[None, :, None], 3, axis=2), 1, target)[0, :, 2]
    np.testing.assert_array_equal(down, across)
    assert np.abs(down - expected).max() <= 0.6


def test_resizing_rounds_after_the_width_and_keeps_flat_colours() -> None:
    wide = resize_bicubic(PICTURE, 40, 32)
    np.testing.assert_array_equal(resize_bicubic(PICTURE, 64, 32), resize_bicubic(wide, 64, 32))
    flat = np.full((50, 70, 3), (3, 250, 127), np.uint8)
    assert (resize_bicubic(flat, 96, 32) == flat[0, 0]).all()
    np.testing.assert_array_equal(resize_bicubic(PICTURE, 40, 60), PICTURE)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((90, 150), (96, 160)),
        ((80, 80), (64, 64)),  # 2.5 rounds to even
        ((112, 112), (128, 128)),  # 3.5 rounds to even
        ((1, 1), (64, 64)),
        ((16, 3200), (32, 800)),
        ((4000, 6000), (2912, 4384)),
        ((32, 32), (64, 64)),
    ],
)
def test_sizes_round_to_whole_tokens_within_the_bounds(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(*shape) == expected


@settings(max_examples=200)
@given(height=st.integers(1, 9000), width=st.integers(1, 9000))
def test_any_shape_gets_a_size_within_the_bounds_or_is_too_narrow(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(InputError, match="over 200 times"):
            smart_resize(height, width)
        return
    rows, columns = smart_resize(height, width)
    assert rows % 32 == columns % 32 == 0 and 0 < rows * columns <= max(IMAGE.max_pixels, 32 * columns, 32 * rows)
    assert rows * columns >= IMAGE.min_pixels


def test_patches_come_block_by_block_and_inside_channel_first() -> None:
    values = np.arange(4 * 64 * 96 * 3).reshape(4, 64, 96, 3)
    patches, grid = patchify(values)
    assert grid == (2, 4, 6) and patches.shape == (48, 1536)
    inside = patches.reshape(48, 3, 2, 16, 16)
    row = 0
    for t in range(2):
        for block_y in range(2):
            for block_x in range(3):
                for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    top, left = 32 * block_y + 16 * y, 32 * block_x + 16 * x
                    expected = values[2 * t : 2 * t + 2, top : top + 16, left : left + 16].transpose(3, 0, 1, 2)
                    np.testing.assert_array_equal(inside[row], expected)
                    row += 1


def test_a_picture_fills_both_frames_of_a_patch() -> None:
    rgb = RNG.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    pixels, grid = image_patches(rgb)
    assert grid == (1, 4, 6) and pixels.dtype == np.float32
    halves = pixels.reshape(24, 3, 2, 256)
    np.testing.assert_array_equal(halves[:, :, 0], halves[:, :, 1])
    np.testing.assert_allclose(pixels[0, :16], rgb[0, :16, 0] / 127.5 - 1, atol=1e-6)


def test_an_odd_last_frame_is_repeated() -> None:
    small = PatchSettings(min_pixels=1024)
    frames = RNG.integers(0, 256, (3, 64, 96, 3)).astype(np.uint8)
    pixels, grid = video_patches(frames, small)
    assert grid == (2, 4, 6) and pixels.shape == (48, 1536)
    np.testing.assert_array_equal(pixels, video_patches(np.concatenate([frames, frames[-1:]]), small)[0])
    np.testing.assert_array_equal(image_patches(frames[2], small)[0], pixels[24:])


def test_video_frames_have_bounds_of_their_own() -> None:
    _, grid = video_patches(np.zeros((2, 64, 96, 3), np.uint8))
    assert grid[1] * grid[2] * 256 >= VIDEO.min_pixels == 131072


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((0, 5, 3), np.uint8), "nothing empty"),
        (np.zeros((5, 5), np.uint8), r"shape \(5, 5\)"),
        (np.zeros((5, 5, 4), np.uint8), r"shape \(5, 5, 4\)"),
        (np.zeros((5, 5, 3)), "is float64"),
        ([[0]], "is list"),
        (np.zeros((5, 1001, 3), np.uint8), "over 200 times"),
    ],
)
def test_other_arrays_are_refused(values: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        image_patches(values)  # type: ignore[arg-type]


def test_too_many_frames_are_refused() -> None:
    with pytest.raises(InputError, match="769 frames, at most 768"):
        video_patches(np.zeros((769, 1, 1, 3), np.uint8))


def test_settings_come_from_the_checkpoint(tmp_path: Path) -> None:
    assert PatchSettings.from_directory(tmp_path) == IMAGE
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"patch_size": 14, "size": {"shortest_edge": 100, "longest_edge": 2000}, "n_fft": 400}))
    assert PatchSettings.from_directory(tmp_path) == PatchSettings(patch=14, min_pixels=100, max_pixels=2000)
    path.write_text(json.dumps({"min_pixels": 50, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}))
    read = PatchSettings.from_directory(tmp_path)
    assert (read.min_pixels, read.mean, read.std) == (50, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    for wrong, says in (({"patch_size": 0}, "patch_size is 0"), ({"image_std": [0, 1, 1]}, "image_std")):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ModelFormatError, match=says):
            PatchSettings.from_directory(tmp_path)
