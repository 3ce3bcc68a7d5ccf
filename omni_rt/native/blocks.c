/* Weights on their way to q8_0: quantising them as files do, and taking GGUF blocks apart into planes.
 *
 * Both write block b's quants at quants + b * quant_stride and its scale at scales + b * scale_stride, bytes: 32 and 2
 * for planes, 34 and 34 for the blocks of a file (quants two bytes behind the scales). */

typedef struct {
    const char *source;
    int8_t *quants;
    char *scales;
    int64_t blocks, quant_stride, scale_stride;
    int infinite;
} weight_job;

enum { TASK_BLOCKS = 4096 };

/* Quantise one block, bit for bit as the reference quantiser: quants are rounded half away from zero, and only then is
 * the scale rounded to f16. Returns 0 when a value or the scale is not finite there. */
INLINE int quantise_weights(const float *x, int8_t *quants, char *stored) {
    const vi exponent = vi_set(0x7f800000);
    vf largest = vf_zero();
    vi special = vi_set(0);
    for (int i = 0; i < BLOCK; i += LANES) {
        vf values = vf_load(x + i);
        largest = vf_max(largest, vf_absolute(values));
        special |= ((vi)values & exponent) == exponent;
    }
    float scale = vf_largest(largest) / 127;
    float inverse = 1 / scale;
    if (!(inverse <= 0x1.fffffep127f)) /* zeros, or values so small that their scale is 0 in f16 */
        inverse = 0;
    int32_t whole[BLOCK];
    for (int i = 0; i < BLOCK; i += LANES) {
        vf values = vf_load(x + i);
        vf magnitude = vf_absolute(values * vf_set(inverse));
        vi below = __builtin_convertvector(magnitude, vi);
        /* Compared, not subtracted: a product and a difference could become one instruction that rounds once. */
        vi rounded = below - (vi)(magnitude >= vf_from_int(below) + vf_set(0.5f));
        vi negative = (vi)values >> 31;
        rounded = (rounded ^ negative) - negative;
        memcpy(whole + i, &rounded, sizeof rounded);
    }
    for (int i = 0; i < BLOCK; i++)
        quants[i] = (int8_t)whole[i];
    uint16_t half = half_bits(scale);
    memcpy(stored, &half, sizeof half);
    int unfit = (half & 0x7c00) == 0x7c00;
    for (int i = 0; i < LANES; i++)
        unfit |= special[i];
    return !unfit;
}

/* The 32 values of a block as f32; `kind` is 0 for f32, 1 for f16, 2 for bf16. */
INLINE const float *widen_block(const char *source, int64_t block, int kind, float *values) {
    if (kind == 0) {
        memcpy(values, source + block * BLOCK * 4, BLOCK * 4);
        return values;
    }
    uint16_t halves[BLOCK];
    memcpy(halves, source + block * BLOCK * 2, sizeof halves);
    for (int i = 0; kind == 1 && i < BLOCK; i += LANES)
        vf_store(values + i, vf_load_half(halves + i));
    for (int i = 0; kind == 2 && i < BLOCK; i++) {
        uint32_t bits = (uint32_t)halves[i] << 16;
        memcpy(values + i, &bits, 4);
    }
    return values;
}

INLINE void quantise_chunk(void *context, int64_t chunk, int kind) {
    weight_job *job = context;
    int64_t end = omni_min((chunk + 1) * TASK_BLOCKS, job->blocks);
    int fine = 1;
    for (int64_t b = chunk * TASK_BLOCKS; b < end; b++) {
        float values[BLOCK];
        widen_block(job->source, b, kind, values);
        fine &= quantise_weights(values, job->quants + b * job->quant_stride, job->scales + b * job->scale_stride);
    }
    if (!fine)
        __atomic_store_n(&job->infinite, 1, __ATOMIC_RELAXED);
}

static void quantise_f32_task(void *context, int64_t chunk, int worker) {
    (void)worker;
    quantise_chunk(context, chunk, 0);
}
static void quantise_f16_task(void *context, int64_t chunk, int worker) {
    (void)worker;
    quantise_chunk(context, chunk, 1);
}
static void quantise_bf16_task(void *context, int64_t chunk, int worker) {
    (void)worker;
    quantise_chunk(context, chunk, 2);
}

static void split_task(void *context, int64_t chunk, int worker) {
    weight_job *job = context;
    (void)worker;
    int64_t end = omni_min((chunk + 1) * TASK_BLOCKS, job->blocks);
    int infinite = 0;
    for (int64_t b = chunk * TASK_BLOCKS; b < end; b++) {
        const char *block = job->source + b * (BLOCK + 2);
        uint16_t scale;
        memcpy(&scale, block, 2);
        infinite |= (scale & 0x7c00) == 0x7c00;
        memcpy(job->scales + b * 2, &scale, 2);
        memcpy(job->quants + b * BLOCK, block + 2, BLOCK);
    }
    if (infinite)
        __atomic_store_n(&job->infinite, 1, __ATOMIC_RELAXED);
}

/* planes: the source; outputs: quants, scales; uniforms: blocks, quant_stride, scale_stride. */
static int run_weights(const omni_call *call, omni_pool *pool, omni_task *task) {
    weight_job job = {call->planes[0], call->outputs[0], call->outputs[1], call->uniforms[0].i, call->uniforms[1].i,
                      call->uniforms[2].i, 0};
    omni_parallel(pool, task, &job, omni_divide_up(job.blocks, TASK_BLOCKS));
    return job.infinite ? OMNI_BAD_VALUE : OMNI_DONE;
}

static int quantise_f32(const omni_call *call, omni_pool *pool) { return run_weights(call, pool, quantise_f32_task); }
static int quantise_f16(const omni_call *call, omni_pool *pool) { return run_weights(call, pool, quantise_f16_task); }
static int quantise_bf16(const omni_call *call, omni_pool *pool) { return run_weights(call, pool, quantise_bf16_task); }
static int split_blocks(const omni_call *call, omni_pool *pool) { return run_weights(call, pool, split_task); }

/* Round values to f16. planes: the source; outputs: the halves; uniforms: values. */
INLINE void halve_chunk(void *context, int64_t chunk, int kind) {
    weight_job *job = context;
    int64_t end = omni_min((chunk + 1) * TASK_BLOCKS, job->blocks);
    uint16_t *halves = (uint16_t *)job->scales;
    vi special = vi_set(0);
    for (int64_t b = chunk * TASK_BLOCKS; b < end; b++) {
        float values[BLOCK] = {0};
        uint16_t rounded[BLOCK];
        int64_t count = omni_min(BLOCK, job->quant_stride - b * BLOCK);
        if (count == BLOCK)
            widen_block(job->source, b, kind, values);
        for (int64_t i = 0; count < BLOCK && i < count; i++) {
            uint32_t bits = 0;
            int size = kind ? 2 : 4;
            memcpy((char *)&bits + (4 - size), job->source + (b * BLOCK + i) * size, (size_t)size);
            memcpy(values + i, &bits, 4);
        }
        for (int i = 0; i < BLOCK; i += LANES) {
            vf x = vf_load(values + i);
            special |= ~(vf_absolute(x) < vf_set(65520.0f));
            vf_store_half(rounded + i, x);
        }
        memcpy(halves + b * BLOCK, rounded, (size_t)count * 2);
    }
    for (int i = 0; i < LANES; i++)
        if (special[i])
            __atomic_store_n(&job->infinite, 1, __ATOMIC_RELAXED);
}
static void halve_f32_task(void *context, int64_t chunk, int worker) {
    (void)worker;
    halve_chunk(context, chunk, 0);
}
static void halve_bf16_task(void *context, int64_t chunk, int worker) {
    (void)worker;
    halve_chunk(context, chunk, 2);
}
static int run_halves(const omni_call *call, omni_pool *pool, omni_task *task) {
    int64_t count = call->uniforms[0].i;
    weight_job job = {call->planes[0], NULL, call->outputs[0], omni_divide_up(count, BLOCK), count, 0, 0};
    omni_parallel(pool, task, &job, omni_divide_up(job.blocks, TASK_BLOCKS));
    return job.infinite ? OMNI_BAD_VALUE : OMNI_DONE;
}
static int halve_f32(const omni_call *call, omni_pool *pool) { return run_halves(call, pool, halve_f32_task); }
static int halve_bf16(const omni_call *call, omni_pool *pool) { return run_halves(call, pool, halve_bf16_task); }
