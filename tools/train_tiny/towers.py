"""The audio tower and the vision tower for training: batched, with the released parameter names and mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_rt.models.qwen3_omni.audio_encoder import halved, sinusoids

STEPS = 13
"""Embeddings of a full chunk of 100 mel frames."""


class AudioAttention(nn.Module):
    """Self-attention with biases; `mask` [B, 1, 1, T] says which keys exist."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mix rows x [B, T, N]."""
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class AudioLayer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, width: int, heads: int, wide: int) -> None:
        super().__init__()
        self.self_attn = AudioAttention(width, heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, wide), nn.Linear(wide, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Run the layer over x [B, T, N]."""
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class AudioTower(nn.Module):
    """Log-mels to one embedding per 80 ms, for clips below 8 s: there is one window of attention."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, channels = config["d_model"], config["downsample_hidden_size"]
        for index, inputs in ((1, 1), (2, channels), (3, channels)):
            setattr(self, f"conv2d{index}", nn.Conv2d(inputs, channels, 3, 2, 1))
        self.conv_out = nn.Linear(channels * halved(config["num_mel_bins"]), width, bias=False)
        self.layers = nn.ModuleList(
            AudioLayer(width, config["encoder_attention_heads"], config["encoder_ffn_dim"])
            for _ in range(config["encoder_layers"])
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj1, self.proj2 = nn.Linear(width, width), nn.Linear(width, config["output_dim"])
        self.register_buffer("table", torch.from_numpy(sinusoids(STEPS, width)), persistent=False)

    def forward(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode mel [B, 128, F], F a multiple of 100, 0 beyond `frames` [B]; return rows [B, T, D] and their mask."""
        batch, mels, length = mel.shape
        x = mel.unflatten(2, (-1, 100)).permute(0, 2, 1, 3).reshape(-1, 1, mels, 100)
        chunks = length // 100
        # The reference does not pad a lone clip below one second: what lies beyond it must stay 0 in every layer.
        real = torch.where(frames < 100, frames, 100).repeat_interleave(chunks)
        for index in (1, 2, 3):
            x = F.gelu(getattr(self, f"conv2d{index}")(x))
            real = (real + 1) // 2
            x = x * (torch.arange(x.shape[3], device=x.device) < real[:, None])[:, None, None].to(x.dtype)
        x = self.conv_out(x.permute(0, 3, 1, 2).flatten(2)) + self.table
        x = x.reshape(batch, chunks * STEPS, -1)
        rest = frames % 100
        for _ in range(3):
            rest = (rest + 1) // 2
        valid = torch.arange(x.shape[1], device=x.device) < (frames // 100 * STEPS + rest)[:, None]
        for layer in self.layers:
            x = layer(x, valid[:, None, None])
        return self.proj2(F.gelu(self.proj1(self.ln_post(x)))), valid


class VisionAttention(nn.Module):
    """Self-attention inside a picture, with rotary positions on two axes."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        """Mix patches x [B, P, N]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the pairs (i, i + D / 2) of x [B, H, T, D] by angles of which cosine and sine [B, 1, T, D / 2] are given."""
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(x.dtype)


class VisionFeedForward(nn.Module):
    """The tanh-GELU feed-forward of a block."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.linear_fc1, self.linear_fc2 = nn.Linear(width, wide), nn.Linear(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, P, N]."""
        return self.linear_fc2(F.gelu(self.linear_fc1(x), approximate="tanh"))


class VisionBlock(nn.Module):
    """One pre-norm block."""

    def __init__(self, width: int, heads: int, wide: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn, self.mlp = VisionAttention(width, heads), VisionFeedForward(width, wide)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        """Run the block over x [B, P, N]."""
        x = x + self.attn(self.norm1(x), cosine, sine, mask)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    """Four neighbouring patches to one token."""

    def __init__(self, width: int, output: int, norm_joined: bool) -> None:
        super().__init__()
        self.joined, self.norm_joined = 4 * width, norm_joined
        self.ln_q = nn.LayerNorm(self.joined if norm_joined else width, 1e-6)
        self.mlp = nn.Sequential(nn.Linear(self.joined, self.joined), nn.GELU(), nn.Linear(self.joined, output))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [B, P / 4, D] of patches x [B, P, N]."""
        if self.norm_joined:
            return self.mlp(self.ln_q(x.unflatten(1, (-1, 4)).flatten(2)))
        return self.mlp(self.ln_q(x).unflatten(1, (-1, 4)).flatten(2))


class PatchEmbedding(nn.Module):
    """One linear map of a patch, stored as a convolution."""

    def __init__(self, width: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(shape[0], width, shape[1:], shape[1:])

    def forward(self, patches: Tensor) -> Tensor:
        """Return rows [B, P, N] of patches of one picture [B, P, 3 * 256]: both temporal slots hold the same."""
        return F.linear(patches, self.proj.weight.sum(2).flatten(1), self.proj.bias)


class VisionTower(nn.Module):
    """Patches to merged tokens, and to one deepstack tensor per tap."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, output = config["hidden_size"], config["out_hidden_size"]
        self.taps = config["deepstack_visual_indexes"]
        self.patch_embed = PatchEmbedding(width, (3, config["temporal_patch_size"], 16, 16))
        self.pos_embed = nn.Embedding(config["num_position_embeddings"], width)
        self.blocks = nn.ModuleList(
            VisionBlock(width, config["num_heads"], config["intermediate_size"]) for _ in range(config["depth"])
        )
        self.merger = Merger(width, output, norm_joined=False)
        self.merger_list = nn.ModuleList(Merger(width, output, norm_joined=True) for _ in self.taps)
        quarter = width // config["num_heads"] // 4
        omega = 1 / 10000 ** (np.arange(quarter, dtype=np.float32) / quarter)
        self.register_buffer("omega", torch.from_numpy(omega.astype(np.float32)), persistent=False)

    def forward(self, levels: Tensor, places: Tensor, blend: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode levels 0 to 255 [B, P, 768].

        `places` [B, P, 2] are row and column, `blend` [B, P, S] the weights of the position table, `valid` [B, P] is
        False for padding.
        """
        x = self.patch_embed(levels / 127.5 - 1) + blend @ self.pos_embed.weight
        angles = (places[..., None] * self.omega).flatten(-2)[:, None]
        cosine, sine, mask = angles.cos(), angles.sin(), valid[:, None, None]
        deep = []
        for index, block in enumerate(self.blocks):
            x = block(x, cosine, sine, mask)
            if index in self.taps:
                deep.append(self.merger_list[self.taps.index(index)](x))
        return self.merger(x), deep
