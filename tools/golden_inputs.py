"""Seeded inputs of the golden scenarios: sounds, pictures, films, prompts, and their encoding for the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SAMPLE_RATE = 16000
PATCH, MERGE = 16, 2

CLIP_SAMPLES = {
    "tenth_second": 1600,
    "one_chunk": 16000,
    "one_sample_more": 16001,
    "one_frame_more": 16160,
    "window_edge": 32000,
    "window_edge_more": 32160,
    "seventy_seconds": 1120000,
}
"""Clip lengths in samples: each clip is the start of the scenario's sound, repeated for as long as needed."""


@dataclass(frozen=True)
class Scenario:
    """One conversation: its messages and how far the reference is to answer."""

    messages: tuple[dict[str, Any], ...]
    new_tokens: int
    new_frames: int
    whole: bool = False  # keep every stage; otherwise only what distinguishes this scenario
    audio_in_video: bool = False
    short_audio: bool = False
    penalty: float = 1.05
    look_ahead: int = 0  # steps that the talker makes beyond new_frames, not kept, and must not stop in

    @property
    def media(self) -> set[str]:
        """Name the media that the messages hold, and the sound of a film."""
        found = {part["type"] for message in self.messages if isinstance(message["content"], list)
                 for part in message["content"]}  # fmt: skip
        return (found | {"audio"} if self.audio_in_video else found) - {"text"}


def _ask(*parts: str) -> dict[str, Any]:
    """Build a user message of media ("@audio") and text."""
    content = [
        {"type": part[1:], part[1:]: part} if part[:1] == "@" else {"type": "text", "text": part} for part in parts
    ]
    return {"role": "user", "content": content}


SYSTEM = {"role": "system", "content": "hello system"}
SCENARIOS: dict[str, Scenario] = {
    "text": Scenario((SYSTEM, _ask("hello, what is the sum?")), 12, 10, whole=True, look_ahead=8),
    "text_rp2": Scenario((SYSTEM, _ask("hello, what is the sum?")), 12, 10, penalty=2.0),
    "audio": Scenario((_ask("@audio", "what is on"),), 10, 8, whole=True),
    "turns": Scenario(
        (SYSTEM, _ask("what is on?"), {"role": "assistant", "content": "hello"}, _ask("on the sum?")), 8, 8
    ),
    "empty": Scenario((_ask(""),), 6, 5),
    "image": Scenario((_ask("@image", "what is it"),), 8, 6, whole=True),
    "video": Scenario((_ask("@video", "what is it"),), 6, 5),
    "mixed": Scenario((_ask("@image", "@audio", "what?"),), 6, 5, short_audio=True),
    "av": Scenario((_ask("@video", "what?"),), 6, 5, short_audio=True, audio_in_video=True),
}


def sound(generator: np.random.Generator, seconds: float) -> np.ndarray:
    """Draw a sound [samples] f32 at 16 kHz: gliding tones under a syllable-like envelope, with some noise."""
    count = int(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    wave = 0.02 * generator.standard_normal(count)
    for _ in range(4):
        start, end, level = generator.uniform(120, 900), generator.uniform(200, 3500), generator.uniform(0.05, 0.2)
        phase = 2 * np.pi * (start * time + (end - start) * time**2 / (2 * seconds))
        wave += level * np.sin(phase) * np.clip(np.sin(2 * np.pi * generator.uniform(1.5, 4) * time), 0, 1)
    # Whole 16-bit steps, so that the WAV file and the array hold the same sound.
    return (np.round(np.clip(wave, -0.98, 0.98) * 32768) / 32768).astype(np.float32)


def picture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a picture [height, width, 3] uint8: soft gradients with a hard-edged block and fine grain."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [
        127 + 90 * np.sin(generator.uniform(0.02, 0.12) * rows + generator.uniform(0.02, 0.12) * columns + phase)
        for phase in generator.uniform(0, 6, 3)
    ]
    image = np.stack(planes, axis=-1) + generator.normal(0, 12, (height, width, 3))
    image[height // 4 : height // 2, width // 3 : width // 2] = generator.integers(0, 256, 3)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def patches(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut frames [F, H, W, 3] uint8, H and W multiples of 32, into patches [P, 1536] f32 and a grid [1, 3].

    This is the reference's video layout for frames that need no resizing; its own processor needs torchvision.
    """
    if len(frames) % 2:
        frames = np.concatenate([frames, frames[-1:]])
    count, height, width = len(frames) // 2, frames.shape[1] // PATCH, frames.shape[2] // PATCH
    # Mean and standard deviation 0.5 on values scaled by 1/255, folded into one step as the reference folds them.
    pixels = (frames.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    split = pixels.reshape(count, 2, height // MERGE, MERGE, PATCH, width // MERGE, MERGE, PATCH, 3)
    order = split.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)  # t, block row, block column, row, column, rgb, frame, y, x
    return order.reshape(count * height * width, -1), np.array([[count, height, width]], np.int64)


@dataclass
class Media:
    """The sounds and pictures of one seed."""

    wave: np.ndarray
    short_wave: np.ndarray
    image: np.ndarray
    video: np.ndarray
    frames_per_second: float = 4.0

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Media:
        """Draw all media of a seed."""
        film = np.stack([picture(generator, 64, 32) for _ in range(3)])
        return cls(sound(generator, 2.023), sound(generator, 0.61), picture(generator, 50, 70), film)


class Encoder:
    """Turns messages into the reference's inputs with the reference's own tokenizer, front end and processor."""

    def __init__(self, checkpoint: Path, media: Media) -> None:
        import transformers
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.media = media
        self.tokenizer = transformers.Qwen2Tokenizer.from_pretrained(checkpoint)
        self.front_end = transformers.WhisperFeatureExtractor.from_pretrained(checkpoint)
        self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(checkpoint)

    def mel(self, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the log-mel [1, M, F] f32 and its mask [1, F] of one clip."""
        features = self.front_end(
            [wave], sampling_rate=SAMPLE_RATE, padding=True, truncation=False, return_attention_mask=True,
            return_tensors="np",
        )  # fmt: skip
        return features["input_features"], features["attention_mask"]

    def image(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the picture's patches [P, 1536] f32 and grid [1, 3].

        It is resized by the kernel that the released processor calls. Pillow's moves levels, and with them every logit
        by more than the margins of choices.
        """
        import torch
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        limits = self.image_processor.size
        size = smart_resize(*self.media.image.shape[:2], PATCH * MERGE, limits["shortest_edge"], limits["longest_edge"])
        planes = torch.from_numpy(self.media.image).permute(2, 0, 1)[None].contiguous()
        sized = torch.nn.functional.interpolate(planes, size=size, mode="bicubic", antialias=True)
        encoded = self.image_processor(images=[sized[0].permute(1, 2, 0).numpy()], return_tensors="np")
        return encoded["pixel_values"], np.asarray(encoded["image_grid_thw"])

    def prompt(self, messages: tuple[dict[str, Any], ...]) -> str:
        """Render messages in the chat format, with one placeholder per medium."""
        text = ""
        marks = {
            "audio": "<|audio_start|><|audio_pad|><|audio_end|>",
            "image": "<|vision_start|><|image_pad|><|vision_end|>",
            "video": "<|vision_start|><|video_pad|><|vision_end|>",
        }
        for message in messages:
            content = message["content"]
            if not isinstance(content, str):
                content = "".join(marks.get(part["type"], part.get("text", "")) for part in content)
            text += f"<|im_start|>{message['role']}\n{content}<|im_end|>\n"
        return text + "<|im_start|>assistant\n"

    def encode(self, scenario: Scenario) -> tuple[str, dict[str, Any]]:
        """Render a scenario and build the reference's keyword arguments (torch tensors) for it."""
        import torch
        from transformers.models.qwen3_omni_moe import processing_qwen3_omni_moe as processing

        prompt = self.prompt(scenario.messages)
        expanded, inputs = prompt, {}
        audio_tokens = 0
        if "audio" in scenario.media:
            mel, mask = self.mel(self.media.short_wave if scenario.short_audio else self.media.wave)
            inputs["input_features"] = torch.from_numpy(mel)
            inputs["feature_attention_mask"] = torch.from_numpy(mask).long()
            audio_tokens = int(processing._get_feat_extract_output_lengths(mask.sum(-1))[0])
            expanded = expanded.replace("<|audio_pad|>", "<|audio_pad|>" * audio_tokens)
        if "image" in scenario.media:
            pixels, grid = self.image()
            inputs["pixel_values"] = torch.from_numpy(pixels)
            inputs["image_grid_thw"] = torch.from_numpy(grid)
            expanded = expanded.replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // MERGE**2))
        if "video" in scenario.media:
            pixels, grid = patches(self.media.video)
            seconds = 2.0 / self.media.frames_per_second
            inputs["pixel_values_videos"] = torch.from_numpy(pixels)
            inputs["video_grid_thw"] = torch.from_numpy(grid)
            inputs["video_second_per_grid"] = torch.tensor([seconds])
            replacement = "<|video_pad|>" * (int(grid.prod()) // MERGE**2)
            if scenario.audio_in_video:
                # The reference's interleaving, without building its processor (which needs torchvision).
                owner = SimpleNamespace(
                    audio_bos_token="<|audio_start|>", audio_eos_token="<|audio_end|>", audio_token="<|audio_pad|>",
                    video_token="<|video_pad|>", video_processor=SimpleNamespace(merge_size=MERGE),
                )  # fmt: skip
                replacement = processing.Qwen3OmniMoeProcessor.replace_video_with_audio_token(
                    owner,
                    {"video_grid_thw": grid, "video_second_per_grid": [seconds]},
                    0,
                    {"num_audio_tokens": [audio_tokens]},
                    0,
                    position_id_per_seconds=13.0,
                )
            expanded = expanded.replace("<|video_pad|>", replacement)
        ids = self.tokenizer(expanded, return_tensors="pt").input_ids
        inputs["input_ids"] = ids
        inputs["attention_mask"] = torch.ones_like(ids)
        return prompt, inputs
