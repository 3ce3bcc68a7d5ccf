"""Stage: the weights of all stages as one checkpoint directory in the released layout.

    python -m tools.train_tiny.export OUT thinker.pt [talker.pt ...] [--codec codec.npz]

Each file is a torch.save of released names and tensors, or a model's directory; what comes later replaces what came
before. What is nowhere gets random weights. The codec becomes the tables of the Griffin-Lim vocoder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from golden_files import write_safetensors
from golden_tensors import random_tensor, tensor_shapes

from omni_rt.models.qwen3_omni.griffin_lim import FILE
from tools.train_tiny import runs, shape
from tools.train_tiny.codec import Codec


def collect(files: list[Path]) -> dict[str, np.ndarray]:
    """Return every tensor of the checkpoint, float32 that bfloat16 holds exactly; raise ValueError for a wrong one."""
    known: dict[str, torch.Tensor] = {}
    for file in files:
        known |= runs.load(file)
    generator = np.random.default_rng(0)
    tensors, random = {}, []
    for name, size in tensor_shapes(shape.config()):
        if name not in known:
            random.append(name)
            tensors[name] = random_tensor(name, size, generator)
            continue
        values = known.pop(name).to(torch.bfloat16).float().numpy()
        if values.shape != size:
            raise ValueError(f"{name} has the shape {values.shape}, the configuration says {size}")
        tensors[name] = values
    if known:
        raise ValueError(f"{len(known)} tensors have no place in the checkpoint, among them {sorted(known)[:3]}")
    if random:
        print(f"random: {len(random)} tensors, among them {random[0]}")
    return tensors


def main() -> None:
    """Write the checkpoint directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--codec", type=Path)
    arguments = parser.parse_args()
    shape.write_directory(arguments.out)
    tensors = collect(arguments.files)
    write_safetensors(arguments.out / "model.safetensors", tensors, bfloat16=True)
    if arguments.codec is not None:
        Codec.load(arguments.codec, torch.device("cpu")).write_tables(arguments.out / FILE)
    print(f"{arguments.out}: {sum(values.size for values in tensors.values()):,} parameters")


if __name__ == "__main__":
    main()
