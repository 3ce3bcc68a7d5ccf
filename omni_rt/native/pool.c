/* The thread pool: persistent workers that share the chunks of one task at a time.
 *
 * Each thread claims the chunks of its share by an atomic counter, and then those that others have left, so a worker
 * whose core was taken away delays only the chunk it holds, and the caller never waits for a worker that has not joined.
 * When waiting for a worker costs more than it gives, one fewer takes part for a while: another process wants its core,
 * and its time slices would have to be waited out. Workers spin for a bounded time after a task, because the next one
 * usually follows within microseconds, and then sleep on a condition variable.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "omni.h"

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

#define OPEN ((uint64_t)1 << 31)
#define ACTIVE (OPEN - 1)
#define LINE 64

enum { WORKER_SPIN_NANOSECONDS = 60000, CALLER_SPIN_NANOSECONDS = 40000, SPIN_BATCH = 32 };

/* A wait for workers is a stall when it passes this and several chunks. Stalls are paid from what the worker has saved,
 * of which MOST_CREDIT is kept; nanoseconds. */
enum { STALL_NANOSECONDS = 200000, STALL_CHUNKS = 4, MOST_CREDIT = 20000000 };
enum { SHORTEST_PAUSE = 10000000, LONGEST_PAUSE = 320000000 };

typedef struct {
    omni_pool *pool;
    pthread_t thread;
    int index;
} worker_t;

/* The chunks that a thread takes first: a run, so that what it reads lies together. Others take what is left of it. */
typedef struct {
    _Alignas(LINE) atomic_int_fast64_t next;
    int64_t end;
} share_t;

struct omni_pool {
    int threads;
    const omni_level *level;
    worker_t *workers;
    pthread_mutex_t call;    /* held by the one caller that runs a body */
    pthread_mutex_t lock;    /* guards the conditions */
    pthread_cond_t wake;     /* a task was opened, or the pool stops */
    pthread_cond_t back;     /* a worker sent away may take part again, or the pool stops */
    pthread_cond_t left;     /* the last worker left a closed task */
    omni_task *task;
    void *context;
    share_t *shares;
    int sharing;
    int64_t credit;            /* nanoseconds that a worker has saved, less those that were waited for it */
    int64_t pause, pause_ends; /* nanoseconds: how long the last worker sent away stays away, and until when */
    void *slots[OMNI_SLOTS];
    size_t slot_bytes[OMNI_SLOTS];
    char *worker_memory;
    size_t worker_stride;
    _Alignas(LINE) atomic_uint_fast64_t gate; /* epoch in the upper half, OPEN, workers that joined */
    _Alignas(LINE) atomic_int sleepers;
    atomic_int caller_sleeps;
    atomic_int taking_part; /* threads below this index claim chunks */
    atomic_int stop;
};

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Claim and run chunks until none is left; returns how many. */
static int64_t run_chunks(omni_pool *pool, int worker) {
    int64_t count = 0;
    for (int i = 0; i < pool->sharing; i++) {
        share_t *share = &pool->shares[(worker + i) % pool->sharing];
        while (atomic_load_explicit(&share->next, memory_order_relaxed) < share->end) {
            int64_t chunk = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
            if (chunk >= share->end)
                break;
            pool->task(pool->context, chunk, worker);
            count++;
        }
    }
    return count;
}

static int has_news(const worker_t *self, uint64_t epoch) {
    omni_pool *pool = self->pool;
    uint64_t gate = atomic_load(&pool->gate);
    int invited = (gate & OPEN) && gate >> 32 != epoch && self->index < atomic_load(&pool->taking_part);
    return invited || atomic_load(&pool->stop);
}

/* Wait until a task of another epoch is open: spin, then sleep. */
static void wait_for_task(const worker_t *self, uint64_t epoch) {
    omni_pool *pool = self->pool;
    int64_t deadline = now() + WORKER_SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < SPIN_BATCH; i++) {
            if (has_news(self, epoch))
                return;
            PAUSE();
        }
    } while (now() < deadline);
    pthread_mutex_lock(&pool->lock);
    while (!has_news(self, epoch)) {
        if (self->index >= atomic_load(&pool->taking_part)) {
            pthread_cond_wait(&pool->back, &pool->lock);
            continue;
        }
        atomic_fetch_add(&pool->sleepers, 1);
        if (!has_news(self, epoch)) /* again: a task opened before the count rose would not wake this worker */
            pthread_cond_wait(&pool->wake, &pool->lock);
        atomic_fetch_sub(&pool->sleepers, 1);
    }
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *argument) {
    worker_t *self = argument;
    omni_pool *pool = self->pool;
    uint64_t epoch = 0;
    for (;;) {
        wait_for_task(self, epoch);
        if (atomic_load(&pool->stop))
            return NULL;
        uint64_t gate = atomic_load(&pool->gate);
        if (!(gate & OPEN) || gate >> 32 == epoch)
            continue;
        if (!atomic_compare_exchange_strong(&pool->gate, &gate, gate + 1))
            continue;
        epoch = gate >> 32;
        run_chunks(pool, self->index);
        gate = atomic_fetch_sub(&pool->gate, 1) - 1;
        if (!(gate & (OPEN | ACTIVE)) && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->left);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

/* Wait until every worker that joined the closed task has left it. */
static void wait_for_workers(omni_pool *pool) {
    int64_t deadline = 0;
    for (int i = 0; atomic_load(&pool->gate) & ACTIVE; i++) {
        PAUSE();
        if (i % SPIN_BATCH)
            continue;
        if (!deadline)
            deadline = now() + CALLER_SPIN_NANOSECONDS;
        if (now() < deadline)
            continue;
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->caller_sleeps, 1);
        while (atomic_load(&pool->gate) & ACTIVE)
            pthread_cond_wait(&pool->left, &pool->lock);
        atomic_store(&pool->caller_sleeps, 0);
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Send one worker away when waits have used up the credit; `own` chunks took the caller from `started` to `finished`.
 *
 * With one thread fewer a task of n threads takes 1 / (n - 1) longer, and half of that where they share the memory's
 * bandwidth. */
static void judge_wait(omni_pool *pool, int64_t started, int64_t finished, int64_t own) {
    int64_t end = now(), worked = finished - started, wait = end - finished;
    if (wait < STALL_NANOSECONDS + STALL_CHUNKS * worked / omni_max(own, 1))
        wait = 0;
    pool->credit = omni_min(pool->credit + worked / (2 * (pool->sharing - 1)) - wait, MOST_CREDIT);
    if (pool->credit >= 0)
        return;
    pool->credit = 0;
    pool->pause = pool->pause ? omni_min(2 * pool->pause, LONGEST_PAUSE) : SHORTEST_PAUSE;
    pool->pause_ends = end + pool->pause;
    if (atomic_load(&pool->taking_part) > 1)
        atomic_fetch_sub(&pool->taking_part, 1);
}

/* Let a worker back whose pause is over; a pause without a further stall makes the next one short again. */
static void end_pause(omni_pool *pool, int64_t time) {
    if (!pool->pause_ends || time < pool->pause_ends)
        return;
    if (atomic_load(&pool->taking_part) < pool->threads) {
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_add(&pool->taking_part, 1);
        pthread_cond_broadcast(&pool->back);
        pthread_mutex_unlock(&pool->lock);
        pool->pause_ends = time + pool->pause;
    } else {
        pool->pause = pool->pause_ends = 0;
    }
}

void omni_parallel(omni_pool *pool, omni_task *task, void *context, int64_t chunks) {
    int64_t started = pool->threads > 1 && chunks > 1 ? now() : 0;
    end_pause(pool, started);
    if (!started || atomic_load(&pool->taking_part) == 1) {
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            task(context, chunk, 0);
        return;
    }
    pool->task = task;
    pool->context = context;
    pool->sharing = atomic_load(&pool->taking_part);
    for (int i = 0; i < pool->sharing; i++) {
        atomic_store_explicit(&pool->shares[i].next, chunks * i / pool->sharing, memory_order_relaxed);
        pool->shares[i].end = chunks * (i + 1) / pool->sharing;
    }
    uint64_t epoch = (atomic_load(&pool->gate) >> 32) + 1;
    if (epoch >> 32)
        epoch = 1;
    atomic_store(&pool->gate, epoch << 32 | OPEN);
    if (atomic_load(&pool->sleepers)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
    int64_t own = run_chunks(pool, 0), finished = now();
    atomic_fetch_and(&pool->gate, ~OPEN);
    wait_for_workers(pool);
    judge_wait(pool, started, finished, own);
}

int omni_threads(const omni_pool *pool) { return pool->threads; }

static void *allocate(size_t bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, LINE, bytes) ? NULL : memory;
}

void *omni_scratch(omni_pool *pool, int slot, size_t bytes) {
    if (pool->slot_bytes[slot] < bytes || !pool->slots[slot]) {
        free(pool->slots[slot]);
        pool->slots[slot] = allocate(bytes + LINE);
        pool->slot_bytes[slot] = pool->slots[slot] ? bytes : 0;
    }
    return pool->slots[slot];
}

int omni_reserve_workers(omni_pool *pool, size_t bytes) {
    size_t stride = (bytes + 2 * LINE - 1) / LINE * LINE; /* a line between two workers' parts */
    if (pool->worker_stride < stride) {
        free(pool->worker_memory);
        pool->worker_memory = allocate(stride * (size_t)pool->threads);
        pool->worker_stride = pool->worker_memory ? stride : 0;
    }
    return pool->worker_memory != NULL;
}

void *omni_worker(const omni_pool *pool, int worker) {
    return pool->worker_memory + (size_t)worker * pool->worker_stride;
}

static const omni_level *find_level(const char *name) {
    for (const omni_level *const *level = omni_levels; *level; level++)
        if ((!*name || !strcmp((*level)->name, name)) && (*level)->supported())
            return *level;
    return NULL;
}

int omni_level_count(void) {
    int count = 0;
    while (omni_levels[count])
        count++;
    return count;
}

const char *omni_level_name(int index) { return omni_levels[index]->name; }

int omni_level_supported(int index) { return omni_levels[index]->supported(); }

omni_pool *omni_pool_new(int threads, const char *level) {
    omni_pool *pool = allocate(sizeof *pool);
    if (!pool)
        return NULL;
    memset(pool, 0, sizeof *pool);
    pool->level = find_level(level);
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    pool->shares = allocate((size_t)threads * sizeof *pool->shares);
    if (!pool->level || !pool->workers || !pool->shares) {
        free(pool->workers);
        free(pool->shares);
        free(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->call, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->back, NULL);
    pthread_cond_init(&pool->left, NULL);
    atomic_store(&pool->taking_part, threads); /* before there are workers: one that is not of them sleeps on `back` */
    pool->threads = 1;
    for (int i = 1; i < threads; i++) { /* a system that refuses a thread gets a smaller pool */
        worker_t *worker = &pool->workers[i];
        worker->pool = pool;
        worker->index = i;
        if (pthread_create(&worker->thread, NULL, work, worker))
            break;
        pool->threads++;
    }
    atomic_store(&pool->taking_part, pool->threads);
    return pool;
}

void omni_pool_free(omni_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_cond_broadcast(&pool->back);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i < pool->threads; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->left);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->back);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->call);
    for (int i = 0; i < OMNI_SLOTS; i++)
        free(pool->slots[i]);
    free(pool->worker_memory);
    free(pool->workers);
    free(pool->shares);
    free(pool);
}

const char *omni_pool_level(const omni_pool *pool) { return pool->level->name; }

int omni_pool_threads(const omni_pool *pool) { return pool->threads; }

const void *omni_find(const omni_pool *pool, const char *name) {
    for (int i = 0; i < pool->level->count; i++)
        if (!strcmp(pool->level->entries[i].name, name))
            return &pool->level->entries[i];
    return NULL;
}

int omni_run(omni_pool *pool, const void *entry, void *const *planes, void *const *outputs,
             const omni_value *uniforms) {
    omni_call call = {planes, outputs, uniforms};
    pthread_mutex_lock(&pool->call);
    int status = ((const omni_entry *)entry)->body(&call, pool);
    pthread_mutex_unlock(&pool->call);
    return status;
}

int64_t omni_run_steps(omni_pool *pool, const omni_step *steps, int64_t at, int64_t end) {
    pthread_mutex_lock(&pool->call);
    for (; at < end && steps[at].body; at++) {
        omni_call call = {steps[at].planes, steps[at].outputs, steps[at].uniforms};
        if (((const omni_entry *)steps[at].body)->body(&call, pool) != OMNI_DONE)
            break;
    }
    pthread_mutex_unlock(&pool->call);
    return at;
}
