"""Makes golden data of Qwen3-TTS: tiny random voice models, their codec, and what the PyTorch reference makes of them.

    python tools/golden_tts.py make --seed 1 --out tests/goldens/tts-seed1

Runs in the environment that tools/tts_reference.sh makes: qwen-tts 0.1.1 and the transformers that it pins, which is
why this is a program apart from golden.py. The reference runs in float32 on the CPU, every choice is greedy but in the
case `sampled_scores`.
Weights are drawn again until no greedy choice and no nearest codebook entry hangs on a near tie.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from golden_files import write_json, write_safetensors
from golden_inputs import sound
from golden_tts_checkpoint import VARIANTS, Variant, write_codec, write_voice

SMALLEST_MARGIN = 1e-3
"""Least distance between the best and the second score of a greedy choice."""
SMALLEST_CODE_MARGIN = 1e-4
"""Least relative distance between the nearest and the second nearest codebook entry."""
GREEDY = {"do_sample": False, "subtalker_dosample": False}
CUSTOM, DESIGN, CLONE = "generate_custom_voice", "generate_voice_design", "generate_voice_clone"
LONG, SHORT = "clone.long", "clone.short"

CASES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "tiny-1b7-customvoice": {
        "nonstream_instruct": (CUSTOM, {"text": "hello world and a voice.", "speaker": "Vivian", "language": "English",
                                        "instruct": "Very happy.", "max_new_tokens": 6}),
        "stream_dialect": (CUSTOM, {"text": "你好 world", "speaker": "eric", "language": "Auto",
                                    "non_streaming_mode": False, "max_new_tokens": 8}),
        "nonstream_dialect_chinese": (CUSTOM, {"text": "你好", "speaker": "dylan", "language": "Chinese",
                                               "max_new_tokens": 6}),
        "stream_long_text": (CUSTOM, {"text": "the voice and the world and the voice again, ok?", "speaker": "ryan",
                                      "language": "English", "non_streaming_mode": False, "max_new_tokens": 10,
                                      "repetition_penalty": 1.0}),
        "empty_text": (CUSTOM, {"text": "", "speaker": "serena", "language": "Auto", "non_streaming_mode": False,
                                "max_new_tokens": 5}),
        "sampled_scores": (CUSTOM, {"text": "hello world", "speaker": "ryan", "language": "English", "do_sample": True,
                                    "temperature": 0.9, "top_k": 20, "top_p": 0.8, "max_new_tokens": 4}),
    },
    "tiny-0b6-customvoice": {
        "nonstream_instruct_dropped": (CUSTOM, {"text": "hello the world", "speaker": "aiden", "language": "Auto",
                                                "instruct": "Very happy.", "max_new_tokens": 6}),
        "stream": (CUSTOM, {"text": "hello world and", "speaker": "sohee", "language": "Japanese",
                            "non_streaming_mode": False, "max_new_tokens": 10}),
    },
    "tiny-1b7-voicedesign": {
        "instruct": (DESIGN, {"text": "hello world.", "instruct": "a deep voice, ok", "language": "Auto",
                              "max_new_tokens": 7}),
        "no_instruct_stream": (DESIGN, {"text": "hello world.", "instruct": "", "language": "German",
                                        "non_streaming_mode": False, "max_new_tokens": 7}),
    },
    "tiny-0b6-base": {
        "xvec_stream": (CLONE, {"text": "hello world and", "language": "English", "ref_audio": LONG,
                                "x_vector_only_mode": True, "max_new_tokens": 6}),
        "xvec_nonstream": (CLONE, {"text": "hello world and", "language": "Auto", "ref_audio": SHORT,
                                   "x_vector_only_mode": True, "non_streaming_mode": True, "max_new_tokens": 6}),
        "icl_stream_text_longer": (CLONE, {"text": "hello world and the voice", "language": "French",
                                           "ref_audio": SHORT, "ref_text": "the voice", "max_new_tokens": 7}),
        "icl_stream_codes_longer": (CLONE, {"text": "ok", "language": "Auto", "ref_audio": LONG, "ref_text": "hi",
                                            "max_new_tokens": 6}),
        "icl_nonstream": (CLONE, {"text": "hello world", "language": "Korean", "ref_audio": SHORT,
                                  "ref_text": "the voice", "non_streaming_mode": True, "max_new_tokens": 6}),
    },
    "tiny-1b7-base": {
        "xvec_stream": (CLONE, {"text": "a voice and the world", "language": "Chinese", "ref_audio": SHORT,
                                "x_vector_only_mode": True, "max_new_tokens": 6}),
        "icl_stream_text_longer": (CLONE, {"text": "ok, hello world and a voice", "language": "Auto",
                                           "ref_audio": SHORT, "ref_text": "a voice", "max_new_tokens": 6}),
        "icl_nonstream": (CLONE, {"text": "the world", "language": "Spanish", "ref_audio": LONG,
                                  "ref_text": "hello world", "non_streaming_mode": True, "max_new_tokens": 5}),
    },
}  # fmt: skip

WHOLE = {"nonstream_instruct", "stream", "instruct", "xvec_stream"}
"""Cases that keep layers and logits; the others keep what distinguishes them."""
SCORES = WHOLE | {"sampled_scores", "icl_nonstream"}
WAVES = {"nonstream_instruct", "icl_stream_text_longer"}
BRIEF = ("prefill.", "sub1", "sub2")
CLONE_SAMPLES = {LONG: 12481, SHORT: 5000}
SPEAKER_SAMPLES = {"a": 7000, "b": 2001}
CHUNK, CHUNK_CONTEXT = 3, 1
"""Frames of a chunk and before it; fewer than the transformer sees, so that the chunks show."""
CLIP_SAMPLES = {"a": 12481, "b": 11520, "c": 1000, "d": 11521, "e": 10560}


class Degenerate(Exception):
    """This draw of the weights makes a poor golden; the message says why."""


def say(text: str) -> None:
    """Print progress at once."""
    print(text, file=sys.stderr, flush=True)


def make_codec(seed: int, out: Path) -> np.ndarray:
    """Write speech_tokenizer/ and codec_golden.*; return the sound they share, [samples] f32 at 24 kHz."""
    from golden_tts_stages import Codec

    samples = np.resize(sound(np.random.default_rng([seed, 2000]), 1.5), max(CLIP_SAMPLES.values()))
    for attempt in range(1, 100):
        write_codec(out / "speech_tokenizer", np.random.default_rng([seed, attempt, 0]))
        codec = Codec(out / "speech_tokenizer")
        arrays: dict[str, np.ndarray] = {"audio": samples}
        index: dict[str, Any] = {"seed": seed, "attempt": attempt}
        margins = [codec.encode(samples[: CLONE_SAMPLES[SHORT]], stages=False)[1]]  # the long one is clip a
        for name, count in CLIP_SAMPLES.items():
            stages, margin = codec.encode(samples[:count], stages=name in "bc")
            dropped = "seanet" if name == "b" else "nothing"
            arrays |= {f"encode.{name}.{key}": value for key, value in stages.items() if not key.startswith(dropped)}
            index[f"encode.{name}"] = {"samples": count, "frames": len(stages["codes"]), "min_relative_margin": margin}
            margins.append(margin)
        if min(margins) < SMALLEST_CODE_MARGIN or len(np.unique(arrays["encode.a.codes"])) < 8:
            say(f"codec, attempt {attempt}: drawn again, relative margin {min(margins):.1e}")
            continue
        break
    else:
        raise SystemExit(f"seed {seed}: 99 draws gave no usable codec")
    size = codec.model.config.decoder_config.codebook_size
    codes = np.random.default_rng([seed, 2001]).integers(0, size, (8, 16))
    arrays["decode.codes"] = codes
    arrays["decode.full.wav"] = codec.decode(codes, stages=False)["wav"]
    arrays["decode.chunked.wav"] = codec.decode_chunked(codes, CHUNK, CHUNK_CONTEXT)
    index["decode.chunked"] = {"chunk": CHUNK, "context": CHUNK_CONTEXT}
    short = codec.decode(codes[:3], stages=True)
    late = ("decoder.4", "decoder.5", "decoder.6")  # large, and within wav
    arrays |= {f"decode.short.{key}": value for key, value in short.items() if key not in late}
    index["decode.rms"] = float(np.sqrt(np.mean(arrays["decode.full.wav"].astype(np.float64) ** 2)))
    index["decode.clipped_fraction"] = float((np.abs(arrays["decode.full.wav"]) >= 1).mean())
    write_safetensors(out / "codec_golden.safetensors", arrays)
    write_json(out / "codec_golden.json", index)
    say(f"codec: attempt {attempt}, smallest relative margin {min(margins):.1e}, rms {index['decode.rms']:.2f}")
    return samples


def run_variant(directory: Path, variant: Variant, samples: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Run a variant's cases on an assembled directory; return arrays and index, or raise `Degenerate`."""
    import torch
    from golden_tts_stages import SAMPLE_RATE, Voice, load_voice

    voice = Voice(load_voice(directory))
    arrays: dict[str, np.ndarray] = {}
    index: dict[str, Any] = {}
    for name, (call, given) in CASES[variant.name].items():
        arguments = GREEDY | given
        source = arguments.get("ref_audio")
        if source:
            arguments["ref_audio"] = (samples[: CLONE_SAMPLES[source]], SAMPLE_RATE)
        torch.manual_seed(0)  # only sampled_scores draws
        stages, entry = voice.case(call, arguments, layers=name in WHOLE)
        frames = int((stages["code0"][0] != voice.model.config.talker_config.codec_eos_token_id).sum())
        if entry["min_top2_gap"] < SMALLEST_MARGIN:
            raise Degenerate(f"{name}: margin {entry['min_top2_gap']:.1e}")
        if frames < 3 or len(np.unique(stages["codes"])) < 8:
            raise Degenerate(f"{name}: {frames} frames, or codes that repeat themselves")
        for key, value in stages.items():
            kept = name in WHOLE or not key.startswith(BRIEF)
            if key == "scores" or key == "logits":
                kept = name in SCORES
            elif key.startswith("wav."):
                kept = name in WAVES
            if kept:
                arrays[f"{name}.{key}"] = value
        strings = {"input_ids": f"<|im_start|>assistant\n{given['text']}<|im_end|>\n<|im_start|>assistant\n"}
        if given.get("instruct"):
            strings["instruct_ids"] = f"<|im_start|>user\n{given['instruct']}<|im_end|>\n"
        if given.get("ref_text"):
            strings["ref_ids"] = f"<|im_start|>assistant\n{given['ref_text']}<|im_end|>\n"
        index[name] = {"call": call, **given, **{key: voice.tokens(text) for key, text in strings.items()}, **entry}
        say(f"  {name}: {entry['steps']} steps{', stopped' if entry['eos'] else ''}")
    if variant.kind == "base":
        for name, count in SPEAKER_SAMPLES.items():
            arrays |= {f"speaker.{name}.{key}": value for key, value in voice.speaker(samples[:count]).items()}
        for name, count in CLONE_SAMPLES.items():
            item = voice.wrapper.create_voice_clone_prompt((samples[:count], SAMPLE_RATE), "ok")[0]
            arrays[f"{name}.ref_code"] = item.ref_code.numpy()
            arrays[f"{name}.ref_spk_embedding"] = item.ref_spk_embedding.numpy()
        arrays["clone.audio"] = samples
        index["clone"] = {"long_samples": CLONE_SAMPLES[LONG], "short_samples": CLONE_SAMPLES[SHORT]}
    elif not any(entry["eos"] for entry in index.values()) and len(CASES[variant.name]) > 3:
        raise Degenerate("no case stops by itself")
    return arrays, index


def make_variant(seed: int, number: int, out: Path, samples: np.ndarray) -> None:
    """Write one voice model and its golden."""
    variant = VARIANTS[number]
    target = out / variant.name
    for attempt in range(1, 100):
        write_voice(target, variant, np.random.default_rng([seed, attempt, 1 + number]))
        say(f"{variant.name}, attempt {attempt}")
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / variant.name
            shutil.copytree(target, directory)
            shutil.copytree(out / "speech_tokenizer", directory / "speech_tokenizer")
            try:
                arrays, index = run_variant(directory, variant, samples)
            except Degenerate as reason:
                say(f"  drawn again, {reason}")
                continue
            except RuntimeError as reason:  # what the reference raises when the first token already stops
                say(f"  drawn again, the reference cannot decode this: {reason}")
                continue
        packages = {name: version(name) for name in ("torch", "transformers", "qwen-tts")}
        head = {"size": variant.size, "kind": variant.kind, "seed": seed, "attempt": attempt, "packages": packages}
        write_json(target / "golden.json", {"variant": head, **index})
        write_safetensors(target / "golden.safetensors", arrays)
        return
    raise SystemExit(f"seed {seed}: 99 draws gave no usable {variant.name}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("make", help="write a golden directory")
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    started = time.monotonic()

    import torch
    import transformers

    torch.set_grad_enabled(False)
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    samples = make_codec(arguments.seed, arguments.out)
    for number in range(len(VARIANTS)):
        make_variant(arguments.seed, number, arguments.out, samples)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    say(f"{arguments.out}: {size / 1e6:.2f} MB, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
