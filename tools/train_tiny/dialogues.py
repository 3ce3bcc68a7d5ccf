"""What the Talker is shown: prompts as the runtime lays them out, and the frames of codes that speak the replies.

Everything lies on the device; a batch is a few gathers. A row of the Talker is a text token or a state of the Thinker,
plus a codec token or a frame of codes, or neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from omni_rt.io.chat_template import render, token_ids
from omni_rt.models.qwen3_omni.positions import Grid, MediaLayout, prompt_positions
from omni_rt.models.qwen3_omni.talker_layout import ANSWER, HEADER, talker_layout
from tools.train_tiny.batches import Store
from tools.train_tiny.codec import CODEBOOKS, ENTRIES
from tools.train_tiny.examples import Writer
from tools.train_tiny.thinker import Thinker

STRIDE = 24
"""Batches have a multiple of so many rows, so that there are few shapes."""


@dataclass
class Prompt:
    """The user's part of a conversation: token ids [U] of its rows, positions [3, U + 9] with the answer's first nine
    rows, and the Thinker's states [M, D] for those rows that stand for sound or pictures.
    """

    ids: np.ndarray
    positions: np.ndarray
    states: Tensor | None = None


def text_prompt(writer: Writer, text: str) -> Prompt:
    """Return the prompt of a user who writes `text`; a text to be read aloud is asked for so."""
    ids = token_ids(render([{"role": "user", "content": text}]), writer, lambda medium: [])
    return _prompt(writer, ids, None)


def _prompt(writer: Writer, ids: Sequence[int], grid: Grid | None, states: Tensor | None = None) -> Prompt:
    layout = talker_layout(ids, writer.config.tokens)
    media = MediaLayout(images=[grid] if grid else [])
    positions, _ = prompt_positions(layout.ids, writer.config.tokens, media)
    return Prompt(np.array(layout.ids[:-ANSWER]), positions, states)


@torch.no_grad()
def heard_prompts(writer: Writer, store: Store, thinker: Thinker, layer: int, size: int = 200) -> list[Prompt]:
    """Return the prompts of all examples of a store, with the states of the frozen Thinker after `layer` layers."""
    prompts: dict[int, Prompt] = {}
    order = np.argsort(store.lengths, kind="stable")
    tokens = writer.config.tokens
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch, _, _ = store.batch(chosen, training=False)
        with torch.autocast(store.device.type, torch.bfloat16, enabled=store.device.type == "cuda"):
            _, found = thinker(batch, (layer,))
        for row, index in enumerate(chosen):
            example = store.corpus.examples[index]
            ids = example.ids[: example.start]
            layout = talker_layout(ids, tokens)
            media = torch.from_numpy(layout.user[layout.media]).to(store.device)
            grid = store.corpus.grids[example.picture] if example.picture >= 0 else None
            prompts[int(index)] = _prompt(writer, ids, grid, found[f"hidden {layer}"][row, media].float())
    return [prompts[index] for index in range(len(order))]


@dataclass
class Rows:
    """A batch for the Talker: `text` [B, T] token ids, `state_of` [B, T] the Thinker's state that stands there instead
    or -1, `codec` [B, T] codec tokens or -1, `frames` [B, T, 4] codes or -1, `positions` [B, 3, T], and the codes to
    predict `wanted` [B, T, 4], of which the first may be the stop token. `spoken` [B, T] is the row whose token is
    spoken in the frame to predict, or -1, and `last` [B, 1] the row that ends the text.
    """

    text: Tensor
    state_of: Tensor
    codec: Tensor
    frames: Tensor
    positions: Tensor
    wanted: Tensor
    spoken: Tensor
    last: Tensor

    def first(self, count: int) -> Rows:
        """Return the rows of the first `count` dialogues."""
        return Rows(**{item.name: getattr(self, item.name)[:count] for item in fields(self)})

    def looking(self, ahead: int) -> Tensor:
        """Return the row [B, T] of the token `ahead` after the one that is spoken, as far as it can be seen, or -1."""
        place = torch.arange(self.spoken.shape[1], device=self.spoken.device)
        seen = torch.minimum(torch.minimum(self.spoken + ahead, self.last), place)
        return torch.where(self.spoken < 0, -1, seen)


class Dialogues:
    """Prompts, replies and their codes on a device."""

    def __init__(
        self,
        writer: Writer,
        prompts: Sequence[Prompt],
        replies: Sequence[Sequence[int]],
        codes: Sequence[np.ndarray],
        progress: Sequence[np.ndarray],
        device: torch.device,
    ) -> None:
        """Lay everything out; `progress` [F] says which token of the reply each frame of `codes` [F, 4] speaks."""
        self.device = device
        config = writer.config
        assert config.talker is not None
        talker, tokens = config.talker, config.tokens
        self.stop = talker.codec_eos
        speaker = next(iter(talker.speakers.values()))
        self.pad, self.end = tokens.tts_pad, tokens.tts_eos
        header = [tokens.im_start, tokens.assistant, *writer.encode("\n")]
        assert len(header) == HEADER
        self.header = self._put(np.array([*header, *[tokens.tts_pad] * 4, tokens.tts_bos]))
        thinking = [talker.codec_nothink, talker.codec_think_bos, talker.codec_think_eos]
        self.codec = self._put(np.array([-1] * HEADER + [*thinking, speaker, talker.codec_pad, talker.codec_bos]))
        self.user_rows = np.array([len(prompt.ids) for prompt in prompts])
        self.users = self._put(self.user_rows)
        self.ids = self._put(_table([prompt.ids for prompt in prompts]))
        widest = int(self.user_rows.max()) + ANSWER
        padded = [np.pad(item.positions, ((0, 0), (0, widest - item.positions.shape[1]))) for item in prompts]
        self.positions = self._put(np.stack(padded).astype(np.float32))
        counts = np.array([0 if prompt.states is None else len(prompt.states) for prompt in prompts])
        states = [prompt.states for prompt in prompts if prompt.states is not None and len(prompt.states)]
        self.states = torch.cat(states) if states else torch.zeros(1, config.thinker.width, device=device)
        media = np.isin(self.ids.cpu().numpy(), (tokens.audio_pad, tokens.image_pad))
        media &= np.arange(media.shape[1]) < self.user_rows[:, None]
        assert (media.sum(1) == counts).all(), "a prompt has as many states as places for them"
        numbers = np.cumsum(media, axis=1) - 1 + (np.cumsum(counts) - counts)[:, None]
        self.state_of = self._put(np.where(media, numbers, -1))
        self.reply_rows = self._put(np.array([len(reply) for reply in replies]))
        self.replies = self._put(_table([np.array(reply) for reply in replies]))
        self.frame_counts = np.array([len(item) for item in codes])
        self.counts = self._put(self.frame_counts)
        self.firsts = self._put(np.cumsum(self.frame_counts) - self.frame_counts)
        self.codes = self._put(np.concatenate(codes))
        self.progress = self._put(np.concatenate(progress))

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def codes_of(self, reply: int) -> np.ndarray:
        """Return the codes [F, 4] of a reply."""
        first = int(self.firsts[reply])
        return self.codes[first : first + self.frame_counts[reply]].cpu().numpy()

    def prefill_rows(self, prompts: Tensor) -> Tensor:
        """Return how many rows come before the first frame [B]."""
        return self.users[prompts] + ANSWER

    def rows(self, prompts: Tensor, replies: Tensor, length: int) -> Rows:
        """Return `length` rows of dialogues (prompt, reply) [B], with all frames of the reply that fit."""
        users = self.users[prompts][:, None]
        place = torch.arange(length, device=self.device)[None]
        answer = place - users  # the row within the answer
        user = self.ids.shape[1]
        before = place.clamp(max=user - 1).expand(len(prompts), -1)
        spoken = answer - (ANSWER - 1)  # which token of the reply a row reads
        said = self.replies[replies].gather(1, spoken.clamp(0, self.replies.shape[1] - 1))
        length_of = self.reply_rows[replies][:, None]
        text = torch.where(spoken < length_of, said, torch.where(spoken == length_of, self.end, self.pad))
        text = torch.where(spoken < 0, self.header[answer.clamp(0, ANSWER - 2)], text)
        text = torch.where(answer < 0, self.ids[prompts].gather(1, before), text)
        state_of = torch.where(answer < 0, self.state_of[prompts].gather(1, before), -1)
        codec = torch.where((answer >= 0) & (answer < ANSWER), self.codec[answer.clamp(0, ANSWER - 1)], -1)
        frame = answer - ANSWER  # which frame a row reads
        count = self.counts[replies][:, None]
        frames = self._frames(replies, frame, count)
        wanted = self._frames(replies, frame + 1, count)
        wanted[..., 0] = torch.where(frame + 1 == count, self.stop, wanted[..., 0])
        first = users + ANSWER - 1  # the row of the reply's first token
        index = (self.firsts[replies][:, None] + frame + 1).clamp(0, len(self.progress) - 1)
        speaks = (frame + 1 >= 0) & (frame + 1 < count)
        where = torch.where(speaks, first + self.progress[index].long(), -1)
        positions = self._positions(prompts, answer, place)
        return Rows(text, state_of, codec, frames, positions, wanted, where, first + length_of)

    def _frames(self, replies: Tensor, frame: Tensor, count: Tensor) -> Tensor:
        index = self.firsts[replies][:, None] + frame
        codes = self.codes[index.clamp(0, len(self.codes) - 1)].long()
        return torch.where(((frame >= 0) & (frame < count))[..., None], codes, -1)

    def _positions(self, prompts: Tensor, answer: Tensor, place: Tensor) -> Tensor:
        known = self.positions[prompts]
        last = self.users[prompts] + ANSWER - 1
        final = known[torch.arange(len(prompts), device=self.device), :, last]  # the same on all axes: text
        later = final[:, :, None] + (answer - (ANSWER - 1))[:, None]
        index = place.clamp(max=known.shape[2] - 1)[:, None].expand(len(prompts), 3, -1)
        return torch.where((answer < ANSWER)[:, None], known.gather(2, index), later)

    def batches(
        self, pairs: np.ndarray, budget: int, chance: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield without end (prompts [B], replies [B], rows) of pairs [P, 2]: few shapes, about `budget` rows each.

        In one case of seven the prompt is another's: what is spoken is the reply, whatever was asked.
        """
        while True:
            mixed = pairs.copy()
            swapped = chance.random(len(pairs)) < 1 / 7
            mixed[swapped, 0] = chance.permutation(mixed[swapped, 0])
            lengths = self.user_rows[mixed[:, 0]] + ANSWER + self.frame_counts[mixed[:, 1]]
            shapes = -(-lengths // STRIDE) * STRIDE
            groups: list[tuple[np.ndarray, int]] = []
            for length in np.unique(shapes).tolist():
                own = chance.permutation(np.flatnonzero(shapes == length))
                size = max(1, budget // length)
                whole = np.resize(own, -(-len(own) // size) * size)
                groups += [(group, length) for group in whole.reshape(-1, size)]
            for index in chance.permutation(len(groups)):
                group, length = groups[index]
                yield self._put(mixed[group, 0]), self._put(mixed[group, 1]), length


def corrupted(frames: Tensor, most: float) -> Tensor:
    """Return frames of codes [B, T, 4] of which some are another's, whole or in single codes: mistakes to live with.

    Most dialogues have few of them, some up to the share `most`: there the text alone says what comes.
    """
    shape = frames.shape[:2]
    odds = most * torch.rand(len(frames), 1, 1, device=frames.device) ** 3
    other = frames.flatten(0, 1)[torch.randint(0, shape.numel(), shape, device=frames.device)]
    whole = torch.rand(*shape, 1, device=frames.device) < odds
    single = torch.rand(*shape, CODEBOOKS, device=frames.device) < odds
    random = torch.randint(0, ENTRIES, frames.shape, device=frames.device)
    mixed = torch.where(whole & (other >= 0), other, torch.where(single, random, frames))
    return torch.where(frames >= 0, mixed, frames)


def _table(parts: Sequence[np.ndarray]) -> np.ndarray:
    table = np.zeros((len(parts), max(map(len, parts))), np.int64)
    for row, part in zip(table, parts, strict=True):
        row[: len(part)] = part
    return table
