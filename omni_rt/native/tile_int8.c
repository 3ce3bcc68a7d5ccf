/* Products with many rows of activations in int8: panels and register tiles as in tile_float.c, of groups of 4 values.
 * Compiled once per level.
 */

enum { DOT_PANEL = DOT_TILE_VECTORS * LANES };

/* Bytes of an int8 panel: its scales [K / 32][DOT_PANEL], then groups of 4 weights [K / 4][DOT_PANEL][4]. */
INLINE size_t int8_panel_bytes(int64_t k) { return (size_t)(k / BLOCK * DOT_PANEL * 4 + k * DOT_PANEL); }

/* Turn LANES q8_0 rows from `first` on into the vectors `v` of a panel; rows from `rows` on count as the last one. What
 * follows in memory is asked for meanwhile: the processor does not see through so many streams by itself. */
static void pack_int8_vector(weight_rows w, int64_t first, int64_t rows, int v, char *panel) {
    enum { STRETCH = 4 * LANES }; /* weights that a vector of groups takes from each row */
    int64_t blocks = w.k / BLOCK;
    float *scales = (float *)panel + v * LANES, *groups = (float *)panel + blocks * DOT_PANEL + v * LANES;
    const int8_t *quants[LANES];
    const uint16_t *halves[LANES];
    for (int64_t lane = 0; lane < LANES; lane++) {
        int64_t row = omni_min(first + lane, rows - 1);
        quants[lane] = (const int8_t *)w.values + row * w.k;
        halves[lane] = w.scales + row * blocks;
    }
    for (int64_t b = 0; b < blocks; b += LANES) {
        vf square[LANES];
        int64_t count = omni_min(LANES, blocks - b);
        for (int lane = 0; lane < LANES; lane++)
            square[lane] = count == LANES ? vf_load_half(halves[lane] + b) : vf_load_half_part(halves[lane] + b, count);
        transpose(square);
        for (int64_t j = 0; j < count; j++)
            vf_store(scales + (b + j) * DOT_PANEL, square[j]);
    }
    for (int64_t i = 0; i < w.k; i += STRETCH) {
        vf square[LANES];
        int64_t count = omni_min(STRETCH, w.k - i);
        for (int lane = 0; lane < LANES; lane++) {
            vi bits = vi_set(0);
            __builtin_prefetch(quants[lane] + i + LANES * w.k, 0, 2);
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

/* sums[i][v] = x[i] . panel (DOT_PANEL weight rows) for `count` <= DOT_TILE_ROWS rows of `planes`, both constants. */
INLINE void int8_tile(const char *panel, int64_t blocks, const int8_row *x, int count, int planes,
                      vf sums[DOT_TILE_ROWS][DOT_TILE_VECTORS]) {
    const float *scales = (const float *)panel;
    const int8_t *groups = (const int8_t *)(scales + blocks * DOT_PANEL);
    vf totals[DOT_TILE_ROWS][DOT_TILE_VECTORS];
    UNROLL
    for (int i = 0; i < count; i++)
        for (int v = 0; v < DOT_TILE_VECTORS; v++)
            totals[i][v] = vf_zero();
    for (int64_t b = 0; b < blocks; b++) {
        vf block[DOT_TILE_ROWS][DOT_TILE_VECTORS];
        for (int i = 0; i < count; i++)
            for (int v = 0; v < DOT_TILE_VECTORS; v++)
                block[i][v] = WEIGHT_BIAS ? vf_set(x[i].corrections[b]) : vf_zero();
        UNROLL
        for (int half = 0; half < 2; half++) {
            int64_t c = 2 * b + half;
            vi whole[DOT_TILE_ROWS][DOT_TILE_VECTORS];
            UNROLL
            for (int plane = 0; plane < planes; plane++) {
                for (int i = 0; i < count; i++)
                    for (int v = 0; v < DOT_TILE_VECTORS; v++)
                        whole[i][v] = plane ? whole[i][v] * vi_set(FINER) : vi_set(0);
                UNROLL
                for (int g = 0; g < CHUNK / 4; g++) {
                    vw w[DOT_TILE_VECTORS];
                    for (int v = 0; v < DOT_TILE_VECTORS; v++)
                        w[v] = vw_load(groups + (g * DOT_TILE_VECTORS + v) * 4 * LANES);
                    for (int i = 0; i < count; i++) {
                        int32_t four;
                        memcpy(&four, x[i].planes[plane] + c * CHUNK + 4 * g, 4);
                        for (int v = 0; v < DOT_TILE_VECTORS; v++)
                            whole[i][v] = dot4(whole[i][v], w[v], four);
                    }
                }
            }
            groups += CHUNK * DOT_PANEL;
            for (int i = 0; i < count; i++)
                for (int v = 0; v < DOT_TILE_VECTORS; v++)
                    block[i][v] = vf_fma(vf_from_int(whole[i][v]), vf_set(x[i].scales[half][b]), block[i][v]);
        }
        for (int v = 0; v < DOT_TILE_VECTORS; v++) {
            vf scale = vf_load(scales + b * DOT_PANEL + v * LANES);
            for (int i = 0; i < count; i++)
                totals[i][v] = vf_fma(block[i][v], scale, totals[i][v]);
        }
    }
    UNROLL
    for (int i = 0; i < count; i++)
        for (int v = 0; v < DOT_TILE_VECTORS; v++)
            sums[i][v] = totals[i][v];
}

static void int8_tile_any(const char *panel, int64_t blocks, const int8_row *x, int64_t count, int planes,
                          vf sums[DOT_TILE_ROWS][DOT_TILE_VECTORS]) {
    switch (count) {
#define ROWS(n)                                                                                                        \
    case n:                                                                                                            \
        if (planes == 1)                                                                                               \
            int8_tile(panel, blocks, x, n, 1, sums);                                                                   \
        else                                                                                                           \
            int8_tile(panel, blocks, x, n, 2, sums);                                                                   \
        break;
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
#if DOT_TILE_ROWS > 4
        ROWS(5)
#endif
#undef ROWS
    }
}
