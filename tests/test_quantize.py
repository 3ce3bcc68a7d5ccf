"""A quantised directory holds what the policy says, bit for bit, and gives the replies of quantising at load."""

from __future__ import annotations

import json
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

import omni_rt
from omni_rt import quant
from omni_rt.devices.device import Device
from omni_rt.errors import InputError, ModelFormatError, ModelNotFoundError, OmniError, UnsupportedError
from omni_rt.io.gguf import GgufFile
from omni_rt.io.gguf_checkpoint import GgufCheckpoint, restored, shortened
from omni_rt.io.safetensors import SafetensorsCheckpoint, SafetensorsFile
from omni_rt.model_files import open_model
from omni_rt.quantize_files import QuantisedModel
from omni_rt.quantize_policy import stored_type
from omni_rt.weights import Weights
from tests.command_line import Program, start
from tests.conftest import GOLDENS, TTS_GOLDENS

OMNI = GOLDENS / "checkpoint"
VARIANTS = ("tiny-0b6-base", "tiny-1b7-customvoice")
OMNI_COMPONENTS = ["audio_encoder", "vision_encoder", "thinker", "code_predictor", "talker", "code2wav"]
TTS_COMPONENTS = ["code_predictor", "talker", "speaker_encoder", "codec_encoder", "codec_decoder"]


@pytest.fixture(scope="module")
def made(released: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, QuantisedModel]]:
    """Original and quantised directory of each model, by name."""
    root = tmp_path_factory.mktemp("quantised")
    sources = {"omni": OMNI} | {variant: released / variant for variant in VARIANTS}
    return {name: (source, omni_rt.quantize(source, root / f"{name}-q8")) for name, source in sources.items()}


@pytest.mark.parametrize(("name", "components"), [("omni", OMNI_COMPONENTS), ("tiny-0b6-base", TTS_COMPONENTS)])
def test_every_component_has_a_file_and_every_tensor_the_bits_of_the_reference_quantiser(
    made: dict[str, tuple[Path, QuantisedModel]], name: str, components: list[str]
) -> None:
    source, model = made[name]
    assert sorted(model.files) == sorted(components)
    assert sorted(path.name for path in model.directory.glob("*.gguf")) == sorted(f"{c}-q8_0.gguf" for c in components)
    original = {n: part.checkpoint for part in open_model(source).parts for n in part.checkpoint.names()}
    assert sorted(t.source for t in model.tensors) == sorted(original)
    readers = {component: gguf.GGUFReader(path) for component, path in model.files.items()}
    found = {component: {t.name: t for t in reader.tensors} for component, reader in readers.items()}
    assert sum(map(len, found.values())) == len(model.tensors)
    kinds = set()
    for line in model.tensors:
        stored = found[line.component][line.target]
        values = np.asarray(original[line.source].array(line.source), np.float32)
        kind = gguf.GGMLQuantizationType[line.dtype]
        assert (stored.tensor_type, stored.n_bytes) == (kind, line.nbytes)
        expected = gguf.quants.quantize(values.reshape(-1, values.shape[-1]), kind)
        assert stored.data.tobytes() == expected.tobytes(), line.source
        kinds.add(line.dtype)
    assert kinds == {"Q8_0", "F16", "F32"}


@pytest.mark.parametrize("name", ["omni", *VARIANTS])
def test_our_reader_finds_the_original_names_and_shapes(
    made: dict[str, tuple[Path, QuantisedModel]], name: str
) -> None:
    source, model = made[name]
    for before, after in zip(open_model(source).parts, open_model(model.directory).parts, strict=True):
        assert isinstance(after.checkpoint, GgufCheckpoint) and set(after.quants.values()) == {"q8_0"}
        assert sorted(before.checkpoint.names()) == sorted(after.checkpoint.names())
        for tensor in before.checkpoint.names():
            assert before.checkpoint.shape(tensor) == after.checkpoint.shape(tensor)


def test_metadata_says_what_a_file_is(made: dict[str, tuple[Path, QuantisedModel]]) -> None:
    source, model = made["omni"]
    fields = {
        component: {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
        for component, path in model.files.items()
    }
    config = (source / "config.json").read_text()
    for component, field in fields.items():
        assert field["general.architecture"] == "qwen3_omni_moe"
        assert (field["general.quantization_version"], field["general.file_type"]) == (2, 7)
        assert (field["omni_rt.component"], field["omni_rt.precision"]) == (component, "q8_0")
        assert field["omni_rt.config"] == config and field["general.source"] == source.name
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "generation_config.json", "chat_template.json"):
        assert fields["thinker"][f"omni_rt.file.{name}"] == (source / name).read_text(encoding="utf-8")


def replies(directory: Path, device: str, quant: str | None) -> list[np.ndarray]:
    """Return everything a seeded reply is made of; the end of the context is that of the speech."""
    with omni_rt.load(directory, device=device, quant=quant, context=48, strict=True) as model:
        if isinstance(model, omni_rt.OmniOrchestrator):
            wave = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
            picture = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
            content = [{"type": "audio", "audio": (wave, 16000)}, {"type": "image", "image": picture}]
            reply = model.chat([{"role": "user", "content": content}], speech=True, seed=3, max_new_tokens=3)
            assert reply.audio is not None and reply.codes is not None
            return [np.array(reply.token_ids), reply.codes, reply.audio]
        if model.voices():
            speech = model.generate("Good morning.", voice=model.voices()[0], seed=1, max_frames=3)
        else:
            wave = 0.1 * np.random.default_rng(0).standard_normal(2 * 24000).astype(np.float32)
            voice = model.voice((wave, 24000), "a word")
            speech = model.generate("Good morning.", voice=voice, seed=1, max_frames=3)
        assert speech.codes is not None and speech.audio is not None
        return [speech.codes, speech.audio]


@pytest.mark.parametrize("device", ["cpu", "wgpu"])
@pytest.mark.parametrize("name", ["omni", *VARIANTS])
def test_a_quantised_directory_gives_the_reply_of_quantising_at_load_bit_for_bit(
    made: dict[str, tuple[Path, QuantisedModel]], name: str, device: str
) -> None:
    source, model = made[name]
    for at_load, from_file in zip(replies(source, device, "q8_0"), replies(model.directory, device, None), strict=True):
        assert from_file.size and np.array_equal(at_load, from_file)


def test_on_the_cpu_f16_and_f32_weights_stay_mapped_and_q8_0_is_taken_apart_once(
    made: dict[str, tuple[Path, QuantisedModel]], cpu: Device
) -> None:
    checkpoint = open_model(made["omni"][1].directory).main.checkpoint
    weights = Weights(checkpoint, cpu, quant="q8_0", prefix="thinker.model.")
    table = weights.half("embed_tokens.weight", *checkpoint.shape("thinker.model.embed_tokens.weight"))
    norm = weights.exact("norm.weight", *checkpoint.shape("thinker.model.norm.weight"))
    for tensor, name in ((table, "embed_tokens"), (norm, "norm")):
        assert np.shares_memory(tensor.planes[0], checkpoint.raw(f"thinker.model.{name}.weight"))
    names = [f"layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    shapes = [checkpoint.shape(f"thinker.model.{name}") for name in names]
    fused = weights.fused(names, [shape[0] for shape in shapes], shapes[0][1])
    blocks = np.concatenate([checkpoint.raw(f"thinker.model.{name}") for name in names])
    assert fused.dtype == "q8_0" and quant.planes_to_blocks(*fused.planes).tobytes() == blocks.tobytes()


class Spy(Weights):
    """Weights that note which tensors are read where nothing is rounded again."""

    exactly: set[str]

    def exact(self, name: str, *shape: int) -> Any:
        self.exactly.add(self.prefix + name)
        return super().exact(name, *shape)

    def at(self, prefix: str) -> Weights:
        view = super().at(prefix)
        view.exactly = self.exactly  # type: ignore[attr-defined]
        return view


@pytest.mark.parametrize("name", ["omni", *VARIANTS])
def test_what_a_model_reads_exactly_is_stored_exactly(
    made: dict[str, tuple[Path, QuantisedModel]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = made[name]
    monkeypatch.setattr(Spy, "exactly", set(), raising=False)
    monkeypatch.setattr("omni_rt.model_part.Weights", Spy)
    omni_rt.load(source, device="cpu", context=64).close()
    shapes = {n: p.checkpoint.shape(n) for p in open_model(source).parts for n in p.checkpoint.names()}
    assert len(Spy.exactly) > 50
    assert {n: stored_type(n, shapes[n]) for n in Spy.exactly} == dict.fromkeys(Spy.exactly, "F32")


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("thinker.model.layers.0.mlp.experts.3.gate_proj.weight", (768, 2048), "Q8_0"),
        ("thinker.lm_head.weight", (152064, 2048), "Q8_0"),
        ("thinker.visual.blocks.0.mlp.linear_fc2.weight", (1152, 4304), "F16"),
        ("thinker.visual.patch_embed.proj.weight", (1152, 3, 2, 16, 32), "F16"),
        ("thinker.visual.pos_embed.weight", (2304, 1152), "F32"),
        ("thinker.audio_tower.conv2d2.weight", (480, 480, 3, 3), "F16"),
        ("thinker.model.embed_tokens.weight", (152064, 2048), "F16"),
        ("talker.code_predictor.model.codec_embedding.3.weight", (2048, 1024), "F16"),
        ("talker.model.text_embedding.weight", (151936, 2048), "F16"),
        ("talker.model.layers.0.mlp.gate.weight", (128, 1024), "F32"),
        ("talker.model.layers.0.mlp.shared_expert_gate.weight", (1, 1024), "F32"),
        ("talker.model.layers.0.input_layernorm.weight", (1024,), "F32"),
        ("code2wav.code_embedding.weight", (32768, 1024), "F32"),
        ("code2wav.decoder.1.block.1.conv.weight", (1536, 768, 32), "F16"),
        ("code2wav.pre_transformer.layers.0.self_attn_layer_scale.scale", (1024,), "F32"),
        ("decoder.quantizer.rvq_first.vq.layers.0._codebook.embedding_sum", (2048, 256), "F32"),
        ("decoder.decoder.0.conv.weight", (1536, 1024, 7), "F16"),
        ("encoder.downsample.conv.weight", (512, 512, 4), "F32"),
        ("encoder.encoder_transformer.layers.0.mlp.fc1.weight", (2048, 512), "Q8_0"),
        ("speaker_encoder.fc.weight", (1024, 3072, 1), "F32"),
    ],
)
def test_the_policy_gives_each_kind_of_tensor_its_type(name: str, shape: tuple[int, ...], kind: str) -> None:
    assert stored_type(name, shape) == kind
    assert stored_type(name, shape, "f16") == ("F16" if kind == "Q8_0" else kind)


def test_names_of_files_are_short_and_turn_back() -> None:
    codec = SafetensorsCheckpoint(TTS_GOLDENS / "speech_tokenizer").names()
    base = SafetensorsCheckpoint(TTS_GOLDENS / "tiny-0b6-base").names()
    released = [n.replace("layers.10.", "layers.30.") for n in codec] + base
    released += ["model.layers.47.mlp.experts.127.gate_proj.weight", "model.layers.19.post_attention_layernorm.weight"]
    for name in released:
        own = name.partition(".")[2]
        assert restored(shortened(own)) == own
        assert len(shortened(own)) <= 63 or "code_predictor" in own


def test_f16_keeps_linear_weights(tmp_path: Path, made: dict[str, tuple[Path, QuantisedModel]]) -> None:
    source, model = made["omni"]
    shutil.copytree(model.directory, tmp_path / "mixed")
    kept = omni_rt.quantize(source, tmp_path / "mixed", components=["code2wav"], keep="f16")
    assert {t.dtype for t in kept.tensors} == {"F16", "F32"} and list(kept.files) == ["code2wav"]
    assert not (tmp_path / "mixed" / "code2wav-q8_0.gguf").exists()
    assert open_model(tmp_path / "mixed").main.quants["code2wav"] == "f16"
    half, eight = replies(tmp_path / "mixed", "cpu", None), replies(model.directory, "cpu", None)
    assert np.array_equal(half[1], eight[1]) and not np.array_equal(half[2], eight[2])


def test_the_command_lists_every_tensor(tmp_path: Path, program: Program) -> None:
    done = program("quantize", str(OMNI), str(tmp_path / "out"), "--components", "thinker,code2wav", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert sorted(report["files"]) == ["code2wav", "thinker"]
    names = [name for name, component in open_model(OMNI).main.names().items() if component in report["files"]]
    assert sorted(t["source"] for t in report["tensors"]) == sorted(names)
    assert sum(t["nbytes"] for t in report["tensors"]) == report["bytes"]
    lines = program("quantize", str(OMNI), str(tmp_path / "out"), "--components", "code2wav").out.splitlines()
    assert lines[0].split() == ["source", "target", "type", "bytes"] and len(lines) > 50
    wrong = program("quantize", str(OMNI), str(tmp_path / "out"), "--components", "vocoder")
    assert wrong.code == 1 and "no component vocoder; it has audio_encoder" in wrong.err


def _cut(folder: Path) -> None:
    path = folder / "thinker-q8_0.gguf"
    path.write_bytes(path.read_bytes()[:-4000])


def _foreign_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["transformers_version"] = "0"
    (folder / "config.json").write_text(json.dumps(config))


def _spoil_a_scale(folder: Path) -> None:
    path = folder / "thinker-q8_0.gguf"
    end = GgufFile(path).entries["model.layers.1.self_attn.v_proj.weight"].end
    data = bytearray(path.read_bytes())
    data[end - 34 : end - 32] = np.float16(np.inf).tobytes()  # of the last block
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (_spoil_a_scale, ModelFormatError, r"layers\.1\.self_attn\.v_proj\.weight: holds values that are not finite"),
        (
            lambda f: (f / "talker-q8_0.gguf").unlink(),
            ModelNotFoundError,
            "lacks talker-q8_0.gguf.*--components talker",
        ),
        (_cut, ModelFormatError, r"thinker-q8_0\.gguf: at byte \d+, tensor .* it is cut short"),
        (_foreign_config, ModelFormatError, "made from another config.json than the one beside it"),
        (
            lambda f: shutil.copy(f / "talker-q8_0.gguf", f / "thinker-q8_0.gguf"),
            ModelFormatError,
            "holds the component 'talker' .* by its name 'thinker'",
        ),
        (
            lambda f: shutil.copy(f / "talker-q8_0.gguf", f / "talker-f16.gguf"),
            ModelFormatError,
            "both talker-q8_0.gguf and talker-f16.gguf",
        ),
        (lambda f: (f / "config.json").unlink(), ModelNotFoundError, "has no config.json"),
    ],
)
def test_a_mixed_up_directory_is_refused_by_its_fault(
    made: dict[str, tuple[Path, QuantisedModel]], tmp_path: Path, damage: Any, error: type[OmniError], says: str
) -> None:
    shutil.copytree(made["omni"][1].directory, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    with pytest.raises(error, match=says):
        omni_rt.load(tmp_path / "damaged", device="cpu")


def test_quantise_refuses_what_it_cannot_do(made: dict[str, tuple[Path, QuantisedModel]], tmp_path: Path) -> None:
    source, model = made["omni"]
    with pytest.raises(UnsupportedError, match="is quantised already"):
        omni_rt.quantize(model.directory, tmp_path / "twice")
    with pytest.raises(InputError, match="holds an original checkpoint"):
        omni_rt.quantize(source, shutil.copytree(source, tmp_path / "copy"))
    with pytest.raises(InputError, match="holds another model"):
        omni_rt.quantize(made["tiny-0b6-base"][0], shutil.copytree(model.directory, tmp_path / "other"))
    with pytest.raises(InputError, match="keep='q4'"):
        omni_rt.quantize(source, tmp_path / "four", keep="q4")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a directory"):
        omni_rt.quantize(source, tmp_path / "file")


def load_file(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a checkpoint, its bfloat16 values as float32."""
    file = SafetensorsFile(path)
    return {name: np.array(file.array(name)) for name in file.entries}


def wide_checkpoint(folder: Path, rows: int) -> int:
    """Make a checkpoint whose embedding and lm_head have `rows` rows; return the bytes of its largest tensor."""
    shutil.copytree(OMNI, folder)
    tensors = load_file(folder / "model.safetensors")
    wide = np.random.default_rng(0).standard_normal((rows, 64), np.float32)
    tensors |= {f"thinker.{name}.weight": wide for name in ("model.embed_tokens", "lm_head")}
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["thinker_config"]["text_config"]["vocab_size"] = rows
    (folder / "config.json").write_text(json.dumps(config))
    return wide.nbytes


def test_quantising_and_loading_take_less_memory_than_the_largest_tensor(tmp_path: Path) -> None:
    largest = wide_checkpoint(tmp_path / "wide", 500_000)
    tracemalloc.start()
    made = omni_rt.quantize(tmp_path / "wide", tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    assert largest == 128_000_000 and peak < largest / 2, f"{peak} bytes at once"
    stored = max(tensor.nbytes for tensor in made.tensors if tensor.dtype == "Q8_0")
    tracemalloc.reset_peak()
    with omni_rt.load(tmp_path / "out", device="wgpu", context=16):  # what the GPU holds does not count
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stored == 34_000_000 and peak < stored / 2, f"{peak} bytes at once"


def test_a_kill_leaves_no_file_under_a_final_name_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    wide_checkpoint(tmp_path / "wide", 400_000)
    out = tmp_path / "out"
    killed = 0
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        process = start("quantize", str(tmp_path / "wide"), str(out), "--components", "thinker", "-q", cwd=tmp_path)
        deadline = time.monotonic() + 60
        while not list(out.glob(".thinker-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.communicate()
        if (out / "config.json").exists():  # it had finished before
            shutil.rmtree(out)
            continue
        killed += 1
        for path in out.glob("[!.]*.gguf"):  # killed after its rename: it is whole
            GgufFile(path)
    assert killed, "no run was killed in time"
    omni_rt.quantize(tmp_path / "wide", out, components=["thinker"])
    assert not list(out.glob(".*")) and GgufFile(out / "thinker-q8_0.gguf").entries


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    shutil.copytree(OMNI, tmp_path / "bad")
    tensors = load_file(tmp_path / "bad" / "model.safetensors")
    tensors["thinker.lm_head.weight"] = np.full(tensors["thinker.lm_head.weight"].shape, np.nan, np.float32)
    save_file(tensors, tmp_path / "bad" / "model.safetensors")
    with pytest.raises(ModelFormatError, match=r"thinker\.lm_head\.weight: holds values that are not finite"):
        omni_rt.quantize(tmp_path / "bad", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists() and not list((tmp_path / "out").glob("*thinker*"))
    with pytest.raises(ModelFormatError, match=r"thinker\.lm_head\.weight: holds values that are not finite"):
        omni_rt.load(tmp_path / "bad", device="cpu", quant="q8_0")


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("omni_rt.quantize_files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"will be written, 0\.00 GB are free"):
        omni_rt.quantize(OMNI, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_shards_give_the_files_of_the_single_checkpoint(
    made: dict[str, tuple[Path, QuantisedModel]], tmp_path: Path
) -> None:
    source, model = made["omni"]
    shutil.copytree(source, tmp_path / source.name)
    tensors = load_file(source / "model.safetensors")
    (tmp_path / source.name / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for index, part in enumerate((names[::2], names[1::2])):
        shard = f"model-0000{index + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, tmp_path / source.name / shard)
        weight_map |= dict.fromkeys(part, shard)
    index_file = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / source.name / "model.safetensors.index.json").write_text(json.dumps(index_file))
    sharded = omni_rt.quantize(tmp_path / source.name, tmp_path / "out")
    for component, path in sharded.files.items():
        one, other = GgufFile(path), GgufFile(model.files[component])
        assert set(one.entries) == set(other.entries) and one.metadata == other.metadata
        assert all(one.raw(name).tobytes() == other.raw(name).tobytes() for name in one.entries)
