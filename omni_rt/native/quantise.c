/* Rows of activations in int8, and conversion between the dtypes. Compiled once per level. */

/* A row of K values in int8, in chunks of 16, the halves of the blocks of weights, with scales[half][block]. In one plane:
 * x = scale * planes[0]. In two, 16 bits: x = scale * (FINER * planes[0] + planes[1]), the second holds what the first left.
 * Where WEIGHT_BIAS is not 0, `corrections` hold -WEIGHT_BIAS times the sum of each block's values. Behind the last block lie
 * zeros, so that a step may read past it. */
typedef struct {
    const int8_t *planes[2];
    const float *scales[2];
    const float *corrections;
} int8_row;

enum { BLOCK = 32, CHUNK = BLOCK / 2, PADDING = 2 * BLOCK };
enum { FINER = 256 }; /* a shift of the sums; of what the first plane leaves, 128 at most, more than 127 becomes 127 */

INLINE int64_t int8_row_blocks(int64_t k) { return omni_divide_up(k / BLOCK, LANES) * LANES + LANES; }
INLINE int64_t int8_plane_bytes(int64_t k) { return omni_divide_up(k + PADDING, 64) * 64; }
INLINE int64_t int8_row_bytes(int64_t k, int planes) {
    return planes * int8_plane_bytes(k) + int8_row_blocks(k) * 12;
}
INLINE int8_row int8_row_at(const char *rows, int64_t k, int planes, int64_t index) {
    const int8_t *row = (const int8_t *)rows + index * int8_row_bytes(k, planes);
    int64_t bytes = int8_plane_bytes(k), blocks = int8_row_blocks(k);
    const float *scales = (const float *)(row + planes * bytes);
    return (int8_row){{row, row + bytes}, {scales, scales + blocks}, scales + 2 * blocks};
}

/* Round LANES chunks to int8, in `planes`, a constant. In one each has the scale max|x| / n with n from 127 down to 124 that
 * leaves the least squared error: its largest value is exact with any, the others fall differently. In two n is 127. */
INLINE void round_chunks(const float *x, int64_t count, int planes, int8_t *const *quants, float *scales,
                         float *corrections) {
    enum { LARGEST = 127, LEAST = 124 };
    const vf magic = vf_set(12582912.0f); /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    vf values[CHUNK], largest = vf_zero(), best = vf_set(LARGEST), least = vf_set(INFINITY);
    for (int part = 0; part < CHUNK; part += LANES) {
        for (int lane = 0; lane < LANES; lane++)
            values[part + lane] = vf_load(x + lane * CHUNK + part);
        transpose(values + part);
    }
    for (int i = 0; i < CHUNK; i++)
        largest = vf_max(largest, vf_absolute(values[i]));
    vf inverse = vf_select(largest > vf_set(1e-35f), vf_set(1) / largest, vf_zero());
    for (int n = LARGEST; planes == 1 && n >= LEAST; n--) {
        vf steps = inverse * vf_set((float)n), error = vf_zero();
        for (int i = 0; i < CHUNK; i++) {
            vf scaled = values[i] * steps, off = scaled - (scaled + magic - magic);
            error = vf_fma(off, off, error);
        }
        error *= vf_set(1.0f / (n * n));
        best = vf_select(error < least, vf_set((float)n), best);
        least = vf_select(error < least, error, least);
    }
    int32_t words[CHUNK / 4][LANES];
    vf steps = inverse * best;
    vi sum = vi_set(0);
    for (int plane = 0; plane < planes; plane++, steps = vf_set(FINER)) {
        sum *= vi_set(FINER);
        for (int i = 0; i < CHUNK; i += 4) {
            vi word = vi_set(0);
            for (int j = 0; j < 4; j++) {
                vf scaled = vf_max(vf_min(values[i + j] * steps, vf_set(LARGEST)), vf_set(-LARGEST)); /* never NaN */
                vf shifted = scaled + magic;
                vi rounded = (vi)shifted - (vi)magic;
                values[i + j] = scaled - (shifted - magic);
                sum += rounded;
                word |= (rounded & vi_set(255)) << 8 * j;
            }
            memcpy(words[i / 4], &word, sizeof word);
        }
        for (int64_t lane = 0; lane < count; lane++)
            for (int i = 0; i < CHUNK / 4; i++)
                memcpy(quants[plane] + lane * CHUNK + 4 * i, &words[i][lane], 4);
    }
    vf scale = largest / (planes == 1 ? best : vf_set(LARGEST * FINER));
    vf_store(scales, scale);
    vf_store(corrections, vf_from_int(sum * vi_set(-WEIGHT_BIAS)) * scale);
}

INLINE void quantise_row(const float *x, int64_t k, int planes, char *rows, int64_t index) {
    int8_row row = int8_row_at(rows, k, planes, index);
    float *low = (float *)row.scales[0], *high = (float *)row.scales[1], *both = (float *)row.corrections;
    float scales[LANES], corrections[LANES], rest[LANES * CHUNK] = {0};
    int64_t chunks = k / CHUNK;
    for (int plane = 0; plane < planes; plane++)
        memset((int8_t *)row.planes[plane] + k, 0, PADDING);
    memset(low, 0, (size_t)int8_row_blocks(k) * 12);
    for (int64_t c = 0; c < chunks; c += LANES) {
        int64_t count = omni_min(LANES, chunks - c);
        const float *from = x + c * CHUNK;
        if (count < LANES)
            from = memcpy(rest, from, (size_t)(count * CHUNK) * sizeof *x);
        int8_t *quants[] = {(int8_t *)row.planes[0] + c * CHUNK, (int8_t *)row.planes[1] + c * CHUNK};
        round_chunks(from, count, planes, quants, scales, corrections);
        for (int64_t i = 0; i < count; i += 2) {
            low[(c + i) / 2] = scales[i];
            high[(c + i) / 2] = scales[i + 1];
            both[(c + i) / 2] = corrections[i] + corrections[i + 1];
        }
    }
}

typedef struct {
    const float *x;
    char *rows;
    int64_t count, k, step;
    int planes;
} quantise_job;

static void quantise_task(void *context, int64_t chunk, int worker) {
    const quantise_job *job = context;
    (void)worker;
    int64_t end = omni_min((chunk + 1) * job->step, job->count);
    for (int64_t t = chunk * job->step; t < end; t++)
        if (job->planes == 1)
            quantise_row(job->x + t * job->k, job->k, 1, job->rows, t);
        else
            quantise_row(job->x + t * job->k, job->k, 2, job->rows, t);
}

/* Quantise `count` rows into scratch `slot`; returns NULL when there is no memory. */
static const char *quantise_rows(omni_pool *pool, int slot, const float *x, int64_t count, int64_t k, int planes) {
    char *rows = omni_scratch(pool, slot, (size_t)(count * int8_row_bytes(k, planes)));
    if (!rows)
        return NULL;
    quantise_job job = {x, rows, count, k, omni_max(1, 16384 / omni_max(k, 1)), planes};
    omni_parallel(pool, quantise_task, &job, omni_divide_up(count, job.step));
    return rows;
}
