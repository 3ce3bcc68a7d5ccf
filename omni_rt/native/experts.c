/* Mixture of experts: routing, and the products of each row with its experts. Compiled once per level.
 *
 * A pair is a row of x and one of its experts. Few pairs per expert: each pair reads its weight rows once (`dot_some`).
 * More: pairs are sorted by expert, and each expert's pairs share turned panels of its weights.
 *
 * Rows in int8 have two planes here. With one, what they lost was a third of the error of the Thinker's logits.
 */

enum { FEW_PAIRS = 4, EXPERT_PLANES = 2 };

typedef struct {
    weight_rows w;              /* [experts * weight rows per expert][k] */
    activation_rows x;
    const int32_t *experts;     /* [t * per_row] */
    const float *weights, *r;   /* expert_down only */
    float *y;
    float *products; /* expert_down of few pairs: [pairs][outputs] */
    int64_t t, count, per_row, outputs, step, chunks;
    int64_t active;             /* experts with pairs */
    const int64_t *order;       /* pairs sorted by expert */
    const int64_t *first;       /* [active + 1] into order */
    const int64_t *ids;         /* [active] */
    omni_pool *pool;
} expert_job;

/* Few pairs: chunk = pair x run of outputs. */
static void gate_up_few_task(void *context, int64_t chunk, int worker) {
    const expert_job *job = context;
    (void)worker;
    int64_t pair = chunk / job->chunks, begin = chunk % job->chunks * job->step, i = job->outputs;
    int64_t end = omni_min(begin + job->step, i), rows = job->experts[pair] * 2 * i;
    for (int64_t at = begin; at < end; at += LANES) {
        int64_t count = omni_min(LANES, end - at);
        float gate[LANES] = {0}, up[LANES] = {0};
        dot_some(weight_from(job->w, rows + at), job->x, pair / job->per_row, count, gate);
        dot_some(weight_from(job->w, rows + i + at), job->x, pair / job->per_row, count, up);
        vf_store_part(job->y + pair * i + at, silu_of(vf_load(gate)) * vf_load(up), count);
    }
}

/* Few pairs: chunk = pair x run of outputs, so that a thread reads its experts one after the other, each in order. */
static void down_few_task(void *context, int64_t chunk, int worker) {
    const expert_job *job = context;
    (void)worker;
    int64_t pair = chunk / job->chunks, begin = chunk % job->chunks * job->step, n = job->outputs;
    int64_t end = omni_min(begin + job->step, n);
    dot_some(weight_from(job->w, job->experts[pair] * n + begin), job->x, pair, end - begin,
             job->products + pair * n + begin);
}

/* y = r + the weighted products of each row's pairs. */
static void weigh_products(const expert_job *job) {
    int64_t n = job->outputs;
    memcpy(job->y, job->r, (size_t)(job->t * n) * sizeof(float));
    for (int64_t pair = 0; pair < job->count; pair++) {
        const float *products = job->products + pair * n;
        float *y = job->y + pair / job->per_row * n, weight = job->weights[pair];
        for (int64_t j = 0; j < n; j++)
            y[j] += weight * products[j];
    }
}

/* Width of a panel, and its bytes. */
INLINE int64_t panel_width(const expert_job *job) { return job->x.int8_rows ? DOT_PANEL : PANEL; }
INLINE size_t panel_bytes(const expert_job *job) {
    return job->x.int8_rows ? int8_panel_bytes(job->w.k) : (size_t)(job->w.k * PANEL) * sizeof(float);
}

INLINE void pack_panel(const expert_job *job, int64_t first, int64_t rows, char *panel) {
    if (job->x.int8_rows)
        pack_int8(job->w, first, rows, panel);
    else
        pack_float(job->w, first, rows, 0, job->w.k, (float *)panel);
}

/* sums[i][..width) = panel . x[pair_row[i]] for `count` <= TILE rows. */
enum { EXPERT_TILE = TILE_ROWS < DOT_TILE_ROWS ? TILE_ROWS : DOT_TILE_ROWS };
enum { EXPERT_WIDTH = (int)PANEL > (int)DOT_PANEL ? (int)PANEL : (int)DOT_PANEL };
static void panel_products(const expert_job *job, const char *panel, const int64_t *rows, int64_t count, float *sums) {
    if (job->x.int8_rows) {
        int8_row x[EXPERT_TILE] = {0};
        vf totals[DOT_TILE_ROWS][DOT_TILE_VECTORS];
        for (int64_t i = 0; i < count; i++)
            x[i] = int8_row_at(job->x.int8_rows, job->w.k, job->x.planes, rows[i]);
        int8_tile_any(panel, job->w.k / BLOCK, x, count, job->x.planes, totals);
        for (int64_t i = 0; i < count; i++)
            for (int v = 0; v < DOT_TILE_VECTORS; v++)
                vf_store(sums + i * EXPERT_WIDTH + v * LANES, totals[i][v]);
        return;
    }
    const float *x[EXPERT_TILE] = {0};
    float gathered[EXPERT_TILE * ROW_STRIDE];
    for (int64_t i = 0; i < count; i++)
        x[i] = job->x.values + rows[i] * job->w.k;
    float_source from = {.pieces = 1, .length = job->w.k, .rows = x};
    for (int64_t k = 0, depth; k < job->w.k; k += depth) {
        stretch part = stretch_at(&from, k);
        depth = part.length;
        gather_rows(&from, part, 0, count, gathered);
        float_tile_any((const float *)panel + k * PANEL, gathered, depth, count, sums, EXPERT_WIDTH, k ? sums : NULL,
                       EXPERT_WIDTH);
    }
}

/* Many pairs: chunk = expert x panel of outputs. */
static void gate_up_many_task(void *context, int64_t chunk, int worker) {
    const expert_job *job = context;
    int64_t slot = chunk / job->chunks, width = panel_width(job), i = job->outputs, at = chunk % job->chunks * width;
    int64_t rows = job->ids[slot] * 2 * i, wide = omni_min(width, i - at);
    char *gate_panel = omni_worker(job->pool, worker), *up_panel = gate_panel + panel_bytes(job);
    pack_panel(job, rows + at, rows + i, gate_panel);
    pack_panel(job, rows + i + at, rows + 2 * i, up_panel);
    for (int64_t p = job->first[slot]; p < job->first[slot + 1]; p += EXPERT_TILE) {
        int64_t count = omni_min(EXPERT_TILE, job->first[slot + 1] - p), x[EXPERT_TILE];
        float gate[EXPERT_TILE * EXPERT_WIDTH], up[EXPERT_TILE * EXPERT_WIDTH];
        for (int64_t j = 0; j < count; j++)
            x[j] = job->order[p + j] / job->per_row;
        panel_products(job, gate_panel, x, count, gate);
        panel_products(job, up_panel, x, count, up);
        for (int64_t j = 0; j < count; j++)
            for (int64_t l = 0, from = j * EXPERT_WIDTH; l < wide; l += LANES)
                vf_store_part(job->y + job->order[p + j] * i + at + l,
                              silu_of(vf_load(gate + from + l)) * vf_load(up + from + l), omni_min(LANES, wide - l));
    }
}

/* Many pairs: chunk = panel of outputs, over all experts, so that no two chunks add to the same output. */
static void down_many_task(void *context, int64_t chunk, int worker) {
    const expert_job *job = context;
    int64_t width = panel_width(job), n = job->outputs, at = chunk * width, wide = omni_min(width, n - at);
    char *panel = omni_worker(job->pool, worker);
    for (int64_t t = 0; t < job->t; t++)
        memcpy(job->y + t * n + at, job->r + t * n + at, (size_t)wide * sizeof(float));
    for (int64_t slot = 0; slot < job->active; slot++) {
        pack_panel(job, job->ids[slot] * n + at, (job->ids[slot] + 1) * n, panel);
        for (int64_t p = job->first[slot]; p < job->first[slot + 1]; p += EXPERT_TILE) {
            int64_t count = omni_min(EXPERT_TILE, job->first[slot + 1] - p);
            float sums[EXPERT_TILE * EXPERT_WIDTH];
            panel_products(job, panel, job->order + p, count, sums);
            for (int64_t j = 0; j < count; j++) {
                int64_t pair = job->order[p + j];
                for (int64_t l = 0; l < wide; l++)
                    job->y[pair / job->per_row * n + at + l] += job->weights[pair] * sums[j * EXPERT_WIDTH + l];
            }
        }
    }
}

/* Sort the pairs by expert into scratch slot 1; returns 0 when there is no memory. */
static int sort_pairs(omni_pool *pool, expert_job *job, int64_t experts) {
    int64_t pairs = job->count;
    int64_t *memory = omni_scratch(pool, 1, (size_t)(pairs + 3 * experts + 2) * sizeof *memory);
    if (!memory)
        return 0;
    int64_t *order = memory, *first = order + pairs, *ids = first + experts + 1, *next = ids + experts;
    memset(next, 0, (size_t)(experts + 1) * sizeof *next);
    for (int64_t p = 0; p < pairs; p++)
        next[job->experts[p]]++;
    int64_t at = 0, active = 0;
    for (int64_t e = 0; e < experts; e++) {
        int64_t count = next[e];
        next[e] = at;
        if (!count)
            continue;
        first[active] = at;
        ids[active++] = e;
        at += count;
    }
    first[active] = at;
    for (int64_t p = 0; p < pairs; p++)
        order[next[job->experts[p]]++] = p;
    job->order = order, job->first = first, job->ids = ids, job->active = active;
    return 1;
}

/* expert_gate_up: uniforms T, E, A, I, K; expert_down: T, E, A, I, N */
static int experts_kind(const omni_call *call, omni_pool *pool, weight_kind kind, int int8, int down) {
    const omni_value *u = call->uniforms;
    int64_t t = u[0].i, experts = u[1].i, per_row = u[2].i, k = down ? u[3].i : u[4].i;
    int scaled = kind == WEIGHT_Q8_0;
    expert_job job = {.w = {kind, call->planes[1], scaled ? call->planes[2] : NULL, k},
                      .x = {call->planes[0], NULL, k, EXPERT_PLANES},
                      .experts = call->planes[2 + scaled],
                      .y = call->outputs[0],
                      .t = t,
                      .count = t * per_row,
                      .per_row = per_row,
                      .outputs = down ? u[4].i : u[3].i,
                      .pool = pool};
    if (!all_below(job.experts, job.count, 0, experts))
        return OMNI_BAD_INDEX;
    if (down) {
        job.weights = call->planes[3 + scaled];
        job.r = call->planes[4 + scaled];
    }
    if (int8 && !(job.x.int8_rows = quantise_rows(pool, 0, job.x.values, down ? job.count : t, k, job.x.planes)))
        return OMNI_NO_MEMORY;
    if (job.count < FEW_PAIRS * omni_min(experts, job.count) || t < FEW_PAIRS) {
        job.step = rows_per_chunk(pool, job.outputs, weight_bytes(kind, k));
        job.chunks = omni_divide_up(job.outputs, job.step);
        if (down && !(job.products = omni_scratch(pool, 1, (size_t)(job.count * job.outputs) * sizeof(float))))
            return OMNI_NO_MEMORY;
        omni_parallel(pool, down ? down_few_task : gate_up_few_task, &job, job.count * job.chunks);
        if (down)
            weigh_products(&job);
        return OMNI_DONE;
    }
    if (!sort_pairs(pool, &job, experts) || !omni_reserve_workers(pool, (down ? 1 : 2) * panel_bytes(&job)))
        return OMNI_NO_MEMORY;
    job.chunks = omni_divide_up(job.outputs, panel_width(&job));
    omni_parallel(pool, down ? down_many_task : gate_up_many_task, &job, down ? job.chunks : job.active * job.chunks);
    return OMNI_DONE;
}

#define EXPERTS(name, kind, int8, down)                                                                                \
    static int name(const omni_call *call, omni_pool *pool) { return experts_kind(call, pool, kind, int8, down); }
EXPERTS(expert_gate_up_f32, WEIGHT_F32, 0, 0)
EXPERTS(expert_gate_up_f16, WEIGHT_F16, 0, 0)
EXPERTS(expert_gate_up_q8_0, WEIGHT_Q8_0, 0, 0)
EXPERTS(expert_gate_up_q8_0_int8, WEIGHT_Q8_0, 1, 0)
EXPERTS(expert_down_f32, WEIGHT_F32, 0, 1)
EXPERTS(expert_down_f16, WEIGHT_F16, 0, 1)
EXPERTS(expert_down_q8_0, WEIGHT_Q8_0, 0, 1)
EXPERTS(expert_down_q8_0_int8, WEIGHT_Q8_0, 1, 1)
#undef EXPERTS

/* route. Uniforms: T, E, top, normalise */
static void route_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t experts = call->uniforms[1].i, top = call->uniforms[2].i;
    for (int64_t t = begin; t < end; t++) {
        const float *logits = (const float *)call->planes[0] + t * experts;
        float *weights = (float *)call->outputs[0] + t * top, bound = INFINITY, chosen_sum = 0, sum = 0;
        int32_t *chosen = (int32_t *)call->outputs[1] + t * top;
        int64_t after = -1; /* among equals of `bound`, ids up to here are taken */
        for (int64_t a = 0; a < top; a++) {
            int64_t best = -1;
            for (int64_t e = 0; e < experts; e++)
                if ((logits[e] < bound || (logits[e] == bound && e > after)) && (best < 0 || logits[e] > logits[best]))
                    best = e;
            if (best < 0)
                best = 0; /* only not-a-numbers are left */
            chosen[a] = (int32_t)best;
            bound = logits[best];
            after = best;
            weights[a] = __builtin_expf(bound - logits[chosen[0]]);
            chosen_sum += weights[a];
        }
        if (!call->uniforms[3].i)
            for (int64_t e = 0; e < experts; e++)
                sum += __builtin_expf(logits[e] - logits[chosen[0]]);
        for (int64_t a = 0; a < top; a++)
            weights[a] /= call->uniforms[3].i ? chosen_sum : sum;
    }
}
static int route(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i * call->uniforms[2].i, route_rows);
}
