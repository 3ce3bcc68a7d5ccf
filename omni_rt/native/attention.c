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
    int64_t splits, split_keys;        /* one query: how its keys are split, */
    int64_t shares, share;             /* and its groups */
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

/* One query ---------------------------------------------------------------------------------------------------
 *
 * A chunk is a run of keys times a run of groups, so that the rows it reads lie together in memory. Those of the next
 * KEYS keys are asked for while these are scored, a few at a time: asking for many at once waits for memory. */

enum { SUMS = LANES < 16 ? 8 : 16, WIDEST_PASS = 8 };

/* The first value of a row; `slot` may lie one turn of the ring ahead. */
INLINE int64_t slot_row(const attention_job *job, int64_t slot, int64_t group) {
    return ((slot < job->s ? slot : slot - job->s) * job->groups + group) * job->d;
}

/* Ask for the part of a row of keys and of values that `groups` from `group` on take; `slot` as in slot_row. */
INLINE void ask_row(const attention_job *job, int64_t slot, int64_t group, int64_t groups) {
    int64_t size = job->half ? 2 : 4, from = slot_row(job, slot, group) * size;
    for (int64_t at = from; at < from + groups * job->d * size; at += 64) {
        __builtin_prefetch((const char *)job->k + at, 0, 2);
        __builtin_prefetch((const char *)job->v + at, 0, 2);
    }
}

/* A run of keys: those of `count` positions from ring slot `slot` on, seen by the heads of one group. The chunk has `left`
 * keys from there on, and `groups` groups from `begin` on. Its heads are scored in `turns` passes over the run; that of
 * `turn` asks for its part of the next rows. */
typedef struct {
    int64_t slot, count, group, left, begin, groups, turn, turns;
} key_run;

/* scores[m][i] = scale * q[m] . k[i] for `heads` (1, 2 or HEADS) heads. */
INLINE void score_keys(const attention_job *job, int half, const float *q, int heads, key_run run, float *scores) {
    int64_t d = job->d, whole = d / LANES * LANES;
    const int step = LANES / heads; /* keys at once: the LANES sums are then added up together */
    int64_t asked = KEYS + run.turn * KEYS / run.turns;
    for (int64_t i = 0; i < run.count; i += step) {
        vf sums[LANES];
        int64_t rows[LANES];
        for (int k = 0; k < step; k++)
            rows[k] = slot_row(job, run.slot + omni_min(i + k, run.count - 1), run.group);
        for (int64_t due = KEYS + (run.turn * KEYS + i + step) / run.turns; asked < omni_min(due, run.left); asked++)
            ask_row(job, run.slot + asked, run.begin, run.groups);
        UNROLL
        for (int at = 0; at < LANES; at++)
            sums[at] = vf_zero();
        for (int64_t j = 0; j < whole; j += LANES)
            UNROLL
            for (int k = 0; k < step; k++) {
                vf key = load_cache(job->k, half, rows[k] + j);
                for (int m = 0; m < heads; m++)
                    sums[m * step + k] = vf_fma(key, vf_load(q + m * d + j), sums[m * step + k]);
            }
        for (int k = 0; whole < d && k < step; k++) {
            vf key = load_cache_part(job->k, half, rows[k] + whole, d - whole);
            for (int m = 0; m < heads; m++)
                sums[m * step + k] = vf_fma(key, vf_load_part(q + m * d + whole, d - whole), sums[m * step + k]);
        }
        transpose(sums);
        for (int width = LANES / 2; width; width /= 2)
            for (int at = 0; at < width; at++)
                sums[at] += sums[at + width];
        float together[LANES];
        vf_store(together, sums[0] * job->scale);
        for (int m = 0; m < heads; m++)
            memcpy(scores + m * KEYS + i, together + m * step, (size_t)step * sizeof *scores);
    }
}

/* out[m][j ..] += sum_i scores[m][i] * v[i][j ..] for `wide` vectors, of the last one `part` values; out is padded. */
INLINE void add_values_pass(const attention_job *job, int half, const float *scores, int heads, key_run run, int64_t j,
                            int wide, int64_t part, float *out, int64_t stride) {
    vf sums[SUMS];
    for (int at = 0; at < heads * wide; at++)
        sums[at] = vf_load(out + at / wide * stride + j + at % wide * LANES);
    for (int64_t i = 0; i < run.count; i++) {
        int64_t row = slot_row(job, run.slot + i, run.group) + j;
        for (int v = 0; v < wide; v++) {
            vf value = part < LANES ? load_cache_part(job->v, half, row, part) : load_cache(job->v, half, row + v * LANES);
            for (int m = 0; m < heads; m++)
                sums[m * wide + v] = vf_fma(vf_set(scores[m * KEYS + i]), value, sums[m * wide + v]);
        }
    }
    for (int at = 0; at < heads * wide; at++)
        vf_store(out + at / wide * stride + j + at % wide * LANES, sums[at]);
}

/* out[m] += sum_i scores[m][i] * v[i]; the rows of out are `stride` apart and padded to whole vectors. */
INLINE void add_values(const attention_job *job, int half, const float *scores, int heads, key_run run, float *out,
                       int64_t stride) {
    const int wide = SUMS / heads < WIDEST_PASS ? SUMS / heads : WIDEST_PASS;
    int64_t d = job->d, j = 0;
    for (; j + wide * LANES <= d; j += wide * LANES)
        add_values_pass(job, half, scores, heads, run, j, wide, LANES, out, stride);
    for (; j + LANES <= d; j += LANES)
        add_values_pass(job, half, scores, heads, run, j, 1, LANES, out, stride);
    if (j < d)
        add_values_pass(job, half, scores, heads, run, j, 1, d - j, out, stride);
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

/* Take a run of keys into the states of `heads` heads: largest score, sum of weights, weighted sum of values. */
INLINE void single_heads(const attention_job *job, int half, const float *q, int heads, key_run run, float *state) {
    float scores[HEADS * KEYS];
    int64_t stride = 2 + job->width;
    score_keys(job, half, q, heads, run, scores);
    for (int m = 0; m < heads; m++) {
        float *own = state + m * stride, factor = online_softmax(scores + m * KEYS, run.count, &own[0], &own[1]);
        for (int64_t j = 0; factor != 1 && j < job->width; j++)
            own[2 + j] *= factor;
    }
    add_values(job, half, scores, heads, run, state + 2, stride);
}

INLINE void single_group(const attention_job *job, int half, key_run run, float *state) {
    const float *q = job->q + run.group * job->per_group * job->d;
    for (int64_t m = 0, heads; m < job->per_group; m += heads, run.turn++) {
        int64_t left = job->per_group - m;
        heads = left >= HEADS ? HEADS : left >= 2 ? 2 : 1;
        if (heads == HEADS)
            single_heads(job, half, q + m * job->d, HEADS, run, state + m * (2 + job->width));
        else if (heads == 2)
            single_heads(job, half, q + m * job->d, 2, run, state + m * (2 + job->width));
        else
            single_heads(job, half, q + m * job->d, 1, run, state + m * (2 + job->width));
    }
}
static void single_group_f32(const attention_job *job, key_run run, float *state) { single_group(job, 0, run, state); }
static void single_group_f16(const attention_job *job, key_run run, float *state) { single_group(job, 1, run, state); }

/* The states of a group for one split of the keys: [per_group][2 + width]. */
INLINE float *split_state(const attention_job *job, int64_t group, int64_t split) {
    return job->parts + (group * job->splits + split) * job->per_group * (2 + job->width);
}

static void single_query_task(void *context, int64_t chunk, int worker) {
    const attention_job *job = context;
    (void)worker;
    int64_t split = chunk / job->shares, stride = 2 + job->width, first, last;
    int64_t begin = chunk % job->shares * job->share, end = omni_min(begin + job->share, job->groups);
    visible(job, job->end - 1, &first, &last);
    int64_t from = first + split * job->split_keys, to = omni_min(last, from + job->split_keys);
    for (int64_t group = begin; group < end; group++)
        for (int64_t m = 0; m < job->per_group; m++) {
            float *state = split_state(job, group, split) + m * stride;
            memset(state, 0, (size_t)stride * sizeof *state);
            state[0] = -INFINITY;
        }
    for (int64_t i = 0; i < omni_min(KEYS, to - from); i++)
        ask_row(job, from % job->s + i, begin, end - begin);
    int64_t passes = job->per_group / HEADS + job->per_group % HEADS / 2 + job->per_group % 2;
    for (int64_t at = from; at < to; at += KEYS)
        for (int64_t group = begin; group < end; group++) {
            key_run run = {at % job->s, omni_min(KEYS, to - at), group, to - at, begin, end - begin,
                           passes * (group - begin), passes * (end - begin)};
            (job->half ? single_group_f16 : single_group_f32)(job, run, split_state(job, group, split));
        }
}

/* y of one head from its splits. */
static void join_splits(const attention_job *job, int64_t head) {
    int64_t step = job->per_group * (2 + job->width);
    float top = -INFINITY, total = 0, *y = job->y + head * job->d;
    const float *states = split_state(job, head / job->per_group, 0) + head % job->per_group * (2 + job->width);
    for (int64_t split = 0; split < job->splits; split++)
        top = states[split * step] > top ? states[split * step] : top;
    memset(y, 0, (size_t)job->d * sizeof *y);
    for (int64_t split = 0; split < job->splits; split++) {
        const float *state = states + split * step;
        float before[LANES] = {state[0] - top}, factor[LANES];
        vf_store(factor, vf_exp(vf_load(before)));
        total += state[1] * factor[0];
        for (int64_t j = 0; j < job->d; j++)
            y[j] += state[2 + j] * factor[0];
    }
    for (int64_t j = 0; j < job->d; j++)
        y[j] /= total;
}

/* Keys that a split has at least, and products below which one thread is as fast as several. */
enum { LEAST_SPLIT = 32, WORTH_SPLITTING = 1 << 16 };

static int attend_single(omni_pool *pool, attention_job *job) {
    int64_t first, last, chunks = 2 * (int64_t)omni_threads(pool);
    visible(job, job->end - 1, &first, &last);
    if (omni_threads(pool) == 1 || (last - first) * job->heads * job->d < WORTH_SPLITTING)
        chunks = 1;
    job->splits = omni_max(1, omni_min(chunks, (last - first) / LEAST_SPLIT));
    job->split_keys = omni_divide_up(omni_divide_up(last - first, job->splits), LANES) * LANES;
    job->splits = omni_max(1, omni_divide_up(last - first, job->split_keys));
    job->share = omni_divide_up(job->groups, omni_divide_up(chunks, job->splits));
    job->shares = omni_divide_up(job->groups, job->share);
    job->parts = omni_scratch(pool, 0, (size_t)(job->heads * job->splits * (2 + job->width)) * sizeof(float));
    if (!job->parts)
        return OMNI_NO_MEMORY;
    omni_parallel(pool, single_query_task, job, job->splits * job->shares);
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
