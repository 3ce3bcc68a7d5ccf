/* Products of rows of activations with rows of weights: the engine of matmul, experts and convolutions.
 *
 * Few rows: each weight row is read once, in order, and multiplied with every activation row while it is in the first
 * cache (`dot_some`). Many rows: a panel of weight rows is turned so that its rows lie in the lanes of vectors, and a
 * register tile of activation rows x panel runs over it (`float_panel`, `int8_panel`).
 */

typedef enum { WEIGHT_F32, WEIGHT_F16, WEIGHT_Q8_0 } weight_kind;

/* Weight rows of K values each, one after the other; `scales` only for q8_0. */
typedef struct {
    weight_kind kind;
    const void *values;
    const uint16_t *scales;
    int64_t k;
} weight_rows;

enum { PANEL = TILE_VECTORS * LANES, GROUP = 4 };

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

/* Few rows: one weight row at a time, so that memory is read in order; several rows at once, each a stream of its own,
 * reach little more than half of the bandwidth. ---------------------------------------------------------------------- */

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

/* w . x for one q8_0 row, x in int8. */
static float dot_row_int8(weight_rows w, int8_row x) {
    enum { STEPS = LANES / BLOCKS_PER_STEP };
    int64_t blocks = w.k / BLOCK, b = 0;
    const int8_t *quants = w.values;
    vf chains[CHAINS] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (; b + LANES <= blocks; b += LANES) {
        prefetch(w.scales + b);
        step_scales scales = keep_scales(vf_load_half(w.scales + b) * vf_load(x.scales + b));
        UNROLL
        for (int s = 0; s < STEPS; s++) {
            int64_t at = b + s * BLOCKS_PER_STEP;
            if (at % 2 == 0)
                prefetch(quants + at * BLOCK);
            vi sum = dot_step(quants + at * BLOCK, x.quants + at * BLOCK, correction_step(x.corrections + b, s));
            chains[s % CHAINS] = vf_fma(vf_from_int(sum), scale_step(&scales, s), chains[s % CHAINS]);
        }
    }
    for (; b < blocks; b += BLOCKS_PER_STEP) {
        int64_t left = omni_min(BLOCKS_PER_STEP, blocks - b);
        int8_t padded[BLOCKS_PER_STEP * BLOCK] = {0};
        vf product = vf_zero();
        memcpy(padded, quants + b * BLOCK, (size_t)left * BLOCK);
        for (int i = 0; i < left; i++)
            product[i] = half_value(w.scales[b + i]) * x.scales[b + i];
        vi sum = dot_step(padded, x.quants + b * BLOCK, correction_step(x.corrections + b, 0));
        step_scales scales = keep_scales(product);
        chains[0] = vf_fma(vf_from_int(sum), scale_step(&scales, 0), chains[0]);
    }
    return chain_sum(chains);
}

/* Rows of activations: float rows, or int8 rows of the same length. */
typedef struct {
    const float *values;
    const char *int8_rows; /* NULL: float */
    int64_t k;
} activation_rows;

/* sums[r] = w[r] . x[t] for `count` <= GROUP weight rows. */
static void dot_some(weight_rows w, activation_rows x, int64_t t, int64_t count, float *sums) {
    if (x.int8_rows) {
        int8_row row = int8_row_at(x.int8_rows, x.k, t);
        for (int64_t r = 0; r < count; r++)
            sums[r] = dot_row_int8(weight_from(w, r), row);
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

/* Weight rows per chunk: a multiple of GROUP, enough chunks to balance, each worth the claim. */
static int64_t rows_per_chunk(omni_pool *pool, int64_t rows, int64_t row_bytes) {
    int64_t balanced = omni_divide_up(rows, 8 * (int64_t)omni_threads(pool));
    int64_t worthwhile = omni_divide_up(16384, omni_max(row_bytes, 1));
    return omni_divide_up(omni_max(balanced, worthwhile), GROUP) * GROUP;
}

/* Float products -------------------------------------------------------------------------------------------------- */

/* K is walked in stretches of at most DEPTH. Each starts a sum of its own that is then added to y: a single long one
 * would gather rounding errors of one sign. The stretches depend on K alone and each output has its own sum, so a row
 * has the same bits whatever rows come with it. */
enum { DEPTH = 128, WIDEST_HEAD = 256, ROW_STRIDE = WIDEST_HEAD + 16 /* not a power of two: the rows of a tile fall into different sets */ };

/* LANES weights of a row from `at` on, `count` of them there; q8_0 rows are whole vectors within blocks. */
INLINE vf load_weights(weight_rows w, int64_t at, int64_t count) {
    if (w.kind == WEIGHT_F32)
        return count < LANES ? vf_load_part((const float *)w.values + at, count) : vf_load((const float *)w.values + at);
    if (w.kind == WEIGHT_F16)
        return count < LANES ? vf_load_half_part((const uint16_t *)w.values + at, count)
                             : vf_load_half((const uint16_t *)w.values + at);
    return vf_load_int8((const int8_t *)w.values + at) * vf_set(half_value(w.scales[at / BLOCK]));
}

/* Turn weights [first, first + PANEL) x [k, k + depth) into panel[depth][PANEL], zeros for rows from `rows` on. */
INLINE void pack_kind(weight_rows w, int64_t first, int64_t rows, int64_t k, int64_t depth, float *panel) {
    for (int64_t lane = 0; lane < PANEL; lane += LANES) {
        int64_t there = omni_min(LANES, rows - first - lane), start = (first + lane) * w.k + k, i = 0;
        vf square[LANES];
        for (; there == LANES && i + LANES <= depth; i += LANES) {
            for (int r = 0; r < LANES; r++)
                square[r] = load_weights(w, start + r * w.k + i, LANES);
            transpose(square);
            for (int j = 0; j < LANES; j++)
                vf_store(panel + (i + j) * PANEL + lane, square[j]);
        }
        for (; i < depth; i += LANES) {
            int64_t count = omni_min(LANES, depth - i);
            for (int r = 0; r < LANES; r++)
                square[r] = r < there ? load_weights(w, start + r * w.k + i, count) : vf_zero();
            transpose(square);
            for (int64_t j = 0; j < count; j++)
                vf_store(panel + (i + j) * PANEL + lane, square[j]);
        }
    }
}
static void pack_float(weight_rows w, int64_t first, int64_t rows, int64_t k, int64_t depth, float *panel) {
    if (w.kind == WEIGHT_F32)
        pack_kind((weight_rows){WEIGHT_F32, w.values, NULL, w.k}, first, rows, k, depth, panel);
    else if (w.kind == WEIGHT_F16)
        pack_kind((weight_rows){WEIGHT_F16, w.values, NULL, w.k}, first, rows, k, depth, panel);
    else
        pack_kind((weight_rows){WEIGHT_Q8_0, w.values, w.scales, w.k}, first, rows, k, depth, panel);
}

/* y[i][0..PANEL) = start[i][0..PANEL) + rows[i] . panel for `count` (a constant <= TILE_ROWS) rows ROW_STRIDE apart;
 * start NULL means zeros. All of PANEL is read and written. */
INLINE void float_tile(const float *panel, const float *rows, int64_t depth, int count, float *y, int64_t y_stride,
                       const float *start, int64_t start_stride) {
    vf sums[TILE_ROWS][TILE_VECTORS];
    UNROLL
    for (int i = 0; i < count; i++)
        for (int v = 0; v < TILE_VECTORS; v++)
            sums[i][v] = vf_zero();
    for (int64_t k = 0; k < depth; k++, panel += PANEL, rows++) {
        vf w[TILE_VECTORS];
        for (int v = 0; v < TILE_VECTORS; v++)
            w[v] = vf_load(panel + v * LANES);
        UNROLL
        for (int i = 0; i < count; i++) {
            vf value = vf_set(rows[i * ROW_STRIDE]);
            for (int v = 0; v < TILE_VECTORS; v++)
                sums[i][v] = vf_fma(value, w[v], sums[i][v]);
        }
    }
    UNROLL
    for (int i = 0; i < count; i++)
        for (int v = 0; v < TILE_VECTORS; v++) {
            vf before = start ? vf_load(start + i * start_stride + v * LANES) : vf_zero();
            vf_store(y + i * y_stride + v * LANES, before + sums[i][v]);
        }
}

static void float_tile_any(const float *panel, const float *rows, int64_t depth, int64_t count, float *y,
                           int64_t y_stride, const float *start, int64_t start_stride) {
    switch (count) {
#define ROWS(n)                                                                                                        \
    case n:                                                                                                            \
        float_tile(panel, rows, depth, n, y, y_stride, start, start_stride);                                           \
        break;
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
#if TILE_ROWS > 4
        ROWS(5)
        ROWS(6)
#endif
#if TILE_ROWS > 6
        ROWS(7)
        ROWS(8)
        ROWS(9)
        ROWS(10)
        ROWS(11)
        ROWS(12)
#endif
#if TILE_ROWS > 12
        ROWS(13)
        ROWS(14)
#endif
#undef ROWS
    }
}

/* The same for any number of rows, and of outputs up to PANEL. */
static void float_rows(const float *panel, const float *rows, int64_t depth, int64_t count, int64_t width, float *y,
                       int64_t y_stride, const float *start, int64_t start_stride) {
    for (int64_t t = 0; t < count; t += TILE_ROWS) {
        int64_t some = omni_min(TILE_ROWS, count - t);
        const float *x = rows + t * ROW_STRIDE, *from = start ? start + t * start_stride : NULL;
        float *to = y + t * y_stride, part[TILE_ROWS * PANEL];
        if (width >= PANEL) {
            float_tile_any(panel, x, depth, some, to, y_stride, from, start_stride);
            continue;
        }
        for (int64_t i = 0; from && i < some; i++)
            memcpy(part + i * PANEL, from + i * start_stride, (size_t)width * sizeof *part);
        float_tile_any(panel, x, depth, some, part, PANEL, from ? part : NULL, PANEL);
        for (int64_t i = 0; i < some; i++)
            memcpy(to + i * y_stride, part + i * PANEL, (size_t)width * sizeof *part);
    }
}

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

/* Many rows, int8 ----------------------------------------------------------------------------------------------- */

enum { DOT_PANEL = DOT_TILE_VECTORS * LANES };

/* Bytes of an int8 panel: its scales [K / 32][DOT_PANEL], then groups of 4 weights [K / 4][DOT_PANEL][4]. */
INLINE size_t int8_panel_bytes(int64_t k) { return (size_t)(k / BLOCK * DOT_PANEL * 4 + k * DOT_PANEL); }

/* Turn LANES q8_0 rows from `first` on into the vectors `v` of a panel; rows from `rows` on count as the last one. */
static void pack_int8_vector(weight_rows w, int64_t first, int64_t rows, int v, char *panel) {
    enum { STRETCH = 4 * LANES }; /* weights that a vector of groups takes from each row */
    int64_t blocks = w.k / BLOCK;
    float *scales = (float *)panel + v * LANES, *groups = (float *)panel + blocks * DOT_PANEL + v * LANES;
    const int8_t *quants[LANES];
    for (int64_t lane = 0; lane < LANES; lane++) {
        int64_t row = omni_min(first + lane, rows - 1);
        quants[lane] = (const int8_t *)w.values + row * w.k;
        for (int64_t b = 0; b < blocks; b++)
            scales[b * DOT_PANEL + lane] = half_value(w.scales[row * blocks + b]);
    }
    for (int64_t i = 0; i < w.k; i += STRETCH) {
        vf square[LANES];
        int64_t count = omni_min(STRETCH, w.k - i);
        for (int lane = 0; lane < LANES; lane++) {
            vi bits = vi_set(0);
            if (count == STRETCH)
                memcpy(&bits, quants[lane] + i, sizeof bits);
            else
                memcpy(&bits, quants[lane] + i, (size_t)count);
            square[lane] = (vf)(WEIGHT_BIAS ? bits ^ vi_set((int32_t)0x80808080) : bits);
        }
        transpose(square);
        for (int64_t j = 0; j < count / 4; j++)
            vf_store(groups + (i / 4 + j) * DOT_PANEL, square[j]);
    }
}

static void pack_int8(weight_rows w, int64_t first, int64_t rows, char *panel) {
    for (int v = 0; v < DOT_TILE_VECTORS; v++)
        pack_int8_vector(w, first + v * LANES, rows, v, panel);
}

/* sums[i][v] = x[i] . panel (DOT_PANEL weight rows) for `count` (a constant <= DOT_TILE_ROWS) rows. */
INLINE void int8_tile(const char *panel, int64_t blocks, const int8_row *x, int count,
                      vf sums[DOT_TILE_ROWS][DOT_TILE_VECTORS]) {
    const float *scales = (const float *)panel;
    const int8_t *groups = (const int8_t *)(scales + blocks * DOT_PANEL);
    vf totals[DOT_TILE_ROWS][DOT_TILE_VECTORS];
    UNROLL
    for (int i = 0; i < count; i++)
        for (int v = 0; v < DOT_TILE_VECTORS; v++)
            totals[i][v] = vf_zero();
    for (int64_t b = 0; b < blocks; b++) {
        vi whole[DOT_TILE_ROWS][DOT_TILE_VECTORS];
        for (int i = 0; i < count; i++)
            for (int v = 0; v < DOT_TILE_VECTORS; v++)
                whole[i][v] = WEIGHT_BIAS ? vi_set(x[i].corrections[b]) : vi_set(0);
        UNROLL
        for (int g = 0; g < BLOCK / 4; g++) {
            vw w[DOT_TILE_VECTORS];
            for (int v = 0; v < DOT_TILE_VECTORS; v++)
                w[v] = vw_load(groups + (g * DOT_TILE_VECTORS + v) * 4 * LANES);
            for (int i = 0; i < count; i++) {
                int32_t four;
                memcpy(&four, x[i].quants + b * BLOCK + 4 * g, 4);
                for (int v = 0; v < DOT_TILE_VECTORS; v++)
                    whole[i][v] = dot4(whole[i][v], w[v], four);
            }
        }
        groups += BLOCK * DOT_PANEL;
        for (int v = 0; v < DOT_TILE_VECTORS; v++) {
            vf scale = vf_load(scales + b * DOT_PANEL + v * LANES);
            for (int i = 0; i < count; i++)
                totals[i][v] = vf_fma(vf_from_int(whole[i][v]), scale * vf_set(x[i].scales[b]), totals[i][v]);
        }
    }
    UNROLL
    for (int i = 0; i < count; i++)
        for (int v = 0; v < DOT_TILE_VECTORS; v++)
            sums[i][v] = totals[i][v];
}

static void int8_tile_any(const char *panel, int64_t blocks, const int8_row *x, int64_t count,
                          vf sums[DOT_TILE_ROWS][DOT_TILE_VECTORS]) {
    switch (count) {
#define ROWS(n)                                                                                                        \
    case n:                                                                                                            \
        int8_tile(panel, blocks, x, n, sums);                                                                          \
        break;
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
#if DOT_TILE_ROWS > 4
        ROWS(5)
        ROWS(6)
#endif
#undef ROWS
    }
}
