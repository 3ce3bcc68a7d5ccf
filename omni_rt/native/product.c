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

enum { PANEL = TILE_VECTORS * LANES, DEPTH = 384, GROUP = 4 };

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
        for (int s = 0; s < STEPS; s++) {
            int64_t at = b + s * BLOCKS_PER_STEP;
            if (at % 2 == 0)
                prefetch(quants + at * BLOCK);
            vi start = correction_step(x.group_corrections + at * (BLOCK / 4));
            vi sum = dot_step(quants + at * BLOCK, x.quants + at * BLOCK, start);
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
        vi sum = dot_step(padded, x.quants + b * BLOCK, correction_step(x.group_corrections + b * (BLOCK / 4)));
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

/* Many rows, float ---------------------------------------------------------------------------------------------- */

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
static void pack_float(weight_rows w, int64_t first, int64_t rows, int64_t k, int64_t depth, float *panel) {
    for (int64_t lane = 0; lane < PANEL; lane += LANES)
        for (int64_t i = 0; i < depth; i += LANES) {
            vf square[LANES];
            int64_t count = omni_min(LANES, depth - i);
            for (int64_t r = 0; r < LANES; r++) {
                int64_t row = first + lane + r;
                square[r] = row < rows ? load_weights(w, row * w.k + k + i, count) : vf_zero();
            }
            transpose(square);
            for (int64_t j = 0; j < count; j++)
                vf_store(panel + (i + j) * PANEL + lane, square[j]);
        }
}

/* A stretch of K as the tile walks it: `pieces` runs of `length` values, `stride` apart in each activation row. */
typedef struct {
    int64_t pieces, length, stride;
} walk;

/* sums[i][v] += rows[i] . panel over a walk, for `count` (a constant <= TILE_ROWS) rows; panel rows `width` apart. */
INLINE void float_tile(const float *panel, int64_t width, const float *const *rows, walk path, int count,
                       vf sums[TILE_ROWS][TILE_VECTORS]) {
    for (int64_t piece = 0; piece < path.pieces; piece++) {
        const float *x[TILE_ROWS];
        for (int i = 0; i < count; i++)
            x[i] = rows[i] + piece * path.stride;
        for (int64_t k = 0; k < path.length; k++, panel += width) {
            vf w[TILE_VECTORS];
            for (int v = 0; v < TILE_VECTORS; v++)
                w[v] = vf_load(panel + v * LANES);
            for (int i = 0; i < count; i++) {
                vf value = vf_set(x[i][k]);
                for (int v = 0; v < TILE_VECTORS; v++)
                    sums[i][v] = vf_fma(value, w[v], sums[i][v]);
            }
        }
    }
}

/* y[i][0..PANEL) = start[i][0..PANEL) + rows[i] . panel; start NULL means zeros. All of PANEL is read and written. */
INLINE void float_tile_full(const float *panel, int64_t width, const float *const *rows, walk path, int count,
                            float *y, int64_t y_stride, const float *start, int64_t start_stride) {
    vf sums[TILE_ROWS][TILE_VECTORS];
    for (int i = 0; i < count; i++)
        for (int v = 0; v < TILE_VECTORS; v++)
            sums[i][v] = start ? vf_load(start + i * start_stride + v * LANES) : vf_zero();
    float_tile(panel, width, rows, path, count, sums);
    for (int i = 0; i < count; i++)
        for (int v = 0; v < TILE_VECTORS; v++)
            vf_store(y + i * y_stride + v * LANES, sums[i][v]);
}

static void float_tile_any(const float *panel, int64_t width, const float *const *rows, walk path, int64_t count,
                           float *y, int64_t y_stride, const float *start, int64_t start_stride) {
    switch (count) {
#define ROWS(n)                                                                                                        \
    case n:                                                                                                            \
        float_tile_full(panel, width, rows, path, n, y, y_stride, start, start_stride);                                \
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
#endif
#undef ROWS
    }
}

/* A product y[t] = start[t] + rows[t] . w; `path` covers all of K (pieces * length = K). */
typedef struct {
    weight_rows w;
    int64_t n;
    const float *const *rows;
    int64_t t;
    walk path;
    float *y;
    int64_t y_stride;
    const float *start; /* NULL: zeros */
    int64_t start_stride;
} float_product;

/* The next stretch of K from k on, at most DEPTH long unless one piece is longer: its walk and the offset into rows. */
INLINE walk next_walk(const float_product *job, int64_t k, int64_t *offset) {
    walk all = job->path;
    int64_t piece = k / all.length, inside = k % all.length;
    *offset = piece * all.stride + inside;
    if (all.length >= DEPTH)
        return (walk){1, omni_min(DEPTH, all.length - inside), 0};
    return (walk){omni_min(DEPTH / all.length, all.pieces - piece), all.length, all.stride};
}

/* Rows [t0, t1) x panel `first`: `packed` holds the whole panel, or NULL and `scratch` takes a stretch at a time. */
static void float_panel(const float_product *job, int64_t first, int64_t t0, int64_t t1, const float *packed,
                        float *scratch) {
    int64_t width = omni_min(PANEL, job->n - first), k = 0, total = job->path.pieces * job->path.length;
    float part[TILE_ROWS * PANEL];
    do {
        int64_t offset;
        walk path = next_walk(job, k, &offset);
        int64_t depth = path.pieces * path.length;
        const float *panel = packed + k * PANEL;
        if (!packed) {
            pack_float(job->w, first, job->n, k, depth, scratch);
            panel = scratch;
        }
        const float *start = k ? job->y : job->start;
        int64_t start_stride = k ? job->y_stride : job->start_stride;
        for (int64_t t = t0; t < t1; t += TILE_ROWS) {
            const float *rows[TILE_ROWS];
            int64_t count = omni_min(TILE_ROWS, t1 - t);
            for (int64_t i = 0; i < count; i++)
                rows[i] = job->rows[t + i] + offset;
            float *y = job->y + t * job->y_stride + first;
            const float *from = start ? start + t * start_stride + first : NULL;
            if (width == PANEL) {
                float_tile_any(panel, PANEL, rows, path, count, y, job->y_stride, from, start_stride);
                continue;
            }
            if (from)
                for (int64_t i = 0; i < count; i++)
                    memcpy(part + i * PANEL, from + i * start_stride, (size_t)width * sizeof *part);
            float_tile_any(panel, PANEL, rows, path, count, part, PANEL, from ? part : NULL, PANEL);
            for (int64_t i = 0; i < count; i++)
                memcpy(y + i * job->y_stride, part + i * PANEL, (size_t)width * sizeof *part);
        }
        k += depth;
    } while (k < total);
}

typedef struct {
    float_product job;
    omni_pool *pool;
    float *packed;
    int64_t panels, t_step, t_blocks;
} float_plan;

static void float_pack_task(void *context, int64_t chunk, int worker) {
    const float_plan *plan = context;
    (void)worker;
    pack_float(plan->job.w, chunk * PANEL, plan->job.n, 0, plan->job.w.k, plan->packed + chunk * PANEL * plan->job.w.k);
}

static void float_product_task(void *context, int64_t chunk, int worker) {
    const float_plan *plan = context;
    const float_product *job = &plan->job;
    if (!plan->packed) {
        float_panel(job, chunk * PANEL, 0, job->t, NULL, omni_worker(plan->pool, worker));
        return;
    }
    int64_t t0 = chunk * plan->t_step, t1 = omni_min(t0 + plan->t_step, job->t);
    for (int64_t panel = 0; panel < plan->panels; panel++)
        float_panel(job, panel * PANEL, t0, t1, plan->packed + panel * PANEL * job->w.k, NULL);
}

enum { PACK_LIMIT = 8 << 20 };

/* Run a product on all threads; slot 3 of the scratch is used. */
static int float_product_run(omni_pool *pool, const float_product *job) {
    float_plan plan = {*job, pool, NULL, omni_divide_up(job->n, PANEL), 0, 0};
    int64_t bytes = plan.panels * PANEL * job->w.k * 4;
    if (job->t >= 64 * omni_threads(pool) && bytes <= PACK_LIMIT) {
        plan.packed = omni_scratch(pool, 3, (size_t)bytes);
        if (!plan.packed)
            return OMNI_NO_MEMORY;
        omni_parallel(pool, float_pack_task, &plan, plan.panels);
        int64_t balanced = omni_divide_up(job->t, 4 * (int64_t)omni_threads(pool));
        plan.t_step = omni_divide_up(omni_min(omni_max(balanced, 4 * TILE_ROWS), 96), TILE_ROWS) * TILE_ROWS;
        omni_parallel(pool, float_product_task, &plan, omni_divide_up(job->t, plan.t_step));
        return OMNI_DONE;
    }
    if (!omni_reserve_workers(pool, DEPTH * PANEL * sizeof(float)))
        return OMNI_NO_MEMORY;
    omni_parallel(pool, float_product_task, &plan, plan.panels);
    return OMNI_DONE;
}

/* Many rows, int8 ----------------------------------------------------------------------------------------------- */

/* Bytes of an int8 panel: its scales [K / 32][LANES], then groups of 4 weights [K / 4][LANES][4]. */
INLINE size_t int8_panel_bytes(int64_t k) { return (size_t)(k / BLOCK * LANES * 4 + k * LANES); }

/* Turn LANES q8_0 rows from `first` on into a panel; rows from `rows` on count as the last one. */
static void pack_int8(weight_rows w, int64_t first, int64_t rows, char *panel) {
    enum { STRETCH = 4 * LANES }; /* weights that a vector of groups takes from each row */
    int64_t blocks = w.k / BLOCK;
    float *scales = (float *)panel, *groups = scales + blocks * LANES;
    const int8_t *quants[LANES];
    for (int64_t lane = 0; lane < LANES; lane++) {
        int64_t row = omni_min(first + lane, rows - 1);
        quants[lane] = (const int8_t *)w.values + row * w.k;
        for (int64_t b = 0; b < blocks; b++)
            scales[b * LANES + lane] = half_value(w.scales[row * blocks + b]);
    }
    for (int64_t i = 0; i < w.k; i += STRETCH) {
        vf square[LANES];
        int64_t count = omni_min(STRETCH, w.k - i);
        for (int64_t lane = 0; lane < LANES; lane++) {
            vi bits = vi_set(0);
            memcpy(&bits, quants[lane] + i, count == STRETCH ? sizeof bits : (size_t)count);
            square[lane] = (vf)(WEIGHT_BIAS ? bits ^ vi_set((int32_t)0x80808080) : bits);
        }
        transpose(square);
        for (int64_t j = 0; j < count / 4; j++)
            vf_store(groups + (i / 4 + j) * LANES, square[j]);
    }
}

/* sums[i] = x[i] . panel (LANES weight rows) for `count` (a constant <= DOT_TILE_ROWS) rows. */
INLINE void int8_tile(const char *panel, int64_t blocks, const int8_row *x, int count, vf *sums) {
    const float *scales = (const float *)panel;
    const int8_t *groups = (const int8_t *)(scales + blocks * LANES);
    for (int i = 0; i < count; i++)
        sums[i] = vf_zero();
    for (int64_t b = 0; b < blocks; b++) {
        vi whole[DOT_TILE_ROWS];
        for (int i = 0; i < count; i++)
            whole[i] = WEIGHT_BIAS ? vi_set(x[i].corrections[b]) : vi_set(0);
        for (int g = 0; g < BLOCK / 4; g++, groups += 4 * LANES) {
            vw w = vw_load(groups);
            for (int i = 0; i < count; i++) {
                int32_t four;
                memcpy(&four, x[i].quants + b * BLOCK + 4 * g, 4);
                whole[i] = dot4(whole[i], w, four);
            }
        }
        vf scale = vf_load(scales + b * LANES);
        for (int i = 0; i < count; i++)
            sums[i] = vf_fma(vf_from_int(whole[i]), scale * vf_set(x[i].scales[b]), sums[i]);
    }
}

static void int8_tile_any(const char *panel, int64_t blocks, const int8_row *x, int64_t count, vf *sums) {
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
        ROWS(7)
        ROWS(8)
#endif
#undef ROWS
    }
}
