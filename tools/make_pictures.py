"""Draws the shipped picture and the shipped film: a red ball on a wooden table, and the ball bouncing with its sound.

    python tools/make_pictures.py --out examples

Writes photo.jpg and clip.mp4 (H.264 and AAC). Needs the extra `video`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 360, 480
FILM_HEIGHT, FILM_WIDTH = 240, 320
FRAMES_PER_SECOND, SECONDS = 12, 4
SAMPLE_RATE = 24000
BOUNCES_PER_SECOND = 1.0
TABLE = 0.68
"""Where the table begins, as a fraction of the height."""


def scene(height: int, width: int, ball: tuple[float, float], radius: float) -> np.ndarray:
    """Draw the table, the wall and the ball [height, width, 3] uint8; `ball` is its centre (x, y), in fractions."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    down = y / height
    wall = np.stack([205 - 60 * down, 220 - 50 * down, 235 - 30 * down], axis=-1)
    grain = 10 * np.sin(0.35 * y + 2 * np.sin(0.012 * x)) + 4 * np.sin(1.9 * y + 0.02 * x)
    wood = np.stack([170 + grain, 118 + 0.8 * grain, 70 + 0.5 * grain], axis=-1)
    picture = np.where((down > TABLE)[..., None], wood, wall)
    reach = radius * height
    centre_x, centre_y = ball[0] * width, ball[1] * height
    ground = (TABLE + 0.1) * height
    lift = np.clip((ground - centre_y - reach) / height, 0, 1)
    shadow = np.exp(-(((x - centre_x - 0.1 * reach) / reach) ** 2 + ((y - ground) / (0.25 * reach)) ** 2))
    picture *= 1 - (0.6 - 0.5 * lift) * shadow[..., None]
    across, along = (x - centre_x) / reach, (y - centre_y) / reach
    distance = np.sqrt(across**2 + along**2)
    depth = np.sqrt(np.clip(1 - distance**2, 0, 1))
    light = np.clip(-0.5 * across - 0.6 * along + 0.62 * depth, 0.12, 1)
    shine = np.clip(1 - 8 * ((across + 0.36) ** 2 + (along + 0.42) ** 2), 0, 1) ** 2
    colour = light[..., None] * np.array([215.0, 35.0, 30.0]) + 170 * shine[..., None]
    edge = np.clip((1 - distance) * reach, 0, 1)[..., None]
    return np.clip(picture * (1 - edge) + colour * edge, 0, 255).astype(np.uint8)


def height_of_ball(seconds: float) -> float:
    """Return how high the ball is at a time, 0 on the table to 1."""
    phase = seconds * BOUNCES_PER_SECOND % 1
    return 4 * phase * (1 - phase)


def film() -> Iterator[np.ndarray]:
    """Draw the frames of the film."""
    radius = 0.13
    for index in range(FRAMES_PER_SECOND * SECONDS):
        seconds = index / FRAMES_PER_SECOND
        low = TABLE + 0.1 - radius
        yield scene(
            FILM_HEIGHT,
            FILM_WIDTH,
            (0.2 + 0.6 * seconds / SECONDS, low - 0.45 * height_of_ball(seconds)),
            radius,
        )


def thuds() -> np.ndarray:
    """Return the sound of the bounces [N] float32."""
    time = np.arange(SAMPLE_RATE * SECONDS) / SAMPLE_RATE
    since = time * BOUNCES_PER_SECOND % 1 / BOUNCES_PER_SECOND
    return (0.6 * np.exp(-18 * since) * np.sin(2 * np.pi * (95 * since + 40 * np.exp(-30 * since) / 30))).astype(
        np.float32
    )


def write_film(path: Path) -> None:
    """Encode the film and its sound."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        pictures = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "28", "preset": "veryslow"})
        pictures.width, pictures.height, pictures.pix_fmt = FILM_WIDTH, FILM_HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        sound.bit_rate = 32000
        for frame in film():
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode())
        samples = thuds()
        for start in range(0, len(samples), 1024):
            block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts = SAMPLE_RATE, start
            container.mux(sound.encode(block))
        container.mux(sound.encode())


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    directory = parser.parse_args().out
    Image.fromarray(scene(HEIGHT, WIDTH, (0.45, 0.62), 0.2)).save(directory / "photo.jpg", quality=85)
    write_film(directory / "clip.mp4")
    for name in ("photo.jpg", "clip.mp4"):
        print(f"{directory / name}: {(directory / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
