/* bench.h - what the files of redis-shm bench share: its options, its rows, and what was measured.
 *
 * A row is a transport with one value of every option that takes a list. Rows take turns: each gets one round, then each the next, so
 * that what else happens on the machine meets all of them alike. */
#ifndef RSHM_BENCH_H
#define RSHM_BENCH_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#include "tools/endpoint.h"
#include "tools/histogram.h"
#include "tools/host.h"
#include "tools/server.h"
#include "tools/workload.h"

#define RSHM_BENCH_LIST_MAX 16
#define RSHM_BENCH_FILES_MAX 4
#define RSHM_BENCH_ROWS_MAX 256

struct rshm_bench_list {
    double value[RSHM_BENCH_LIST_MAX];
    size_t count;
};

struct rshm_bench_options {
    struct rshm_endpoint endpoint;
    enum rshm_transport transports[RSHM_BENCH_LIST_MAX]; /* one may stand there twice: against itself */
    size_t transport_count;
    bool transports_given;                               /* then each must be there; else a row says why it is not */
    int modes[RSHM_BENCH_LIST_MAX];                      /* REDIS_SHM_WAIT_... */
    size_t mode_count;
    bool modes_given;
    struct rshm_bench_list clients, pipeline, think_us, rate; /* rate: requests a second of all clients; 0: as fast as replies come */
    struct rshm_value_size sizes[RSHM_BENCH_LIST_MAX];
    size_t size_count;
    double threads;           /* of asynchronous clients; 0: one */
    double requests, seconds; /* of each row, over all rounds; requests 0: seconds count */
    double warmup_s, rounds;
    double spin_us;
    double seed;
    bool async, verify, quiet, spectrum;
    const char *command;
    double sets, gets; /* --ratio */
    enum rshm_keys key_choice;
    double keys, exponent;
    bool start;
    const char *server, *module; /* of --start; NULL: look for it */
    const char *json, *csv, *hdr_log, *plots[RSHM_BENCH_FILES_MAX];
    size_t plot_count;
};

/* -1: go on; else the exit code. */
int rshm_bench_parse(int argc, char **argv, struct rshm_bench_options *o);
const char *rshm_bench_mode_name(int mode);

/* ---- what was measured ---- */

struct rshm_bench_round {
    bool partial; /* a signal ended it */
    double begin_s; /* since the run began */
    uint64_t requests, elapsed_ns;
    uint64_t client_cpu_ns, server_cpu_ns, client_switches, server_switches;
    uint64_t unsent;                      /* due in an open loop, but never sent */
    uint64_t late_ns;                     /* sum of how late the open loop was by its own fault: no reply was awaited */
    uint64_t late_max_ns;
    uint64_t p50_ns, p99_ns, max_ns;
    char *encoded; /* for the HdrHistogram log, else NULL */
};

struct rshm_bench_row {
    enum rshm_transport transport;
    int mode;  /* only of shared memory */
    size_t clients, threads, pipeline;
    struct rshm_value_size size;
    double think_us, rate;
    size_t of_transport; /* index in the options' list */
    const char *missing; /* why it could not be measured, or NULL */

    struct rshm_histogram latency; /* of all rounds */
    struct rshm_bench_round *rounds;
    size_t round_count;
    uint64_t error_replies, wrong_replies;
    char first_error[256];
};

struct rshm_bench {
    const struct rshm_bench_options *options;
    struct rshm_host host;
    struct rshm_workload workload;
    struct rshm_endpoint endpoints[RSHM_TRANSPORTS]; /* with what the server said of itself: nothing is asked again */
    char paths[RSHM_TRANSPORTS][108];
    char missing[RSHM_TRANSPORTS][256];              /* why a transport is not to be had, or "" */
    char server_version[64], server_mode[16];        /* the mode: "" if it cannot be told or is set by us for each row */
    int64_t server_pid;                              /* 0: on another host, or not to be seen */
    double start_s;                                  /* since the epoch */
    uint64_t start_ns;
    bool interrupted;
    double others_cpus, stolen_cpus;                 /* how many CPUs others kept busy meanwhile; below 0: unknown */
    struct rshm_bench_row *rows;
    size_t row_count;
};

/* ---- measuring: bench_round.c ---- */

/* Where a round is; for the line on the terminal. */
struct rshm_bench_progress {
    bool terminal, quiet;
    size_t round, row;
    double rounds_left_s; /* what is planned after this round */
    uint64_t last_ns;
};

/* Connects, warms up, measures, disconnects; the round is appended to the row. round_s: 0 if requests are counted.
 * 0, also if a signal ended it (then the round is partial, if anything was measured at all); -errno after a message. */
int rshm_bench_round_run(struct rshm_bench *b, struct rshm_bench_row *row, double round_s, uint64_t round_requests,
                         struct rshm_bench_progress *progress);

/* ---- figures of a row ---- */

struct rshm_bench_figure {
    double median, min, max;
};
enum rshm_bench_of { RSHM_OPS_PER_S, RSHM_P50_US, RSHM_P99_US };
/* Over the rounds. All zero if there are none. */
struct rshm_bench_figure rshm_bench_figure(const struct rshm_bench_row *row, enum rshm_bench_of what);
/* Round by round, row's figure over base's. */
struct rshm_bench_figure rshm_bench_ratio(const struct rshm_bench_row *row, const struct rshm_bench_row *base, enum rshm_bench_of what);
struct rshm_bench_sums {
    uint64_t requests, elapsed_ns, client_cpu_ns, server_cpu_ns, client_switches, server_switches, unsent, late_ns, late_max_ns;
};
struct rshm_bench_sums rshm_bench_sums(const struct rshm_bench_row *row);
/* "32" or "1-1024". */
void rshm_bench_size_text(const struct rshm_value_size *size, char *text, size_t text_bytes);
/* The row with the same values of everything else and the transport that stands first in the list; NULL if it is this one, or missing. */
const struct rshm_bench_row *rshm_bench_base(const struct rshm_bench *b, const struct rshm_bench_row *row);

/* ---- telling: bench_report.c, bench_files.c, bench_plot.c ---- */

void rshm_bench_print_head(const struct rshm_bench *b, FILE *to);
void rshm_bench_print(const struct rshm_bench *b, FILE *to);
void rshm_bench_print_spectrum(const struct rshm_bench *b, FILE *to);
void rshm_bench_write_json(const struct rshm_bench *b, FILE *to);
void rshm_bench_write_csv(const struct rshm_bench *b, FILE *to);
void rshm_bench_write_hdr_log(const struct rshm_bench *b, FILE *to);

/* Draws a chart, as PNG or SVG. 0 or -errno after a message. */
int rshm_bench_draw(const struct rshm_bench *b, int out_fd, bool svg);

/* Shares of the spectrum: halves of what is left, each in five steps, as HdrHistogram prints it, up to the last that a count tells apart.
 * i counts from 0; returns the share, or 1 for the last. */
double rshm_bench_spectrum_share(size_t i, uint64_t count);

#endif
