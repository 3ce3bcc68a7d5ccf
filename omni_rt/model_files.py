"""A model's directory, opened but not loaded: its family, its configs, and where the tensors of each component lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omni_rt.errors import ModelNotFoundError, UnsupportedError
from omni_rt.io.files import read_json
from omni_rt.io.gguf_checkpoint import GgufCheckpoint, is_quantised
from omni_rt.io.safetensors import SafetensorsCheckpoint
from omni_rt.model_part import ModelPart
from omni_rt.models.qwen3_omni import components as omni
from omni_rt.models.qwen3_omni.config import MODEL_TYPE as OMNI
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_tts import components as tts
from omni_rt.models.qwen3_tts.config import MODEL_TYPE as TTS
from omni_rt.models.qwen3_tts.config import CodecConfig, Qwen3TtsConfig

CODEC_FOLDER = "speech_tokenizer"
"""Where the codec of Qwen3-TTS lies inside its directory."""


@dataclass(frozen=True)
class OmniFiles:
    """A Qwen3-Omni directory."""

    directory: Path
    config: Qwen3OmniConfig
    main: ModelPart

    @property
    def parts(self) -> tuple[ModelPart, ...]:
        """All checkpoints of the directory."""
        return (self.main,)


@dataclass(frozen=True)
class TtsFiles:
    """A Qwen3-TTS directory, with the codec that lies in a folder of its own."""

    directory: Path
    config: Qwen3TtsConfig
    codec_config: CodecConfig
    main: ModelPart
    codec: ModelPart

    @property
    def parts(self) -> tuple[ModelPart, ...]:
        """All checkpoints of the directory."""
        return (self.main, self.codec)


def open_model(directory: Path, quant: str | None = None) -> OmniFiles | TtsFiles:
    """Open a directory in Hugging Face layout or one that `quantize` wrote.

    `quant` q8_0 asks for that precision whatever the files hold. Raises ModelNotFoundError, ModelFormatError, or
    UnsupportedError for a family that this version does not run.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise ModelNotFoundError(
            f"{directory}: has no config.json; give the directory of a downloaded Qwen3-Omni or Qwen3-TTS checkpoint"
        )
    data = read_json(path)
    family = data.get("model_type")
    if family == OMNI:
        config = Qwen3OmniConfig.from_directory(directory)
        prefixes = omni.components_of(config)
        left_out = tuple(prefix for name, prefix in omni.PREFIXES.items() if name not in prefixes)
        return OmniFiles(directory, config, _part(directory, directory, prefixes, quant, left_out))
    if family == TTS:
        return _open_tts(directory, Qwen3TtsConfig.from_json(data), quant)
    raise UnsupportedError(f"{path}: model_type is {family!r}; this version runs {OMNI}, {TTS}")


def _open_tts(directory: Path, config: Qwen3TtsConfig, quant: str | None) -> TtsFiles:
    folder = directory / CODEC_FOLDER
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(f"{folder}: has no config.json; the codec of Qwen3-TTS lies there, download it too")
    codec_config = CodecConfig.from_json(read_json(folder / "config.json"))
    main = _part(directory, directory, tts.components_of(config), quant)
    return TtsFiles(directory, config, codec_config, main, _part(directory, folder, tts.CODEC_PREFIXES, quant))


def _part(
    directory: Path, original: Path, prefixes: dict[str, str], quant: str | None, ignored: tuple[str, ...] = ()
) -> ModelPart:
    """Open the components in `prefixes`: GGUF files in `directory`, or safetensors in `original`."""
    if not is_quantised(directory):
        return ModelPart(SafetensorsCheckpoint(original), prefixes, dict.fromkeys(prefixes, quant), ignored)
    checkpoint = GgufCheckpoint(directory, prefixes)
    return ModelPart(checkpoint, prefixes, {name: quant or made for name, made in checkpoint.quants.items()})
