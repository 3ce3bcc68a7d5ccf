"""Stage: Code2Wav, in the released graph, becomes the vocoder of the codec's codes.

    python -m tools.train_tiny.vocoder OUT [--steps N] [--start WEIGHTS] [--dry-run]

Distances of spectra first, then discriminators too. Needs what the codec stage left in OUT; writes OUT/code2wav.pt
(released names, bfloat16). A run that was cut goes on from OUT/code2wav-run.pt.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeCode2WavConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeCode2Wav

from tools.train_tiny import runs, shape
from tools.train_tiny.codec import FRAME, Codec
from tools.train_tiny.judges import Discriminators, discriminator_loss, generator_losses, spectral_distance

SEED = 25
COLD = 2
"""Frames at the start of a window that are not judged: the convolutions begin with silence."""
SHOWN_EVERY = 25
"""Steps between two lines about the losses."""


def build(section: dict[str, Any], codec: Codec) -> Qwen3OmniMoeCode2Wav:
    """Return a fresh Code2Wav whose code embeddings start as the principal axes of what the codes stand for."""
    model = Qwen3OmniMoeCode2Wav(Qwen3OmniMoeCode2WavConfig(**section))
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
            module.reset_parameters()
        for name in ("gamma", "scale"):  # of a residual branch; the reference starts them next to 0
            if isinstance(getattr(module, name, None), nn.Parameter):
                nn.init.constant_(getattr(module, name), 0.1)
    first = codec.tables[0].cpu()
    axes = torch.linalg.svd(first - first.mean(0), full_matrices=False)[2][: model.config.hidden_size]
    rows = codec.tables.flatten(0, 1).cpu() @ axes.T
    model.code_embedding.weight.data[:, : rows.shape[1]] = rows / rows[: len(first)].std() * len(codec.tables)
    return model


def decode_windows(model: Qwen3OmniMoeCode2Wav, codes: Tensor, starts: Tensor, frames: int) -> Tensor:
    """Return the samples [B, 960 * frames - 555] of windows of codes [B, 4, C] that begin at frame `starts` [B]."""
    hidden = model.code_embedding(codes + model.code_offset).mean(1)
    hidden = model.pre_transformer(inputs_embeds=hidden).last_hidden_state
    index = (starts[:, None] + torch.arange(frames, device=codes.device))[..., None].expand(-1, -1, hidden.shape[-1])
    wave = hidden.gather(1, index).transpose(1, 2)
    for stage in model.upsample:
        for block in stage:
            wave = block(wave)
    for block in model.decoder:
        wave = block(wave)
    return wave[:, 0]


@dataclass
class Windows:
    """Random windows of speech that lies on the device: samples [960 F] and codes [F, 4], clips end to end.

    The transformer sees `context` frames, `frames` of them become samples.
    """

    samples: Tensor
    codes: Tensor
    context: int
    frames: int

    def draw(self, count: int, chance: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes [B, 4, context], where the windows start [B], and their samples [B, 960 * frames]."""
        device = self.codes.device
        first = torch.randint(0, len(self.codes) - self.context, (count,), generator=chance)
        starts = torch.randint(0, self.context - self.frames + 1, (count,), generator=chance)
        seen = (first[:, None] + torch.arange(self.context)).to(device)
        wanted = (first + starts)[:, None] * FRAME + torch.arange(FRAME * self.frames)
        return self.codes[seen].transpose(1, 2), starts.to(device), self.samples[wanted.to(device)]


class Trainer:
    """The vocoder, its average over the steps, and its judges; `parts` are what a run keeps of them."""

    def __init__(self, model: Qwen3OmniMoeCode2Wav, device: torch.device) -> None:
        self.model = model.to(device)
        self.judges = Discriminators().to(device)
        fused = device.type == "cuda"
        self.own = torch.optim.AdamW(self.model.parameters(), betas=(0.8, 0.99), weight_decay=1e-3, fused=fused)
        self.theirs = torch.optim.AdamW(self.judges.parameters(), betas=(0.8, 0.99), fused=fused)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.998))
        self.parts = {"judges": self.judges, "own": self.own, "theirs": self.theirs, "average": self.average}
        self.parts |= {"model": self.model}

    def step(self, codes: Tensor, starts: Tensor, true: Tensor, rate: float, judged: bool) -> dict[str, Tensor]:
        """Take one step and return the losses."""
        for optimiser, scale in ((self.own, 1.0), (self.theirs, 0.5)):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
        made = decode_windows(self.model, codes, starts, true.shape[1] // FRAME)
        true = true[:, COLD * FRAME : made.shape[1]]
        made = made[:, COLD * FRAME :]
        distance = spectral_distance(made, true)
        found = {"distance": distance}
        loss = distance
        if judged:
            verdict = discriminator_loss(self.judges(true), self.judges(made.detach()))
            self.theirs.zero_grad(set_to_none=True)
            verdict.backward()
            self.theirs.step()
            with torch.no_grad():
                features = self.judges(true)
            fooled, apart = generator_losses(features, self.judges(made))
            loss = 3 * distance + fooled + 2 * apart
            found |= {"verdict": verdict, "fooled": fooled, "apart": apart}
        self.own.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0 if judged else 1.0)
        self.own.step()
        self.average.update_parameters(self.model)
        return found


def train(arguments: argparse.Namespace) -> None:
    """Run the stage."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    dry = arguments.dry_run
    codec = Codec.load(arguments.out / "codec.npz", device)
    with np.load(arguments.out / "voice.npz") as data:
        samples = torch.from_numpy(data["samples"]).to(device).float() / 32768
        codes = torch.from_numpy(data["codes"]).to(device).long()
    windows = Windows(samples, codes, *((8, 4) if dry else (88, 32)))
    model = build(shape.config()["code2wav_config"], codec)
    if arguments.start:
        runs.load_weights(model, "code2wav.", arguments.start)
    trainer = Trainer(model, device)
    run = runs.Run(arguments.out / "code2wav-run.pt", trainer.parts, arguments)
    first, steps = run.resume(), min(50, arguments.steps) if dry else arguments.steps
    print(f"vocoder: {sum(value.numel() for value in trainer.model.parameters()):,} parameters, from step {first}")
    began = time.monotonic()
    for step in range(first, steps):
        chance = torch.Generator().manual_seed(runs.seed_step(SEED, step))
        judged = step > arguments.judges_from * steps
        rate = runs.rate_at(step, steps, arguments.rate)
        found = trainer.step(*windows.draw(1 if dry else arguments.batch, chance), rate, judged)
        if (step + 1) % SHOWN_EVERY == 0:
            losses = ", ".join(f"{name} {value.item():.4f}" for name, value in found.items())
            print(f"vocoder step {step + 1}, {time.monotonic() - began:.0f} s: {losses}", flush=True)
        if (step + 1) % runs.SAVED_EVERY == 0 or step + 1 == steps:
            run.save(step + 1)
    runs.write_weights(trainer.average.module, "code2wav.", arguments.out / "code2wav.pt")


def main() -> None:
    """Read the command line and run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--start", type=Path, help="begin with these weights: a file, or a model's directory")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--judges-from", type=float, default=0.4, help="share of the steps before discriminators help")
    parser.add_argument("--dry-run", action="store_true", help="50 steps on little data, on a CPU")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
