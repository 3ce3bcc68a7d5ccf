"""Sizes of the one Qwen3 decoder that every autoregressive part of both model families shares."""

from __future__ import annotations

from dataclasses import dataclass

from omni_rt.models.config import key, require


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A stack of pre-norm layers: grouped-query attention with rotary positions, then a SwiGLU or a mixture of experts.

    `rope_sections` are the frequencies of the time, height and width axes, empty when positions have one axis.
    `sliding_window` is how many keys a query sees, itself included, 0 for all. `experts` is 0 in a dense stack;
    otherwise layer i is dense when it is in `dense_layers` or (i + 1) is no multiple of `sparse_step`.
    `shared_expert_width` is 0 without a shared expert. With `layer_scale` each branch ends in a scale per channel.
    """

    width: int = key("hidden_size")
    layers: int = key("num_hidden_layers")
    heads: int = key("num_attention_heads")
    kv_heads: int = key("num_key_value_heads")
    head_dim: int = key("head_dim", minimum=2)
    feed_forward: int = key("intermediate_size")
    norm_epsilon: float = key("rms_norm_eps", minimum=0)
    rope_theta: float = key("rope_theta", minimum=1)
    context: int = key("max_position_embeddings")
    rope_sections: tuple[int, ...] = ()
    sliding_window: int = 0
    query_key_norm: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_expert_width: int = 0
    dense_layers: tuple[int, ...] = ()
    sparse_step: int = 1
    layer_scale: bool = False

    def __post_init__(self) -> None:
        """Check that the sizes fit each other."""
        where = type(self).__name__
        require(
            self.heads % self.kv_heads == 0,
            f"{where}: {self.heads} attention heads cannot share {self.kv_heads} key-value heads evenly",
        )
        require(self.head_dim % 2 == 0, f"{where}: head_dim {self.head_dim} is odd, rotary positions need pairs")
        require(
            not self.rope_sections or (len(self.rope_sections) == 3 and 2 * sum(self.rope_sections) == self.head_dim),
            f"{where}: mrope_section {list(self.rope_sections)} does not split head_dim / 2 = {self.head_dim // 2} "
            "frequencies among 3 axes",
        )
        require(
            self.experts_per_token <= self.experts,
            f"{where}: {self.experts_per_token} experts per token of {self.experts} experts",
        )
        require(
            all(layer < self.layers for layer in self.dense_layers),
            f"{where}: mlp_only_layers {list(self.dense_layers)} names a layer beyond the last, {self.layers - 1}",
        )

    def cache_shape(self, rows: int) -> tuple[int, int, int, int]:
        """Return the extents [layers, rows, kv_heads, head_dim] of a cache of `rows` positions."""
        return self.layers, rows, self.kv_heads, self.head_dim

    def is_sparse(self, layer: int) -> bool:
        """Return whether `layer` (from 0) is a mixture of experts."""
        return self.experts > 0 and layer not in self.dense_layers and (layer + 1) % self.sparse_step == 0


@dataclass(frozen=True, kw_only=True)
class SparseDecoderConfig(DecoderConfig):
    """A decoder with experts and three-axis rotary positions, all of it read from the file."""

    rope_sections: tuple[int, ...] = key("mrope_section", minimum=0)
    experts: int = key("num_experts")
    experts_per_token: int = key("num_experts_per_tok")
    expert_width: int = key("moe_intermediate_size")
    dense_layers: tuple[int, ...] = key("mlp_only_layers", minimum=0)
    sparse_step: int = key("decoder_sparse_step")

    def __post_init__(self) -> None:
        """Check that there are three axes, and that the sizes fit each other."""
        super().__post_init__()
        require(bool(self.rope_sections), f"{type(self).__name__}: mrope_section is empty, expected one for each axis")
