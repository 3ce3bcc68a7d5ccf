/* matmul and matmul_add. Uniforms: T, N, K, as_rows; matmul_add also R. Compiled once per level. */

typedef struct {
    weight_rows w;
    activation_rows x;
    int64_t t, n, step, t_parts, t_step;
    const float *start; /* NULL, a bias (stride 0) or a residual */
    int64_t start_stride;
    float *y;
    omni_pool *pool;
} matmul_job;

/* Rows of x up to which reading the weights row by row beats turning them: the tiles of int8 pay off sooner, and floats
 * have dot products of several weight rows at a time. */
enum { FEW_ROWS = 8, FEW_ROWS_INT8 = 3, FEW_ROWS_FLOAT = 1 };

/* Rows of x that repay turning a panel of weights for them alone. */
enum { ROWS_WORTH_A_PANEL = 64 };

/* Few rows of x: chunks of weight rows. */
static void matmul_few_task(void *context, int64_t chunk, int worker) {
    const matmul_job *job = context;
    (void)worker;
    int64_t end = omni_min((chunk + 1) * job->step, job->n);
    for (int64_t n = chunk * job->step; n < end; n += GROUP) {
        int64_t count = omni_min(GROUP, end - n);
        weight_rows w = weight_from(job->w, n);
        for (int64_t t = 0; t < job->t; t++) {
            float sums[GROUP];
            dot_some(w, job->x, t, count, sums);
            for (int64_t r = 0; r < count; r++)
                job->y[t * job->n + n + r] =
                    job->start ? sums[r] + job->start[t * job->start_stride + n + r] : sums[r];
        }
    }
}

/* Many rows of x in int8: one panel of weights per chunk, with some of the rows. */
static void matmul_int8_task(void *context, int64_t chunk, int worker) {
    const matmul_job *job = context;
    char *panel = omni_worker(job->pool, worker);
    int64_t first = chunk / job->t_parts * DOT_PANEL, blocks = job->w.k / BLOCK;
    int64_t begin = chunk % job->t_parts * job->t_step, end = omni_min(begin + job->t_step, job->t);
    pack_int8(job->w, first, job->n, panel);
    for (int64_t t = begin; t < end; t += DOT_TILE_ROWS) {
        int8_row x[DOT_TILE_ROWS];
        vf sums[DOT_TILE_ROWS][DOT_TILE_VECTORS];
        int64_t count = omni_min(DOT_TILE_ROWS, end - t);
        for (int64_t i = 0; i < count; i++)
            x[i] = int8_row_at(job->x.int8_rows, job->w.k, job->x.planes, t + i);
        int8_tile_any(panel, blocks, x, count, job->x.planes, sums);
        for (int64_t i = 0; i < count; i++)
            for (int64_t v = 0, n = first; v < DOT_TILE_VECTORS && n < job->n; v++, n += LANES) {
                const float *start = job->start ? job->start + (t + i) * job->start_stride + n : NULL;
                float *y = job->y + (t + i) * job->n + n;
                int64_t width = job->n - n;
                if (width >= LANES)
                    vf_store(y, start ? sums[i][v] + vf_load(start) : sums[i][v]);
                else
                    vf_store_part(y, start ? sums[i][v] + vf_load_part(start, width) : sums[i][v], width);
            }
    }
}

/* y = x . w + start, on all threads; int8 says that x is rounded to int8 first. The two ways with q8_0 weights add up in
 * different orders: `as_rows`, or t where it is 0, are the rows by which one is chosen. */
static int matmul_run(omni_pool *pool, weight_rows w, const float *x, int64_t t, int64_t as_rows, int64_t n,
                      const float *start, int64_t start_stride, float *y, int int8) {
    int64_t k = w.k, judged = as_rows ? as_rows : t;
    matmul_job job = {w, {x, NULL, k, 1}, t, n, 0, 1, t, start, start_stride, y, pool};
    if (!t || !n)
        return OMNI_DONE;
    if (int8 && !(job.x.int8_rows = quantise_rows(pool, 0, x, t, k, job.x.planes)))
        return OMNI_NO_MEMORY;
    if (judged <= (int8 ? FEW_ROWS_INT8 : w.kind == WEIGHT_Q8_0 ? FEW_ROWS : FEW_ROWS_FLOAT)) {
        job.step = rows_per_chunk(pool, n, weight_bytes(w.kind, k));
        omni_parallel(pool, matmul_few_task, &job, omni_divide_up(n, job.step));
        return OMNI_DONE;
    }
    if (int8) {
        if (!omni_reserve_workers(pool, int8_panel_bytes(k)))
            return OMNI_NO_MEMORY;
        int64_t panels = omni_divide_up(n, DOT_PANEL), parts = omni_divide_up(8 * (int64_t)omni_threads(pool), panels);
        job.t_parts = omni_max(1, omni_min(parts, t / ROWS_WORTH_A_PANEL));
        job.t_step = omni_divide_up(omni_divide_up(t, job.t_parts), DOT_TILE_ROWS) * DOT_TILE_ROWS;
        omni_parallel(pool, matmul_int8_task, &job, panels * job.t_parts);
        return OMNI_DONE;
    }
    float_source from = {.pieces = 1, .length = k, .x = x, .t = t, .width = k, .row_step = 1};
    float_product product = {w, n, t, from, y, n, start, start_stride};
    return float_product_as(pool, &product, judged);
}

static int matmul_kind(const omni_call *call, omni_pool *pool, weight_kind kind, int add, int int8) {
    int64_t t = call->uniforms[0].i, n = call->uniforms[1].i, k = call->uniforms[2].i, as_rows = call->uniforms[3].i;
    int scales = kind == WEIGHT_Q8_0;
    weight_rows w = {kind, call->planes[1], scales ? call->planes[2] : NULL, k};
    const float *start = add ? call->planes[2 + scales] : NULL;
    int64_t start_stride = add && call->uniforms[4].i > 1 ? n : 0;
    return matmul_run(pool, w, call->planes[0], t, as_rows, n, start, start_stride, call->outputs[0], int8);
}

#define MATMUL(name, kind, add, int8)                                                                                  \
    static int name(const omni_call *call, omni_pool *pool) { return matmul_kind(call, pool, kind, add, int8); }
MATMUL(matmul_f32, WEIGHT_F32, 0, 0)
MATMUL(matmul_f16, WEIGHT_F16, 0, 0)
MATMUL(matmul_q8_0, WEIGHT_Q8_0, 0, 0)
MATMUL(matmul_q8_0_int8, WEIGHT_Q8_0, 0, 1)
MATMUL(matmul_add_f32, WEIGHT_F32, 1, 0)
MATMUL(matmul_add_f16, WEIGHT_F16, 1, 0)
MATMUL(matmul_add_q8_0, WEIGHT_Q8_0, 1, 0)
MATMUL(matmul_add_q8_0_int8, WEIGHT_Q8_0, 1, 1)
#undef MATMUL
