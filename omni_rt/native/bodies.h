/* All bodies and their table, for the level whose simd_*.h was included before. */
#include "simd.h"

#include "quantise.c"
#include "product.c"
#include "matmul.c"

#define BODY(name) {#name, name},
static const omni_entry entries[] = {
    BODY(matmul_f32)
    BODY(matmul_f16)
    BODY(matmul_q8_0)
    BODY(matmul_q8_0_int8)
    BODY(matmul_add_f32)
    BODY(matmul_add_f16)
    BODY(matmul_add_q8_0)
    BODY(matmul_add_q8_0_int8)
};

const omni_level OMNI_LEVEL = {OMNI_LEVEL_NAME, supported, entries, (int)(sizeof entries / sizeof *entries)};
