"""The sizes of Qwen3-Omni-30B-A3B as its config.json states them, for components without their checkpoint."""

from __future__ import annotations

from dataclasses import replace

from omni_rt.models.qwen3_omni.config_sections import (
    AudioEncoderConfig,
    Code2WavConfig,
    CodePredictorConfig,
    TalkerConfig,
    TalkerTextConfig,
    ThinkerConfig,
    TokenIds,
)

TOKENS = TokenIds(
    im_start=151644, im_end=151645, system=8948, user=872, assistant=77091,
    tts_pad=151671, tts_bos=151672, tts_eos=151673,
    audio_pad=151675, image_pad=151655, video_pad=151656, audio_start=151669, audio_end=151670,
    vision_start=151652, vision_end=151653,
)  # fmt: skip

AUDIO_ENCODER = AudioEncoderConfig(
    mels=128, width=1280, layers=32, heads=20, feed_forward=5120, channels=480, output_width=2048,
    half_chunk_frames=50, window_frames=800,
)  # fmt: skip

THINKER = ThinkerConfig(
    width=2048, layers=48, heads=32, kv_heads=4, head_dim=128, feed_forward=768, norm_epsilon=1e-6, rope_theta=1e6,
    context=65536, rope_sections=(24, 20, 20), experts=128, experts_per_token=8, expert_width=768, dense_layers=(),
    sparse_step=1, vocabulary=152064,
)  # fmt: skip

TALKER = TalkerConfig(
    decoder=TalkerTextConfig(
        width=1024, layers=20, heads=16, kv_heads=2, head_dim=128, feed_forward=2048, norm_epsilon=1e-6,
        rope_theta=1e6, context=65536, rope_sections=(24, 20, 20), experts=128, experts_per_token=6, expert_width=384,
        shared_expert_width=768, dense_layers=(), sparse_step=1, vocabulary=3072,
    ),
    code_predictor=CodePredictorConfig(
        width=1024, layers=5, heads=16, kv_heads=8, head_dim=128, feed_forward=3072, norm_epsilon=1e-6,
        rope_theta=1e6, context=65536, vocabulary=2048, codebooks=16,
    ),
    codebooks=16, thinker_width=2048, accept_hidden_layer=24, codec_pad=2148, codec_bos=2149, codec_eos=2150,
    codec_nothink=2155, codec_think_bos=2156, codec_think_eos=2157,
    speakers={"chelsie": 2301, "ethan": 2302, "aiden": 2303}, positions_per_second=13,
)  # fmt: skip

CODE2WAV = Code2WavConfig(
    width=1024, layers=8, heads=16, kv_heads=16, head_dim=64, feed_forward=3072, norm_epsilon=1e-5, rope_theta=1e4,
    context=8000, sliding_window=72, codebooks=16, codebook_size=2048, decoder_width=1536, upsample_ratios=(2, 2),
    upsample_rates=(8, 5, 4, 3),
)  # fmt: skip


def thinker(layers: int | None) -> ThinkerConfig:
    """Return the Thinker's sizes, cut to its first `layers` if given."""
    return THINKER if layers is None else replace(THINKER, layers=layers)


def talker(layers: int | None) -> TalkerConfig:
    """Return the Talker's sizes, its decoder (not the code predictor) cut to its first `layers` if given."""
    return TALKER if layers is None else replace(TALKER, decoder=replace(TALKER.decoder, layers=layers))


def code2wav(layers: int | None) -> Code2WavConfig:
    """Return the vocoder's sizes, its transformer cut to its first `layers` if given."""
    return CODE2WAV if layers is None else replace(CODE2WAV, layers=layers)


def audio_encoder(layers: int | None) -> AudioEncoderConfig:
    """Return the audio tower's sizes, cut to its first `layers` if given."""
    return AUDIO_ENCODER if layers is None else replace(AUDIO_ENCODER, layers=layers)
