/* demo.h - what the files of the demo share: its figures, and how they are told. */
#ifndef RSHM_DEMO_H
#define RSHM_DEMO_H

#include <stdbool.h>
#include <stdio.h>

#include "tools/host.h"
#include "tools/measure.h"
#include "tools/stats.h"

/* One transport in one table. */
struct rshm_series {
    struct rshm_samples samples;   /* of all rounds */
    uint64_t *round_p50_ns;
    size_t rounds, errors;
    uint64_t elapsed_ns, client_cpu_ns, server_cpu_ns;
    /* from the samples, when all rounds are done */
    struct rshm_summary summary;
    struct rshm_spread p50_of_rounds;
};

/* One table: the machine as it is, or with its CPUs kept awake. */
struct rshm_part {
    bool measured, awake;
    struct rshm_series of[RSHM_TRANSPORTS];
    double others_cpus, stolen_cpus; /* how many CPUs other processes and the hypervisor kept busy meanwhile; below 0: unknown */
};

enum { RSHM_PART_IDLE, RSHM_PART_AWAKE, RSHM_PARTS };

struct rshm_demo {
    struct rshm_host host;
    char server_version[64];
    struct rshm_part parts[RSHM_PARTS];
};

/* The figures that the project has set itself, both on the idle machine. */
struct rshm_targets {
    double p50_ratio, p50_ratio_wanted;      /* Unix socket's p50 over shared memory's */
    uint64_t memory_p99_9_ns, unix_p50_ns;   /* the first is to be below the second */
    bool p50_reached, p99_9_reached;
};
struct rshm_targets rshm_demo_targets(const struct rshm_demo *d);

size_t rshm_demo_errors(const struct rshm_demo *d);
double rshm_ops_per_s(const struct rshm_series *s);
double rshm_cpu_s_per_million(const struct rshm_series *s, uint64_t cpu_ns);

/* The tables, and what they mean in words. */
void rshm_demo_print(const struct rshm_demo *d, FILE *to);

/* latency.json in dir, whole or not at all. 0, or -errno after a message. */
int rshm_demo_write_json(const struct rshm_demo *d, const char *dir);

/* latency_barchart.png and .svg in dir, with gnuplot, and latency_barchart.gp they are drawn from. 0; -ENOENT, after saying so,
 * if gnuplot is not installed; another -errno after a message. */
int rshm_demo_draw(const struct rshm_demo *d, const char *dir);

#endif
