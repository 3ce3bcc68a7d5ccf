"""Griffin-Lim, the vocoder without a network: its speech has the mels that the codes stand for; errors are clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import omni_rt
from omni_rt import InputError, ModelFormatError, UnsupportedError
from omni_rt.io.mel import mel_filterbank, power_spectrum
from omni_rt.models.qwen3_omni.config_sections import Code2WavConfig
from omni_rt.models.qwen3_omni.griffin_lim import FILE, GriffinLim

RATE, FRAME, WINDOW, HOP, MELS = 24_000, 960, 1024, 240, 80
SETTINGS = {"window": str(WINDOW), "hop": str(HOP), "mels": str(MELS)}


def config(codebooks: int, entries: int) -> Code2WavConfig:
    """Return the part of a model that the vocoder looks at."""
    return Code2WavConfig(
        width=64, layers=1, heads=4, kv_heads=4, head_dim=16, feed_forward=64, norm_epsilon=1e-5, rope_theta=1e4,
        context=8000, sliding_window=72, codebooks=codebooks, codebook_size=entries, decoder_width=64,
        upsample_ratios=(2,), upsample_rates=(8, 5, 4, 3), sample_rate=RATE,
    )  # fmt: skip


def log_mels(samples: np.ndarray) -> np.ndarray:
    """Return natural-log mel magnitudes [S / 240, 80], frame m centred on sample 240 m + 120, by other means."""
    before = (WINDOW - HOP) // 2
    power = power_spectrum(np.pad(samples.astype(np.float64), (before, WINDOW - HOP - before)), WINDOW, HOP)
    return np.log(np.maximum(np.sqrt(power) @ mel_filterbank(WINDOW // 2 + 1, MELS, 0.0, RATE / 2, RATE), 1e-3))


def vowels() -> np.ndarray:
    """Return samples [24 frames] of a voice-like buzz whose pitch and colour change, between silences."""
    time = np.arange(24 * FRAME) / RATE
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 2 * time)) / RATE
    colour = 600 + 400 * np.sin(2 * np.pi * 1.5 * time)
    weights = [np.exp(-(((150 * k - colour) / 500) ** 2)) / k**0.3 for k in range(1, 30)]
    buzz = sum(weight * np.sin(k * phase) for k, weight in enumerate(weights, 1))
    return 0.3 * buzz / np.abs(buzz).max() * (np.abs(time - 0.48) < 0.4)


@pytest.fixture
def exact(tmp_path: Path) -> tuple[GriffinLim, np.ndarray, np.ndarray]:
    """Return a vocoder with an entry for each frame of a sound, the codes of the sound, and its log-mels."""
    mels = log_mels(vowels())
    rows = mels.reshape(24, -1).astype(np.float32)
    mean = rows.mean(0)
    tables = np.stack([(rows - mean) / 2, (rows - mean) / 2]).astype(np.float16)  # two books, half of it each
    save_file({"mean": mean.astype(np.float16), "tables": tables}, tmp_path / FILE, SETTINGS)
    return GriffinLim(tmp_path, config(2, 24)), np.tile(np.arange(24), (2, 1)), mels


def test_speech_has_the_mels_of_its_codes(exact: tuple[GriffinLim, np.ndarray, np.ndarray]) -> None:
    vocoder, codes, mels = exact
    sound = vocoder(codes)
    assert sound.sample_rate == RATE and sound.waveform.shape == (24 * FRAME,) and sound.waveform.dtype == np.float32
    assert np.abs(vocoder.log_mel(codes) - mels).max() < 0.02
    loud = mels > np.log(0.05)  # what can be heard; the rest is the noise of the search
    error = np.sqrt(np.mean((log_mels(sound.waveform) - mels)[loud] ** 2))
    assert error < 0.3, f"log-mels are off by {error:.2f}"
    shifted = np.sqrt(np.mean((log_mels(sound.waveform)[4:] - mels[:-4])[loud[:-4]] ** 2))
    assert shifted > 2 * error, "the check sees a shift of one frame of codes"


def test_streamed_speech_comes_whole_at_the_end(exact: tuple[GriffinLim, np.ndarray, np.ndarray]) -> None:
    vocoder, codes, _ = exact
    stream = vocoder.stream()
    assert sum(len(stream.push(codes[:, i : i + 5])) for i in range(0, 24, 5)) == 0
    assert (stream.finish() == vocoder(codes).waveform).all()
    assert len(stream.finish()) == 0
    with pytest.raises(InputError, match="finished"):
        stream.push(codes)


def test_no_frames_give_no_samples(exact: tuple[GriffinLim, np.ndarray, np.ndarray]) -> None:
    assert exact[0](np.zeros((2, 0), np.int32)).waveform.shape == (0,)


@pytest.mark.parametrize("codes", [np.zeros((3, 4), int), np.full((2, 4), 24), np.zeros((2, 4))])
def test_codes_that_are_none_are_refused(exact: tuple[GriffinLim, np.ndarray, np.ndarray], codes: np.ndarray) -> None:
    with pytest.raises(InputError, match="codes"):
        exact[0](codes)


def test_a_model_without_tables_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"has no {FILE}.*code2wav"):
        GriffinLim(tmp_path, config(2, 24))


@pytest.mark.parametrize(
    ("tables", "settings", "complaint"),
    [
        ((4, 24, 320), SETTINGS, r"tables \[4, 24, 320\].*need tables \[2, 24, 320\]"),
        ((2, 24, 320), SETTINGS | {"hop": "250"}, "hop of 250"),
        ((2, 24, 320), SETTINGS | {"mels": "-80"}, "mels as '-80'"),
        ((2, 24, 320), {}, "window as ''"),
    ],
)
def test_tables_of_another_model_are_refused(
    tmp_path: Path, tables: tuple[int, ...], settings: dict[str, str], complaint: str
) -> None:
    save_file({"mean": np.zeros(320, np.float16), "tables": np.zeros(tables, np.float16)}, tmp_path / FILE, settings)
    with pytest.raises(ModelFormatError, match=complaint):
        GriffinLim(tmp_path, config(2, 24))


def test_a_vocoder_of_another_name_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'code2wav' or 'griffin-lim'"):
        omni_rt.load("tiny", device="cpu", vocoder="griffin")


def test_preparing_speaks_two_frames_and_not_the_whole_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    monkeypatch.setattr(GriffinLim, "speech", lambda _, mels: heard.append(len(mels)) or np.zeros(0, np.float32))
    with omni_rt.load("tiny", device="cpu", context=256, vocoder="griffin-lim") as omni:
        omni.prepare()
    assert heard == [2 * FRAME // HOP]


def test_a_long_text_is_heard_at_its_end_with_all_its_pieces() -> None:
    with omni_rt.load("tiny", device="cpu", vocoder="griffin-lim") as omni:
        chunk, done = omni.read("Five cats sleep. " * 30, max_frames=3, seed=0)  # type: ignore[union-attr]
    assert done.reply.codes.shape[1] == 6 and len(chunk.samples) == 6 * FRAME
