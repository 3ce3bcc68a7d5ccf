"""Runs the PyTorch reference of Qwen3-TTS (qwen-tts) case by case and keeps what it computes, as NumPy arrays."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_stages import Arrays, recorded, smallest_gap, to_numpy
from safetensors import safe_open

SAMPLE_RATE = 24000


def import_reference() -> Any:
    """Import qwen_tts, with empty stand-ins for what only its unused 25 Hz codec imports."""
    for name in ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi", "sox", "onnxruntime"):
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            sys.modules[name] = module
    sys.modules["torchaudio"].compliance = sys.modules["torchaudio.compliance"]  # type: ignore[attr-defined]
    sys.modules["torchaudio.compliance"].kaldi = sys.modules["torchaudio.compliance.kaldi"]  # type: ignore[attr-defined]
    import qwen_tts

    return qwen_tts


def load_voice(directory: Path) -> Any:
    """Load a voice model with its speech_tokenizer/ in float32; attention is eager, the codec's is sdpa as always."""
    reference = import_reference()
    wrapper = reference.Qwen3TTSModel.from_pretrained(str(directory), dtype=torch.float32, attn_implementation="eager")
    check_names(directory / "model.safetensors", wrapper.model)
    check_names(directory / "speech_tokenizer" / "model.safetensors", wrapper.model.speech_tokenizer.model)
    wrapper.model.eval()
    return wrapper


def check_names(path: Path, model: torch.nn.Module) -> None:
    """Stop if a file's tensors are not exactly the parameters and buffers that `model` saves."""
    with safe_open(path, "pt") as file:
        stored = set(file.keys())
    wanted = set(model.state_dict())
    if stored != wanted:
        raise SystemExit(f"{path}: unknown {sorted(stored - wanted)[:5]}, missing {sorted(wanted - stored)[:5]}")


class Voice:
    """A voice model of the reference with recorders around its stages."""

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        self.model = wrapper.model

    def case(self, call: str, arguments: dict[str, Any], *, layers: bool = False) -> tuple[Arrays, dict[str, Any]]:
        """Run one public call of the reference; return its arrays and what golden.json says of it."""
        talker = self.model.talker
        kept: dict[str, Any] = {}
        frames: list[dict[str, Any]] = []
        inner_generate, predictor_generate = talker.generate, talker.code_predictor.generate
        first: dict[str, torch.Tensor] = {}

        def generate(**keywords: Any) -> Any:
            kept["keywords"] = keywords
            kept["result"] = inner_generate(**keywords, output_logits=True, output_scores=True)
            return kept["result"]

        def generate_frame(**keywords: Any) -> Any:
            result = predictor_generate(**keywords, output_logits=True)
            frames.append({"inputs": keywords["inputs_embeds"], "result": result})
            return result

        taps: dict[str, torch.nn.Module] = {"prefill.norm": talker.model.norm}
        taps |= {f"prefill.layer.{index}": layer for index, layer in enumerate(talker.model.layers)}
        talker.generate, talker.code_predictor.generate = generate, generate_frame
        talker.rope_deltas = None
        try:
            with recorded(taps if layers else {}, lambda name, value: first.setdefault(name, value)):
                waves, _ = getattr(self.wrapper, call)(**arguments)
        finally:
            del talker.generate, talker.code_predictor.generate
        arrays = self._arrays(kept["keywords"], kept["result"], frames)
        arrays |= {name: to_numpy(value) for name, value in first.items()}
        arrays |= {f"wav.{index}": np.asarray(wave, np.float32) for index, wave in enumerate(waves)}
        keywords = {name: value for name, value in kept["keywords"].items() if isinstance(value, (bool, int, float))}
        return arrays, self._entry(arrays, keywords)

    def _arrays(self, keywords: dict[str, Any], result: Any, frames: list[dict[str, Any]]) -> Arrays:
        codes = torch.stack([step[-1] for step in result.hidden_states if step[-1] is not None], dim=1)
        arrays = {
            "prefill_embeds": to_numpy(keywords["inputs_embeds"]),
            "attention_mask": to_numpy(keywords["attention_mask"]),
            "trailing_text_hidden": to_numpy(keywords["trailing_text_hidden"]),
            "tts_pad_embed": to_numpy(keywords["tts_pad_embed"].reshape(-1)),
            "logits": np.stack([to_numpy(step) for step in result.logits], axis=1),
            "scores": np.stack([to_numpy(step) for step in result.scores], axis=1),
            "code0": to_numpy(result.sequences),
            "codes": to_numpy(codes),
            "past_hidden": np.concatenate([to_numpy(step[0][-1][:, -1:]) for step in result.hidden_states], axis=1),
        }
        gaps = []
        for index, frame in enumerate(frames):
            logits = np.stack([to_numpy(step) for step in frame["result"].logits], axis=1)
            gaps.append(smallest_gap(logits))
            if index < 3:
                arrays[f"sub{index}.inputs"] = to_numpy(frame["inputs"])
                arrays[f"sub{index}.logits"] = logits
                arrays[f"sub{index}.codes"] = to_numpy(frame["result"].sequences)
        arrays["sub_gap"] = np.array([min(gaps, default=np.inf)])
        return arrays

    def _entry(self, arrays: Arrays, keywords: dict[str, Any]) -> dict[str, Any]:
        scores = np.where(np.isfinite(arrays["scores"]), arrays["scores"], -1e9)
        stop = self.model.config.talker_config.codec_eos_token_id
        gap = smallest_gap(scores) if not keywords["do_sample"] else np.inf
        return {
            "generate_kwargs": keywords, "steps": arrays["code0"].shape[1],
            "eos": bool((arrays["code0"] == stop).any()),
            "min_top2_gap": min(gap, float(arrays.pop("sub_gap")[0])),
            "samples": [len(arrays[name]) for name in sorted(arrays) if name.startswith("wav.")],
        }  # fmt: skip

    def tokens(self, text: str) -> list[int]:
        """Tokenize one string as the reference does."""
        return self.wrapper._tokenize_texts([text])[0][0].tolist()

    def speaker(self, samples: np.ndarray) -> Arrays:
        """Run the speaker encoder on samples [S] at 24 kHz and keep every stage."""
        encoder = self.model.speaker_encoder
        kept: Arrays = {}
        taps = {f"block.{index}": block for index, block in enumerate(encoder.blocks)}
        taps |= {"block.1.res2net": encoder.blocks[1].res2net_block, "block.1.se": encoder.blocks[1].se_block,
                 "mfa": encoder.mfa, "asp": encoder.asp}  # fmt: skip
        handle = encoder.register_forward_pre_hook(
            lambda module, arguments: kept.update(mel=to_numpy(arguments[0][0].T))
        )
        with recorded(taps, lambda name, value: kept.__setitem__(name, to_numpy(value[0]))):
            kept["embedding"] = to_numpy(self.model.extract_speaker_embedding(samples, SAMPLE_RATE))
        handle.remove()
        kept["audio"] = samples
        return kept


class Codec:
    """The codec of the reference with recorders around its stages."""

    def __init__(self, directory: Path) -> None:
        self.wrapper = import_reference().Qwen3TTSTokenizer.from_pretrained(str(directory), dtype=torch.float32)
        self.model = self.wrapper.model.eval()

    def encode(self, samples: np.ndarray, *, stages: bool) -> tuple[Arrays, float]:
        """Encode samples [S] at 24 kHz; return arrays and the smallest relative margin of a nearest-entry choice."""
        encoder = self.model.encoder
        kept: Arrays = {}
        taps: dict[str, torch.nn.Module] = {"downsample": encoder.downsample}
        if stages:
            for index, layer in enumerate(encoder.encoder.layers):
                if not isinstance(layer, torch.nn.ELU):
                    taps[f"seanet.{index}"] = layer
            layers = encoder.encoder_transformer.layers
            taps |= {f"transformer.layer.{index}": layer for index, layer in enumerate(layers)}
        with recorded(taps, lambda name, value: kept.__setitem__(name, to_numpy(value[0]))):
            kept["codes"] = to_numpy(self.wrapper.encode(samples, sr=SAMPLE_RATE).audio_codes[0])
        with torch.no_grad():
            every = encoder.encode(torch.from_numpy(samples)[None, None], return_dict=True).audio_codes[0]
        kept["codes_all"] = to_numpy(every)
        return kept, self._margin(kept["downsample"], kept["codes_all"])

    def _margin(self, latent: np.ndarray, codes: np.ndarray) -> float:
        used = self.model.config.encoder_valid_num_quantizers
        quantizer = self.model.encoder.quantizer
        smallest = np.inf
        chains = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
        for chain, first, last in ((chains[0], 0, 1), (chains[1], 1, used)):
            weight = to_numpy(chain.input_proj.weight)[..., 0].astype(np.float64)
            residual = latent.astype(np.float64).T @ weight.T
            for index, layer in zip(range(first, last), chain.layers, strict=False):
                book = layer.codebook
                usage = np.maximum(to_numpy(book.cluster_usage).astype(np.float64), 1e-5)
                entries = to_numpy(book.embed_sum).astype(np.float64) / usage[:, None]
                distances = np.linalg.norm(residual[:, None] - entries[None], axis=-1)
                ordered = np.sort(distances, axis=-1)
                smallest = min(smallest, float(((ordered[:, 1] - ordered[:, 0]) / ordered[:, 0]).min()))
                residual = residual - entries[codes[index]]
        return smallest

    def decode(self, codes: np.ndarray, *, stages: bool) -> Arrays:
        """Decode codes [F, K] in one go, keeping every stage when asked."""
        decoder = self.model.decoder
        kept: Arrays = {}
        taps: dict[str, torch.nn.Module] = {}
        if stages:
            taps = {"quantizer.first": decoder.quantizer.rvq_first, "quantizer.rest": decoder.quantizer.rvq_rest,
                    "pre_conv": decoder.pre_conv, "pre_transformer": decoder.pre_transformer}  # fmt: skip
            layers = decoder.pre_transformer.layers
            taps |= {f"pre_transformer.layer.{index}": layer for index, layer in enumerate(layers)}
            for index, blocks in enumerate(decoder.upsample):
                taps |= {f"upsample.{index}.{part}": block for part, block in enumerate(blocks)}
            taps |= {f"decoder.{index}": block for index, block in enumerate(decoder.decoder)}
            taps |= {f"decoder.1.block.{index}": decoder.decoder[1].block[index] for index in (1, 2)}

        def keep(name: str, value: Any) -> None:
            value = getattr(value, "last_hidden_state", value)
            kept[name] = to_numpy(value[0])

        batch = torch.from_numpy(codes.T.copy())[None]
        originals = {}
        if stages:  # the two chains are called by their method decode, which forward hooks do not see
            for name in ("quantizer.first", "quantizer.rest"):
                chain = taps.pop(name)
                originals[name] = chain
                chain.decode = _keeping(chain.decode, name, keep)
        try:
            with recorded(taps, keep), torch.no_grad():
                kept["wav"] = to_numpy(decoder(batch)).reshape(-1)
        finally:
            for chain in originals.values():
                del chain.decode
        return kept

    def decode_chunked(self, codes: np.ndarray, chunk: int, context: int) -> np.ndarray:
        """Decode codes [F, K] as the public call decodes long speech, with other sizes."""
        with torch.no_grad():
            samples = self.model.decoder.chunked_decode(torch.from_numpy(codes.T.copy())[None], chunk, context)
        return to_numpy(samples).reshape(-1)


def _keeping(function: Any, name: str, keep: Any) -> Any:
    def call(*arguments: Any, **keywords: Any) -> Any:
        value = function(*arguments, **keywords)
        keep(name, value)
        return value

    return call
