/* Float products of few rows without turning the weights: dot products along K, four weight rows at a time, so that each
 * is read in order and the sums of a few rows of activations stay in registers. Compiled once per level. */

enum { DOT_ROWS = LANES == 8 ? 2 : 4, DOT_WEIGHTS = 4, DOT_DEPTH = 512, MOST_DOT_ROWS = 32, DOT_BLOCK = 64 };

typedef struct {
    const float_product *product;
    omni_pool *pool;
    int64_t step;
} dot_job;

/* part[i][r] += x[i] . w[r] for `count` <= LANES values. */
INLINE void dot_step_of(weight_rows w, const int64_t *at, const float *const *x, int64_t k, int64_t count, int rows,
                        vf part[DOT_ROWS][DOT_WEIGHTS]) {
    vf values[DOT_WEIGHTS];
    UNROLL
    for (int r = 0; r < DOT_WEIGHTS; r++)
        values[r] = load_weights(w, at[r] + k, count);
    UNROLL
    for (int i = 0; i < rows; i++) {
        vf one = count < LANES ? vf_load_part(x[i] + k, count) : vf_load(x[i] + k);
        UNROLL
        for (int r = 0; r < DOT_WEIGHTS; r++)
            part[i][r] = vf_fma(one, values[r], part[i][r]);
    }
}

/* sums[i][r] += x[i] . w[r] over `depth` values, `rows` (a constant <= DOT_ROWS) of x; `fetch`: what follows in w, too. */
INLINE void dot_tile(weight_rows w, const int64_t *at, const float *const *x, int64_t depth, int rows, vf *sums, int fetch) {
    vf part[DOT_ROWS][DOT_WEIGHTS];
    int64_t size = w.kind == WEIGHT_F32 ? 4 : 2, k = 0;
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int r = 0; r < DOT_WEIGHTS; r++)
            part[i][r] = vf_zero();
    if (fetch)
        for (int r = 0; r < DOT_WEIGHTS; r++)
            for (int64_t line = 0; line < depth * size; line += 64)
                __builtin_prefetch((const char *)w.values + (at[r] + DOT_DEPTH) * size + line, 0, 2);
    for (; k + LANES <= depth; k += LANES)
        dot_step_of(w, at, x, k, LANES, rows, part);
    if (k < depth)
        dot_step_of(w, at, x, k, depth - k, rows, part);
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int r = 0; r < DOT_WEIGHTS; r++)
            sums[i * DOT_WEIGHTS + r] += part[i][r];
}

INLINE void dot_tile_kind(weight_rows w, const int64_t *at, const float *const *x, int64_t depth, int64_t rows, vf *sums,
                          int fetch) {
    switch (rows) {
#define ROWS(n)                                                                                                        \
    case n:                                                                                                            \
        dot_tile(w, at, x, depth, n, sums, fetch);                                                                     \
        break;
        ROWS(1)
        ROWS(2)
#if LANES != 8
        ROWS(3)
        ROWS(4)
#endif
#undef ROWS
    }
}
static void dot_tile_any(weight_rows w, const int64_t *at, const float *const *x, int64_t depth, int64_t rows, vf *sums,
                         int fetch) {
    if (w.kind == WEIGHT_F32)
        dot_tile_kind((weight_rows){WEIGHT_F32, w.values, NULL, w.k}, at, x, depth, rows, sums, fetch);
    else
        dot_tile_kind((weight_rows){WEIGHT_F16, w.values, NULL, w.k}, at, x, depth, rows, sums, fetch);
}

/* Rows [t, t + count) of x with the DOT_WEIGHTS weight rows from n on; the last one again where there are no more. */
static void dot_rows(const float_product *job, int64_t n, int64_t t, int64_t count, vf *sums) {
    static const float silence[DOT_DEPTH];
    for (int64_t i = 0; i < count * DOT_WEIGHTS; i++)
        sums[i] = vf_zero();
    for (int64_t piece = 0; piece < job->from.pieces; piece++)
        for (int64_t k = 0; k < job->from.length; k += DOT_DEPTH) {
            int64_t at[DOT_WEIGHTS];
            for (int64_t r = 0; r < DOT_WEIGHTS; r++)
                at[r] = omni_min(n + r, job->n - 1) * job->w.k + piece * job->from.length + k;
            for (int64_t i = 0; i < count; i += DOT_ROWS) {
                int64_t rows = omni_min(DOT_ROWS, count - i);
                const float *x[DOT_ROWS];
                for (int64_t j = 0; j < rows; j++) {
                    const float *from = source_piece(&job->from, t + i + j, piece);
                    x[j] = from ? from + k : silence;
                }
                dot_tile_any(job->w, at, x, omni_min(DOT_DEPTH, job->from.length - k), rows, sums + i * DOT_WEIGHTS, i == 0);
            }
        }
}

static void dot_task(void *context, int64_t chunk, int worker) {
    const dot_job *all = context;
    const float_product *job = all->product;
    vf *sums = omni_worker(all->pool, worker);
    int64_t end = omni_min((chunk + 1) * all->step, job->n);
    for (int64_t n = chunk * all->step; n < end; n += DOT_WEIGHTS)
        for (int64_t t = 0; t < job->t; t += DOT_BLOCK) {
            int64_t count = omni_min(DOT_BLOCK, job->t - t);
            dot_rows(job, n, t, count, sums);
            for (int64_t i = 0; i < count; i++)
                for (int64_t r = 0; r < omni_min(DOT_WEIGHTS, end - n); r++)
                    job->y[(t + i) * job->y_stride + n + r] =
                        vf_sum(sums[i * DOT_WEIGHTS + r]) +
                        (job->start ? job->start[(t + i) * job->start_stride + n + r] : 0);
        }
}

/* Run a product of rows that are judged as `as_rows`, 0 for any number: few go this way, however many there are. */
static int float_product_as(omni_pool *pool, const float_product *product, int64_t as_rows) {
    if (!as_rows || as_rows > MOST_DOT_ROWS || product->w.kind == WEIGHT_Q8_0)
        return float_product_run(pool, product);
    dot_job job = {product, pool, rows_per_chunk(pool, product->n, weight_bytes(product->w.kind, product->w.k))};
    if (!omni_reserve_workers(pool, DOT_BLOCK * DOT_WEIGHTS * sizeof(vf)))
        return OMNI_NO_MEMORY;
    omni_parallel(pool, dot_task, &job, omni_divide_up(product->n, job.step));
    return OMNI_DONE;
}
