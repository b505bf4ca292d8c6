/* waiting.c - see waiting.h; the figures behind the numbers are in docs/benchmarks.md. */
#include "channel/waiting.h"

#include <sched.h>
#include <stddef.h>
#include <string.h>
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 35)
#include <sys/rseq.h>
#define HAVE_RSEQ 1
#endif
#endif

#include "channel/clock.h"

#define ASIDE_FIRST_US 1000
#define ASIDE_MOST_US 5000000
#define STREAM_US 150    /* a ring of 64 KiB takes the other side 10 to 50 us, a wake-up 50 to 100 */
#define SKIP_SHIFT_MAX 6 /* after many misses one wait in 64 tries again */

uint32_t rshm_cpu_tag(void)
{
    int cpu;
#ifdef HAVE_RSEQ
    /* The kernel keeps the number in thread-local memory: one load instead of a call. */
    if (__rseq_size > 0)
        cpu = *(volatile int *)((char *)__builtin_thread_pointer() + __rseq_offset + offsetof(struct rseq, cpu_id));
    else
#endif
        cpu = sched_getcpu();
    return cpu < 0 ? 0 : ((uint32_t)cpu + 1) & 0xfff;
}

uint32_t rshm_pace(uint64_t ticks)
{
    uint64_t halves = 2 * ticks / rshm_ticks_per_us();
    return halves >= RSHM_PACE_MAX - 1 ? RSHM_PACE_MAX : (uint32_t)halves + 1;
}

uint64_t rshm_pace_ticks(uint32_t pace)
{
    if (pace == RSHM_PACE_UNKNOWN || pace >= RSHM_PACE_MAX)
        return UINT64_MAX / 2;
    return (uint64_t)(pace - 1) * rshm_ticks_per_us() / 2;
}

bool rshm_same_cpu(uint32_t peer_tag)
{
    return rshm_tag_cpu(peer_tag) != 0 && rshm_tag_cpu(peer_tag) == rshm_cpu_tag();
}

uint64_t rshm_waiting_budget(struct rshm_waiting *w, uint32_t peer_tag, uint64_t extra, bool streams)
{
    if (w->mode == RSHM_MODE_POLL)
        return RSHM_SPIN_FOREVER;
    if (w->mode == RSHM_MODE_BLOCK || rshm_same_cpu(peer_tag))
        return 0; /* the same CPU: the peer needs it to answer */
    if (w->skip > 0) {
        w->skip--;
        return 0;
    }
    if (w->limit == 0)
        return 0;
    const uint64_t stream = streams ? STREAM_US * rshm_ticks_per_us() : 0;
    return (w->limit > stream ? w->limit : stream) + extra;
}

void rshm_yield_to(uint32_t peer_tag)
{
    if (rshm_same_cpu(peer_tag))
        sched_yield();
}

void rshm_waiting_hit(struct rshm_waiting *w)
{
    w->misses = 0;
}

void rshm_waiting_missed(struct rshm_waiting *w)
{
    if (w->misses < SKIP_SHIFT_MAX)
        w->misses++;
    w->skip = (1u << w->misses) - 1;
}

bool rshm_move_aside(struct rshm_aside *a, uint64_t now)
{
    const uint64_t per_us = rshm_ticks_per_us();
    cpu_set_t all, others;
    int cpu = sched_getcpu();

    if ((int64_t)(a->next_at - now) > 0)
        return false;
    a->interval = a->interval == 0 ? ASIDE_FIRST_US * per_us : a->interval * 2;
    if (a->interval > ASIDE_MOST_US * per_us)
        a->interval = ASIDE_MOST_US * per_us;
    a->next_at = now + a->interval;
    a->hits = 0;
    if (cpu < 0 || sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2)
        return false;
    others = all;
    CPU_CLR((size_t)cpu, &others);
    if (sched_setaffinity(0, sizeof others, &others) != 0)
        return false;
    if (sched_setaffinity(0, sizeof all, &all) != 0) { /* a cpuset has changed meanwhile: whatever it allows now */
        memset(&all, 0xff, sizeof all);
        sched_setaffinity(0, sizeof all, &all);
    }
    return true;
}
