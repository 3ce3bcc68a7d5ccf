/* Choosing tokens. Compiled once per level. */

/* argmax. Uniforms: T, N */
static void argmax_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n;
        vf most = vf_set(x[0]);
        VECTORS(n, most = vf_max(most, vf_load(x + i)), for (; i < n; i++) most = vf_max(most, vf_set(x[i])));
        float largest = vf_largest(most);
        int64_t best = 0;
        while (best < n - 1 && !(x[best] == largest))
            best++;
        ((int32_t *)call->outputs[0])[t] = (int32_t)best;
    }
}
static int argmax(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, argmax_rows);
}

/* penalise. Uniforms: T, V, penalty */
static void penalise_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t v = call->uniforms[1].i;
    float penalty = (float)call->uniforms[2].f;
    const int32_t *seen = call->planes[1];
    const float *bias = call->planes[2];
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * v;
        float *y = (float *)call->outputs[0] + t * v;
        for (int64_t i = 0; i < v; i++) {
            float moved = x[i] < 0 ? x[i] * penalty : x[i] / penalty;
            y[i] = (seen[i] > 0 ? moved : x[i]) + bias[i];
        }
    }
}
static int penalise(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, penalise_rows);
}

/* mark. Uniforms: V, T */
static int mark(const omni_call *call, omni_pool *pool) {
    int32_t *seen = call->planes[0];
    const int32_t *ids = call->planes[1];
    (void)pool;
    if (!all_below(ids, call->uniforms[1].i, 0, call->uniforms[0].i))
        return OMNI_BAD_INDEX;
    for (int64_t t = 0; t < call->uniforms[1].i; t++)
        seen[ids[t]] = 1;
    return OMNI_DONE;
}

/* advance. Uniforms: A */
static int advance(const omni_call *call, omni_pool *pool) {
    (void)pool;
    *(int32_t *)call->planes[0] = *(const int32_t *)call->planes[3];
    for (int64_t i = 0; i < call->uniforms[0].i; i++)
        ((float *)call->planes[1])[i] += 1;
    *(int32_t *)call->planes[2] += 1;
    return OMNI_DONE;
}
