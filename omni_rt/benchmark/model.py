"""`bench model`: full-size components on random weights, and the shipped model stage by stage.

Nothing is read or downloaded. Each stage is warmed up, timed for a second or more, and reported as a median of wall
time with its results on the host. Bytes are those of the weights that a step must read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from omni_rt.benchmark import full_size, tts, vision
from omni_rt.benchmark.meter import PythonCost, dispatches, metered, milliseconds, steady_milliseconds
from omni_rt.benchmark.ops import READING, timings
from omni_rt.benchmark.weights import RandomWeights
from omni_rt.devices.device import Device
from omni_rt.model_files import OmniFiles
from omni_rt.models.code_predictor import CodePredictor
from omni_rt.models.decoder import Decoder, Experts
from omni_rt.models.qwen3_omni.audio_encoder import AudioEncoder
from omni_rt.models.qwen3_omni.code2wav import Code2Wav
from omni_rt.models.qwen3_omni.components import PREFIXES, load_components
from omni_rt.models.qwen3_omni.talker import Talker, code_sizes
from omni_rt.models.qwen3_omni.thinker import Thinker, ThinkerInputs
from omni_rt.models.talker import FrameTalker
from omni_rt.sampling import Sampling
from omni_rt.tensor import Tensor

GREEDY = Sampling()
SPOKEN = Sampling(temperature=0.9, top_k=50, repetition_penalty=1.05)
"""As the released talkers sample by default."""

GREEDY_AGAIN = Sampling(top_k=1)
"""Picks the same tokens by the same kernels, but is recorded anew: what a recording costs once pipelines are there."""

PROMPT_ROWS, LONGEST_PROMPT = 64, 2048
"""Least and most rows of the prompt whose prefill is timed: as many as the context has positions in between."""

REPLY_TOKENS = 100
"""Tokens of the reply that is timed: positions stay near the context asked for. The first comes of the prompt."""

GPU_RUNS = 50

MOST_STEPS = 4096
"""Steps that a timed stage may take, and that a cache has room for."""


@dataclass(frozen=True)
class Stage:
    """One measured stage: milliseconds of wall time of a run, its dispatches, and the bytes it must read.

    A run makes `count` of what `unit` names. `gpu_milliseconds` are those between its first dispatch and its last, by
    the GPU's own clock.
    """

    name: str
    unit: str
    milliseconds: float
    dispatches: float | None = None
    nbytes: int | None = None
    gpu_milliseconds: float | None = None
    count: int = 1

    @property
    def per_second(self) -> float:
        """How many of its units a second sees."""
        return 1000 * self.count / self.milliseconds

    @property
    def gigabytes_per_second(self) -> float | None:
        """Bytes over time, None where bytes are not counted."""
        return None if self.nbytes is None else self.nbytes / self.milliseconds / 1e6


@dataclass(frozen=True)
class Measurement:
    """What `bench model` found; `read_gb_per_s` is the streaming-read bandwidth of the device in the same run."""

    shape: str
    device: str
    quant: str | None
    layers: int | None
    context: int
    read_gb_per_s: float
    stages: list[Stage]
    record_us: float | None
    replay_us: float | None
    fallbacks: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the measurement as plain data."""
        data = asdict(self)
        for stage, entry in zip(self.stages, data["stages"], strict=True):
            entry["per_second"] = stage.per_second
            entry["gb_per_s"] = rate = stage.gigabytes_per_second
            entry["share_of_reading"] = None if rate is None else rate / self.read_gb_per_s
        return data


def read_bandwidth(device: Device) -> float:
    """Return how fast the device reads memory that it does not keep, in GB/s, as `bench ops` measures it."""
    return next(timings(device, [READING], seconds=0.3)).gigabytes_per_second


def measure_shape(shape: str, clock: Clock, *, quant: str | None, layers: int | None, context: int) -> Measurement:
    """Measure a component at full size, or its first `layers`, on random weights.

    A decoder has `context` positions behind it. Raises OutOfMemoryError.
    """
    device = clock.device
    bandwidth = read_bandwidth(device)
    with metered(device) as cost:
        stages = SHAPES[shape](clock, RandomWeights(device, quant=quant), layers, context)
    return Measurement(
        shape, device.name, quant, layers, context, bandwidth, stages,
        *python_cost(cost), fallbacks=dict(device.fallbacks),
    )  # fmt: skip


def measure_checkpoint(name: str, files: OmniFiles, clock: Clock, *, context: int) -> Measurement:
    """Measure every stage of a checkpoint, all components on one device. Raises the errors of loading."""
    device, quant = clock.device, files.main.quants["thinker"]
    bandwidth = read_bandwidth(device)
    with metered(device) as cost:
        parts = load_components(
            files.main, files.config, dict.fromkeys(PREFIXES, device),
            context=context + 3 * MOST_STEPS, progress=lambda done, total: None,
        )  # fmt: skip
        parts.thinker.stop_id = -1  # no id: a reply that stops would end the timing
        stages = audio_stages(clock, parts.audio_encoder) + vision.vision_stages(clock, parts.vision_encoder)
        stages += thinker_stages(clock, parts.thinker, context)
        if parts.talker is not None and parts.code2wav is not None:
            stages += talker_stages(clock, parts.talker, context) + vocoder_stages(clock, parts.code2wav)
    return Measurement(
        name, device.name, quant, None, context, bandwidth, stages,
        *python_cost(cost), fallbacks=dict(device.fallbacks),
    )  # fmt: skip


def python_cost(cost: PythonCost) -> tuple[float | None, float | None]:
    """Return microseconds of Python per dispatch: of the cheapest recording, and of the median replay."""
    return (min(cost.record) if cost.record else None, median(cost.replay) if cost.replay else None)


@dataclass(frozen=True)
class Clock:
    """Times stages on one device, each for `seconds` or more."""

    device: Device
    seconds: float

    def stage(
        self,
        name: str,
        unit: str,
        run: Callable[[], object],
        nbytes: int | None = None,
        *,
        step: Callable[[], object] | None = None,
        steady: bool = False,
        count: int = 1,
    ) -> Stage:
        """Measure a stage that can be repeated at will and makes `count` units each time.

        `step` issues what the GPU does for it, to be timed there. In a `steady` stage no run waits for the one before.
        """
        run()
        self.device.synchronize()
        before = dispatches(self.device)
        measure = steady_milliseconds if steady else milliseconds
        time_ms, runs = measure(run, self.device.synchronize, self.seconds)
        after = dispatches(self.device)
        issued = None if before is None or after is None else (after - before) / runs
        gpu = None
        if step is not None and self.device.kind == "wgpu":
            watch = self.device.stopwatch(step)
            gpu = 1000 * median(watch() for _ in range(GPU_RUNS))
        return Stage(name, unit, time_ms, issued, nbytes, gpu, count)


def decode_bytes(decoder: Decoder, positions: int) -> int:
    """Return the bytes that one step of a decoder must read: weights, of experts only the chosen, and the cache."""
    config, total = decoder.config, 0
    for layer in decoder.layers:
        total += layer.attention.qkv.nbytes + layer.attention.output.nbytes
        block = layer.feed_forward
        if isinstance(block, Experts):
            experts = (block.gate_up.nbytes + block.down.nbytes) * block.top // config.experts
            total += experts + block.router.nbytes
            if block.shared_gate is not None:
                total += block.shared_gate_up.nbytes + block.shared_down.nbytes
        else:
            total += block.gate_up.nbytes + block.down.nbytes
    seen = min(positions, config.sliding_window or positions)
    value = 2 if decoder.half_cache else 4
    return total + config.layers * seen * 2 * config.kv_heads * config.head_dim * value


def thinker_stages(clock: Clock, thinker: Thinker, context: int) -> list[Stage]:
    """Measure the Thinker: a prompt as long as the context, within bounds, and decoding with every token read back."""
    rows = min(max(PROMPT_ROWS, context), LONGEST_PROMPT, thinker.cache.rows)
    ids = np.random.default_rng(0).integers(0, thinker.config.vocabulary, max(context, rows)).tolist()
    positions = np.broadcast_to(np.arange(len(ids), dtype=np.float32), (3, len(ids)))
    prompt = ThinkerInputs(ids[:rows], positions[:, :rows], 0.0)
    stages = [clock.stage(f"thinker, prompt of {rows}", "token", partial(thinker.prefill, prompt), count=rows)]

    def begin() -> int:
        """Pass the prompt and have the first token of the reply on the host."""
        return next(thinker.generate(prompt, thinker.prefill(prompt), max_new_tokens=1, sampling=GREEDY))

    stages.append(clock.stage(f"thinker, first token of {rows}", "start", begin))
    behind = ThinkerInputs(ids[:context], positions[:, :context], 0.0)
    nbytes = decode_bytes(thinker.decoder, context) + thinker.lm_head.nbytes
    prefill = thinker.prefill(prompt)

    def step() -> Tensor:
        return thinker._decode(GREEDY, thinker.cache.parts)

    def reply() -> None:
        thinker.cache.clear()
        thinker.cache.extend(context)
        tokens = thinker.generate(behind, prefill, max_new_tokens=REPLY_TOKENS, sampling=GREEDY)
        assert sum(1 for _ in tokens) == REPLY_TOKENS

    whole = clock.stage("thinker, decoding", "token", reply, step=step, steady=True)
    stages.append(
        replace(
            whole,
            milliseconds=whole.milliseconds / REPLY_TOKENS,
            dispatches=None if whole.dispatches is None else whole.dispatches / REPLY_TOKENS,
            nbytes=nbytes,
        )
    )
    again = thinker.generate(prompt, thinker.prefill(prompt), max_new_tokens=2, sampling=GREEDY_AGAIN)
    assert len(list(again)) == 2
    return stages


def talker_stages(clock: Clock, talker: Talker, context: int) -> list[Stage]:
    """Measure a frame of speech: one step of the Talker, the passes of the code predictor, and both."""
    predictor = talker.predictor
    rows = np.random.default_rng(0).standard_normal((9, talker.config.decoder.width)).astype(np.float32)
    positions = np.broadcast_to(np.arange(9, dtype=np.float32), (3, 9))

    def step(sampling: Sampling = GREEDY) -> tuple[Tensor, Tensor]:
        talker.cache.advance()
        hidden, first, _ = talker.step(sampling)
        return hidden, first

    def predict(state: tuple[Tensor, Tensor], sampling: Sampling = GREEDY) -> np.ndarray:
        return predictor(*state, sampling, talker.chooser.seed, talker.cache.length).numpy()

    read = decode_bytes(talker.decoder, context) + talker.codec_head.nbytes
    # Each pass reads the layers again, as far as no cache is large enough for them.
    passes = decode_bytes(predictor.decoder, 8) * len(predictor.heads) + sum(head.nbytes for head in predictor.heads)
    talker.run(rows, positions)
    talker.cache.extend(max(context - 9, 0))
    state = step()
    stages = [
        clock.stage("talker", "frame", lambda: step()[1].numpy(), read),
        clock.stage("code predictor", "frame", lambda: predict(state), passes),
        frame_stage(clock, talker, read + passes),
    ]
    predict(step(GREEDY_AGAIN), GREEDY_AGAIN)
    return stages


def frame_stage(clock: Clock, talker: FrameTalker, nbytes: int) -> Stage:
    """Measure a frame as a session makes it: a step of the talker and the passes of the code predictor, sampled.

    Each is read while the next is made.
    """

    waiting: deque[Callable[[], np.ndarray]] = deque()

    def frame() -> None:
        talker.cache.advance()
        talker.frame(SPOKEN, SPOKEN)
        waiting.append(talker.device.read_later(talker.codes))
        if len(waiting) > 1:
            waiting.popleft()()

    def step() -> object:
        return talker._decode_frame(SPOKEN, SPOKEN, talker.cache.parts)

    return clock.stage("talker and code predictor", "frame", frame, nbytes, step=step, steady=True)


def vocoder_stages(clock: Clock, vocoder: Code2Wav) -> list[Stage]:
    """Measure the vocoder: chunks of 4 frames that follow others, and of 25 frames, 2 s of speech."""
    config, random = vocoder.config, np.random.default_rng(0)
    stages = []
    for frames in (1, 4, 25):
        codes = random.integers(0, config.codebook_size, (config.codebooks, frames)).astype(np.int32)
        stages.append(tts.piece_stage(clock, f"code2wav, {frames} frames", vocoder, codes))
    return stages


def audio_stages(clock: Clock, encoder: AudioEncoder) -> list[Stage]:
    """Measure the audio encoder on 8 seconds of log-mel frames."""
    mel = np.random.default_rng(0).standard_normal((800, encoder.config.mels)).astype(np.float32)
    return [clock.stage("audio encoder, 8 s", "clip", partial(encoder, mel))]


def _thinker(clock: Clock, weights: RandomWeights, layers: int | None, context: int) -> list[Stage]:
    config, room = full_size.thinker(layers), context + MOST_STEPS + PROMPT_ROWS
    thinker = Thinker(weights.at("thinker."), config, context=room, accept_layer=0, stop_id=-1)
    return thinker_stages(clock, thinker, context)


def _talker(clock: Clock, weights: RandomWeights, layers: int | None, context: int) -> list[Stage]:
    config, room = full_size.talker(layers), context + 3 * MOST_STEPS
    predictor = CodePredictor(weights.at("talker.code_predictor."), config.code_predictor, code_sizes(config))
    talker = Talker(weights.at("talker."), config, full_size.TOKENS, predictor, context=room)
    return talker_stages(clock, talker, context)


def _code2wav(clock: Clock, weights: RandomWeights, layers: int | None, context: int) -> list[Stage]:
    return vocoder_stages(clock, Code2Wav(weights.at("code2wav."), full_size.code2wav(layers)))


def _audio(clock: Clock, weights: RandomWeights, layers: int | None, context: int) -> list[Stage]:
    return audio_stages(clock, AudioEncoder(weights.at("thinker.audio_tower."), full_size.audio_encoder(layers)))


SHAPES: dict[str, Callable[[Clock, RandomWeights, int | None, int], list[Stage]]] = {
    "thinker": _thinker,
    "talker": _talker,
    "code2wav": _code2wav,
    "audio": _audio,
    "vision": vision.stages,
    "tts-0.6b": partial(tts.stages, "0.6b"),
    "tts-1.7b": partial(tts.stages, "1.7b"),
}
"""The full-size components by the name of their shape."""
