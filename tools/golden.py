"""Makes golden data: a tiny random Qwen3-Omni checkpoint and what the PyTorch reference computes on it, stage by stage.

    python tools/golden.py make --seed 1 --out tests/goldens/omni-seed1
    python tools/golden.py make --seed 7 --out tmp --scenarios text,audio,turns

Needs the extra `oracle` (torch and transformers). The reference runs in float32 on the CPU, every choice is greedy.
Weights are drawn again (attempt 1, 2, ...) until no choice of the run hangs on a near tie, so that identical token
ids and codes can be asked of another implementation; golden.json reports the attempt and the smallest margins.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from golden_checkpoint import Dimensions, special_token_ids, tokenizer_tables
from golden_files import write_checkpoint, write_json, write_safetensors
from golden_inputs import SCENARIOS, Encoder, Media, patches

SMALLEST_MARGIN = 5e-4
"""Least distance between the best and the second logit of every greedy choice."""
SMALLEST_ROUTER_GAP = 1.5e-4
"""Least distance between the last expert chosen and the first one left out, in router logits."""


class Degenerate(Exception):
    """This draw of the weights makes a poor golden; the message says why."""


def say(text: str) -> None:
    """Print progress at once."""
    print(text, file=sys.stderr, flush=True)


def load_reference(checkpoint: Path, media: Media) -> Any:
    """Load `checkpoint` into the PyTorch reference (float32, eager attention) and wrap it with recorders."""
    import torch
    import transformers
    from golden_stages import Reference

    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    model, report = transformers.Qwen3OmniMoeForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            raise SystemExit(f"{checkpoint}: the reference reports {kind}: {sorted(report[kind])[:5]}")
    return Reference(model.eval(), Encoder(checkpoint, media))


THINKER_BRIEF = ("input_ids", "position_ids", "rope_delta", "video_second_per_grid", "hidden0", "greedy_ids",
                 "greedy_logits", "greedy_margin")  # fmt: skip
SPEECH_BRIEF = ("thinker_sequence", "inputs_embeds", "talker_input_ids", "position_ids", "trailing_text_hidden",
                "step_position", "step_hidden", "codec0", "codes")  # fmt: skip
RP2_ONLY = ("codec0", "codes")
"""What a scenario keeps that is not kept whole: `logits` of the prompt's end are `greedy_logits[0]`."""


def kept_stages(name: str, stages: dict[str, np.ndarray], brief: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Choose the stages of scenario `name` that go into the file."""
    if name == "text_rp2":
        brief = RP2_ONLY
    elif SCENARIOS[name].whole:
        return {key: value for key, value in stages.items() if key != "wav" or name == "audio"}
    return {key: value for key, value in stages.items() if key in brief}


def first_steps(speech: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Cut the arrays of a speech to its first `steps` talker steps; the last of them makes no frame."""
    cut = {key: speech[key][:steps] for key in ("step_hidden", "step_logits", "codec0")}
    cut |= {"step_embeds": speech["step_embeds"][: steps - 1], "step_position": speech["step_position"][:, :steps]}
    cut["codes"] = np.ascontiguousarray(speech["codes"][:, : steps - 1])
    return {key: value for key, value in speech.items() if key != "wav"} | cut


def scenario_stages(reference: Any, names: list[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Run the scenarios; return their arrays and the index entries, or raise `Degenerate`."""
    from golden_stages import smallest_gap

    arrays: dict[str, np.ndarray] = {}
    entries: dict[str, Any] = {}
    for name in names:
        scenario = SCENARIOS[name]
        prompt, inputs = reference.encoder.encode(scenario)
        entry: dict[str, Any] = {
            "messages": scenario.messages, "prompt": prompt, "max_new_tokens": scenario.new_tokens,
            "talker_max_new_tokens": scenario.new_frames, "talker_repetition_penalty": scenario.penalty,
            "use_audio_in_video": scenario.audio_in_video, "speaker": "ethan",
        }  # fmt: skip
        if "_" not in name:  # a variant of the speech only shares its thinker with the scenario before the underscore
            thinker = reference.thinker(inputs, scenario)
            ids = thinker["greedy_ids"].tolist()
            margin = float(thinker["greedy_margin"].min())
            gap = float(thinker.pop("gap_of_routers")[0])
            if margin < SMALLEST_MARGIN or gap < SMALLEST_ROUTER_GAP:
                raise Degenerate(f"{name}: thinker margin {margin:.1e}, router gap {gap:.1e}")
            if len(ids) < 3 or len(set(ids)) < len(ids) // 2:
                raise Degenerate(f"{name}: the reply {ids} is short or repeats itself")
            entry |= {"token_ids": ids, "text": reference.encoder.tokenizer.decode(ids, skip_special_tokens=True),
                      "thinker_margin": margin, "thinker_router_gap": gap}  # fmt: skip
            brief = (*THINKER_BRIEF, f"hidden{reference.config.talker_config.accept_hidden_layer}")
            arrays |= {f"thinker.{name}.{key}": value for key, value in kept_stages(name, thinker, brief).items()}
        if name != "video":
            speech = reference.speech(inputs, scenario)
            penalised = speech.pop("scores")
            allowed = np.isfinite(penalised)
            margin = smallest_gap(np.where(allowed, penalised, -1e9))
            books = float(speech["cp_margin_min"][0])
            gap = float(speech.pop("router_gap")[0])
            if min(margin, books) < SMALLEST_MARGIN or gap < SMALLEST_ROUTER_GAP:
                raise Degenerate(f"{name}: talker margin {margin:.1e}, codes {books:.1e}, router gap {gap:.1e}")
            if speech["codes"].shape[1] < (3 if scenario.whole else 2) or len(np.unique(speech["codes"])) < 8:
                raise Degenerate(f"{name}: {speech['codes'].shape[1]} frames, or codes that repeat themselves")
            if name == "text_rp2" and np.array_equal(speech["codec0"], arrays["speech.text.codec0"]):
                raise Degenerate(f"{name}: the penalty changes no code")
            stopped = int(speech["codec0"][-1]) == reference.config.talker_config.codec_eos_token_id
            if scenario.look_ahead:
                if stopped:
                    raise Degenerate(f"{name}: the talker stops after {speech['codes'].shape[1]} frames")
                speech = first_steps(speech, scenario.new_frames)
            entry |= {"frames": speech["codes"].shape[1], "stopped": stopped,
                      "talker_margin": margin, "code_predictor_margin": books, "talker_router_gap": gap}  # fmt: skip
            arrays |= {f"speech.{name}.{key}": value for key, value in kept_stages(name, speech, SPEECH_BRIEF).items()}
        entries[name] = entry
        say(f"  {name}: {entry.get('text', '')!r}, {entry.get('frames', 0)} frames")
    replies = [tuple(entry["token_ids"]) for entry in entries.values() if "token_ids" in entry]
    if len(set(replies)) < len(replies):
        raise Degenerate("two scenarios have the same reply")
    if len(names) == len(SCENARIOS) and not any(entry.get("stopped") for entry in entries.values()):
        raise Degenerate("no talker stops by itself")
    return arrays, entries


LAYOUT_INPUTS = {
    "image_grid": "image_grid_thw",
    "video_grid": "video_grid_thw",
    "audio_mel_lens": "audio_seqlens",
    "second_per_grid": "video_second_per_grid",
}


def position_layouts(reference: Any) -> dict[str, np.ndarray]:
    """Compute the reference's positions of five layouts that need no model run."""
    import torch

    config = reference.config.thinker_config
    image, video, audio = [config.image_token_id], [config.video_token_id], [config.audio_token_id]
    vision_start, vision_end = [config.vision_start_token_id], [config.vision_end_token_id]
    audio_start, audio_end = [config.audio_start_token_id], [config.audio_end_token_id]

    def picture(grid: tuple[int, int, int], token: list[int]) -> list[int]:
        return vision_start + token * (grid[0] * grid[1] * grid[2] // 4) + vision_end

    def clip(frames: int) -> list[int]:
        tokens = 13 * (frames // 100) + -(-(frames % 100) // 8)
        return audio_start + audio * tokens + audio_end

    text = [10, 11, 12, 13]
    film, step = (3, 4, 6), 6
    woven = video * step + audio * 13 + video * step + audio * 13 + video * step + audio * 13
    layouts: dict[str, dict[str, Any]] = {
        "img_then_audio": {"ids": text + picture((1, 4, 6), image) + clip(137) + text[:3],
                           "image_grid": [(1, 4, 6)], "audio_mel_lens": [137]},
        "audio_img_audio": {"ids": text + clip(250) + picture((1, 6, 4), image) + clip(60) + text,
                            "image_grid": [(1, 6, 4)], "audio_mel_lens": [250, 60]},
        "two_images_video": {"ids": text + picture((1, 4, 4), image) + picture((1, 8, 2), image) + text[:1]
                             + picture((2, 4, 4), video) + text,
                             "image_grid": [(1, 4, 4), (1, 8, 2)], "video_grid": [(2, 4, 4)], "second_per_grid": [1.0]},
        "video_frac": {"ids": text + picture(film, video) + text, "video_grid": [film], "second_per_grid": [2 / 3]},
        "audio_in_video": {"ids": text + vision_start + audio_start + woven + audio_end + vision_end + text + text[:1],
                           "video_grid": [film], "second_per_grid": [1.0], "audio_mel_lens": [300]},
    }  # fmt: skip
    kept: dict[str, np.ndarray] = {}
    for name, layout in layouts.items():
        ids = torch.tensor([layout["ids"]])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for key, target in LAYOUT_INPUTS.items():
            if key in layout:
                inputs[target] = torch.tensor(layout[key])
                kept[f"{name}.{key}"] = inputs[target].numpy()
        result = reference.positions(inputs, name == "audio_in_video")
        kept[f"{name}.input_ids"] = ids[0].numpy()
        kept[f"{name}.position_ids"] = result["position_ids"][:, 0]
        kept[f"{name}.rope_delta"] = result["rope_delta"][0]
    return kept


def make(seed: int, out: Path, names: list[str]) -> None:
    """Write one golden directory."""
    started = time.monotonic()
    dims = Dimensions()
    media = Media.draw(np.random.default_rng([seed, 0]))
    for attempt in range(1, 100):
        parameters = write_checkpoint(out / "checkpoint", dims, np.random.default_rng([seed, attempt]))
        reference = load_reference(out / "checkpoint", media)
        say(f"seed {seed}, attempt {attempt}: {parameters} parameters")
        try:
            arrays, entries = scenario_stages(reference, names)
        except Degenerate as reason:
            say(f"  drawn again, {reason}")
            continue
        except RuntimeError as reason:  # what the reference raises when a reply is nothing but a stop token
            say(f"  drawn again, the reference cannot speak this reply: {reason}")
            continue
        break
    else:
        raise SystemExit(f"seed {seed}: 99 draws of the weights gave no usable golden")

    say("audio encoder")
    for prefix, stages in (("audio", reference.audio(media.wave)), ("audio_short", reference.audio(media.short_wave)),
                           ("clips", reference.clips(media.wave))):  # fmt: skip
        arrays |= {f"{prefix}.{key}": value for key, value in stages.items()}
    say("vision encoder")
    image_pixels, image_grid = reference.encoder.image()
    video_pixels, video_grid = patches(media.video)
    for prefix, pixels, grid, rgb in (("image", image_pixels, image_grid, media.image),
                                      ("video", video_pixels, video_grid, media.video)):  # fmt: skip
        arrays |= {f"{prefix}.{key}": value for key, value in reference.vision(pixels, grid).items()}
        arrays[f"{prefix}.rgb"] = rgb
    say("positions and waveform")
    arrays |= {f"pos.{key}": value for key, value in position_layouts(reference).items()}
    codes = np.random.default_rng([seed, 1000])
    for prefix, frames in (("code2wav", 5), ("code2wav_long", 10)):
        drawn = codes.integers(0, dims.codebook_size, (dims.codebooks, frames))
        stages = reference.code2wav(drawn, stages=prefix == "code2wav")
        arrays |= {f"{prefix}.{key}": value for key, value in stages.items()}

    write_safetensors(out / "golden.safetensors", arrays)
    vocabulary, _ = tokenizer_tables()
    speech = [entry for entry in entries.values() if "frames" in entry]
    thinkers = [entry for entry in entries.values() if "token_ids" in entry]
    write_json(out / "golden.json", {
        "seed": seed, "attempt": attempt, "parameters": parameters, "versions": versions(),
        "smallest_margin": {
            "thinker": min(entry["thinker_margin"] for entry in thinkers),
            "talker": min(entry["talker_margin"] for entry in speech),
            "code_predictor": min(entry["code_predictor_margin"] for entry in speech),
            "thinker_router": min(entry["thinker_router_gap"] for entry in thinkers),
            "talker_router": min(entry["talker_router_gap"] for entry in speech),
        },
        "video": {"fps": media.frames_per_second, "second_per_grid": 2.0 / media.frames_per_second,
                  "resized": False},
        "special_tokens": special_token_ids(len(vocabulary)),
        "scenarios": entries,
    })  # fmt: skip
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"{out}: {len(arrays)} tensors, {size / 1e6:.2f} MB, {time.monotonic() - started:.0f} s")


def versions() -> dict[str, str]:
    """Name the versions the reference ran on."""
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("make", help="write a golden directory")
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--scenarios", default="all", help=f"comma separated, of {', '.join(SCENARIOS)}; or all")
    arguments = parser.parse_args()
    names = list(SCENARIOS) if arguments.scenarios == "all" else arguments.scenarios.split(",")
    unknown = sorted(set(names) - set(SCENARIOS))
    if unknown:
        parser.error(f"unknown scenarios {unknown}; known are {list(SCENARIOS)}")
    make(arguments.seed, arguments.out, names)


if __name__ == "__main__":
    main()
