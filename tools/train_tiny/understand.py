"""Stage: the audio tower, the vision tower and the Thinker, on speech, text and pictures in one run.

    python -m tools.train_tiny.understand OUT [--steps N] [--resume FILE] [--dry-run]

Cross-entropy on the reply, 0.3 x word CTC on the heard rows, and a little load balancing of the experts. Writes
OUT/thinker.pt (released names, bfloat16) and OUT/understand.json (how well unseen voices are understood).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from tools.train_tiny import examples, shape
from tools.train_tiny.batches import Store
from tools.train_tiny.thinker import Thinker
from tools.train_tiny.trainer import Trainer

SEED = 6
SIZES = (240, 32, 96, 16)
"""Examples of a batch: speech, text, pictures, pictures with spoken questions."""
CLIPS, TEXTS, PICTURES, SPOKEN_PICTURES = 64_000, 12_000, 24_000, 6_000
CHECK = 400
"""Held-out clips, and as many pictures, that are looked at now and then."""


def corpus_of(directory: Path, role: str, counts: tuple[int, int, int, int], seed: int) -> examples.Corpus:
    """Make clips, texts, pictures and pictures with spoken questions, so many of each."""
    writer, corpus = examples.Writer(directory), examples.Corpus()
    chances = [random.Random(f"{seed} {role} {kind}") for kind in range(4)]
    examples.add_speech(corpus, writer, counts[0], role, chances[0])
    examples.add_texts(corpus, writer, counts[1], chances[1])
    examples.add_pictures(corpus, writer, counts[2], chances[2], directory)
    examples.add_spoken_pictures(corpus, writer, counts[3], role, chances[3], directory)
    return corpus


@torch.no_grad()
def exact(model: Thinker, store: Store, decibels: float | None = None, size: int = 200) -> dict[str, tuple[int, int]]:
    """Return by task how many replies are right to the last token, of how many.

    A reply is right when the likeliest token is the wanted one at each place: then greedy decoding writes just it.
    """
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(store.lengths), size):
        chosen = np.arange(start, min(start + size, len(store.lengths)))
        batch, targets, _ = store.batch(chosen, training=False, decibels=decibels)
        with torch.autocast(store.device.type, torch.bfloat16, enabled=store.device.type == "cuda"):
            logits, _ = model(batch)
        good = ((logits.argmax(-1) == targets) | (targets == -100)).all(1).tolist()
        for index, value in zip(chosen, good, strict=True):
            right[store.corpus.examples[index].task].append(value)
    model.train()
    return {task: (sum(values), len(values)) for task, values in sorted(right.items())}


def rate_at(step: int, done: float, peak: float) -> float:
    """Return the learning rate: a short rise, then a half cosine over the share of the run that is done."""
    return peak * min(1.0, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * min(done, 1.0)))))


def save(model: Thinker, path: Path) -> None:
    """Write the weights under their released names, in bfloat16."""
    torch.save({f"thinker.{name}": value.to(torch.bfloat16) for name, value in model.state_dict().items()}, path)


def train(arguments: argparse.Namespace) -> None:
    """Run the stage."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    directory = arguments.out / "checkpoint"
    shape.write_directory(directory)
    started = time.monotonic()
    dry = arguments.dry_run
    counts = (48, 16, 12, 6) if dry else (arguments.clips, TEXTS, PICTURES, SPOKEN_PICTURES)
    side = shape.DIMENSIONS.vision_positions
    few = (12, 4, 4, 2) if dry else (CHECK, CHECK, CHECK, CHECK // 4)
    # Both before anything lies on the GPU: the workers are forks of this process.
    taught = corpus_of(directory, "model", counts, arguments.seed)
    unseen = corpus_of(directory, "held-out", few, SEED)
    store, check = Store(taught, device, side), Store(unseen, device, side)
    print(f"{len(store.lengths)} examples in {time.monotonic() - started:.0f} s", flush=True)
    model = Thinker(shape.config()).to(device)
    if arguments.resume:
        known = torch.load(arguments.resume, map_location=device)
        model.load_state_dict({name.removeprefix("thinker."): value.float() for name, value in known.items()})
    model.model.embed_tokens.requires_grad_(not arguments.keep_embeddings)
    print(f"{sum(value.numel() for value in model.parameters()):,} parameters", flush=True)
    trainer = Trainer(model, store, (2, 1, 1, 1) if dry else SIZES)
    steps = min(50, arguments.steps) if dry else arguments.steps
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        if step % 50 == 0 and arguments.seconds:
            trainer.wait()  # the clock of the GPU counts, not that of who queues its work
        clock = (time.monotonic() - started) / arguments.seconds if arguments.seconds else 0.0
        done = max(step / steps, clock)
        trainer.step(rate_at(step, done, arguments.rate))
        step += 1
        if step % (25 if dry else 1000) == 0:
            entropy, ctc = trainer.wait()
            pace = 1000 * (time.monotonic() - began) / step
            print(f"{step} entropy {entropy:.4f} ctc {ctc:.4f} {pace:.1f} ms a step", flush=True)
            save(model, arguments.out / "thinker.pt")
    trainer.wait()
    save(model, arguments.out / "thinker.pt")
    result = {"steps": {"made": (step, steps)}, "clean": exact(model, check), "10 dB": exact(model, check, 10.0)}
    (arguments.out / "understand.json").write_text(json.dumps(result, indent=1))
    for name, counted in result.items():
        print(name, summary(counted))


def summary(counted: dict[str, tuple[int, int]]) -> str:
    """Return the counts in one line."""
    return ", ".join(f"{task} {right}/{total}" for task, (right, total) in counted.items())


def main() -> None:
    """Read the command line and run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, help="end in so many, data included, whatever the steps")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seed", type=int, default=SEED, help="of the data; another when a run goes on")
    parser.add_argument("--resume", type=Path, help="begin with these weights")
    parser.add_argument("--keep-embeddings", action="store_true", help="leave the token embeddings as they are")
    parser.add_argument("--dry-run", action="store_true", help="50 steps on little data, on a CPU")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
