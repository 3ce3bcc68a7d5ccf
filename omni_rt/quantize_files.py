"""`quantize`: a checkpoint in safetensors to one GGUF file per component, a piece of a tensor at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omni_rt.errors import InputError, ModelFormatError, UnsupportedError
from omni_rt.io import gguf_checkpoint as form
from omni_rt.io.files import atomic_write, is_held, read_json
from omni_rt.io.gguf_format import MAX_DIMENSIONS
from omni_rt.io.gguf_writer import GgufWriter, Planned
from omni_rt.io.hub import resolve
from omni_rt.model_files import CODEC_FOLDER, open_model
from omni_rt.model_part import ModelPart, Progress
from omni_rt.quant import quantise_blocks, rounded
from omni_rt.quantize_policy import stored_bytes, stored_type
from omni_rt.weights import Checkpoint, require_floats

PIECE_BYTES = 16 << 20
"""Of a tensor's float32 values: what is in memory at once."""

SIDE_FILES = (
    "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json",
    "special_tokens_map.json", "chat_template.json", "chat_template.jinja", "griffin_lim.safetensors",
    "README.md", "MODEL_CARD.md", "LICENSE",
    f"{CODEC_FOLDER}/config.json", f"{CODEC_FOLDER}/preprocessor_config.json",
)  # fmt: skip
"""Copied beside the GGUF files, so that the directory alone is enough to run; config.json follows as the last."""

EMBEDDED = (
    "generation_config.json", "preprocessor_config.json", "chat_template.json", "chat_template.jinja",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", f"{CODEC_FOLDER}/config.json",
)  # fmt: skip
"""Also kept in the metadata of the component that reads text, so that its file alone says what it is."""

READS_TEXT = {"qwen3_omni_moe": "thinker", "qwen3_tts": "talker"}
FILE_TYPES = {"q8_0": 7, "f16": 1}
"""`general.file_type` of each precision, as other programs number them."""


@dataclass(frozen=True)
class QuantisedTensor:
    """One line of the report: a tensor's component, its name in the checkpoint and in the file, its type, its bytes."""

    component: str
    source: str
    target: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class QuantisedModel:
    """What `quantize` wrote: the file of each component, and every tensor."""

    directory: Path
    files: dict[str, Path]
    tensors: list[QuantisedTensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def quantize(
    src: str | Path,
    dst: str | Path,
    *,
    components: Collection[str] | None = None,
    keep: str | None = None,
    local_files_only: bool = False,
    progress: Progress | None = None,
) -> QuantisedModel:
    """Write the model `src` (a reference, as `load` takes it) as one GGUF file per component into the directory `dst`.

    `components` chooses some of them; `keep` "f16" leaves linear weights in f16. A file appears under its name when it
    is whole and on the disk. Raises ModelNotFoundError, ModelFormatError, UnsupportedError for a model that is
    quantised already, and InputError for an unknown component, a directory that cannot be used, or a full disk.
    """
    precision = keep or "q8_0"
    if precision not in FILE_TYPES:
        raise InputError(f"keep={keep!r} is not known: use 'f16', or None for q8_0")
    source, target = resolve(str(src), local_files_only=local_files_only), _directory(dst)
    if form.is_quantised(source):
        raise UnsupportedError(f"{source}: is quantised already; give the original checkpoint")
    files = open_model(source)
    plan = _plan(files.parts, precision)
    plan = {component: plan[component] for component in _wanted(list(plan), components)}
    total, done = sum(line.nbytes for _, lines in plan.values() for line in lines), 0
    _prepare(target, source, total)

    def advance(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    config = (source / "config.json").read_text(encoding="utf-8")
    written: dict[str, Path] = {}
    for component, (checkpoint, lines) in plan.items():
        written[component] = target / form.file_name(component, precision)
        metadata = _metadata(source, config, component, precision, lines)
        with atomic_write(written[component]) as path, open(path, "wb") as file:
            planned = [Planned(line.target, line.dtype, _stored_shape(line.shape)) for line in lines]
            writer = GgufWriter(file, metadata, planned)
            for line in lines:
                writer.write(_pieces(checkpoint, line, advance))
        for other in set(FILE_TYPES) - {precision}:
            (target / form.file_name(component, other)).unlink(missing_ok=True)
    for name in (*SIDE_FILES, "config.json"):
        if (source / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            with atomic_write(target / name) as path:
                shutil.copyfile(source / name, path)
    return QuantisedModel(target, written, [line for _, lines in plan.values() for line in lines])


def _plan(parts: tuple[ModelPart, ...], precision: str) -> dict[str, tuple[Checkpoint, list[QuantisedTensor]]]:
    """Return for each component its checkpoint and its tensors."""
    plan: dict[str, tuple[Checkpoint, list[QuantisedTensor]]] = {}
    for part in parts:
        plan |= {component: (part.checkpoint, []) for component in part.prefixes}
        for name, component in part.names().items():
            shape = part.checkpoint.shape(name)
            if len(shape) > 1:  # less are counters beside the weights, which nothing reads
                require_floats(name, part.checkpoint.dtype(name))
            own = form.shortened(name.removeprefix(part.prefixes[component]))
            kind, size = stored_type(name, shape, precision), stored_bytes(name, shape, precision)
            plan[component][1].append(QuantisedTensor(component, name, own, kind, shape, size))
    return plan


def _wanted(there: list[str], components: Collection[str] | None) -> list[str]:
    """Return the components to write."""
    if components is None:
        return there
    unknown = sorted(set(components) - set(there))
    if unknown or not components:
        asked = ", ".join(unknown) or "without a name"
        raise InputError(f"the model has no component {asked}; it has {', '.join(there)}")
    return [component for component in there if component in components]


def _directory(dst: str | Path) -> Path:
    """Return the directory to write to."""
    try:
        if str(dst):
            return Path(dst).expanduser()
    except RuntimeError as error:
        raise InputError(f"{dst}: {error} Write the whole path") from error
    raise InputError("the directory to write to has an empty name; give one, or . for this one")


def _prepare(target: Path, source: Path, needed: int) -> None:
    """Make the directory, and check that it can take `needed` bytes."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot be made a directory ({error.strerror or error})") from error
    if any((target / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        raise InputError(f"{target}: holds an original checkpoint; give another directory for the quantised one")
    other = target / "config.json"
    if other.is_file() and read_json(other) != read_json(source / "config.json"):
        raise InputError(f"{target}: holds another model by its config.json; give an empty directory")
    for leftover in target.glob(".*.gguf"):  # of a run that was killed
        if not is_held(leftover):
            leftover.unlink(missing_ok=True)
    free = shutil.disk_usage(target).free
    if free < needed:
        raise InputError(
            f"{target}: {needed / 1e9:.2f} GB will be written, {free / 1e9:.2f} GB are free; make room, or choose "
            "another disk"
        )


def _metadata(
    source: Path, config: str, component: str, precision: str, lines: list[QuantisedTensor]
) -> Mapping[str, Any]:
    family = json.loads(config)["model_type"]
    metadata: dict[str, Any] = {
        "general.architecture": family,
        "general.type": "model",
        "general.name": f"{source.name} {component}",
        "general.file_type": FILE_TYPES[precision],
        "general.quantization_version": 2,
        "general.source": source.name,
        form.COMPONENT: component,
        form.PRECISION: precision,
        form.CONFIG: config,
    }
    for name in EMBEDDED:
        if component == READS_TEXT[family] and (source / name).is_file():
            metadata[f"omni_rt.file.{name}"] = (source / name).read_text(encoding="utf-8")
    for line in lines:
        if len(line.shape) > MAX_DIMENSIONS:
            metadata[form.SHAPE + line.target] = list(line.shape)
    return metadata


def _stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that a file can hold: the last axes of one with too many become one."""
    if len(shape) <= MAX_DIMENSIONS:
        return shape
    return (*shape[: MAX_DIMENSIONS - 1], int(np.prod(shape[MAX_DIMENSIONS - 1 :])))


def _pieces(checkpoint: Checkpoint, line: QuantisedTensor, advance: Callable[[int], None]) -> Iterator[np.ndarray]:
    """Yield a tensor's data in its new type, some rows at a time.

    Raises ModelFormatError for values that the type cannot hold.
    """
    narrow = checkpoint.dtype(line.source) == "BF16"
    values = checkpoint.raw(line.source).view(np.uint16) if narrow else checkpoint.array(line.source).reshape(-1)
    width = line.shape[-1] if line.shape else 1
    step = max(PIECE_BYTES // (4 * max(width, 1)), 1) * width
    for start in range(0, len(values), max(step, 1)):
        piece = values[start : start + step]
        if piece.dtype not in (np.uint16, np.float16, np.float32):
            piece = piece.astype(np.float32)
        if line.dtype == "Q8_0":
            data, fits = quantise_blocks(piece.reshape(-1, width))
        else:
            data, fits = rounded(piece, np.float16 if line.dtype == "F16" else np.float32)
        if not fits:
            raise ModelFormatError(
                f"{line.source}: holds values that are not finite or too large for {line.dtype}; download it again"
            )
        yield data
        advance(data.nbytes)
