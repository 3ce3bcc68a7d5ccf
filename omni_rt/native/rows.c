/* Norms, softmax, activations, sums and gathers: what touches each value once. Compiled once per level. */

/* A call whose items (rows, or runs of values) are independent, and the item range of a chunk. */
typedef struct {
    const omni_call *call;
    int64_t total, step;
    void (*run)(const omni_call *call, int64_t begin, int64_t end);
} range_job;

enum { WORTHWHILE = 8192 }; /* values per chunk: a few microseconds */

static void range_task(void *context, int64_t chunk, int worker) {
    const range_job *job = context;
    (void)worker;
    job->run(job->call, chunk * job->step, omni_min((chunk + 1) * job->step, job->total));
}

/* Run `run` over [0, total) on all threads; `cost` is the number of values that an item touches. */
static int each_range(const omni_call *call, omni_pool *pool, int64_t total, int64_t cost,
                      void (*run)(const omni_call *, int64_t, int64_t)) {
    range_job job = {call, total, omni_max(1, WORTHWHILE / omni_max(cost, 1)), run};
    omni_parallel(pool, range_task, &job, omni_divide_up(total, job.step));
    return OMNI_DONE;
}

/* Loop over `n` values by vectors: `full` with i, then the rest with i and left < LANES values. */
#define VECTORS(n, full, ...)                                                                                          \
    do {                                                                                                               \
        int64_t i = 0;                                                                                                 \
        for (; i + LANES <= (n); i += LANES) {                                                                         \
            full;                                                                                                      \
        }                                                                                                              \
        int64_t left = (n) - i;                                                                                        \
        if (left) {                                                                                                    \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

/* Norms. Uniforms: T, N, epsilon ------------------------------------------------------------------------------ */

INLINE float square_sum(const float *x, int64_t n) {
    vf sum = vf_zero();
    VECTORS(n, vf v = vf_load(x + i); sum = vf_fma(v, v, sum), vf v = vf_load_part(x + i, left); sum = vf_fma(v, v, sum));
    return vf_sum(sum);
}

INLINE float inverse_root(float sum, int64_t n, double epsilon) {
    return (float)(1 / __builtin_sqrt((double)sum / (double)n + epsilon));
}

static void rms_norm_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    const float *w = call->planes[1];
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n;
        float *y = (float *)call->outputs[0] + t * n;
        vf inverse = vf_set(inverse_root(square_sum(x, n), n, call->uniforms[2].f));
        VECTORS(n, vf_store(y + i, vf_load(x + i) * inverse * vf_load(w + i)),
                vf_store_part(y + i, vf_load_part(x + i, left) * inverse * vf_load_part(w + i, left), left));
    }
}
static int rms_norm(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, rms_norm_rows);
}

static void layer_norm_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    const float *w = call->planes[1], *b = call->planes[2];
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n;
        float *y = (float *)call->outputs[0] + t * n;
        vf sum = vf_zero();
        VECTORS(n, sum += vf_load(x + i), sum += vf_load_part(x + i, left));
        vf mean = vf_set(vf_sum(sum) / (float)n);
        VECTORS(n, vf_store(y + i, vf_load(x + i) - mean), for (; i < n; i++) y[i] = x[i] - mean[0]);
        sum = vf_zero(); /* what rounding left in the mean would be blown up where the deviation is small */
        VECTORS(n, sum += vf_load(y + i), sum += vf_load_part(y + i, left));
        mean = vf_set(vf_sum(sum) / (float)n);
        VECTORS(n, vf_store(y + i, vf_load(y + i) - mean), for (; i < n; i++) y[i] -= mean[0]);
        vf inverse = vf_set(inverse_root(square_sum(y, n), n, call->uniforms[2].f));
        VECTORS(n, vf_store(y + i, vf_fma(vf_load(y + i) * inverse, vf_load(w + i), vf_load(b + i))),
                vf_store_part(y + i,
                              vf_fma(vf_load_part(y + i, left) * inverse, vf_load_part(w + i, left),
                                     vf_load_part(b + i, left)),
                              left));
    }
}
static int layer_norm(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, layer_norm_rows);
}

/* read_all: the sum of each row, with eight loads under way at once. Uniforms: T, Q: rows of 4 Q values */
static void read_all_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = 4 * call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n;
        vf sums[8] = {vf_zero(), vf_zero(), vf_zero(), vf_zero(), vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        int64_t whole = n / (8 * LANES) * (8 * LANES);
        for (int64_t at = 0; at < whole; at += 8 * LANES)
            for (int s = 0; s < 8; s++) sums[s] += vf_load(x + at + s * LANES);
        vf sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
        VECTORS(n - whole, sum += vf_load(x + whole + i), sum += vf_load_part(x + whole + i, left));
        ((float *)call->outputs[0])[t] = vf_sum(sum);
    }
}
static int read_all(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, 4 * call->uniforms[1].i, read_all_rows);
}

/* softmax. Uniforms: T, N */
static void softmax_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n;
        float *y = (float *)call->outputs[0] + t * n;
        float largest = x[0], total = 0;
        VECTORS(n, vf v = vf_load(x + i); float top = vf_largest(v); largest = top > largest ? top : largest,
                for (; i < n; i++) largest = x[i] > largest ? x[i] : largest);
        vf sum = vf_zero(), shift = vf_set(largest);
        VECTORS(n, vf e = vf_exp(vf_load(x + i) - shift); vf_store(y + i, e); sum += e,
                vf_store_part(y + i, vf_exp(vf_load_part(x + i, left) - shift), left); for (; i < n; i++) total += y[i]);
        vf inverse = vf_set(1 / (total + vf_sum(sum)));
        VECTORS(n, vf_store(y + i, vf_load(y + i) * inverse),
                vf_store_part(y + i, vf_load_part(y + i, left) * inverse, left));
    }
}
static int softmax(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, softmax_rows);
}

/* Activations. Uniforms: T, N --------------------------------------------------------------------------------- */

/* By e^x, which is 0 far below 0; e^-x would only be large there. */
INLINE vf sigmoid_of(vf x) {
    vf e = vf_exp(x);
    return e / (1 + e);
}
INLINE vf silu_of(vf x) { return x * sigmoid_of(x); }

/* erf to 2e-7, from the rational approximation 7.1.26 of Abramowitz and Stegun. */
INLINE vf gelu_of(vf x) {
    vf z = vf_absolute(x) * 0.70710678f;
    vf t = 1 / vf_fma(z, vf_set(0.3275911f), vf_set(1.0f));
    vf p = vf_fma(t, vf_set(1.061405429f), vf_set(-1.453152027f));
    p = vf_fma(p, t, vf_set(1.421413741f));
    p = vf_fma(p, t, vf_set(-0.284496736f));
    p = vf_fma(p, t, vf_set(0.254829592f));
    vf tail = p * t * vf_exp(-z * z) * 0.5f; /* (1 - erf(|x| / sqrt 2)) / 2 */
    return x * vf_select(x < vf_zero(), tail, 1 - tail);
}

INLINE vf gelu_tanh_of(vf x) {
    vf inner = 1.5957691216f * x * vf_fma(x * x, vf_set(0.044715f), vf_set(1.0f)); /* 2 sqrt(2 / pi) */
    return x * sigmoid_of(inner); /* (1 + tanh(a)) / 2 = sigmoid(2 a) */
}

#define ACTIVATION(name)                                                                                               \
    static void name##_values(const omni_call *call, int64_t begin, int64_t end) {                                     \
        const float *x = (const float *)call->planes[0] + begin;                                                       \
        float *y = (float *)call->outputs[0] + begin;                                                                  \
        VECTORS(end - begin, vf_store(y + i, name##_of(vf_load(x + i))),                                               \
                vf_store_part(y + i, name##_of(vf_load_part(x + i, left)), left));                                     \
    }                                                                                                                  \
    static int name(const omni_call *call, omni_pool *pool) {                                                          \
        return each_range(call, pool, call->uniforms[0].i * call->uniforms[1].i, 2, name##_values);                    \
    }

INLINE vf relu_of(vf x) { return vf_select(x < vf_zero(), vf_zero(), x); }

/* e^x - 1 to 2e-7 relative for x <= 0: near 0, where the difference would cancel, by its series. */
INLINE vf expm1_of(vf x) {
    vf sum = vf_set(1.0f / 40320);
    sum = vf_fma(sum, x, vf_set(1.0f / 5040));
    sum = vf_fma(sum, x, vf_set(1.0f / 720));
    sum = vf_fma(sum, x, vf_set(1.0f / 120));
    sum = vf_fma(sum, x, vf_set(1.0f / 24));
    sum = vf_fma(sum, x, vf_set(1.0f / 6));
    sum = vf_fma(sum, x, vf_set(0.5f));
    sum = vf_fma(sum, x, vf_set(1.0f)) * x;
    return vf_select(x > vf_set(-0.6f), sum, vf_exp(x) - 1);
}
INLINE vf elu_of(vf x) { return vf_select(x > vf_zero(), x, expm1_of(vf_min(x, vf_zero()))); }

/* tanh|x| = -m / (m + 2), m = e^(-2|x|) - 1 */
INLINE vf hyperbolic_tangent_of(vf x) {
    vf m = expm1_of(-2 * vf_absolute(x)), size = -m / (m + 2);
    return vf_select(x < vf_zero(), -size, size);
}

ACTIVATION(silu)
ACTIVATION(relu)
ACTIVATION(elu)
ACTIVATION(hyperbolic_tangent)
ACTIVATION(gelu)
ACTIVATION(gelu_tanh)
#undef ACTIVATION

static void silu_mul_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++) {
        const float *gate = (const float *)call->planes[0] + 2 * t * n, *up = gate + n;
        float *y = (float *)call->outputs[0] + t * n;
        VECTORS(n, vf_store(y + i, silu_of(vf_load(gate + i)) * vf_load(up + i)),
                vf_store_part(y + i, silu_of(vf_load_part(gate + i, left)) * vf_load_part(up + i, left), left));
    }
}
static int silu_mul(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, silu_mul_rows);
}

/* sin(x)^2: reduced by whole multiples of pi in three steps, then the series of the sine. */
INLINE vf square_sine(vf x) {
    const vf magic = vf_set(12582912.0f);
    vf turns = vf_fma(x, vf_set(0.318309886f), magic) - magic;
    vf r = vf_fma(turns, vf_set(-3.140625f), x);
    r = vf_fma(turns, vf_set(-9.67025756835937500e-4f), r);
    r = vf_fma(turns, vf_set(-6.27711353e-7f), r);
    r = vf_max(vf_min(r, vf_set(1.6f)), vf_set(-1.6f)); /* beyond 1e6 a float holds no angle: stay bounded */
    vf s = r * r;
    vf p = vf_set(-2.5052108e-8f); /* without it the ends of the range are off by 4e-6 */
    p = vf_fma(p, s, vf_set(2.7557319e-6f));
    p = vf_fma(p, s, vf_set(-1.9841270e-4f));
    p = vf_fma(p, s, vf_set(8.3333333e-3f));
    p = vf_fma(p, s, vf_set(-0.16666667f));
    p = vf_fma(p, s, vf_set(1.0f)) * r;
    return p * p;
}

INLINE void snake_row(const float *x, const float *frequency, const float *amplitude, float *y, int64_t c) {
    VECTORS(c,
            vf v = vf_load(x + i);
            vf_store(y + i, vf_fma(square_sine(v * vf_load(frequency + i)), vf_load(amplitude + i), v)),
            vf v = vf_load_part(x + i, left);
            vf_store_part(y + i,
                          vf_fma(square_sine(v * vf_load_part(frequency + i, left)), vf_load_part(amplitude + i, left), v),
                          left));
}

/* snake. Uniforms: T, C */
static void snake_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t c = call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++)
        snake_row((const float *)call->planes[0] + t * c, call->planes[1], call->planes[2],
                  (float *)call->outputs[0] + t * c, c);
}
static int snake(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, snake_rows);
}

/* Sums and gathers -------------------------------------------------------------------------------------------- */

/* add. Uniforms: T, N, R */
static void add_rows_of(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i, stride = call->uniforms[2].i > 1 ? n : 0;
    for (int64_t t = begin; t < end; t++) {
        const float *a = (const float *)call->planes[0] + t * n, *b = (const float *)call->planes[1] + t * stride;
        float *y = (float *)call->outputs[0] + t * n;
        VECTORS(n, vf_store(y + i, vf_load(a + i) + vf_load(b + i)), for (; i < n; i++) y[i] = a[i] + b[i]);
    }
}
static int add(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, add_rows_of);
}

/* add_gated. Uniforms: T, N */
static void add_gated_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n, *s = (const float *)call->planes[1] + t * n;
        float *y = (float *)call->outputs[0] + t * n;
        vf gate = sigmoid_of(vf_set(((const float *)call->planes[2])[t]));
        VECTORS(n, vf_store(y + i, vf_fma(gate, vf_load(s + i), vf_load(x + i))),
                vf_store_part(y + i, vf_fma(gate, vf_load_part(s + i, left), vf_load_part(x + i, left)), left));
    }
}
static int add_gated(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, add_gated_rows);
}

/* gate_channels: y = x * sigmoid(g) + r. Uniforms: T, N */
static void gate_channels_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    const float *g = call->planes[1];
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n, *r = (const float *)call->planes[2] + t * n;
        float *y = (float *)call->outputs[0] + t * n;
        VECTORS(n, vf_store(y + i, vf_fma(vf_load(x + i), sigmoid_of(vf_load(g + i)), vf_load(r + i))),
                vf_store_part(y + i,
                              vf_fma(vf_load_part(x + i, left), sigmoid_of(vf_load_part(g + i, left)),
                                     vf_load_part(r + i, left)),
                              left));
    }
}
static int gate_channels(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, gate_channels_rows);
}

/* pool: mean and deviation of each channel over the rows, weighed by the softmax of its logits. Items are runs of LANES
 * channels. Uniforms: T, N */
static void pool_channels(const omni_call *call, int64_t begin, int64_t end) {
    int64_t rows = call->uniforms[0].i, n = call->uniforms[1].i;
    for (int64_t item = begin; item < end; item++) {
        int64_t at = item * LANES, count = omni_min(LANES, n - at);
        const float *x = (const float *)call->planes[0] + at, *logits = (const float *)call->planes[1] + at;
#define ROW(values, t) (count == LANES ? vf_load((values) + (t) * n) : vf_load_part((values) + (t) * n, count))
        vf top = vf_set(-INFINITY), total = vf_zero(), sum = vf_zero(), squares = vf_zero();
        for (int64_t t = 0; t < rows; t++)
            top = vf_max(top, ROW(logits, t));
        for (int64_t t = 0; t < rows; t++) {
            vf weight = vf_exp(ROW(logits, t) - top);
            total += weight;
            sum = vf_fma(weight, ROW(x, t), sum);
        }
        vf mean = sum / total;
        for (int64_t t = 0; t < rows; t++) {
            vf off = ROW(x, t) - mean;
            squares = vf_fma(vf_exp(ROW(logits, t) - top) * off, off, squares);
        }
#undef ROW
        vf_store_part((float *)call->outputs[0] + at, mean, count);
        vf_store_part((float *)call->outputs[1] + at, vf_square_root(vf_max(squares / total, vf_set(1e-12f))), count);
    }
}
static int pool_rows(const omni_call *call, omni_pool *pool) {
    int64_t rows = call->uniforms[0].i, n = call->uniforms[1].i;
    return each_range(call, pool, omni_divide_up(n, LANES), rows * LANES * 4, pool_channels);
}

INLINE int all_below(const int32_t *ids, int64_t count, int64_t least, int64_t limit) {
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < least || ids[i] >= limit)
            return 0;
    return 1;
}

/* y (+)= scale * row of n values at `row`. */
INLINE void take_row(weight_kind kind, const void *values, const uint16_t *scales, int64_t row, int64_t n, float *y,
                     int first) {
    int64_t start = row * n;
    VECTORS(n,
            vf v;
            if (kind == WEIGHT_F32) v = vf_load((const float *)values + start + i);
            else if (kind == WEIGHT_F16) v = vf_load_half((const uint16_t *)values + start + i);
            else v = vf_load_int8((const int8_t *)values + start + i) * vf_set(half_value(scales[(start + i) / BLOCK]));
            vf_store(y + i, first ? v : v + vf_load(y + i)),
            vf v = kind == WEIGHT_F32 ? vf_load_part((const float *)values + start + i, left)
                                      : vf_load_half_part((const uint16_t *)values + start + i, left);
            vf_store_part(y + i, first ? v : v + vf_load_part(y + i, left), left));
}

/* embed. Uniforms: V, N, T */
INLINE void embed_rows(const omni_call *call, int64_t begin, int64_t end, weight_kind kind) {
    int64_t n = call->uniforms[1].i;
    int scaled = kind == WEIGHT_Q8_0;
    const int32_t *ids = call->planes[1 + scaled];
    for (int64_t t = begin; t < end; t++)
        take_row(kind, call->planes[0], scaled ? call->planes[1] : NULL, ids[t], n, (float *)call->outputs[0] + t * n, 1);
}

/* embed_sum. Uniforms: V, N, T, Q, scale */
INLINE void embed_sum_rows(const omni_call *call, int64_t begin, int64_t end, weight_kind kind) {
    int64_t n = call->uniforms[1].i, q = call->uniforms[3].i;
    int scaled = kind == WEIGHT_Q8_0;
    const int32_t *ids = call->planes[1 + scaled], *offsets = call->planes[2 + scaled];
    float scale = (float)call->uniforms[4].f;
    for (int64_t t = begin; t < end; t++) {
        float *y = (float *)call->outputs[0] + t * n;
        for (int64_t j = 0; j < q; j++)
            take_row(kind, call->planes[0], scaled ? call->planes[1] : NULL, (int64_t)ids[t * q + j] + offsets[j], n, y, !j);
        for (int64_t j = 0; j < n; j++)
            y[j] *= scale;
    }
}
static int no_row_outside(const int32_t *ids, const int32_t *offsets, int64_t count, int64_t q, int64_t v) {
    for (int64_t i = 0; i < count; i++) {
        int64_t row = (int64_t)ids[i] + offsets[i % q];
        if (row < 0 || row >= v)
            return 0;
    }
    return 1;
}

#define EMBED(name, kind)                                                                                              \
    static void embed_##name##_rows(const omni_call *call, int64_t begin, int64_t end) {                               \
        embed_rows(call, begin, end, kind);                                                                            \
    }                                                                                                                  \
    static int embed_##name(const omni_call *call, omni_pool *pool) {                                                  \
        const omni_value *u = call->uniforms;                                                                          \
        if (!all_below(call->planes[1 + (kind == WEIGHT_Q8_0)], u[2].i, 0, u[0].i))                                    \
            return OMNI_BAD_INDEX;                                                                                     \
        return each_range(call, pool, u[2].i, u[1].i, embed_##name##_rows);                                            \
    }                                                                                                                  \
    static void embed_sum_##name##_rows(const omni_call *call, int64_t begin, int64_t end) {                           \
        embed_sum_rows(call, begin, end, kind);                                                                        \
    }                                                                                                                  \
    static int embed_sum_##name(const omni_call *call, omni_pool *pool) {                                              \
        const omni_value *u = call->uniforms;                                                                          \
        void *const *ids = call->planes + 1 + (kind == WEIGHT_Q8_0);                                                   \
        if (!no_row_outside(ids[0], ids[1], u[2].i * u[3].i, u[3].i, u[0].i))                                          \
            return OMNI_BAD_INDEX;                                                                                     \
        return each_range(call, pool, u[2].i, u[1].i * u[3].i, embed_sum_##name##_rows);                               \
    }
EMBED(f32, WEIGHT_F32)
EMBED(f16, WEIGHT_F16)
EMBED(q8_0, WEIGHT_Q8_0)
#undef EMBED

/* splice and add_rows. Uniforms: T, N, M */
static int splice(const omni_call *call, omni_pool *pool) {
    int64_t t = call->uniforms[0].i, n = call->uniforms[1].i, m = call->uniforms[2].i;
    const int32_t *index = call->planes[2];
    (void)pool;
    if (!all_below(index, t, INT32_MIN, m))
        return OMNI_BAD_INDEX;
    for (int64_t i = 0; i < t; i++) {
        const float *from = index[i] < 0 ? (const float *)call->planes[0] + i * n
                                         : (const float *)call->planes[1] + index[i] * n;
        memcpy((float *)call->outputs[0] + i * n, from, (size_t)n * sizeof *from);
    }
    return OMNI_DONE;
}

static int add_rows(const omni_call *call, omni_pool *pool) {
    int64_t t = call->uniforms[0].i, n = call->uniforms[1].i, m = call->uniforms[2].i;
    const int32_t *index = call->planes[2];
    (void)pool;
    if (!all_below(index, t, INT32_MIN, m))
        return OMNI_BAD_INDEX;
    for (int64_t i = 0; i < t; i++) {
        const float *h = (const float *)call->planes[0] + i * n, *x = (const float *)call->planes[1] + index[i] * n;
        float *y = (float *)call->outputs[0] + i * n;
        if (index[i] < 0)
            memcpy(y, h, (size_t)n * sizeof *y);
        else
            for (int64_t j = 0; j < n; j++)
                y[j] = h[j] + x[j];
    }
    return OMNI_DONE;
}

/* concat_rows. Uniforms: M, T, N */
static int concat_rows(const omni_call *call, omni_pool *pool) {
    size_t m = (size_t)(call->uniforms[0].i * call->uniforms[2].i), t = (size_t)(call->uniforms[1].i * call->uniforms[2].i);
    (void)pool;
    memcpy(call->outputs[0], call->planes[0], m * sizeof(float));
    memcpy((float *)call->outputs[0] + m, call->planes[1], t * sizeof(float));
    return OMNI_DONE;
}

/* Rows behind those of a tail, which becomes the last of them. Uniforms: T, C, P ------------------------------- */

static void behind_tail_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t c = call->uniforms[1].i;
    const float *b = call->planes[1];
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * c;
        float *y = (float *)call->outputs[0] + (call->uniforms[2].i + t) * c;
        VECTORS(c, vf_store(y + i, vf_load(x + i) + vf_load(b + i)), for (; i < c; i++) y[i] = x[i] + b[i]);
    }
}
static void snake_behind_tail_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t c = call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++) {
        float *y = (float *)call->outputs[0] + (call->uniforms[2].i + t) * c;
        behind_tail_rows(call, t, t + 1);
        snake_row(y, call->planes[2], call->planes[3], y, c);
    }
}
static int behind(const omni_call *call, omni_pool *pool, float *tail, void (*run)(const omni_call *, int64_t, int64_t)) {
    int64_t t = call->uniforms[0].i, c = call->uniforms[1].i;
    size_t kept = (size_t)(call->uniforms[2].i * c) * sizeof *tail;
    memcpy(call->outputs[0], tail, kept);
    each_range(call, pool, t, c, run);
    memcpy(tail, (float *)call->outputs[0] + t * c, kept);
    return OMNI_DONE;
}
static int behind_tail(const omni_call *call, omni_pool *pool) {
    return behind(call, pool, call->planes[2], behind_tail_rows);
}
static int snake_behind_tail(const omni_call *call, omni_pool *pool) {
    return behind(call, pool, call->planes[4], snake_behind_tail_rows);
}
