"""Qwen3-TTS agrees with the reference, stage by stage and whole, on both devices, for any directory of goldens.

Floats are compared first. Ids and codes are then equal, and steps go on from the reference's own: a choice that hung on
less than the error that is allowed would not be in the goldens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omni_rt import Sampling, ops
from omni_rt.models.qwen3_tts.codec_decoder import CodecDecoder
from omni_rt.models.qwen3_tts.codec_encoder import CodecEncoder
from omni_rt.models.qwen3_tts.session import TextToSpeech
from omni_rt.models.qwen3_tts.speaker_encoder import SpeakerEncoder, speaker_mel
from omni_rt.models.qwen3_tts.talker import MIN_FRAMES
from omni_rt.models.talker import TalkerPrompt, TalkerSession
from omni_rt.sampling import SUPPRESSED
from omni_rt.state import KVCache, StreamTails, Tails
from omni_rt.tensor import Tensor
from tests.reference import assert_close
from tests.voices import VARIANTS, asked, cases, codec_golden, codec_index, golden, request_of

FLOATS = 1e-4
BASES = [variant for variant in VARIANTS if variant.endswith("base")]


def prompt_of(model: TextToSpeech, variant: str, name: str) -> TalkerPrompt:
    return model._components.talker.prompt(request_of(model, variant, name))


def session_of(model: TextToSpeech, variant: str, name: str) -> TalkerSession:
    """Begin a case greedily with its own penalty and limit."""
    case, prompt = golden(variant)[0][name], prompt_of(model, variant, name)
    session = TalkerSession(
        model._components.talker,
        prompt.inputs,
        np.arange(len(prompt.inputs), dtype=np.float32)[None],
        pad=prompt.pad,
        sampling=Sampling(repetition_penalty=case["generate_kwargs"]["repetition_penalty"]),
        predictor_sampling=Sampling(),
        min_frames=MIN_FRAMES,
        max_frames=case["max_new_tokens"] - 1,
        ahead=0,
    )
    session.push_text(prompt.trailing)
    session.finish_text()
    return session


@pytest.mark.parametrize(("variant", "name"), cases())
def test_prompt_equals_the_reference(models: dict[str, TextToSpeech], variant: str, name: str) -> None:
    arrays, prompt = golden(variant)[1], prompt_of(models[variant], variant, name)
    assert_close(prompt.inputs, arrays[f"{name}.prefill_embeds"][0], FLOATS)
    assert_close(prompt.trailing, arrays[f"{name}.trailing_text_hidden"][0], FLOATS)
    assert_close(prompt.pad, arrays[f"{name}.tts_pad_embed"].reshape(-1), FLOATS)


@pytest.mark.parametrize(("variant", "name"), cases("prefill.norm"))
def test_every_layer_equals_the_reference(models: dict[str, TextToSpeech], variant: str, name: str) -> None:
    arrays, prompt = golden(variant)[1], prompt_of(models[variant], variant, name)
    talker = models[variant]._components.talker
    rows, layers = len(prompt.inputs), len(talker.decoder.layers)
    cache = talker.decoder.cache(rows)
    cache.extend(rows)
    table = ops.angles(talker.device.tensor(np.arange(rows, dtype=np.float32)[:, None]), talker.frequencies)
    normed, taps = talker.decoder(talker.device.tensor(prompt.inputs), table, cache, taps=range(layers + 1))
    assert_close(normed.numpy(), arrays[f"{name}.prefill.norm"][0], FLOATS)
    for layer in range(layers):
        assert_close(taps[layer + 1].numpy(), arrays[f"{name}.prefill.layer.{layer}"][0], FLOATS)


@pytest.mark.parametrize(("variant", "name"), cases())
def test_steps_equal_the_reference(models: dict[str, TextToSpeech], variant: str, name: str) -> None:
    """Logits, state, scores behind the processors, and codes of all groups; each step follows the reference's codes."""
    index, arrays = golden(variant)
    model, case = models[variant], index[name]
    session, talker = session_of(model, variant, name), model._components.talker
    greedy = not case["generate_kwargs"]["do_sample"]
    for step, token in enumerate(arrays[f"{name}.code0"][0]):
        if step == case["max_new_tokens"] - 1:
            break  # the last token makes no frame
        seen = talker.device.tensor(talker.chooser.seen.numpy())
        codes = session.step()
        assert session.logits is not None and session.hidden is not None
        assert_close(session.hidden.numpy()[0], arrays[f"{name}.past_hidden"][0, step], FLOATS)
        if f"{name}.logits" in arrays:
            assert_close(session.logits.numpy()[0], arrays[f"{name}.logits"][0, step], FLOATS)
        if f"{name}.scores" in arrays:
            penalty = float(case["generate_kwargs"]["repetition_penalty"])
            scores = ops.penalise(session.logits, seen, talker.chooser.bias, penalty=penalty)
            assert_scores(scores, arrays[f"{name}.scores"][0, step], case["generate_kwargs"])
        if token == talker.stop_id:
            assert codes is None and session.finish_reason == "stop"
            return
        expected = arrays[f"{name}.codes"][0, step]
        if greedy:
            np.testing.assert_array_equal(codes, expected)
            for number, logits in enumerate(arrays.get(f"{name}.sub{step}.logits", [[]])[0]):
                assert_close(talker.predictor.logits[number].numpy()[0], logits, FLOATS)
        else:  # go on from what the reference drew
            talker.device.write(talker.codes, expected)
            marks = np.zeros(talker.chooser.vocabulary, np.int32)
            marks[arrays[f"{name}.code0"][0, : step + 1]] = 1
            talker.device.write(talker.chooser.seen, marks)
    # What follows from scores alone, without the reference's draw, may be the stop token.
    assert session.finish_reason == "length" or not greedy


def assert_scores(scores: Tensor, expected: np.ndarray, given: dict[str, Any]) -> None:
    """Compare scores [1, V], and what is drawn of them, with the reference's: cut and divided where it samples."""
    possible = np.isfinite(expected)
    temperature = given["temperature"] if given["do_sample"] else 1.0
    values = scores.numpy()[0]
    assert_close(values[possible] / np.float32(temperature), expected[possible], FLOATS)
    if not given["do_sample"]:
        assert (values[~possible] <= SUPPRESSED / 2).all()
        return
    draws = 4096
    device = scores.device
    rows = ops.embed(scores, device.tensor(np.zeros(draws, np.int32)))
    zero = device.tensor(np.zeros(1, np.int32))
    cut = {name: given[name] for name in ("top_k", "top_p")}
    drawn = ops.sample(rows, zero, zero, temperature=float(temperature), **cut).numpy()
    weights = np.where(possible, np.exp(expected - expected[possible].max()), 0)
    shares = weights / weights.sum()
    counts = np.bincount(drawn, minlength=len(shares))
    assert not counts[~possible].any(), "an id was drawn that the reference cuts off"
    assert np.abs(counts / draws - shares).max() < 5 * np.sqrt(0.25 / draws)
    # An id that is due 20 times stays out once in 500 million tables.
    assert counts[shares > 20 / draws].all(), "an id is never drawn that the reference keeps"


@pytest.mark.parametrize(("variant", "name"), cases("wav.0"))
def test_speech_equals_the_reference(models: dict[str, TextToSpeech], variant: str, name: str) -> None:
    """The public call, from text and arguments to samples."""
    index, arrays = golden(variant)
    model, case = models[variant], index[name]
    given = asked(model, variant, name)
    speech = model.generate(
        case["text"],
        voice=given.voice,
        language=given.language,
        instruct=given.instruct,
        streaming_text=given.streaming,
        max_frames=case["max_new_tokens"] - 1,
        sampling=Sampling(repetition_penalty=case["generate_kwargs"]["repetition_penalty"]),
        seed=0,
    )
    np.testing.assert_array_equal(speech.codes.T, arrays[f"{name}.codes"][0])
    expected = arrays[f"{name}.wav.0"]
    # The reference cuts a clone's own part off by a quotient of lengths, which may leave one sample of it.
    assert 0 <= len(expected) - len(speech.audio) <= 1
    assert_close(speech.audio, expected[len(expected) - len(speech.audio) :], FLOATS)


# The codec ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", "abcde")
def test_encoded_codes_equal_the_reference(models: dict[str, TextToSpeech], clip: str) -> None:
    """All sixteen quantizers of each frame."""
    arrays, samples = codec_golden(), codec_golden()["audio"][: codec_index()[f"encode.{clip}"]["samples"]]
    np.testing.assert_array_equal(models[VARIANTS[0]].codec.encode(samples).T, arrays[f"encode.{clip}.codes"])


@pytest.mark.parametrize("clip", "abcde")
def test_every_stage_of_the_encoder_equals_the_reference(models: dict[str, TextToSpeech], clip: str) -> None:
    encoder, arrays = models[VARIANTS[0]].codec.encoder, codec_golden()
    samples = arrays["audio"][: codec_index()[f"encode.{clip}"]["samples"]]
    stages = encoder_stages(encoder, samples)
    compared = [name for name in stages if f"encode.{clip}.{name}" in arrays]
    assert "downsample" in compared and len(compared) >= {"b": 3, "c": 12}.get(clip, 1)
    for name in compared:
        expected = arrays[f"encode.{clip}.{name}"]
        assert_close(stages[name], expected if name.startswith("transformer") else expected.T, FLOATS)


def encoder_stages(encoder: CodecEncoder, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Run the encoder piece by piece; return rows [T, C] under the reference's names."""
    tails = StreamTails()
    x = encoder.first(encoder.device.tensor(samples[:, None]), tails)
    stages = {"seanet.0": x.numpy()}
    for number, (unit, down) in enumerate(encoder.stages):
        x = unit(x, tails)
        stages[f"seanet.{3 * number + 1}"] = x.numpy()
        x = down(ops.elu(x), tails)
        stages[f"seanet.{3 * number + 3}"] = x.numpy()
    x = encoder.last(ops.elu(x), tails)
    stages["seanet.14"] = x.numpy()
    for number, layer in enumerate(encoder.layers):
        cache = KVCache(encoder.device, (1, len(x), encoder.config.kv_heads, encoder.config.head_dim))
        cache.extend(len(x))
        positions = encoder.device.tensor(np.arange(len(x), dtype=np.float32)[:, None])
        table = ops.angles(positions, encoder.frequencies)
        x = layer(x, table, cache.keys[0], cache.values[0], cache.length)
        stages[f"transformer.layer.{number}"] = x.numpy()
    stages["downsample"] = encoder._halve(x).numpy()
    return stages


def test_decoded_samples_equal_the_reference(models: dict[str, TextToSpeech]) -> None:
    codec, arrays = models[VARIANTS[0]].codec, codec_golden()
    codes = arrays["decode.codes"].T
    assert_close(codec.decode(codes), arrays["decode.full.wav"], FLOATS)
    frames = len(arrays["decode.short.wav"]) // 1920
    assert_close(codec.decode(codes[:, :frames]), arrays["decode.short.wav"], FLOATS)


def test_chunks_decode_as_those_of_the_reference(models: dict[str, TextToSpeech]) -> None:
    codec, arrays, sizes = models[VARIANTS[0]].codec, codec_golden(), codec_index()["decode.chunked"]
    codes, expected = arrays["decode.codes"].T, arrays["decode.chunked.wav"]
    assert_close(codec.decode(codes, **sizes), expected, FLOATS)
    whole = codec.decode(codes, chunk=300)
    np.testing.assert_array_equal(whole, codec.decode(codes))
    assert np.abs(whole - expected).max() > 0.01, "the chunks do not show"


def test_every_stage_of_the_decoder_equals_the_reference(models: dict[str, TextToSpeech]) -> None:
    decoder, arrays = models[VARIANTS[0]].codec.decoder, codec_golden()
    frames = len(arrays["decode.short.wav"]) // 1920
    stages = decoder_stages(decoder, arrays["decode.codes"][:frames])
    chains = arrays["decode.short.quantizer.first"] + arrays["decode.short.quantizer.rest"]
    assert_close(stages.pop("quantizer"), chains.T, FLOATS)
    compared = [name for name in stages if f"decode.short.{name}" in arrays]
    assert len(compared) >= 13
    for name in compared:
        expected = arrays[f"decode.short.{name}"]
        assert_close(stages[name], expected if name.startswith("pre_transformer") else expected.T, FLOATS)


def decoder_stages(decoder: CodecDecoder, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Run a decode of codes [F, K] piece by piece; return rows [T, C] under the reference's names."""
    device, stages = decoder.device, {}
    tails = Tails(device, decoder.layout)
    x = ops.embed_sum(decoder.codebooks, device.tensor(codes.astype(np.int32)), decoder._offsets)
    stages["quantizer"] = x.numpy()
    x = decoder.pre_conv(x, tails)
    stages["pre_conv"] = x.numpy()
    cache, layers = decoder.transformer.cache(decoder.config.sliding_window + len(codes)), decoder.config.layers
    cache.extend(len(codes))
    table = ops.angles(device.tensor(np.arange(len(codes), dtype=np.float32)[:, None]), decoder._frequencies)
    x, taps = decoder.transformer(ops.matmul_add(x, *decoder.input), table, cache, taps=range(1, layers + 1))
    stages |= {f"pre_transformer.layer.{layer}": taps[layer + 1].numpy() for layer in range(layers)}
    x = ops.matmul_add(x, *decoder.output)
    stages["pre_transformer"] = x.numpy()
    for number, (repeat, convnext) in enumerate(decoder.stack.upsample):
        x = repeat(x)
        stages[f"upsample.{number}.0"] = x.numpy()
        x = convnext(x, tails)
        stages[f"upsample.{number}.1"] = x.numpy() + convnext.pending
    x = decoder.stack.first(x, tails)
    stages["decoder.0"] = x.numpy()
    for number, block in enumerate(decoder.stack.blocks, 1):
        y = block.upsampling(x, tails, begins=True)
        assert y is not None
        stages[f"decoder.{number}.block.1"] = y.numpy()
        for unit, residual in enumerate(block.units, 2):
            y = residual(y, tails)
            stages[f"decoder.{number}.block.{unit}"] = y.numpy() + residual.pending
        x = y
        stages[f"decoder.{number}"] = x.numpy() + block.pending
    stages["decoder.6"] = decoder.stack.last(x, tails).numpy()
    return stages


# The speaker encoder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", BASES)
@pytest.mark.parametrize("clip", ["a", "b"])
def test_every_stage_of_the_speaker_encoder_equals_the_reference(
    models: dict[str, TextToSpeech], variant: str, clip: str
) -> None:
    arrays, encoder = golden(variant)[1], models[variant]._components.speaker_encoder
    assert encoder is not None
    samples = arrays[f"speaker.{clip}.audio"].reshape(-1)
    mel = speaker_mel(samples, 128, 24000)
    assert_close(mel, arrays[f"speaker.{clip}.mel"].reshape(128, -1).T, FLOATS)
    stages = speaker_stages(encoder, mel)
    assert len(stages) == 5
    for name, values in stages.items():
        assert_close(values, arrays[f"speaker.{clip}.{name}"].T, FLOATS)
    embedding = arrays[f"speaker.{clip}.embedding"].reshape(-1)
    assert_close(models[variant].speaker_embedding(samples), embedding, FLOATS)


def speaker_stages(encoder: SpeakerEncoder, mel: np.ndarray) -> dict[str, np.ndarray]:
    """Run the encoder's blocks on log-mels [F, M]; return rows [F, C] under the reference's names."""
    device = encoder.device
    x = ops.relu(encoder.first(device.tensor(mel), device))
    stages, outputs = {"block.0": x.numpy()}, []
    for number, block in enumerate(encoder.blocks, 1):
        x = block(x, device)
        outputs.append(x)
        stages[f"block.{number}"] = x.numpy()
    stages["mfa"] = ops.relu(encoder.join(outputs)).numpy()
    return stages


@pytest.mark.parametrize("variant", BASES)
@pytest.mark.parametrize("length", ["long", "short"])
def test_a_clone_hears_what_the_reference_hears(models: dict[str, TextToSpeech], variant: str, length: str) -> None:
    index, arrays = golden(variant)
    model, samples = models[variant], arrays["clone.audio"][: index["clone"][f"{length}_samples"]]
    embedding = arrays[f"clone.{length}.ref_spk_embedding"].reshape(-1)
    assert_close(model.speaker_embedding(samples), embedding, FLOATS)
    np.testing.assert_array_equal(model.codec.encode(samples).T, arrays[f"clone.{length}.ref_code"])
