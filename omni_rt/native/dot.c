/* Weight rows, and their products with few rows of activations.
 *
 * One weight row at a time, so that memory is read in order; several rows at once, each a stream of its own, reach little
 * more than half of the bandwidth. While it is in the first cache it is multiplied with every activation row.
 * Compiled once per level.
 */

typedef enum { WEIGHT_F32, WEIGHT_F16, WEIGHT_Q8_0 } weight_kind;

/* Weight rows of K values each, one after the other; `scales` only for q8_0. */
typedef struct {
    weight_kind kind;
    const void *values;
    const uint16_t *scales;
    int64_t k;
} weight_rows;

enum { GROUP = 4 }; /* weight rows that stay in the first cache while several rows of x are multiplied with them */

INLINE int64_t weight_bytes(weight_kind kind, int64_t count) {
    return kind == WEIGHT_F32 ? 4 * count : kind == WEIGHT_F16 ? 2 * count : count + count / BLOCK * 2;
}

INLINE weight_rows weight_from(weight_rows w, int64_t row) {
    int64_t first = row * w.k;
    const char *values = w.values;
    values += w.kind == WEIGHT_F32 ? 4 * first : w.kind == WEIGHT_F16 ? 2 * first : first;
    return (weight_rows){w.kind, values, w.scales ? w.scales + first / BLOCK : NULL, w.k};
}

/* Ask for memory that will be read soon. The address may lie behind the weights; nothing is read then. */
enum { AHEAD = 8192 };
INLINE void prefetch(const void *address) { __builtin_prefetch((const char *)address + AHEAD, 0, 2); }

enum { CHAINS = 4 }; /* independent sums, to hide the latency of the additions */

INLINE float chain_sum(const vf *chains) { return vf_sum((chains[0] + chains[1]) + (chains[2] + chains[3])); }

/* w . x for one weight row, x in float. */
INLINE float dot_row_kind(weight_kind kind, weight_rows w, const float *x) {
    vf chains[CHAINS] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    int64_t k = w.k, i = 0;
    if (kind == WEIGHT_Q8_0) {
        const int8_t *quants = w.values;
        for (int64_t b = 0; b < k / BLOCK; b++, i += BLOCK) {
            prefetch(quants + i);
            vf sum = vf_load_int8(quants + i) * vf_load(x + i);
            for (int j = LANES; j < BLOCK; j += LANES)
                sum = vf_fma(vf_load_int8(quants + i + j), vf_load(x + i + j), sum);
            chains[0] = vf_fma(sum, vf_set(half_value(w.scales[b])), chains[0]);
        }
        return chain_sum(chains);
    }
    const float *single = w.values;
    const uint16_t *half = w.values;
    vf total = vf_zero();
    while (i + CHAINS * LANES <= k) { /* sums of sums: a single long one would gather rounding errors of one sign */
        for (int c = 0; c < CHAINS; c++)
            chains[c] = vf_zero();
        int64_t end = omni_min(i + 16 * CHAINS * LANES, k / (CHAINS * LANES) * (CHAINS * LANES));
        for (; i < end; i += CHAINS * LANES) {
            prefetch(kind == WEIGHT_F32 ? (const void *)(single + i) : half + i);
            for (int c = 0; c < CHAINS; c++) {
                int64_t at = i + c * LANES;
                chains[c] = vf_fma(kind == WEIGHT_F32 ? vf_load(single + at) : vf_load_half(half + at), vf_load(x + at),
                                   chains[c]);
            }
        }
        total += (chains[0] + chains[1]) + (chains[2] + chains[3]);
    }
    for (; i < k; i += LANES) {
        int64_t count = omni_min(LANES, k - i);
        vf values = kind == WEIGHT_F32 ? vf_load_part(single + i, count) : vf_load_half_part(half + i, count);
        total = vf_fma(values, vf_load_part(x + i, count), total);
    }
    return vf_sum(total);
}

static float dot_row_f32(weight_rows w, const float *x) { return dot_row_kind(WEIGHT_F32, w, x); }
static float dot_row_f16(weight_rows w, const float *x) { return dot_row_kind(WEIGHT_F16, w, x); }
static float dot_row_q8(weight_rows w, const float *x) { return dot_row_kind(WEIGHT_Q8_0, w, x); }

/* The products of the chunks of a step: those at w with x from value `at` on. `planes` is a constant, 1 or 2. */
INLINE vi dot_planes(const int8_t *w, int8_row x, int planes, int64_t at) {
    vi sum = dot_step(w, x.planes[0] + at, vi_set(0));
    return planes == 1 ? sum : dot_step(w, x.planes[1] + at, sum * vi_set(FINER));
}

/* Add blocks [b, b + count) of a q8_0 row times x in int8; `count` is a constant, whole steps and at most LANES. */
INLINE void add_blocks(weight_rows w, int8_row x, int planes, int64_t b, int count, vf *chains) {
    const int8_t *quants = w.values;
    prefetch(w.scales + b);
    vf weight_scales = count == LANES ? vf_load_half(w.scales + b) : vf_load_half_part(w.scales + b, count);
    step_scales scales;
    keep_scales(&scales, weight_scales * vf_load(x.scales[0] + b), weight_scales * vf_load(x.scales[1] + b));
    if (WEIGHT_BIAS)
        chains[0] = vf_fma(weight_scales, vf_load(x.corrections + b), chains[0]);
    UNROLL
    for (int s = 0; s < 2 * count / CHUNKS_PER_STEP; s++) {
        int64_t at = b * BLOCK + s * CHUNKS_PER_STEP * CHUNK;
        if (at % 256 == 0) /* every fourth line: the processor finds those between by itself, and asking takes time */
            prefetch(quants + at);
        vi sum = dot_planes(quants + at, x, planes, at);
        chains[s % CHAINS] = vf_fma(vf_from_int(sum), scale_step(&scales, s), chains[s % CHAINS]);
    }
}

/* w . x for one q8_0 row, x in int8. */
INLINE float dot_row_int8(weight_rows w, int8_row x, int planes) {
    enum { LEAST = CHUNKS_PER_STEP > 2 ? CHUNKS_PER_STEP / 2 : 1 };
    int64_t blocks = w.k / BLOCK, b = 0;
    vf chains[CHAINS] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (; b + LANES <= blocks; b += LANES)
        add_blocks(w, x, planes, b, LANES, chains);
    if (b + LANES / 2 <= blocks) {
        add_blocks(w, x, planes, b, LANES / 2, chains);
        b += LANES / 2;
    }
    for (; b + LEAST <= blocks; b += LEAST)
        add_blocks(w, x, planes, b, LEAST, chains);
    if (b < blocks) { /* half a step: zeros make it whole */
        int8_t padded[LEAST * BLOCK] = {0};
        vf low = vf_zero(), high = vf_zero();
        float scale = half_value(w.scales[b]);
        memcpy(padded, (const int8_t *)w.values + b * BLOCK, BLOCK);
        low[0] = scale * x.scales[0][b];
        high[0] = scale * x.scales[1][b];
        vi sum = dot_planes(padded, x, planes, b * BLOCK);
        step_scales scales;
        keep_scales(&scales, low, high);
        chains[0] = vf_fma(vf_from_int(sum), scale_step(&scales, 0), chains[0]);
        if (WEIGHT_BIAS)
            chains[0][0] += scale * x.corrections[b];
    }
    return chain_sum(chains);
}

static float dot_row_one_plane(weight_rows w, int8_row x) { return dot_row_int8(w, x, 1); }
static float dot_row_two_planes(weight_rows w, int8_row x) { return dot_row_int8(w, x, 2); }

/* Rows of activations: float rows, or int8 rows of the same length. */
typedef struct {
    const float *values;
    const char *int8_rows; /* NULL: float */
    int64_t k;
    int planes; /* of the int8 rows */
} activation_rows;

/* sums[r] = w[r] . x[t] for `count` weight rows. */
static void dot_some(weight_rows w, activation_rows x, int64_t t, int64_t count, float *sums) {
    if (x.int8_rows) {
        int8_row row = int8_row_at(x.int8_rows, x.k, x.planes, t);
        for (int64_t r = 0; r < count; r++) {
            weight_rows one = weight_from(w, r);
            sums[r] = x.planes == 1 ? dot_row_one_plane(one, row) : dot_row_two_planes(one, row);
        }
        return;
    }
    const float *row = x.values + t * x.k;
    for (int64_t r = 0; r < count; r++) {
        weight_rows one = weight_from(w, r);
        sums[r] = w.kind == WEIGHT_F32   ? dot_row_f32(one, row)
                  : w.kind == WEIGHT_F16 ? dot_row_f16(one, row)
                                         : dot_row_q8(one, row);
    }
}

/* Weight rows per chunk: a multiple of GROUP; enough chunks to balance, none so large that others wait long for the last,
 * each worth the claim. The chunks of a thread follow each other in memory, so small ones cost little. */
enum { LEAST_CHUNK = 8192, MOST_CHUNK = 65536 };
static int64_t rows_per_chunk(omni_pool *pool, int64_t rows, int64_t row_bytes) {
    int64_t balanced = omni_divide_up(rows, 16 * (int64_t)omni_threads(pool)), bytes = omni_max(row_bytes, 1);
    int64_t step = omni_max(omni_min(balanced, MOST_CHUNK / bytes), omni_divide_up(LEAST_CHUNK, bytes));
    return omni_divide_up(step, GROUP) * GROUP;
}
