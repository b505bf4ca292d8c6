/* awake.h - keeps the CPUs from sleeping: a busy process of the idle class (SCHED_IDLE) pinned to each CPU that this process may
 * use. Anything else that wants the CPU gets it at once, so what is measured is the work without the waking of a halted CPU.
 *
 * Start them before connections are opened: children share no descriptor that matters, and no page that is being measured is
 * copied on write. They need no privilege, and they end with their parent, whatever that dies of. */
#ifndef RSHM_AWAKE_H
#define RSHM_AWAKE_H

#include <stdint.h>
#include <sys/types.h>

struct rshm_awake {
    pid_t *pids;
    int count;
};

/* 0, or -errno, and then none runs. */
int rshm_awake_start(struct rshm_awake *a);

/* CPU time that they have used so far, to tell it from that of others. */
uint64_t rshm_awake_cpu_ns(const struct rshm_awake *a);

/* Ends them; also on one that is all zero or has been stopped. */
void rshm_awake_stop(struct rshm_awake *a);

#endif
