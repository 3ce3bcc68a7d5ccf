"""The code predictor: codebooks 1 to K - 1 of a frame, one after the other, from the Talker's state and codebook 0.

    [hidden, embedding of c0] -> decoder -> lm_head.0 -> c1 -> its embedding -> decoder -> lm_head.1 -> c2 -> ...

Where the predictor is narrower than its Talker, both inputs pass a projection first; the tables are projected at load.

Each frame starts over with an empty cache, so lengths and rotary tables are constants, and all K - 1 passes are one
captured step: nothing is read back between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni_rt import ops
from omni_rt.models.decoder import Decoder, frequencies
from omni_rt.models.decoder_config import DecoderConfig
from omni_rt.sampling import Sampling, draw
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights


@dataclass(frozen=True)
class CodeSizes:
    """The extents of a frame's codes: codebooks K, entries of each, and width and vocabulary of the Talker's table."""

    codebooks: int
    entries: int
    width: int
    vocabulary: int


class CodeTables:
    """The embeddings of all codebooks of a frame, stacked: the Talker's table, then the code predictor's, then zeros.

    `rows` holds the embeddings, `offsets` i32 [K] the first row of each codebook. `nothing` are ids [K] that sum to 0.
    """

    def __init__(
        self, weights: Weights, sizes: CodeSizes, projection: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        """Read the tables of the checkpoint, each row through the affine `projection` if there is one.

        `weights` is the view under `talker.`.
        """
        others = weights.at("code_predictor.model.codec_embedding.")
        tables = [weights.array("model.codec_embedding.weight", sizes.vocabulary, sizes.width)]
        tables += [others.array(f"{j}.weight", sizes.entries, sizes.width) for j in range(sizes.codebooks - 1)]
        stacked = np.concatenate(tables)
        if projection is not None:
            stacked = np.asarray(stacked, np.float32) @ projection[0].T + projection[1]
        self.rows = weights.place_half(np.concatenate([stacked, np.zeros((1, stacked.shape[1]), stacked.dtype)]))
        starts = np.array([0, *(sizes.vocabulary + sizes.entries * np.arange(sizes.codebooks - 1))], np.int32)
        self.offsets = weights.device.tensor(starts)
        self.nothing = (len(self.rows) - 1 - starts).astype(np.int32)
        self._places = starts.tolist()
        self._starts = [weights.device.tensor(starts[j : j + 1]) for j in range(sizes.codebooks)]

    def one(self, book: int, chosen: Tensor) -> Tensor:
        """Return the embedding [1, N] of one code i32 [1] of a codebook."""
        return ops.embed_sum(self.rows, chosen.reshape(1, 1), self._starts[book])

    def draw(
        self, book: int, logits: Tensor, sampling: Sampling, seed: Tensor, counter: Tensor, codes: Tensor
    ) -> Tensor:
        """Pick a codebook's code from logits [1, V] into `codes` i32 [K]; return its embedding [1, N].

        On a GPU a sample takes one step.
        """
        if sampling.temperature == 0 or self.rows.device.kind == "cpu" or self.rows.dtype != "f16" or self.rows.parts:
            chosen = draw(logits, sampling, seed, counter, salt=book)
            ops.put(codes, chosen, at=book)
            return self.one(book, chosen)
        return ops.sample_embed(
            logits, seed, counter, codes, self.rows, salt=book, at=book, start=self._places[book],
            temperature=float(sampling.temperature), top_k=sampling.top_k, top_p=float(sampling.top_p),
        )  # fmt: skip

    def sum(self, codes: Tensor) -> Tensor:
        """Return the sum [1, N] of the embeddings of a frame's codes i32 [K]."""
        return ops.embed_sum(self.rows, codes.reshape(1, -1), self.offsets)


class CodePredictor:
    """The code predictor of both families; names follow the checkpoint under `talker.code_predictor.`.

    `tables` are the embeddings of all codebooks, for the Talker too; `codes` i32 [K] on the device are the last frame,
    and `logits` are the K - 1 rows [1, V] that it was picked from.
    """

    def __init__(self, weights: Weights, config: DecoderConfig, sizes: CodeSizes) -> None:
        self.device = weights.device
        self.tables = self._inputs = CodeTables(weights.parent(), sizes)
        self.projection: tuple[Tensor, Tensor] | None = None
        if config.width != sizes.width:
            name = "small_to_mtp_projection"
            self.projection = weights.affine(name, config.width, sizes.width)
            kernel = np.asarray(weights.array(f"{name}.weight", config.width, sizes.width), np.float32)
            bias = np.asarray(weights.array(f"{name}.bias", config.width), np.float32)
            self._inputs = CodeTables(weights.parent(), sizes, (kernel, bias))
        self.decoder = Decoder(weights.at("model."), config)
        self.heads = [
            weights.linear(f"lm_head.{j}.weight", sizes.entries, config.width) for j in range(sizes.codebooks - 1)
        ]
        self.codes = self.device.zeros((sizes.codebooks,), "i32")
        cache = self.decoder.cache(sizes.codebooks)
        omega = self.device.tensor(frequencies(config.head_dim, config.rope_theta))
        # The first two rows pass one by one where that takes fewer steps, else together.
        self._apart = ops.in_int8(self.device.zeros((1, config.width)), self.decoder.layers[0].attention.qkv)
        starts = [*range(sizes.codebooks)] if self._apart else [0, *range(2, sizes.codebooks)]
        ends = [*starts[1:], sizes.codebooks]
        self._places = [
            (ops.angles(self.device.tensor(_positions(start, end)), omega), cache.holding(end))
            for start, end in zip(starts, ends, strict=True)
        ]
        self.logits: list[Tensor] = []
        self._frame = self.device.capture(self.passes)
        self._remote = (self.device.zeros((1, sizes.width)), *(self.device.zeros((1,), "i32") for _ in range(3)))
        weights.done()

    def __call__(self, hidden: Tensor, first: Tensor, sampling: Sampling, seed: Tensor, counter: Tensor) -> Tensor:
        """Return the codes i32 [K] of the frame whose codebook 0 is `first` i32 [1], after the Talker's state [1, N].

        All operands lie on this device and are the same tensors in each call; `counter` i32 [1] differs from frame to
        frame. The result is `codes`, overwritten by the next frame.
        """
        self.logits = self._frame(hidden, first, sampling, seed, counter)
        return self.codes

    def from_host(self, hidden: np.ndarray, first: int, sampling: Sampling, seed: int, counter: int) -> np.ndarray:
        """Return the codes int32 [K] of a frame from values on the host: hidden [N], codebook 0, seed, counter."""
        for tensor, value in zip(self._remote, (hidden, first, seed, counter), strict=True):
            self.device.write(tensor, np.asarray(value))
        state, code, seeds, counters = self._remote
        return self(state, code, sampling, seeds, counters).numpy()

    def passes(self, hidden: Tensor, first: Tensor, sampling: Sampling, seed: Tensor, counter: Tensor) -> list[Tensor]:
        """Do what a call does, as part of somebody's captured step; return the `logits`."""
        ops.put(self.codes, first, at=0)
        picked_from: list[Tensor] = []
        state = hidden if self.projection is None else ops.matmul_add(hidden, *self.projection)
        x = self._inputs.one(0, first)
        if self._apart:
            self.decoder.fill(state, *self._places[0])
        else:
            x = ops.concat_rows(state, x)
        for j, (head, place) in enumerate(zip(self.heads, self._places[-len(self.heads) :], strict=True)):
            x, _ = self.decoder.states(x, *place)
            logits = self.decoder.head(x[len(x) - 1 :], head)
            picked_from.append(logits)
            x = self._inputs.draw(j + 1, logits, sampling, seed, counter, self.codes)
        return picked_from


def _positions(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.float32)[:, None]
