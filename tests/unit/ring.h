/* ring.h - a FIFO in guarded memory, for the unit tests: inaccessible pages before the control lines and behind the last data
 * byte, so that any access past either end crashes the test. Includes cmocka.h, which wants its includes first. */
#ifndef TESTS_UNIT_RING_H
#define TESTS_UNIT_RING_H

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "charfifo.h"
#include "fifo/atomic.h"

#define RING_LINE ((size_t)64)
#define RING_HEADER ((size_t)8)
#define RING_CONTROL (2 * RING_LINE)
#define RING_GUARD ((size_t)65536) /* a multiple of every page size there is */

struct ring {
    size_t capacity, mem_bytes;
    uint8_t *map; /* guard, slack, memory, guard */
    size_t map_bytes;
    uint8_t *mem;
    charfifo w, r;
};

/* Formats the ring again and attaches both ends. */
static inline void ring_restart(struct ring *t, uint64_t start_pos)
{
    assert_int_equal(charfifo_init(t->mem, t->mem_bytes, t->capacity, start_pos), 0);
    assert_int_equal(charfifo_attach_writer(&t->w, t->mem, t->mem_bytes, t->capacity), 0);
    assert_int_equal(charfifo_attach_reader(&t->r, t->mem, t->mem_bytes, t->capacity), 0);
}

/* The memory ends exactly at the upper guard; below it there is slack up to a page boundary, filled with a mark that
 * ring_close() checks. Pages are only touched when used: a ring of 1 GiB costs next to nothing. */
static inline void ring_open(struct ring *t, size_t capacity, uint64_t start_pos)
{
    memset(t, 0, sizeof *t);
    t->capacity = capacity;
    t->mem_bytes = charfifo_memory_bytes(capacity);
    assert_int_not_equal(t->mem_bytes, 0);
    size_t usable = (t->mem_bytes + RING_GUARD - 1) & ~(RING_GUARD - 1);
    t->map_bytes = usable + 2 * RING_GUARD;
    t->map = mmap(NULL, t->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(t->map != MAP_FAILED);
    assert_int_equal(mprotect(t->map + RING_GUARD, usable, PROT_READ | PROT_WRITE), 0);
    t->mem = t->map + RING_GUARD + usable - t->mem_bytes;
    memset(t->map + RING_GUARD, 0xa5, usable - t->mem_bytes);
    ring_restart(t, start_pos);
}

static inline void ring_close(struct ring *t)
{
    for (uint8_t *p = t->map + RING_GUARD; p < t->mem; p++)
        assert_int_equal(*p, 0xa5);
    munmap(t->map, t->map_bytes);
}

/* The shared words, as a hostile peer reaches them. */
static inline rshm_u64 *ring_header(struct ring *t, uint64_t pos)
{
    return (rshm_u64 *)(void *)(t->mem + RING_CONTROL + (pos & (t->capacity - 1)));
}

static inline rshm_u64 *ring_read_pos(struct ring *t)
{
    return (rshm_u64 *)(void *)t->mem;
}

/* The byte at offset i of a stream; 251 is prime, so that no power of two repeats it. */
static inline uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i % 251);
}

static inline void fill(uint8_t *p, uint64_t from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = pattern(from + i);
}

static inline void check(const uint8_t *p, uint64_t from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(from + i))
            fail_msg("byte %zu of the stream is %d, should be %d", (size_t)(from + i), p[i], pattern(from + i));
}

/* xorshift64*; good enough to pick sizes, and the same everywhere. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

/* SEED of the environment, or the clock's; printed, so that a failure can be had again. */
static inline uint64_t random_seed(void)
{
    const char *s = getenv("SEED");
    uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)getpid() * UINT64_C(2654435761) ^ (uint64_t)(uintptr_t)&s;
    if (seed == 0)
        seed = 1; /* the generator's fixed point */
    print_message("# SEED=%" PRIu64 "\n", seed);
    return seed;
}

#endif
