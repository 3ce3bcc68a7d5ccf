/* Rows of activations in int8, and conversion between the dtypes. Compiled once per level. */

/* A row of K values as int8 in blocks of 32: x = scale * quant. Where WEIGHT_BIAS is not 0, `corrections` hold
 * -WEIGHT_BIAS times the sum of each block's quants. Behind the last block lie zeros, so that a step may read past it. */
typedef struct {
    const int8_t *quants;
    const float *scales;
    const int32_t *corrections;
} int8_row;

enum { BLOCK = 32, PADDING = 2 * BLOCK };

INLINE int64_t int8_row_blocks(int64_t k) { return omni_divide_up(k / BLOCK, LANES) * LANES + LANES; }
INLINE int64_t int8_row_bytes(int64_t k) {
    return omni_divide_up(k + PADDING, 64) * 64 + int8_row_blocks(k) * 8;
}
INLINE int8_row int8_row_at(const char *rows, int64_t k, int64_t index) {
    const char *row = rows + index * int8_row_bytes(k);
    const char *scales = row + omni_divide_up(k + PADDING, 64) * 64;
    const int32_t *corrections = (const int32_t *)(scales + int8_row_blocks(k) * 4);
    return (int8_row){(const int8_t *)row, (const float *)scales, corrections};
}

/* Quantise one block; returns its scale, max|x| / 127. */
static float quantise_block(const float *x, int8_t *quants) {
    vf largest = vf_zero();
    for (int i = 0; i < BLOCK; i += LANES)
        largest = vf_max(largest, vf_absolute(vf_load(x + i)));
    float scale = vf_largest(largest) / 127;
    float inverse = scale > 0 ? 1 / scale : 0;
    const vf magic = vf_set(12582912.0f);
    int32_t whole[BLOCK];
    for (int i = 0; i < BLOCK; i += LANES) {
        vf scaled = vf_load(x + i) * vf_set(inverse);
        scaled = vf_max(vf_min(scaled, vf_set(127)), vf_set(-127)); /* also turns what is not finite into a number */
        vi rounded = (vi)(scaled + magic) - (vi)magic;
        memcpy(whole + i, &rounded, sizeof rounded);
    }
    for (int i = 0; i < BLOCK; i++)
        quants[i] = (int8_t)whole[i];
    return scale;
}

static void quantise_row(const float *x, int64_t k, char *rows, int64_t index) {
    int8_row row = int8_row_at(rows, k, index);
    int8_t *quants = (int8_t *)row.quants;
    float *scales = (float *)row.scales;
    int32_t *corrections = (int32_t *)row.corrections;
    int64_t blocks = k / BLOCK, padded = int8_row_blocks(k);
    for (int64_t b = 0; b < blocks; b++) {
        scales[b] = quantise_block(x + b * BLOCK, quants + b * BLOCK);
        int32_t sum = 0;
        for (int i = 0; WEIGHT_BIAS && i < BLOCK; i++)
            sum -= WEIGHT_BIAS * quants[b * BLOCK + i];
        corrections[b] = sum;
    }
    memset(quants + k, 0, PADDING);
    memset(scales + blocks, 0, (size_t)(padded - blocks) * 4);
    memset(corrections + blocks, 0, (size_t)(padded - blocks) * 4);
}

typedef struct {
    const float *x;
    char *rows;
    int64_t count, k, step;
} quantise_job;

static void quantise_task(void *context, int64_t chunk, int worker) {
    const quantise_job *job = context;
    (void)worker;
    int64_t end = omni_min((chunk + 1) * job->step, job->count);
    for (int64_t t = chunk * job->step; t < end; t++)
        quantise_row(job->x + t * job->k, job->k, job->rows, t);
}

/* Quantise `count` rows into scratch `slot`; returns NULL when there is no memory. */
static const char *quantise_rows(omni_pool *pool, int slot, const float *x, int64_t count, int64_t k) {
    char *rows = omni_scratch(pool, slot, (size_t)(count * int8_row_bytes(k)));
    if (!rows)
        return NULL;
    quantise_job job = {x, rows, count, k, omni_max(1, 16384 / omni_max(k, 1))};
    omni_parallel(pool, quantise_task, &job, omni_divide_up(count, job.step));
    return rows;
}
