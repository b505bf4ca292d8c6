/* stress.h - what the stress programs share: arguments, deadline, randomness, and a stream whose bytes tell their position. */
#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "charfifo.h"
#include "fifo/atomic.h"

#define STRESS_CHUNK 20000 /* bytes: more than the small rings hold */
#define STRESS_SPINS 200   /* then the CPU goes to the peer, who may need this very one */

struct stress {
    uint64_t seed, bytes;
    double deadline_s;
};

static inline double stress_now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* program [MiB [seconds]]: so much for each ring, ending early, but not failed, when the seconds are over. */
static inline struct stress stress_begin(int argc, char **argv)
{
    const char *seed = getenv("SEED");
    struct stress s = {.bytes = (argc > 1 ? strtoull(argv[1], NULL, 0) : 64) << 20};
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    if (argc > 3 || s.bytes == 0 || seconds <= 0) {
        fprintf(stderr, "usage: %s [MiB [seconds]]\n", argv[0]);
        exit(2);
    }
    s.deadline_s = stress_now_s() + seconds;
    s.seed = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    printf("SEED=%" PRIu64 "\n", s.seed);
    fflush(stdout);
    alarm((unsigned)seconds * 4 + 30); /* a lost byte shows as both sides waiting: that must end, too */
    return s;
}

static inline uint64_t stress_random(uint64_t *x)
{
    *x ^= *x >> 12;
    *x ^= *x << 25;
    *x ^= *x >> 27;
    return *x * UINT64_C(2685821657736338717);
}

/* Mostly small chunks, some larger than the ring. Never 0. */
static inline size_t stress_size(uint64_t *x)
{
    uint64_t dice = stress_random(x);
    return 1 + (dice >> 16) % (dice % 8 == 0 ? STRESS_CHUNK : dice % 8 < 3 ? 1200 : 80);
}

/* Every eighth of the stream's bytes carries the number of its eight, so that a shift by any distance shows. */
static inline uint8_t stress_byte(uint64_t pos)
{
    uint64_t x = (pos >> 3) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint8_t)(x >> (8 * (pos & 7)));
}

static inline bool stress_check(const uint8_t *p, uint64_t pos, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != stress_byte(pos + i)) {
            fprintf(stderr, "byte %" PRIu64 " is %02x, should be %02x\n", pos + i, p[i], stress_byte(pos + i));
            return false;
        }
    return true;
}

static inline void stress_wait(unsigned *spins)
{
    if (++*spins % STRESS_SPINS == 0)
        sched_yield();
    else
        rshm_cpu_relax();
}

/* The writing side: s->bytes of the pattern in random chunks, then the end. Returns the bytes written, or -errno. */
static inline int64_t stress_write(const struct stress *s, charfifo *w)
{
    uint64_t rng = s->seed | 1, pos = 0;
    unsigned spins = 0;
    uint8_t chunk[STRESS_CHUNK];
    while (pos < s->bytes) {
        size_t n = stress_size(&rng), done = 0;
        for (size_t i = 0; i < n; i++)
            chunk[i] = stress_byte(pos + i);
        while (done < n) {
            ssize_t space = stress_random(&rng) % 8 == 0 ? charfifo_free_bytes(w) : 0;
            ssize_t k = space < 0 ? space : charfifo_write(w, chunk + done, n - done);
            if (k < 0)
                return k;
            if (k < space && (size_t)k < n - done) {
                fprintf(stderr, "%zd bytes were free, %zd were taken\n", space, k);
                return -EIO;
            }
            if (k == 0)
                stress_wait(&spins);
            done += (size_t)k;
        }
        pos += n;
        if (stress_now_s() > s->deadline_s)
            break;
    }
    charfifo_close_writer(w);
    return (int64_t)pos;
}

/* The reading side: reads, or peeks and consumes, until the end. Returns the bytes read, or -errno. */
static inline int64_t stress_read(const struct stress *s, charfifo *r)
{
    uint64_t rng = ~s->seed | 1, pos = 0;
    unsigned spins = 0;
    uint8_t chunk[STRESS_CHUNK];
    for (;;) {
        uint64_t dice = stress_random(&rng);
        size_t n = stress_size(&rng);
        ssize_t known = dice % 16 == 0 ? charfifo_used_bytes(r) : 0, k;
        const void *p = chunk;
        if (known < 0)
            return known;
        if (dice >> 8 & 1) {
            k = charfifo_read(r, chunk, n);
        } else {
            k = charfifo_peek(r, &p);
            if (k > (ssize_t)n)
                k = (ssize_t)n;
        }
        if (k < 0)
            return k;
        if (!stress_check(p, pos, (size_t)k) || (p == chunk && k < known && k < (ssize_t)n))
            return -EIO;
        if (p != chunk && charfifo_consume(r, (size_t)k) != 0)
            return -EIO;
        pos += (uint64_t)k;
        if (k == 0) {
            int state = charfifo_poll(r);
            if (state < 0)
                return state;
            if (state == CHARFIFO_EOF)
                return (int64_t)pos;
            stress_wait(&spins);
        }
    }
}

static inline bool stress_verdict(size_t capacity, int64_t wrote, int64_t got)
{
    bool good = wrote > 0 && wrote == got;
    printf("%s: ring of %zu bytes, %" PRId64 " written, %" PRId64 " read\n", good ? "ok" : "FAILED", capacity, wrote, got);
    fflush(stdout);
    return good;
}

#endif
