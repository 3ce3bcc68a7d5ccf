/* All bodies and their table, for the level whose simd_*.h was included before. */
#include "simd.h"

#include "quantise.c"
#include "blocks.c"
#include "dot.c"
#include "tile_float.c"
#include "tile_int8.c"
#include "product.c"
#include "dot_float.c"
#include "matmul.c"
#include "rows.c"
#include "position.c"
#include "attention.c"
#include "convolution.c"
#include "minimal.c"
#include "experts.c"
#include "sampling.c"

#define BODY(name) {#name, name},
static const omni_entry entries[] = {
    BODY(matmul_f32) BODY(matmul_f16) BODY(matmul_q8_0) BODY(matmul_q8_0_int8) BODY(matmul_add_f32)
    BODY(matmul_add_f16) BODY(matmul_add_q8_0) BODY(matmul_add_q8_0_int8) BODY(rms_norm) BODY(layer_norm)
    BODY(read_all)
    BODY(softmax) BODY(silu_mul) BODY(snake) BODY(behind_tail) BODY(snake_behind_tail)
    BODY(add) BODY(add_gated) BODY(embed_f32) BODY(embed_f16)
    BODY(embed_q8_0) BODY(embed_sum_f32) BODY(embed_sum_f16) BODY(embed_sum_q8_0) BODY(splice) BODY(add_rows)
    BODY(silu) BODY(gelu) BODY(gelu_tanh) BODY(rope) BODY(kv_append_f32) BODY(kv_append_f16) BODY(rope_append_f32)
    BODY(rope_append_f16) BODY(norm_rope_append_f32) BODY(norm_rope_append_f16) BODY(attention_f32)
    BODY(attention_f16) BODY(conv1d_f32) BODY(conv1d_f16) BODY(conv_transpose1d_f32)
    BODY(conv_transpose1d_f16) BODY(conv2d_f32) BODY(conv2d_f16)
    BODY(conv1d_f32_minimal) BODY(conv1d_f16_minimal) BODY(conv_transpose1d_f32_minimal)
    BODY(conv_transpose1d_f16_minimal)
    BODY(route) BODY(expert_gate_up_f32) BODY(expert_gate_up_f16) BODY(expert_gate_up_q8_0)
    BODY(expert_gate_up_q8_0_int8) BODY(expert_down_f32) BODY(expert_down_f16) BODY(expert_down_q8_0)
    BODY(expert_down_q8_0_int8) BODY(argmax) BODY(penalise) BODY(mark) BODY(advance) BODY(put) BODY(sample)
    BODY(concat_rows) BODY(angles) BODY(relu) BODY(elu) BODY(hyperbolic_tangent) BODY(gate_channels) BODY(pool_rows)
    BODY(quantise_f32) BODY(quantise_f16) BODY(quantise_bf16) BODY(split_blocks)
    BODY(halve_f32) BODY(halve_bf16)
};

const omni_level OMNI_LEVEL = {OMNI_LEVEL_NAME, supported, entries, (int)(sizeof entries / sizeof *entries)};
