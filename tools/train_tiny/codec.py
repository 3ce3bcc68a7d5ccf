"""Stage: the codec of the speaking voice: log-mel frames of 40 ms, quantised by residual k-means.

    python -m tools.train_tiny.codec OUT [--dry-run]

    samples 24 kHz -> log-mel [4 F, 80], 100 a second -> [F, 320] -> 4 codebooks x 256 -> codes [F, 4]

Nothing here is learned by gradient. Code2Wav is trained as the vocoder of these codes, and as each code stands for
log-mels, Griffin-Lim is a second one. Writes OUT/codec.npz, unless it is there, and OUT/voice.npz: hours of the voice
with its codes.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from omni_rt.io.mel import mel_filterbank
from omni_rt.models.qwen3_omni.griffin_lim import FILE
from tools.train_tiny import grammar, speech

SEED = 24
SAMPLE_RATE = 24_000
WINDOW, HOP, MELS = 1024, 240, 80
FLOOR = 1e-3
"""Smallest mel magnitude that is told from silence."""
COLUMNS = 4
"""Mel frames in one frame of codes."""
FRAME = COLUMNS * HOP
"""Samples in one frame of codes: 25 frames a second."""
CODEBOOKS, ENTRIES = 4, 256
LEAD, TAIL = 1, 3
"""Frames of silence before and, at least, after what is spoken: the vocoder needs half a frame to come out."""


@cache
def _filters(device: torch.device) -> Tensor:
    bank = mel_filterbank(WINDOW // 2 + 1, MELS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE)
    return torch.tensor(bank, dtype=torch.float32, device=device)


def log_mel(samples: Tensor) -> Tensor:
    """Return natural-log mel magnitudes [..., S // 240, 80] of samples [..., S]; frame m is centred on 240 m + 120."""
    before = (WINDOW - HOP) // 2
    padded = torch.nn.functional.pad(samples, (before, WINDOW - HOP - before))
    window = torch.hann_window(WINDOW, device=samples.device)
    spectrum = torch.stft(padded, WINDOW, HOP, window=window, center=False, return_complex=True).abs()
    return torch.log(torch.clamp(spectrum.transpose(-1, -2) @ _filters(samples.device), min=FLOOR))


def with_silence(clip: np.ndarray) -> np.ndarray:
    """Return a clip [S] between silences, as long as whole frames are."""
    frames = LEAD + -(-len(clip) // FRAME) + TAIL
    return np.pad(clip, (LEAD * FRAME, (frames - LEAD) * FRAME - len(clip)))


@dataclass(frozen=True)
class Codec:
    """The quantiser: `mean` [320] and the entries `tables` [4, 256, 320] that are added to it."""

    mean: Tensor
    tables: Tensor

    def encode(self, samples: Tensor) -> Tensor:
        """Return the codes [F, 4] of samples [960 F]."""
        rest, codes = frames_of(samples) - self.mean, []
        for table in self.tables:
            codes.append(nearest(rest, table))
            rest = rest - table[codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the log-mels [..., F, 320] that codes [..., F, 4] stand for."""
        return self.mean + sum(table[codes[..., book]] for book, table in enumerate(self.tables))

    def encode_all(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        """Return the codes uint8 [F, 4] of clips int16, silence added."""
        whole = [with_silence(clip) for clip in clips]
        samples = torch.from_numpy(np.concatenate(whole)).to(self.mean.device).float() / 32768
        codes = self.encode(samples).to(torch.uint8).cpu().numpy()
        return np.split(codes, np.cumsum([len(clip) // FRAME for clip in whole])[:-1])

    def write_tables(self, path: Path) -> None:
        """Write the file that the runtime's Griffin-Lim vocoder reads, in float16."""
        tensors = {name: getattr(self, name).cpu().numpy().astype(np.float16) for name in ("mean", "tables")}
        save_file(tensors, path, {"window": str(WINDOW), "hop": str(HOP), "mels": str(MELS)})

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Codec:
        """Read what this stage wrote, or the tables in a model's directory, which are rounded to float16."""
        data = load_file(path / FILE) if path.is_dir() else np.load(path)
        mean, tables = (torch.tensor(data[name].astype(np.float32), device=device) for name in ("mean", "tables"))
        return cls(mean, tables)


def tokens_at(pieces: list[str], words: list[tuple[int, float]], seconds: float, frames: int) -> np.ndarray:
    """Return for each frame [F] of a clip between silences which token it speaks; after the last, their number.

    `pieces` are the texts of the tokens, `words` where words begin, (character, second). The synthesiser joins short
    words, so tokens between two known ones share the time between them; punctuation takes none.
    """
    ends = np.cumsum([len(piece) for piece in pieces])
    known: dict[int, float] = {}
    for place, second in words:
        known.setdefault(min(int(np.searchsorted(ends, place, side="right")), len(pieces) - 1), second)
    voiced = [index for index, piece in enumerate(pieces) if any(map(str.isalnum, piece))] or [0]
    known.setdefault(voiced[0], 0.0)
    fixed = sorted(known)
    speaking = [*voiced, len(pieces)]
    starts = np.interp(speaking, [*fixed, len(pieces)], [*(known[index] for index in fixed), seconds])
    starts = np.maximum.accumulate(starts)
    middles = (np.arange(frames) - LEAD + 0.5) * FRAME / SAMPLE_RATE
    order = np.searchsorted(starts, middles, side="right") - 1
    return np.array(speaking)[order.clip(min=0)].astype(np.uint8)


def frames_of(samples: Tensor) -> Tensor:
    """Return the log-mels [F, 320] of samples [960 F]."""
    return log_mel(samples).reshape(-1, COLUMNS * MELS)


def nearest(rows: Tensor, table: Tensor) -> Tensor:
    """Return for each row [N, D] the index of the closest entry of the table [C, D]."""
    pieces = [(table.square().sum(1) - 2 * piece @ table.T).argmin(1) for piece in rows.split(65536)]
    return torch.cat(pieces)


def fit(frames: Tensor, rounds: int) -> Codec:
    """Fit a quantiser to frames [N, 320]: one k-means after the other, each on what those before leave over."""
    generator = torch.Generator().manual_seed(SEED)
    mean = frames.mean(0)
    rest, tables = frames - mean, []
    for _ in range(CODEBOOKS):
        tables.append(_k_means(rest, generator, rounds))
        rest = rest - tables[-1][nearest(rest, tables[-1])]
    return Codec(mean, torch.stack(tables))


def _k_means(rows: Tensor, generator: torch.Generator, rounds: int) -> Tensor:
    """Return 256 centres [256, D] of rows; a centre that attracts next to nothing moves to a row far from all."""
    table = rows[torch.randperm(len(rows), generator=generator)[:ENTRIES].to(rows.device)]
    for round_ in range(rounds):
        chosen = nearest(rows, table)
        counts = torch.bincount(chosen, minlength=ENTRIES)
        means = torch.zeros_like(table).index_add_(0, chosen, rows) / counts.clamp(min=1)[:, None]
        dead = torch.nonzero(counts < 3).flatten()
        if len(dead) and round_ < rounds - 1:
            far = (rows - table[chosen]).square().sum(1).topk(min(len(rows), 50 * len(dead))).indices
            means[dead] = rows[far[torch.randperm(len(far), generator=generator)[: len(dead)].to(far.device)]]
        table = means
    return table


def spoken_text(chance: random.Random) -> str:
    """Draw a text to speak: of the grammar, or words in no order, as it is typed or as a sentence is written."""
    if chance.random() < 0.5:
        return grammar.spoken_text(chance)
    text = grammar.random_words(chance, 1, 12)
    return grammar.sentence(text) if chance.random() < 0.3 else text


def main() -> None:
    """Read the command line and run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--dry-run", action="store_true", help="little data, on a CPU")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chance = random.Random(SEED)
    texts = [spoken_text(chance) for _ in range(40 if arguments.dry_run else arguments.clips)]
    clips = speech.speak_all(texts, [speech.TARGET] * len(texts), SAMPLE_RATE)
    samples = np.concatenate([with_silence(clip) for clip in clips])
    frames = frames_of(torch.from_numpy(samples).to(device).float() / 32768)
    path = arguments.out / "codec.npz"
    codec = Codec.load(path, device) if path.exists() else fit(frames, 3 if arguments.dry_run else 40)
    codes = codec.encode(torch.from_numpy(samples).to(device).float() / 32768)
    error = (codec.decode(codes) - frames).square().mean().sqrt().item()
    print(f"{len(samples) / SAMPLE_RATE / 3600:.2f} h of speech; log-mels are off by {error:.3f} of "
          f"{(frames - codec.mean).square().mean().sqrt().item():.3f}")  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.savez(path, mean=codec.mean.cpu().numpy(), tables=codec.tables.cpu().numpy())
    np.savez(arguments.out / "voice.npz", samples=samples, codes=codes.to(torch.uint8).cpu().numpy())


if __name__ == "__main__":
    main()
