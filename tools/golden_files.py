"""Writes a tiny Qwen3-Omni checkpoint directory: the files, and the formats, of the released one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from golden_checkpoint import (
    CHAT_TEMPLATE,
    MERGED_WORDS,
    Dimensions,
    configuration,
    special_token_ids,
    tokenizer_tables,
)
from golden_tensors import bfloat16_bits, random_tensor, tensor_shapes

SAFETENSORS_NAMES = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "uint8": "U8"}


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], *, bfloat16: bool = False) -> None:
    """Write `tensors` as one safetensors file; `bfloat16` stores f32 arrays as BF16, which must be exact.

    Raises:
        ValueError: a value does not survive the rounding.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        kind = SAFETENSORS_NAMES[array.dtype.name]
        blob = array.tobytes()
        if bfloat16 and kind == "F32":
            bits = bfloat16_bits(array)
            if not np.array_equal((bits.astype(np.uint32) << 16).view(np.float32), array):
                raise ValueError(f"{name} holds values that bfloat16 cannot")
            kind, blob = "BF16", bits.tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(blobs))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON in UTF-8."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(directory: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Write vocab.json, merges.txt, tokenizer_config.json and chat_template.json."""
    directory.joinpath("vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    directory.joinpath("merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    added = {
        str(index): {
            "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": token not in ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>",
                                     "</think>"),
        }
        for token, index in special_token_ids(len(vocabulary)).items()
    }  # fmt: skip
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
        "audio_token": "<|audio_pad|>",
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "image_token": "<|image_pad|>",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen3OmniMoeProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    write_json(directory / "tokenizer_config.json", config)
    write_json(directory / "chat_template.json", {"chat_template": CHAT_TEMPLATE})


def preprocessor_configuration() -> dict[str, Any]:
    """Write preprocessor_config.json with the released values."""
    return {
        "chunk_length": 300, "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128,
        "hop_length": 160, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.5, 0.5, 0.5], "max_pixels": 12845056, "merge_size": 2, "min_pixels": 3136, "n_fft": 400,
        "n_samples": 4800000, "nb_max_frames": 30000, "padding_side": "right", "padding_value": 0.0,
        "patch_size": 16, "processor_class": "Qwen3OmniMoeProcessor", "return_attention_mask": True,
        "sampling_rate": 16000, "temporal_patch_size": 2,
    }  # fmt: skip


def generation_configuration() -> dict[str, Any]:
    """Write generation_config.json: the talker and text defaults of the released model."""
    return {
        "talker_do_sample": True, "talker_max_new_tokens": 4096, "talker_repetition_penalty": 1.05,
        "talker_temperature": 0.9, "talker_top_k": 50, "talker_top_p": 1.0, "thinker_max_new_tokens": 1024,
        "transformers_version": "4.57.0.dev0",
    }  # fmt: skip


def write_checkpoint(
    directory: Path, dims: Dimensions, generator: np.random.Generator, *, words: tuple[str, ...] = MERGED_WORDS
) -> int:
    """Write a whole checkpoint directory with random weights and return the number of parameters."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = tokenizer_tables(words)
    config = configuration(dims, vocabulary)
    write_json(directory / "config.json", config)
    write_json(directory / "preprocessor_config.json", preprocessor_configuration())
    write_json(directory / "generation_config.json", generation_configuration())
    write_tokenizer(directory, vocabulary, merges)
    tensors = {name: random_tensor(name, shape, generator) for name, shape in tensor_shapes(config)}
    write_safetensors(directory / "model.safetensors", tensors, bfloat16=True)
    return sum(array.size for array in tensors.values())
