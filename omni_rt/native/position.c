/* Rotation and appends to the cache. Compiled once per level. */

/* y = rotation of x (times inverse * w, when w is there) by a table row: d / 2 cosines, then d / 2 sines. */
static void rotate(const float *x, const float *table, int64_t d, const float *w, float inverse, float *y) {
    int64_t half = d / 2;
    vf scale = vf_set(inverse);
    VECTORS(
        half,
        vf low = vf_load(x + i); vf high = vf_load(x + half + i); vf cosine = vf_load(table + i);
        vf sine = vf_load(table + half + i);
        if (w) {
            low = low * scale * vf_load(w + i);
            high = high * scale * vf_load(w + half + i);
        }
        vf_store(y + i, low * cosine - high * sine); vf_store(y + half + i, high * cosine + low * sine),
        for (; i < half; i++) {
            float low = x[i], high = x[half + i];
            if (w) {
                low *= inverse * w[i];
                high *= inverse * w[half + i];
            }
            y[i] = low * table[i] - high * table[half + i];
            y[half + i] = high * table[i] + low * table[half + i];
        });
}

/* angles: cosines, then sines, of p . f. Uniforms: T, A, J. Quarter turns are counted and taken off in double, because
 * angles grow with the position; what is left lies within an eighth of a turn, where short series reach 1e-7. */
enum { ANGLES = 64 };
static void some_angles(const double *theta, int64_t count, float *cosines, float *sines) {
    float rest[ANGLES] = {0};
    int32_t quarters[ANGLES] = {0};
    for (int64_t i = 0; i < count; i++) {
        double magic = 6755399441055744.0, turns = theta[i] * 0.63661977236758134; /* 1.5 * 2^52: rounds; 2 / pi */
        double whole = turns + magic - magic;
        quarters[i] = (int32_t)((int64_t)whole & 3);
        rest[i] = (float)((turns - whole) * 1.5707963267948966);
    }
    VECTORS(
        count,
        vf r = vf_load(rest + i); vi q; memcpy(&q, quarters + i, sizeof q); vf square = r * r;
        vf sine = vf_fma(square, vf_set(2.7183114e-6f), vf_set(-1.9841270e-4f));
        sine = vf_fma(vf_fma(sine, square, vf_set(8.3333333e-3f)), square, vf_set(-0.16666667f));
        sine = vf_fma(sine * square, r, r);
        vf cosine = vf_fma(square, vf_set(2.4801587e-5f), vf_set(-1.3888889e-3f));
        cosine = vf_fma(vf_fma(vf_fma(cosine, square, vf_set(4.1666667e-2f)), square, vf_set(-0.5f)), square, vf_set(1));
        vi odd = (q & 1) != 0;
        vf x = vf_select(odd, sine, cosine); vf y = vf_select(odd, cosine, sine);
        vf_store(cosines + i, vf_select(((q + 1) & 2) != 0, -x, x)); vf_store(sines + i, vf_select((q & 2) != 0, -y, y)),
        for (; i < count; i++) {
            cosines[i] = (float)cos(theta[i]);
            sines[i] = (float)sin(theta[i]);
        });
}

static void angles_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t axes = call->uniforms[1].i, j = call->uniforms[2].i;
    const float *p = call->planes[0], *f = call->planes[1];
    for (int64_t t = begin; t < end; t++) {
        float *table = (float *)call->outputs[0] + t * 2 * j;
        for (int64_t at = 0; at < j; at += ANGLES) {
            double theta[ANGLES] = {0};
            int64_t count = omni_min(ANGLES, j - at);
            for (int64_t a = 0; a < axes; a++)
                for (int64_t i = 0; i < count; i++)
                    theta[i] += (double)p[t * axes + a] * (double)f[a * j + at + i];
            some_angles(theta, count, table + at, table + j + at);
        }
    }
}
static int angles(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, 4 * call->uniforms[2].i, angles_rows);
}

/* rope. Uniforms: T, H, D */
static void rope_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t heads = call->uniforms[1].i, d = call->uniforms[2].i;
    for (int64_t t = begin; t < end; t++)
        for (int64_t h = 0; h < heads; h++) {
            int64_t at = (t * heads + h) * d;
            rotate((const float *)call->planes[0] + at, (const float *)call->planes[1] + t * d, d, NULL, 1,
                   (float *)call->outputs[0] + at);
        }
}
static int rope(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i * call->uniforms[2].i, rope_rows);
}

static void store_cache(void *cache, int half, int64_t at, const float *x, int64_t count) {
    if (!half) {
        memcpy((float *)cache + at, x, (size_t)count * sizeof *x);
        return;
    }
    uint16_t *to = (uint16_t *)cache + at;
    VECTORS(count, vf_store_half(to + i, vf_load(x + i)), for (; i < count; i++) to[i] = half_bits(x[i]));
}

/* The ring row of the t-th of `count` appended positions, or -1 when a later one of them will take it. */
INLINE int64_t ring_row(int64_t length, int64_t count, int64_t t, int64_t s) {
    int64_t position = length - count + t;
    return t + s < count ? -1 : (position % s + s) % s;
}

/* kv_append. Uniforms: T, S, G, D */
INLINE void append_rows(const omni_call *call, int64_t begin, int64_t end, int half) {
    int64_t count = call->uniforms[0].i, s = call->uniforms[1].i, row = call->uniforms[2].i * call->uniforms[3].i;
    int64_t length = *(const int32_t *)call->planes[4];
    for (int64_t t = begin; t < end; t++) {
        int64_t to = ring_row(length, count, t, s);
        if (to < 0)
            continue;
        store_cache(call->planes[2], half, to * row, (const float *)call->planes[0] + t * row, row);
        store_cache(call->planes[3], half, to * row, (const float *)call->planes[1] + t * row, row);
    }
}
static void append_rows_f32(const omni_call *call, int64_t begin, int64_t end) { append_rows(call, begin, end, 0); }
static void append_rows_f16(const omni_call *call, int64_t begin, int64_t end) { append_rows(call, begin, end, 1); }
static int kv_append_f32(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, 2 * call->uniforms[2].i * call->uniforms[3].i, append_rows_f32);
}
static int kv_append_f16(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, 2 * call->uniforms[2].i * call->uniforms[3].i, append_rows_f16);
}

/* rope_append and norm_rope_append. Uniforms: T, M, S, G, D; the latter also epsilon */
typedef struct {
    const float *qkv, *q_norm, *k_norm, *table;
    void *cache_k, *cache_v;
    int half;
    int64_t count, row, s, groups, d, length, step;
    double epsilon;
    float *q;
    omni_pool *pool;
} append_job;

static void append_task(void *context, int64_t chunk, int worker) {
    const append_job *job = context;
    float *key = omni_worker(job->pool, worker);
    int64_t d = job->d, heads = job->row / d - 2 * job->groups, end = omni_min((chunk + 1) * job->step, job->count);
    for (int64_t t = chunk * job->step; t < end; t++) {
        const float *x = job->qkv + t * job->row, *table = job->table + t * d;
        int64_t to = ring_row(job->length, job->count, t, job->s);
        for (int64_t h = 0; h < heads + job->groups; h++, x += d) {
            const float *w = h < heads ? job->q_norm : job->k_norm;
            float inverse = w ? inverse_root(square_sum(x, d), d, job->epsilon) : 1;
            if (h < heads) {
                rotate(x, table, d, w, inverse, job->q + (t * heads + h) * d);
            } else if (to >= 0) {
                rotate(x, table, d, w, inverse, key);
                store_cache(job->cache_k, job->half, (to * job->groups + h - heads) * d, key, d);
            }
        }
        if (to >= 0)
            store_cache(job->cache_v, job->half, to * job->groups * d, x, job->groups * d);
    }
}

static int append_run(const omni_call *call, omni_pool *pool, int norm, int half) {
    const omni_value *u = call->uniforms;
    void *const *planes = call->planes + (norm ? 3 : 1); /* table, cache_k, cache_v, length */
    append_job job = {.qkv = call->planes[0], .table = planes[0], .cache_k = planes[1], .cache_v = planes[2], .half = half};
    if (norm) {
        job.q_norm = call->planes[1];
        job.k_norm = call->planes[2];
        job.epsilon = u[5].f;
    }
    job.count = u[0].i, job.row = u[1].i, job.s = u[2].i, job.groups = u[3].i, job.d = u[4].i;
    job.length = *(const int32_t *)planes[3];
    job.q = call->outputs[0];
    job.pool = pool;
    job.step = omni_max(1, WORTHWHILE / omni_max(job.row, 1));
    if (!omni_reserve_workers(pool, (size_t)job.d * sizeof(float)))
        return OMNI_NO_MEMORY;
    omni_parallel(pool, append_task, &job, omni_divide_up(job.count, job.step));
    return OMNI_DONE;
}
static int rope_append_f32(const omni_call *call, omni_pool *pool) { return append_run(call, pool, 0, 0); }
static int rope_append_f16(const omni_call *call, omni_pool *pool) { return append_run(call, pool, 0, 1); }
static int norm_rope_append_f32(const omni_call *call, omni_pool *pool) { return append_run(call, pool, 1, 0); }
static int norm_rope_append_f16(const omni_call *call, omni_pool *pool) { return append_run(call, pool, 1, 1); }
