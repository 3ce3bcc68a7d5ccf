"""Adds conversations full of pictures and films to golden data: what the PyTorch reference makes of them.

    python tools/golden_media.py --golden tests/goldens/omni-seed1 --seed 1

Writes media.safetensors beside golden.safetensors, for the checkpoint that lies there. Several images in a message,
images and films of earlier turns, two films with sound, and an image after a film with sound. Media, and words that end
the question, are drawn again until no choice of the run hangs on a near tie and there is something to speak. Needs the
extra `oracle` (torch and transformers).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from golden import SMALLEST_MARGIN, SMALLEST_ROUTER_GAP, load_reference
from golden_files import write_safetensors
from golden_inputs import MERGE, SAMPLE_RATE, Media, Scenario, patches, picture, sound
from golden_stages import smallest_gap

FRAMES_PER_SECOND = 4.0
PADS = {"audio": "<|audio_pad|>", "image": "<|image_pad|>", "video": "<|video_pad|>"}

CONVERSATIONS: dict[str, tuple[tuple[dict[str, Any], ...], bool]] = {
    "album": (
        (
            {"role": "user", "content": ["image 64 96", "image 128 32", "what is it"]},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": ["image 96 64", "audio 0.61", "what?"]},
        ),
        False,
    ),
    "reel": (
        (
            {"role": "user", "content": ["video 5 64 64", "image 64 64", "what is it"]},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": ["on?"]},
        ),
        False,
    ),
    "two_films": (({"role": "user", "content": ["video 4 64 32 0.5", "video 7 32 64 1.37", "what?"]},), True),
    "film_then_image": (({"role": "user", "content": ["video 4 32 64 0.9", "image 64 64", "what?"]},), True),
}
"""Messages, media by kind, extents and seconds; and whether films are heard."""
WORDS = ("hello", " the", " is", "what", " on", " a", " plus", "?")
"""What a question may end in: some weights stop at once after one and the same question, whatever they see and hear."""


@dataclass
class Conversation:
    """A conversation with its media drawn: the prompt as text, and what the reference takes beside it."""

    prompt: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    images: list[np.ndarray] = field(default_factory=list)
    films: list[np.ndarray] = field(default_factory=list)
    sounds: list[np.ndarray] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    def add(self, part: str, generator: np.random.Generator) -> dict[str, Any]:
        """Draw one part, append its tokens to the prompt, and return it as a message refers to it."""
        kind, *extents = part.split(" ")
        if kind not in PADS:
            self.prompt += part
            return {"type": "text", "text": part}
        name = f"{kind}{sum(key.startswith(kind) for key in self.arrays)}"
        reference: dict[str, Any] = {"type": kind, kind: name}
        self.kinds.add(kind)
        if kind == "image":
            self.images.append(picture(generator, int(extents[0]), int(extents[1])))
            self.arrays[name] = self.images[-1]
        elif kind == "audio":
            self.sounds.append(sound(generator, float(extents[0])))
            self.arrays[name] = self.sounds[-1]
        else:
            count, height, width = (int(extent) for extent in extents[:3])
            self.films.append(np.stack([picture(generator, height, width) for _ in range(count)]))
            self.arrays[name] = self.films[-1]
            if len(extents) > 3:
                self.sounds.append(sound(generator, float(extents[3])))
                reference["sound"] = f"track{len(self.films)}"
                self.arrays[reference["sound"]] = self.sounds[-1]
        mark = ("audio", "audio") if kind == "audio" else ("vision", kind)
        self.prompt += f"<|{mark[0]}_start|><|{mark[1]}_pad|><|{mark[0]}_end|>"
        return reference


def draw(messages: tuple[dict[str, Any], ...], generator: np.random.Generator, words: int) -> Conversation:
    """Draw the media of a conversation, and so many words that end its last question."""
    conversation = Conversation()
    for message in messages:
        conversation.prompt += f"<|im_start|>{message['role']}\n"
        content = message["content"]
        if isinstance(content, str):
            conversation.prompt += content
        else:
            content = [conversation.add(part, generator) for part in content]
            if words and message is messages[-1]:
                content.append(conversation.add("".join(generator.choice(WORDS, words)), generator))
        conversation.prompt += "<|im_end|>\n"
        conversation.messages.append({"role": message["role"], "content": content})
    conversation.prompt += "<|im_start|>assistant\n"
    return conversation


def encode(conversation: Conversation, encoder: Any, heard: bool) -> dict[str, Any]:
    """Return the reference's keyword arguments for a conversation."""
    import torch
    from transformers.models.qwen3_omni_moe import processing_qwen3_omni_moe as processing

    inputs: dict[str, Any] = {}
    counts: dict[str, list[str]] = {kind: [] for kind in PADS}
    audio_tokens: list[int] = []
    if conversation.sounds:
        features = encoder.front_end(
            conversation.sounds, sampling_rate=SAMPLE_RATE, padding=True, truncation=False, return_attention_mask=True,
            return_tensors="np",
        )  # fmt: skip
        mask = features["attention_mask"]
        inputs["input_features"] = torch.from_numpy(features["input_features"])
        inputs["feature_attention_mask"] = torch.from_numpy(mask).long()
        audio_tokens = [int(count) for count in processing._get_feat_extract_output_lengths(mask.sum(-1))]
        if not heard:
            counts["audio"] = [PADS["audio"] * count for count in audio_tokens]
    if conversation.images:
        encoded = encoder.image_processor(
            images=conversation.images, return_tensors="np", input_data_format="channels_last"
        )
        grids = np.asarray(encoded["image_grid_thw"])
        inputs["pixel_values"] = torch.from_numpy(encoded["pixel_values"])
        inputs["image_grid_thw"] = torch.from_numpy(grids)
        counts["image"] = [PADS["image"] * (int(grid.prod()) // MERGE**2) for grid in grids]
    if conversation.films:
        cut = [patches(frames) for frames in conversation.films]
        grids = np.concatenate([grid for _, grid in cut])
        seconds = [2.0 / FRAMES_PER_SECOND] * len(cut)
        inputs["pixel_values_videos"] = torch.from_numpy(np.concatenate([pixels for pixels, _ in cut]))
        inputs["video_grid_thw"] = torch.from_numpy(grids)
        inputs["video_second_per_grid"] = torch.tensor(seconds)
        owner = SimpleNamespace(
            audio_bos_token="<|audio_start|>", audio_eos_token="<|audio_end|>", audio_token=PADS["audio"],
            video_token=PADS["video"], video_processor=SimpleNamespace(merge_size=MERGE),
        )  # fmt: skip
        for index, grid in enumerate(grids):
            run = PADS["video"] * (int(grid.prod()) // MERGE**2)
            if heard:
                run = processing.Qwen3OmniMoeProcessor.replace_video_with_audio_token(
                    owner, {"video_grid_thw": grids, "video_second_per_grid": seconds}, index,
                    {"num_audio_tokens": audio_tokens}, index, position_id_per_seconds=13.0,
                )  # fmt: skip
            counts["video"].append(run)
    pieces = conversation.prompt
    for kind, runs in counts.items():
        head, *tails = pieces.split(PADS[kind])
        pieces = head + "".join(run.replace("pad|>", "PAD|>") + tail for run, tail in zip(runs, tails, strict=True))
    ids = encoder.tokenizer(pieces.replace("PAD|>", "pad|>"), return_tensors="pt").input_ids
    return inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def run(reference: Any, inputs: dict[str, Any], heard: bool) -> tuple[dict[str, np.ndarray], float]:
    """Let the reference answer; return what is kept, and its smallest margin over what is asked for (above 1: fine)."""
    scenario = Scenario((), 5, 4, audio_in_video=heard)
    thinker = reference.thinker(inputs, scenario)
    speech = reference.speech(inputs, scenario)
    scores = speech["scores"]
    margins = [
        float(thinker["greedy_margin"].min()) / SMALLEST_MARGIN,
        min(float(thinker["gap_of_routers"][0]), float(speech["router_gap"][0])) / SMALLEST_ROUTER_GAP,
        smallest_gap(np.where(np.isfinite(scores), scores, -1e9)) / SMALLEST_MARGIN,
        float(speech["cp_margin_min"][0]) / SMALLEST_MARGIN,
    ]
    accepted = reference.config.talker_config.accept_hidden_layer
    names = ("input_ids", "position_ids", "rope_delta", "hidden0", f"hidden{accepted}", "greedy_ids", "greedy_logits")
    kept = {f"thinker.{name}": thinker[name] for name in names}
    kept |= {f"speech.{name}": speech[name] for name in ("inputs_embeds", "position_ids", "codes", "wav")}
    return kept, min(margins)


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, help="a directory of tools/golden.py")
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    reference = load_reference(arguments.golden / "checkpoint", Media.draw(np.random.default_rng(0)))
    arrays: dict[str, np.ndarray] = {}
    index: dict[str, Any] = {"fps": FRAMES_PER_SECOND, "conversations": {}}
    for place, (name, (messages, heard)) in enumerate(CONVERSATIONS.items()):
        for attempt in range(100):
            generator = np.random.default_rng([arguments.seed, place, attempt])
            conversation = draw(messages, generator, 3 if attempt else 0)
            try:
                kept, margin = run(reference, encode(conversation, reference.encoder, heard), heard)
            except RuntimeError:  # what the reference raises when a reply is nothing but a stop token
                continue
            if margin >= 1 and kept["speech.codes"].shape[1] >= 2:
                break
        else:
            raise SystemExit(f"{name}: 100 draws of the media gave no answer without a near tie")
        index["conversations"][name] = {"messages": conversation.messages, "attempt": attempt}
        arrays |= {f"{name}.{key}": value for key, value in (conversation.arrays | kept).items()}
        print(f"{name}: attempt {attempt}, margin {margin:.1f}, {kept['thinker.input_ids'].shape[1]} tokens")
    arrays["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    write_safetensors(arguments.golden / "media.safetensors", arrays)
    print(f"{arguments.golden / 'media.safetensors'}: {(arguments.golden / 'media.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
