"""Compares resized pictures and patches with the PyTorch reference's, on odd and on random sizes.

    python tools/check_patches.py --pictures 100 --seed 3

Needs the extra `oracle` (torch and transformers). The released processor resizes with PyTorch's antialiased bicubic for
bytes: every level must be the same. Its Pillow variant rounds otherwise: by how much is measured and printed. Patches
are compared with that variant's on sizes that need no resizing, where both processors agree.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference_size

from omni_rt.errors import InputError
from omni_rt.io.patches import IMAGE, image_patches, resize_bicubic, smart_resize

ODD = [(1, 1), (17, 3000), (3000, 17), (1, 200), (200, 1), (15, 3000), (56, 56), (55, 57), (2, 2), (31, 33), (4000, 30)]
"""Heights and widths: the smallest, long strips, the longest allowed, and around the least number of pixels."""
LARGE = [(3584, 3584), (3585, 3584), (4000, 6000), (2912, 4416)]
"""At the largest number of pixels and beyond; compared in size only."""
TOO_LONG = [(1, 201), (201, 1), (14, 3000)]


def resized_by_reference(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize [H, W, 3] uint8 with the kernel that the released processor calls."""
    planes = torch.from_numpy(rgb).permute(2, 0, 1)[None].contiguous()
    sized = torch.nn.functional.interpolate(planes, size=(height, width), mode="bicubic", antialias=True)
    return sized[0].permute(1, 2, 0).numpy()


def check_size(height: int, width: int) -> tuple[int, int]:
    """Return the size to resize to; raise SystemExit where the reference has another."""
    expected = reference_size(height, width, IMAGE.factor, IMAGE.min_pixels, IMAGE.max_pixels)
    if smart_resize(height, width) != expected:
        raise SystemExit(f"{height} x {width} becomes {smart_resize(height, width)}, in the reference {expected}")
    return expected


def check_refusals() -> None:
    """Raise SystemExit unless both refuse strips that are too long."""
    for height, width in TOO_LONG:
        for refused, size, arguments in (
            (ValueError, reference_size, (IMAGE.factor, IMAGE.min_pixels, IMAGE.max_pixels)),
            (InputError, smart_resize, ()),
        ):
            try:
                size(height, width, *arguments)
            except refused:
                continue
            raise SystemExit(f"{height} x {width} is not refused by {size.__module__}")


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    processor = Qwen2VLImageProcessorPil(
        patch_size=IMAGE.patch, min_pixels=IMAGE.min_pixels, max_pixels=IMAGE.max_pixels,
        image_mean=list(IMAGE.mean), image_std=list(IMAGE.std),
    )  # fmt: skip
    sizes = ODD + [(int(h), int(w)) for h, w in generator.integers(8, 900, (arguments.pictures, 2))]
    levels, worst, off, values = 0, 0, 0, 0
    for height, width in sizes:
        rgb = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        size = check_size(height, width)
        sized = resize_bicubic(rgb, *size)
        difference = np.abs(sized.astype(int) - resized_by_reference(rgb, *size))
        if difference.any():
            raise SystemExit(f"{height} x {width} to {size}: {np.count_nonzero(difference)} levels differ")
        levels += sized.size
        encoded = processor(images=[rgb], return_tensors="np", input_data_format="channels_last")
        expected, grid = encoded["pixel_values"], tuple(int(extent) for extent in encoded["image_grid_thw"][0])
        if image_patches(rgb)[1] != grid:
            raise SystemExit(f"{height} x {width}: the grid is {image_patches(rgb)[1]}, in the reference {grid}")
        apart = np.abs(image_patches(rgb)[0] - expected) * 127.5
        worst, off, values = max(worst, round(float(apart.max()))), off + int((apart > 0.5).sum()), values + apart.size
        exact = np.abs(
            image_patches(sized)[0]
            - processor(images=[sized], return_tensors="np", input_data_format="channels_last")["pixel_values"]
        ).max()
        if exact > 1e-6:
            raise SystemExit(f"{size}: patches of the same levels differ by {exact:.1e}")
    for height, width in LARGE:
        check_size(height, width)
    check_refusals()
    print(f"{len(sizes)} pictures: all {levels} levels equal PyTorch's; patches of the same levels are the same")
    print(f"Pillow's resize differs in {100 * off / values:.2f} % of the values, by at most {worst} of 255")


if __name__ == "__main__":
    main()
