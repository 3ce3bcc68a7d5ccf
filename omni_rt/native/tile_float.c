/* Products with many rows of activations, in float: a panel of weight rows is turned so that its rows lie in the lanes of
 * vectors, and a register tile of activation rows x panel runs over it. Compiled once per level.
 */

enum { PANEL = TILE_VECTORS * LANES };

/* K is walked in stretches of at most DEPTH. Each starts a sum of its own that is then added to y: a single long one
 * would gather rounding errors of one sign. The stretches depend on K alone and each output has its own sum, so a row
 * has the same bits whatever rows come with it. */
enum { DEPTH = 128, WIDEST_HEAD = 256 };
enum { ROW_STRIDE = WIDEST_HEAD + 16 }; /* not a power of two: the rows of a tile fall into different sets */

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
