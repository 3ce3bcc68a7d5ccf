"""One training step of the Thinker, replayed as a CUDA graph: its thousands of small kernels cost no Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tools.train_tiny.augment import ctc_loss
from tools.train_tiny.batches import LENGTHS, WORDS, Picked, Store, shuffled
from tools.train_tiny.runs import Part
from tools.train_tiny.thinker import Thinker

SEED = 7
CTC_WEIGHT, BALANCE_WEIGHT = 0.3, 0.01


class Trainer:
    """The model, its optimiser, and a stream of batches of fixed shapes, one for each of `LENGTHS`.

    `found` holds the cross-entropy and the CTC loss of the last step, `parts` are what a run keeps.
    """

    def __init__(self, model: Thinker, store: Store, sizes: tuple[int, int, int, int]) -> None:
        self.model, self.store, self.sizes = model, store, sizes
        self.device = store.device
        self.head = nn.Linear(model.lm_head.in_features, len(WORDS) + 1).to(self.device)
        trained = [value for value in (*model.parameters(), *self.head.parameters()) if value.requires_grad]
        self.parameters = trained
        self.rate = torch.zeros((), device=self.device)
        graphs = self.device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [value for value in trained if value.ndim > 1], "weight_decay": 0.05},
                {"params": [value for value in trained if value.ndim < 2], "weight_decay": 0.0},
            ],
            lr=self.rate, betas=(0.9, 0.98), fused=graphs, capturable=graphs,
        )  # fmt: skip
        self.parts: dict[str, Part] = {"model": model, "head": self.head, "optimiser": self.optimiser}
        self.found = torch.zeros(2, device=self.device)
        # Steps and their capture run on one stream: gradients remember where they were first made.
        self._stream = torch.cuda.Stream() if graphs else None
        self._graphs = graphs
        self._pool = torch.cuda.graph_pool_handle() if graphs else None
        self._replays: dict[int, Callable[[], None]] = {}
        self._eager: dict[int, int] = {}
        self._streams(np.random.default_rng(SEED))

    def step(self, rate: float) -> None:
        """Train on the next batch; returns before the GPU is done."""
        with torch.cuda.stream(self._stream):
            self.rate.fill_(rate)
            for group in self.optimiser.param_groups:  # a run that goes on has put a copy there
                group["lr"] = self.rate
            seconds, chosen = self._draw()
            picked = self._picked[seconds]
            heard, seen = self._at
            for target, values in (
                (picked.examples, chosen),
                (picked.clips, self.store.clip_of[chosen[heard]]),
                (picked.pictures, self.store.picture_of[chosen[seen]]),
            ):
                target.copy_(torch.from_numpy(values))
            if seconds in self._replays:
                self._replays[seconds]()
                return
            self._run(picked)
            self._eager[seconds] = self._eager.get(seconds, 0) + 1
        if self._graphs and self._eager[seconds] == 3:
            self._capture(seconds)

    def skip(self, steps: int) -> None:
        """Pass over the batches of so many steps: a run that goes on had them."""
        for _ in range(steps):
            self._draw()

    def _draw(self) -> tuple[int, np.ndarray]:
        """Draw the next batch: its shape, by the seconds of its clips, and its examples."""
        seconds = int(self._chance.choice(self._seconds, p=self._odds))
        return seconds, np.concatenate([next(stream) for stream in self._sources[seconds]])

    def wait(self) -> tuple[float, float]:
        """Wait for the GPU; return the cross-entropy and the CTC loss of the last step."""
        if self._stream is not None:
            torch.cuda.synchronize()
        entropy, ctc = self.found.tolist()
        return entropy, ctc

    def _streams(self, chance: np.random.Generator) -> None:
        """Set up, for each shape of batch, where examples come from and the tensors that name them."""
        store, sizes = self.store, self.sizes
        self._chance = chance
        at = np.cumsum((0, *sizes))
        self._at = (np.r_[at[0] : at[1], at[3] : at[4]], np.arange(at[2], at[4]))
        self._picked: dict[int, Picked] = {}
        self._sources: dict[int, list[Iterator[np.ndarray]]] = {}
        _, *others, _ = store.groups(min(LENGTHS))
        shared = [shuffled(group, size, chance) for group, size in zip(others, sizes[1:3], strict=True)]
        counts, shorter = {}, np.zeros(0, np.int64)
        for seconds, length in LENGTHS.items():
            speech, _, _, asking = store.groups(seconds)
            own, shorter = np.setdiff1d(speech, shorter), speech
            if not len(own) or not len(asking):
                continue
            counts[seconds] = len(own)
            self._sources[seconds] = [
                shuffled(own, sizes[0], chance), *shared, shuffled(asking, sizes[3], chance)
            ]  # fmt: skip
            examples, clips, pictures = (
                torch.zeros(count, dtype=torch.long, device=self.device) for count in (sum(sizes), *map(len, self._at))
            )
            heard, seen = (torch.from_numpy(place).to(self.device) for place in self._at)
            self._picked[seconds] = Picked(examples, heard, clips, seen, pictures, length, seconds)
        self._seconds = np.array(list(counts))
        self._odds = np.array(list(counts.values())) / sum(counts.values())
        print(f"examples by seconds: {counts}", flush=True)

    def _run(self, picked: Picked) -> None:
        """Make one step on the examples that `picked` names."""
        batch, targets, labels = self.store.gather(picked, training=True)
        # A graph must not hold casts of weights that the next replay changes: no cache.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False):
            logits, found = self.model(batch)
        entropy = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        assert labels is not None
        odds = self.head(found["heard"].float()).log_softmax(-1)
        steps = found["heard valid"].sum(1)
        if self._graphs:
            ctc = ctc_loss(odds, steps, *labels)
        else:
            ctc = F.ctc_loss(odds.transpose(0, 1), labels[0], steps, labels[1], zero_infinity=True)
        loss = entropy + CTC_WEIGHT * ctc + BALANCE_WEIGHT * self.model.balance()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.model.forget()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.found.copy_(torch.stack([entropy.detach(), ctc.detach()]))

    def _capture(self, seconds: int) -> None:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                self._run(self._picked[seconds])
        except RuntimeError as error:  # slower, but right
            print(f"the step for {seconds} s cannot be captured: {error}", flush=True)
            self._graphs = False
            return
        self._replays[seconds] = graph.replay
        print(f"captured the step for {seconds} s", flush=True)
