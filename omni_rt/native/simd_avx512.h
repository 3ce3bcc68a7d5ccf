/* Vectors of 512 bits: AVX-512 F, BW, VL, DQ and VNNI. See simd.h for what each name means. */
#define LANES 16
#define CHUNKS_PER_STEP 4
#define TILE_ROWS 14
#define TILE_VECTORS 2
#define DOT_TILE_ROWS 5
#define DOT_TILE_VECTORS 2
#define WEIGHT_BIAS 128 /* dpbusd is unsigned times signed: weights are moved up by 128 */

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef __m512i vw;

static inline vf vf_set(float x) { return (vf)_mm512_set1_ps(x); }
static inline vi vi_set(int32_t x) { return (vi)_mm512_set1_epi32(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vf vf_from_int(vi x) { return (vf)_mm512_cvtepi32_ps((__m512i)x); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf vf_square_root(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
static inline float vf_sum(vf x) { return _mm512_reduce_add_ps((__m512)x); }

/* Turn blocks of 4 x 4 within quarters of a vector, then the quarters. */
static inline __attribute__((always_inline)) void transpose(vf *rows) {
    __m512 a[LANES], b[LANES];
#define EACH(n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
    EACH(8) {
        a[2 * i] = _mm512_unpacklo_ps((__m512)rows[2 * i], (__m512)rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps((__m512)rows[2 * i], (__m512)rows[2 * i + 1]);
    }
    EACH(4) { /* b[4 i + c]: column c of each quarter, rows 4 i to 4 i + 3 */
        b[4 * i] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    EACH(4) {
        __m512 even = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), odd = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        __m512 even2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        __m512 odd2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        rows[i] = (vf)_mm512_shuffle_f32x4(even, even2, 0x88);
        rows[i + 8] = (vf)_mm512_shuffle_f32x4(even, even2, 0xdd);
        rows[i + 4] = (vf)_mm512_shuffle_f32x4(odd, odd2, 0x88);
        rows[i + 12] = (vf)_mm512_shuffle_f32x4(odd, odd2, 0xdd);
    }
#undef EACH
}

static inline float half_value(uint16_t half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }
static inline uint16_t half_bits(float value) {
    return (uint16_t)_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT));
}
static inline vf vf_load_half(const uint16_t *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline void vf_store_half(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
}
#define PARTS_BY_MASK
static inline __mmask16 first_lanes(int64_t count) { return (__mmask16)((1u << count) - 1); }
static inline vf vf_load_part(const float *p, int64_t count) {
    return (vf)_mm512_maskz_loadu_ps(first_lanes(count), p);
}
static inline void vf_store_part(float *p, vf x, int64_t count) {
    _mm512_mask_storeu_ps(p, first_lanes(count), (__m512)x);
}
static inline vf vf_load_half_part(const uint16_t *p, int64_t count) {
    return (vf)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
static inline vf vf_load_int8(const int8_t *p) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

static inline vi dot_step(const int8_t *w, const int8_t *x, vi start) {
    __m512i moved = _mm512_xor_si512(_mm512_loadu_si512(w), _mm512_set1_epi32((int)0x80808080));
    return (vi)_mm512_dpbusd_epi32((__m512i)start, moved, _mm512_loadu_si512(x));
}
typedef struct {
    vf low, high;
} step_scales;
static inline void keep_scales(step_scales *kept, vf low, vf high) { *kept = (step_scales){low, high}; }
static inline vf scale_step(const step_scales *scales, int step) {
    const vi quarters = {0, 0, 0, 0, 16, 16, 16, 16, 1, 1, 1, 1, 17, 17, 17, 17}; /* from 16 on they are those of `high` */
    return (vf)_mm512_permutex2var_ps((__m512)scales->low, (__m512i)(quarters + vi_set(2 * step)), (__m512)scales->high);
}
static inline vw vw_load(const int8_t *p) { return _mm512_loadu_si512(p); }
static inline vi dot4(vi sum, vw w, int32_t x) {
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, w, _mm512_set1_epi32(x));
}
