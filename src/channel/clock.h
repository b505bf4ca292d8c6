/* clock.h - time for spin loops: the CPU's counter where there is one, in ticks. Only bounds of waits hang on it: counters
 * that differ between CPUs make a wait too short or one spin budget too long, never wrong. */
#ifndef RSHM_CLOCK_H
#define RSHM_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t rshm_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t rshm_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return rshm_now_ns();
#endif
}

/* Ticks per microsecond, measured against CLOCK_MONOTONIC. The first call in a process takes 200 us; any thread. */
uint64_t rshm_ticks_per_us(void);

#endif
