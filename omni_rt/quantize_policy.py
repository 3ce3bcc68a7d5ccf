"""Which precision each tensor of a quantised model has, whether it is quantised at load or comes from a GGUF file.

Q8_0 for the weights of linear layers whose rows are a multiple of 32 long, F16 for the other linear layers, embeddings
and convolutions, F32 for what decides or scales: routers, norms, biases, codebooks, LayerScale and Snake. The encoders
of a reference voice keep their convolutions in F32, because a code is chosen by the nearest entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from omni_rt.tensor import BLOCK

BYTES_PER_VALUE = {"Q8_0": 34 / 32, "F16": 2.0, "F32": 4.0}

_EXACT = ("mlp.gate.weight", "shared_expert_gate.weight", "code_embedding.weight", "pos_embed.weight")
"""Ends of names: routers, the codebooks of Code2Wav, and a position table that is interpolated on the host."""

_EMBEDDINGS = ("embed_tokens.weight", "text_embedding.weight")
_CODE_TABLES = "codec_embedding."
_REFERENCE = ("speaker_encoder.", "encoder.")
"""Components that listen to a reference voice."""


def stored_type(name: str, shape: Sequence[int], keep: str = "q8_0") -> str:
    """Return "Q8_0", "F16" or "F32" for a tensor, by its name in a checkpoint of either family.

    `keep` "f16" leaves linear layers in F16.
    """
    if len(shape) < 2 or name.endswith(_EXACT) or "quantizer." in name:
        return "F32"
    if len(shape) > 2 or name.startswith("speaker_encoder."):
        return "F32" if name.startswith(_REFERENCE) else "F16"
    if name.endswith(_EMBEDDINGS) or _CODE_TABLES in name:
        return "F16"
    return "F16" if shape[-1] % BLOCK or keep == "f16" else "Q8_0"


def stored_bytes(name: str, shape: Sequence[int], keep: str = "q8_0") -> int:
    """Return the bytes of a tensor in its precision."""
    return int(prod(shape) * BYTES_PER_VALUE[stored_type(name, shape, keep)])
