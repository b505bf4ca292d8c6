/* latency.h - what the files of redis-shm latency share: what was measured, and how it is told. */
#ifndef RSHM_LATENCY_H
#define RSHM_LATENCY_H

#include <stdbool.h>
#include <stdio.h>

#include "tools/histogram.h"

struct rshm_json;

/* What the machine does by itself: a loop that only reads the clock, and how long it was kept from that. */
struct rshm_intrinsic {
    double seconds;         /* 0: not measured */
    uint64_t threshold_ns;  /* what counts as an absence */
    uint64_t reads;
    double away_share;      /* of the time */
    struct rshm_histogram absences;
};

/* Measures for so many seconds, or until a signal asks to stop. 0 or -ENOMEM. */
int rshm_intrinsic_measure(struct rshm_intrinsic *i, double seconds);
void rshm_intrinsic_free(struct rshm_intrinsic *i);

struct rshm_latency {
    const char *transport; /* for people */
    const char *transport_id;
    const char *where;
    double rate_hz; /* 0: back to back */
    struct rshm_histogram total;
    double total_seconds;
    struct rshm_intrinsic intrinsic;
};

/* "min 1.234, avg ..." in microseconds, without a newline. */
void rshm_latency_line(const struct rshm_histogram *h, char *text, size_t text_bytes);

/* The table at the end. */
void rshm_latency_summary(const struct rshm_latency *l, FILE *to);

/* One object: of all, or of an interval that began at from_s. */
void rshm_latency_json(const struct rshm_latency *l, const struct rshm_histogram *h, double from_s, double seconds, FILE *to);

/* --dist: a row of columns, four to a doubling, each as dark as its share of the samples; and what the columns mean. */
void rshm_latency_dist_legend(bool colours, FILE *to);
void rshm_latency_dist_row(const struct rshm_histogram *h, bool colours, FILE *to);

#endif
