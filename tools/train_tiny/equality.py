"""Whether this runtime answers as PyTorch does: greedy replies of both, in text and in codes of speech.

    python -m tools.train_tiny.equality CHECKPOINT [--count N] [--frames F]

CHECKPOINT is a directory in released layout, as `export` writes it; PyTorch runs in float32. Prompts of every kind.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3OmniMoeForConditionalGeneration as Reference

import omni_rt
from omni_rt.models.qwen3_omni.inputs import layout_of
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.models.qwen3_omni.positions import prompt_positions
from omni_rt.prompt import Prompt
from tools.train_tiny import held_out
from tools.train_tiny.evaluate import message
from tools.train_tiny.spoken_gates import GREEDY

LIMIT = 40
"""Tokens of a reply at most."""


@torch.no_grad()
def reference_reply(
    model: Any, omni: OmniOrchestrator, prompt: Prompt, frames: int
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return PyTorch's greedy reply, its codes [K, F] of at most so many frames, and its logits after the prompt.

    A reply that is empty, as of a model that has learned little, has no frames: PyTorch cannot speak it.
    """
    processor, tokens = omni.processor, omni.config.tokens
    known = torch.tensor([prompt.token_ids])
    inputs: dict[str, Any] = {"input_ids": known, "attention_mask": torch.ones_like(known)}
    if prompt.audio:
        mel = torch.from_numpy(processor.mel(prompt.audio[0]).T[None].copy())
        inputs |= {"input_features": mel, "feature_attention_mask": torch.ones(1, mel.shape[2], dtype=torch.long)}
    if prompt.images:
        pixels, grid = processor.image(prompt.images[0])
        inputs |= {"pixel_values": torch.from_numpy(pixels), "image_grid_thw": torch.tensor([grid])}
    positions, _ = prompt_positions(prompt.token_ids, tokens, layout_of(prompt, processor))
    places = torch.from_numpy(positions[:, None])
    logits = model.thinker(**inputs, position_ids=places, use_cache=False).logits[0, -1].numpy()
    if logits.argmax() == tokens.im_end:
        return [tokens.im_end], np.zeros((omni.config.talker.codebooks, 0), np.int64), logits
    spoken: list[torch.Tensor] = []

    def keep(codes: torch.Tensor, **_: Any) -> torch.Tensor:
        spoken.append(codes)
        return torch.zeros(1, 1, 1)

    model.code2wav.chunked_decode = keep
    model.talker.rope_deltas = model.thinker.rope_deltas = model.thinker.model.rope_deltas = None
    sequence, _ = model.generate(
        **inputs, speaker=omni.voices()[0], thinker_do_sample=False, thinker_max_new_tokens=LIMIT,
        thinker_eos_token_id=tokens.im_end, talker_do_sample=False, talker_max_new_tokens=frames + 1,
        talker_repetition_penalty=1.0,
    )  # fmt: skip
    return sequence[0, known.shape[1] :].tolist(), spoken[0][0].numpy(), logits


def main() -> None:
    """Compare and print; exit with 1 when a reply differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--frames", type=int, default=300, help="frames of speech at most")
    arguments = parser.parse_args()
    each = -(-arguments.count // 5)
    items = [*held_out.transcripts(each), *held_out.commands(each), *held_out.questions(each), *held_out.written(each)]
    items = [*items, *held_out.seen(each)][: arguments.count]
    model = Reference.from_pretrained(arguments.checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    model.talker.code_predictor.generation_config.do_sample = False
    equal = alike = frames = 0
    worst = 0.0
    with omni_rt.load(arguments.checkpoint, device="cpu") as omni:
        assert isinstance(omni, OmniOrchestrator) and omni.talker is not None
        for item in items:
            prompt = omni.prompt([message(item)])
            wanted, codes, logits = reference_reply(model, omni, prompt, arguments.frames)
            worst = max(worst, float(np.abs(omni.thinker.forward(prompt).text_logits[-1] - logits).max()))
            got = omni.thinker.generate(prompt, LIMIT)
            said = codes
            if len(wanted) > 1:
                said = omni.talker.generate(prompt, wanted, max_frames=arguments.frames, sampling=GREEDY).codes
            same = codes.shape == said.shape and bool((codes == said).all())
            equal, alike, frames = equal + (got == wanted), alike + same, frames + codes.shape[1]
            if got != wanted:
                print(f"{item.kind}: PyTorch writes {wanted}, this runtime {got}", flush=True)
            if not same:
                print(f"{item.kind}: PyTorch speaks {codes.T.tolist()}, this runtime {said.T.tolist()}", flush=True)
    print(f"{equal}/{len(items)} greedy replies equal, {alike}/{len(items)} in speech ({frames} frames); logits after "
          f"the prompt differ by {worst:.2e} at most")  # fmt: skip
    sys.exit(min(equal, alike) != len(items))


if __name__ == "__main__":
    main()
