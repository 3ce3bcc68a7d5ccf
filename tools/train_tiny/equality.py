"""Whether this runtime answers as PyTorch does: greedy replies of both to prompts of every kind.

    python -m tools.train_tiny.equality CHECKPOINT [--count N]

CHECKPOINT is a directory in released layout, as `export` writes it. PyTorch runs in float32 and adds one token after
the other without a cache.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3OmniMoeThinkerForConditionalGeneration as Reference

import omni_rt
from omni_rt.models.qwen3_omni.inputs import layout_of
from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
from omni_rt.models.qwen3_omni.positions import prompt_positions
from omni_rt.prompt import Prompt
from tools.train_tiny import held_out
from tools.train_tiny.evaluate import message

LIMIT = 40
"""Tokens of a reply at most."""


@torch.no_grad()
def reference_reply(
    model: Any, omni: OmniOrchestrator, prompt: Prompt, limit: int = 40
) -> tuple[list[int], np.ndarray]:
    """Return the greedy reply of PyTorch and its logits after the prompt."""
    processor, tokens = omni.processor, omni.config.tokens
    inputs: dict[str, Any] = {}
    if prompt.audio:
        mel = torch.from_numpy(processor.mel(prompt.audio[0]).T[None].copy())
        inputs |= {"input_features": mel, "feature_attention_mask": torch.ones(1, mel.shape[2], dtype=torch.long)}
    if prompt.images:
        pixels, grid = processor.image(prompt.images[0])
        inputs |= {"pixel_values": torch.from_numpy(pixels), "image_grid_thw": torch.tensor([grid])}
    ids, reply, first = list(prompt.token_ids), [], None
    positions, delta = prompt_positions(ids, tokens, layout_of(prompt, processor))
    while len(reply) < LIMIT and (not reply or reply[-1] != tokens.im_end):
        known = torch.tensor([ids])
        rest = len(prompt.token_ids) + delta + np.arange(len(reply), dtype=np.float32)
        places = np.concatenate([positions, np.tile(rest, (3, 1))], axis=1)
        logits = model(
            input_ids=known, attention_mask=torch.ones_like(known), position_ids=torch.from_numpy(places[:, None]),
            use_cache=False, **inputs,
        ).logits[0, -1]  # fmt: skip
        first = logits.numpy() if first is None else first
        reply.append(int(logits.argmax()))
        ids.append(reply[-1])
    assert first is not None
    return [token for token in reply if token != tokens.im_end], first


def main() -> None:
    """Compare and print; exit with 1 when a reply differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=50)
    arguments = parser.parse_args()
    each = -(-arguments.count // 5)
    items = [*held_out.transcripts(each), *held_out.commands(each), *held_out.questions(each), *held_out.written(each)]
    items = [*items, *held_out.seen(each)][: arguments.count]
    model = Reference.from_pretrained(arguments.checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    equal, worst = 0, 0.0
    with omni_rt.load(arguments.checkpoint, device="cpu") as omni:
        assert isinstance(omni, OmniOrchestrator)
        for item in items:
            prompt = omni.prompt([message(item)])
            wanted, logits = reference_reply(model, omni, prompt)
            got = omni.generate(prompt, max_new_tokens=LIMIT)
            worst = max(worst, float(np.abs(omni.thinker.forward(prompt).text_logits[-1] - logits).max()))
            equal += got.token_ids == wanted
            if got.token_ids != wanted:
                print(f"{item.kind}: PyTorch {wanted}, here {got.token_ids}")
    print(f"{equal}/{len(items)} greedy replies equal; logits after the prompt differ by {worst:.2e} at most")
    sys.exit(equal != len(items))


if __name__ == "__main__":
    main()
