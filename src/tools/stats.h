/* stats.h - exact figures from recorded samples, nanoseconds each: no buckets, no estimates. */
#ifndef RSHM_STATS_H
#define RSHM_STATS_H

#include <stddef.h>
#include <stdint.h>

struct rshm_samples {
    uint64_t *ns;
    size_t count, room;
};

/* Appends. 0 or -ENOMEM, and then nothing is appended. */
int rshm_samples_add(struct rshm_samples *s, const uint64_t *ns, size_t count);
void rshm_samples_free(struct rshm_samples *s);

struct rshm_summary {
    double mean_ns;
    uint64_t p50_ns, p99_ns, p99_9_ns, max_ns;
};

/* Sorts the samples. All zero if there are none. */
struct rshm_summary rshm_summarise(uint64_t *ns, size_t count);

/* The sample that a share of `share` (above 0, at most 1) of all samples does not exceed, by nearest rank. sorted, count > 0. */
uint64_t rshm_percentile_ns(const uint64_t *sorted, size_t count, double share);

struct rshm_spread {
    uint64_t median_ns, min_ns, max_ns;
};

/* Sorts the values. All zero if there are none. */
struct rshm_spread rshm_spread(uint64_t *ns, size_t count);

#endif
