/* Vectors of 128 bits: NEON of AArch64; with OMNI_DOTPROD also its int8 dot products. See simd.h for each name. */
#define LANES 4
#define CHUNKS_PER_STEP 1
#define WEIGHT_BIAS 0
#define TILE_ROWS 12
#define TILE_VECTORS 2
#define DOT_TILE_ROWS 4
#define DOT_TILE_VECTORS 2

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef int8x16_t vw;

static inline vf vf_set(float x) { return (vf)vdupq_n_f32(x); }
static inline vi vi_set(int32_t x) { return (vi)vdupq_n_s32(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vf vf_from_int(vi x) { return (vf)vcvtq_f32_s32((int32x4_t)x); }
static inline vf vf_max(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vf vf_square_root(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }
static inline float vf_sum(vf x) { return vaddvq_f32((float32x4_t)x); }

static inline void transpose(vf *rows) {
    float32x4x2_t low = vtrnq_f32((float32x4_t)rows[0], (float32x4_t)rows[1]);
    float32x4x2_t high = vtrnq_f32((float32x4_t)rows[2], (float32x4_t)rows[3]);
    rows[0] = (vf)vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0]));
    rows[1] = (vf)vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1]));
    rows[2] = (vf)vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0]));
    rows[3] = (vf)vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1]));
}

static inline float half_value(uint16_t half) {
    __fp16 value;
    memcpy(&value, &half, 2);
    return value;
}
static inline uint16_t half_bits(float value) {
    __fp16 half = (__fp16)value;
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
}
static inline vf vf_load_half(const uint16_t *p) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void vf_store_half(uint16_t *p, vf x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)x))); }
static inline vf vf_load_int8(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return (vf)vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}
typedef struct {
    float low[LANES], high[LANES];
} step_scales;
static inline void keep_scales(step_scales *kept, vf low, vf high) {
    memcpy(kept->low, &low, sizeof low);
    memcpy(kept->high, &high, sizeof high);
}
static inline vf scale_step(const step_scales *scales, int step) {
    return vf_set(step % 2 ? scales->high[step / 2] : scales->low[step / 2]);
}
static inline vw vw_load(const int8_t *p) { return vld1q_s8(p); }

static inline vi dot16(vi sum, int8x16_t w, int8x16_t x) {
#ifdef OMNI_DOTPROD
    return (vi)vdotq_s32((int32x4_t)sum, w, x);
#else
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)); /* |w x| <= 128 * 127: two products fit 16 bits */
    int16x8_t high = vmull_s8(vget_high_s8(w), vget_high_s8(x));
    int32x4_t pairs = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
    return sum + (vi)pairs;
#endif
}
static inline vi dot_step(const int8_t *w, const int8_t *x, vi start) {
    return dot16(start, vld1q_s8(w), vld1q_s8(x));
}
static inline vi dot4(vi sum, vw w, int32_t x) { return dot16(sum, w, vreinterpretq_s8_s32(vdupq_n_s32(x))); }
