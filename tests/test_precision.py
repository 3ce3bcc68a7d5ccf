"""What Q8_0 costs, stage by stage, and that it is the weights' rounding alone where activations stay in f32."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omni_rt
from omni_rt import ops
from omni_rt.devices import open_device
from omni_rt.devices.device import Device
from omni_rt.model_files import OmniFiles, open_model
from omni_rt.model_part import ModelPart
from omni_rt.models.qwen3_omni import components as omni
from omni_rt.models.qwen3_omni.thinker import Thinker, ThinkerInputs
from omni_rt.models.qwen3_tts import components as tts
from omni_rt.models.talker import FrameTalker, TalkerSession
from omni_rt.ops import routed_experts
from omni_rt.quant import Quantised
from omni_rt.sampling import Sampling
from omni_rt.tensor import Tensor
from omni_rt.weights import Checkpoint
from tests.reference import Reference
from tests.test_thinker import inputs_of

MODELS = ("omni", "tiny-0b6-base", "tiny-1b7-customvoice")
MOST_OF_LOGITS = 1e-3
MOST_ELSEWHERE = 2e-3
SEEDS = range(1, 6)
PROMPT, REPLY = 96, 16


class Dequantised:
    """A quantised checkpoint whose tensors are float32 values: what the rounded weights stand for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.names, self.shape, self.raw = checkpoint.names, checkpoint.shape, checkpoint.raw

    def dtype(self, name: str) -> str:
        """Say that everything is f32."""
        return "F32"

    def array(self, name: str) -> np.ndarray:
        """Return the values of a tensor."""
        if self._checkpoint.dtype(name) == "Q8_0":
            return Quantised(self.shape(name), [self._checkpoint.raw(name)]).values()
        return np.asarray(self._checkpoint.array(name), np.float32)


def load(directory: Path, device: Device, *, dequantised: bool = False) -> Any:
    """Return the components of a model, all on one device; `dequantised` computes with the values of its weights."""
    files, quiet = open_model(directory), lambda done, total: None
    parts = files.parts
    if dequantised:
        parts = tuple(ModelPart(Dequantised(p.checkpoint), p.prefixes, dict.fromkeys(p.quants)) for p in parts)
    devices = dict.fromkeys([*omni.PREFIXES, *tts.PLACES.values()], device)
    common: Mapping[str, Any] = {"context": 700, "progress": quiet}
    if isinstance(files, OmniFiles):
        return omni.load_components(parts[0], files.config, devices, **common)
    return tts.load_components(*parts, files.config, files.codec_config, devices, **common)


def talker_stages(talker: FrameTalker) -> dict[str, np.ndarray]:
    """Return what a talker and its code predictor make of random rows."""
    rng = np.random.default_rng(5)
    axes = talker.frequencies.shape[0]
    positions = np.tile(np.arange(12, dtype=np.float32), (axes, 1))
    session = TalkerSession(
        talker, rng.standard_normal((12, talker.width)).astype(np.float32), positions,
        pad=np.zeros(talker.width, np.float32), sampling=Sampling(), predictor_sampling=Sampling(), ahead=0,
    )  # fmt: skip
    session.finish_text()
    session.step()
    assert session.hidden is not None and session.logits is not None
    found = {"talker state": session.hidden.numpy(), "talker logits": session.logits.numpy()}
    state = rng.standard_normal((1, talker.width)).astype(np.float32)
    talker.predictor.from_host(state, 3, Sampling(), 0, 1)
    return found | {"code predictor logits": talker.predictor.logits[0].numpy()}


def stages(model: Any, reference: Reference) -> dict[str, np.ndarray]:
    """Return the activations of every stage for fixed inputs."""
    rng = np.random.default_rng(6)
    if isinstance(model, omni.Components):
        assert model.talker is not None and model.code2wav is not None
        config = model.code2wav.config
        codes = rng.integers(0, config.codebook_size, (config.codebooks, 12)).astype(np.int32)
        grid = tuple(int(extent) for extent in reference["image.grid_thw"][0])
        thinker = model.thinker.forward(inputs_of(reference, "mixed"))
        mel = rng.standard_normal((150, model.audio_encoder.config.mels)).astype(np.float32)
        return {
            "audio encoder": model.audio_encoder(mel).embeddings,
            "vision encoder": model.vision_encoder(reference["image.pixel_values"], grid).embeddings,  # type: ignore[arg-type]
            "thinker state": thinker.hidden, "thinker logits": thinker.text_logits, **talker_stages(model.talker),
            "waveform": model.code2wav(codes).waveform,
        }  # fmt: skip
    config = model.codec.decoder.config
    codes = rng.integers(0, config.codebook_size, (config.codebooks, 12)).astype(np.int32)
    found = talker_stages(model.talker) | {"waveform": model.codec.decode(codes)}
    if model.speaker_encoder is not None:
        found["speaker encoder"] = model.speaker_encoder(0.1 * rng.standard_normal(24000).astype(np.float32))
    return found


def share(got: np.ndarray, expected: np.ndarray, axis: int | None = None) -> Any:
    """Return the error's share of the energy, along an axis or of all together."""
    error = ((got.astype(np.float64) - expected) ** 2).sum(axis)
    return error / (expected.astype(np.float64) ** 2).sum(axis)


def nmse(got: np.ndarray, expected: np.ndarray) -> float:
    """Return the error's share of the energy: of a waveform as a whole, of rows the median.

    A random router has near ties, and where one tips over, another expert answers and the row says nothing about Q8_0.
    """
    return float(np.median(share(got, expected, -1 if expected.ndim > 1 else None)))


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[str, str], Device]]:
    """Opens a device of a kind, with activations in q8 or f32, once for all tests."""
    devices: dict[tuple[str, str], Device] = {}

    def get(kind: str, activations: str) -> Device:
        if (kind, activations) not in devices:
            devices[kind, activations] = open_device(kind, strict=True, activations=activations)
        return devices[kind, activations]

    yield get
    for device in devices.values():
        device.close()


@pytest.fixture(scope="module")
def directories(
    golden_dir: Path, released: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """Each model's original and quantised directory."""
    root = tmp_path_factory.mktemp("precision")
    sources = {"omni": golden_dir / "checkpoint"} | {variant: released / variant for variant in MODELS[1:]}
    return {name: (source, omni_rt.quantize(source, root / f"{name}-q8").directory) for name, source in sources.items()}


@pytest.mark.parametrize("activations", ["f32", "q8"])
@pytest.mark.parametrize("kind", ["cpu", "wgpu"])
@pytest.mark.parametrize("name", MODELS)
def test_quantised_stages_stay_near_those_in_f32(
    directories: dict[str, tuple[Path, Path]],
    reference: Reference,
    opened: Callable[[str, str], Device],
    name: str,
    kind: str,
    activations: str,
) -> None:
    device = opened(kind, activations)
    exact, coarse = (stages(load(directory, device), reference) for directory in directories[name])
    errors = {stage: nmse(coarse[stage], exact[stage]) for stage in exact}
    listed = ", ".join(f"{stage} {error:.1e}" for stage, error in errors.items())
    print(f"\n{name}, {kind}, activations {activations}: {listed}")
    for stage, error in errors.items():
        most = MOST_OF_LOGITS if stage.endswith("logits") else MOST_ELSEWHERE
        assert error <= most, f"{stage}: {error:.2e}"
    assert errors["talker logits"] > 1e-7, "nothing was quantised"


@pytest.mark.parametrize("kind", ["cpu", "wgpu"])
@pytest.mark.parametrize("name", MODELS)
def test_with_f32_activations_the_result_is_that_of_the_dequantised_weights(
    directories: dict[str, tuple[Path, Path]],
    reference: Reference,
    opened: Callable[[str, str], Device],
    name: str,
    kind: str,
) -> None:
    _, quantised = directories[name]
    blocks = stages(load(quantised, opened(kind, "f32")), reference)
    values = stages(load(quantised, opened(kind, "f32"), dequantised=True), reference)
    for stage, expected in values.items():
        error = np.abs(blocks[stage] - expected).max() / np.abs(expected).max()
        assert error <= 1e-4, f"{stage}: off by {error:.1e} of the peak"


class SameExperts:
    """Routes rows to the experts that the first of two runs chose, by each run's own weights.

    Where a random router has a near tie, rounding tips it over: another expert answers, and the rows that see that one
    say nothing about what was rounded.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._chosen: list[np.ndarray] = []
        self._again: Iterator[np.ndarray] | None = None
        for name, place in (("route", 0), ("route_gate_up", 2)):
            op = getattr(routed_experts, name)
            monkeypatch.setattr(routed_experts, name, partial(self._run, op, place))

    def replay(self) -> None:
        """Let the run that follows take the choices of the first."""
        self._again = iter(self._chosen)

    def _run(self, op: Any, place: int, *operands: Tensor, **attributes: Any) -> Any:
        if self._again is not None:
            logits = operands[place].numpy()
            left_out = np.full(logits.shape, -1e4, np.float32)
            np.put_along_axis(left_out, next(self._again), 0, axis=1)
            operands = (*operands[:place], operands[place].device.tensor(logits + left_out), *operands[place + 1 :])
        outputs = op(*operands, **attributes)
        if self._again is None:
            self._chosen.append(outputs[-1].numpy())
        return outputs


def logits_of(thinker: Thinker, ids: list[int]) -> np.ndarray:
    """Return the logits of PROMPT rows that pass at once and of the others, which follow one by one."""
    positions = np.stack([np.arange(len(ids), dtype=np.float32)] * 3)
    found = [thinker.prefill(ThinkerInputs(ids[:PROMPT], positions[:, :PROMPT], 0.0), logits=True).logits]
    for place in range(PROMPT, len(ids)):
        thinker.cache.extend(1)
        x = ops.embed(thinker.embed_tokens, thinker.device.tensor(np.array(ids[place : place + 1], np.int32)))
        table = ops.angles(thinker.device.tensor(positions[:, place][None]), thinker.frequencies)
        state, _ = thinker.decoder.states(x, table, thinker.cache)
        found.append(thinker.decoder.head(state, thinker.lm_head).numpy())
    return np.concatenate(found)


@pytest.fixture(scope="module")
def random_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """The original and the quantised directory of tiny random checkpoints."""
    root, tool = tmp_path_factory.mktemp("random"), Path(__file__).parent.parent / "tools" / "make_tiny.py"
    for seed in SEEDS:
        subprocess.run([sys.executable, tool, "--seed", str(seed), "--out", root / f"{seed}"], check=True)
    return [(root / f"{seed}", omni_rt.quantize(root / f"{seed}", root / f"{seed}-q8").directory) for seed in SEEDS]


@pytest.mark.parametrize("activations", ["f32", "q8"])
@pytest.mark.parametrize("kind", ["cpu", "wgpu"])
def test_logits_stay_near_those_in_f32_whatever_the_weights(
    random_checkpoints: list[tuple[Path, Path]],
    opened: Callable[[str, str], Device],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    activations: str,
) -> None:
    errors = []
    for seed, directories in zip(SEEDS, random_checkpoints, strict=True):
        thinkers = [load(directory, opened(kind, activations)).thinker for directory in directories]
        ids = np.random.default_rng(seed).integers(0, thinkers[0].config.vocabulary, PROMPT + REPLY).tolist()
        with monkeypatch.context() as patch:
            experts = SameExperts(patch)
            exact = logits_of(thinkers[0], ids)
            experts.replay()
            coarse = logits_of(thinkers[1], ids)
        errors.append((share(coarse[:PROMPT], exact[:PROMPT]), nmse(coarse[PROMPT:], exact[PROMPT:])))
    listed = ", ".join(f"{prompt:.1e} and {reply:.1e}" for prompt, reply in errors)
    print(f"\nrandom weights, {kind}, activations {activations}, logits of a prompt and of a reply: {listed}")
    assert max(prompt for prompt, _ in errors) <= MOST_OF_LOGITS, listed
    assert np.mean([reply for _, reply in errors]) <= MOST_OF_LOGITS, listed
