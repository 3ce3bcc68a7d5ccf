"""config.json is read strictly: released files in both spellings load, nothing unknown or contradictory does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from omni_rt.errors import ModelFormatError, ModelNotFoundError, OmniError, UnsupportedError
from omni_rt.models.config import Fixed, key, read
from omni_rt.models.qwen3_omni.config import Qwen3OmniConfig
from omni_rt.models.qwen3_tts.config import sampling_defaults
from omni_rt.sampling import Sampling

Json = dict[str, Any]

PRETRAINED = {  # what transformers adds to every nested config
    "_name_or_path": "", "architectures": None, "dtype": None, "id2label": {"0": "LABEL_0"}, "top_k": 10,
    "num_beams": 1, "do_sample": True, "return_dict": True, "use_cache": True, "initializer_range": 0.02,
    "pad_token_id": None,
}  # fmt: skip


def attention(width: int, layers: int, heads: int, kv_heads: int) -> Json:
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "hidden_act": "silu", "attention_bias": False, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 65536, "rope_theta": 1000000, "attention_dropout": 0.0,
    }  # fmt: skip


def experts(count: int, per_token: int, width: int) -> Json:
    return {
        "num_experts": count, "num_experts_per_tok": per_token, "moe_intermediate_size": width, "norm_topk_prob": True,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "head_dim": 128, "sliding_window": None,
        "rope_scaling": {"interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default", "type": "default"},
    }  # fmt: skip


def released() -> Json:
    """Return the released model's config as transformers 4.57 writes it."""
    media = {
        "audio_token_id": 151675, "image_token_id": 151655, "video_token_id": 151656,
        "audio_start_token_id": 151669, "audio_end_token_id": 151670, "vision_start_token_id": 151652,
    }  # fmt: skip
    thinker = {
        **media, "vision_end_token_id": 151653, "user_token_id": 872, "position_id_per_seconds": 13,
        "seconds_per_chunk": 2, "model_type": "qwen3_omni_moe_thinker", "dtype": "bfloat16",
        "audio_config": {
            **PRETRAINED, "num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120, "downsample_hidden_size": 480, "output_dim": 2048, "n_window": 50,
            "n_window_infer": 800, "conv_chunksize": 500, "max_source_positions": 1500, "activation_function": "gelu",
            "scale_embedding": False, "num_hidden_layers": 32, "tie_word_embeddings": True,
        },
        "vision_config": {
            **PRETRAINED, "depth": 27, "hidden_size": 1152, "num_heads": 16, "intermediate_size": 4304,
            "patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2, "out_hidden_size": 2048,
            "in_channels": 3,
            "in_chans": 3, "deepstack_visual_indexes": [8, 16, 24], "hidden_act": "gelu_pytorch_tanh",
            "image_size": 768,
            "spatial_patch_size": 16, "tokens_per_second": 2, "apply_vit_abs_pos_embed": True,
        },
        "text_config": {
            **PRETRAINED, **attention(2048, 48, 32, 4), **experts(128, 8, 768), "vocab_size": 152064,
            "intermediate_size": 768, "shared_expert_intermediate_size": 0, "tie_word_embeddings": False,
            "use_qk_norm": True, "use_sliding_window": False,
        },
    }  # fmt: skip
    talker = {
        **media, "model_type": "qwen3_omni_moe_talker", "num_code_groups": 16, "thinker_hidden_size": 2048,
        "accept_hidden_layer": 24, "codec_pad_id": 2148, "codec_bos_id": 2149, "codec_eos_token_id": 2150,
        "codec_nothink_id": 2155, "codec_think_bos_id": 2156, "codec_think_eos_id": 2157, "spatial_merge_size": 2,
        "speaker_id": {"chelsie": 2301, "ethan": 2302, "aiden": 2303}, "position_id_per_seconds": 13,
        "output_router_logits": False, "seconds_per_chunk": 2,
        "text_config": {
            **attention(1024, 20, 16, 2), **experts(128, 6, 384), "vocab_size": 3072, "intermediate_size": 2048,
            "shared_expert_intermediate_size": 768, "use_sliding_window": False,
        },
        "code_predictor_config": {
            **PRETRAINED, **attention(1024, 5, 16, 8), "head_dim": 128, "vocab_size": 2048, "intermediate_size": 3072,
            "num_code_groups": 16, "rope_scaling": None, "layer_types": ["full_attention"] * 5, "max_window_layers": 28,
            "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": False,
        },
    }  # fmt: skip
    code2wav = {
        **attention(1024, 8, 16, 16), "rms_norm_eps": 1e-5, "rope_theta": 10000, "intermediate_size": 3072,
        "sliding_window": 72, "num_quantizers": 16, "codebook_size": 2048, "decoder_dim": 1536,
        "upsampling_ratios": [2, 2], "upsample_rates": [8, 5, 4, 3], "layer_scale_initial_scale": 0.01,
        "semantic_codebook_size": 4096, "num_semantic_quantizers": 1, "codebook_dim": 512,
        "vector_quantization_hidden_dimension": 512, "model_type": "",
    }  # fmt: skip
    return {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"], "model_type": "qwen3_omni_moe",
        "enable_audio_output": True, "im_start_token_id": 151644, "im_end_token_id": 151645, "system_token_id": 8948,
        "user_token_id": 872, "assistant_token_id": 77091, "tts_pad_token_id": 151671, "tts_bos_token_id": 151672,
        "tts_eos_token_id": 151673, "transformers_version": "4.57.0", "dtype": "bfloat16",
        "thinker_config": thinker, "talker_config": talker, "code2wav_config": code2wav,
    }  # fmt: skip


def rewritten() -> Json:
    """Return the same config as transformers 5 writes it."""
    data = released()
    talker, thinker = data["talker_config"], data["thinker_config"]
    talker["text_config"]["num_local_experts"] = talker["text_config"].pop("num_experts")
    for section in (
        thinker["text_config"],
        talker["text_config"],
        talker["code_predictor_config"],
        data["code2wav_config"],
    ):
        rope = section.pop("rope_scaling", None) or {"rope_type": "default"}
        section["rope_parameters"] = {**rope, "rope_theta": section.pop("rope_theta")}
    thinker["vision_config"] |= {"num_position_embeddings": 2304, "rope_parameters": {"rope_theta": 10000.0}}
    thinker["tie_word_embeddings"] = talker["tie_word_embeddings"] = False
    return data


def test_the_released_config_is_read_as_published() -> None:
    config = Qwen3OmniConfig.from_json(released())
    thinker, talker, code2wav = config.thinker, config.talker, config.code2wav
    assert talker is not None and code2wav is not None
    assert (thinker.width, thinker.layers, thinker.heads, thinker.kv_heads, thinker.head_dim) == (2048, 48, 32, 4, 128)
    assert (thinker.experts, thinker.experts_per_token, thinker.expert_width) == (128, 8, 768)
    assert thinker.rope_sections == (24, 20, 20) and thinker.rope_theta == 1e6 and thinker.vocabulary == 152064
    assert all(thinker.is_sparse(layer) for layer in range(48)) and not thinker.tied_embeddings
    assert (config.audio.chunk_frames, config.audio.window_chunks, config.audio.head_dim) == (100, 8, 64)
    assert (config.vision.head_dim, config.vision.table_side, config.vision.patch_values) == (72, 48, 1536)
    assert (talker.decoder.experts_per_token, talker.decoder.shared_expert_width) == (6, 768)
    assert talker.accept_hidden_layer == 24 and talker.speakers["ethan"] == 2302
    assert (talker.code_predictor.kv_heads, talker.code_predictor.experts) == (8, 0)
    assert (code2wav.head_dim, code2wav.sliding_window, code2wav.norm_epsilon) == (64, 72, 1e-5)
    assert code2wav.samples_per_frame == 1920 and code2wav.sample_rate == 24000 and not code2wav.query_key_norm
    assert [code2wav.samples(frames) for frames in (1, 37, 0)] == [1920 - 555, 1920 * 37 - 555, 0]
    assert (config.tokens.im_end, config.tokens.audio_pad, config.tokens.user) == (151645, 151675, 872)


def test_both_spellings_give_the_same_config() -> None:
    assert Qwen3OmniConfig.from_json(released()) == Qwen3OmniConfig.from_json(rewritten())


def test_every_key_that_is_left_out_is_missed_or_known_to_be_optional() -> None:
    optional = 0

    def visit(data: Json, path: tuple[str, ...]) -> None:
        nonlocal optional
        for name in list(data):
            if isinstance(data[name], dict) and name not in ("speaker_id", "rope_scaling", "id2label"):
                visit(data[name], (*path, name))
            changed = copy.deepcopy(released())
            section = changed
            for step in path:
                section = section[step]
            del section[name]
            try:
                assert Qwen3OmniConfig.from_json(changed) == Qwen3OmniConfig.from_json(released())
                optional += 1
            except ModelFormatError as error:
                # agree() names the pair, read() the key: either way the message leads to the section.
                assert name in str(error) or name == "rope_scaling", str(error)

    visit(released(), ())
    assert optional > 50


def test_an_unknown_key_in_any_section_is_refused_by_name() -> None:
    paths = (
        (), ("thinker_config",), ("thinker_config", "audio_config"), ("thinker_config", "vision_config"),
        ("thinker_config", "text_config"), ("talker_config",), ("talker_config", "text_config"),
        ("talker_config", "code_predictor_config"), ("code2wav_config",),
    )  # fmt: skip
    for path in paths:
        data = released()
        section = data
        for step in path:
            section = section[step]
        section["logit_softcap"] = 30.0
        with pytest.raises(ModelFormatError, match="'logit_softcap'") as caught:
            Qwen3OmniConfig.from_json(data)
        assert not path or path[-1] in str(caught.value)


def put(*path: str, value: Any) -> Callable[[Json], None]:
    def change(data: Json) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


THINKER = ("thinker_config", "text_config")
TALKER = ("talker_config", "text_config")
PREDICTOR = ("talker_config", "code_predictor_config")
UNSUPPORTED = [
    (put(*PREDICTOR, "layer_types", value=5), "layer_types is 5"),
    (put(*THINKER, "attention_bias", value=True), "attention_bias is True"),
    (put(*THINKER, "attention_bias", value=0), "attention_bias is 0"),
    (put(*THINKER, "hidden_act", value="gelu"), "hidden_act is 'gelu'"),
    (put(*THINKER, "norm_topk_prob", value=False), "norm_topk_prob is False"),
    (put(*TALKER, "norm_topk_prob", value=False), "norm_topk_prob is False"),
    (put(*THINKER, "use_sliding_window", value=True), "use_sliding_window is True"),
    (put(*THINKER, "sliding_window", value=4096), "sliding_window is 4096"),
    (put(*THINKER, "shared_expert_intermediate_size", value=64), "shared_expert_intermediate_size is 64"),
    (put(*THINKER, "use_qk_norm", value=False), "use_qk_norm is False"),
    (put(*TALKER, "tie_word_embeddings", value=True), "tie_word_embeddings is True"),
    (put(*PREDICTOR, "tie_word_embeddings", value=True), "tie_word_embeddings is True"),
    (put(*PREDICTOR, "layer_types", value=["sliding_attention"] * 5), "layer_types is"),
    (put("code2wav_config", "attention_bias", value=True), "code2wav_config: attention_bias"),
    (put("thinker_config", "audio_config", "activation_function", value="relu"), "activation_function is 'relu'"),
    (put("thinker_config", "audio_config", "scale_embedding", value=True), "scale_embedding is True"),
    (put("thinker_config", "vision_config", "hidden_act", value="gelu"), "hidden_act is 'gelu'"),
    (put("quantization_config", value={"quant_method": "awq"}), "quantization_config"),
    (put(*THINKER, "rope_scaling", "rope_type", value="yarn"), "rope_type is 'yarn'"),
    (put(*THINKER, "rope_scaling", "interleaved", value=False), "only interleaved"),
]
CONTRADICTIONS = [
    (put("model_type", value="qwen3_tts"), "'qwen3_tts'"),
    (put("talker_config", "thinker_hidden_size", value=1024), "thinker_hidden_size is 1024"),
    (put("talker_config", "accept_hidden_layer", value=49), "accept_hidden_layer 49"),
    (put("talker_config", "num_code_groups", value=32), "codebooks"),
    (put("talker_config", "image_token_id", value=5), "image_token_id"),
    (put("talker_config", "spatial_merge_size", value=4), "spatial_merge_size"),
    (put("talker_config", "speaker_id", value={"ethan": 3072}), "ethan"),
    (put("thinker_config", "audio_config", "output_dim", value=3584), "output_dim is 3584"),
    (put("thinker_config", "vision_config", "out_hidden_size", value=3584), "out_hidden_size is 3584"),
    (put("thinker_config", "user_token_id", value=873), "873"),
    (put(*THINKER, "rope_scaling", "mrope_section", value=[24, 20, 21]), "mrope_section"),
    (put(*THINKER, "rope_scaling", "mrope_section", value=[]), "mrope_section is empty"),
    (put("talker_config", "speaker_id", value={}), "speaker_id is empty"),
    (put(*THINKER, "num_key_value_heads", value=5), "5 key-value heads"),
    (put(*THINKER, "num_experts_per_tok", value=129), "129 experts per token"),
    (put(*THINKER, "mlp_only_layers", value=[48]), "mlp_only_layers"),
    (put(*PREDICTOR, "hidden_size", value=512), "512"),
    (put("code2wav_config", "codebook_size", value=1024), "codebook_size is 1024"),
    (put("im_end_token_id", value=152064), "outside the vocabulary"),
]
WRONG_TYPES = [
    (put(*THINKER, "hidden_size", value="2048"), "hidden_size is '2048', expected a whole number"),
    (put(*THINKER, "hidden_size", value=2048.0), "expected a whole number"),
    (put(*THINKER, "hidden_size", value=True), "expected a whole number"),
    (put(*THINKER, "hidden_size", value=0), "expected 1 to"),
    (put(*THINKER, "num_hidden_layers", value=1 << 40), "expected 1 to"),
    (put(*THINKER, "rms_norm_eps", value=None), "expected a number"),
    (put(*THINKER, "rms_norm_eps", value=float("nan")), "expected a number"),
    (put("code2wav_config", "upsample_rates", value=[8, "5"]), "upsample_rates is '5'"),
    (put("talker_config", "speaker_id", value=["ethan"]), "speaker_id"),
    (put("thinker_config", "text_config", value=None), "expected a JSON object"),
    (put("enable_audio_output", value="yes"), "expected true or false"),
]


@pytest.mark.parametrize(("change", "says"), UNSUPPORTED)
def test_a_setting_that_changes_the_maths_is_refused(change: Callable[[Json], None], says: str) -> None:
    data = released()
    change(data)
    with pytest.raises(UnsupportedError, match=says):
        Qwen3OmniConfig.from_json(data)


@pytest.mark.parametrize(("change", "says"), CONTRADICTIONS + WRONG_TYPES)
def test_a_contradiction_or_wrong_type_is_refused(change: Callable[[Json], None], says: str) -> None:
    data = released()
    change(data)
    with pytest.raises(ModelFormatError, match=says):
        Qwen3OmniConfig.from_json(data)


def test_two_rope_bases_that_disagree_are_refused() -> None:
    data = rewritten()
    data["code2wav_config"]["rope_theta"] = 500
    with pytest.raises(ModelFormatError, match="rotary base"):
        Qwen3OmniConfig.from_json(data)


def test_dense_and_sparse_layers_mix() -> None:
    data = released()
    data["thinker_config"]["text_config"] |= {"mlp_only_layers": [0, 3], "decoder_sparse_step": 2}
    thinker = Qwen3OmniConfig.from_json(data).thinker
    assert [thinker.is_sparse(layer) for layer in range(6)] == [False, True, False, False, False, True]


def test_tied_embeddings_are_read_from_either_place() -> None:
    data = released()
    data["thinker_config"]["text_config"]["tie_word_embeddings"] = True
    assert Qwen3OmniConfig.from_json(data).thinker.tied_embeddings
    del data["thinker_config"]["text_config"]["tie_word_embeddings"]
    data["thinker_config"]["tie_word_embeddings"] = True
    assert Qwen3OmniConfig.from_json(data).thinker.tied_embeddings
    data["thinker_config"]["text_config"]["tie_word_embeddings"] = False
    with pytest.raises(ModelFormatError, match="tie_word_embeddings"):
        Qwen3OmniConfig.from_json(data)


def test_a_model_without_speech_has_no_talker() -> None:
    data = released() | {"enable_audio_output": False, "talker_config": None}
    del data["code2wav_config"]
    config = Qwen3OmniConfig.from_json(data)
    assert config.talker is None and config.code2wav is None


def test_generation_config_changes_only_what_it_states() -> None:
    plain = Qwen3OmniConfig.from_json(released()).generation
    assert plain.thinker.temperature == 0 and plain.talker.repetition_penalty == 1.05 and plain.max_frames == 4096
    without_sampling = Qwen3OmniConfig.from_json(released(), {"temperature": 0.7, "use_cache": True}).generation
    assert without_sampling.thinker.temperature == 0
    stated = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "talker_top_k": 30,
        "max_new_tokens": 7,
    }
    changed = Qwen3OmniConfig.from_json(released(), stated).generation
    assert (changed.thinker.temperature, changed.thinker.top_k, changed.thinker.top_p) == (0.6, 20, 0.95)
    assert (changed.talker.top_k, changed.talker.temperature, changed.max_new_tokens) == (30, 0.9, 7)
    with pytest.raises(ModelFormatError, match=r"generation_config\.json: top_k"):
        Qwen3OmniConfig.from_json(released(), {"top_k": "many"})


def test_how_qwen3_tts_picks_codes_follows_its_generation_config() -> None:
    assert sampling_defaults({}) == (Sampling(0.9, 50, 1.0, 1.05), Sampling(0.9, 50))
    stated = {"do_sample": False, "repetition_penalty": 1.2, "subtalker_top_k": 7, "subtalker_top_p": None}
    assert sampling_defaults(stated) == (Sampling(repetition_penalty=1.2), Sampling(0.9, 7))
    assert sampling_defaults({"subtalker_dosample": False})[1] == Sampling()
    for wrong in ({"temperature": "hot"}, {"top_p": 0}, {"subtalker_top_k": -1}):
        with pytest.raises(ModelFormatError, match=r"generation_config\.json: .*(temperature|top_)"):
            sampling_defaults(wrong)


def test_a_directory_is_read_or_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        Qwen3OmniConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelFormatError, match="is not JSON"):
        Qwen3OmniConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelFormatError, match="expected an object"):
        Qwen3OmniConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(released()))
    (tmp_path / "generation_config.json").write_text('{"talker_temperature": 0.5}')
    assert Qwen3OmniConfig.from_directory(tmp_path).generation.talker.temperature == 0.5


@dataclass(frozen=True, kw_only=True)
class Small:
    width: int = key("hidden_size")
    theta: float = key("theta", default=3.0)


def test_the_reader_takes_keys_defaults_and_reasons() -> None:
    assert read(Small, {"hidden_size": 4, "noise": 1}, "here", ignored={"noise": "is noise"}) == Small(width=4)
    assert read(Small, {"hidden_size": 4, "theta": 2}, "here").theta == 2.0
    for wrong in ({}, {"hidden_size": 4, "noise": 1}, [], None):
        with pytest.raises(OmniError, match="here"):
            read(Small, wrong, "here")
    with pytest.raises(ModelFormatError, match="'act'"):
        read(Small, {"hidden_size": 4}, "here", fixed={"act": Fixed(("silu",), required=True)})
