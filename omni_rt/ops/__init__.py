"""The op table: what can be computed. Each op is declared once; see contract.py."""

from __future__ import annotations

from omni_rt.ops.attention import attention
from omni_rt.ops.contract import TABLE
from omni_rt.ops.convolution import conv1d, conv1d_activated, conv1d_snake, conv2d, conv_transpose1d
from omni_rt.ops.elementwise import add, gelu, gelu_tanh, silu, silu_mul, snake
from omni_rt.ops.expert_groups import add_weighted, expert_slots, grouped_gate_up, grouped_product
from omni_rt.ops.experts import add_gated, expert_down, expert_gate_up, route
from omni_rt.ops.int8 import in_int8
from omni_rt.ops.largest import argmax_merge, argmax_parts, largest
from omni_rt.ops.matmul import matmul, matmul_add
from omni_rt.ops.norm import layer_norm, rms_norm, softmax
from omni_rt.ops.normed_matmul import gate_up_normed, norm_gate_up, norm_matmul, project_normed
from omni_rt.ops.pooling import elu, gate_channels, pool, relu, tanh
from omni_rt.ops.position import angles, kv_append, norm_rope_append, rope, rope_append
from omni_rt.ops.reading import read_all
from omni_rt.ops.routed_experts import add_experts, route_gate_up
from omni_rt.ops.rows import add_rows, concat_rows, embed, embed_sum, splice
from omni_rt.ops.sampling import advance, argmax, mark, penalise, put, sample, sample_embed
from omni_rt.ops.split_attention import attend, attention_merge, attention_parts
from omni_rt.ops.step_attention import append_attend, append_attend_parts, attend_appended, parts_for
from omni_rt.ops.stream_rows import behind_tail, snake_behind_tail

__all__ = [
    "TABLE",
    "add",
    "add_experts",
    "add_gated",
    "add_rows",
    "add_weighted",
    "advance",
    "angles",
    "append_attend",
    "append_attend_parts",
    "argmax",
    "argmax_merge",
    "argmax_parts",
    "attend",
    "attend_appended",
    "attention",
    "attention_merge",
    "attention_parts",
    "behind_tail",
    "concat_rows",
    "conv1d",
    "conv1d_activated",
    "conv1d_snake",
    "conv2d",
    "conv_transpose1d",
    "elu",
    "embed",
    "embed_sum",
    "expert_down",
    "expert_gate_up",
    "expert_slots",
    "gate_channels",
    "gate_up_normed",
    "gelu",
    "gelu_tanh",
    "grouped_gate_up",
    "grouped_product",
    "in_int8",
    "kv_append",
    "largest",
    "layer_norm",
    "mark",
    "matmul",
    "matmul_add",
    "norm_gate_up",
    "norm_matmul",
    "norm_rope_append",
    "parts_for",
    "penalise",
    "pool",
    "project_normed",
    "put",
    "read_all",
    "relu",
    "rms_norm",
    "rope",
    "rope_append",
    "route",
    "route_gate_up",
    "sample",
    "sample_embed",
    "silu",
    "silu_mul",
    "snake",
    "snake_behind_tail",
    "softmax",
    "splice",
    "tanh",
]
