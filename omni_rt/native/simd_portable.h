/* Vectors for any processor, in the vector extension that GCC and Clang share; see simd.h for what each name means. */
#define LANES 4
#define CHUNKS_PER_STEP 1
#define WEIGHT_BIAS 0
#define TILE_ROWS 4
#define TILE_VECTORS 2
#define DOT_TILE_ROWS 4
#define DOT_TILE_VECTORS 1

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef struct {
    int8_t lane[16];
} vw;

static inline vf vf_set(float x) { return (vf){x, x, x, x}; }
static inline vi vi_set(int32_t x) { return (vi){x, x, x, x}; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_from_int(vi x) { return (vf){(float)x[0], (float)x[1], (float)x[2], (float)x[3]}; }
static inline float vf_sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline vf vf_max(vf a, vf b) {
    vi greater = a > b;
    return (vf)((greater & (vi)a) | (~greater & (vi)b));
}
static inline vf vf_square_root(vf x) {
    return (vf){__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
}

static inline void transpose(vf *rows) {
    vf from[LANES];
    memcpy(from, rows, sizeof from);
    for (int i = 0; i < LANES; i++)
        rows[i] = (vf){from[0][i], from[1][i], from[2][i], from[3][i]};
}

static inline float half_value(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, 4);
    value *= 0x1p112f; /* moves the exponent; subnormals become normal */
    memcpy(&bits, &value, 4);
    if ((half & 0x7c00) == 0x7c00)
        bits = 0x7f800000 | (uint32_t)(half & 0x3ff) << 13;
    bits |= (uint32_t)(half & 0x8000) << 16;
    memcpy(&value, &bits, 4);
    return value;
}
static inline uint16_t half_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return sign | 0x7e00;
    if (bits >= 0x477ff000) /* 65520 and above round to infinity */
        return sign | 0x7c00;
    if (bits < 0x38800000) { /* below 2^-14: subnormal; adding 0.5 rounds to steps of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, 4);
        return sign | (uint16_t)(bits - 0x3f000000);
    }
    bits += 0xc8000fff + (bits >> 13 & 1);
    return sign | (uint16_t)(bits >> 13);
}
static inline vf vf_load_half(const uint16_t *p) {
    return (vf){half_value(p[0]), half_value(p[1]), half_value(p[2]), half_value(p[3])};
}
static inline void vf_store_half(uint16_t *p, vf x) {
    for (int i = 0; i < LANES; i++)
        p[i] = half_bits(x[i]);
}
static inline vf vf_load_int8(const int8_t *p) { return (vf){p[0], p[1], p[2], p[3]}; }

static inline vi dot_step(const int8_t *w, const int8_t *x, vi start) {
    int32_t sum = 0;
    for (int i = 0; i < 16; i++)
        sum += (int16_t)w[i] * (int16_t)x[i];
    start[0] += sum;
    return start;
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

static inline vw vw_load(const int8_t *p) {
    vw w;
    memcpy(&w, p, sizeof w);
    return w;
}
static inline vi dot4(vi sum, vw w, int32_t x) {
    int8_t values[4];
    memcpy(values, &x, 4);
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++)
            sum[lane] += (int16_t)w.lane[4 * lane + i] * (int16_t)values[i];
    return sum;
}
