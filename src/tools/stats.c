/* stats.c - see stats.h. */
#include "tools/stats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int rshm_samples_add(struct rshm_samples *s, const uint64_t *ns, size_t count)
{
    if (count > s->room - s->count) {
        size_t room = s->count + count > 2 * s->room ? s->count + count : 2 * s->room;
        uint64_t *more = room > SIZE_MAX / sizeof *more ? NULL : realloc(s->ns, room * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        s->ns = more;
        s->room = room;
    }
    if (count > 0)
        memcpy(s->ns + s->count, ns, count * sizeof *ns);
    s->count += count;
    return 0;
}

void rshm_samples_free(struct rshm_samples *s)
{
    free(s->ns);
    *s = (struct rshm_samples){0};
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

uint64_t rshm_percentile_ns(const uint64_t *sorted, size_t count, double share)
{
    double rank = ceil(share * (double)count);
    size_t i = rank < 1 ? 0 : (size_t)rank - 1;
    return sorted[i < count ? i : count - 1];
}

struct rshm_summary rshm_summarise(uint64_t *ns, size_t count)
{
    struct rshm_summary s = {0};
    double sum = 0;
    if (count == 0)
        return s;
    qsort(ns, count, sizeof *ns, compare);
    for (size_t i = 0; i < count; i++)
        sum += (double)ns[i];
    s.mean_ns = sum / (double)count;
    s.p50_ns = rshm_percentile_ns(ns, count, 0.5);
    s.p99_ns = rshm_percentile_ns(ns, count, 0.99);
    s.p99_9_ns = rshm_percentile_ns(ns, count, 0.999);
    s.max_ns = ns[count - 1];
    return s;
}

struct rshm_spread rshm_spread(uint64_t *ns, size_t count)
{
    if (count == 0)
        return (struct rshm_spread){0};
    qsort(ns, count, sizeof *ns, compare);
    return (struct rshm_spread){
        .median_ns = (ns[(count - 1) / 2] + ns[count / 2]) / 2,
        .min_ns = ns[0],
        .max_ns = ns[count - 1],
    };
}
