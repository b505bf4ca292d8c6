/* bench_load.h - the threads that make load: what bench_round.c, which starts them, shares with bench_sync.c and bench_async.c.
 *
 * Order       connect() in each worker's thread; when all are connected, the clock is set for all; load() until its end; after all
 *             threads are joined, close(). So connecting is outside of all figures, and no descriptor is closed while another thread
 *             may shut it down.
 * Counting    A request counts if it was sent, or in an open loop was due, between begin_ns and end_ns. Those of the warm-up do not. */
#ifndef RSHM_BENCH_LOAD_H
#define RSHM_BENCH_LOAD_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "channel/clock.h"
#include "tools/bench.h"

#define RSHM_LOAD_REPLY_TIMEOUT_S 60 /* as long as a histogram reaches */
/* How long an open loop that is behind goes on after its end with what was due before. */
#define RSHM_LOAD_GRACE_NS UINT64_C(1000000000)

struct rshm_load {
    const struct rshm_bench *bench;
    const struct rshm_bench_row *row;
    _Atomic bool stop; /* end soon: a signal, or a worker has failed */
    bool cancelled;    /* before it began */
    uint64_t warm_ns, begin_ns, end_ns; /* end_ns: UINT64_MAX if requests are counted */
    double interval_ns;                 /* open loop: between two requests of one connection; 0: closed loop */
    uint64_t think_ns;
    sem_t connected, go; /* posted by each worker, and once for each */
    _Atomic size_t running;
    sem_t ended;         /* by the last worker */
};

struct rshm_load_worker {
    struct rshm_load *load;
    pthread_t thread;
    size_t index, first_client, clients; /* which of the row's clients are its own */
    uint64_t quota;                      /* counted requests to send; UINT64_MAX: until end_ns */
    void *driver;                        /* of bench_sync.c or bench_async.c */

    _Alignas(64) _Atomic uint64_t done; /* counted replies so far, for the progress line */
    struct rshm_histogram latency;
    uint64_t error_replies, wrong_replies, last_ns, unsent, late_ns, late_max_ns;
    char first_error[256];
    int result; /* -errno: the connection failed, why says how */
    char why[320];
};

/* 0, or -errno with w->why. */
struct rshm_load_driver {
    int (*connect)(struct rshm_load_worker *w);
    void (*load)(struct rshm_load_worker *w);
    void (*abort)(struct rshm_load_worker *w); /* from the main thread: ends waits for replies that do not come */
    void (*close)(struct rshm_load_worker *w);
};
extern const struct rshm_load_driver rshm_load_sync, rshm_load_async;

/* When a connection's request number n is due in an open loop. The connections' schedules lie evenly between each other. */
static inline uint64_t rshm_load_due_ns(const struct rshm_load *l, size_t client, uint64_t n)
{
    return l->warm_ns + (uint64_t)(l->interval_ns * ((double)n + (double)client / (double)l->row->clients));
}

/* since_ns: sent, or due. done_ns: when the reply was there. */
static inline void rshm_load_record(struct rshm_load_worker *w, uint64_t since_ns, uint64_t done_ns)
{
    rshm_histogram_record(&w->latency, done_ns > since_ns ? done_ns - since_ns : 0);
    w->last_ns = done_ns;
    atomic_store_explicit(&w->done, w->latency.count, memory_order_relaxed); /* the only writer; advice for the reader */
}

void rshm_load_judge(struct rshm_load_worker *w, const struct rshm_generator *g, const struct rshm_expected *e, const struct redisReply *reply);

/* This worker's connections have failed: says why, and ends all. */
void rshm_load_fail(struct rshm_load_worker *w, int result, const char *why);

#endif
