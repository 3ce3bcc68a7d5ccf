"""What can be said about a model without loading it: parameters, bytes, types, and the memory that it will take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from omni_rt.io.gguf_format import TENSOR_TYPES
from omni_rt.model_files import OmniFiles, TtsFiles, open_model
from omni_rt.model_part import ModelPart
from omni_rt.models.decoder_config import DecoderConfig
from omni_rt.models.qwen3_omni import components as omni
from omni_rt.models.qwen3_tts import components as tts
from omni_rt.state import cache_bytes
from omni_rt.weights import placed_bytes

CARD = "MODEL_CARD.md"
"""A file beside a model whose first paragraph says plainly what the model is."""

_STORED_BYTES = {name: kind.size / kind.values for name, kind in TENSOR_TYPES.items()} | {"BOOL": 1, "U8": 1}


@dataclass(frozen=True)
class ComponentFacts:
    """One component: values in all its tensors, bytes in its file, tensors by type, and bytes once loaded.

    `loaded` maps a precision ("as stored"; for an original also "q8_0") to bytes.
    """

    name: str
    parameters: int
    nbytes: int
    types: dict[str, int]
    loaded: dict[str, int]


@dataclass(frozen=True)
class ModelFacts:
    """A whole model.

    `kv_bytes` are those that one position takes in the cache of each decoder with a context, by precision and decoder.
    """

    directory: Path
    family: str
    about: str | None
    components: list[ComponentFacts]
    kv_bytes: dict[str, dict[str, int]]

    @property
    def parameters(self) -> int:
        """Values in all tensors."""
        return sum(component.parameters for component in self.components)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that the model can be loaded in."""
        return tuple(self.components[0].loaded)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the files."""
        return sum(component.nbytes for component in self.components)

    def loaded(self, precision: str) -> int:
        """Return the bytes of all weights once loaded in a precision."""
        return sum(component.loaded[precision] for component in self.components)

    def longest_context(self, precision: str, memory: int) -> int:
        """Return how many positions fit into `memory` bytes beside the weights, 0 when not even these fit."""
        left = memory - self.loaded(precision)
        return max(left // sum(self.kv_bytes[precision].values()), 0)


def facts(directory: Path) -> ModelFacts:
    """Return what is known of the model in a directory. Raises the errors of `open_model`."""
    files = open_model(directory)
    components = [fact for part in files.parts for fact in _components(part)]
    family = "Qwen3-Omni" if isinstance(files, OmniFiles) else "Qwen3-TTS"
    kv = {
        way: {
            name: cache_bytes(config.cache_shape(1), quant or files.main.quants[name])
            for name, config in _decoders(files).items()
        }
        for way, quant in {"as stored": None, "q8_0": "q8_0"}.items()
        if way in components[0].loaded
    }
    return ModelFacts(directory, family, _about(directory), components, kv)


def _components(part: ModelPart) -> list[ComponentFacts]:
    """Return the facts of each component of a checkpoint."""
    checkpoint, found = part.checkpoint, []
    names: dict[str, list[str]] = {component: [] for component in part.prefixes}
    for name, component in part.names().items():
        names[component].append(name)
    for component, own in names.items():
        sizes = {name: prod(checkpoint.shape(name)) for name in own}
        stored = sum(int(sizes[name] * _STORED_BYTES.get(checkpoint.dtype(name), 8)) for name in own)
        quant = part.quants[component]
        ways = {"as stored": quant} if quant else {"as stored": None, "q8_0": "q8_0"}
        loaded = {
            way: sum(placed_bytes(checkpoint, name, precision) for name in own) for way, precision in ways.items()
        }
        types = dict(Counter(checkpoint.dtype(name) for name in own))
        found.append(ComponentFacts(component, sum(sizes.values()), stored, types, loaded))
    return found


def _decoders(files: OmniFiles | TtsFiles) -> dict[str, DecoderConfig]:
    """Return the decoders whose cache grows with the context."""
    if isinstance(files, TtsFiles):
        return tts.cached_decoders(files.config)
    return omni.cached_decoders(files.config)


def _about(directory: Path) -> str | None:
    """Return the first paragraph of the model card, without its title."""
    card = directory / CARD
    if not card.is_file():
        return None
    paragraphs = card.read_text(encoding="utf-8").split("\n\n")
    return next((" ".join(p.split()) for p in paragraphs if p.strip() and not p.lstrip().startswith("#")), None)
