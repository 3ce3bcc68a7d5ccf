"""Video files become the frames and the sound that the reference's helper takes; unusable files are refused clearly."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import omni_rt
from omni_rt import InputError, UnsupportedError, Video
from omni_rt.io import video as video_module
from omni_rt.io.patches import MAX_FRAMES, VIDEO, PatchSettings, smart_resize
from omni_rt.io.video import check_video, frame_size, load_video, sampled_frames
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator

SMALL = PatchSettings(min_pixels=1024, max_pixels=1 << 20)
CLIP = Path(__file__).parent.parent / "examples" / "clip.mp4"
HEIGHT, WIDTH = 64, 96


def numbered_frames(count: int) -> np.ndarray:
    """Return frames [count, H, W, 3] that show their index: six columns, light for a 1, each darker at its foot."""
    bits = np.arange(count)[:, None] >> np.arange(5, -1, -1) & 1
    columns = np.repeat(np.where(bits == 1, 230, 60), WIDTH // 6, axis=1).astype(np.uint8)
    frames = np.repeat(np.repeat(columns[:, None, :, None], HEIGHT, axis=1), 3, axis=3)
    frames[:, HEIGHT // 2 :] -= 40
    return frames


def write_film(
    target: Path | io.BytesIO,
    frames: np.ndarray,
    *,
    fps: int = 10,
    codec: str = "mpeg4",
    container: str | None = None,
    sound: np.ndarray | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Encode frames, and samples [N] at 24 kHz as an audio track."""
    place: Any = str(target) if isinstance(target, Path) else target
    flags = {"movflags": "faststart"} if isinstance(target, Path) else {}
    with av.open(place, "w", format=container, options=flags) as film:
        stream = film.add_stream(codec, rate=fps, options=options or {"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track = None if sound is None else film.add_stream("aac", rate=24000, layout="mono")
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
        if track is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = 24000, start
                film.mux(track.encode(block))
            film.mux(track.encode())


def index_of(frame: np.ndarray) -> int:
    """Return which of `numbered_frames` this one is."""
    columns = frame[HEIGHT // 8 : HEIGHT // 4].reshape(-1, 6, WIDTH // 6, 3).mean(axis=(0, 2, 3))
    return int((columns > 145) @ (1 << np.arange(5, -1, -1)))


def tone(seconds: float) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(int(24000 * seconds)) / 24000)).astype(np.float32)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_film(path, numbered_frames(40), sound=tone(4))
    return path


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "silent.mp4"
    write_film(path, numbered_frames(10))
    return path


@pytest.fixture(scope="module")
def omni() -> Iterator[OmniOrchestrator]:
    with omni_rt.load("tiny", device="cpu") as model:
        yield model  # type: ignore[misc]


@pytest.mark.parametrize(
    ("total", "fps", "expected"),
    [
        (48, 12, [0, 7, 13, 20, 27, 34, 40, 47]),
        (5, 30, [0, 1, 3, 4]),  # at least four
        (3, 30, [0, 2]),  # an even number of those there are
        (2, 1, [0, 1]),
        (1, 30, [0]),
        (10, 1, list(range(10))),  # fewer than two a second: all of them
        (100, 30, [0, 20, 40, 59, 79, 99]),  # 6.67 becomes 6
        (11, 4, [0, 3, 7, 10]),  # 5.5 becomes 4
    ],
)
def test_two_frames_a_second_are_taken(total: int, fps: float, expected: list[int]) -> None:
    assert sampled_frames(total, fps).tolist() == expected


@settings(max_examples=200)
@given(total=st.integers(1, 200_000), fps=st.floats(0.05, 240))
def test_the_frames_taken_rise_from_first_to_last_and_are_an_even_number(total: int, fps: float) -> None:
    chosen = sampled_frames(total, fps)
    assert len(chosen) <= min(MAX_FRAMES, total) and (len(chosen) % 2 == 0 or total == 1)
    assert len(chosen) >= min(4, total // 2 * 2)
    assert chosen[0] == 0 and chosen[-1] == total - 1 and (np.diff(chosen) > 0).all()
    if 4 < total / fps * 2 < min(768, total):
        assert total / fps * 2 - 2 < len(chosen) <= total / fps * 2


def test_the_chosen_frames_are_the_ones_shown(film: Path) -> None:
    video = load_video(film, SMALL)
    assert [index_of(frame) for frame in video.frames] == sampled_frames(40, 10).tolist()
    assert video.fps == 2.0 and video.frames.dtype == np.uint8
    assert video.frames.shape[1:3] == smart_resize(HEIGHT, WIDTH, SMALL) == (64, 96)
    assert video.frames[0, 10].mean() == pytest.approx(60, abs=3)
    assert video.frames[0, 50].mean() == pytest.approx(20, abs=3)


@pytest.mark.parametrize(
    ("codec", "container"),
    [("libx264", "mov"), ("libx264", "matroska"), ("mpeg4", "avi"), ("libvpx", "webm"), ("libvpx-vp9", "webm")],
)
def test_every_container_is_read_from_memory(codec: str, container: str) -> None:
    buffer = io.BytesIO()
    options = {"crf": "4", "b": "4M"} if codec != "mpeg4" else None
    write_film(buffer, numbered_frames(20), codec=codec, container=container, options=options)
    video = load_video(buffer.getvalue(), SMALL)
    assert [index_of(frame) for frame in video.frames] == sampled_frames(20, 10).tolist()
    assert video.fps == 2.0


def test_packets_that_show_nothing_are_not_counted(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # VP8 hides reference frames in packets of their own, so there are more packets than frames.
    monkeypatch.setattr(video_module._File, "count", lambda self, sound: (46, 10.0))
    video = load_video(film, SMALL)
    assert [index_of(frame) for frame in video.frames] == sampled_frames(40, 10).tolist()
    assert video.fps == 2.0


def test_the_sound_comes_at_16_khz_where_it_is_wanted(film: Path, silent: Path) -> None:
    heard = load_video(film, SMALL).audio
    assert heard is not None and heard.dtype == np.float32
    assert len(heard) == pytest.approx(4 * 16000, abs=2400)
    spectrum = np.abs(np.fft.rfft(heard[8000:24000]))
    assert np.argmax(spectrum) == 440 and np.abs(heard).max() == pytest.approx(0.4, abs=0.1)
    np.testing.assert_array_equal(load_video(film, SMALL, sound=True).audio, heard)  # type: ignore[arg-type]
    assert load_video(film, SMALL, sound=False).audio is None
    assert load_video(silent, SMALL).audio is None
    with pytest.raises(InputError, match=r"silent\.mp4: has no sound"):
        load_video(silent, SMALL, sound=True)
    with pytest.raises(InputError, match=r"silent\.mp4: has no sound"):
        check_video(silent, sound=True)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_frames_stand_upright(film: Path, quarter_turns: int) -> None:
    content = bytearray(film.read_bytes())
    # The matrix of the track header, in 16.16 and 2.30 fixed point, turns the picture clockwise.
    turn = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarter_turns]
    a, b, c, d = (value << 16 for value in turn)
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = load_video(bytes(content), SMALL).frames
    straight = load_video(film, SMALL).frames
    np.testing.assert_array_equal(turned, np.rot90(straight, -quarter_turns, axes=(1, 2)))


def test_long_films_get_smaller_frames_within_the_bounds() -> None:
    assert frame_size(1080, 1920, 8, VIDEO) == smart_resize(1080, 1920, VIDEO)
    most = [frame_size(1080, 1920, count, VIDEO) for count in (8, 300, 500, 768)]
    areas = [height * width for height, width in most]
    assert areas == sorted(areas, reverse=True) and areas[-1] < areas[0]
    tokens = 768 // 2 * areas[-1] // 32**2
    assert areas[-1] >= VIDEO.min_pixels and tokens <= 128_000 * 0.9
    for height, width in most:  # the processor then leaves the size alone
        assert smart_resize(height, width, VIDEO) == (height, width)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<svg width='5'/>", "is not a video that can be read; it begins with b.<svg"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "is not a video"),
        (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "is not a video"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(200), "damaged"),
        (b"\x1a\x45\xdf\xa3" + bytes(200), "damaged"),
        (b"RIFF\x00\x01\x00\x00AVI LIST" + bytes(200), "damaged|holds"),
        (5, "came as int"),
    ],
)
def test_what_is_no_video_is_refused(content: Any, says: str) -> None:
    for look in (lambda: load_video(content, SMALL), lambda: check_video(content)):
        with pytest.raises(InputError, match=says):
            look()


def test_a_file_without_frames_or_cut_short_is_refused(film: Path, tmp_path: Path) -> None:
    only_sound, none, cut = tmp_path / "sound.mp4", tmp_path / "none.mp4", tmp_path / "cut.mp4"
    with av.open(str(only_sound), "w") as container:
        track = container.add_stream("aac", rate=24000, layout="mono")
        block = av.AudioFrame.from_ndarray(tone(0.5)[None], format="fltp", layout="mono")
        block.sample_rate = 24000
        container.mux(track.encode(block))
        container.mux(track.encode())
    write_film(none, numbered_frames(0), sound=tone(0.5))
    cut.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    for path, says in (
        (only_sound, r"sound\.mp4: holds no pictures \(streams: audio\)"),
        (none, r"none\.mp4: holds (no pictures|0 frames)"),
        (cut, r"cut\.mp4: (is cut short: it holds \d+ of its 40 frames|is damaged)"),
        (tmp_path / "nowhere.mp4", "does not exist"),
        (tmp_path, "give a video file"),
    ):
        with pytest.raises(InputError, match=says):
            load_video(path, SMALL)


@settings(max_examples=60)
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=5))
def test_changed_bytes_give_a_video_or_a_clear_refusal(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CLIP.read_bytes())
    for at, value in changes:
        content[at % len(content)] = value
    try:
        assert load_video(bytes(content), SMALL).frames.shape[3] == 3
    except InputError as error:
        assert "video" in str(error)


def test_frames_beyond_the_limit_are_refused_before_they_are_decoded(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_module, "MAX_FRAME_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(InputError, match=f"more than {HEIGHT * WIDTH - 1} pixels"):
        load_video(film, SMALL)
    monkeypatch.setattr(video_module, "MAX_FRAME_PIXELS", 1 << 25)
    monkeypatch.setattr(video_module, "MAX_SECONDS", 3.5)
    with pytest.raises(InputError, match="lasts over 4 s"):
        load_video(film, SMALL)


def test_without_the_extra_the_cure_is_named(
    film: Path, monkeypatch: pytest.MonkeyPatch, omni: OmniOrchestrator
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'omni-rt\[video\]'"):
        load_video(film, SMALL)
    frames = (numbered_frames(4), 2.0)
    prompt = omni.prompt([{"role": "user", "content": [{"type": "video", "video": frames}]}])
    assert len(prompt.videos) == 1


@pytest.mark.parametrize(
    ("frames", "fps", "audio", "says"),
    [
        (numbered_frames(0), 2.0, None, "nothing to look at"),
        (numbered_frames(1)[0], 2.0, None, r"shape \[64, 96, 3\]"),
        (numbered_frames(2).astype(np.float32), 2.0, None, "are float32"),
        ([[0]], 2.0, None, "are list"),
        (numbered_frames(2), 0, None, "0 frames a second"),
        (numbered_frames(2), float("nan"), None, "nan frames a second"),
        (numbered_frames(2), float("inf"), None, "inf frames a second"),
        (numbered_frames(2), "2", None, "'2' frames a second"),
        (numbered_frames(2), 2.0, np.zeros((2, 400), np.float32), r"float32 \[2, 400\]"),
        (numbered_frames(2), 2.0, np.zeros(400, np.int16), "int16"),
        (numbered_frames(2), 2.0, (np.zeros(400, np.float32), 16000), "is tuple"),
        (numbered_frames(2), 2.0, np.zeros(159, np.float32), "159 samples"),
        (numbered_frames(2), 2.0, np.full(400, np.nan, np.float32), "NaN"),
    ],
)
def test_unusable_arrays_are_refused(omni: OmniOrchestrator, frames: Any, fps: Any, audio: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Video(frames, fps, audio)
    if audio is None:
        with pytest.raises(InputError, match=says):
            omni.processor.video(frames, fps)


def asked(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]


def test_a_file_in_a_message_is_the_video_and_its_sound(film: Path, omni: OmniOrchestrator) -> None:
    tokens = omni.config.tokens
    prompt = omni.prompt(asked({"type": "video", "video": str(film)}))
    (video,) = prompt.videos
    expected = load_video(film, omni.processor.video_settings)
    np.testing.assert_array_equal(video.frames, expected.frames)
    np.testing.assert_array_equal(video.audio, expected.audio)  # type: ignore[arg-type]
    again = omni.prompt(asked({"type": "video", "video": expected}))
    assert again.token_ids == prompt.token_ids
    time, rows, columns = omni.processor.video_grid(video)
    assert prompt.token_ids.count(tokens.video_pad) == time * rows * columns // 4
    assert prompt.token_ids.count(tokens.audio_pad) == omni.processor.video_audio_count(video) > 0
    quiet = omni.prompt(asked({"type": "video", "video": film.read_bytes(), "use_audio_in_video": False}))
    assert tokens.audio_start not in quiet.token_ids and quiet.videos[0].audio is None
    assert omni.processor.seconds_per_grid(video) == 1.0


def test_sound_can_be_declined_and_asked_for(omni: OmniOrchestrator, silent: Path) -> None:
    sounding = Video(numbered_frames(4), 2.0, np.zeros(16000, np.float32))
    declined = omni.prompt(asked({"type": "video", "video": sounding, "use_audio_in_video": False}))
    assert declined.videos[0].audio is None and omni.config.tokens.audio_pad not in declined.token_ids
    for mute in (Video(numbered_frames(4), 2.0), (numbered_frames(4), 2.0), silent):
        with pytest.raises(InputError, match="sound"):
            omni.prompt(asked({"type": "video", "video": mute, "use_audio_in_video": True}))
    with pytest.raises(InputError, match="expected True or False"):
        omni.prompt(asked({"type": "video", "video": sounding, "use_audio_in_video": "yes"}))
    with pytest.raises(InputError, match="use_audio_in_video"):
        omni.prompt(asked({"type": "image", "image": numbered_frames(1)[0], "use_audio_in_video": True}))
    with pytest.raises(InputError, match="tuple of 3"):
        omni.prompt(asked({"type": "video", "video": (numbered_frames(2), 2.0, None)}))


def test_the_shipped_film_is_answered_with_and_without_its_sound(omni: OmniOrchestrator) -> None:
    lengths = []
    for sound in (None, False):
        part = {"type": "video", "video": CLIP} | ({} if sound is None else {"use_audio_in_video": sound})
        prompt = omni.prompt(asked(part))
        lengths.append(len(prompt.token_ids))
        reply = omni.generate(prompt, max_new_tokens=3, seed=0)
        assert len(reply.token_ids) == 3 or reply.finish_reason == "stop"
    assert lengths[0] - lengths[1] == 2 + omni.processor.video_audio_count(load_video(CLIP, VIDEO))
