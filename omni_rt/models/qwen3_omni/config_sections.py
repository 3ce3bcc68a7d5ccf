"""The parts of Qwen3-Omni's config.json as frozen dataclasses, with whole-word names and checks of how sizes fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from omni_rt.models.config import agree, key, require
from omni_rt.models.decoder_config import DecoderConfig, SparseDecoderConfig
from omni_rt.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig:
    """The audio tower: log-mel frames to one embedding per 80 ms.

    Frames are cut into chunks of `chunk_frames`; attention sees `window_chunks` chunks at a time. `channels` is the
    width of the three convolutions, `output_width` that of the thinker.
    """

    mels: int = key("num_mel_bins")
    width: int = key("d_model")
    layers: int = key("encoder_layers")
    heads: int = key("encoder_attention_heads")
    feed_forward: int = key("encoder_ffn_dim")
    channels: int = key("downsample_hidden_size")
    output_width: int = key("output_dim")
    half_chunk_frames: int = key("n_window")
    window_frames: int = key("n_window_infer")

    def __post_init__(self) -> None:
        """Check that the sizes fit each other."""
        require(self.width % self.heads == 0, f"audio_config: d_model {self.width} / {self.heads} heads is not whole")
        require(
            self.width % 2 == 0 and self.width > 2,
            f"audio_config: d_model {self.width} does not split into sines and cosines",
        )
        require(
            self.window_frames >= self.chunk_frames,
            f"audio_config: n_window_infer {self.window_frames} is less than one chunk of {self.chunk_frames} frames",
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def chunk_frames(self) -> int:
        """Mel frames that the convolutions see at once: 100 are one second."""
        return 2 * self.half_chunk_frames

    @property
    def window_chunks(self) -> int:
        """Chunks that attend to each other."""
        return self.window_frames // self.chunk_frames


@dataclass(frozen=True, kw_only=True)
class VisionEncoderConfig:
    """The vision tower: patches of `patch` x `patch` pixels and `temporal_patch` frames to merged tokens.

    `merge` x `merge` patches become one token of `output_width`; `deepstack_layers` are the blocks (from 0) whose
    output is also handed to the first thinker layers. `positions` is the number of rows of the square position table.
    """

    layers: int = key("depth")
    width: int = key("hidden_size")
    heads: int = key("num_heads")
    feed_forward: int = key("intermediate_size")
    channels: int = key("in_channels")
    patch: int = key("patch_size")
    temporal_patch: int = key("temporal_patch_size")
    merge: int = key("spatial_merge_size")
    output_width: int = key("out_hidden_size")
    deepstack_layers: tuple[int, ...] = key("deepstack_visual_indexes", minimum=0)
    # transformers 4.57 files leave it out; the shape of the position table in the weights confirms it.
    positions: int = key("num_position_embeddings", default=2304)
    rope_theta: float = key("rope_theta", default=10_000.0)

    def __post_init__(self) -> None:
        """Check that the sizes fit each other."""
        require(
            self.width % self.heads == 0, f"vision_config: hidden_size {self.width} / {self.heads} heads is not whole"
        )
        require(self.head_dim % 4 == 0, f"vision_config: head_dim {self.head_dim} does not split into pairs on 2 axes")
        require(self.table_side**2 == self.positions, f"vision_config: {self.positions} positions are no square table")
        require(
            all(layer < self.layers for layer in self.deepstack_layers),
            f"vision_config: deepstack_visual_indexes {list(self.deepstack_layers)} go beyond {self.layers} blocks",
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def table_side(self) -> int:
        """Rows of the square position table along one axis."""
        return round(self.positions**0.5)

    @property
    def patch_values(self) -> int:
        """Numbers in one patch: channels x frames x height x width."""
        return self.channels * self.temporal_patch * self.patch * self.patch


@dataclass(frozen=True, kw_only=True)
class ThinkerConfig(SparseDecoderConfig):
    """The text decoder. `positions_per_second` is the clock of video positions."""

    vocabulary: int = key("vocab_size")
    tied_embeddings: bool = False
    positions_per_second: int = 13


@dataclass(frozen=True, kw_only=True)
class CodePredictorConfig(DecoderConfig):
    """The dense decoder that adds codebooks 1 to `codebooks` - 1 of a frame, each of `vocabulary` entries."""

    vocabulary: int = key("vocab_size")
    codebooks: int = key("num_code_groups", minimum=2)


@dataclass(frozen=True, kw_only=True)
class TalkerTextConfig(SparseDecoderConfig):
    """The talker's decoder; `feed_forward` is also the inner width of its two projections."""

    vocabulary: int = key("vocab_size")
    shared_expert_width: int = key("shared_expert_intermediate_size")


@dataclass(frozen=True, kw_only=True)
class TalkerConfig:
    """The talker: one step of `decoder` gives codebook 0 of a frame, `code_predictor` the others.

    It reads the thinker's embeddings and its hidden states after `accept_hidden_layer` layers, `thinker_width` wide.
    The codec_* ids and the `speakers` (name to id) are rows of the codec embedding.
    """

    decoder: TalkerTextConfig
    code_predictor: CodePredictorConfig
    codebooks: int = key("num_code_groups", minimum=2)
    thinker_width: int = key("thinker_hidden_size")
    accept_hidden_layer: int = key("accept_hidden_layer", minimum=0)
    codec_pad: int = key("codec_pad_id", minimum=0)
    codec_bos: int = key("codec_bos_id", minimum=0)
    codec_eos: int = key("codec_eos_token_id", minimum=0)
    codec_nothink: int = key("codec_nothink_id", minimum=0)
    codec_think_bos: int = key("codec_think_bos_id", minimum=0)
    codec_think_eos: int = key("codec_think_eos_id", minimum=0)
    speakers: Mapping[str, int] = key("speaker_id", minimum=0)
    positions_per_second: int = key("position_id_per_seconds")

    def __post_init__(self) -> None:
        """Check that the sizes fit each other."""
        decoder, predictor = self.decoder, self.code_predictor
        agree(
            "number of codebooks",
            ("talker num_code_groups", self.codebooks),
            ("code predictor num_code_groups", predictor.codebooks),
        )
        agree(
            "width of the talker",
            ("text_config hidden_size", decoder.width),
            ("code predictor hidden_size", predictor.width),
        )
        require(bool(self.speakers), "talker_config: speaker_id is empty, expected at least one voice")
        ids = {name: value for name, value in vars(self).items() if name.startswith("codec_")} | dict(self.speakers)
        for name, value in ids.items():
            require(
                value < decoder.vocabulary,
                f"talker_config: id {value} of {name} is outside its vocabulary of {decoder.vocabulary}",
            )
        require(
            predictor.vocabulary <= decoder.vocabulary,
            f"talker_config: codebooks of {predictor.vocabulary} do not fit its vocabulary of {decoder.vocabulary}",
        )


@dataclass(frozen=True, kw_only=True)
class Code2WavConfig(DecoderConfig):
    """The vocoder: `codebooks` codes a frame, through a windowed transformer and convolutions, to samples.

    `upsample_ratios` are the strides before the decoder, `upsample_rates` those inside it; `decoder_width` halves at
    each of the latter.
    """

    query_key_norm: bool = False
    layer_scale: bool = True
    sliding_window: int = key("sliding_window")
    codebooks: int = key("num_quantizers")
    codebook_size: int = key("codebook_size")
    decoder_width: int = key("decoder_dim")
    upsample_ratios: tuple[int, ...] = key("upsampling_ratios")
    upsample_rates: tuple[int, ...] = key("upsample_rates")
    # The released file does not state it: 24 kHz is in the reference's code. A model of ours may differ.
    sample_rate: int = key("sample_rate", default=24_000)

    def __post_init__(self) -> None:
        """Check that the sizes fit each other."""
        super().__post_init__()
        require(bool(self.upsample_rates), "code2wav_config: upsample_rates is empty")
        require(
            self.decoder_width % (1 << len(self.upsample_rates)) == 0,
            f"code2wav_config: decoder_dim {self.decoder_width} cannot be halved {len(self.upsample_rates)} times",
        )

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of codes adds: 1920 in the release."""
        return prod(self.upsample_ratios) * prod(self.upsample_rates)

    @property
    def frame_rate(self) -> float:
        """Frames of codes in a second of speech: 12.5 in the release."""
        return self.sample_rate / self.samples_per_frame

    def samples(self, frames: int) -> int:
        """Return how many samples `frames` frames give: each decoder block of stride r cuts r samples."""
        length = frames * prod(self.upsample_ratios)
        for rate in self.upsample_rates:
            length = length * rate - rate
        return max(length, 0)


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Ids of the special tokens and role words that the model's code tests."""

    im_start: int = key("im_start_token_id", minimum=0)
    im_end: int = key("im_end_token_id", minimum=0)
    system: int = key("system_token_id", minimum=0)
    user: int = key("user_token_id", minimum=0)
    assistant: int = key("assistant_token_id", minimum=0)
    tts_pad: int = key("tts_pad_token_id", minimum=0)
    tts_bos: int = key("tts_bos_token_id", minimum=0)
    tts_eos: int = key("tts_eos_token_id", minimum=0)
    audio_pad: int = key("audio_token_id", minimum=0)
    image_pad: int = key("image_token_id", minimum=0)
    video_pad: int = key("video_token_id", minimum=0)
    audio_start: int = key("audio_start_token_id", minimum=0)
    audio_end: int = key("audio_end_token_id", minimum=0)
    vision_start: int = key("vision_start_token_id", minimum=0)
    vision_end: int = key("vision_end_token_id", minimum=0)


@dataclass(frozen=True)
class GenerationDefaults:
    """What a call uses that asks for nothing else; the values here are those of the released model's own code."""

    thinker: Sampling = field(default_factory=Sampling)
    talker: Sampling = field(default_factory=lambda: Sampling(0.9, 50, 1.0, 1.05))
    code_predictor: Sampling = field(default_factory=lambda: Sampling(1.0, 50, 0.8, 1.0))
    max_new_tokens: int = 1024
    max_frames: int = 4096
