"""The Talker and its code predictor for training: released names and mathematics, batched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_rt.models.decoder import frequencies
from tools.train_tiny.thinker import Attention, Experts, FeedForward, RMSNorm
from tools.train_tiny.towers import rotate

POINTERS = {1: 0, 2: 1}
"""Layers of the Talker whose first head is taught where to look: at the token being spoken, or so many after it."""


DROPOUT = 0.05
"""Of what a layer hands on, in training."""


class SharedExperts(Experts):
    """Experts beside one that every row passes, behind a gate of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.shared_expert = FeedForward(config["hidden_size"], config["shared_expert_intermediate_size"])
        self.shared_expert_gate = nn.Linear(config["hidden_size"], 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., N]."""
        return super().forward(x) + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)


class Layer(nn.Module):
    """One decoder layer, dense in the code predictor and with experts in the Talker."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(width), RMSNorm(width)
        self.self_attn = Attention(config)
        sparse = "num_experts" in config
        self.mlp = SharedExperts(config) if sparse else FeedForward(width, config["intermediate_size"])

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Run the layer over x [B, T, N]."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Layers and final norm, with the embeddings of codes beside them: one table, or one for each codebook."""

    def __init__(self, config: dict[str, Any], tables: nn.Module) -> None:
        super().__init__()
        self.codec_embedding = tables
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(config["hidden_size"])
        sections = (config["rope_scaling"] or {}).get("mrope_section", ())
        table = frequencies(config["head_dim"], config["rope_theta"], tuple(sections))
        self.register_buffer("frequencies", torch.from_numpy(table), persistent=False)

    def forward(self, x: Tensor, positions: Tensor, pointers: dict[int, Tensor] | None = None) -> Tensor:
        """Return the normed states [B, T, N] of rows x at positions [B, axes, T].

        `pointers` are rows [B, T] that the first head of a layer should look at, -1 for any; `astray` is how far it
        does not, and `seen` [B, T, N] what the rows hold behind the last of these layers.
        """
        self.astray = torch.zeros((), device=x.device)
        angles = torch.einsum("bat,af->btf", positions.float(), self.frequencies)[:, None]
        cosine, sine = angles.cos(), angles.sin()
        for index, layer in enumerate(self.layers):
            if pointers and index in pointers:
                normed = layer.input_layernorm(x)
                self.astray = self.astray + astray(layer.self_attn, normed, cosine, sine, pointers[index]) / len(
                    pointers
                )
            x = layer(x, cosine, sine)
            if self.training:
                x = F.dropout(x, DROPOUT)
            if pointers and index == max(pointers):
                self.seen = x
        return self.norm(x)

    def balance(self) -> Tensor:
        """Return the load-balancing loss of the last forward pass; 1 is perfectly even."""
        return torch.stack([layer.mlp.balance for layer in self.layers if isinstance(layer.mlp, Experts)]).mean()


def astray(attention: Attention, x: Tensor, cosine: Tensor, sine: Tensor, wanted: Tensor) -> Tensor:
    """Return how far the first head looks from the rows `wanted` [B, T]: a cross-entropy; -1 does not count."""
    q = attention.q_norm(F.linear(x, attention.q_proj.weight[: attention.dim]))
    k = attention.k_norm(F.linear(x, attention.k_proj.weight[: attention.dim]))
    q, k = (rotate(part[:, None], cosine, sine)[:, 0].float() for part in (q, k))
    scores = q @ k.transpose(1, 2) * attention.dim**-0.5
    later = torch.ones(scores.shape[1:], dtype=torch.bool, device=x.device).triu(1)
    return F.cross_entropy(scores.masked_fill(later, -1e9).flatten(0, 1), wanted.flatten(), ignore_index=-1)


class CodePredictor(nn.Module):
    """Codebooks 1 to 3 of a frame, from the Talker's state and codebook 0."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, entries, books = config["hidden_size"], config["vocab_size"], config["num_code_groups"] - 1
        self.model = Decoder(config, nn.ModuleList(nn.Embedding(entries, width) for _ in range(books)))
        self.lm_head = nn.ModuleList(nn.Linear(width, entries, bias=False) for _ in range(books))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the normed states of rows [M, 2 to 4, N]: the Talker's state, then the codes so far."""
        places = torch.arange(rows.shape[1], device=rows.device).expand(1, 1, -1)
        return self.model(rows, places)


class Projection(nn.Module):
    """From the Thinker's width to the Talker's."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        inner, width = config["text_config"]["intermediate_size"], config["text_config"]["hidden_size"]
        self.linear_fc1 = nn.Linear(config["thinker_hidden_size"], inner)
        self.linear_fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Project rows."""
        return self.linear_fc2(F.silu(self.linear_fc1(x)))


class Talker(nn.Module):
    """Everything under `talker.`."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        text = config["text_config"]
        self.text_projection, self.hidden_projection = Projection(config), Projection(config)
        self.model = Decoder(text, nn.Embedding(text["vocab_size"], text["hidden_size"]))
        self.codec_head = nn.Linear(text["hidden_size"], text["vocab_size"], bias=False)
        self.code_predictor = CodePredictor(config["code_predictor_config"])
        self.apply(_start)

    def code_rows(self, codes: Tensor) -> Tensor:
        """Return the sum of the embeddings [..., N] of frames of codes [..., K]."""
        rows = self.model.codec_embedding(codes[..., 0])
        for book, table in enumerate(self.code_predictor.model.codec_embedding, 1):
            rows = rows + table(codes[..., book])
        return rows

    def rest_rows(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Return what the code predictor reads [M, 2 to 4, N] after states [M, N] and codes so far [M, 1 to 3]."""
        rows = [hidden, self.model.codec_embedding(codes[:, 0])]
        tables = self.code_predictor.model.codec_embedding
        rows += [tables[book - 1](codes[:, book]) for book in range(1, codes.shape[1])]
        return torch.stack(rows, 1)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5 * 0.7)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.3)
