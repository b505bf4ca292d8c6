/* schedule.h - the operations of fifo/atomic.h when a test compiles the code with -DRSHM_SCHEDULE: each is a step at which the test's
 * scheduler decides who goes on, and stores go through a store buffer. Included by atomic.h in place of its own definitions. */
#ifndef TESTS_UNIT_SCHEDULE_H
#define TESTS_UNIT_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

/* A step: here the scheduler may give the CPU to the other side, and let stores arrive. */
void rshm_yield_point(void);
/* bytes: 4 or 8. */
uint64_t schedule_load(const void *p, size_t bytes);
void schedule_store(void *p, size_t bytes, uint64_t v);
uint64_t schedule_exchange(void *p, size_t bytes, uint64_t v);
uint64_t schedule_compare_exchange(void *p, size_t bytes, uint64_t was, uint64_t v); /* returns what it was */
void schedule_fence(void);

/* clang-format off */
#define SCHEDULE_VALUE(p) __typeof__(atomic_load_explicit((p), memory_order_relaxed))
#define rshm_load_relaxed(p)     ((SCHEDULE_VALUE(p))schedule_load((const void *)(p), sizeof *(p)))
#define rshm_store_relaxed(p, v) schedule_store((void *)(p), sizeof *(p), (v))
#define rshm_load_acquire(p)     rshm_load_relaxed(p)      /* on x86 every load is one, */
#define rshm_store_release(p, v) rshm_store_relaxed(p, v)  /* and every store */
#define rshm_exchange(p, v)      ((SCHEDULE_VALUE(p))schedule_exchange((void *)(p), sizeof *(p), (v)))
#define rshm_compare_exchange(p, was, v) schedule_compare_exchange32((void *)(p), (was), (v))
/* clang-format on */

static inline _Bool schedule_compare_exchange32(void *p, uint32_t *was, uint32_t v)
{
    uint32_t expected = *was;
    *was = (uint32_t)schedule_compare_exchange(p, sizeof expected, expected, v);
    return *was == expected;
}

#endif
