"""The Thinker for training, and the whole that hears, sees and answers: released names and mathematics, batched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_rt.models.decoder import frequencies
from tools.train_tiny.towers import AudioTower, VisionTower, rotate


class RMSNorm(nn.Module):
    """Root mean square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.rms_norm(x.float(), x.shape[-1:], self.weight, 1e-6).to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention with normed, rotated queries and keys."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.dim, width = config["head_dim"], config["hidden_size"]
        self.heads, self.groups = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(width, self.heads * self.dim, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(width, self.groups * self.dim, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(self.heads * self.dim, width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(self.dim), RMSNorm(self.dim)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Mix rows x [B, T, N]."""
        q, k, v = (linear(x).unflatten(-1, (-1, self.dim)) for linear in (self.q_proj, self.k_proj, self.v_proj))
        q = rotate(self.q_norm(q).transpose(1, 2), cosine, sine)
        k = rotate(self.k_norm(k).transpose(1, 2), cosine, sine)
        share = self.heads // self.groups
        k, v = k.repeat_interleave(share, 1), v.transpose(1, 2).repeat_interleave(share, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, wide, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(wide, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., N]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """A mixture of experts: all are computed, those not chosen weigh 0. Keeps the loss that balances them."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, self.top = config["hidden_size"], config["num_experts_per_tok"]
        self.gate = nn.Linear(width, config["num_experts"], bias=False)
        self.experts = nn.ModuleList(
            FeedForward(width, config["moe_intermediate_size"]) for _ in range(config["num_experts"])
        )
        self.balance = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., N]."""
        with torch.autocast(x.device.type, enabled=False):
            odds = F.linear(x.float(), self.gate.weight).softmax(-1)
        best, chosen = odds.topk(self.top, -1)
        weights = torch.zeros_like(odds).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        share = (weights > 0).float().flatten(0, -2).mean(0) / self.top
        self.balance = len(self.experts) * (share * odds.flatten(0, -2).mean(0)).sum()
        gate, up = (
            torch.cat([getattr(expert, name).weight for expert in self.experts]) for name in ("gate_proj", "up_proj")
        )
        hidden = (F.silu(F.linear(x, gate)) * F.linear(x, up)).unflatten(-1, (len(self.experts), -1))
        hidden = (hidden * weights[..., None].to(hidden.dtype)).flatten(-2)
        return F.linear(hidden, torch.cat([expert.down_proj.weight for expert in self.experts], 1))


class Layer(nn.Module):
    """One decoder layer, dense or with experts."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(width), RMSNorm(width)
        self.self_attn = Attention(config)
        dense = index in config["mlp_only_layers"]
        self.mlp = FeedForward(width, config["intermediate_size"]) if dense else Experts(config)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Run the layer over x [B, T, N]."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embeddings, layers and final norm."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(config["hidden_size"])
        table = frequencies(config["head_dim"], config["rope_theta"], tuple(config["rope_scaling"]["mrope_section"]))
        self.register_buffer("frequencies", torch.from_numpy(table), persistent=False)


@dataclass
class Batch:
    """Padded inputs: ids [B, T] and positions [B, 3, T]; media of some samples, each with the samples' indices.

    `sound` is (samples [A], mel [A, 128, F], frames [A]); `sight` is (samples [V], levels, places, blend, valid).
    """

    ids: Tensor
    positions: Tensor
    sound: tuple[Tensor, Tensor, Tensor] | None = None
    sight: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None = None


class Thinker(nn.Module):
    """Everything under `thinker.`: audio tower, vision tower and decoder."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        thinker = config["thinker_config"]
        self.audio_pad, self.image_pad = thinker["audio_token_id"], thinker["image_token_id"]
        self.audio_tower = AudioTower(thinker["audio_config"])
        self.visual = VisionTower(thinker["vision_config"])
        self.model = Decoder(thinker["text_config"])
        text = thinker["text_config"]
        self.lm_head = nn.Linear(text["hidden_size"], text["vocab_size"], bias=False)
        self.apply(_start)

    def forward(self, batch: Batch, taps: tuple[int, ...] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [B, T, V], and by name: heard rows with their mask, and hidden states of `taps`."""
        ids = batch.ids
        x = self.model.embed_tokens(ids)
        found: dict[str, Tensor] = {}
        deep: list[Tensor] = []
        if batch.sound is not None:
            samples, mel, frames = batch.sound
            heard, valid = self.audio_tower(mel, frames)
            found |= {"heard": heard, "heard valid": valid}
            x = _splice(x, ids == self.audio_pad, samples, heard)
        if batch.sight is not None:
            samples, *pictures = batch.sight
            seen, levels = self.visual(*pictures)
            pads = ids == self.image_pad
            x = _splice(x, pads, samples, seen)
            deep = [_splice(torch.zeros_like(x), pads, samples, level) for level in levels]
        angles = torch.einsum("bat,af->btf", batch.positions.float(), self.model.frequencies)[:, None]
        cosine, sine = angles.cos(), angles.sin()
        if 0 in taps:
            found["hidden 0"] = x
        for index, layer in enumerate(self.model.layers):
            x = layer(x, cosine, sine)
            if index + 1 in taps:
                found[f"hidden {index + 1}"] = x
            if index < len(deep):
                x = x + deep[index]
        return self.lm_head(self.model.norm(x)), found

    def balance(self) -> Tensor:
        """Return the load-balancing loss of the last forward pass; 1 is perfectly even."""
        losses = [layer.mlp.balance for layer in self.model.layers if isinstance(layer.mlp, Experts)]
        return torch.stack(losses).mean()

    def forget(self) -> None:
        """Let go of what `balance` needs: it would keep the whole last pass alive."""
        for layer in self.model.layers:
            if isinstance(layer.mlp, Experts):
                layer.mlp.balance = layer.mlp.balance.detach()


def _splice(x: Tensor, pads: Tensor, samples: Tensor, rows: Tensor) -> Tensor:
    """Return x [B, T, N] with its k-th pad of sample `samples[i]` replaced by rows[i, k]."""
    own = pads[samples]
    order = (own.cumsum(1) - 1).clamp(0, rows.shape[1] - 1)
    placed = rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1])).to(x.dtype)
    mixed = torch.where(own[..., None], placed, x[samples])
    return x.index_copy(0, samples, mixed)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5 * 0.7)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.1)
