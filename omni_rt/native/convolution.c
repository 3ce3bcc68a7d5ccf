/* Convolutions: products of windows of rows with the kernels. Compiled once per level.
 *
 * The rows of a window are equal runs a dilation apart, in the tail or in x; product.c gathers them for the rows of a tile:
 * nothing is unfolded as a whole. Slots: 1 row pointers, 2 the padded image, 0 what weights or bias become.
 */

/* `count` weights from `start` on as float. */
static void widen(weight_rows w, int64_t start, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) {
        int64_t at = start + i;
        to[i] = w.kind == WEIGHT_F32 ? ((const float *)w.values)[at] : half_value(((const uint16_t *)w.values)[at]);
    }
}

/* Few outputs, or one channel per group: `w` widened, one output row at a time. */
typedef struct {
    float_source from;
    const float *w, *b;
    int64_t count, n, taps, channels, step;
    float *y;
} direct_job;

/* y[u][c] = b[c] + sum_j w[j][c] * source[u][j][c] */
static void depthwise_task(void *context, int64_t chunk, int worker) {
    const direct_job *job = context;
    (void)worker;
    int64_t end = omni_min((chunk + 1) * job->step, job->count), c = job->n;
    for (int64_t u = chunk * job->step; u < end; u++) {
        float *y = job->y + u * c;
        memcpy(y, job->b, (size_t)c * sizeof *y);
        for (int64_t j = 0; j < job->taps; j++) {
            const float *x = source_piece(&job->from, u, j), *w = job->w + j * c;
            if (x)
                VECTORS(c, vf_store(y + i, vf_fma(vf_load(x + i), vf_load(w + i), vf_load(y + i))),
                        for (; i < c; i++) y[i] += x[i] * w[i]);
        }
    }
}

/* y[u][n] = b[n] + sum_j w[n][j] . source[u][j] */
static void narrow_task(void *context, int64_t chunk, int worker) {
    const direct_job *job = context;
    (void)worker;
    int64_t end = omni_min((chunk + 1) * job->step, job->count), k = job->channels;
    for (int64_t u = chunk * job->step; u < end; u++)
        for (int64_t n = 0; n < job->n; n++) {
            vf sum = vf_zero();
            for (int64_t j = 0; j < job->taps; j++) {
                const float *x = source_piece(&job->from, u, j), *w = job->w + (n * job->taps + j) * k;
                if (x)
                    VECTORS(k, sum = vf_fma(vf_load(x + i), vf_load(w + i), sum),
                            sum = vf_fma(vf_load_part(x + i, left), vf_load_part(w + i, left), sum));
            }
            job->y[u * job->n + n] = job->b[n] + vf_sum(sum);
        }
}

/* conv1d. Uniforms: T, C, P, N, J, I, stride, dilation, right, as_rows */
static int conv1d_kind(const omni_call *call, omni_pool *pool, weight_kind kind) {
    const omni_value *u = call->uniforms;
    int64_t t = u[0].i, c = u[1].i, p = u[2].i, n = u[3].i, taps = u[4].i, inputs = u[5].i;
    int64_t stride = u[6].i, dilation = u[7].i, right = u[8].i, reach = p + t + right - (taps - 1) * dilation;
    if (reach <= 0)
        return OMNI_BAD_INDEX;
    int64_t count = (reach - 1) / stride + 1, groups = c / inputs;
    weight_rows w = {kind, call->planes[2], NULL, taps * inputs};
    const float *b = call->planes[3];
    float_source from = {.pieces = taps, .length = inputs, .x = call->planes[0], .tail = call->planes[1], .before = p,
                         .t = t, .width = c, .row_step = stride, .tap_step = dilation};
    int depthwise = inputs == 1 && groups == n, narrow = groups == 1 && n < LANES;
    if (depthwise || narrow) {
        float *wide = omni_scratch(pool, 0, (size_t)(n * taps * inputs) * sizeof *wide);
        if (!wide)
            return OMNI_NO_MEMORY;
        for (int64_t i = 0; depthwise && i < n; i++)
            for (int64_t j = 0; j < taps; j++)
                widen(w, i * taps + j, 1, wide + j * n + i);
        if (!depthwise)
            widen(w, 0, n * taps * inputs, wide);
        direct_job job = {from, wide, b, count, n, taps, inputs, 1, call->outputs[0]};
        job.step = omni_max(1, WORTHWHILE / omni_max(n * taps * inputs, 1));
        omni_parallel(pool, depthwise ? depthwise_task : narrow_task, &job, omni_divide_up(count, job.step));
        return OMNI_DONE;
    }
    int64_t per_group = n / groups;
    for (int64_t group = 0; group < groups; group++) {
        float *y = (float *)call->outputs[0] + group * per_group;
        float_product product = {weight_from(w, group * per_group), per_group, count, from, y, n, b + group * per_group, 0};
        int status = float_product_as(pool, &product, u[9].i);
        if (status != OMNI_DONE)
            return status;
        from.x += inputs;
        from.tail += inputs;
    }
    return OMNI_DONE;
}

/* conv_transpose1d. Uniforms: T, C, P, M, N, Q, as_rows */
static int conv_transpose1d_kind(const omni_call *call, omni_pool *pool, weight_kind kind) {
    const omni_value *u = call->uniforms;
    int64_t t = u[0].i, c = u[1].i, p = u[2].i, phases = u[3].i, n = u[4].i, taps = u[5].i;
    if (p + 1 < taps)
        return OMNI_BAD_INDEX;
    weight_rows w = {kind, call->planes[2], NULL, taps * c};
    float *bias = omni_scratch(pool, 0, (size_t)(phases * n) * sizeof *bias);
    if (!bias)
        return OMNI_NO_MEMORY;
    for (int64_t phase = 0; phase < phases; phase++)
        memcpy(bias + phase * n, call->planes[3], (size_t)n * sizeof *bias);
    float_source from = {.pieces = taps, .length = c, .x = call->planes[0], .tail = call->planes[1], .before = p, .t = t,
                         .width = c, .row_step = 1, .tap_step = 1};
    float_product product = {w, phases * n, t, from, call->outputs[0], phases * n, bias, 0};
    return float_product_as(pool, &product, u[6].i);
}

/* conv2d. Uniforms: B, H, W, C, N, J, L, stride, pad */
static int conv2d_kind(const omni_call *call, omni_pool *pool, weight_kind kind) {
    const omni_value *u = call->uniforms;
    int64_t images = u[0].i, h = u[1].i, wide = u[2].i, c = u[3].i, n = u[4].i, tall = u[5].i, across = u[6].i;
    int64_t stride = u[7].i, pad = u[8].i, rows = h + 2 * pad, columns = wide + 2 * pad;
    if (rows < tall || columns < across)
        return OMNI_BAD_INDEX;
    const float *x = call->planes[0];
    if (pad) {
        float *padded = omni_scratch(pool, 2, (size_t)(images * rows * columns * c) * sizeof *padded);
        if (!padded)
            return OMNI_NO_MEMORY;
        memset(padded, 0, (size_t)(images * rows * columns * c) * sizeof *padded);
        for (int64_t i = 0; i < images * h; i++)
            memcpy(padded + ((i / h * rows + i % h + pad) * columns + pad) * c, x + i * wide * c,
                   (size_t)(wide * c) * sizeof *padded);
        x = padded;
    }
    int64_t down = (rows - tall) / stride + 1, right = (columns - across) / stride + 1, count = images * down * right;
    const float **pointers = omni_scratch(pool, 1, (size_t)count * sizeof *pointers);
    if (!pointers)
        return OMNI_NO_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        int64_t image = i / (down * right), row = i / right % down, column = i % right;
        pointers[i] = x + ((image * rows + row * stride) * columns + column * stride) * c;
    }
    weight_rows w = {kind, call->planes[1], NULL, tall * across * c};
    float_source from = {.pieces = tall, .length = across * c, .rows = pointers, .stride = columns * c};
    float_product product = {w, n, count, from, call->outputs[0], n, call->planes[2], 0};
    return float_product_run(pool, &product);
}

#define KINDS(name)                                                                                                    \
    static int name##_f32(const omni_call *call, omni_pool *pool) { return name##_kind(call, pool, WEIGHT_F32); }      \
    static int name##_f16(const omni_call *call, omni_pool *pool) { return name##_kind(call, pool, WEIGHT_F16); }
KINDS(conv1d)
KINDS(conv_transpose1d)
KINDS(conv2d)
#undef KINDS
