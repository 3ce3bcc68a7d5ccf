"""The Thinker: spliced embeddings through the decoder to text logits and, for the Talker, hidden states.

ids -> embed -> media rows spliced in -> decoder (+ deepstack after its first layers) -> lm_head -> next token
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.qwen3_omni.config_sections import ThinkerConfig
from omni_rt.models.slices import Slices
from omni_rt.results import ThinkerOutput
from omni_rt.sampling import Chooser, Sampling
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

MOST_TOGETHER = 4
"""Tokens that the host reads at once at most: a read-back costs it about as much as replaying 50 dispatches."""

TOGETHER_SECONDS = 0.025
"""Time in which they are made at most. As many are under way meanwhile, and are lost when the reply has ended."""


@dataclass(frozen=True)
class ThinkerInputs:
    """A prompt as the Thinker reads it: ids, positions [3, T] with `delta`, and what replaces the media rows.

    `media` are embeddings [M, D] of all media rows, `index` [T] the row of `media` for each id or -1. `deepstack` are
    arrays [V, D] added after the first layers, with `visual` [T] the row of each id or -1.
    """

    token_ids: Sequence[int]
    positions: np.ndarray
    delta: float
    media: np.ndarray | None = None
    index: np.ndarray | None = None
    deepstack: Sequence[np.ndarray] = field(default_factory=tuple)
    visual: np.ndarray | None = None


@dataclass(frozen=True)
class Prefill:
    """What a pass over a prompt leaves: the last normed row [1, N], and on request host arrays for all rows."""

    last: Tensor
    embeddings: np.ndarray
    hidden: np.ndarray
    logits: np.ndarray | None


class Thinker:
    """The text decoder of Qwen3-Omni; names follow the checkpoint under `thinker.`."""

    def __init__(
        self, weights: Weights, config: ThinkerConfig, *, context: int, accept_layer: int, stop_id: int
    ) -> None:
        model = weights.at("model.")
        self.config = config
        self.device = weights.device
        self.accept_layer = accept_layer
        self.stop_id = stop_id
        self.embed_tokens = model.half("embed_tokens.weight", config.vocabulary, config.width)
        self.decoder = Decoder(model, config)
        head = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
        self.lm_head = weights.linear(head, config.vocabulary, config.width)
        self.frequencies = weights.place_exact(frequencies(config.head_dim, config.rope_theta, config.rope_sections))
        self.cache = self.decoder.cache(context)
        self.tokens = self.device.zeros((MOST_TOGETHER,), "i32")
        self.position = self.device.zeros((1, 3))
        self.chooser = Chooser(self.device, config.vocabulary)
        self.slices = Slices(self.device)
        self._step = self.device.capture(self._decode)
        self._prefill: Prefill | None = None
        weights.done(ignored=("audio_tower.", "visual."))

    def prefill(self, inputs: ThinkerInputs, *, states: bool = False, logits: bool = False) -> Prefill:
        """Run a prompt through an empty cache, slice by slice.

        With `states` the spliced embeddings and the hidden states after the accepted layer are returned [T, N], with
        `logits` those of every row [T, V]. Raises InputError for an empty prompt or one longer than the context.
        """
        count = len(inputs.token_ids)
        if not count:
            raise InputError("the prompt is empty: give at least one token")
        self.clear()
        embeddings, hidden, scores = [], [], []
        last = None
        stop = 0
        while stop < count:
            start, stop = stop, stop + self.slices.rows(stop, count - stop)
            rows = slice(start, stop)
            self.cache.extend(rows.stop - start)
            x = self._embed(inputs, rows)
            normed, taps = self._run(x, inputs, rows)
            if states:
                embeddings.append(x.numpy())
                hidden.append(taps[self.accept_layer].numpy())
            if logits:
                scores.append(ops.matmul(normed, self.lm_head).numpy())
            last = normed[len(normed) - 1 :]
        assert last is not None
        empty = np.zeros((0, self.config.width), np.float32)
        self._prefill = Prefill(
            last,
            np.concatenate(embeddings) if states else empty,
            np.concatenate(hidden) if states else empty,
            np.concatenate(scores) if logits else None,
        )
        return self._prefill

    def clear(self) -> None:
        """Forget all positions."""
        self._prefill = None
        self.cache.clear()

    def _embed(self, inputs: ThinkerInputs, rows: slice) -> Tensor:
        x = self._rows_of(inputs.token_ids[rows])
        if inputs.media is None or inputs.index is None or (inputs.index[rows] < 0).all():
            return x
        return ops.splice(x, *self._rows(inputs.media, inputs.index[rows]))

    def _rows(self, media: np.ndarray, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the media rows that an index refers to, and the index renumbered to them."""
        used = np.flatnonzero(index >= 0)
        renumbered = np.full(len(index), -1, np.int32)
        renumbered[used] = np.arange(len(used))
        return self.device.tensor(media[index[used]]), self.device.tensor(renumbered)

    def _run(self, x: Tensor, inputs: ThinkerInputs, rows: slice) -> tuple[Tensor, dict[int, Tensor]]:
        positions = self.device.tensor(np.ascontiguousarray(inputs.positions[:, rows].T))
        table = ops.angles(positions, self.frequencies)
        visual = inputs.visual[rows] if inputs.visual is not None else None
        if visual is None or (visual < 0).all():
            return self.decoder(x, table, self.cache, taps=(self.accept_layer,))

        def add_deepstack(layer: int, x: Tensor) -> Tensor:
            if layer >= len(inputs.deepstack):
                return x
            return ops.add_rows(x, *self._rows(inputs.deepstack[layer], visual))

        return self.decoder(x, table, self.cache, taps=(self.accept_layer,), after_layer=add_deepstack)

    def forward(self, inputs: ThinkerInputs) -> ThinkerOutput:
        """Return logits, spliced embeddings and hidden states of every row of a prompt."""
        prefill = self.prefill(inputs, states=True, logits=True)
        assert prefill.logits is not None
        return ThinkerOutput(prefill.logits, prefill.embeddings, prefill.hidden)

    def generate(
        self,
        inputs: ThinkerInputs,
        prefill: Prefill,
        *,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        together: int = MOST_TOGETHER,
    ) -> Iterator[int]:
        """Yield the tokens of the reply one by one, the stop token last if it comes within the limit.

        A GPU hands them over up to `together` (1 to MOST_TOGETHER) at once, fewer where steps are slow. Raises
        InputError when another prompt has gone through the cache since `prefill`.
        """
        if max_new_tokens < 1:
            return
        self._check_turn(prefill)
        count = len(inputs.token_ids)
        self.chooser.start(seed, inputs.token_ids if sampling.repetition_penalty != 1.0 else ())
        logits = ops.matmul(prefill.last, self.lm_head)
        chosen = self.chooser(logits, sampling, self.cache.length)
        token = int(chosen.numpy()[0])
        self.device.write(self.tokens[:1], np.array([token], np.int32))
        self.device.write(self.position, np.full((1, 3), count + inputs.delta, np.float32))
        yield token
        # A reply also ends where the context does: what has been said is worth more than an error.
        limit = min(max_new_tokens - 1, self.cache.rows - self.cache.count)
        if limit > 0 and token != self.stop_id:
            for tokens in self._run_on(prefill, sampling, limit, together):
                for token in tokens:
                    self._check_turn(prefill)
                    yield token
                    if token == self.stop_id:
                        return

    def _check_turn(self, prefill: Prefill) -> None:
        if self._prefill is not prefill:
            raise InputError("another call has taken over the model: it makes one reply at a time, so end one first")

    def _run_on(self, prefill: Prefill, sampling: Sampling, limit: int, together: int) -> Iterator[list[int]]:
        """Decode up to `limit` more tokens, some steps ahead of those that the host has read; yield what it reads."""
        ahead = self.device.steps_ahead
        waiting: deque[tuple[int, Callable[[], np.ndarray]]] = deque()
        issued = unread = 0
        count, read = 1, time.perf_counter()
        while issued < limit or waiting:
            self._check_turn(prefill)
            if issued < limit and unread <= (max(ahead, count) if ahead else 0):
                steps = min(count, limit - issued)
                self._issue(steps, sampling, first=not issued)
                waiting.append((steps, self.device.read_later(self.tokens)))
                issued, unread = issued + steps, unread + steps
                continue
            steps, take = waiting.popleft()
            newest_first = take()
            unread -= steps
            before, read = read, time.perf_counter()
            if ahead:
                count = max(1, min(2 * count, together, int(steps * TOGETHER_SECONDS / (read - before))))
            yield newest_first[:steps][::-1].tolist()

    def _issue(self, steps: int, sampling: Sampling, *, first: bool) -> None:
        """Issue decode steps, the first of a reply among them or not."""
        for step in range(steps):
            if first and not step:
                self.cache.extend(1)
            else:
                self.cache.advance()
            self._step(sampling, self.cache.parts)

    def _decode(self, sampling: Sampling, parts: int) -> Tensor:
        """One decode step, all of it on the device: from the newest token and the position there to the next.

        `parts` tells recordings apart: the cache's number of runs is part of them.
        """
        x = ops.embed(self.embed_tokens, self.tokens[:1])
        table = ops.angles(self.position, self.frequencies)
        state, _ = self.decoder.states(x, table, self.cache)
        chosen = self.chooser(self.decoder.head(state, self.lm_head), sampling, self.cache.length)
        ops.advance(self.tokens, self.position, self.cache.length, chosen)
        return chosen

    def embed_ids(self, ids: Sequence[int]) -> np.ndarray:
        """Return the embeddings of token ids, float32 [T, N]."""
        return self._rows_of(ids).numpy()

    def _rows_of(self, ids: Sequence[int]) -> Tensor:
        """Return the embeddings of token ids [T, N]; raise InputError for ids that the vocabulary has not."""
        values = np.asarray(ids)
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= self.config.vocabulary:
            raise InputError(
                f"the token ids {str(ids)[:80]} are not all whole numbers from 0 to {self.config.vocabulary - 1}, "
                "which this model has"
            )
        return ops.embed(self.embed_tokens, self.device.tensor(values.astype(np.int32)))
