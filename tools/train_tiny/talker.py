"""Stage: the Talker and its code predictor learn to speak what the frozen Thinker writes.

    python -m tools.train_tiny.talker OUT THINKER [--steps N] [--start WEIGHTS] [--dry-run]

Cross-entropy on codebook 0 and the stop token, and with less weight on the other codebooks; part of the history is
corrupted, so that mistakes do not grow. THINKER is the file of weights that the stage before wrote, or a model's
directory; the codec is what that stage left in OUT, or the tables in the directory. Writes OUT/talker.pt (released
names, bfloat16) and says how well held-out texts are spoken. A run that was cut goes on from OUT/talker-run.pt.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.train_tiny import grammar, runs, shape, speech
from tools.train_tiny.batches import Store
from tools.train_tiny.codec import ENTRIES, SAMPLE_RATE, Codec, spoken_text, tokens_at
from tools.train_tiny.dialogues import Dialogues, Prompt, Rows, corrupted, heard_prompts, text_prompt
from tools.train_tiny.examples import Writer
from tools.train_tiny.speaking import judge, speak
from tools.train_tiny.thinker import Thinker
from tools.train_tiny.understand import corpus_of
from tools.train_tiny.voice import POINTERS, Talker

SEED = 26
TEXTS, CLIPS, WRITTEN, PICTURES, SPOKEN_PICTURES = 110_000, 5_000, 4_000, 600, 300
"""Texts to read aloud, and prompts of other kinds."""
REST_WEIGHT, BALANCE_WEIGHT = 0.3, 0.01
POINTER_WEIGHT, NAME_WEIGHT = 0.3, 0.1
"""Of the losses that teach two heads which token is being spoken, and the layers behind them to know it and the next:
without these they find out late, and learn texts by heart before.
"""
HEARD_NOISE = 0.5
"""On the Thinker's states, relative to their size: what is spoken must not hang on details of what was heard."""
CORRUPTION = 0.35
REST_SHARE = 0.3
"""Share of the frames whose other codebooks are learned in a step."""
OWN_SHARE, OWN_FROM = 1 / 3, 1 / 3
"""Share of the dialogues of a step whose history is in part the Talker's own, and the part of the run before it."""
SHOWN_EVERY = 25
"""Steps between two lines about the losses."""


def spoken(texts: list[str], writer: Writer, codec: Codec, path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the codes uint8 [F, 4] of texts in the target voice, and which token each frame speaks; keep both."""
    known: dict[str, np.ndarray] = {}
    if path.exists():
        with np.load(path) as data:
            known = dict(
                zip(data["texts"].tolist(), np.split(data["frames"], np.cumsum(data["counts"])[:-1]), strict=True)
            )
    missing = [text for text in texts if text not in known]
    for start in range(0, len(missing), 12_000):
        part = missing[start : start + 12_000]
        clips = speech.timed_all(part, [speech.TARGET] * len(part), SAMPLE_RATE)
        for text, codes, (clip, words) in zip(part, codec.encode_all([clip for clip, _ in clips]), clips, strict=True):
            pieces = [writer.tokenizer.decode([token]) for token in writer.encode(text)]
            progress = tokens_at(pieces, words, len(clip) / SAMPLE_RATE, len(codes))
            known[text] = np.concatenate([codes, progress[:, None]], 1)
    frames = [known[text] for text in texts]
    if missing:
        counts = np.array([len(item) for item in frames])
        with runs.replacing(path) as file:
            np.savez_compressed(file, texts=np.array(texts), frames=np.concatenate(frames), counts=counts)
    return [item[:, :4] for item in frames], [item[:, 4] for item in frames]


def make_dialogues(
    directory: Path,
    codec: Codec,
    thinker: Thinker,
    sizes: tuple[int, int, int, int, int],
    role: str,
    device: torch.device,
) -> tuple[Dialogues, np.ndarray, list[str]]:
    """Return dialogues, the pairs (prompt, reply) [P, 2] that belong together, and the texts of the replies."""
    writer = Writer(directory / "checkpoint")
    chance = random.Random(f"{SEED} {role}")
    count, *others = sizes
    texts = list(dict.fromkeys(text_to_read(chance) for _ in range(count)))
    if role == "model" and count > 1000:
        texts = list(dict.fromkeys([*texts, *(fact.answer for fact in grammar.facts())]))
    prompts: list[Prompt] = [text_prompt(writer, text) for text in texts]
    corpus = corpus_of(directory / "checkpoint", role, tuple(others), SEED)
    store = Store(corpus, device, shape.DIMENSIONS.vision_positions)
    prompts += heard_prompts(writer, store, thinker, shape.DIMENSIONS.accept_hidden_layer)
    index = {text: number for number, text in enumerate(texts)}
    pairs = [(number, number) for number in range(len(texts))]
    for number, example in enumerate(store.corpus.examples, len(texts)):
        reply = writer.tokenizer.decode(example.ids[example.start : -1])
        pairs.append((number, index.setdefault(reply, len(index))))
    texts = list(index)
    codes, progress = spoken(texts, writer, codec, directory / f"spoken-{role}.npz")
    replies = [writer.encode(text) for text in texts]
    return Dialogues(writer, prompts, replies, codes, progress, device), np.array(pairs), texts


def text_to_read(chance: random.Random) -> str:
    """Draw a text to read aloud, often of few words: the first word of a text is a token of its own."""
    return grammar.random_words(chance, 1, 4) if chance.random() < 0.4 else spoken_text(chance)


def embed(talker: Talker, words: Tensor, states: Tensor, rows: Rows, noise: float = 0.0) -> Tensor:
    """Return the inputs [B, T, N] of rows; `words` [V, D] are the Thinker's embeddings, `states` [S, D] what it heard.

    `noise` is put on the latter.
    """
    x = talker.text_projection(words)[rows.text]
    heard = states[rows.state_of.clamp(min=0)]
    if noise:
        heard = heard + noise * torch.randn_like(heard)
    x = torch.where(rows.state_of[..., None] >= 0, talker.hidden_projection(heard), x)
    codec = talker.model.codec_embedding(rows.codec.clamp(min=0)) * (rows.codec >= 0)[..., None]
    frames = talker.code_rows(rows.frames.clamp(min=0)) * (rows.frames[..., :1] >= 0)
    return x + (codec + frames).to(x.dtype)


def losses(
    talker: Talker, namer: nn.Linear | None, words: Tensor, states: Tensor, rows: Rows, noise: float
) -> dict[str, Tensor]:
    """Return the losses of a batch, `loss` their weighted sum. Shapes depend on nothing but those of `rows`."""
    with torch.autocast(rows.text.device.type, torch.bfloat16, enabled=rows.text.is_cuda, cache_enabled=False):
        pointers = {layer: rows.looking(ahead) for layer, ahead in POINTERS.items()}
        hidden = talker.model(embed(talker, words, states, rows, noise), rows.positions, pointers).flatten(0, 1)
        wanted = rows.wanted.flatten(0, 1)
        logits = talker.codec_head(hidden).float()
        named = torch.zeros((), device=wanted.device) if namer is None else misnamed(namer, talker.model.seen, rows)
        first = F.cross_entropy(logits, wanted[:, 0], ignore_index=-1)
        lots = torch.rand(len(wanted), device=wanted.device) + (wanted[:, 1] >= 0)
        kept = lots.topk(int(REST_SHARE * len(wanted))).indices
        codes = wanted[kept]
        given = talker.code_predictor(talker.rest_rows(hidden[kept], codes[:, :-1].clamp(min=0)))
        rest = [
            F.cross_entropy(head(given[:, book]).float(), codes[:, book], ignore_index=-1)
            for book, head in enumerate(talker.code_predictor.lm_head, 1)
        ]
    loss = first + REST_WEIGHT * sum(rest) + BALANCE_WEIGHT * talker.model.balance()
    loss = loss + POINTER_WEIGHT * talker.model.astray + NAME_WEIGHT * named
    asked = wanted[:, 0] >= 0
    right = ((logits.argmax(1) == wanted[:, 0]) & asked).sum() / asked.sum()
    return {"loss": loss, "first": first, "rest": sum(rest) / len(rest), "astray": talker.model.astray, "named": named,
            "right": right}  # fmt: skip


def misnamed(namer: nn.Linear, seen: Tensor, rows: Rows) -> Tensor:
    """Return how badly the tokens that are spoken, and the next, can be told from the states `seen` [B, T, N]."""
    names = namer(seen).float().unflatten(-1, (len(POINTERS), -1))
    losses = [
        F.cross_entropy(names[..., ahead, :].flatten(0, 1), named_at(rows, ahead).flatten(), ignore_index=-1)
        for ahead in POINTERS.values()
    ]
    return torch.stack(losses).sum()


def named_at(rows: Rows, ahead: int) -> Tensor:
    """Return the token [B, T] that is spoken, or so many after it, -1 where there is none."""
    place = rows.looking(ahead)
    return torch.where(place < 0, -1, rows.text.gather(1, place.clamp(min=0)))


@torch.no_grad()
def own_frames(talker: Talker, words: Tensor, states: Tensor, rows: Rows) -> Tensor:
    """Return the frames [B, T, 4] of rows, a random share of each dialogue's as the Talker would greedily go on there.

    Greedy speech differs from what was ever recorded; so a Talker that speaks greedily has heard nothing else before.
    """
    talker.eval()
    with torch.autocast(rows.text.device.type, torch.bfloat16, enabled=rows.text.is_cuda, cache_enabled=False):
        hidden = talker.model(embed(talker, words, states, rows), rows.positions).flatten(0, 1)
        codes = talker.codec_head(hidden)[:, :ENTRIES].argmax(-1, keepdim=True)
        for head in talker.code_predictor.lm_head:
            state = talker.code_predictor(talker.rest_rows(hidden, codes))[:, -1]
            codes = torch.cat([codes, head(state).argmax(-1, keepdim=True)], 1)
    talker.train()
    said = codes.unflatten(0, rows.text.shape).roll(1, 1)  # a row says what the next one reads
    odds = torch.rand(len(said), 1, 1, device=said.device)
    own = (torch.rand(*said.shape[:2], 1, device=said.device) < odds) & (rows.frames >= 0)
    return torch.where(own, said, rows.frames)


class Lesson:
    """Losses and gradients of batches. On a GPU each shape is recorded once and then replayed, which is faster.

    `namer` is a head for training alone; None for a Talker that has learned where it is in the text.
    """

    def __init__(self, talker: Talker, namer: nn.Linear | None, words: Tensor, store: Dialogues) -> None:
        self.talker, self.namer, self.words, self.store = talker, namer, words, store
        self.noise = HEARD_NOISE * store.states.std().item()
        self.gradients = []
        for value in (*talker.parameters(), *(namer.parameters() if namer else ())):
            value.grad = torch.zeros_like(value)
            self.gradients.append(value.grad)
        self.recorded: dict[tuple[int, int, bool], tuple[torch.cuda.CUDAGraph, Tensor, dict[str, Tensor]]] = {}

    def __call__(self, prompts: Tensor, replies: Tensor, length: int, own: bool) -> dict[str, Tensor]:
        """Set the gradients of a batch and return its losses; `own` is whether the Talker hears itself."""
        both = torch.stack([prompts, replies])
        if not both.is_cuda:
            return self._run(both, length, own)
        shape = (len(prompts), length, own)
        if shape not in self.recorded:
            self._record(both.clone(), length, own)
        graph, inputs, found = self.recorded[shape]
        inputs.copy_(both)
        graph.replay()
        return found

    def _run(self, both: Tensor, length: int, own: bool) -> dict[str, Tensor]:
        torch._foreach_zero_(self.gradients)
        rows = self.store.rows(*both, length)
        rows.frames = corrupted(rows.frames, CORRUPTION)
        if own:
            few = max(1, int(OWN_SHARE * both.shape[1]))
            rows.frames[:few] = own_frames(self.talker, self.words, self.store.states, rows.first(few))
        found = losses(self.talker, self.namer, self.words, self.store.states, rows, self.noise)
        found["loss"].backward()
        return {name: value.detach() for name, value in found.items()}

    def _record(self, inputs: Tensor, length: int, own: bool) -> None:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self._run(inputs, length, own)
        torch.cuda.current_stream().wait_stream(aside)
        pool = next(iter(self.recorded.values()))[0].pool() if self.recorded else None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            found = self._run(inputs, length, own)
        self.recorded[(inputs.shape[1], length, own)] = (graph, inputs, found)


def train(arguments: argparse.Namespace) -> None:
    """Run the stage."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    out, dry = arguments.out, arguments.dry_run
    began = time.monotonic()
    shape.write_directory(out / "checkpoint")
    codec = Codec.load(arguments.thinker if arguments.thinker.is_dir() else out / "codec.npz", device)
    thinker = Thinker(shape.config()).to(device).eval()
    runs.load_weights(thinker, "thinker.", arguments.thinker)
    words = thinker.model.embed_tokens.weight.detach()
    sizes = (24, 6, 4, 2, 2) if dry else (arguments.texts, *heard_sizes(arguments.heard))
    store, pairs, _ = make_dialogues(out, codec, thinker, sizes, "model", device)
    hours = store.frame_counts.sum() / 25 / 3600
    print(f"talker: {len(pairs)} dialogues, {hours:.1f} h of speech in {time.monotonic() - began:.0f} s", flush=True)
    talker = Talker(shape.config()["talker_config"]).to(device)
    if arguments.start:
        runs.load_weights(talker, "talker.", arguments.start)
    print(f"{sum(value.numel() for value in talker.parameters()):,} parameters")
    groups = [
        {"params": [value for value in talker.parameters() if value.ndim > 1], "weight_decay": 0.03},
        {"params": [value for value in talker.parameters() if value.ndim < 2], "weight_decay": 0.0},
    ]
    namer = None
    if not arguments.start:
        namer = nn.Linear(talker.codec_head.in_features, len(POINTERS) * len(words)).to(device)
        groups.append({"params": [*namer.parameters()], "weight_decay": 0.0})
    lesson = Lesson(talker, namer, words, store)
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=device.type == "cuda")
    average = copy.deepcopy(talker)
    ours, averaged = ([*model.parameters()] for model in (talker, average))
    parts = {"talker": talker, "optimiser": optimiser, "average": average} | ({"namer": namer} if namer else {})
    run = runs.Run(out / "talker-run.pt", parts, arguments)
    first, steps = run.resume(), min(50, arguments.steps) if dry else arguments.steps
    batches = store.batches(pairs, 400 if dry else arguments.rows, np.random.default_rng(SEED))
    began = time.monotonic()
    for step, batch in enumerate(islice(batches, first, steps), first):
        runs.seed_step(SEED, step)
        for group in optimiser.param_groups:
            group["lr"] = runs.rate_at(step, steps, arguments.rate)
        found = lesson(*batch, own=step >= OWN_FROM * steps)
        torch.nn.utils.clip_grad_norm_(talker.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():  # the average reaches back over a twentieth of the run
            torch._foreach_lerp_(averaged, ours, min(1.0, 20 / steps))
        if (step + 1) % SHOWN_EVERY == 0:
            line = ", ".join(f"{name} {value.item():.3f}" for name, value in found.items())
            print(f"talker step {step + 1}, {time.monotonic() - began:.0f} s: {line}", flush=True)
        if (step + 1) % runs.SAVED_EVERY == 0 or step + 1 == steps:
            run.save(step + 1)
    runs.write_weights(average, "talker.", out / "talker.pt")
    if arguments.judged:
        few = (8, 2, 2, 1, 1) if dry else (arguments.judged, *heard_sizes(arguments.judged // 4))
        report(average.eval(), words, make_dialogues(out, codec, thinker, few, "held-out", device), codec, arguments)


def heard_sizes(clips: int) -> tuple[int, int, int, int]:
    """Return how many clips, written texts, pictures, and pictures with spoken questions go together."""
    return clips, *(count * clips // CLIPS for count in (WRITTEN, PICTURES, SPOKEN_PICTURES))


@torch.no_grad()
def report(
    talker: Talker,
    words: Tensor,
    check: tuple[Dialogues, np.ndarray, list[str]],
    codec: Codec,
    arguments: argparse.Namespace,
) -> None:
    """Let the Talker speak held-out texts by itself, print how near the original it comes, and keep the codes."""
    store, pairs, texts = check
    kept: dict[str, np.ndarray] = {"texts": np.array([texts[reply] for reply in pairs[:, 1]])}
    for name, temperature, top_k in (("greedy", 0.0, 0), ("0.5", 0.5, 50), ("0.9", 0.9, 50)):
        most = 8 if arguments.dry_run else 300
        made = speak(talker, words, store, pairs, temperature=temperature, top_k=top_k, most=most)
        print(name, judge(made, [store.codes_of(reply) for reply in pairs[:, 1]], codec), flush=True)
        codes = [np.zeros((0, 4)) if item is None else item for item in made]
        kept[name], kept[f"{name} counts"] = np.concatenate(codes).astype(np.uint8), np.array([len(c) for c in codes])
    np.savez(arguments.out / "spoken-check.npz", **kept)


def main() -> None:
    """Read the command line and run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thinker", type=Path)
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--start", type=Path, help="begin with these weights: a file, or a model's directory")
    parser.add_argument("--texts", type=int, default=TEXTS, help="texts to read aloud")
    parser.add_argument("--heard", type=int, default=CLIPS, help="clips to answer; other prompts in proportion")
    parser.add_argument("--judged", type=int, default=260, help="held-out texts to speak at the end")
    parser.add_argument("--rows", type=int, default=12_000, help="rows of a batch")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--dry-run", action="store_true", help="50 steps on little data, on a CPU")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
