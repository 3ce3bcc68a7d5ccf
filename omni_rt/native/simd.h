/* What every simd_*.h provides, and what follows from it.
 *
 * LANES             floats in a vector
 * TILE_ROWS x TILE_VECTORS   vectors of sums that the tile of tile_float.c keeps in registers
 * DOT_TILE_ROWS x DOT_TILE_VECTORS   the same for tile_int8.c
 * CHUNKS_PER_STEP   chunks of 16 int8 that one dot_step takes: the sums of each stay in 4 lanes
 * WEIGHT_BIAS       what the int8 instructions want added to weights (0 or 128); a correction takes it off sums of blocks
 * vf, vi, vw        vectors of float, int32, and LANES groups of 4 int8
 * transpose(rows)   turn LANES vectors: lane j of rows[i] becomes lane i of rows[j]; any bits
 * dot_step(w, x, start)  start plus the products of the (biased) chunks at w and x; |x| <= 127
 * keep_scales, scale_step   keep those of the first and the second halves of LANES blocks; spread those of one step over its lanes
 * dot4(sum, w, x)   per lane: sum plus the product of 4 (biased) weights with the 4 int8 in x
 */
#ifndef OMNI_SIMD_H
#define OMNI_SIMD_H

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE vf vf_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
INLINE vf vf_zero(void) { return (vf){0}; }

/* The first `count` < LANES values, zeros behind them. A store and a wider load of the same bytes wait for each other, so
 * a processor with masks has its own. */
#ifndef PARTS_BY_MASK
INLINE vf vf_load_part(const float *p, int64_t count) {
    float values[LANES] = {0};
    memcpy(values, p, (size_t)count * sizeof *p);
    return vf_load(values);
}
INLINE void vf_store_part(float *p, vf x, int64_t count) {
    float values[LANES];
    vf_store(values, x);
    memcpy(p, values, (size_t)count * sizeof *p);
}
INLINE vf vf_load_half_part(const uint16_t *p, int64_t count) {
    uint16_t values[LANES] = {0};
    memcpy(values, p, (size_t)count * sizeof *p);
    return vf_load_half(values);
}
#endif

INLINE vf vf_select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
INLINE vf vf_min(vf a, vf b) { return -vf_max(-a, -b); }
INLINE vf vf_absolute(vf x) { return (vf)((vi)x & vi_set(0x7fffffff)); }

INLINE float vf_largest(vf x) {
    float largest = x[0];
    for (int i = 1; i < LANES; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/* e^x to 1e-7 relative; 0 below -87.3, saturates above 88. */
INLINE vf vf_exp(vf x) {
    const vf magic = vf_set(12582912.0f); /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    vf bounded = vf_max(vf_min(x, vf_set(88.0f)), vf_set(-87.3f));
    vf shifted = vf_fma(bounded, vf_set(1.44269504f), magic);
    vf whole = shifted - magic;
    vf rest = vf_fma(whole, vf_set(-0.693145751953125f), bounded);
    rest = vf_fma(whole, vf_set(-1.42860677e-6f), rest);
    vf sum = vf_set(1.0f / 720);
    sum = vf_fma(sum, rest, vf_set(1.0f / 120));
    sum = vf_fma(sum, rest, vf_set(1.0f / 24));
    sum = vf_fma(sum, rest, vf_set(1.0f / 6));
    sum = vf_fma(sum, rest, vf_set(0.5f));
    sum = vf_fma(sum, rest, vf_set(1.0f));
    sum = vf_fma(sum, rest, vf_set(1.0f));
    vi exponent = ((vi)shifted - (vi)magic + 127) << 23;
    vf value = sum * (vf)exponent;
    return vf_select(x < vf_set(-87.3f), vf_zero(), value);
}

#endif
