/* Choosing tokens. Compiled once per level. */

/* argmax: the run of values with the largest is remembered, so that it alone is searched again. Uniforms: T, N */
enum { ARGMAX_RUN = 1024 };
static void argmax_rows(const omni_call *call, int64_t begin, int64_t end) {
    int64_t n = call->uniforms[1].i;
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)call->planes[0] + t * n;
        float largest = x[0];
        int64_t best = 0;
        for (int64_t at = 0; at < n; at += ARGMAX_RUN) {
            int64_t count = omni_min(ARGMAX_RUN, n - at);
            vf most = vf_set(x[at]);
            VECTORS(count, most = vf_max(most, vf_load(x + at + i)), for (; i < count; i++) most = vf_max(most, vf_set(x[at + i])));
            float top = vf_largest(most);
            if (top > largest) {
                largest = top;
                best = at;
            }
        }
        while (best < n - 1 && !(x[best] == largest))
            best++;
        ((int32_t *)call->outputs[0])[t] = (int32_t)best;
    }
}
static int argmax(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i, call->uniforms[1].i, argmax_rows);
}

/* penalise; items are values, as there is often one row of many. Uniforms: T, V, penalty */
static void penalise_values(const omni_call *call, int64_t begin, int64_t end) {
    int64_t v = call->uniforms[1].i;
    float penalty = (float)call->uniforms[2].f;
    const float *x = call->planes[0], *bias = call->planes[2];
    const int32_t *seen = call->planes[1];
    float *y = call->outputs[0];
    for (int64_t row = begin / v * v; row < end; row += v)
        for (int64_t i = omni_max(begin, row); i < omni_min(end, row + v); i++) {
            float moved = x[i] < 0 ? x[i] * penalty : x[i] / penalty;
            y[i] = (seen[i - row] > 0 ? moved : x[i]) + bias[i - row];
        }
}
static int penalise(const omni_call *call, omni_pool *pool) {
    return each_range(call, pool, call->uniforms[0].i * call->uniforms[1].i, 1, penalise_values);
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

/* advance. Uniforms: R, A */
static int advance(const omni_call *call, omni_pool *pool) {
    int32_t *tokens = call->planes[0];
    (void)pool;
    memmove(tokens + 1, tokens, (size_t)(call->uniforms[0].i - 1) * sizeof *tokens);
    *tokens = *(const int32_t *)call->planes[3];
    for (int64_t i = 0; i < call->uniforms[1].i; i++)
        ((float *)call->planes[1])[i] += 1;
    *(int32_t *)call->planes[2] += 1;
    return OMNI_DONE;
}

/* put. Uniforms: K, at */
static int put(const omni_call *call, omni_pool *pool) {
    (void)pool;
    if (call->uniforms[1].i < 0 || call->uniforms[1].i >= call->uniforms[0].i)
        return OMNI_BAD_INDEX;
    ((int32_t *)call->planes[0])[call->uniforms[1].i] = *(const int32_t *)call->planes[1];
    return OMNI_DONE;
}

/* A number in [0, 1) with 24 random bits, a hash of its four words; the same as `uniform` in ops/sampling.py. */
static double uniform_of(uint32_t seed, uint32_t counter, uint32_t salt, uint32_t row) {
    const uint32_t words[4] = {seed, counter, salt, row};
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        value = (value ^ words[i]) + 0x9E3779B9u;
        value = (value ^ value >> 16) * 0x7FEB352Du;
        value = (value ^ value >> 15) * 0x846CA68Bu;
        value ^= value >> 16;
    }
    return (value >> 8) / 16777216.0;
}

/* The k-th largest of n values, by a heap of the k largest so far, the least of them on top; `heap` has room for k. */
static double kth_largest(const double *values, int64_t n, int64_t k, double *heap) {
    int64_t size = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at;
        double value = values[i];
        if (size < k) {
            for (at = size++; at && heap[(at - 1) / 2] > value; at = (at - 1) / 2)
                heap[at] = heap[(at - 1) / 2];
        } else {
            if (!(value > heap[0]))
                continue;
            at = 0;
            for (int64_t child; (child = 2 * at + 1) < k; at = child) {
                if (child + 1 < k && heap[child + 1] < heap[child])
                    child++;
                if (heap[child] >= value)
                    break;
                heap[at] = heap[child];
            }
        }
        heap[at] = value;
    }
    return heap[0];
}

typedef struct {
    double value, weight;
    int64_t id;
} candidate;

static int by_falling_value(const void *a, const void *b) {
    double x = ((const candidate *)a)->value, y = ((const candidate *)b)->value;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Zero the weights of ids outside the nucleus: those whose larger values hold `top_p` of the sum already. */
static void cut_nucleus(const double *values, double *weights, int64_t n, double top_p, candidate *kept) {
    int64_t count = 0;
    double sum = 0, above = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += weights[i];
        if (weights[i] > 0)
            kept[count++] = (candidate){values[i], weights[i], i};
    }
    qsort(kept, (size_t)count, sizeof *kept, by_falling_value);
    for (int64_t i = 0; i < count;) {
        int64_t end = i;
        double equals = 0;
        for (; end < count && kept[end].value == kept[i].value; end++) {
            equals += kept[end].weight;
            if (i && above >= top_p * sum)
                weights[kept[end].id] = 0;
        }
        above += equals;
        i = end;
    }
}

/* sample. Uniforms: T, V, temperature, top_k, top_p, salt */
static int sample(const omni_call *call, omni_pool *pool) {
    const omni_value *u = call->uniforms;
    int64_t n = u[1].i, top_k = u[3].i;
    double temperature = u[2].f, top_p = u[4].f;
    int cut = top_k > 0 && top_k < n;
    double *values = omni_scratch(pool, 0, (size_t)(2 * n + (cut ? top_k : 0)) * sizeof *values);
    candidate *kept = top_p < 1 ? omni_scratch(pool, 1, (size_t)n * sizeof *kept) : NULL;
    if (!values || (top_p < 1 && !kept))
        return OMNI_NO_MEMORY;
    double *weights = values + n, *heap = weights + n;
    for (int64_t t = 0; t < u[0].i; t++) {
        const float *logits = (const float *)call->planes[0] + t * n;
        double largest = -INFINITY, total = 0;
        for (int64_t i = 0; i < n; i++) {
            values[i] = logits[i] / temperature;
            largest = values[i] > largest ? values[i] : largest;
        }
        double least = cut ? kth_largest(values, n, top_k, heap) : -INFINITY;
        for (int64_t i = 0; i < n; i++)
            weights[i] = values[i] >= least ? exp(values[i] - largest) : 0;
        if (top_p < 1)
            cut_nucleus(values, weights, n, top_p, kept);
        for (int64_t i = 0; i < n; i++)
            total += weights[i];
        const int32_t *seed = call->planes[1], *counter = call->planes[2];
        double draw = uniform_of((uint32_t)*seed, (uint32_t)*counter, (uint32_t)u[5].i, (uint32_t)t) * total, sum = 0;
        int64_t chosen = 0;
        for (int64_t i = 0; i < n; i++) {
            if (!(weights[i] > 0))
                continue;
            chosen = i;
            sum += weights[i];
            if (sum > draw)
                break;
        }
        ((int32_t *)call->outputs[0])[t] = (int32_t)chosen;
    }
    return OMNI_DONE;
}
