"""The one Qwen3 decoder: Thinker, Talker, code predictors and the transformers of the codecs.

    x [T, N] -> { RMSNorm -> q, k, v -> (norm) -> rope -> append -> attention -> + ;
                  RMSNorm -> SwiGLU, or router -> experts (+ gated shared expert) -> + } x layers -> RMSNorm -> [T, N]

Fused at load: q, k and v into one matrix, gate and up into another, and a LayerScale into the rows of the projection
before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from omni_rt import ops
from omni_rt.models.decoder_config import DecoderConfig
from omni_rt.state import KVCache
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

if TYPE_CHECKING:
    from omni_rt.devices.device import Device


def frequencies(head_dim: int, theta: float, sections: tuple[int, ...] = ()) -> np.ndarray:
    """Return the rotary frequencies [axes, head_dim / 2] for `ops.angles`.

    Without sections there is one axis. With three (t, h, w), pair i belongs to axis h if i mod 3 = 1 and i < 3 * h's
    section, to w if i mod 3 = 2 and i < 3 * w's section, else to t (interleaved multimodal rope).
    """
    half = head_dim // 2
    exponents = np.arange(half, dtype=np.float32) * 2 / np.float32(head_dim)
    omega = (np.float32(1) / np.float32(theta) ** exponents).astype(np.float32)
    table = np.zeros((max(len(sections), 1), half), np.float32)
    for pair in range(half):
        axis = pair % 3 if sections and pair < 3 * sections[pair % 3] else 0
        table[axis, pair] = omega[pair]
    return table


class Attention:
    """Grouped-query attention over a cache: the normed rows [T, N] -> [T, N] added to the residual."""

    def __init__(self, weights: Weights, config: DecoderConfig, *, as_rows: int = 0) -> None:
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        names = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
        self.config = config
        self.as_rows = as_rows
        self.qkv = weights.fused(names, (queries, keys, keys), config.width)
        self.output = _branch_end(weights, "o_proj.weight", config.width, queries, config, "self_attn")
        if config.query_key_norm:
            self.q_norm = weights.exact("q_norm.weight", config.head_dim)
            self.k_norm = weights.exact("k_norm.weight", config.head_dim)

    def __call__(self, x: Tensor, norm: Tensor, table: Tensor, cache: KVCache, index: int) -> Tensor:
        """Append the keys and values of the normed rows to layer `index` of a cache, attend, project, and add to x."""
        y = self.attend(x, norm, table, cache, index)
        return ops.matmul_add(y.reshape(len(x), -1), self.output, x, as_rows=self.as_rows)

    def attend(self, x: Tensor, norm: Tensor, table: Tensor, cache: KVCache, index: int) -> Tensor:
        """Append the keys and values of the normed rows and attend; return the heads [T, H, D]."""
        config = self.config
        qkv = ops.project_normed(x, norm, self.qkv, epsilon=config.norm_epsilon, as_rows=self.as_rows)
        keys, values, length = cache.keys[index], cache.values[index], cache.length
        rule: Any = {
            "scale": float(config.head_dim**-0.5),
            "window": config.sliding_window,
            "as_rows": self.as_rows,
        }
        if config.query_key_norm:
            norms, parts = (self.q_norm, self.k_norm), cache.parts
            return ops.attend_appended(
                qkv, norms, table, (keys, values), length, epsilon=config.norm_epsilon, parts=parts, **rule
            )
        queries = ops.rope_append(qkv, table, keys, values, length)
        return ops.attend(queries, keys, values, length, causal=True, **rule)


class FeedForward:
    """SwiGLU: x + down(silu(gate(m)) * up(m))."""

    def __init__(self, weights: Weights, config: DecoderConfig, *, as_rows: int = 0) -> None:
        wide = config.feed_forward
        self.as_rows = as_rows
        self.epsilon = config.norm_epsilon
        self.gate_up = weights.fused(("gate_proj.weight", "up_proj.weight"), (wide, wide), config.width)
        self.down = _branch_end(weights, "down_proj.weight", config.width, wide, config, "mlp")

    def __call__(self, x: Tensor, norm: Tensor) -> Tensor:
        """Return x plus the feed-forward of its normed rows."""
        hidden = ops.gate_up_normed(x, norm, self.gate_up, epsilon=self.epsilon, as_rows=self.as_rows)
        return ops.matmul_add(hidden, self.down, x, as_rows=self.as_rows)


class Experts:
    """A mixture of experts, with a shared expert behind a sigmoid gate where the config has one."""

    def __init__(self, weights: Weights, config: DecoderConfig) -> None:
        width, narrow = config.width, config.expert_width
        self.top = config.experts_per_token
        self.epsilon = config.norm_epsilon
        self.router = weights.exact("gate.weight", config.experts, width)
        count, names = config.experts, [f"experts.{index}." for index in range(config.experts)]
        both = [name + part for name in names for part in ("gate_proj.weight", "up_proj.weight")]
        gate_up = weights.fused(both, [narrow] * 2 * count, width)
        down = weights.fused([name + "down_proj.weight" for name in names], [width] * count, narrow)
        self.gate_up = gate_up.reshape(count, 2 * narrow, width)
        self.down = down.reshape(count, width, narrow)
        self.shared_gate: Tensor | None = None
        if config.shared_expert_width:
            wide, shared = config.shared_expert_width, weights.at("shared_expert.")
            self.shared_gate = weights.exact("shared_expert_gate.weight", 1, width)
            self.shared_gate_up = shared.fused(("gate_proj.weight", "up_proj.weight"), (wide, wide), width)
            self.shared_down = shared.linear("down_proj.weight", width, wide)

    def __call__(self, x: Tensor, norm: Tensor) -> Tensor:
        """Return x plus the weighted experts of its normed rows."""
        residual = x
        if self.shared_gate is not None:
            shared = ops.gate_up_normed(x, norm, self.shared_gate_up, epsilon=self.epsilon)
            gate = ops.project_normed(x, norm, self.shared_gate, epsilon=self.epsilon)
            residual = ops.add_gated(x, ops.matmul(shared, self.shared_down), gate)
        return ops.add_experts(
            x, norm, self.router, self.gate_up, self.down, residual, epsilon=self.epsilon, top=self.top
        )


class Layer:
    """One decoder layer."""

    def __init__(self, weights: Weights, config: DecoderConfig, index: int, *, as_rows: int = 0) -> None:
        self.input_norm = weights.exact("input_layernorm.weight", config.width)
        self.attention = Attention(weights.at("self_attn."), config, as_rows=as_rows)
        self.output_norm = weights.exact("post_attention_layernorm.weight", config.width)
        feed_forward = weights.at("mlp.")
        self.feed_forward = (
            Experts(feed_forward, config)
            if config.is_sparse(index)
            else FeedForward(feed_forward, config, as_rows=as_rows)
        )

    def __call__(self, x: Tensor, table: Tensor, cache: KVCache, index: int) -> Tensor:
        """Run layer `index` over rows x [T, N] whose rotary table is [T, D]."""
        x = self.attention(x, self.input_norm, table, cache, index)
        return self.feed_forward(x, self.output_norm)


class Decoder:
    """The layers and the final norm; attribute paths follow the checkpoint (`layers.0.`, `norm.weight`).

    `as_rows` > 0 makes the bits of a row independent of how many rows a pass takes, in a stack without experts.
    """

    def __init__(self, weights: Weights, config: DecoderConfig, *, as_rows: int = 0) -> None:
        self.config = config
        self.device: Device = weights.device
        self.layers = [Layer(weights.at(f"layers.{i}."), config, i, as_rows=as_rows) for i in range(config.layers)]
        self.norm = weights.exact("norm.weight", config.width)
        quantised = self.layers[0].attention.qkv.dtype == "q8_0" and self.device.activations == "q8"
        self.half_cache = quantised and not as_rows

    def cache(self, rows: int) -> KVCache:
        """Return an empty cache for `rows` positions, f16 beside quantised weights unless activations stay in f32."""
        config = self.config
        return KVCache(
            self.device,
            config.cache_shape(rows),
            window=config.sliding_window,
            dtype="f16" if self.half_cache else "f32",
        )

    def __call__(
        self,
        x: Tensor,
        table: Tensor,
        cache: KVCache,
        *,
        taps: Collection[int] = (),
        after_layer: Callable[[int, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run rows x [T, N] whose positions the cache already counts; return the normed rows and the tapped states.

        `taps` ask for hidden states by number: 0 is x, k the output of layer k - 1 before `after_layer` adds to it.
        """
        x, tapped = self.states(x, table, cache, taps=taps, after_layer=after_layer)
        return ops.rms_norm(x, self.norm, epsilon=self.config.norm_epsilon), tapped

    def head(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the products [T, V] of the final norm of rows x [T, N] with a weight [V, N]: logits."""
        return ops.project_normed(x, self.norm, weight, epsilon=self.config.norm_epsilon)

    def states(
        self,
        x: Tensor,
        table: Tensor,
        cache: KVCache,
        *,
        taps: Collection[int] = (),
        after_layer: Callable[[int, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Do what a call does, without the final norm."""
        tapped = {0: x} if 0 in taps else {}
        for index, layer in enumerate(self.layers):
            x = layer(x, table, cache, index)
            if index + 1 in taps:
                tapped[index + 1] = x
            if after_layer is not None:
                x = after_layer(index, x)
        return x, tapped

    def fill(self, x: Tensor, table: Tensor, cache: KVCache) -> None:
        """Do what a call does to the cache: the last layer ends behind its keys and values."""
        *before, last = self.layers
        for index, layer in enumerate(before):
            x = layer(x, table, cache, index)
        last.attention.attend(x, last.input_norm, table, cache, len(before))


def _branch_end(weights: Weights, name: str, outputs: int, inputs: int, config: DecoderConfig, branch: str) -> Tensor:
    """Place a projection [outputs, inputs], its rows multiplied by the LayerScale of its branch if there is one."""
    if not config.layer_scale:
        return weights.linear(name, outputs, inputs)
    scale = weights.parent().array(f"{branch}_layer_scale.scale", outputs)
    return weights.scaled_linear(name, outputs, inputs, scale)
