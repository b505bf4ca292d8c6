/* histogram.c - see histogram.h.
 *
 * Bucket of v: below 2^11 v itself. Above, with e the number of bits that v has beyond 11, the upper half of the 2048 sub-buckets of
 * width 2^e: 1024 e + (v >> e). Neighbouring exponents join without a gap. */
#include "tools/histogram.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SUB (UINT64_C(1) << RSHM_HISTOGRAM_SUB_BITS)

size_t rshm_histogram_bucket(uint64_t ns)
{
    if (ns < SUB)
        return (size_t)ns;
    unsigned beyond = 64u - (unsigned)__builtin_clzll(ns) - RSHM_HISTOGRAM_SUB_BITS;
    return (size_t)(SUB / 2 * beyond + (ns >> beyond));
}

uint64_t rshm_histogram_bucket_low(size_t bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned beyond = (unsigned)(bucket / (SUB / 2)) - 1;
    return (uint64_t)(bucket - SUB / 2 * beyond) << beyond;
}

uint64_t rshm_histogram_bucket_high(size_t bucket)
{
    return rshm_histogram_bucket_low(bucket + 1) - 1;
}

size_t rshm_histogram_buckets(void)
{
    return rshm_histogram_bucket(RSHM_HISTOGRAM_MAX_NS) + 1;
}

int rshm_histogram_init(struct rshm_histogram *h)
{
    *h = (struct rshm_histogram){.counts = calloc(rshm_histogram_buckets(), sizeof *h->counts)};
    return h->counts == NULL ? -ENOMEM : 0;
}

void rshm_histogram_free(struct rshm_histogram *h)
{
    free(h->counts);
    *h = (struct rshm_histogram){0};
}

void rshm_histogram_reset(struct rshm_histogram *h)
{
    memset(h->counts, 0, rshm_histogram_buckets() * sizeof *h->counts);
    h->count = h->min_ns = h->max_ns = 0;
    h->sum_ns = 0;
}

void rshm_histogram_record(struct rshm_histogram *h, uint64_t ns)
{
    ns = ns < 1 ? 1 : ns > RSHM_HISTOGRAM_MAX_NS ? RSHM_HISTOGRAM_MAX_NS : ns;
    h->counts[rshm_histogram_bucket(ns)]++;
    h->sum_ns += (double)ns;
    if (ns < h->min_ns || h->count == 0)
        h->min_ns = ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
    h->count++;
}

void rshm_histogram_merge(struct rshm_histogram *h, const struct rshm_histogram *from)
{
    if (from->count == 0)
        return;
    for (size_t i = 0, n = rshm_histogram_buckets(); i < n; i++)
        h->counts[i] += from->counts[i];
    if (h->count == 0 || from->min_ns < h->min_ns)
        h->min_ns = from->min_ns;
    if (from->max_ns > h->max_ns)
        h->max_ns = from->max_ns;
    h->count += from->count;
    h->sum_ns += from->sum_ns;
}

uint64_t rshm_histogram_count(const struct rshm_histogram *h)
{
    return h->count;
}

uint64_t rshm_histogram_min(const struct rshm_histogram *h)
{
    return h->min_ns;
}

uint64_t rshm_histogram_max(const struct rshm_histogram *h)
{
    return h->max_ns;
}

double rshm_histogram_mean(const struct rshm_histogram *h)
{
    return h->count == 0 ? 0 : h->sum_ns / (double)h->count;
}

uint64_t rshm_histogram_percentile_ns(const struct rshm_histogram *h, double share)
{
    if (h->count == 0)
        return 0;
    if (!(share > 0))
        return h->min_ns;
    double wanted = ceil(share * (double)h->count);
    uint64_t rank = wanted < 1 ? 1 : wanted >= (double)h->count ? h->count : (uint64_t)wanted, seen = 0;
    if (rank == h->count)
        return h->max_ns;
    for (size_t i = 0, n = rshm_histogram_buckets(); i < n; i++) {
        seen += h->counts[i];
        if (seen >= rank) {
            uint64_t high = rshm_histogram_bucket_high(i);
            return high > h->max_ns ? h->max_ns : high < h->min_ns ? h->min_ns : high;
        }
    }
    return h->max_ns;
}
