/* waiting.h - whether to spin, and for how long, before going to sleep: the policy of both sides.
 *
 * Spinning pays when the other side is awake, on another CPU, and about to answer. Each side tells the other what it needs to know in the
 * tag of its records, which travels in a cache line that moves anyway:
 *
 *     bits 0 to 11    the sender's CPU plus one, modulo 4096; 0: unknown
 *     bits 12 to 19   the sender's pace: how long it was busy between being woken and this record, in half microseconds plus
 *                     one; 255: longer; 0: unknown. Measured only after a sleep: who stays awake is seen by the waiter itself.
 *
 * All of it is advice. A peer that lies makes its own waits longer, or makes us spin within the limit.
 */
#ifndef RSHM_WAITING_H
#define RSHM_WAITING_H

#include <stdbool.h>
#include <stdint.h>

enum rshm_wait_mode { RSHM_MODE_ADAPTIVE, RSHM_MODE_POLL, RSHM_MODE_BLOCK };

#define RSHM_SPIN_FOREVER UINT64_MAX
#define RSHM_PACE_UNKNOWN 0u
#define RSHM_PACE_MAX 255u

struct rshm_waiting {
    enum rshm_wait_mode mode;
    uint64_t limit;  /* ticks to spin at most while both sides are awake */
    uint32_t misses; /* spins in vain since the last that was not */
    uint32_t skip;   /* waits that will not spin because of them */
};

/* This thread's CPU plus one, as in a tag. */
uint32_t rshm_cpu_tag(void);

static inline uint32_t rshm_tag(uint32_t cpu_tag, uint32_t pace)
{
    return cpu_tag | pace << 12;
}
static inline uint32_t rshm_tag_cpu(uint32_t tag)
{
    return tag & 0xfff;
}
static inline uint32_t rshm_tag_pace(uint32_t tag)
{
    return tag >> 12 & 0xff;
}

/* The peer was on this thread's CPU when it wrote its last record. */
bool rshm_same_cpu(uint32_t peer_tag);

/* The pace that stands for a time. */
uint32_t rshm_pace(uint64_t ticks);
/* Ticks that a pace stands for; RSHM_PACE_UNKNOWN and RSHM_PACE_MAX: a very long time. */
uint64_t rshm_pace_ticks(uint32_t pace);

/* Ticks to spin now, when the peer is awake and its last record had peer_tag. extra is added for a peer that has to wake up first; streams: it is
 * in the middle of something large (rshm_channel_streams()). 0: sleep at once. */
uint64_t rshm_waiting_budget(struct rshm_waiting *w, uint32_t peer_tag, uint64_t extra, bool streams);
/* For those who spin without end: lets the peer have the CPU if it was on ours. It may not be there any more: then this costs a system call,
 * until its next record tells. */
void rshm_yield_to(uint32_t peer_tag);
/* What became of a spin. After misses the next waits do not spin, twice as many each time. */
void rshm_waiting_hit(struct rshm_waiting *w);
void rshm_waiting_missed(struct rshm_waiting *w);

/* Two that talk all the time from one CPU, woken by each other in turn, stay there for as long as neither spins, even beside an idle CPU.
 * One of them has to go, for an instant, where the other is not. */
struct rshm_aside {
    uint64_t next_at, interval; /* ticks: not before; doubles with each try, until one has led to many hits */
    uint32_t hits;
};
/* Moves this thread off its CPU if it may run elsewhere and has not tried just now; its affinity is the same afterwards. Returns true if
 * it moved. Two system calls more than it looks like: only for those who have found waiting on one CPU to be their problem. */
bool rshm_move_aside(struct rshm_aside *a, uint64_t now);
static inline void rshm_aside_hit(struct rshm_aside *a)
{
    if (a->interval != 0 && ++a->hits >= 1000)
        a->interval = a->hits = 0;
}

#endif
