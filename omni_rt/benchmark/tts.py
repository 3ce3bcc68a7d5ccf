"""Qwen3-TTS at full size on random weights: the stages of a frame, the codec both ways, and a whole synthesis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from omni_rt.benchmark.weights import RandomWeights
from omni_rt.models.code_predictor import CodePredictor
from omni_rt.models.code_stream import PIECES, CodeDecoder, StreamState
from omni_rt.models.qwen3_tts.codec_decoder import CodecDecoder
from omni_rt.models.qwen3_tts.config import (
    CodecDecoderConfig,
    Qwen3TtsConfig,
    TtsCodePredictorConfig,
    TtsTalkerConfig,
    TtsTokenIds,
)
from omni_rt.models.qwen3_tts.talker import TtsTalker, code_sizes
from omni_rt.models.talker import TalkerSession
from omni_rt.sampling import Sampling

if TYPE_CHECKING:
    from omni_rt.benchmark.model import Clock, Stage

PROMPT_ROWS = 512
SPEECH_FRAMES = 50
"""Frames of the whole synthesis: four seconds of speech."""

WARM_REPLIES = 7
"""Replies of which the median counts, once everything is made."""

GREEDY = Sampling()
SAMPLED = Sampling(temperature=0.9, top_k=50, repetition_penalty=1.05)
"""As the released talkers sample by default."""

TALKER = TtsTalkerConfig(
    width=1024, layers=28, heads=16, kv_heads=8, head_dim=128, feed_forward=3072, norm_epsilon=1e-6, rope_theta=1e6,
    context=32768, vocabulary=3072, text_vocabulary=151936, text_width=2048, codebooks=16, codec_pad=2148,
    codec_bos=2149, codec_eos=2150, codec_think=2154, codec_nothink=2155, codec_think_bos=2156, codec_think_eos=2157,
    languages={"english": 2050}, speakers={"vivian": 3065},
)  # fmt: skip
CODE_PREDICTOR = TtsCodePredictorConfig(
    width=1024, layers=5, heads=16, kv_heads=8, head_dim=128, feed_forward=3072, norm_epsilon=1e-6, rope_theta=1e6,
    context=65536, vocabulary=2048, codebooks=16,
)  # fmt: skip
CODEC_DECODER = CodecDecoderConfig(
    width=512, layers=8, heads=16, kv_heads=16, head_dim=64, feed_forward=1024, norm_epsilon=1e-5, rope_theta=1e4,
    context=8000, sliding_window=72, latent_width=1024, codebooks=16, codebook_size=2048, codebook_width=512,
    decoder_width=1536, upsample_ratios=(2, 2), upsample_rates=(8, 5, 4, 3),
)  # fmt: skip
TOKENS = TtsTokenIds(im_start=151644, im_end=151645, assistant=77091, tts_pad=151671, tts_bos=151672, tts_eos=151673)


def config(size: str, layers: int | None) -> Qwen3TtsConfig:
    """Return the sizes of the "0.6b" or "1.7b" CustomVoice release, its talker cut to `layers` if given."""
    talker = replace(TALKER, layers=layers or TALKER.layers)
    if size == "1.7b":
        talker = replace(talker, width=2048, feed_forward=6144)
    return Qwen3TtsConfig(
        kind="custom_voice",
        size=size,
        tokens=TOKENS,
        talker=talker,
        code_predictor=CODE_PREDICTOR,
        speaker_encoder=None,
    )


def stages(size: str, clock: Clock, weights: RandomWeights, layers: int | None, context: int) -> list[Stage]:
    """Measure a talker's prompt and step, the code predictor, the codec, and speech from prompt to samples."""
    from omni_rt.benchmark.model import MOST_STEPS, Stage, decode_bytes, frame_stage

    shape = config(size, layers)
    predictor = CodePredictor(weights.at("talker.code_predictor."), shape.code_predictor, code_sizes(shape))
    talker = TtsTalker(weights.at("talker."), shape, predictor, context=context + PROMPT_ROWS + 3 * MOST_STEPS)
    decoder = CodecDecoder(weights.at("decoder."), CODEC_DECODER)
    random = np.random.default_rng(0)
    rows = random.standard_normal((PROMPT_ROWS + 1, talker.width)).astype(np.float32)
    positions = np.arange(len(rows), dtype=np.float32)[None]
    measured = first_audio_stages(clock, partial(_speak, talker, decoder, rows[:32], positions[:, :32]))
    prompt = partial(talker.run, rows, positions)
    measured.append(clock.stage(f"talker, prompt of {PROMPT_ROWS}", "row", prompt, count=PROMPT_ROWS))
    talker.run(rows[:9], positions[:, :9])
    talker.cache.extend(max(context - 9, 0))

    def talk() -> np.ndarray:
        talker.cache.advance()
        return talker.step(GREEDY)[1].numpy()

    read = decode_bytes(talker.decoder, context) + talker.codec_head.nbytes
    passes = decode_bytes(predictor.decoder, 8) * len(predictor.heads) + sum(head.nbytes for head in predictor.heads)
    measured += [
        clock.stage("talker", "frame", talk, read),
        frame_stage(clock, talker, read + passes),
    ]
    for frames in (1, 4, 25):
        codes = random.integers(0, CODEC_DECODER.codebook_size, (CODEC_DECODER.codebooks, frames)).astype(np.int32)
        measured.append(piece_stage(clock, f"codec, {frames} frames", decoder, codes))
    seconds = SPEECH_FRAMES / 12.5
    whole = _speak(talker, decoder, rows[:32], positions[:, :32], frames=SPEECH_FRAMES)[-1]
    measured.append(Stage(f"speech of {seconds:.0f} s (RTF {whole / 1000 / seconds:.3f})", "text", whole))
    return measured


def piece_stage(clock: Clock, name: str, decoder: CodeDecoder, codes: np.ndarray) -> Stage:
    """Measure a piece of codes [K, T] that follows others in a stream."""
    stream, state = decoder.stream(), StreamState(decoder)
    step = partial(state.step, codes.shape[1], decoder.stack.beginnings(1))
    state.cache.extend(codes.shape[1])
    return clock.stage(name, "piece", partial(stream.push, codes), step=step)


def first_audio_stages(clock: Clock, speak: Callable[..., tuple[float, ...]]) -> list[Stage]:
    """Measure the first sound of a reply: of the first in this process, and of later ones, with what it is made of.

    `speak` returns what _speak does for a number of frames.
    """
    from omni_rt.benchmark.model import Stage

    clock.device.settle()
    clock.device.synchronize()
    cold = speak(frames=1)
    speak(frames=sum(PIECES[:4]))
    warm = [speak(frames=1) for _ in range(WARM_REPLIES)]
    prompt, frame, sound = (median(times) for times in list(zip(*warm, strict=True))[:3])
    return [
        Stage("first audio, first in the process", "start", cold[2]),
        Stage("of it until the prompt is issued", "start", cold[0]),
        Stage("of it until the first frame", "start", cold[1]),
        Stage("first audio, later", "start", sound),
        Stage("of it until the prompt is issued", "start", prompt),
        Stage("of it until the first frame", "start", frame),
    ]


def _speak(
    talker: TtsTalker, decoder: CodecDecoder, rows: np.ndarray, positions: np.ndarray, *, frames: int
) -> tuple[float, ...]:
    """Speak so many frames behind a prompt [T, N]; return milliseconds from its start.

    Until the prompt is issued, the first frame is there, the first samples are there, and the last.
    """
    started = time.perf_counter()
    session = TalkerSession(
        talker, rows, positions, pad=rows[0], sampling=SAMPLED, predictor_sampling=SAMPLED,
        min_frames=frames + 1, max_frames=frames,
    )  # fmt: skip
    session.finish_text()
    moments = [time.perf_counter()]
    stream, sizes = decoder.stream(), list(PIECES)
    waiting: list[np.ndarray] = []
    while (codes := session.step()) is not None:
        if not waiting and len(moments) == 1:
            moments.append(time.perf_counter())
        waiting.append(codes)
        if len(waiting) == sizes[0] or session.finish_reason:
            stream.push(np.stack(waiting, axis=1))
            waiting, sizes = [], sizes[1:] or sizes
            if len(moments) == 2:
                moments.append(time.perf_counter())
    moments.append(time.perf_counter())
    return tuple(1000 * (moment - started) for moment in moments)
