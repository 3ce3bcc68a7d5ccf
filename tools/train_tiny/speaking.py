"""The Talker speaking by itself, batched, and how near what it says comes to the voice that it learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tools.train_tiny.codec import CODEBOOKS, ENTRIES, Codec

if TYPE_CHECKING:
    from tools.train_tiny.dialogues import Dialogues
    from tools.train_tiny.voice import Talker

NEAR = 0.75
"""Root mean square distance of log-mels along the best path, over which speech counts as wrong."""


def pick(logits: Tensor, temperature: float, top_k: int, top_p: float = 1.0) -> Tensor:
    """Return an id per row of logits [B, V]: the largest at temperature 0, else a draw."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    ranked, order = logits.sort(-1, descending=True)
    odds = ranked.softmax(-1)
    out = (odds.cumsum(-1) - odds) >= top_p
    if top_k:
        out[:, top_k:] = True
    drawn = torch.multinomial(odds.masked_fill(out, 0), 1)
    return order.gather(1, drawn)[:, 0]


@torch.no_grad()
def speak(
    talker: Talker,
    words: Tensor,
    store: Dialogues,
    pairs: np.ndarray,
    *,
    temperature: float,
    top_k: int,
    most: int = 400,
) -> list[np.ndarray | None]:
    """Return the codes [F, 4] that the Talker makes for pairs (prompt, reply) [P, 2], None where it does not stop."""
    from tools.train_tiny.talker import embed

    made: list[np.ndarray | None] = [None] * len(pairs)
    order = np.argsort(store.user_rows[pairs[:, 0]], kind="stable")
    device = store.device
    for start in range(0, len(order), 256):
        chosen = order[start : start + 256]
        prompts, replies = (torch.from_numpy(pairs[chosen, side]).to(device) for side in (0, 1))
        alive = torch.arange(len(chosen), device=device)
        ends = store.prefill_rows(prompts)
        codes = torch.full((len(chosen), most, CODEBOOKS), -1, device=device)
        for frame in range(most):
            rows = store.rows(prompts[alive], replies[alive], int(ends[alive].max()) + frame)
            place = torch.arange(rows.text.shape[1], device=device)[None] - ends[alive][:, None]
            own = codes[alive].gather(1, place.clamp(0, most - 1)[..., None].expand(-1, -1, CODEBOOKS))
            rows.frames = torch.where(((place >= 0) & (place < frame))[..., None], own, -1)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                hidden = talker.model(embed(talker, words, store.states, rows), rows.positions)
                last = hidden[torch.arange(len(alive), device=device), ends[alive] - 1 + frame]
                logits = talker.codec_head(last).float()
                logits[:, ENTRIES : store.stop] = logits[:, store.stop + 1 :] = -1e30
                first = pick(logits, temperature, top_k)
                drawn = first.clamp(max=ENTRIES - 1)[:, None]
                for head in talker.code_predictor.lm_head:
                    state = talker.code_predictor(talker.rest_rows(last, drawn))[:, -1]
                    rest = pick(head(state), float(temperature > 0), 50, 0.8)
                    drawn = torch.cat([drawn, rest[:, None]], 1)
            stopped = first == store.stop
            for row in alive[stopped].tolist():
                made[int(chosen[row])] = codes[row, :frame].cpu().numpy()
            codes[alive, frame] = drawn
            alive = alive[~stopped]
            if not len(alive):
                break
    return made


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean distance along the best monotonic path between log-mels [F, 320] and [G, 320]."""
    squares = (first**2).mean(1)[:, None] + (second**2).mean(1) - 2 * first @ second.T / first.shape[1]
    cost = np.sqrt(np.maximum(0, squares))
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        best = np.minimum(np.minimum(total[i - 1, j], total[i, j - 1]), total[i - 1, j - 1])
        total[i, j] = cost[i - 1, j - 1] + best
    return float(total[rows, columns] / max(rows, columns))


def judge(made: list[np.ndarray | None], true: list[np.ndarray], codec: Codec) -> str:
    """Return in one line how many stop, how long they take, and how near they come."""

    def mels(codes: np.ndarray) -> np.ndarray:
        return codec.decode(torch.from_numpy(codes.astype(np.int64)).to(codec.mean.device)).cpu().numpy()

    both = [(ours, theirs) for ours, theirs in zip(made, true, strict=True) if ours is not None and len(ours)]
    if not both:
        return f"none of {len(made)} stops"
    ratios = np.array([len(ours) / len(theirs) for ours, theirs in both])
    apart = np.array([distance(mels(ours), mels(theirs)) for ours, theirs in both])
    spread = np.quantile(apart, [0.5, 0.9, 0.97, 1]).round(3)
    return (
        f"{len(both)}/{len(made)} stop, {np.mean((ratios >= 0.8) & (ratios <= 1.25)):.4f} of them in due time "
        f"(ratio {ratios.mean():.3f}), {np.mean(apart < NEAR):.4f} near, distance {spread}"
    )
