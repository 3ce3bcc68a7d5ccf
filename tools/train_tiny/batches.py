"""A corpus on the GPU: everything lies there as integers, and a batch is a few gathers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omni_rt.models.qwen3_omni.vision_encoder import interpolated_positions, patch_coordinates
from tools.train_tiny import grammar
from tools.train_tiny.augment import RATE, LogMel, add_noise, augment, mask_mel, warp_mel
from tools.train_tiny.examples import Corpus
from tools.train_tiny.thinker import Batch

WORDS = {word: index + 1 for index, word in enumerate(grammar.words())}
"""The label of each word for a CTC loss; 0 is the blank."""
LENGTHS = {2: 72, 3: 84, 4: 96, 6: 120}
"""Shapes of a training batch: seconds of its clips, and tokens of its examples at most. Longer ones are left out."""


def _rows(parts: list[np.ndarray], width: int, kind: np.dtype | type) -> np.ndarray:
    table = np.zeros((len(parts), width), kind)
    for row, part in zip(table, parts, strict=True):
        row[: len(part)] = part
    return table


@dataclass
class Picked:
    """Which examples make a batch: their indices, where in the batch clips and pictures belong, and which these are.

    `length` is the width of the token table, `seconds` that of the sound.
    """

    examples: Tensor
    heard: Tensor
    clips: Tensor
    seen: Tensor
    pictures: Tensor
    length: int
    seconds: int


class Store:
    """The corpus as tensors of one device, and batches of it."""

    def __init__(self, corpus: Corpus, device: torch.device, positions_side: int) -> None:
        self.device = device
        self.corpus = corpus
        self.mel = LogMel(device)
        examples = corpus.examples
        self.lengths = np.array([len(example.ids) for example in examples])
        self.starts = self._put(np.array([example.start for example in examples], np.int64))
        self.ends = self._put(self.lengths)
        self.clip_of = np.array([example.clip for example in examples])
        self.picture_of = np.array([example.picture for example in examples])
        longest = int(self.lengths.max(initial=max(LENGTHS.values())))
        self.ids = self._put(_rows([np.array(example.ids) for example in examples], longest, np.int64))
        plain = np.tile(np.arange(longest, dtype=np.float32), (3, 1))
        placed = [example.positions for example in examples if example.positions is not None]
        table = np.stack([plain, *(np.pad(item, ((0, 0), (0, longest - item.shape[1]))) for item in placed)])
        self.positions = self._put(table.astype(np.float32))
        own = np.array([example.positions is not None for example in examples])
        self.position_of = self._put(np.where(own, np.cumsum(own), 0))
        self._sounds(corpus)
        self._sights(corpus, positions_side)

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _sounds(self, corpus: Corpus) -> None:
        self.clip_lengths = np.array([len(clip) for clip in corpus.clips] or [0])
        self.clip_sizes = self._put(self.clip_lengths)
        self.clip_starts = self._put(np.cumsum(self.clip_lengths) - self.clip_lengths)
        self.samples = self._put(np.concatenate([*corpus.clips, np.zeros(1, np.int16)]))
        labels = [np.array([WORDS[word] for word in grammar.words_of(text)]) for text in corpus.texts]
        self.label_counts = self._put(np.array([len(label) for label in labels] or [0]))
        self.labels = self._put(_rows(labels, max(map(len, labels), default=1), np.int64))

    def _sights(self, corpus: Corpus, side: int) -> None:
        most = max((len(levels) for levels in corpus.patches), default=1)
        self.patches = self._put(
            np.stack([np.pad(levels, ((0, most - len(levels)), (0, 0))) for levels in corpus.patches])
            if corpus.patches
            else np.zeros((1, 1, 768), np.uint8)
        )
        grids = sorted(set(corpus.grids))
        self.grid_of = self._put(np.array([grids.index(grid) for grid in corpus.grids] or [0]))
        places, blends, valid = [], [], []
        for grid in grids or [(1, 2, 2)]:
            count = grid[1] * grid[2]
            rest = ((0, most - count), (0, 0)) if grids else ((0, 0), (0, 0))
            places.append(np.pad(patch_coordinates(grid, 2).astype(np.float32), rest))
            blends.append(np.pad(interpolated_positions(np.eye(side, dtype=np.float32), grid, 2), rest))
            valid.append(np.arange(most) < count)
        self.places, self.blends, self.valid = (self._put(np.stack(table)) for table in (places, blends, valid))

    def waves(self, clips: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return clips as float32 [B, N], 0 behind their ends, and their lengths [B]."""
        return self._waves(self._put(clips), int(self.clip_lengths[clips].max()))

    def _waves(self, clips: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        lengths = self.clip_sizes[clips]
        offsets = torch.arange(longest, device=self.device)
        index = self.clip_starts[clips][:, None] + offsets
        waves = self.samples[index.clamp(max=len(self.samples) - 1)].float() / 32768
        return waves * (offsets < lengths[:, None]), lengths

    def batch(
        self, chosen: np.ndarray, *, training: bool, decibels: float | None = None
    ) -> tuple[Batch, Tensor, tuple[Tensor, Tensor] | None]:
        """Return the inputs of examples `chosen`, the tokens to predict [B, T] with -100 for none, and the labels of
        their clips with their counts. `training` changes the sound at random; `decibels` adds noise at that ratio.
        """
        heard, seen = (np.flatnonzero(of[chosen] >= 0) for of in (self.clip_of, self.picture_of))
        clips = self.clip_of[chosen][heard]
        picked = Picked(
            *(self._put(of) for of in (chosen, heard, clips, seen, self.picture_of[chosen][seen])),
            length=int(self.lengths[chosen].max()),
            seconds=-(-int(self.clip_lengths[clips].max(initial=1)) // RATE),
        )
        return self.gather(picked, training=training, decibels=decibels)

    def gather(
        self, picked: Picked, *, training: bool, decibels: float | None = None
    ) -> tuple[Batch, Tensor, tuple[Tensor, Tensor] | None]:
        """Return what `batch` does, by operations of the GPU alone and with shapes that `picked` fixes."""
        index, length = picked.examples, picked.length
        ids = self.ids[index, :length]
        place = torch.arange(length, device=self.device)
        reply = (place >= self.starts[index][:, None]) & (place < self.ends[index][:, None])
        targets = torch.nn.functional.pad(ids.masked_fill(~reply, -100)[:, 1:], (0, 1), value=-100)
        batch = Batch(ids, self.positions[self.position_of[index], :, :length])
        labels = None
        if len(picked.heard):
            waves, lengths = self._waves(picked.clips, picked.seconds * RATE)
            if training:
                waves = augment(waves, lengths)
            elif decibels is not None:
                waves = add_noise(waves, lengths, torch.full((len(lengths),), decibels, device=self.device))
            mel, frames = self.mel(waves, lengths, picked.seconds * 100)
            if training:
                mel = mask_mel(warp_mel(mel, frames), frames)
            batch.sound = (picked.heard, mel, frames)
            labels = (self.labels[picked.clips], self.label_counts[picked.clips])
        if len(picked.seen):
            grid = self.grid_of[picked.pictures]
            patches = self.patches[picked.pictures].float()
            if training:
                patches = (patches + 4 * torch.randn(len(grid), 1, 1, device=self.device)).clamp(0, 255)
            batch.sight = (picked.seen, patches, self.places[grid], self.blends[grid], self.valid[grid])
        return batch, targets, labels

    def groups(self, seconds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the examples that fit a batch: speech, text, pictures, pictures with spoken questions."""
        short = (self.lengths <= LENGTHS[seconds]) & (self.clip_lengths[self.clip_of] <= seconds * RATE)
        sees, hears = self.picture_of >= 0, self.clip_of >= 0
        short |= ~hears & (self.lengths <= LENGTHS[seconds])
        kinds = (hears & ~sees, ~hears & ~sees, sees & ~hears, sees & hears)
        return tuple(np.flatnonzero(short & kind) for kind in kinds)  # type: ignore[return-value]

    def clip_batches(self, size: int, chance: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield without end batches of clips that are about equally long."""
        while True:
            order = chance.permutation(len(self.corpus.clips))
            batches = []
            for start in range(0, len(order), 32 * size):
                block = order[start : start + 32 * size]
                ranked = block[np.argsort(self.clip_lengths[block], kind="stable")]
                batches += [ranked[i : i + size] for i in range(0, len(ranked) - size + 1, size)]
            for index in chance.permutation(len(batches)):
                yield batches[index]


def shuffled(group: np.ndarray, size: int, chance: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield without end `size` members of `group`, each once in a round."""
    rest = np.zeros(0, np.int64)
    while True:
        while len(rest) < size:
            rest = np.concatenate([rest, chance.permutation(group)])
        yield rest[:size]
        rest = rest[size:]
