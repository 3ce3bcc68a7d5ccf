"""Code2Wav agrees with the reference stage by stage, and a stream in any pieces is the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from omni_rt.devices.webgpu import WebGpuDevice
from omni_rt.errors import InputError, ModelFormatError
from omni_rt.models import waveform
from omni_rt.models.code_stream import PIECES, RECORDED_FRAMES, CodeStream, StreamState, recorded_bytes
from omni_rt.models.qwen3_omni.code2wav import Code2Wav, waveform_shape
from omni_rt.models.waveform import WaveformShape
from omni_rt.ops.contract import Op
from omni_rt.state import Tails
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights
from tests.reference import Reference, assert_close

TOLERANCE = 1e-4
STREAMED = 1e-5
"""How far a stream may be from the whole, however loud: the bits are the same, but for a last one on NumPy."""
RELEASE = WaveformShape(1024, (2, 2), (8, 5, 4, 3), 1536, looks_ahead=True)


def load(reference: Reference, device: Device, *, chunk: int | None = None, quant: str | None = None) -> Code2Wav:
    assert reference.config.code2wav is not None
    return Code2Wav(reference.weights(device, "code2wav.", quant), reference.config.code2wav, chunk=chunk)


@pytest.fixture(scope="module")
def code2wav(reference: Reference, device: Device) -> Code2Wav:
    return load(reference, device)


def streamed(model: Code2Wav, codes: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Return what a stream makes of codes pushed in pieces of the given sizes."""
    stream = model.stream()
    cuts = np.cumsum([0, *sizes])
    assert cuts[-1] == codes.shape[1]
    pieces = [stream.push(codes[:, start:stop]) for start, stop in pairwise(cuts)]
    return np.concatenate([*pieces, stream.finish()])


def even(frames: int, size: int) -> list[int]:
    return [min(size, frames - start) for start in range(0, frames, size)]


def random_codes(model: Code2Wav, frames: int, seed: int) -> np.ndarray:
    shape = (model.config.codebooks, frames)
    return np.random.default_rng(seed).integers(0, model.config.codebook_size, shape)


@pytest.mark.parametrize("name", ["code2wav", "code2wav_long"])
def test_speech_equals_the_reference(code2wav: Code2Wav, reference: Reference, name: str) -> None:
    output = code2wav(reference[f"{name}.codes"])
    assert output.sample_rate == 24_000
    assert output.waveform.dtype == np.float32
    assert_close(output.waveform, reference[f"{name}.wav"].reshape(-1), TOLERANCE)


def test_a_spoken_reply_equals_the_reference(code2wav: Code2Wav, reference: Reference) -> None:
    output = code2wav(reference["speech.audio.codes"])
    assert_close(output.waveform, reference["speech.audio.wav"].reshape(-1), TOLERANCE)


def test_most_of_the_reference_is_not_clamped(reference: Reference) -> None:
    """A waveform at the rails would agree with anything loud; random weights clamp 3 % in a hundred draws at most."""
    assert np.mean(np.abs(reference["code2wav_long.wav"]) == 1) < 0.25


def test_every_stage_equals_the_reference(code2wav: Code2Wav, reference: Reference) -> None:
    stages = run_stages(code2wav, reference["code2wav.codes"])
    compared = [name for name in stages if f"code2wav.{name}" in reference]
    assert len(compared) >= 13
    for name in compared:
        expected = reference[f"code2wav.{name}"]
        assert_close(stages[name], expected if name == "pre_out" else expected.T, TOLERANCE)


def run_stages(model: Code2Wav, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Run a decode piece by piece; return rows [T, C] under the reference's names."""
    tails, stages = Tails(model.device, model.layout), {}
    count, device = codes.shape[1], model.device
    cache = model.cache()
    cache.extend(count)
    positions = device.tensor(np.arange(count, dtype=np.float32)[:, None])
    x: Tensor | None = model.hidden(device.tensor(np.ascontiguousarray(codes.T, np.int32)), positions, cache, tails)
    assert x is not None
    stages["pre_out"] = x.numpy()
    for index, (repeat, convnext) in enumerate(model.stack.upsample):
        x = repeat(x)
        stages[f"upsample{index}_tconv"] = x.numpy()
        x = convnext(x, tails)
        stages[f"upsample{index}_convnext"] = x.numpy() + convnext.pending
    x = model.stack.first(x, tails)
    stages["decoder0"] = x.numpy()
    for number, block in enumerate(model.stack.blocks, 1):
        seen = block.upsampling.entry(x, tails)
        stages[f"decoder{number}_block0"] = seen[1:].numpy()
        x = block.upsampling.over(seen, begins=True)
        assert x is not None
        stages[f"decoder{number}_block1"] = x.numpy()
        for unit, residual in enumerate(block.units, 2):
            x = residual(x, tails)
            stages[f"decoder{number}_block{unit}"] = x.numpy() + residual.pending
        stages[f"decoder{number}"] = x.numpy() + block.pending
    return stages


@pytest.mark.parametrize("size", [1, 2, 3, 7, 300])
def test_a_stream_equals_the_whole(code2wav: Code2Wav, reference: Reference, size: int) -> None:
    codes = reference["code2wav_long.codes"]
    whole = code2wav(codes).waveform
    got = streamed(code2wav, codes, even(codes.shape[1], size))
    assert len(got) == len(whole)
    assert np.abs(got - whole).max() <= STREAMED


@pytest.mark.parametrize("quant", [None, "q8_0"])
def test_a_stream_of_random_codes_equals_the_whole(reference: Reference, device: Device, quant: str | None) -> None:
    """Codes that no model would put together are the loudest; all bits agree, as no kernel is picked by what comes."""
    model = load(reference, device, quant=quant)
    codes = random_codes(model, 10, 8)
    np.testing.assert_array_equal(streamed(model, codes, [1, 2, 3, 1, 3]), model(codes).waveform)


def test_a_stream_equals_the_whole_without_the_bodies_in_c(reference: Reference) -> None:
    model = load(reference, open_device("cpu", level="numpy"))
    codes = random_codes(model, 12, 9)
    assert np.abs(streamed(model, codes, [1, 1, 7, 3]) - model(codes).waveform).max() <= STREAMED


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_in_uneven_pieces_equals_the_whole(reference: Reference, cpu: Device, seed: int) -> None:
    """Pieces of any length, empty ones among them, over many windows and around the cache's ring."""
    model, frames = load(reference, cpu, chunk=9), 29
    codes = random_codes(model, frames, seed)
    cuts = np.sort(np.random.default_rng(seed).integers(0, frames + 1, 9))
    sizes = np.diff([0, *cuts, frames]).tolist()
    assert np.abs(streamed(model, codes, sizes) - model(codes).waveform).max() <= STREAMED


@pytest.mark.parametrize("chunk", [1, 4, 13])
def test_the_size_of_internal_chunks_does_not_show(reference: Reference, cpu: Device, chunk: int) -> None:
    model = load(reference, cpu)
    codes = random_codes(model, 40, 5)
    assert np.abs(load(reference, cpu, chunk=chunk)(codes).waveform - model(codes).waveform).max() <= STREAMED


@pytest.mark.parametrize("frames", [0, 1, 2, 5])
def test_frames_give_samples_by_the_contract(code2wav: Code2Wav, frames: int) -> None:
    codes = random_codes(code2wav, frames, 1)
    expected = max(1920 * frames - 555, 0)
    assert code2wav.config.samples(frames) == expected
    assert code2wav(codes).waveform.shape == (expected,)
    assert streamed(code2wav, codes, [1] * frames).shape == (expected,)


def test_no_frames_give_no_samples(code2wav: Code2Wav) -> None:
    stream = code2wav.stream()
    assert stream.push(np.zeros((16, 0), np.int64)).shape == (0,)
    assert stream.finish().shape == (0,)


def test_samples_come_as_soon_as_they_are_known(code2wav: Code2Wav) -> None:
    """After n frames a stream has given all but the 555 samples that need the next frame."""
    codes = random_codes(code2wav, 6, 2)
    stream = code2wav.stream()
    given = 0
    for frame in range(6):
        given += len(stream.push(codes[:, frame : frame + 1]))
        assert given == 1920 * (frame + 1) - 555


def test_two_streams_do_not_disturb_each_other(code2wav: Code2Wav) -> None:
    codes = [random_codes(code2wav, 6, seed) for seed in (3, 4)]
    streams = [code2wav.stream() for _ in codes]
    got: list[list[np.ndarray]] = [[], []]
    for start in range(0, 6, 2):
        for index, stream in enumerate(streams):
            got[index].append(stream.push(codes[index][:, start : start + 2]))
    for index, pieces in enumerate(got):
        np.testing.assert_array_equal(np.concatenate(pieces), streamed(code2wav, codes[index], [2, 2, 2]))


def test_a_stream_begins_anew_where_another_ended(code2wav: Code2Wav) -> None:
    """The second takes over the state of the first, with what was recorded for it; its first pieces are no others."""
    codes, sizes = random_codes(code2wav, 12, 10), [1, 2, 1, 2, 2, 1, 3]
    first, second = (streamed(code2wav, codes, sizes) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, code2wav(codes).waveform)


def test_pieces_of_a_prepared_stream_are_replayed(reference: Reference, gpu: WebGpuDevice) -> None:
    """No op is looked at again, neither in the first piece nor in a later one, and the samples are the same."""
    model, sizes = load(reference, gpu), [1, 2, 4, 8, RECORDED_FRAMES, 2]
    codes = random_codes(model, sum(sizes), 11)
    expected = model(codes).waveform
    model.prepare((1, 2, 4, 8, 8))
    stream, pieces, start = model.stream(), [], 0
    with ops_counted(gpu) as ran:
        for size in sizes:
            pieces.append(stream.push(codes[:, start : start + size]))
            start += size
    assert not ran
    np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_recordings_of_a_stream_take_about_the_memory_that_is_planned_for_them(
    reference: Reference, gpu: WebGpuDevice
) -> None:
    model, before = load(reference, gpu), gpu.ledger.used["activations"]
    model.prepare([length for length in PIECES if length <= RECORDED_FRAMES])
    kept = gpu.ledger.used["activations"] - before
    assert 0.7 < kept / recorded_bytes(waveform_shape(model.config), gpu) < 1.4


@contextmanager
def ops_counted(device: Device) -> Iterator[list[str]]:
    """List the ops that are run one by one inside the block."""
    ran: list[str] = []
    run = device.run

    def noting(op: Op, *rest: Any) -> Any:
        ran.append(op.name)
        return run(op, *rest)

    device.run = noting  # type: ignore[method-assign]
    try:
        yield ran
    finally:
        del device.run


@pytest.mark.parametrize("frames", [3, 40])
def test_what_is_skipped_leaves_the_same_state(code2wav: Code2Wav, frames: int) -> None:
    """Codes that come before, as those of a cloned voice do, count although nobody hears them."""
    before, after = random_codes(code2wav, frames, 12), random_codes(code2wav, 6, 13)
    pushed, skipped = code2wav.stream(), code2wav.stream()
    pushed.push(before)
    skipped.skip(before)
    np.testing.assert_array_equal(pushed.push(after), skipped.push(after))


def test_skipping_runs_the_stack_where_later_samples_depend_on_it(reference: Reference, cpu: Device) -> None:
    model, seen = load(reference, cpu), []
    stack = model.stack
    assert 8 <= stack.reach <= 14  # 9.4 frames by the strides, rounded up, and one

    class Counted:
        reach = stack.reach
        beginnings = staticmethod(stack.beginnings)

        def __call__(self, x: Tensor, *rest: Any) -> Tensor | None:
            seen.append(len(x))
            return stack(x, *rest)

    model.stack = Counted()  # type: ignore[assignment]
    model.stream().skip(random_codes(model, 60, 14))
    assert sum(seen) == stack.reach


def test_without_look_ahead_nothing_is_lost(reference: Reference, cpu: Device) -> None:
    """The form of Qwen3-TTS: 1920 samples a frame, and away from the start the same signal, 555 samples later."""
    model, ahead = load(reference, cpu), load(reference, cpu)
    for block in model.stack.blocks:
        block.upsampling.looks_ahead = False
    codes = random_codes(model, 20, 7)
    whole = model(codes).waveform
    assert whole.shape == (1920 * 20,)
    assert np.abs(streamed(model, codes, [1] * 20) - whole).max() <= STREAMED
    reach = 1920 * 14  # how far the zeros before the stream are seen
    assert np.abs(whole[555 + reach :] - ahead(codes).waveform[reach:]).max() <= TOLERANCE


def test_quantised_weights_give_nearly_the_same_speech(reference: Reference, device: Device) -> None:
    model = load(reference, device, quant="q8_0")
    expected = reference["code2wav_long.wav"].reshape(-1)
    error = model(reference["code2wav_long.codes"]).waveform - expected
    decibels = 10 * np.log10(np.mean(expected**2) / np.mean(error**2))
    assert decibels > 25, f"{decibels:.1f} dB"


def test_chunks_are_sized_by_memory() -> None:
    frames = RELEASE.chunk_frames()
    assert 8 <= frames <= waveform.CHUNK_FRAMES
    assert frames * 1920 * 96 * 4 <= waveform.CHUNK_BYTES
    wide = replace(RELEASE, decoder_width=1 << 20)
    assert wide.chunk_frames() == 1
    assert WaveformShape(4, (), (2,), 4, looks_ahead=True).chunk_frames() == waveform.CHUNK_FRAMES


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((15, 3), np.int64), "15, 3"),
        (np.zeros((3, 16), np.int64), "16 codebooks"),
        (np.zeros(16, np.int64), r"\[16\]"),
        (np.zeros((16, 3), np.float32), "float32"),
        (np.full((16, 3), -1), "-1"),
        (np.full((16, 3), 10_000), "10000"),
    ],
)
def test_codes_that_cannot_be_decoded_are_refused(code2wav: Code2Wav, codes: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        code2wav(codes)


def test_a_finished_stream_takes_no_codes(code2wav: Code2Wav) -> None:
    stream = code2wav.stream()
    stream.finish()
    with pytest.raises(InputError, match="finished"):
        stream.push(random_codes(code2wav, 1, 0))


def test_a_tensor_that_nothing_reads_is_refused(reference: Reference, cpu: Device) -> None:
    config = reference.config.code2wav
    assert config is not None
    with pytest.raises(ModelFormatError, match=r"pre_transformer\.layers\.1"):
        Code2Wav(reference.weights(cpu, "code2wav."), replace(config, layers=1))


# Faults that others made: each must show in the comparison with the reference. ------------------------------------


def snake_without_exp(model: Code2Wav, weights: Weights) -> None:
    for number, block in enumerate(model.stack.blocks, 1):
        for unit, residual in enumerate(block.units, 2):
            at = weights.at(f"decoder.{number}.block.{unit}.act1.")
            snake = residual.conv1.entry.snake
            width = snake.frequency.shape[0]
            snake.frequency = weights.place_exact(at.array("alpha", width))


def window_ignored(model: Code2Wav, weights: Weights) -> None:
    for layer in model.transformer.layers:
        layer.attention.config = replace(layer.attention.config, sliding_window=0)
    model.config = replace(model.config, sliding_window=1000)  # room in the cache


def table_read_as_half_as_many_codebooks(model: Code2Wav, weights: Weights) -> None:
    books = np.arange(model.config.codebooks, dtype=np.int32)
    model._offsets = weights.device.tensor(books // 2 * 2 * model.config.codebook_size)


def embeddings_summed(model: Code2Wav, weights: Weights) -> None:
    model.code_embedding = weights.place_exact(model.code_embedding.numpy() * model.config.codebooks)


def gamma_left_out(model: Code2Wav, weights: Weights) -> None:
    for index, (_, convnext) in enumerate(model.stack.upsample):
        at = weights.at(f"upsample.{index}.1.")
        width = convnext.norm_bias.shape[0]
        convnext.narrow = weights.place_exact(at.array("pwconv2.weight", width, 4 * width))


def nothing_cut_from_the_left(model: Code2Wav, weights: Weights) -> None:
    for block in model.stack.blocks:
        block.upsampling.looks_ahead = False


@pytest.mark.parametrize(
    "fault",
    [
        snake_without_exp,
        window_ignored,
        table_read_as_half_as_many_codebooks,
        embeddings_summed,
        gamma_left_out,
        nothing_cut_from_the_left,
    ],
)
def test_a_known_fault_would_show(
    reference: Reference, cpu: Device, fault: Callable[[Code2Wav, Weights], None]
) -> None:
    model = load(reference, cpu)
    expected = reference["code2wav_long.wav"].reshape(-1)
    assert_close(model(reference["code2wav_long.codes"]).waveform, expected, TOLERANCE)
    fault(model, reference.weights(cpu, "code2wav."))
    with pytest.raises(AssertionError):
        assert_close(model(reference["code2wav_long.codes"]).waveform, expected, TOLERANCE)


def test_seams_without_state_would_show(reference: Reference, cpu: Device) -> None:
    """Pieces decoded each on its own lose 555 samples at every seam."""
    model = load(reference, cpu)
    codes = reference["code2wav_long.codes"]
    apart = np.concatenate([model(codes[:, :5]).waveform, model(codes[:, 5:]).waveform])
    assert len(model(codes).waveform) - len(apart) == 555


def test_a_convolution_that_forgets_would_show(reference: Reference, cpu: Device) -> None:
    model = load(reference, cpu)
    codes = reference["code2wav_long.codes"]
    frames = np.ascontiguousarray(codes.T, np.int32)
    state, pieces = StreamState(model), []
    for start in (0, 5):
        samples = state.decode(frames[start : start + 5])
        assert samples is not None
        pieces.append(samples.numpy().reshape(-1))
        cpu.write(state.tails[model.stack.first.entry.slot], np.zeros(1, np.float32))
    assert np.abs(np.concatenate(pieces) - model(codes[:, :10]).waveform).max() > 100 * STREAMED


def test_a_stream_never_decodes_more_than_a_chunk() -> None:
    seen: list[int] = []

    def decode(frames: np.ndarray) -> None:
        seen.append(len(frames))

    stream = CodeStream(decode, codebooks=2, entries=4, chunk=3)
    stream.push(np.zeros((2, 8), np.int64))
    assert seen == [3, 3, 2]
