"""Qwen3-Omni's config.json, read strictly.

Source of the keys: config.json of Qwen3-Omni-30B-A3B-Instruct as written by transformers 4.57 and 5.x. Class defaults
of transformers are wrong for that release, so none is used: the few defaults in `config_sections` are for keys which
the released file leaves out, and say so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni_rt.errors import ModelNotFoundError
from omni_rt.io.files import read_json
from omni_rt.models.config import (
    BOILERPLATE,
    PLAIN_ATTENTION,
    Fixed,
    agree,
    full_attention,
    key,
    plain_rope,
    read,
    read_sampling,
    require,
    section_of,
)
from omni_rt.models.qwen3_omni.config_sections import (
    AudioEncoderConfig,
    Code2WavConfig,
    CodePredictorConfig,
    GenerationDefaults,
    TalkerConfig,
    TalkerTextConfig,
    ThinkerConfig,
    TokenIds,
    VisionEncoderConfig,
)
from omni_rt.sampling import Sampling

MODEL_TYPE = "qwen3_omni_moe"

_IGNORED_DECODER = {
    **BOILERPLATE,
    "max_window_layers": "is read only with a sliding window, which is refused",
}
_IGNORED_AUDIO = {
    **BOILERPLATE,
    "conv_chunksize": "bounds the reference's memory, not its result",
    "max_source_positions": "is the length of a table of which one chunk's rows are read",
    "num_hidden_layers": "repeats encoder_layers",
    "tie_word_embeddings": "says nothing where there are no word embeddings",
}
_IGNORED_VISION = {
    **BOILERPLATE,
    "image_size": "is read by nothing: the position table has its own size",
    "in_chans": "repeats in_channels",
    "spatial_patch_size": "repeats patch_size",
    "tokens_per_second": "is read by nothing: positions follow position_id_per_seconds",
    "tie_word_embeddings": "says nothing where there are no word embeddings",
}
_TOP_TOKENS = [
    "im_start_token_id", "im_end_token_id", "system_token_id", "user_token_id", "assistant_token_id",
    "tts_pad_token_id", "tts_bos_token_id", "tts_eos_token_id",
]  # fmt: skip
_TALKER_TOKENS = [
    "audio_token_id", "image_token_id", "video_token_id", "audio_start_token_id", "audio_end_token_id",
    "vision_start_token_id",
]  # fmt: skip
_THINKER_TOKENS = [*_TALKER_TOKENS, "vision_end_token_id"]
_ELSEWHERE = "is read on its own"
_IGNORED_TOP = {
    **BOILERPLATE,
    **dict.fromkeys([*_TOP_TOKENS, "thinker_config", "talker_config", "code2wav_config"], _ELSEWHERE),
}
_IGNORED_THINKER = {
    **BOILERPLATE,
    **dict.fromkeys([*_THINKER_TOKENS, "user_token_id", "audio_config", "vision_config", "text_config"], _ELSEWHERE),
    "seconds_per_chunk": "is read by nothing in this model",
}
_IGNORED_TALKER = {
    **BOILERPLATE,
    **dict.fromkeys([*_TALKER_TOKENS, "spatial_merge_size"], "repeats the thinker's, and is compared with it"),
    "text_config": _ELSEWHERE,
    "code_predictor_config": _ELSEWHERE,
    "seconds_per_chunk": "is read by nothing in this model",
}
_IGNORED_CODE2WAV = {
    **BOILERPLATE,
    **dict.fromkeys(
        ("semantic_codebook_size", "num_semantic_quantizers", "codebook_dim", "vector_quantization_hidden_dimension"),
        "describes the quantiser of training; decoding reads one table of num_quantizers x codebook_size rows",
    ),
}
_WHOLE = {"quantization_config": Fixed((None,))}
_NO_WINDOW = {**PLAIN_ATTENTION, "sliding_window": Fixed((None,))}


@dataclass(frozen=True, kw_only=True)
class Qwen3OmniConfig:
    """Everything that config.json says. `talker` and `code2wav` are None in a model without speech output."""

    audio: AudioEncoderConfig
    vision: VisionEncoderConfig
    thinker: ThinkerConfig
    talker: TalkerConfig | None
    code2wav: Code2WavConfig | None
    tokens: TokenIds
    generation: GenerationDefaults

    @classmethod
    def from_json(cls, data: dict[str, Any], generation: dict[str, Any] | None = None) -> Qwen3OmniConfig:
        """Return the config of a parsed config.json and, where there is one, a parsed generation_config.json.

        Raises ModelFormatError for a missing, unknown or contradictory key, UnsupportedError for a setting of which
        only the released value is implemented.
        """
        where = "config.json"
        agree("kind of model", (f"{where} model_type", data.get("model_type")), ("this reader's", MODEL_TYPE))
        top = read(_Top, data, where, ignored=_IGNORED_TOP, fixed=_WHOLE)
        thinker = section_of(data, "thinker_config", where)
        config = cls(
            audio=_audio(thinker),
            vision=_vision(thinker),
            thinker=_thinker(thinker),
            talker=_talker(section_of(data, "talker_config", where)) if top.speaks else None,
            code2wav=_code2wav(section_of(data, "code2wav_config", where)) if top.speaks else None,
            tokens=_tokens(data, thinker),
            generation=_generation(generation or {}),
        )
        _check_joints(config, data)
        return config

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> Qwen3OmniConfig:
        """Return the config of a checkpoint directory; raise ModelNotFoundError when it holds no config.json."""
        path = Path(directory) / "config.json"
        if not path.is_file():
            raise ModelNotFoundError(
                f"{directory}: has no config.json; give the directory of a downloaded Qwen3-Omni checkpoint"
            )
        generation = path.with_name("generation_config.json")
        return cls.from_json(read_json(path), read_json(generation) if generation.is_file() else None)


@dataclass(frozen=True, kw_only=True)
class _Top:
    """The settings of the outermost object that are not token ids."""

    speaks: bool = key("enable_audio_output")


@dataclass(frozen=True, kw_only=True)
class _ThinkerSection:
    """The settings of thinker_config itself."""

    positions_per_second: int = key("position_id_per_seconds")
    tied: bool = key("tie_word_embeddings", default=False)


def _audio(thinker: dict[str, Any]) -> AudioEncoderConfig:
    where = "config.json: thinker_config"
    fixed = {"activation_function": Fixed(("gelu",), required=True), "scale_embedding": Fixed((False,)), **_WHOLE}
    return read(
        AudioEncoderConfig, section_of(thinker, "audio_config", where), f"{where}.audio_config",
        ignored=_IGNORED_AUDIO, fixed=fixed,
    )  # fmt: skip


def _vision(thinker: dict[str, Any]) -> VisionEncoderConfig:
    where = "config.json: thinker_config"
    section = dict(section_of(thinker, "vision_config", where))
    rope = section.pop("rope_parameters", None)
    if isinstance(rope, dict) and "rope_theta" in rope:  # transformers 5 writes it there
        section["rope_theta"] = rope["rope_theta"]
    fixed = {
        "hidden_act": Fixed(("gelu_pytorch_tanh",), required=True),
        "apply_vit_abs_pos_embed": Fixed((True,)),
        **_WHOLE,
    }
    return read(VisionEncoderConfig, section, f"{where}.vision_config", ignored=_IGNORED_VISION, fixed=fixed)


def _thinker(thinker: dict[str, Any]) -> ThinkerConfig:
    where = "config.json: thinker_config"
    own = read(_ThinkerSection, thinker, where, ignored=_IGNORED_THINKER, fixed=_WHOLE)
    text = section_of(thinker, "text_config", where)
    tied = text.get("tie_word_embeddings", own.tied)
    if "tie_word_embeddings" in thinker:
        agree(
            "tying of lm_head to the embeddings",
            ("thinker_config tie_word_embeddings", own.tied),
            ("its text_config's", tied),
        )
    fixed = {
        **_NO_WINDOW,
        "norm_topk_prob": Fixed((True,), required=True),
        "shared_expert_intermediate_size": Fixed((0,)),
        "tie_word_embeddings": Fixed((False, True)),
    }
    given = {"tied_embeddings": tied, "positions_per_second": own.positions_per_second}
    where = f"{where}.text_config"
    return read(ThinkerConfig, plain_rope(text, where), where, ignored=_IGNORED_DECODER, fixed=fixed, given=given)


def _talker(talker: dict[str, Any]) -> TalkerConfig:
    where = "config.json: talker_config"
    text = plain_rope(section_of(talker, "text_config", where), f"{where}.text_config")
    if "num_local_experts" in text:  # transformers 5 writes this name
        experts = text.pop("num_local_experts")
        agree(
            "number of talker experts",
            ("num_local_experts", experts),
            ("num_experts", text.setdefault("num_experts", experts)),
        )
    untied = {**_NO_WINDOW, "tie_word_embeddings": Fixed((False,))}
    sparse = {**untied, "norm_topk_prob": Fixed((True,), required=True)}
    decoder = read(TalkerTextConfig, text, f"{where}.text_config", ignored=_IGNORED_DECODER, fixed=sparse)
    predictor = plain_rope(section_of(talker, "code_predictor_config", where), f"{where}.code_predictor_config")
    full = {**untied, "layer_types": full_attention(predictor)}
    code_predictor = read(
        CodePredictorConfig, predictor, f"{where}.code_predictor_config", ignored=_IGNORED_DECODER, fixed=full
    )
    given = {"decoder": decoder, "code_predictor": code_predictor}
    return read(
        TalkerConfig, talker, where, ignored=_IGNORED_TALKER,
        fixed={"tie_word_embeddings": Fixed((False,)), **_WHOLE}, given=given,
    )  # fmt: skip


def _code2wav(section: dict[str, Any]) -> Code2WavConfig:
    where = "config.json: code2wav_config"
    plain = plain_rope(section, where)
    width, heads = plain.get("hidden_size"), plain.get("num_attention_heads")
    if "head_dim" not in plain and isinstance(width, int) and isinstance(heads, int) and heads > 0:
        plain["head_dim"] = width // heads  # the released file leaves it out
    return read(Code2WavConfig, plain, where, ignored=_IGNORED_CODE2WAV, fixed=PLAIN_ATTENTION)


def _tokens(data: dict[str, Any], thinker: dict[str, Any]) -> TokenIds:
    merged = {name: data[name] for name in _TOP_TOKENS if name in data}
    merged |= {name: thinker[name] for name in _THINKER_TOKENS if name in thinker}
    return read(TokenIds, merged, "config.json")


def _generation(data: dict[str, Any]) -> GenerationDefaults:
    """Return the defaults, with what generation_config.json sets; other keys of it are a caller's choices and skipped.

    As in the reference the thinker is greedy unless the file asks for sampling with do_sample.
    """
    released = GenerationDefaults()
    thinker = read_sampling(data, "", Sampling(temperature=1.0) if data.get("do_sample") else released.thinker)
    if not data.get("do_sample"):
        thinker = replace(thinker, temperature=0.0)
    limits = {
        "max_new_tokens": data.get("max_new_tokens") or released.max_new_tokens,
        "max_frames": data.get("talker_max_new_tokens") or released.max_frames,
    }
    read_limits = read(_Limits, limits, "generation_config.json")
    return GenerationDefaults(
        thinker, read_sampling(data, "talker_", released.talker), released.code_predictor,
        read_limits.max_new_tokens, read_limits.max_frames,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Limits:
    max_new_tokens: int = key("max_new_tokens")
    max_frames: int = key("max_frames")


def _check_joints(config: Qwen3OmniConfig, data: dict[str, Any]) -> None:
    """Check what one part of the model hands to another, and ids that the file states twice."""
    thinker, talker, code2wav = config.thinker, config.talker, config.code2wav
    width = ("thinker text_config hidden_size", thinker.width)
    agree("width of the thinker", ("audio_config output_dim", config.audio.output_width), width)
    agree("width of the thinker", ("vision_config out_hidden_size", config.vision.output_width), width)
    require(
        len(config.vision.deepstack_layers) <= thinker.layers,
        f"{len(config.vision.deepstack_layers)} deepstack taps feed only {thinker.layers} thinker layers",
    )
    for name, token in vars(config.tokens).items():
        require(token < thinker.vocabulary, f"token {name} {token} is outside the vocabulary of {thinker.vocabulary}")
    if "user_token_id" in data["thinker_config"]:
        stated = ("thinker_config user_token_id", data["thinker_config"]["user_token_id"])
        agree("id of the role word user", stated, ("user_token_id", config.tokens.user))
    if talker is None or code2wav is None:
        return
    agree("width of the thinker", ("talker thinker_hidden_size", talker.thinker_width), width)
    require(
        talker.accept_hidden_layer <= thinker.layers,
        f"talker accept_hidden_layer {talker.accept_hidden_layer} is beyond the thinker's {thinker.layers} layers",
    )
    agree("codebooks", ("talker num_code_groups", talker.codebooks), ("code2wav num_quantizers", code2wav.codebooks))
    predictor_vocabulary = ("code_predictor vocab_size", talker.code_predictor.vocabulary)
    agree("entries of a codebook", predictor_vocabulary, ("code2wav codebook_size", code2wav.codebook_size))
    for name in (*_TALKER_TOKENS, "spatial_merge_size"):
        if name in data["talker_config"]:
            source = data["thinker_config"].get(name, data["thinker_config"]["vision_config"].get(name))
            agree(name, (f"talker_config {name}", data["talker_config"][name]), (f"thinker_config {name}", source))
