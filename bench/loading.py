"""How fast a quantised file becomes weights: `python bench/loading.py --gigabytes 2 [--device wgpu] [--folder DIR]`.

Writes a file of expert-sized Q8_0 tensors, then reads it into planes as a Thinker layer does (256 pieces to a weight),
and compares that with a plain copy of the same mapped file in the same run. Times are medians of three runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import omni_rt
from omni_rt import native
from omni_rt.devices.device import Device
from omni_rt.io.gguf import GgufFile
from omni_rt.io.gguf_writer import GgufWriter, Planned
from omni_rt.quant import BLOCK_BYTES, Quantised
from omni_rt.tensor import BLOCK

EXPERTS, NARROW, WIDTH = 128, 768, 2048
RUNS = 3


def write(path: Path, gigabytes: float) -> int:
    """Write whole layers of experts until the file has the size; return the layers."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, NARROW * WIDTH // BLOCK * BLOCK_BYTES, np.uint8).reshape(-1, BLOCK_BYTES)
    one[:, :2] = np.array([1e-3], np.float16).view(np.uint8)
    layers = max(round(gigabytes * 1e9 / (2 * EXPERTS * one.size)), 1)
    names = [f"{layer}.{expert}.{part}" for layer in range(layers) for expert in range(EXPERTS) for part in "gu"]
    with open(path, "wb") as file:
        writer = GgufWriter(file, {}, [Planned(name, "Q8_0", (NARROW, WIDTH)) for name in names])
        for _ in names:
            writer.write([one])
    return layers


def weights(file: GgufFile, layers: int) -> Iterator[Quantised]:
    """Yield the fused weight of each layer."""
    for layer in range(layers):
        pieces = [file.raw(f"{layer}.{expert}.{part}") for expert in range(EXPERTS) for part in "gu"]
        yield Quantised((EXPERTS, 2 * NARROW, WIDTH), pieces)


def copy(file: GgufFile, layers: int) -> None:
    """Copy every layer into fresh memory, one after the other, by one thread."""
    for weight in weights(file, layers):
        np.concatenate(weight.pieces)


def load(file: GgufFile, layers: int, device: Device) -> None:
    """Place every layer, keeping all."""
    placed = [device.weight(weight, "q8_0") for weight in weights(file, layers)]
    device.settle()
    device.synchronize()
    del placed


def seconds(run: Callable[[], None]) -> float:
    """Return the median time of some runs."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def anonymous() -> int:
    """Return the bytes of this process that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description="Time the loading of a quantised file.")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where the file is written; the system's own when left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "experts.gguf"
        layers = write(path, arguments.gigabytes)
        size = path.stat().st_size
        started = time.perf_counter()
        file = GgufFile(path)
        header = time.perf_counter() - started
        pool = native.weight_pool()
        found = {"bytes": size, "tensors": len(file.entries), "header_s": header, "threads": pool and pool.threads}
        print(json.dumps(found), file=sys.stderr, flush=True)
        found["copy_s"] = seconds(lambda: copy(file, layers))
        with omni_rt.open_device(arguments.device) as device:
            before = anonymous()
            found["load_s"] = seconds(lambda: load(file, layers, device))
            found["device"] = device.name  # type: ignore[assignment]
            found["anonymous_bytes"] = anonymous() - before
        found["copy_gb_per_s"], found["load_gb_per_s"] = size / found["copy_s"] / 1e9, size / found["load_s"] / 1e9
        print(json.dumps(found))


if __name__ == "__main__":
    main()
