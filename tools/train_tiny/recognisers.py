"""Stage: two recognisers that judge what the tiny model says. They share nothing with it, nor with each other.

    python -m tools.train_tiny.recognisers OUT [--steps N] [--dry-run]

Word-level CTC over the words of the grammar, 25 steps a second. One is convolutional, one attends; each hears voices,
texts and damage of its own, most texts being words in no order, so that nothing is guessed. Writes
OUT/recognisers.npz in float16, which tests/recognisers.py runs in NumPy.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_rt.io.mel import mel_filterbank
from tools.train_tiny import examples, grammar, speech
from tools.train_tiny.augment import RATE, augment, mask_mel
from tools.train_tiny.batches import WORDS, Store

ROLES = {"first": "first recogniser", "second": "second recogniser"}
SEEDS = {"first": 101, "second": 202}
CLIPS, BATCH = 40_000, 192
WIDTH = 96


class Convolutional(nn.Module):
    """Two strided convolutions, then five blocks: depthwise convolution, LayerNorm, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(128, 64, 5, 2, 2)
        self.second = nn.Conv1d(64, WIDTH, 5, 2, 2)
        self.depthwise = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 9, padding=4, groups=WIDTH) for _ in range(5))
        self.norm = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.wide = nn.ModuleList(nn.Linear(WIDTH, 192) for _ in range(5))
        self.narrow = nn.ModuleList(nn.Linear(192, WIDTH) for _ in range(5))
        self.last = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(WORDS) + 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Return logits [B, F / 4, W] of log-mels [B, 128, F]."""
        x = F.gelu(self.second(F.gelu(self.first(mel))))
        for depthwise, norm, wide, narrow in zip(self.depthwise, self.norm, self.wide, self.narrow, strict=True):
            x = x + narrow(F.gelu(wide(norm(depthwise(x).transpose(1, 2))))).transpose(1, 2)
        return self.head(self.last(x.transpose(1, 2)))


class Attentive(nn.Module):
    """Four frames side by side, a depthwise convolution for the places, then three layers of attention."""

    HEADS = 4

    def __init__(self) -> None:
        super().__init__()
        self.join = nn.Linear(4 * 64, WIDTH)
        self.places = nn.Conv1d(WIDTH, WIDTH, 15, padding=7, groups=WIDTH)
        self.norm = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.mix = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(3))
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.near = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH) for _ in range(3))
        self.norm2 = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.wide = nn.ModuleList(nn.Linear(WIDTH, 256) for _ in range(3))
        self.narrow = nn.ModuleList(nn.Linear(256, WIDTH) for _ in range(3))
        self.last = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(WORDS) + 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Return logits [B, F / 4, W] of log-mels [B, 128, F]."""
        pairs = mel.unflatten(1, (64, 2)).mean(2)
        x = self.join(pairs.transpose(1, 2).unflatten(1, (-1, 4)).flatten(2))
        x = x + self.places(x.transpose(1, 2)).transpose(1, 2)
        for i in range(3):
            q, k, v = self.mix[i](self.norm[i](x)).unflatten(-1, (3, self.HEADS, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.out[i](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + F.gelu(self.near[i](x.transpose(1, 2))).transpose(1, 2)
            x = x + self.narrow[i](F.gelu(self.wide[i](self.norm2[i](x))))
        return self.head(self.last(x))


KINDS: dict[str, type[nn.Module]] = {"first": Convolutional, "second": Attentive}


def coded(waves: Tensor, lengths: Tensor, rounds: int = 6) -> Tensor:
    """Return waves [B, N] as a coarse codec would: blurred to mel bands, shaken, with phases found by Griffin-Lim."""
    size, hop = 512, 128
    device = waves.device
    window = torch.hann_window(size, device=device)
    filters = torch.from_numpy(mel_filterbank(size // 2 + 1, 64, 0.0, 8000.0, RATE).copy()).float().to(device)
    filters = filters / filters.sum(0)
    back = filters.T / filters.sum(1).clamp(min=1e-3)[None]
    power = torch.stft(waves, size, hop, window=window, return_complex=True).abs().square()
    bands = (power.transpose(1, 2) @ filters).clamp(min=1e-8).log()
    bands = bands + torch.randn_like(bands) * (0.5 * torch.rand(len(waves), 1, 1, device=device))
    size_of = (bands.exp() @ back).clamp(min=0).sqrt().transpose(1, 2)
    sound = torch.polar(size_of, 6.2832 * torch.rand_like(size_of))
    for _ in range(rounds):
        again = torch.stft(
            torch.istft(sound, size, hop, window=window, length=waves.shape[1]), size, hop, window=window,
            return_complex=True,
        )  # fmt: skip
        sound = torch.polar(size_of, again.angle())
    made = torch.istft(sound, size, hop, window=window, length=waves.shape[1])
    return made * (torch.arange(waves.shape[1], device=device) < lengths[:, None])


def texts(count: int, chance: random.Random) -> list[str]:
    """Draw what a recogniser hears: mostly words in no order."""
    return [
        grammar.random_words(chance, 1, 9) if chance.random() < 0.6 else grammar.spoken_text(chance)
        for _ in range(count)
    ]


def clips_of(role: str, count: int, seed: int) -> examples.Corpus:
    """Make a corpus of clips and texts without examples."""
    chance = random.Random(f"{seed} {role}")
    corpus = examples.Corpus(texts=texts(count, chance))
    voices = sorted((speech.draw_voice(role, chance) for _ in range(count)), key=lambda voice: voice.name)
    corpus.clips = [examples.padded(clip, chance) for clip in speech.speak_all(corpus.texts, voices)]
    return corpus


def heard(logits: Tensor, steps: Tensor) -> list[list[str]]:
    """Return the words of each row of logits [B, T, W], of which `steps` [B] are real."""
    names = dict(zip(WORDS.values(), WORDS, strict=True))
    found = []
    for row, count in zip(logits.argmax(-1).tolist(), steps.tolist(), strict=True):
        kept = row[:count]
        found.append(
            [names[label] for label, before in zip(kept, [0, *kept], strict=False) if label not in (0, before)]
        )
    return found


def errors(said: list[str], wanted: list[str]) -> int:
    """Return the substitutions, insertions and deletions between two lists of words."""
    row = list(range(len(wanted) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(wanted, 1):
            before, row[j] = row[j], min(before + (word != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@torch.no_grad()
def word_errors(model: nn.Module, store: Store, damage: str = "") -> tuple[int, int]:
    """Return how many words are heard wrongly, of how many."""
    model.eval()
    wrong = total = 0
    for start in range(0, len(store.corpus.clips), 100):
        chosen = np.arange(start, min(start + 100, len(store.corpus.clips)))
        waves, lengths = store.waves(chosen)
        mel, frames = store.mel(coded(waves, lengths) if damage else waves, lengths)
        for index, words in zip(chosen, heard(model(mel).float(), (frames + 3) // 4), strict=True):
            wanted = grammar.words_of(store.corpus.texts[index])
            wrong, total = wrong + errors(words, wanted), total + len(wanted)
    model.train()
    return wrong, total


def train_one(name: str, arguments: argparse.Namespace, tests: dict[str, Store], device: torch.device) -> nn.Module:
    """Train one recogniser."""
    torch.manual_seed(SEEDS[name])
    store = Store(clips_of(ROLES[name], 48 if arguments.dry_run else CLIPS, SEEDS[name]), device, 64)
    model = KINDS[name]().to(device)
    print(name, f"{sum(value.numel() for value in model.parameters()):,} parameters", flush=True)
    steps = 50 if arguments.dry_run else arguments.steps
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.08)
    batches = store.clip_batches(8 if arguments.dry_run else BATCH, np.random.default_rng(SEEDS[name]))
    began = time.monotonic()
    for step in range(steps):
        chosen = next(batches)
        waves, lengths = store.waves(chosen)
        if step % 5 < 2:
            waves = coded(waves, lengths, rounds=step % 8)
        mel, frames = store.mel(augment(waves, lengths, strength=0.6), lengths)
        odds = model(mask_mel(mel, frames)).float().log_softmax(-1).transpose(0, 1)
        own = torch.from_numpy(chosen).to(device)
        loss = F.ctc_loss(odds, store.labels[own], (frames + 3) // 4, store.label_counts[own], zero_infinity=True)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % (25 if arguments.dry_run else 500) == 0:
            print(step + 1, f"{loss.item():.4f} {1000 * (time.monotonic() - began) / (step + 1):.1f} ms", flush=True)
    for test, clips in tests.items():
        for damage in ("", "coded"):
            wrong, total = word_errors(model, clips, damage)
            print(name, test, damage, f"{wrong}/{total} words wrong, {100 * wrong / total:.2f} %", flush=True)
    return model


def main() -> None:
    """Train both and write their weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--dry-run", action="store_true", help="50 steps on little data, on a CPU")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    count = 8 if arguments.dry_run else 400
    tests = {role: Store(clips_of(role, count, 7), device, 64) for role in ("held-out", "target")}
    weights = {}
    for name in KINDS:
        model = train_one(name, arguments, tests, device)
        weights |= {f"{name}.{key}": value.half().cpu().numpy() for key, value in model.state_dict().items()}
        np.savez(arguments.out / "recognisers.npz", words=np.array(["", *WORDS]), **weights)


if __name__ == "__main__":
    main()
