"""Stage: the audio tower, the vision tower and the Thinker, on speech, text and pictures in one run.

    python -m tools.train_tiny.understand OUT [--steps N] [--start WEIGHTS] [--dry-run]

Cross-entropy on the reply, 0.3 x word CTC on the heard rows, and a little load balancing of the experts. Writes
OUT/thinker.pt (released names, bfloat16) and OUT/understand.json (how well unseen voices are understood). A run that
was cut goes on from OUT/thinker-run.pt.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from tools.train_tiny import examples, runs, shape
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
    """Return clips, texts, pictures and pictures with spoken questions, so many of each.

    They are kept beside `directory`: the noise in the synthesiser's voices is another each time.
    """
    path = directory.parent / f"corpus-{role}-{seed}-{'-'.join(map(str, counts))}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    writer, corpus = examples.Writer(directory), examples.Corpus()
    chances = [random.Random(f"{seed} {role} {kind}") for kind in range(4)]
    examples.add_speech(corpus, writer, counts[0], role, chances[0])
    examples.add_texts(corpus, writer, counts[1], chances[1])
    examples.add_pictures(corpus, writer, counts[2], chances[2], directory)
    examples.add_spoken_pictures(corpus, writer, counts[3], role, chances[3], directory)
    with runs.replacing(path) as file:
        pickle.dump(corpus, file, pickle.HIGHEST_PROTOCOL)
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
    if arguments.start:
        runs.load_weights(model, "thinker.", arguments.start)
    model.model.embed_tokens.requires_grad_(not arguments.keep_embeddings)
    print(f"{sum(value.numel() for value in model.parameters()):,} parameters", flush=True)
    trainer = Trainer(model, store, (2, 1, 1, 1) if dry else SIZES)
    run = runs.Run(arguments.out / "thinker-run.pt", trainer.parts, arguments)
    first, steps = run.resume(), min(50, arguments.steps) if dry else arguments.steps
    trainer.skip(first)
    began = time.monotonic()
    for step in range(first, steps):
        runs.seed_step(arguments.seed, step)
        trainer.step(runs.rate_at(step, steps, arguments.rate))
        if (step + 1) % runs.SAVED_EVERY == 0 or step + 1 == steps:
            entropy, ctc = trainer.wait()
            pace = 1000 * (time.monotonic() - began) / (step + 1 - first)
            print(f"{step + 1} entropy {entropy:.4f} ctc {ctc:.4f} {pace:.1f} ms a step", flush=True)
            run.save(step + 1)
    runs.write_weights(model, "thinker.", arguments.out / "thinker.pt")
    result = {"clean": exact(model, check), "10 dB": exact(model, check, 10.0)}
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
    parser.add_argument("--steps", type=int, default=14_000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seed", type=int, default=SEED, help="of the data; another to go on with other data")
    parser.add_argument("--start", type=Path, help="begin with these weights: a file, or a model's directory")
    parser.add_argument("--keep-embeddings", action="store_true", help="leave the token embeddings as they are")
    parser.add_argument("--dry-run", action="store_true", help="50 steps on little data, on a CPU")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
