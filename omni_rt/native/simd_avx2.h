/* Vectors of 256 bits: AVX2, FMA and F16C; with OMNI_VNNI also AVX-VNNI. See simd.h for what each name means. */
#define LANES 8
#define CHUNKS_PER_STEP 2
#define TILE_ROWS 6
#define TILE_VECTORS 2
#define DOT_TILE_ROWS 4
#define DOT_TILE_VECTORS 1

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef __m256i vw;

static inline vf vf_set(float x) { return (vf)_mm256_set1_ps(x); }
static inline vi vi_set(int32_t x) { return (vi)_mm256_set1_epi32(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vf vf_from_int(vi x) { return (vf)_mm256_cvtepi32_ps((__m256i)x); }
static inline vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf vf_square_root(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
static inline float vf_sum(vf x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* Swap 1, then 2, then 4 lanes between rows. */
static inline void transpose(vf *rows) {
    __m256 a[LANES], b[LANES];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps((__m256)rows[i], (__m256)rows[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps((__m256)rows[i], (__m256)rows[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        rows[i] = (vf)_mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        rows[i + 4] = (vf)_mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

static inline float half_value(uint16_t half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }
static inline uint16_t half_bits(float value) {
    return (uint16_t)_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT));
}
static inline vf vf_load_half(const uint16_t *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline void vf_store_half(uint16_t *p, vf x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf vf_load_int8(const int8_t *p) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/* Scales lie in memory in pairs: the ports that could move them between lanes are what the int8 products wait for. */
typedef struct {
    float pairs[2 * LANES]; /* of blocks 0, 1, 4, 5, 2, 3, 6, 7 */
} step_scales;
static inline void keep_scales(step_scales *kept, vf low, vf high) {
    _mm256_storeu_ps(kept->pairs, _mm256_unpacklo_ps((__m256)low, (__m256)high));
    _mm256_storeu_ps(kept->pairs + LANES, _mm256_unpackhi_ps((__m256)low, (__m256)high));
}
static inline vf scale_step(const step_scales *scales, int step) {
    double pair;
    int place = (step & 1) | (step & 4) >> 1 | (step & 2) << 1;
    memcpy(&pair, scales->pairs + 2 * place, sizeof pair);
    return (vf)_mm256_permutevar_ps(_mm256_castpd_ps(_mm256_set1_pd(pair)), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}
static inline vw vw_load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

#ifdef OMNI_VNNI
/* Unsigned times signed: weights are moved up by 128. */
#define WEIGHT_BIAS 128
static inline vi dot_step(const int8_t *w, const int8_t *x, vi start) {
    __m256i moved = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)w), _mm256_set1_epi8((char)0x80));
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)start, moved, _mm256_loadu_si256((const __m256i *)x));
}
static inline vi dot4(vi sum, vw w, int32_t x) {
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, w, _mm256_set1_epi32(x));
}
#else
/* Pairs of products fit 16 bits because |x| <= 127: the magnitude of w times x with the sign of w. */
#define WEIGHT_BIAS 0
static inline vi dot_signed(vi start, __m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return start + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
static inline vi dot_step(const int8_t *w, const int8_t *x, vi start) {
    return dot_signed(start, _mm256_loadu_si256((const __m256i *)w), _mm256_loadu_si256((const __m256i *)x));
}
static inline vi dot4(vi sum, vw w, int32_t x) { return dot_signed(sum, w, _mm256_set1_epi32(x)); }
#endif
