/* Convolutions of 7 or 2 taps with fewer products, by minimal filtering (Toom and Cook, Winograd). Compiled once per level.
 *
 * Four output rows a dilation apart make a tile. Its input rows and the taps count as coefficients of polynomials, which
 * are evaluated at the points 0, 1, -1, 2, -2, infinity and 1/2, multiplied there, channel by channel as in any product,
 * and turned back: r + 3 products make four outputs of r taps, in place of 4 r. 7 taps are 4 and 3, whose products at a
 * point are summed before they are turned back: 13 in place of 28. 2 taps leave out -2 and 1/2: 5 in place of 8.
 * Rounding then costs about 1e-12 of the outputs' power in place of 1e-13.
 *
 * The rows of a tile share roundings, so tiles must lie alike however a stream is cut. It is cut at whole frames: tiles
 * stay within frames, which are counted from the last row of a call; what a tile lacks there is zeros.
 *
 * Slots: 0 what the bias becomes, 3 what all workers share. */

enum { POINTS = 7, TILE_OUTPUTS = 4, MOST_INPUTS = 10, CHANNELS = 96, TOGETHER = 256, LEAST_STEP = 2 * TILE_ROWS,
       MOST_SHARED = 1 << 20 /* floats */ };

/* How a number of taps is treated: input rows of a tile, products, and how many of these there are at each point. */
typedef struct {
    int64_t taps, inputs, products, at_point[POINTS];
} minimal_form;
static const minimal_form seven_taps = {7, 10, 13, {2, 2, 2, 2, 2, 2, 1}}, two_taps = {2, 5, 5, {1, 1, 1, 1, 0, 1, 0}};

typedef struct {
    minimal_form form;
    weight_rows w; /* [n][taps][c] */
    int64_t t, c, n, dilation, frame;
    const float *x, *tail, *b; /* tail: (taps - 1) * dilation rows */
    float *y;
    omni_pool *pool;
    int64_t frame_tiles, long_classes, long_tiles, short_tiles; /* rows of a frame that are equal modulo the dilation */
    int64_t first, count, step;                                 /* tiles: those in work, and how many a chunk takes */
    float *shared;
} minimal_job;

INLINE int64_t row_floats(const minimal_job *job, int64_t tiles) { /* transformed rows of `tiles` tiles */
    return omni_divide_up(job->c, CHANNELS) * POINTS * tiles * ROW_STRIDE;
}
INLINE int64_t panel_floats(const minimal_job *job, int64_t channels) { return job->form.products * channels * PANEL; }

/* The first output row of a tile, below 0 before the call's first; `end` is the row behind its frame. */
INLINE int64_t tile_row(const minimal_job *job, int64_t tile, int64_t *end) {
    int64_t frame = tile / job->frame_tiles, i = tile % job->frame_tiles;
    int64_t behind = job->long_classes * job->long_tiles, class, number;
    if (i < behind)
        class = i / job->long_tiles, number = i % job->long_tiles;
    else
        class = job->long_classes + (i - behind) / job->short_tiles, number = (i - behind) % job->short_tiles;
    *end = job->t - (omni_divide_up(job->t, job->frame) - 1 - frame) * job->frame;
    return *end - job->frame + class + number * TILE_OUTPUTS * job->dilation;
}

/* Rows ------------------------------------------------------------------------------------------------------------ */

/* Six values at 0, 1, -1, 2, -2 and infinity: what four outputs of three taps need. */
INLINE void evaluate(const vf *d, vf *at) {
    vf even = vf_fma(vf_set(-4.0f), d[2], d[4]), odd = vf_fma(vf_set(-4.0f), d[1], d[3]);
    vf even2 = d[4] - d[2], odd2 = d[3] - d[1];
    at[0] = vf_fma(vf_set(4.0f), d[0], vf_fma(vf_set(-5.0f), d[2], d[4]));
    at[1] = even + odd;
    at[2] = even - odd;
    at[3] = vf_fma(vf_set(2.0f), odd2, even2);
    at[4] = vf_fma(vf_set(-2.0f), odd2, even2);
    at[5] = vf_fma(vf_set(4.0f), d[1], vf_fma(vf_set(-5.0f), d[3], d[5]));
}

/* One stretch of channels of a tile's input rows, to to[point * stride]. */
static void transform_seven(const float *const *rows, int64_t depth, float *to, int64_t stride) {
    for (int64_t i = 0; i < depth; i += LANES) {
        vf d[MOST_INPUTS], shifted[6], at[6];
        for (int k = 0; k < MOST_INPUTS; k++)
            d[k] = vf_load(rows[k] + i);
        for (int k = 0; k < 6; k++) /* the root 1/2, which the fourth tap adds */
            shifted[k] = vf_fma(vf_set(-0.5f), d[k], d[k + 1]);
        evaluate(shifted, at);
        for (int p = 0; p < 6; p++)
            vf_store(to + p * stride + i, at[p]);
        vf_store(to + 6 * stride + i, vf_fma(vf_set(4.0f), d[1], vf_fma(vf_set(-5.0f), d[3], d[5])));
        evaluate(d + 4, at);
        for (int p = 0; p < 6; p++)
            vf_store(to + p * stride + depth + i, at[p]);
    }
}
static void transform_two(const float *const *rows, int64_t depth, float *to, int64_t stride) {
    const vf two = vf_set(2.0f);
    for (int64_t i = 0; i < depth; i += LANES) {
        vf d[5];
        for (int k = 0; k < 5; k++)
            d[k] = vf_load(rows[k] + i);
        vf odd = d[3] - d[1];
        vf_store(to + i, vf_fma(two, d[0] - d[2], odd));
        vf_store(to + stride + i, vf_fma(-two, d[1], d[3] - d[2]));
        vf_store(to + 2 * stride + i, vf_fma(two, d[1], vf_fma(vf_set(-3.0f), d[2], d[3])));
        vf_store(to + 3 * stride + i, odd);
        vf_store(to + 5 * stride + i, vf_fma(-two, odd, d[4] - d[2]));
    }
}

/* The rows of `count` tiles from `tile` on, of `of` tiles that lie in to[stretch][point][of][ROW_STRIDE], `to` at the first. */
static void transform_rows(const minimal_job *job, int64_t tile, int64_t count, float *to, int64_t of) {
    static const float silence[CHANNELS];
    int64_t before = (job->form.taps - 1) * job->dilation, c = job->c;
    for (int64_t end; count--; tile++, to += ROW_STRIDE) {
        int64_t row = tile_row(job, tile, &end);
        float *at = to;
        for (int64_t k = 0; k < c; k += CHANNELS, at += POINTS * of * ROW_STRIDE) {
            const float *rows[MOST_INPUTS];
            for (int64_t i = 0; i < job->form.inputs; i++) {
                int64_t from = row + i * job->dilation; /* row `from` - `before` of x */
                rows[i] = from < 0 || from >= end + before ? silence
                          : from < before                  ? job->tail + from * c + k
                                                           : job->x + (from - before) * c + k;
            }
            (job->form.taps == 7 ? transform_seven : transform_two)(rows, omni_min(CHANNELS, c - k), at, of * ROW_STRIDE);
        }
    }
}

/* Weights --------------------------------------------------------------------------------------------------------- */

INLINE void evaluate_four(const vf *g, vf *at) {
    vf even = g[0] + g[2], odd = g[1] + g[3];
    vf even2 = vf_fma(vf_set(4.0f), g[2], g[0]), odd2 = 2 * vf_fma(vf_set(4.0f), g[3], g[1]);
    at[0] = g[0] * -0.5f;
    at[1] = (even + odd) * (-1.0f / 3);
    at[2] = (even - odd) * (1.0f / 9);
    at[3] = (even2 + odd2) * (1.0f / 36);
    at[4] = (even2 - odd2) * (-1.0f / 60);
    at[5] = g[3];
    vf half = vf_fma(vf_set(0.25f), g[2], g[0]), odd_half = 0.5f * vf_fma(vf_set(0.25f), g[3], g[1]);
    at[6] = (half + odd_half) * (32.0f / 45);
}
INLINE void evaluate_three(const vf *g, vf *at) {
    vf even = g[0] + g[2], even2 = vf_fma(vf_set(4.0f), g[2], g[0]);
    at[0] = g[0] * 0.25f;
    at[1] = (even + g[1]) * (-1.0f / 6);
    at[2] = (even - g[1]) * (-1.0f / 6);
    at[3] = vf_fma(vf_set(2.0f), g[1], even2) * (1.0f / 24);
    at[4] = vf_fma(vf_set(-2.0f), g[1], even2) * (1.0f / 24);
    at[5] = g[2];
}
INLINE void evaluate_two(const vf *g, vf *at) {
    at[0] = g[0] * 0.5f;
    at[1] = (g[0] + g[1]) * -0.5f;
    at[2] = (g[0] - g[1]) * (-1.0f / 6);
    at[3] = vf_fma(vf_set(2.0f), g[1], g[0]) * (1.0f / 6);
    at[4] = g[1];
}

/* Panel `number` of the weights, channels [k, k + depth), to to[product][depth][PANEL], products in the order of points. */
static void transform_weights(const minimal_job *job, int64_t number, int64_t k, int64_t depth, float *to) {
    static const int order[] = {0, 2, 4, 6, 8, 10, 12, 1, 3, 5, 7, 9, 11}; /* four taps at seven points, then three at six */
    int64_t taps = job->form.taps, c = job->c;
    for (int64_t lane = 0; lane < PANEL; lane += LANES)
        for (int64_t i = 0; i < depth; i += LANES) {
            vf squares[7][LANES]; /* a tap each, turned so that channels lead */
            for (int64_t j = 0; j < taps; j++) {
                for (int64_t r = 0; r < LANES; r++) {
                    int64_t row = number * PANEL + lane + r;
                    squares[j][r] =
                        row < job->n ? load_weights(job->w, (row * taps + j) * c + k + i, LANES) : vf_zero();
                }
                transpose(squares[j]);
            }
            for (int64_t channel = 0; channel < LANES; channel++) {
                float *panel = to + (i + channel) * PANEL + lane;
                vf g[7], at[13];
                for (int64_t j = 0; j < taps; j++)
                    g[j] = squares[j][channel];
                if (taps == 7) {
                    evaluate_four(g, at);
                    evaluate_three(g + 4, at + 7);
                    for (int p = 0; p < 13; p++)
                        vf_store(panel + order[p] * depth * PANEL, at[p]);
                } else {
                    evaluate_two(g, at);
                    for (int p = 0; p < 5; p++)
                        vf_store(panel + p * depth * PANEL, at[p]);
                }
            }
        }
}

/* Products --------------------------------------------------------------------------------------------------------- */

/* Add the products of a stretch to sums[point][count][PANEL]; the first stretch sets them. */
static void add_products(const minimal_job *job, const float *panel, const float *rows, int64_t depth, int64_t count,
                         float *sums, int first) {
    for (int64_t p = 0; p < POINTS; p++, rows += count * ROW_STRIDE, sums += count * PANEL) {
        int64_t together = job->form.at_point[p] * depth;
        if (together)
            float_rows(panel, rows, together, count, PANEL, sums, PANEL, first ? NULL : sums, PANEL);
        panel += together * PANEL;
    }
}

/* Turn the sums of tiles from `tile` on into output rows, columns of panel `number`. */
static void turn_back(const minimal_job *job, const float *sums, int64_t tile, int64_t count, int64_t number) {
    int64_t column = number * PANEL, points = count * PANEL, full = job->form.taps == 7;
    for (int64_t i = 0, end; i < count; i++) {
        int64_t row = tile_row(job, tile + i, &end);
        for (int64_t v = 0; v < PANEL && column + v < job->n; v += LANES) {
            const float *at = sums + i * PANEL + v;
            int64_t width = omni_min(LANES, job->n - column - v);
            vf b = width < LANES ? vf_load_part(job->b + column + v, width) : vf_load(job->b + column + v);
            vf plus = vf_load(at + points), minus = vf_load(at + 2 * points), two = vf_load(at + 3 * points);
            vf minus_two = full ? vf_load(at + 4 * points) : vf_zero(), half = full ? vf_load(at + 6 * points) : vf_zero();
            vf even = plus + minus, odd = plus - minus, even2 = two + minus_two, odd2 = two - minus_two;
            vf y[TILE_OUTPUTS] = {
                (vf_load(at) + even) + (even2 + half),
                vf_fma(vf_set(2.0f), odd2, odd) + 0.5f * half,
                vf_fma(vf_set(4.0f), even2, even) + 0.25f * half,
                vf_fma(vf_set(8.0f), odd2, odd) + vf_fma(vf_set(0.125f), half, vf_load(at + 5 * points)),
            };
            for (int64_t u = row, j = 0; j < TILE_OUTPUTS; j++, u += job->dilation)
                if (u >= 0 && u < end) {
                    float *to = job->y + u * job->n + column + v;
                    if (width < LANES)
                        vf_store_part(to, y[j] + b, width);
                    else
                        vf_store(to, y[j] + b);
                }
        }
    }
}

/* Few tiles, whose rows all workers share: a panel of weights per chunk. -------------------------------------------- */

static void shared_rows_task(void *context, int64_t chunk, int worker) {
    const minimal_job *job = context;
    int64_t begin = chunk * job->step, count = omni_min(job->step, job->count - begin);
    (void)worker;
    transform_rows(job, job->first + begin, count, job->shared + begin * ROW_STRIDE, job->count);
}

static void panel_task(void *context, int64_t chunk, int worker) {
    const minimal_job *job = context;
    float *panel = omni_worker(job->pool, worker), *sums = panel + panel_floats(job, CHANNELS);
    const float *rows = job->shared;
    for (int64_t k = 0; k < job->c; k += CHANNELS, rows += POINTS * job->count * ROW_STRIDE) {
        int64_t depth = omni_min(CHANNELS, job->c - k);
        transform_weights(job, chunk, k, depth, panel);
        add_products(job, panel, rows, depth, job->count, sums, k == 0);
    }
    turn_back(job, sums, job->first, job->count, chunk);
}

/* Many tiles and few panels of weights, which all workers share: some tiles per chunk. -------------------------------- */

static void shared_panels_task(void *context, int64_t chunk, int worker) {
    const minimal_job *job = context;
    int64_t stretches = omni_divide_up(job->c, CHANNELS), number = chunk / stretches, k = chunk % stretches * CHANNELS;
    (void)worker;
    transform_weights(job, number, k, omni_min(CHANNELS, job->c - k),
                      job->shared + number * panel_floats(job, job->c) + panel_floats(job, k));
}

static void tiles_task(void *context, int64_t chunk, int worker) {
    const minimal_job *job = context;
    int64_t tile = chunk * job->step, count = omni_min(job->step, job->count - tile);
    float *rows = omni_worker(job->pool, worker), *sums = rows + row_floats(job, job->step);
    transform_rows(job, tile, count, rows, count);
    for (int64_t number = 0; number < omni_divide_up(job->n, PANEL); number++) {
        const float *panel = job->shared + number * panel_floats(job, job->c), *at = rows;
        for (int64_t k = 0; k < job->c; k += CHANNELS, at += POINTS * count * ROW_STRIDE)
            add_products(job, panel + panel_floats(job, k), at, omni_min(CHANNELS, job->c - k), count, sums, k == 0);
        turn_back(job, sums, tile, count, number);
    }
}

static int minimal_run(omni_pool *pool, minimal_job *job) {
    int64_t classes = omni_min(job->dilation, job->frame), rows = job->frame / classes;
    job->pool = pool;
    job->long_classes = job->frame % classes;
    job->long_tiles = omni_divide_up(rows + 1, TILE_OUTPUTS);
    job->short_tiles = omni_divide_up(rows, TILE_OUTPUTS);
    job->frame_tiles = job->long_classes * job->long_tiles + (classes - job->long_classes) * job->short_tiles;
    int64_t tiles = omni_divide_up(job->t, job->frame) * job->frame_tiles, panels = omni_divide_up(job->n, PANEL);
    int64_t threads = omni_threads(pool);
    job->step = LEAST_STEP;
    if (panels * panel_floats(job, job->c) <= MOST_SHARED && tiles >= threads * LEAST_STEP) {
        job->count = tiles;
        job->shared = omni_scratch(pool, 3, (size_t)(panels * panel_floats(job, job->c)) * sizeof(float));
        int64_t floats = row_floats(job, job->step) + POINTS * job->step * PANEL;
        if (!job->shared || !omni_reserve_workers(pool, (size_t)floats * sizeof(float)))
            return OMNI_NO_MEMORY;
        omni_parallel(pool, shared_panels_task, job, panels * omni_divide_up(job->c, CHANNELS));
        omni_parallel(pool, tiles_task, job, omni_divide_up(tiles, job->step));
        return OMNI_DONE;
    }
    job->step = omni_max(1, WORTHWHILE / (MOST_INPUTS * job->c));
    for (; job->first < tiles; job->first += job->count) {
        job->count = omni_min(TOGETHER, tiles - job->first);
        job->shared = omni_scratch(pool, 3, (size_t)row_floats(job, job->count) * sizeof(float));
        int64_t floats = panel_floats(job, CHANNELS) + POINTS * job->count * PANEL;
        if (!job->shared || !omni_reserve_workers(pool, (size_t)floats * sizeof(float)))
            return OMNI_NO_MEMORY;
        omni_parallel(pool, shared_rows_task, job, omni_divide_up(job->count, job->step));
        omni_parallel(pool, panel_task, job, panels);
    }
    return OMNI_DONE;
}

/* conv1d. Uniforms: T, C, N, dilation, frame */
static int conv1d_minimal_kind(const omni_call *call, omni_pool *pool, weight_kind kind) {
    const omni_value *u = call->uniforms;
    weight_rows w = {kind, call->planes[2], NULL, 7 * u[1].i};
    minimal_job job = {.form = seven_taps, .w = w, .t = u[0].i, .c = u[1].i, .n = u[2].i, .dilation = u[3].i,
                       .frame = u[4].i, .x = call->planes[0], .tail = call->planes[1], .b = call->planes[3],
                       .y = call->outputs[0]};
    return minimal_run(pool, &job);
}

/* conv_transpose1d. Uniforms: T, C, M, N, frame */
static int conv_transpose1d_minimal_kind(const omni_call *call, omni_pool *pool, weight_kind kind) {
    const omni_value *u = call->uniforms;
    int64_t phases = u[2].i, n = u[3].i;
    weight_rows w = {kind, call->planes[2], NULL, 2 * u[1].i};
    float *bias = omni_scratch(pool, 0, (size_t)(phases * n) * sizeof *bias);
    if (!bias)
        return OMNI_NO_MEMORY;
    for (int64_t phase = 0; phase < phases; phase++)
        memcpy(bias + phase * n, call->planes[3], (size_t)n * sizeof *bias);
    minimal_job job = {.form = two_taps, .w = w, .t = u[0].i, .c = u[1].i, .n = phases * n, .dilation = 1,
                       .frame = u[4].i, .x = call->planes[0], .tail = call->planes[1], .b = bias, .y = call->outputs[0]};
    return minimal_run(pool, &job);
}

#define MINIMAL(name, suffix, kind)                                                                                    \
    static int name##_##suffix##_minimal(const omni_call *call, omni_pool *pool) {                                     \
        return name##_minimal_kind(call, pool, kind);                                                                  \
    }
MINIMAL(conv1d, f32, WEIGHT_F32)
MINIMAL(conv1d, f16, WEIGHT_F16)
MINIMAL(conv_transpose1d, f32, WEIGHT_F32)
MINIMAL(conv_transpose1d, f16, WEIGHT_F16)
#undef MINIMAL
