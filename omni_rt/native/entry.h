/* What Python calls; build.py declares the same to cffi. */
#ifndef OMNI_ENTRY_H
#define OMNI_ENTRY_H

#include <stddef.h>
#include <stdint.h>

struct omni_pool;

/* An extent or attribute of a call. */
typedef union {
    int64_t i;
    double f;
} omni_value;

/* Return the digest of the C files that this module was built from. */
const char *omni_built_from(void);

int omni_level_count(void);
const char *omni_level_name(int index);
int omni_level_supported(int index);

/* Return a pool of `threads` at a level ("" takes the best), or NULL when the level is not supported here. */
struct omni_pool *omni_pool_new(int threads, const char *level);
void omni_pool_free(struct omni_pool *pool);
const char *omni_pool_level(const struct omni_pool *pool);
int omni_pool_threads(const struct omni_pool *pool);

/* Return the body of that name at the pool's level, or NULL. */
const void *omni_find(const struct omni_pool *pool, const char *name);

/* Run a body; returns 0, or a reason why it did not run (omni.h). */
int omni_run(struct omni_pool *pool, const void *body, void *const *planes, void *const *outputs,
             const omni_value *uniforms);

/* A call of a captured CPU step; a `body` of NULL is one that C does not take. */
typedef struct {
    const void *body;
    void *const *planes;
    void *const *outputs;
    const omni_value *uniforms;
} omni_step;

/* Run steps [at, end) in order; returns the index of the first that did not run, or `end`. */
int64_t omni_run_steps(struct omni_pool *pool, const omni_step *steps, int64_t at, int64_t end);

/* One dispatch of a captured GPU step, and the addresses of wgpu-native's functions that submit it. */
typedef struct {
    uintptr_t pipeline, group;
    uint32_t x, y, z, unused;
} omni_dispatch;
typedef struct {
    uintptr_t create_encoder, begin_pass, set_pipeline, set_group, dispatch, end_pass, release_pass, finish,
        release_encoder, submit, release_commands;
} omni_replay_functions;

/* Submit dispatches in order, one compute pass per submission: `piece` of them first, then twice as many each time.
   Returns the number of submissions. */
int64_t omni_replay(const omni_replay_functions *functions, uintptr_t device, uintptr_t queue,
                    const omni_dispatch *dispatches, int64_t count, int64_t piece);

#endif
