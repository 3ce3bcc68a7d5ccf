"""A corpus on the GPU: everything lies there as integers, and a batch is a few gathers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from omni_rt.models.qwen3_omni.vision_encoder import interpolated_positions, patch_coordinates
from tools.train_tiny import grammar
from tools.train_tiny.augment import LogMel, add_noise, augment, mask_mel
from tools.train_tiny.examples import Corpus
from tools.train_tiny.thinker import Batch

WORDS = {word: index + 1 for index, word in enumerate(grammar.words())}
"""The label of each word for a CTC loss; 0 is the blank."""


def _rows(parts: list[np.ndarray], width: int, kind: np.dtype | type) -> np.ndarray:
    table = np.zeros((len(parts), width), kind)
    for row, part in zip(table, parts, strict=True):
        row[: len(part)] = part
    return table


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
        longest = int(self.lengths.max(initial=1))
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
        lengths = self._put(self.clip_lengths[clips])
        offsets = torch.arange(int(self.clip_lengths[clips].max()), device=self.device)
        index = self.clip_starts[self._put(clips)][:, None] + offsets
        waves = self.samples[index.clamp(max=len(self.samples) - 1)].float() / 32768
        return waves * (offsets < lengths[:, None]), lengths

    def batch(
        self, chosen: np.ndarray, *, training: bool, decibels: float | None = None
    ) -> tuple[Batch, Tensor, tuple[Tensor, Tensor] | None]:
        """Return the inputs of examples `chosen`, the tokens to predict [B, T] with -100 for none, and the labels of
        their clips with their counts. `training` changes the sound at random; `decibels` adds noise at that ratio.
        """
        length = int(self.lengths[chosen].max())
        index = self._put(chosen)
        ids = self.ids[index, :length]
        place = torch.arange(length, device=self.device)
        reply = (place >= self.starts[index][:, None]) & (place < self.ends[index][:, None])
        targets = torch.nn.functional.pad(ids.masked_fill(~reply, -100)[:, 1:], (0, 1), value=-100)
        batch = Batch(ids, self.positions[self.position_of[index], :, :length])
        labels = None
        heard = np.flatnonzero(self.clip_of[chosen] >= 0)
        if len(heard):
            clips = self.clip_of[chosen][heard]
            waves, lengths = self.waves(clips)
            if training:
                waves = augment(waves, lengths)
            elif decibels is not None:
                waves = add_noise(waves, lengths, torch.full((len(clips),), decibels, device=self.device))
            mel, frames = self.mel(waves, lengths)
            if training:
                mel = mask_mel(mel, frames)
            batch.sound = (self._put(heard), mel, frames)
            own = self._put(clips)
            labels = (self.labels[own], self.label_counts[own])
        seen = np.flatnonzero(self.picture_of[chosen] >= 0)
        if len(seen):
            own = self._put(self.picture_of[chosen][seen])
            grid = self.grid_of[own]
            patches = self.patches[own].float()
            if training:
                patches = (patches + 4 * torch.randn(len(seen), 1, 1, device=self.device)).clamp(0, 255)
            batch.sight = (self._put(seen), patches, self.places[grid], self.blends[grid], self.valid[grid])
        return batch, targets, labels

    def mixed(self, sizes: tuple[int, int, int], chance: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield without end batches of (speech, text, picture) examples; clips of a batch are about equally long."""
        sees, hears = self.picture_of >= 0, self.clip_of >= 0
        groups = [np.flatnonzero(which) for which in (hears & ~sees, ~hears & ~sees, sees)]
        streams = [self._stream(group, size, chance) for group, size in zip(groups, sizes, strict=True) if len(group)]
        while True:
            yield np.concatenate([next(stream) for stream in streams])

    def clip_batches(self, size: int, chance: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield without end batches of clips that are about equally long."""
        return _alike(np.arange(len(self.corpus.clips)), self.clip_lengths, size, chance)

    def _stream(self, group: np.ndarray, size: int, chance: np.random.Generator) -> Iterator[np.ndarray]:
        return _alike(group, self.clip_lengths[self.clip_of.clip(min=0)], size, chance)


def _alike(group: np.ndarray, lengths: np.ndarray, size: int, chance: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield without end batches of the members of `group`, in each of about equal `lengths`."""
    while True:
        order = chance.permutation(group)
        heard = lengths[order]
        batches = []
        for start in range(0, len(order), 32 * size):
            block = slice(start, start + 32 * size)
            ranked = order[block][np.argsort(heard[block], kind="stable")]
            batches += [ranked[i : i + size] for i in range(0, len(ranked) - size + 1, size)]
        if not batches:
            batches = [order]
        for index in chance.permutation(len(batches)):
            yield batches[index]
