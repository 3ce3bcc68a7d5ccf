/* attention over a ring of keys and values. Uniforms: T, H, D, S, G, scale, causal, window, block.
 *
 * Every mask shows a query a run of positions, so blocks of keys outside of it are never read. Softmax is kept online:
 * each query row has the largest score and the sum so far, and its output is rescaled when the largest grows. One
 * query: keys are dotted one by one, split over the threads. More: query rows x key blocks as register tiles.
 * Compiled once per level.
 */

enum { KEYS = 64, QUERY_ROWS = 4 * TILE_ROWS, HEADS = 4 };

typedef struct {
    const float *q;
    const void *k, *v;
    int half; /* keys and values are f16 */
    int64_t t, s, heads, groups, d, end;
    float scale;
    int64_t causal, window, block;
    float *y;
    omni_pool *pool;
    int64_t per_group, width;          /* query heads per key head; d rounded up to whole panels */
    int64_t queries;                   /* queries per chunk */
    int64_t splits, split_keys;        /* one query: how its keys are split */
    float *parts;                      /* one query: [groups][splits][per_group][2 + width] */
} attention_job;

/* The positions [first, last) that the query at position `own` sees. */
INLINE void visible(const attention_job *job, int64_t own, int64_t *first, int64_t *last) {
    *first = omni_max(0, job->end - job->s);
    *last = job->end;
    if (job->causal)
        *last = omni_min(*last, own + 1);
    if (job->window)
        *first = omni_max(*first, own - job->window + 1);
    if (job->block) {
        *first = omni_max(*first, own / job->block * job->block);
        *last = omni_min(*last, (own / job->block + 1) * job->block);
    }
}

INLINE int64_t cache_row(const attention_job *job, int64_t position, int64_t group) {
    return (position % job->s * job->groups + group) * job->d;
}

INLINE vf load_cache(const void *cache, int half, int64_t at) {
    return half ? vf_load_half((const uint16_t *)cache + at) : vf_load((const float *)cache + at);
}
INLINE vf load_cache_part(const void *cache, int half, int64_t at, int64_t count) {
    return half ? vf_load_half_part((const uint16_t *)cache + at, count)
                : vf_load_part((const float *)cache + at, count);
}

/* One query --------------------------------------------------------------------------------------------------- */

/* scores[m][i] = scale * q[m] . k[i] for `count` (a constant <= HEADS) heads and `keys` positions from `first` on. */
INLINE void score_keys(const attention_job *job, int half, const float *q, int count, int64_t group, int64_t first,
                       int64_t keys, float *scores) {
    int64_t d = job->d, whole = d / LANES * LANES;
    for (int64_t i = 0; i < keys; i++) {
        int64_t row = cache_row(job, first + i, group);
        vf sums[HEADS];
        for (int m = 0; m < count; m++)
            sums[m] = vf_zero();
        for (int64_t j = 0; j < whole; j += LANES) {
            vf key = load_cache(job->k, half, row + j);
            for (int m = 0; m < count; m++)
                sums[m] = vf_fma(key, vf_load(q + m * d + j), sums[m]);
        }
        if (whole < d) {
            vf key = load_cache_part(job->k, half, row + whole, d - whole);
            for (int m = 0; m < count; m++)
                sums[m] = vf_fma(key, vf_load_part(q + m * d + whole, d - whole), sums[m]);
        }
        for (int m = 0; m < count; m++)
            scores[m * KEYS + i] = job->scale * vf_sum(sums[m]);
    }
}

/* out[m] += sum_i scores[m][i] * v[i]; the rows of out are `stride` apart and padded to whole vectors. */
INLINE void add_values(const attention_job *job, int half, const float *scores, int count, int64_t group, int64_t first,
                       int64_t keys, float *out, int64_t stride) {
    int64_t d = job->d;
    for (int64_t j = 0; j < d; j += 2 * LANES) {
        vf sums[HEADS][2];
        int64_t wide[2] = {omni_min(LANES, d - j), omni_min(LANES, d - j - LANES)};
        int parts = wide[1] > 0 ? 2 : 1;
        for (int m = 0; m < count; m++)
            for (int p = 0; p < 2; p++)
                sums[m][p] = p < parts ? vf_load(out + m * stride + j + p * LANES) : vf_zero();
        if (wide[1] == LANES) {
            for (int64_t i = 0; i < keys; i++) {
                int64_t row = cache_row(job, first + i, group) + j;
                vf low = load_cache(job->v, half, row), high = load_cache(job->v, half, row + LANES);
                for (int m = 0; m < count; m++) {
                    vf weight = vf_set(scores[m * KEYS + i]);
                    sums[m][0] = vf_fma(weight, low, sums[m][0]);
                    sums[m][1] = vf_fma(weight, high, sums[m][1]);
                }
            }
        } else {
            for (int64_t i = 0; i < keys; i++) {
                int64_t row = cache_row(job, first + i, group) + j;
                for (int p = 0; p < parts; p++) {
                    vf value = load_cache_part(job->v, half, row + p * LANES, wide[p]);
                    for (int m = 0; m < count; m++)
                        sums[m][p] = vf_fma(vf_set(scores[m * KEYS + i]), value, sums[m][p]);
                }
            }
        }
        for (int m = 0; m < count; m++)
            for (int p = 0; p < parts; p++)
                vf_store(out + m * stride + j + p * LANES, sums[m][p]);
    }
}

/* Turn a row of scores into weights against its new largest; returns the factor for what came before. */
INLINE float online_softmax(float *scores, int64_t keys, float *largest, float *total) {
    float top = *largest;
    for (int64_t i = 0; i < keys; i++)
        top = scores[i] > top ? scores[i] : top;
    float before[LANES] = {*largest - top}, factor[LANES];
    vf_store(factor, vf_exp(vf_load(before)));
    vf sum = vf_zero();
    int64_t i = 0;
    for (; i + LANES <= keys; i += LANES) {
        vf weight = vf_exp(vf_load(scores + i) - vf_set(top));
        vf_store(scores + i, weight);
        sum += weight;
    }
    float all = vf_sum(sum);
    if (i < keys) {
        float tail[LANES];
        vf_store(tail, vf_exp(vf_load_part(scores + i, keys - i) - vf_set(top)));
        for (int64_t j = 0; i + j < keys; j++) {
            scores[i + j] = tail[j];
            all += tail[j];
        }
    }
    *largest = top;
    *total = *total * factor[0] + all;
    return factor[0];
}

INLINE void single_heads(const attention_job *job, int half, const float *q, int count, int64_t group, int64_t first,
                         int64_t last, float *part) {
    float scores[HEADS * KEYS];
    for (int64_t at = first; at < last; at += KEYS) {
        int64_t keys = omni_min(KEYS, last - at);
        score_keys(job, half, q, count, group, at, keys, scores);
        for (int m = 0; m < count; m++) {
            float *state = part + m * (2 + job->width);
            float factor = online_softmax(scores + m * KEYS, keys, &state[0], &state[1]);
            for (int64_t j = 0; factor != 1 && j < job->width; j++)
                state[2 + j] *= factor;
        }
        add_values(job, half, scores, count, group, at, keys, part + 2, 2 + job->width);
    }
}

static void single_f32(const attention_job *job, const float *q, int64_t count, int64_t group, int64_t first,
                       int64_t last, float *part) {
    if (count == HEADS)
        single_heads(job, 0, q, HEADS, group, first, last, part);
    else
        for (int64_t m = 0; m < count; m++)
            single_heads(job, 0, q + m * job->d, 1, group, first, last, part + m * (2 + job->width));
}
static void single_f16(const attention_job *job, const float *q, int64_t count, int64_t group, int64_t first,
                       int64_t last, float *part) {
    if (count == HEADS)
        single_heads(job, 1, q, HEADS, group, first, last, part);
    else
        for (int64_t m = 0; m < count; m++)
            single_heads(job, 1, q + m * job->d, 1, group, first, last, part + m * (2 + job->width));
}

static void single_query_task(void *context, int64_t chunk, int worker) {
    const attention_job *job = context;
    (void)worker;
    int64_t group = chunk / job->splits, split = chunk % job->splits, stride = 2 + job->width, first, last;
    visible(job, job->end - 1, &first, &last);
    int64_t from = first + split * job->split_keys, to = omni_min(last, from + job->split_keys);
    for (int64_t m = 0; m < job->per_group; m += HEADS) {
        int64_t count = omni_min(HEADS, job->per_group - m);
        float *part = job->parts + (chunk * job->per_group + m) * stride;
        memset(part, 0, (size_t)(count * stride) * sizeof *part);
        for (int64_t i = 0; i < count; i++)
            part[i * stride] = -INFINITY;
        (job->half ? single_f16 : single_f32)(job, job->q + (group * job->per_group + m) * job->d, count, group, from, to,
                                              part);
    }
}

/* y of one head from its splits. */
static void join_splits(const attention_job *job, int64_t head) {
    int64_t stride = 2 + job->width, group = head / job->per_group, m = head % job->per_group;
    float top = -INFINITY, total = 0, *y = job->y + head * job->d;
    const float *parts = job->parts + (group * job->splits * job->per_group + m) * stride;
    for (int64_t split = 0; split < job->splits; split++) {
        float largest = parts[split * job->per_group * stride];
        top = largest > top ? largest : top;
    }
    memset(y, 0, (size_t)job->d * sizeof *y);
    for (int64_t split = 0; split < job->splits; split++) {
        const float *part = parts + split * job->per_group * stride;
        float before[LANES] = {part[0] - top}, factor[LANES];
        vf_store(factor, vf_exp(vf_load(before)));
        total += part[1] * factor[0];
        for (int64_t j = 0; j < job->d; j++)
            y[j] += part[2 + j] * factor[0];
    }
    for (int64_t j = 0; j < job->d; j++)
        y[j] /= total;
}

static int attend_single(omni_pool *pool, attention_job *job) {
    int64_t first, last;
    visible(job, job->end - 1, &first, &last);
    int64_t threads = omni_threads(pool), wanted = omni_divide_up(3 * threads, job->groups);
    job->splits = threads == 1 ? 1 : omni_max(1, omni_min(wanted, (last - first) / (2 * KEYS)));
    job->split_keys = omni_divide_up(omni_divide_up(last - first, job->splits), KEYS) * KEYS;
    job->splits = omni_max(1, omni_divide_up(last - first, job->split_keys));
    job->parts = omni_scratch(pool, 0, (size_t)(job->heads * job->splits * (2 + job->width)) * sizeof(float));
    if (!job->parts)
        return OMNI_NO_MEMORY;
    omni_parallel(pool, single_query_task, job, job->groups * job->splits);
    for (int64_t head = 0; head < job->heads; head++)
        join_splits(job, head);
    return OMNI_DONE;
}

/* Many queries ------------------------------------------------------------------------------------------------ */

/* Keys turned into panels [KEYS / PANEL][D][PANEL], values as panels [width / PANEL][KEYS][PANEL]; scaled queries and
 * scores in rows ROW_STRIDE apart, as float_rows takes them. */
typedef struct {
    float *keys, *values, *queries, *scores, *out, *largest, *total;
} attention_scratch;

INLINE int64_t most_rows(const attention_job *job) { return job->queries * job->per_group; }
INLINE size_t attention_floats(const attention_job *job) {
    return (size_t)(KEYS * (job->d + job->width) + most_rows(job) * (2 * ROW_STRIDE + job->width + 2) + 6 * LANES);
}
INLINE attention_scratch attention_memory(const attention_job *job, int worker) {
    attention_scratch s = {.keys = omni_worker(job->pool, worker)};
    s.values = s.keys + KEYS * job->d;
    s.queries = s.values + KEYS * job->width;
    s.scores = s.queries + most_rows(job) * ROW_STRIDE;
    s.out = s.scores + most_rows(job) * ROW_STRIDE;
    s.largest = s.out + most_rows(job) * job->width;
    s.total = s.largest + most_rows(job);
    return s;
}

/* Turn the keys of a block and copy its values; zeros before row `begin`, behind `keys` and behind D. */
static void pack_block(const attention_job *job, int64_t group, int64_t first, int64_t begin, int64_t keys,
                       const attention_scratch *s) {
    int64_t d = job->d;
    for (int64_t i = 0; i < keys; i += LANES) {
        float *panel = s->keys + i / PANEL * PANEL * d + i % PANEL;
        for (int64_t j = 0; j < job->width; j += LANES) {
            vf square[LANES];
            float *values = s->values + (j / PANEL * KEYS + i) * PANEL + j % PANEL;
            int64_t count = omni_max(0, omni_min(LANES, d - j));
            for (int64_t l = 0; l < LANES; l++) {
                if (i + l < begin || i + l >= keys) {
                    square[l] = vf_zero();
                    vf_store(values + l * PANEL, vf_zero());
                    continue;
                }
                int64_t row = cache_row(job, first + i + l, group) + j;
                int whole = count == LANES;
                square[l] = whole ? load_cache(job->k, job->half, row) : load_cache_part(job->k, job->half, row, count);
                vf value = whole ? load_cache(job->v, job->half, row) : load_cache_part(job->v, job->half, row, count);
                vf_store(values + l * PANEL, value);
            }
            transpose(square);
            for (int64_t l = 0; l < count; l++)
                vf_store(panel + (j + l) * PANEL, square[l]);
        }
    }
}

/* Weigh the scores of row m against keys [at, at + keys), of which it sees some. */
static void weigh_row(const attention_job *job, const attention_scratch *s, int64_t m, int64_t own, int64_t at,
                      int64_t keys) {
    int64_t from, to;
    float *scores = s->scores + m * ROW_STRIDE;
    visible(job, own, &from, &to);
    from = omni_max(from - at, 0);
    to = omni_min(to - at, keys);
    if (from >= to) {
        memset(scores, 0, (size_t)keys * sizeof *scores);
        return;
    }
    float factor = online_softmax(scores + from, to - from, &s->largest[m], &s->total[m]);
    memset(scores, 0, (size_t)from * sizeof *scores);
    memset(scores + to, 0, (size_t)(keys - to) * sizeof *scores);
    for (int64_t j = 0; factor != 1 && j < job->width; j++)
        s->out[m * job->width + j] *= factor;
}

static void many_queries_task(void *context, int64_t chunk, int worker) {
    const attention_job *job = context;
    int64_t group = chunk % job->groups, t0 = chunk / job->groups * job->queries;
    int64_t queries = omni_min(job->queries, job->t - t0), rows = queries * job->per_group, width = job->width;
    int64_t own = job->end - job->t + t0, first, last, unused;
    attention_scratch s = attention_memory(job, worker);
    memset(s.out, 0, (size_t)(rows * width) * sizeof(float));
    for (int64_t m = 0; m < rows; m++) {
        int64_t head = group * job->per_group + m % job->per_group;
        const float *q = job->q + ((t0 + m / job->per_group) * job->heads + head) * job->d;
        for (int64_t j = 0; j < job->d; j++)
            s.queries[m * ROW_STRIDE + j] = q[j] * job->scale;
        s.largest[m] = -INFINITY;
        s.total[m] = 0;
    }
    visible(job, own, &first, &unused);
    visible(job, own + queries - 1, &unused, &last);
    /* Blocks begin at multiples of KEYS: what a row adds up, and in which order, does not depend on its neighbours. */
    for (int64_t at = first / KEYS * KEYS; at < last; at += KEYS) {
        int64_t keys = omni_min(KEYS, last - at);
        pack_block(job, group, at, first - at, keys, &s);
        for (int64_t i = 0; i < keys; i += PANEL)
            float_rows(s.keys + i * job->d, s.queries, job->d, rows, PANEL, s.scores + i, ROW_STRIDE, NULL, 0);
        for (int64_t m = 0; m < rows; m++)
            weigh_row(job, &s, m, own + m / job->per_group, at, keys);
        for (int64_t j = 0; j < width; j += PANEL)
            float_rows(s.values + j * KEYS, s.scores, keys, rows, PANEL, s.out + j, width, s.out + j, width);
    }
    for (int64_t m = 0; m < rows; m++) {
        int64_t t = t0 + m / job->per_group, head = group * job->per_group + m % job->per_group;
        float *y = job->y + (t * job->heads + head) * job->d, inverse = 1 / s.total[m];
        for (int64_t j = 0; j < job->d; j++)
            y[j] = s.out[m * width + j] * inverse;
    }
}

static int attend(const omni_call *call, omni_pool *pool, int half) {
    const omni_value *u = call->uniforms;
    attention_job job = {.q = call->planes[0], .k = call->planes[1], .v = call->planes[2], .half = half};
    job.t = u[0].i, job.heads = u[1].i, job.d = u[2].i, job.s = u[3].i, job.groups = u[4].i;
    job.scale = (float)u[5].f, job.causal = u[6].i, job.window = u[7].i, job.block = u[8].i;
    job.end = *(const int32_t *)call->planes[3];
    job.y = call->outputs[0];
    job.pool = pool;
    job.per_group = job.heads / job.groups;
    job.width = omni_divide_up(job.d, PANEL) * PANEL;
    if (!job.t)
        return OMNI_DONE;
    if (job.end < job.t)
        return OMNI_BAD_INDEX;
    if (job.t == 1 && !job.window) /* a window's keys are few: its queries take one path, alone or together */
        return attend_single(pool, &job);
    if (job.d > WIDEST_HEAD)
        return OMNI_TOO_WIDE;
    job.queries = omni_max(1, QUERY_ROWS / job.per_group);
    if (!omni_reserve_workers(pool, attention_floats(&job) * sizeof(float)))
        return OMNI_NO_MEMORY;
    omni_parallel(pool, many_queries_task, &job, omni_divide_up(job.t, job.queries) * job.groups);
    return OMNI_DONE;
}

static int attention_f32(const omni_call *call, omni_pool *pool) { return attend(call, pool, 0); }
static int attention_f16(const omni_call *call, omni_pool *pool) { return attend(call, pool, 1); }
