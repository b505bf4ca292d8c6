/* histogram.h - how long things took: counts in buckets, from 1 ns to 60 s, for any number of values.
 *
 * What        A value up to 2048 ns has a bucket of its own; above, each doubling has 1024 buckets, so a bucket is at most a
 *             thousandth of its values wide: three significant digits.
 * Shapes      Nanoseconds; 0 counts as 1, and what is above 60 s as 60 s (rshm_histogram_max() too).
 * Ownership   The counts are the struct's: about 200 KiB, freed with rshm_histogram_free().
 * Threads     One at a time for each histogram.
 * Blocking    Recording is a few instructions and touches one bucket and the struct; it allocates nothing.
 * Source      The bucket layout of HdrHistogram (lowest value 1, highest 60e9, 3 digits), whose log format can take the counts. */
#ifndef RSHM_HISTOGRAM_H
#define RSHM_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define RSHM_HISTOGRAM_MAX_NS UINT64_C(60000000000)
#define RSHM_HISTOGRAM_SUB_BITS 11 /* 2048 buckets up to 2^11; a thousandth needs 2 * 10^3 of them */

struct rshm_histogram {
    uint64_t *counts; /* rshm_histogram_buckets() of them */
    uint64_t count, min_ns, max_ns;
    double sum_ns;
};

/* 0 or -ENOMEM. */
int rshm_histogram_init(struct rshm_histogram *h);
/* Also on one that is all zero. */
void rshm_histogram_free(struct rshm_histogram *h);
void rshm_histogram_reset(struct rshm_histogram *h);

void rshm_histogram_record(struct rshm_histogram *h, uint64_t ns);
/* Adds what `from` holds. */
void rshm_histogram_merge(struct rshm_histogram *h, const struct rshm_histogram *from);

/* All are 0 without values. Count, min, max and mean are exact (within the range above). */
uint64_t rshm_histogram_count(const struct rshm_histogram *h);
uint64_t rshm_histogram_min(const struct rshm_histogram *h);
uint64_t rshm_histogram_max(const struct rshm_histogram *h);
double rshm_histogram_mean(const struct rshm_histogram *h);

/* The value that a share (0 to 1) of all values does not exceed, by nearest rank: the highest of its bucket, but never above
 * the maximum. A share of 0 is the minimum. */
uint64_t rshm_histogram_percentile_ns(const struct rshm_histogram *h, double share);

/* The buckets, for whoever prints them all: how many, and the lowest and the highest value of each. */
size_t rshm_histogram_buckets(void);
size_t rshm_histogram_bucket(uint64_t ns);
uint64_t rshm_histogram_bucket_low(size_t bucket);
uint64_t rshm_histogram_bucket_high(size_t bucket);

#endif
