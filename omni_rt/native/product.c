/* Whole float products over panels and tiles: the engine of matmul and convolutions. The rows are gathered for the tile
 * that needs them, so that a convolution's windows are never copied as a whole. Compiled once per level.
 */

/* What the rows of a product are made of: `pieces` runs of `length` values. Either piece p of row t lies at
 * rows[t] + p * stride, or it is a part of row t * row_step + p * tap_step of `before` rows of tail, then x, then zeros;
 * these rows are `width` wide. */
typedef struct {
    int64_t pieces, length;
    const float *const *rows;
    int64_t stride;
    const float *x, *tail;
    int64_t before, t, width, row_step, tap_step;
} float_source;

INLINE const float *source_piece(const float_source *from, int64_t t, int64_t piece) {
    if (from->rows)
        return from->rows[t] + piece * from->stride;
    int64_t row = t * from->row_step + piece * from->tap_step;
    if (row < from->before)
        return from->tail + row * from->width;
    row -= from->before;
    return row < from->t ? from->x + row * from->width : NULL;
}

/* A stretch of K: `count` pieces from `piece` on, of each `length` values from `inside` on. */
typedef struct {
    int64_t piece, count, inside, length;
} stretch;

INLINE stretch stretch_at(const float_source *from, int64_t k) {
    int64_t piece = k / from->length, inside = k % from->length;
    if (from->length > DEPTH) {
        int64_t parts = omni_divide_up(from->length, DEPTH);
        int64_t even = omni_divide_up(omni_divide_up(from->length, parts), BLOCK) * BLOCK;
        return (stretch){piece, 1, inside, omni_min(even, from->length - inside)};
    }
    return (stretch){piece, omni_min(DEPTH / from->length, from->pieces - piece), 0, from->length};
}

INLINE int64_t stretch_depth(stretch part) { return part.count * part.length; }

/* Copy a stretch of rows [t0, t0 + count) to to[count][ROW_STRIDE]. */
static void gather_rows(const float_source *from, stretch part, int64_t t0, int64_t count, float *to) {
    for (int64_t t = t0; t < t0 + count; t++, to += ROW_STRIDE) {
        float *at = to;
        for (int64_t p = 0; p < part.count; p++, at += part.length) {
            const float *piece = source_piece(from, t, part.piece + p);
            if (piece)
                memcpy(at, piece + part.inside, (size_t)part.length * sizeof *at);
            else
                memset(at, 0, (size_t)part.length * sizeof *at);
        }
    }
}

/* A product y[t] = start[t] + source[t] . w. */
typedef struct {
    weight_rows w;
    int64_t n, t;
    float_source from;
    float *y;
    int64_t y_stride;
    const float *start; /* NULL: zeros */
    int64_t start_stride;
} float_product;

/* Few rows, which all chunks share: gathered[stretch][t][ROW_STRIDE]. Many: packed[panel][K][PANEL] of `panels` panels
 * from `first_panel` on is shared. */
typedef struct {
    float_product job;
    omni_pool *pool;
    float *shared;
    int64_t first_panel, panels, step;
} float_plan;

enum { FEW_SHARED_ROWS = 256, MANY_STEP = 8 * TILE_ROWS, PACKED_BYTES = 32 << 20, GATHER_TOGETHER = 1 << 16 };

INLINE void add_panel(const float_product *job, const float *panel, const float *rows, int64_t k, int64_t depth, int64_t n,
                      int64_t t, int64_t count) {
    float *y = job->y + t * job->y_stride + n;
    const float *start = k ? y : job->start ? job->start + t * job->start_stride + n : NULL;
    float_rows(panel, rows, depth, count, omni_min(PANEL, job->n - n), y, job->y_stride, start,
               k ? job->y_stride : job->start_stride);
}

static void gather_task(void *context, int64_t chunk, int worker) {
    const float_plan *plan = context;
    const float_product *job = &plan->job;
    int64_t k = 0;
    (void)worker;
    for (int64_t i = 0; i < chunk; i++)
        k += stretch_depth(stretch_at(&job->from, k));
    gather_rows(&job->from, stretch_at(&job->from, k), 0, job->t, plan->shared + chunk * job->t * ROW_STRIDE);
}

static void few_rows_task(void *context, int64_t chunk, int worker) {
    const float_plan *plan = context;
    const float_product *job = &plan->job;
    float *panel = omni_worker(plan->pool, worker), *rows = plan->shared;
    for (int64_t k = 0; k < job->w.k; rows += job->t * ROW_STRIDE) {
        stretch part = stretch_at(&job->from, k);
        int64_t depth = stretch_depth(part);
        pack_float(job->w, chunk * PANEL, job->n, k, depth, panel);
        add_panel(job, panel, rows, k, depth, chunk * PANEL, 0, job->t);
        k += depth;
    }
}

static void pack_panel_task(void *context, int64_t chunk, int worker) {
    const float_plan *plan = context;
    weight_rows w = plan->job.w;
    (void)worker;
    for (int64_t k = 0; k < w.k; k += DEPTH) /* in stretches, so that the source of a turn stays in the first cache */
        pack_float(w, (plan->first_panel + chunk) * PANEL, plan->job.n, k, omni_min(DEPTH, w.k - k),
                   plan->shared + (chunk * w.k + k) * PANEL);
}

static void many_rows_task(void *context, int64_t chunk, int worker) {
    const float_plan *plan = context;
    const float_product *job = &plan->job;
    float *rows = omni_worker(plan->pool, worker);
    int64_t t = chunk * plan->step, count = omni_min(plan->step, job->t - t);
    for (int64_t k = 0; k < job->w.k;) {
        stretch part = stretch_at(&job->from, k);
        int64_t depth = stretch_depth(part);
        gather_rows(&job->from, part, t, count, rows);
        for (int64_t panel = 0; panel < plan->panels; panel++)
            add_panel(job, plan->shared + (panel * job->w.k + k) * PANEL, rows, k, depth,
                      (plan->first_panel + panel) * PANEL, t, count);
        k += depth;
    }
}

/* Run a product on all threads; slot 3 of the scratch is used. */
static int float_product_run(omni_pool *pool, const float_product *job) {
    float_plan plan = {*job, pool, NULL, 0, 0, 0};
    int64_t panels = omni_divide_up(job->n, PANEL), k = job->w.k, threads = omni_threads(pool);
    if (job->t <= FEW_SHARED_ROWS && (panels >= 2 * threads || job->t <= 2 * TILE_ROWS)) {
        int64_t stretches = 0;
        for (int64_t at = 0; at < k; stretches++)
            at += stretch_depth(stretch_at(&job->from, at));
        plan.shared = omni_scratch(pool, 3, (size_t)(stretches * job->t * ROW_STRIDE) * sizeof(float));
        if (!plan.shared || !omni_reserve_workers(pool, DEPTH * PANEL * sizeof(float)))
            return OMNI_NO_MEMORY;
        if (job->t * k < GATHER_TOGETHER)
            for (int64_t i = 0; i < stretches; i++)
                gather_task(&plan, i, 0);
        else
            omni_parallel(pool, gather_task, &plan, stretches);
        omni_parallel(pool, few_rows_task, &plan, panels);
        return OMNI_DONE;
    }
    int64_t together = omni_max(1, omni_min(panels, PACKED_BYTES / (k * PANEL * (int64_t)sizeof(float))));
    plan.shared = omni_scratch(pool, 3, (size_t)(together * k * PANEL) * sizeof(float));
    if (!plan.shared || !omni_reserve_workers(pool, MANY_STEP * ROW_STRIDE * sizeof(float)))
        return OMNI_NO_MEMORY;
    int64_t balanced = omni_divide_up(job->t, 4 * threads);
    plan.step = omni_min(omni_divide_up(balanced, TILE_ROWS) * TILE_ROWS, MANY_STEP);
    for (; plan.first_panel < panels; plan.first_panel += plan.panels) {
        plan.panels = omni_min(together, panels - plan.first_panel);
        omni_parallel(pool, pack_panel_task, &plan, plan.panels);
        omni_parallel(pool, many_rows_task, &plan, omni_divide_up(job->t, plan.step));
    }
    return OMNI_DONE;
}
