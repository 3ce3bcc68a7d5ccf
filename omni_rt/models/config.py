"""Strict config reading: a missing key is an error, and so is an unknown one unless it is ignored for a stated reason.

A config dataclass names the JSON key of each field with `key`; a field without one is not read. Keys that change the
maths but have one supported value only are `fixed`: any other value is refused. Nothing is guessed: class defaults of
other libraries are wrong for the released checkpoints.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omni_rt.errors import InputError, ModelFormatError, UnsupportedError
from omni_rt.sampling import Sampling

Config = TypeVar("Config")
_LARGEST = 1 << 31  # no count of a real model is near it


def _because(reason: str, keys: str) -> dict[str, str]:
    return dict.fromkeys(keys.split(), reason)


BOILERPLATE: Mapping[str, str] = {
    **_because(
        "says who wrote the file, or with what",
        "_name_or_path architectures transformers_version model_type tokenizer_class task_specific_params _commit_hash "
        "_attn_implementation_autoset auto_map finetuning_task problem_type id2label label2id prefix",
    ),
    **_because(
        "is for training",
        "initializer_range attention_dropout activation_dropout dropout layerdrop encoder_layerdrop "
        "router_aux_loss_coef output_router_logits gradient_checkpointing layer_scale_initial_scale tf_legacy_loss "
        "pruned_heads tie_encoder_decoder",
    ),
    **_because("the tensors say their own dtype", "dtype torch_dtype use_bfloat16"),
    **_because(
        "is about what a PyTorch call returns, or how it is run",
        "output_attentions output_hidden_states return_dict torchscript use_cache chunk_size_feed_forward "
        "is_decoder is_encoder_decoder add_cross_attention cross_attention_hidden_size",
    ),
    **_because(
        "is an old place for generation settings, which are not read from a model config",
        "bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample early_stopping "
        "encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id "
        "length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences "
        "output_scores remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens temperature "
        "top_k top_p typical_p bos_token_id eos_token_id pad_token_id sep_token_id",
    ),
}
"""Keys that PyTorch configs carry everywhere and no forward pass reads, each with the reason why it is ignored."""


@dataclass(frozen=True)
class Fixed:
    """A key of which only the values in `accepted` are supported; it may be absent unless `required`."""

    accepted: tuple[object, ...]
    required: bool = False


PLAIN_ATTENTION: Mapping[str, Fixed] = {
    "attention_bias": Fixed((False,), required=True),
    "hidden_act": Fixed(("silu",), required=True),
    "use_sliding_window": Fixed((False,)),
    "use_qk_norm": Fixed((True,)),
    "quantization_config": Fixed((None,)),
}
"""What every Qwen3 decoder here shares: no attention biases, SiLU, no optional sliding window."""


def key(name: str, *, default: Any = dataclasses.MISSING, minimum: float = 1) -> Any:
    """Return a dataclass field that is read from the JSON key `name`, a number of at least `minimum`."""
    return dataclasses.field(default=default, metadata={"key": name, "minimum": minimum}, kw_only=True)


def read(
    cls: type[Config],
    data: object,
    where: str,
    *,
    ignored: Mapping[str, str] = BOILERPLATE,
    fixed: Mapping[str, Fixed] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Config:
    """Return a `cls` read from the JSON object `data`, with the fields in `given` taken as they are.

    `where` names the object in messages, `ignored` maps keys to the reason why they may be skipped. Raises
    ModelFormatError for a missing key, an unknown key or a value of the wrong type, UnsupportedError for a value that
    `fixed` does not accept.
    """
    section = as_object(data, where)
    fixed, given = fixed or {}, given or {}
    hints = get_type_hints(cls)
    values: dict[str, Any] = dict(given)
    known = set(fixed)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = field.metadata.get("key")
        if name is None or field.name in given:
            continue
        known.add(name)
        if name in section:
            values[field.name] = _convert(
                section[name], hints[field.name], f"{where}: {name}", field.metadata["minimum"]
            )
        elif field.default is dataclasses.MISSING:
            raise ModelFormatError(
                f"{where}: has no {name!r}, which the model needs; is this the config of a whole model?"
            )
    for name, rule in fixed.items():
        _check_fixed(section, name, rule, where)
    unknown = sorted(set(section) - known - set(ignored))
    if unknown:
        raise ModelFormatError(
            f"{where}: has {', '.join(map(repr, unknown))}, which this build does not know and which may change the "
            "result; use a newer build, or a checkpoint of the released architecture"
        )
    return cls(**values)


def as_object(data: object, where: str) -> dict[str, Any]:
    """Return `data` when it is a JSON object, else raise ModelFormatError."""
    if not isinstance(data, dict):
        raise ModelFormatError(f"{where}: is {_show(data)}, expected a JSON object")
    return data


def full_attention(section: Mapping[str, Any]) -> Fixed:
    """Return the rule for `layer_types` where every layer sees all positions, as many as the section lists."""
    listed = section.get("layer_types")
    return Fixed((["full_attention"] * len(listed if isinstance(listed, list) else []), None))


def section_of(data: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return the JSON object `data[name]`; raise ModelFormatError when it is missing or something else."""
    if name not in data:
        raise ModelFormatError(f"{where}: has no {name!r}; is this the config of the whole model?")
    return as_object(data[name], f"{where}: {name}")


def agree(what: str, first: tuple[str, object], second: tuple[str, object]) -> None:
    """Raise ModelFormatError when two places of a config, each (name, value), disagree about `what`."""
    if first[1] != second[1]:
        raise ModelFormatError(
            f"config.json: {first[0]} is {_show(first[1])} and {second[0]} is {_show(second[1])}, "
            f"but both give the {what}; use the config that belongs to the weights"
        )


def require(condition: bool, message: str) -> None:
    """Raise ModelFormatError with `message` unless `condition` holds."""
    if not condition:
        raise ModelFormatError(f"config.json: {message}; use the config that belongs to the weights")


@dataclass(frozen=True, kw_only=True)
class _Picking:
    """The keys of generation_config.json that say how tokens are picked."""

    temperature: float = key("temperature", minimum=0)
    top_k: int = key("top_k", minimum=0)
    top_p: float = key("top_p", minimum=0)
    repetition_penalty: float = key("repetition_penalty", minimum=0)


def read_sampling(data: Mapping[str, Any], prefix: str, start: Sampling) -> Sampling:
    """Return `start` with what a parsed generation_config.json says under keys with a prefix; null says nothing.

    Raises ModelFormatError for a value of the wrong type or out of range.
    """
    where = "generation_config.json"
    stated = {name: data[prefix + name] for name in vars(start) if data.get(prefix + name) is not None}
    try:
        return Sampling(**vars(read(_Picking, vars(start) | stated, where)))
    except InputError as error:
        raise ModelFormatError(f"{where}: {error}") from error


def plain_rope(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `data` with its rotary settings as plain `rope_theta` and, when there are axes, `mrope_section`.

    Both spellings are read: `rope_theta` beside `rope_scaling` (transformers 4) and `rope_parameters` (5). Only
    unscaled rotary angles are supported, with the interleaved assignment of frequencies to axes.
    """
    plain = {k: v for k, v in data.items() if k not in ("rope_theta", "rope_scaling", "rope_parameters")}
    thetas = {"rope_theta": data["rope_theta"]} if "rope_theta" in data else {}
    for name in ("rope_scaling", "rope_parameters"):
        if data.get(name) is None:
            continue
        rope = as_object(data[name], f"{where}: {name}")
        if "rope_theta" in rope:
            thetas[f"{name}.rope_theta"] = rope["rope_theta"]
        if "mrope_section" in rope:
            interleaved = {k: rope[k] for k in ("interleaved", "mrope_interleaved") if k in rope}
            if not interleaved or not all(value is True for value in interleaved.values()):
                raise UnsupportedError(
                    f"{where}: {name} has mrope_section with {interleaved or 'no interleaved'}, "
                    "only interleaved axes are supported"
                )
            agree("rotary axes", (f"{where} {name}", rope["mrope_section"]),
                  (f"{where} rope_scaling", plain.setdefault("mrope_section", rope["mrope_section"])))  # fmt: skip
        for kind in ("rope_type", "type"):
            if rope.get(kind, "default") not in ("default", "mrope"):
                raise UnsupportedError(f"{where}: {name}.{kind} is {_show(rope[kind])}, only 'default' is supported")
        unknown = set(rope) - {"rope_theta", "mrope_section", "interleaved", "mrope_interleaved", "rope_type", "type"}
        if unknown:
            raise ModelFormatError(f"{where}: {name} has {sorted(unknown)}, which this build does not know")
    for name, theta in thetas.items():
        agree("rotary base", (f"{where} {name}", theta), (f"{where} {next(iter(thetas))}", next(iter(thetas.values()))))
        plain["rope_theta"] = theta
    return plain


def _check_fixed(section: Mapping[str, Any], name: str, rule: Fixed, where: str) -> None:
    if name not in section:
        if rule.required:
            raise ModelFormatError(f"{where}: has no {name!r}, expected {_show(rule.accepted[0])}")
        return
    value = section[name]
    # True == 1 in Python, so types are compared too.
    if not any(value == accepted and type(value) is type(accepted) for accepted in rule.accepted):
        raise UnsupportedError(
            f"{where}: {name} is {_show(value)}, this build supports only "
            f"{' or '.join(_show(accepted) for accepted in rule.accepted)}; use a checkpoint of the released kind"
        )


def _convert(value: Any, hint: Any, where: str, minimum: float) -> Any:
    """Return `value` as the type `hint`, or raise ModelFormatError."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return None if value is None else _convert(value, get_args(hint)[0], where, minimum)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint is int and type(value) is int:
        return _bounded(value, where, minimum)
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(_bounded(value, where, minimum))
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, get_args(hint)[0], where, minimum) for item in value)
    if origin is Mapping and isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _convert(item, get_args(hint)[1], f"{where}[{name!r}]", minimum) for name, item in value.items()}
    raise ModelFormatError(f"{where} is {_show(value)}, expected {_name(hint)}")


def _bounded(value: Any, where: str, minimum: float) -> Any:
    if not minimum <= value < _LARGEST:
        raise ModelFormatError(f"{where} is {_show(value)}, expected {minimum} to {_LARGEST - 1}")
    return value


def _name(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    if get_origin(hint) is tuple:
        return f"a list, each {_name(get_args(hint)[0])}"
    return words.get(hint, "an object of names to whole numbers")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
