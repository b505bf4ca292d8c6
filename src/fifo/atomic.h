/* atomic.h - the only place that spells memory orders.
 *
 * Every use outside this file carries a label, W<n> at the store or fence and R<n> at its partner:
 *
 *   W1/R1  record header    the writer's release store of a header publishes payload and the next, zeroed header;
 *                           the reader's acquire load of the header (fifo/charfifo.c)
 *   W2/R2  read position    the reader's release store gives lines back; the writer's acquire load before it reuses them
 *   W3/R3  sleep and wake   two full fences, Dekker's pattern: publish; fence; look at the wait flag  against
 *                           set the wait flag; fence; look again (channel/channel.c). Neither side can miss the other.
 *   W4/R4  fd table         release store of a session pointer after it is filled in; acquire load at look-up (redirect/, preload/)
 *   W5/R5  libc's calls     release store of "found" after the pointers; acquire load before they are used (preload/real.h)
 */
#ifndef RSHM_ATOMIC_H
#define RSHM_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

#define RSHM_CACHE_LINE 64

typedef _Atomic uint32_t rshm_u32;
typedef _Atomic uint64_t rshm_u64;

#ifdef RSHM_SCHEDULE
#include "schedule.h" /* the same operations as steps of a scheduler: tests/unit/test_schedules.c */
#else
#define rshm_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define rshm_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define rshm_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define rshm_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define rshm_exchange(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
/* *p becomes v if it is *was; false, with *was what it is, if it is not. */
#define rshm_compare_exchange(p, was, v) \
    atomic_compare_exchange_strong_explicit((p), (was), (v), memory_order_acq_rel, memory_order_relaxed)
#endif

/* The one fence of this project: orders every earlier store before every later load. ThreadSanitizer does not model fences;
 * a read-modify-write of a variable both sides touch is what it understands. */
#if defined(__SANITIZE_THREAD__)
#define RSHM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RSHM_TSAN 1
#endif
#endif

static inline void rshm_fence_full(void)
{
#if defined(RSHM_SCHEDULE)
    schedule_fence();
#elif defined(__x86_64__) && !defined(RSHM_TSAN)
    /* A locked no-op on the own stack orders like mfence and takes a third of its time. */
    __asm__ __volatile__("lock; addl $0,-4(%%rsp)" ::: "memory", "cc");
#elif defined(RSHM_TSAN)
    static rshm_u32 dummy;
    atomic_fetch_add_explicit(&dummy, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Tells the CPU that this is a spin loop. */
static inline void rshm_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

/* Fetches the line at p for writing; a no-op where the CPU has no such thing. */
static inline void rshm_prefetch_write(const void *p)
{
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw (%0)" ::"r"(p));
#else
    __builtin_prefetch(p, 1, 3);
#endif
}

/* A per-process event counter with one writer at a time and readers anywhere: no read-modify-write. */
static inline void rshm_count(rshm_u64 *counter, uint64_t n)
{
    rshm_store_relaxed(counter, rshm_load_relaxed(counter) + n);
}

#endif
