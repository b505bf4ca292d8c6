/* bench_beside.c - what a plain Unix-socket client waits for a PING beside a shared-memory client that runs flat out, against beside
 * an equally busy Unix-socket client, and alone. The three take turns in every round. */
#include "client/beside.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 99

static int rounds = 9, pings = 1000, gap_us = 1000, depth = 1;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread {
    double median, min, max;
};

static struct spread spread_of(const struct beside *b, size_t field)
{
    double v[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++)
        memcpy(&v[i], (const char *)&b[i] + field, sizeof v[i]);
    qsort(v, (size_t)rounds, sizeof v[0], by_value);
    return (struct spread){v[rounds / 2], v[0], v[rounds - 1]};
}

static void usage(FILE *to)
{
    fprintf(to, "usage: bench_beside [--rounds N] [--pings N] [--gap-us N] [--depth N] [--out FILE]\n"
                "PINGs of a plain Unix-socket client beside nobody, a busy Unix-socket client, a busy shared-memory client.\n"
                "Defaults: %d rounds of %d PINGs, one each %d us; the busy client has %d GET under way.\n",
            rounds, pings, gap_us, depth);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rounds", required_argument, NULL, 'r'}, {"pings", required_argument, NULL, 'p'},
                                            {"gap-us", required_argument, NULL, 'g'}, {"depth", required_argument, NULL, 'd'},
                                            {"out", required_argument, NULL, 'o'},    {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    static struct beside b[LOADS][ROUNDS_MAX];
    static const char *const keys[LOADS] = {"alone", "beside_unix", "beside_shm"};
    const char *out = NULL;
    for (int o; (o = getopt_long(argc, argv, "r:p:g:d:o:h", options, NULL)) != -1;) {
        int n = optarg != NULL ? atoi(optarg) : 0;
        switch (o) {
        case 'r': rounds = n; break;
        case 'p': pings = n; break;
        case 'g': gap_us = n; break;
        case 'd': depth = n; break;
        case 'o': out = optarg; break;
        default: usage(o == 'h' ? stdout : stderr); return o == 'h' ? 0 : 2;
        }
    }
    if (optind != argc || rounds < 1 || rounds > ROUNDS_MAX || pings < 100 || gap_us < 0 || depth < 1) {
        usage(stderr);
        return 2;
    }
    group_setup(NULL);
    for (int r = 0; r < rounds; r++)
        for (int l = 0; l < LOADS; l++)
            measure_beside(&transports[1], &shared, (enum load)((l + r) % LOADS), depth, pings, gap_us, &b[(l + r) % LOADS][r]);
    group_teardown(NULL);

    FILE *f = out != NULL ? fopen(out, "w") : NULL;
    if (out != NULL && f == NULL) {
        perror(out);
        return 1;
    }
    struct spread p99[LOADS];
    printf("PING of a plain Unix-socket client, one each %d us, microseconds; median (min..max) of %d rounds of %d\n\n", gap_us, rounds, pings);
    printf("%-26s %20s %24s %12s %12s\n", "beside", "p50", "p99", "max", "its load/s");
    if (f != NULL)
        fprintf(f, "{\n  \"rounds\": %d, \"pings\": %d, \"gap_us\": %d, \"depth\": %d", rounds, pings, gap_us, depth);
    for (int l = 0; l < LOADS; l++) {
        struct spread p50 = spread_of(b[l], offsetof(struct beside, p50_us)), max = spread_of(b[l], offsetof(struct beside, max_us)),
                      load = spread_of(b[l], offsetof(struct beside, load_per_s));
        p99[l] = spread_of(b[l], offsetof(struct beside, p99_us));
        printf("%-26s %6.1f (%.1f..%.1f) %8.1f (%.1f..%.1f) %10.0f %12.0f\n", load_names[l], p50.median, p50.min, p50.max, p99[l].median,
               p99[l].min, p99[l].max, max.median, load.median);
        if (f != NULL)
            fprintf(f, ",\n  \"%s\": {\"p50_us\": %.2f, \"p50_spread_us\": [%.2f, %.2f], \"p99_us\": %.2f, \"p99_spread_us\": [%.2f, %.2f], \"max_us\": %.1f, \"load_per_s\": %.0f}",
                    keys[l], p50.median, p50.min, p50.max, p99[l].median, p99[l].min, p99[l].max, max.median, load.median);
    }
    /* Other programs only ever add to it: on a machine that is not quiet the best rounds say more. */
    double ratio = p99[LOAD_SHM].median / p99[LOAD_UNIX].median, best = p99[LOAD_SHM].min / p99[LOAD_UNIX].min;
    printf("\np99 beside shared memory / beside a Unix socket: %.2f (of the best rounds: %.2f)\n", ratio, best);
    if (f != NULL) {
        fprintf(f, ",\n  \"p99_ratio\": %.3f,\n  \"p99_ratio_of_best\": %.3f\n}\n", ratio, best);
        if (fclose(f) != 0) {
            perror(out);
            return 1;
        }
    }
    return 0;
}
