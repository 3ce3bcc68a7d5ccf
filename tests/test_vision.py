"""Sight from pixels to speech: encoder stages, odd pictures, conversations full of media, Q8_0, memory, refusals."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import omni_rt
from omni_rt import InputError, Sampling, Video, ops
from omni_rt.devices.device import Device
from omni_rt.io.patches import IMAGE, image_patches, smart_resize
from omni_rt.models.qwen3_omni import vision_encoder as encoder_module
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.models.qwen3_omni.vision_encoder import VisionEncoder, interpolated_positions, patch_coordinates
from omni_rt.ops.attention import MOST_SCORES
from omni_rt.tensor import Tensor
from tests.reference import Reference, assert_close

TOLERANCE = 1e-4
CONVERSATIONS = ["album", "reel", "two_films", "film_then_image"]
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def vision_encoder(reference: Reference, device: Device) -> VisionEncoder:
    return VisionEncoder(reference.weights(device, "thinker.visual."), reference.config.vision)


@pytest.fixture(scope="module", params=["cpu", "wgpu"])
def omni(
    request: pytest.FixtureRequest, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OmniOrchestrator]:
    directory = reference.speaking_at_most(20, tmp_path_factory.mktemp("omni") / "checkpoint")
    with omni_rt.load(directory, device=request.param, strict=True, context=700) as model:
        # The films of the reference data are small, and were not enlarged to the least size of a released frame.
        model.processor.video_settings = replace(model.processor.video_settings, min_pixels=1)
        yield model  # type: ignore[misc]


@cache
def media_golden(directory: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of tools/golden_media.py and what its index says."""
    arrays = load_file(directory / "media.safetensors")
    return arrays, json.loads(arrays["index"].tobytes())


def messages_of(golden_dir: Path, name: str) -> list[dict[str, Any]]:
    """Return the messages of a conversation with its media put in."""
    arrays, index = media_golden(golden_dir)

    def part(stored: dict[str, str]) -> dict[str, Any]:
        kind = stored["type"]
        if kind == "text":
            return stored
        value: Any = arrays[f"{name}.{stored[kind]}"]
        if kind == "audio":
            value = (value, 16000)
        if kind == "video":
            value = Video(value, index["fps"], arrays[f"{name}.{stored['sound']}"] if "sound" in stored else None)
        return {"type": kind, kind: value}

    messages: list[dict[str, Any]] = []
    for message in index["conversations"][name]["messages"]:
        content = message["content"]
        messages.append(message | {"content": content if isinstance(content, str) else [part(p) for p in content]})
    return messages


def test_pixels_are_those_of_the_reference(reference: Reference) -> None:
    pixels, grid = image_patches(reference["image.rgb"])
    assert grid == tuple(reference["image.grid_thw"][0])
    np.testing.assert_allclose(pixels, reference["image.pixel_values"], atol=1e-6)


@pytest.mark.parametrize("media", ["image", "video"])
def test_every_stage_of_the_encoder_equals_the_reference(
    vision_encoder: VisionEncoder, reference: Reference, media: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}
    blocks: list[Any] = []
    for index, block in enumerate(vision_encoder.blocks):

        def watched(
            x: Tensor, table: Tensor, length: Tensor, picture: int, *, index: int = index, block: Any = block
        ) -> Tensor:
            seen.setdefault("block_in", x.numpy())
            seen["angles"] = table.numpy()
            result: Tensor = block(x, table, length, picture)
            seen[f"block{index}"] = result.numpy()
            return result

        blocks.append(watched)
    monkeypatch.setattr(vision_encoder, "blocks", blocks)
    time, height, width = (int(extent) for extent in reference[f"{media}.grid_thw"][0])
    vision_encoder(reference[f"{media}.pixel_values"], (time, height, width))
    for stage in ["block_in", *(f"block{index}" for index in range(len(vision_encoder.blocks)))]:
        assert_close(seen[stage], reference[f"{media}.{stage}"], TOLERANCE)
    # The reference holds each angle twice, once for each half of a head.
    cosine, sine = (reference[f"{media}.rope_{part}"] for part in ("cos", "sin"))
    half = cosine.shape[1] // 2
    assert_close(seen["angles"], np.concatenate([cosine[:, :half], sine[:, :half]], axis=1), 1e-5)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_with_media_have_the_prompt_and_states_of_the_reference(
    omni: OmniOrchestrator, golden_dir: Path, name: str
) -> None:
    arrays, _ = media_golden(golden_dir)
    prompt = omni.prompt(messages_of(golden_dir, name))
    assert prompt.token_ids == arrays[f"{name}.thinker.input_ids"].reshape(-1).tolist()
    positions, delta = omni.thinker.positions(prompt)
    np.testing.assert_array_equal(positions, arrays[f"{name}.thinker.position_ids"].reshape(3, -1))
    assert delta == pytest.approx(float(arrays[f"{name}.thinker.rope_delta"].reshape(-1)[0]), abs=1e-3)
    output = omni.thinker.forward(prompt)
    assert omni.config.talker is not None
    accepted = omni.config.talker.accept_hidden_layer
    assert_close(output.token_embeddings, arrays[f"{name}.thinker.hidden0"], TOLERANCE)
    assert_close(output.hidden, arrays[f"{name}.thinker.hidden{accepted}"], TOLERANCE)
    assert_close(output.text_logits[-1], arrays[f"{name}.thinker.greedy_logits"][0], TOLERANCE)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_with_media_are_answered_and_spoken_as_by_the_reference(
    omni: OmniOrchestrator, golden_dir: Path, name: str
) -> None:
    arrays, _ = media_golden(golden_dir)
    prompt = omni.prompt(messages_of(golden_dir, name))
    expected = arrays[f"{name}.thinker.greedy_ids"].tolist()
    reply = omni.thinker.generate(prompt, len(expected), Sampling())
    assert reply == expected
    assert omni.talker is not None and omni.code2wav is not None
    inputs, _, _ = omni.talker.prefill(prompt, reply)
    assert_close(inputs, arrays[f"{name}.speech.inputs_embeds"], TOLERANCE)
    codes = arrays[f"{name}.speech.codes"]
    spoken = omni.talker.generate(prompt, reply, max_frames=codes.shape[1], sampling=Sampling(repetition_penalty=1.05))
    np.testing.assert_array_equal(spoken.codes, codes)
    assert_close(omni.code2wav(spoken.codes).waveform, arrays[f"{name}.speech.wav"].reshape(-1), 1e-4)


def test_a_conversation_with_media_streams_what_chat_returns(omni: OmniOrchestrator, golden_dir: Path) -> None:
    messages = messages_of(golden_dir, "album")
    options: dict[str, Any] = {"speech": True, "max_new_tokens": 3, "sampling": Sampling(), "seed": 1}
    reply = omni.chat(messages, **options)
    *_, done = omni.stream(messages, **options)
    assert isinstance(done, omni_rt.Done)
    assert done.reply.token_ids == reply.token_ids
    np.testing.assert_array_equal(done.reply.audio, reply.audio)


def test_a_prompt_beyond_the_context_is_refused_before_it_is_encoded(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    with omni_rt.load(reference.checkpoint_directory, device="cpu", context=100) as model:
        monkeypatch.setattr(VisionEncoder, "__call__", None)
        rgb = np.zeros((320, 320, 3), np.uint8)
        with pytest.raises(InputError, match=r"1\d\d tokens, 100 of them image; the context of 100 positions"):
            model.chat([{"role": "user", "content": [{"type": "image", "image": rgb}]}])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (1, 1, (1, 4, 4)),
        (17, 3000, (1, 2, 188)),
        (3000, 17, (1, 188, 2)),
        (1, 200, (1, 2, 50)),  # exactly 200 times as long
        (56, 56, (1, 4, 4)),  # exactly the least number of pixels, rounded to whole tokens
        (32, 97, (1, 4, 8)),  # 3072 pixels after rounding: one token more
        (33, 95, (1, 4, 6)),
    ],
)
def test_odd_sizes_pass_through_the_encoder(
    vision_encoder: VisionEncoder, height: int, width: int, grid: tuple[int, int, int]
) -> None:
    rgb = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels, made = image_patches(rgb)
    assert made == grid
    tokens = vision_encoder(pixels, made)
    count = grid[1] * grid[2] // 4
    for rows in (tokens.embeddings, *tokens.deepstack):
        assert rows.shape == (count, vision_encoder.config.output_width) and np.isfinite(rows).all()


def test_the_largest_picture_is_kept_and_a_larger_one_shrinks() -> None:
    assert IMAGE.max_pixels == 3584 * 3584
    assert smart_resize(3584, 3584) == (3584, 3584)
    assert smart_resize(3601, 3584) == (3584, 3552)
    with pytest.raises(InputError, match="over 200 times"):
        smart_resize(1, 201)


def test_pictures_do_not_see_each_other(vision_encoder: VisionEncoder) -> None:
    config = vision_encoder.config
    pixels = np.random.default_rng(0).normal(size=(3 * 8, config.patch_values)).astype(np.float32)
    whole = vision_encoder(pixels, (3, 2, 4))
    for step in range(3):
        alone = vision_encoder(pixels[8 * step : 8 * step + 8], (1, 2, 4))
        assert_close(whole.embeddings[2 * step : 2 * step + 2], alone.embeddings, 1e-5)


def test_long_videos_and_wide_layers_in_pieces_give_the_same(
    vision_encoder: VisionEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = vision_encoder.config
    pixels = np.random.default_rng(1).normal(size=(5 * 24, config.patch_values)).astype(np.float32)
    whole = vision_encoder(pixels, (5, 4, 6))
    monkeypatch.setattr(encoder_module, "MOST_PATCHES", 60)
    monkeypatch.setattr(encoder_module, "MOST_ROWS", 20)
    pieces = vision_encoder(pixels, (5, 4, 6))
    assert_close(pieces.embeddings, whole.embeddings, 1e-5)
    for rows, expected in zip(pieces.deepstack, whole.deepstack, strict=True):
        assert_close(rows, expected, 1e-5)


def test_positions_are_stretched_from_corner_to_corner() -> None:
    table = np.arange(16, dtype=np.float32).reshape(4, 4)
    flat = np.stack([table.reshape(-1)] * 3, axis=1)
    corners = interpolated_positions(flat, (1, 2, 2), 2)[:, 0]
    assert corners.tolist() == [0, 3, 12, 15]
    between = interpolated_positions(flat, (2, 4, 6), 2)
    assert between.shape == (48, 3) and between[0, 0] == 0 and between[23, 0] == 15
    np.testing.assert_array_equal(between[:24], between[24:])
    rows, columns = patch_coordinates((1, 4, 6), 2).T
    np.testing.assert_allclose(between[:24, 0], rows * 4 + columns * 3 / 5, atol=1e-5)


def test_quantised_weights_keep_rows_that_are_no_multiple_of_32_and_the_result(
    reference: Reference, device: Device, vision_encoder: VisionEncoder
) -> None:
    encoder = VisionEncoder(reference.weights(device, "thinker.visual.", quant="q8_0"), reference.config.vision)
    config = reference.config.vision
    for block in encoder.blocks:
        for (weight, _), inputs in ((block.wide, config.width), (block.narrow, config.feed_forward)):
            assert weight.dtype == ("q8_0" if inputs % 32 == 0 else "f16")
    assert encoder.merger.first[0].dtype == ("q8_0" if config.width * 4 % 32 == 0 else "f16")
    assert encoder.patch_embed[0].dtype == "f16"  # a convolution
    grid = tuple(int(extent) for extent in reference["image.grid_thw"][0])
    exact = vision_encoder(reference["image.pixel_values"], grid).embeddings  # type: ignore[arg-type]
    coarse = encoder(reference["image.pixel_values"], grid).embeddings  # type: ignore[arg-type]
    apart = np.linalg.norm(coarse - exact) / np.linalg.norm(exact)
    assert 0 < apart < 0.03


def test_a_quantised_model_speaks_about_a_conversation_with_media(reference: Reference, golden_dir: Path) -> None:
    messages = messages_of(golden_dir, "album")
    replies = []
    for device in ("cpu", "wgpu"):
        with omni_rt.load(reference.checkpoint_directory, device=device, quant="q8_0", strict=True) as model:
            replies.append(model.chat(messages, speech=True, max_new_tokens=4, sampling=Sampling(), seed=0))  # type: ignore[union-attr]
            assert not any(device.fallbacks for device in model.devices.values())  # type: ignore[union-attr]
    assert replies[0].token_ids == replies[1].token_ids and len(replies[0].token_ids) >= 1
    assert all(reply.audio is not None and np.isfinite(reply.audio).all() for reply in replies)


def test_attention_over_a_large_picture_holds_no_square_of_scores(device: Device, cpu: Device) -> None:
    count, heads, width = 3072, 1, 8
    rng = np.random.default_rng(2)
    values = [rng.normal(size=(count, heads, width)).astype(np.float32) for _ in range(3)]
    before = device.ledger.used["activations"]
    inputs = [device.tensor(value) for value in values]
    length = device.tensor(np.array([count], np.int32))
    got = ops.attention(*inputs, length, scale=1.0, causal=False, block=count)
    assert device.ledger.used["activations"] - before <= 8 * values[0].nbytes < count * count
    tracemalloc.start()
    expected = ops.attention.body(*values, np.array([count]), scale=1.0, causal=False, block=count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 4 * MOST_SCORES
    assert_close(got.numpy(), expected, 1e-5)


def png_bomb(side: int) -> bytes:
    """Return about 17 KB that unpack to side x side black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def silent_film(path: Path, frames: int) -> None:
    import av

    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        film.start_encoding()
        for _ in range(frames):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        film.mux(stream.encode())


@pytest.mark.parametrize(
    ("file", "options", "says"),
    [
        ("bomb.png", ["--image"], "12000 x 12000 = 144000000 pixels, at most"),
        ("cut.jpg", ["--image"], "is damaged"),
        ("drawing.svg", ["--image"], "is not a picture that can be read"),
        ("drawing.svg", ["--video"], "is not a video that can be read"),
        ("empty.mp4", ["--video"], "holds no pictures"),
        ("empty.mkv", ["--video"], "holds 0 frames"),
        ("silent.mp4", ["--video-audio", "--video"], "has no sound"),
    ],
)
def test_unusable_files_are_refused_within_two_seconds_and_256_mib(
    tmp_path: Path, file: str, options: list[str], says: str
) -> None:
    path = tmp_path / file
    if file == "bomb.png":
        path.write_bytes(png_bomb(12000))
        assert path.stat().st_size < 20_000
    elif file == "cut.jpg":
        content = (EXAMPLES / "photo.jpg").read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif file == "drawing.svg":
        path.write_text("<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>")
    else:
        silent_film(path, 0 if file.startswith("empty") else 5)
    # The peak is read from the process's own status, and time is that of the process: the machine may be busy.
    program = (
        "import atexit, sys, time\n"
        "def report():\n"
        "    peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "    print('used', int(peak.split()[1]) // 1024, time.process_time(), file=sys.stderr)\n"
        "atexit.register(report)\n"
        "from omni_rt.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, "chat", "What is it?", *options, str(path), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    error, used = done.stderr.strip().split("\n")[-2:]
    assert file in error and "Traceback" not in done.stderr
    assert says in error
    _, mebibytes, seconds = used.split()
    assert int(mebibytes) < 256 and float(seconds) < 2
