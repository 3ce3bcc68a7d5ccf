"""Audio of any usual kind becomes mono samples and the reference's log-mels; bad audio is refused by name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_rt.errors import InputError
from omni_rt.io.audio import load_audio, save_audio, wav_bytes
from omni_rt.io.files import atomic_write
from omni_rt.io.mel import log_mel, mel_filterbank, power_spectrum
from tests import wav

RNG = np.random.default_rng(11)


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_every_format_is_written_and_read_back(tmp_path: Path, suffix: str, rate: int) -> None:
    wave = tone(rate)
    save_audio(tmp_path / f"a{suffix}", wave, rate)
    back = load_audio(tmp_path / f"a{suffix}", rate)
    assert back.dtype == np.float32 and abs(len(back) - len(wave)) <= (0 if suffix in (".wav", ".flac") else 3000)
    inner = slice(2000, 6000)
    assert np.abs(back[inner] - wave[inner]).max() < (1e-4 if suffix in (".wav", ".flac") else 0.05)
    np.testing.assert_array_equal(load_audio((tmp_path / f"a{suffix}").read_bytes(), rate), back)


def test_sixteen_bits_survive_a_round_trip_and_excess_is_clipped(tmp_path: Path) -> None:
    every = np.arange(-32768, 32768, dtype=np.int16)
    save_audio(tmp_path / "a.wav", every.astype(np.float32) / 32768, 16000)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], every)
    save_audio(tmp_path / "b.wav", np.array([2.0, -3.0, 1.0]), 16000)
    assert soundfile.read(tmp_path / "b.wav", dtype="int16")[0].tolist() == [32767, -32768, 32767]
    assert wav_bytes(every / 32768, 16000) == (tmp_path / "a.wav").read_bytes()


def test_channels_are_averaged_then_resampled(tmp_path: Path) -> None:
    stereo = np.stack([tone(44100), tone(44100, hertz=660)], axis=1)
    soundfile.write(tmp_path / "s.wav", stereo, 44100, subtype="FLOAT")
    expected = soxr.resample(stereo.mean(axis=1), 44100, 16000, quality="HQ")
    for source in (tmp_path / "s.wav", (stereo, 44100), (stereo.astype(np.float64), 44100)):
        got = load_audio(source, 16000)
        assert got.shape == expected.shape == (8000,)
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_long_audio_read_in_blocks_equals_one_piece() -> None:
    wave = (0.1 * RNG.standard_normal(700_001)).astype(np.float32)
    np.testing.assert_array_equal(load_audio((wave, 16000), 16000), wave)
    expected = soxr.resample(wave, 48000, 16000, quality="HQ")
    got = load_audio((wave, 48000), 16000)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_integer_samples_are_scaled() -> None:
    samples = np.array([-32768, 0, 16384], np.int16)
    assert load_audio((samples, 16000), 16000).tolist() == [-1.0, 0.0, 0.5]
    assert load_audio((samples.astype(np.int32) << 16, 16000), 16000).tolist() == [-1.0, 0.0, 0.5]


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return files that must be refused, each with what the message must say."""
    files = {
        "text": (b"this is not audio, it is a letter\n" * 9, "not readable audio .*begins with b'this is not audi'"),
        "empty": (b"", r"is empty \(0 bytes\)"),
        "silent": (wav.header(), "holds no samples"),
        "cut": (wav.header(data=1000)[:30], "not readable audio"),
        "crowd": (wav.header(channels=65535, data=4) + bytes(4), "has 65535 channels, 1 to 64"),
        "nobody": (wav.header(channels=0, data=4) + bytes(4), "has 0 channels"),
        "slow": (wav.header(rate=3, data=4) + bytes(4), "its rate is 3"),
        "fast": (wav.header(rate=2_000_000_000, data=4) + bytes(4), "its rate is 2000000000"),
    }
    paths = {}
    for name, (content, says) in files.items():
        (folder / f"{name}.wav").write_bytes(content)
        paths[name] = (folder / f"{name}.wav", says)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        wave = np.zeros(100_000, np.float32)
        wave[80_000] = value
        soundfile.write(folder / f"{name}.wav", wave, 16000, subtype="FLOAT")
        paths[name] = (folder / f"{name}.wav", r"the sample at 5\.000 s is NaN or infinite")
    soundfile.write(folder / "many.wav", np.zeros((10, 65), np.float32), 16000)
    paths["many"] = (folder / "many.wav", "has 65 channels, 1 to 64")
    return paths


def test_bad_files_are_refused_by_name_from_disk_and_from_memory(tmp_path: Path) -> None:
    for path, says in bad_files(tmp_path).values():
        with pytest.raises(InputError, match=f"{path.name}.*{says}"):
            load_audio(path, 16000)
        with pytest.raises(InputError, match=says):
            load_audio(path.read_bytes(), 16000)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        load_audio(tmp_path, 16000)
    with pytest.raises(InputError, match="does not exist"):
        load_audio(tmp_path / "nowhere.wav", 16000)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(InputError, match="not a regular file"):
        load_audio(tmp_path / "pipe.wav", 16000)
    with pytest.raises(InputError, match="cannot be read"):
        load_audio("a\0b.wav", 16000)


def test_ten_hours_are_refused_by_the_header_before_decoding(tmp_path: Path) -> None:
    data = 10 * 3600 * 16000 * 2
    with open(tmp_path / "long.wav", "wb") as file:
        file.write(wav.header(data=data))
        file.truncate(44 + data)  # sparse: takes no disk
    started = time.process_time()
    with pytest.raises(InputError, match="lasts 36000 s, at most 3600 s"):
        load_audio(tmp_path / "long.wav", 16000)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (np.zeros(5, np.float32), "without its rate"),
        ((np.zeros(5), 16000.0), "whole number of Hz"),
        ((np.zeros(5), True), "whole number of Hz"),
        ((np.zeros(5), 0), "whole number of Hz"),
        ((np.zeros(5), 16000, 1), "a tuple of 3"),
        ((np.zeros(0), 16000), "no samples"),
        ((np.zeros((5, 0)), 16000), "0 channels"),
        ((np.zeros((2, 16000)), 16000), "16000 channels"),
        ((np.zeros((2, 2, 2)), 16000), "expected .samples. or"),
        ((np.zeros((2, 16000)), 16000), "transpose it"),
        ((np.zeros(5, np.uint8), 16000), "samples are uint8"),
        ((np.array([0.0, np.nan]), 16000), "NaN"),
        (17, "came as int"),
    ],
)
def test_bad_arrays_are_refused(source: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_audio(source, 16000)  # type: ignore[arg-type]


def test_bad_output_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wave = tone(16000)
    (tmp_path / "folder.wav").mkdir()
    for path, samples, rate, says in [
        (tmp_path / "a.txt", wave, 16000, "suffix is '.txt'"),
        (tmp_path / "no" / "a.wav", wave, 16000, "directory does not exist"),
        (tmp_path / "folder.wav", wave, 16000, "is a directory"),
        (tmp_path / "a.wav", np.array([np.nan]), 16000, "NaN"),
        (tmp_path / "a.wav", np.zeros((2, 2)), 16000, "one channel"),
        (tmp_path / "a.mp3", wave, 12345, "cannot be written at 12345 Hz"),
    ]:
        with pytest.raises(InputError, match=says):
            save_audio(path, samples, rate)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.wav"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
    with atomic_write(target) as temporary:
        assert temporary.suffix == ".wav" and temporary.parent == tmp_path
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "new") as temporary:
        temporary.touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def slow_log_mel(wave: np.ndarray) -> np.ndarray:
    """Return log-mels [F, 128] by the definition: a sum per bin, a triangle per filter, float64."""
    padded = np.concatenate([wave[200:0:-1], wave, wave[-2:-202:-1]]).astype(np.float64)
    n = np.arange(400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    basis = np.exp(-2j * np.pi * np.outer(np.arange(201), n) / 400)
    power = np.stack([np.abs(basis @ (padded[160 * f : 160 * f + 400] * window)) ** 2 for f in range(len(wave) // 160)])
    top = 15 + 27 * np.log(8) / np.log(6.4)
    edge = [m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27) for m in np.linspace(0, top, 130)]
    mel = np.zeros((len(power), 128))
    for m in range(128):
        for k in range(201):
            f, (low, mid, high) = 40.0 * k, edge[m : m + 3]
            weight = (f - low) / (mid - low) if low < f <= mid else (high - f) / (high - mid) if mid < f < high else 0
            mel[:, m] += power[:, k] * weight * 2 / (high - low)
    logs = np.log10(np.maximum(mel, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


@pytest.mark.parametrize("count", [201, 319, 320, 1600, 1601, 4999])
def test_log_mel_equals_its_definition(count: int) -> None:
    wave = (0.2 * RNG.standard_normal(count)).astype(np.float32)
    got = log_mel(wave)
    assert got.shape == (count // 160, 128) and got.dtype == np.float32
    np.testing.assert_allclose(got, slow_log_mel(wave), atol=1e-6)


def test_silence_and_full_scale_stay_finite() -> None:
    assert (log_mel(np.zeros(1600)) == -1.5).all()
    loud = log_mel(np.where(np.arange(16000) % 40 < 20, 1.0, -1.0))
    assert np.isfinite(loud).all() and loud.max() - loud.min() == pytest.approx(2.0, abs=1e-6)


def test_a_clip_beside_a_longer_one_sees_zeros_instead_of_its_reflection() -> None:
    wave = (0.2 * RNG.standard_normal(1000)).astype(np.float32)
    beside = log_mel(wave, padded_length=4000)
    assert beside.shape == (7, 128)
    np.testing.assert_array_equal(beside, log_mel(np.pad(wave, (0, 3000)))[:7])


@pytest.mark.parametrize(
    ("wave", "says"),
    [
        (np.zeros(0), "has 0 samples, at least 201"),
        (np.zeros(200), "has 200 samples, at least 201"),
        (np.zeros((300, 2)), "one channel"),
        (np.full(300, np.inf), "300 samples that are NaN"),
    ],
)
def test_log_mel_refuses_what_it_cannot_hear(wave: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        log_mel(wave)


def test_blocks_of_frames_do_not_show_in_the_result() -> None:
    wave = (0.2 * RNG.standard_normal(160 * 4096 + 800)).astype(np.float32)
    whole = log_mel(wave)
    part = log_mel(wave[160 * 4000 :])
    np.testing.assert_allclose(whole[4002:], part[2:], atol=1e-5)


def test_seventy_seconds_are_transformed_quickly() -> None:
    wave = (0.2 * RNG.standard_normal(70 * 16000)).astype(np.float32)
    log_mel(wave[:16000])
    started = time.process_time()
    assert log_mel(wave).shape == (7000, 128)
    assert time.process_time() - started < 2.0  # 0.2 s on a desktop core; a loop per frame takes far longer


@settings(max_examples=30)
@given(bins=st.integers(9, 600), mels=st.integers(1, 64), rate=st.sampled_from([8000, 16000, 24000, 48000]))
def test_filters_are_positive_and_stay_in_their_band(bins: int, mels: int, rate: int) -> None:
    filters = mel_filterbank(bins, mels, 300.0, rate / 2 - 500, rate)
    frequencies = np.linspace(0, rate / 2, bins)
    assert filters.shape == (bins, mels) and (filters >= 0).all()
    assert not filters[(frequencies < 300) | (frequencies > rate / 2 - 500)].any()


def test_power_of_a_bin_centred_tone_is_where_it_belongs() -> None:
    power = power_spectrum(np.cos(2 * np.pi * 10 * np.arange(1024) / 256), 256, 64)
    assert power.shape == (13, 129) and (power.argmax(axis=1) == 10).all()
    np.testing.assert_allclose(power[:, 10], (256 / 4) ** 2)


def test_bytes_are_read_as_the_file_they_are_of(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(22050), 22050)
    expected = load_audio(path, 16000)
    assert expected.shape == (8000,)
    for content in (path.read_bytes(), memoryview(path.read_bytes())):
        np.testing.assert_array_equal(load_audio(content, 16000), expected)
