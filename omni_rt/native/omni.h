/* The calling convention of every C body, the thread pool, and the table of bodies per dispatch level.
 *
 * A body computes one op for one combination of dtypes. It gets the planes of the operands in signature order (q8_0:
 * quants, then scales), the outputs, and the extents and attributes that its declaration lists as `uniforms`. It runs
 * on a pool, which also lends it scratch memory. The files of bodies (matmul.c, attention.c, ...) are compiled once per
 * level: each level_*.c includes one simd_*.h and then all of them.
 */
#ifndef OMNI_H
#define OMNI_H

#include <math.h>
#include <stdlib.h>

#include "entry.h"

typedef struct {
    void *const *planes;
    void *const *outputs;
    const omni_value *uniforms;
} omni_call;

/* What a body returns: anything but OMNI_DONE leaves the outputs undefined and the call to NumPy. */
enum { OMNI_DONE = 0, OMNI_NO_MEMORY = 1, OMNI_BAD_INDEX = 2, OMNI_BAD_VALUE = 3, OMNI_TOO_WIDE = 4 };

typedef struct omni_pool omni_pool;
typedef int omni_body(const omni_call *call, omni_pool *pool);
typedef void omni_task(void *context, int64_t chunk, int worker);

typedef struct {
    const char *name;
    omni_body *body;
} omni_entry;

typedef struct {
    const char *name;
    int (*supported)(void);
    const omni_entry *entries;
    int count;
} omni_level;

/* Run `task` once for each chunk in [0, chunks), in any order, on all threads; the caller is worker 0. */
void omni_parallel(omni_pool *pool, omni_task *task, void *context, int64_t chunks);

/* Number of threads, the caller included. */
int omni_threads(const omni_pool *pool);

/* Scratch memory, 64-byte aligned, valid until the body returns; NULL when there is none. A slot is lent once per call;
 * growing one drops its content. */
enum { OMNI_SLOTS = 4 };
void *omni_scratch(omni_pool *pool, int slot, size_t bytes);

/* The same for every worker: `omni_worker(pool, worker)` is then that worker's own part. Returns 0 when there is none. */
int omni_reserve_workers(omni_pool *pool, size_t bytes);
void *omni_worker(const omni_pool *pool, int worker);

/* Levels, best first, of this build; the list ends with NULL. */
extern const omni_level *const omni_levels[];

static inline int64_t omni_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t omni_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t omni_max(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
