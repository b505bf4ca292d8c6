/* report.h - what `redis-shm run --stats` prints, counted by the preload library in a file that both map.
 *
 * The file is made by `redis-shm run`, of sizeof(struct rshm_report), zeroed. All processes of the command add to it: with atomic
 * operations, the texts under a lock of their own. Both are of one build: the format has no version. */
#ifndef RSHM_PRELOAD_REPORT_H
#define RSHM_PRELOAD_REPORT_H

#include "fifo/atomic.h"
#include "preload/settings.h"

#define RSHM_REASONS_MAX 8
#define RSHM_REASON_TEXT 160

struct rshm_report_endpoint {
    rshm_u64 upgraded, not_upgraded;
    rshm_u64 bytes_in, bytes_out, messages_in, messages_out, bells_sent, bells_received, spin_hits, spin_misses;
};

struct rshm_report {
    rshm_u64 loaded;      /* processes (and new programs in them) that the library was loaded into */
    rshm_u64 passed_on;   /* upgraded descriptors that the program handed to another process in a message */
    struct rshm_report_endpoint endpoints[RSHM_NAMED_MAX];
    rshm_u32 lock;
    uint32_t reasons;
    struct {
        int endpoint;
        uint64_t count;
        char text[RSHM_REASON_TEXT];
    } reason[RSHM_REASONS_MAX]; /* the last is for what did not fit */
};

#ifdef RSHM_PRELOAD
struct rshm_conn;

/* A connection to an endpoint was upgraded, or was not: why. */
void rshm_report_upgraded(int endpoint);
void rshm_report_refused(int endpoint, const char *why);
void rshm_report_passed_on(void);
/* Adds what c has moved since it was last asked. With its lock. */
void rshm_report_moved(struct rshm_conn *c);
#endif

#endif
