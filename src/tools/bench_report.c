/* bench_report.c - the figures of rows, and the table of them. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hiredis_shm.h"
#include "tools/bench.h"
#include "tools/bench_text.h"

/* Of one CPU; a quiet machine's own housekeeping stays below this. */
#define OTHERS_WORTH_A_WORD 0.1
/* Of p50: an open loop that is late by its own fault measures itself. */
#define LATE_WORTH_A_WORD 0.1
/* Below it the rate that was asked for has not been reached. */
#define RATE_REACHED 0.99

/* ---- figures ---- */

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static struct rshm_bench_figure figure(double *values, size_t count)
{
    if (count == 0)
        return (struct rshm_bench_figure){0};
    qsort(values, count, sizeof *values, by_size);
    return (struct rshm_bench_figure){(values[(count - 1) / 2] + values[count / 2]) / 2, values[0], values[count - 1]};
}

static double of_round(const struct rshm_bench_round *r, enum rshm_bench_of what)
{
    switch (what) {
    case RSHM_P50_US: return (double)r->p50_ns / 1e3;
    case RSHM_P99_US: return (double)r->p99_ns / 1e3;
    case RSHM_OPS_PER_S: break;
    }
    return (double)r->requests * 1e9 / (double)r->elapsed_ns;
}

/* A partial round counts only if there is no whole one. */
static size_t whole_rounds(const struct rshm_bench_row *row)
{
    size_t n = row->round_count;
    return n > 1 && row->rounds[n - 1].partial ? n - 1 : n;
}

struct rshm_bench_figure rshm_bench_figure(const struct rshm_bench_row *row, enum rshm_bench_of what)
{
    double values[1000];
    size_t n = whole_rounds(row);
    for (size_t i = 0; i < n; i++)
        values[i] = of_round(&row->rounds[i], what);
    return figure(values, n);
}

struct rshm_bench_figure rshm_bench_ratio(const struct rshm_bench_row *row, const struct rshm_bench_row *base, enum rshm_bench_of what)
{
    double values[1000];
    size_t n = whole_rounds(row) < whole_rounds(base) ? whole_rounds(row) : whole_rounds(base);
    for (size_t i = 0; i < n; i++)
        values[i] = of_round(&row->rounds[i], what) / of_round(&base->rounds[i], what);
    return figure(values, n);
}

struct rshm_bench_sums rshm_bench_sums(const struct rshm_bench_row *row)
{
    struct rshm_bench_sums s = {0};
    for (size_t i = 0; i < row->round_count; i++) {
        const struct rshm_bench_round *r = &row->rounds[i];
        s.requests += r->requests;
        s.elapsed_ns += r->elapsed_ns;
        s.client_cpu_ns += r->client_cpu_ns;
        s.server_cpu_ns += r->server_cpu_ns;
        s.client_switches += r->client_switches;
        s.server_switches += r->server_switches;
        s.unsent += r->unsent;
        s.late_ns += r->late_ns;
        s.late_max_ns = r->late_max_ns > s.late_max_ns ? r->late_max_ns : s.late_max_ns;
    }
    return s;
}

const struct rshm_bench_row *rshm_bench_base(const struct rshm_bench *b, const struct rshm_bench_row *row)
{
    for (size_t i = 0; i < b->row_count; i++) {
        const struct rshm_bench_row *base = &b->rows[i];
        if (base->round_count == 0 || base->clients != row->clients || base->pipeline != row->pipeline || base->think_us != row->think_us ||
            base->rate != row->rate || memcmp(&base->size, &row->size, sizeof row->size) != 0)
            continue;
        return base != row && row->round_count > 0 ? base : NULL;
    }
    return NULL;
}

double rshm_bench_spectrum_share(size_t i, uint64_t count)
{
    double left = ldexp(1, -(int)(i / 5)) * (1 - (double)(i % 5) / 10);
    return left * (double)count < 1 ? 1 : 1 - left;
}

/* ---- texts ---- */

void rshm_bench_size_text(const struct rshm_value_size *size, char *text, size_t text_bytes)
{
    if (size->min_bytes == size->max_bytes)
        snprintf(text, text_bytes, "%zu", size->min_bytes);
    else
        snprintf(text, text_bytes, "%zu-%zu", size->min_bytes, size->max_bytes);
}

static void append(char *text, size_t text_bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void append(char *text, size_t text_bytes, const char *format, ...)
{
    size_t n = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + n, text_bytes - n, format, args);
    va_end(args);
}

const char *rshm_bench_label(const struct rshm_bench *b, const struct rshm_bench_row *row, char *text, size_t text_bytes)
{
    const struct rshm_bench_options *o = b->options;
    char size[48];
    snprintf(text, text_bytes, "%s", rshm_transport_id(row->transport));
    for (size_t i = 0, same = 0; i < o->transport_count; i++) { /* the second of two equal ones is told apart */
        same += o->transports[i] == row->transport;
        if (i == row->of_transport && same > 1)
            append(text, text_bytes, "#%zu", same);
    }
    if (row->transport == RSHM_MEMORY && (o->mode_count > 1 || row->mode != REDIS_SHM_WAIT_ADAPTIVE))
        append(text, text_bytes, " %s", rshm_bench_mode_name(row->mode));
    if (o->clients.count > 1)
        append(text, text_bytes, " c=%zu", row->clients);
    if (o->pipeline.count > 1)
        append(text, text_bytes, " P=%zu", row->pipeline);
    rshm_bench_size_text(&row->size, size, sizeof size);
    if (o->size_count > 1)
        append(text, text_bytes, " d=%s", size);
    if (o->think_us.count > 1)
        append(text, text_bytes, " think=%g", row->think_us);
    if (o->rate.count > 1)
        append(text, text_bytes, " rate=%g", row->rate);
    return text;
}

static void print_number(FILE *to, int width, double v)
{
    fprintf(to, " %*.*f", width, v < 100 ? 2 : v < 1000 ? 1 : 0, v);
}

static void print_keys(const struct rshm_bench *b, FILE *to)
{
    static const char *const choices[] = {"uniform", "sequential", "gaussian", "zipf"};
    const struct rshm_bench_options *o = b->options;
    if (!rshm_workload_has_keys(&b->workload))
        return;
    fprintf(to, ", %.0f key%s", o->keys, o->keys == 1 ? "" : "s");
    if (o->keys > 1)
        fprintf(to, " (%s)", choices[o->key_choice]);
}

void rshm_bench_print_head(const struct rshm_bench *b, FILE *to)
{
    const struct rshm_bench_options *o = b->options;
    char size[48];
    fprintf(to, "%s, %d CPU%s, %s, %s\n", b->host.cpu, b->host.cpus, b->host.cpus == 1 ? "" : "s", b->host.kernel, b->server_version);
    fprintf(to, "command: %s", o->command);
    if (strcmp(o->command, "mixed") == 0)
        fprintf(to, " (SET:GET %g:%g)", o->sets, o->gets);
    print_keys(b, to);
    if (rshm_workload_has_values(&b->workload)) {
        fputs(", values of ", to);
        for (size_t i = 0; i < o->size_count; i++) {
            rshm_bench_size_text(&o->sizes[i], size, sizeof size);
            fprintf(to, "%s%s", i > 0 ? ", " : "", size);
        }
        fputs(" bytes", to);
    }
    fprintf(to, "; %s clients", o->async ? "asynchronous" : "synchronous");
    if (o->clients.count == 1)
        fprintf(to, ": %g", o->clients.value[0]);
    if (o->async)
        fprintf(to, ", threads: %g", o->threads);
    if (o->pipeline.count == 1 && o->pipeline.value[0] > 1)
        fprintf(to, ", pipeline %g", o->pipeline.value[0]);
    if (o->think_us.count == 1 && o->think_us.value[0] > 0)
        fprintf(to, ", pause %g us", o->think_us.value[0]);
    if (o->rate.count == 1 && o->rate.value[0] > 0)
        fprintf(to, ", open loop of %g requests/s", o->rate.value[0]);
    fprintf(to, "; RESP%d%s\n", o->endpoint.resp, o->verify ? "; every reply is checked" : "");
    if (o->requests > 0)
        fprintf(to, "%.0f round%s of %.0f requests", o->rounds, o->rounds == 1 ? "" : "s", o->requests / o->rounds);
    else
        fprintf(to, "%.0f round%s of %.3g s", o->rounds, o->rounds == 1 ? "" : "s", o->seconds / o->rounds);
    fprintf(to, " for each row, in turns, each after %g s of warm-up\n", o->warmup_s);
    if (b->server_mode[0] != '\0' && !o->start)
        fprintf(to, "the server's own waiting in shared memory is '%s' (CONFIG SET shm.wait-mode), whatever --mode says\n", b->server_mode);
    else if (o->start && o->modes_given && b->server_mode[0] == '\0')
        fputs("the server has no module configuration: it waits adaptively, whatever --mode says\n", to);
}

/* ---- the table ---- */

static int label_width(const struct rshm_bench *b)
{
    char label[128];
    int width = 9;
    for (size_t i = 0; i < b->row_count; i++) {
        int n = (int)strlen(rshm_bench_label(b, &b->rows[i], label, sizeof label));
        width = n > width ? n : width;
    }
    return width;
}

static void print_row(const struct rshm_bench *b, const struct rshm_bench_row *row, int width, FILE *to)
{
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 0.9999};
    char label[128];
    fprintf(to, "%-*s", width, rshm_bench_label(b, row, label, sizeof label));
    if (row->missing != NULL) {
        fprintf(to, "   not measured: %s\n", row->missing);
        return;
    }
    if (row->round_count == 0) {
        fputs("   not measured\n", to);
        return;
    }
    const struct rshm_histogram *h = &row->latency;
    struct rshm_bench_sums s = rshm_bench_sums(row);
    struct rshm_bench_figure ops = rshm_bench_figure(row, RSHM_OPS_PER_S), p50 = rshm_bench_figure(row, RSHM_P50_US);
    double million = (double)s.requests / 1e6;
    print_number(to, 8, rshm_histogram_mean(h) / 1e3);
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++)
        print_number(to, 8, (double)rshm_histogram_percentile_ns(h, shares[i]) / 1e3);
    print_number(to, 8, (double)rshm_histogram_max(h) / 1e3);
    fprintf(to, " %9.0f (%.0f-%.0f)", ops.median, ops.min, ops.max);
    fprintf(to, "  %.2f (%.2f-%.2f)", p50.median, p50.min, p50.max);
    fprintf(to, "  %.2f %.2f", (double)s.client_cpu_ns / 1e9 / million, (double)s.server_cpu_ns / 1e9 / million);
    fprintf(to, "  %.3f %.3f\n", (double)s.client_switches / (double)s.requests, (double)s.server_switches / (double)s.requests);
}

static void print_ratios(const struct rshm_bench *b, int width, FILE *to)
{
    char label[128], against[128];
    bool first = true;
    for (size_t i = 0; i < b->row_count; i++) {
        const struct rshm_bench_row *row = &b->rows[i], *base = rshm_bench_base(b, row);
        if (base == NULL)
            continue;
        struct rshm_bench_figure p50 = rshm_bench_ratio(base, row, RSHM_P50_US), p99 = rshm_bench_ratio(base, row, RSHM_P99_US),
                                 ops = rshm_bench_ratio(row, base, RSHM_OPS_PER_S);
        if (first)
            fputs("\nTimes better, round by round: median (from-to)\n", to);
        first = false;
        fprintf(to, "%-*s against %-*s  p50 %.2f (%.2f-%.2f)  p99 %.2f (%.2f-%.2f)  requests/s %.2f (%.2f-%.2f)\n", width,
                rshm_bench_label(b, row, label, sizeof label), width, rshm_bench_label(b, base, against, sizeof against), p50.median, p50.min,
                p50.max, p99.median, p99.min, p99.max, ops.median, ops.min, ops.max);
    }
}

static void print_open_loop(const struct rshm_bench *b, const struct rshm_bench_row *row, FILE *to)
{
    char label[128];
    struct rshm_bench_sums s = rshm_bench_sums(row);
    double late_ns = (double)s.late_ns / (double)s.requests, reached = (double)s.requests * 1e9 / (double)s.elapsed_ns;
    rshm_bench_label(b, row, label, sizeof label);
    if (reached < RATE_REACHED * row->rate || s.unsent > 0)
        fprintf(to, "\n%s: %.0f of %.0f requests/s were answered; %" PRIu64 " requests were due but could not be sent: the latencies are those of a queue "
                "that grows.\n", label, reached, row->rate, s.unsent);
    if (late_ns > LATE_WORTH_A_WORD * (double)rshm_histogram_percentile_ns(&row->latency, 0.5))
        fprintf(to, "\n%s: this program itself sent %.2f us late on average (%.0f us at most): part of the latencies above is its own.\n", label,
                late_ns / 1e3, (double)s.late_max_ns / 1e3);
}

static void print_errors(const struct rshm_bench *b, FILE *to)
{
    char label[128];
    for (size_t i = 0; i < b->row_count; i++) {
        const struct rshm_bench_row *row = &b->rows[i];
        if (row->error_replies + row->wrong_replies > 0)
            fprintf(to, "\n%s: %" PRIu64 " error replies, %" PRIu64 " wrong replies; the first: %s\n", rshm_bench_label(b, row, label, sizeof label),
                    row->error_replies, row->wrong_replies, row->first_error);
    }
}

void rshm_bench_print(const struct rshm_bench *b, FILE *to)
{
    int width = label_width(b);
    fprintf(to, "\n%-*s %62s %9s\n", width, "", "---------------- latency, microseconds ----------------", "requests");
    fprintf(to, "%-*s %8s %8s %8s %8s %8s %8s %8s %9s %s\n", width, "", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max", "/second",
            "(from-to)  p50 of rounds (from-to)  CPU s/million: client server  switches/request: client server");
    for (size_t i = 0; i < b->row_count; i++)
        print_row(b, &b->rows[i], width, to);
    print_ratios(b, width, to);
    print_errors(b, to);
    for (size_t i = 0; i < b->row_count; i++)
        if (b->rows[i].rate > 0 && b->rows[i].round_count > 0)
            print_open_loop(b, &b->rows[i], to);
    if (b->server_pid == 0)
        fputs("\nThe server's process is not to be seen from here: its CPU time and switches are unknown (0).\n", to);
    if (b->others_cpus > OTHERS_WORTH_A_WORD)
        fprintf(to, "\nOther processes kept %.1f CPUs busy meanwhile. That moves the figures: repeat it when all is quiet.\n", b->others_cpus);
    if (b->stolen_cpus > OTHERS_WORTH_A_WORD)
        fprintf(to, "\nThe hypervisor withheld %.1f CPUs meanwhile: the machine's neighbours are in the figures.\n", b->stolen_cpus);
    if (b->interrupted)
        fputs("\nInterrupted: these are the figures up to then.\n", to);
}

void rshm_bench_print_spectrum(const struct rshm_bench *b, FILE *to)
{
    char label[128];
    for (size_t i = 0; i < b->row_count; i++) {
        const struct rshm_bench_row *row = &b->rows[i];
        const uint64_t count = rshm_histogram_count(&row->latency);
        double share = 0;
        if (row->round_count == 0)
            continue;
        fprintf(to, "\n%s: percentile spectrum\n%12s %14s %12s\n", rshm_bench_label(b, row, label, sizeof label), "us", "percentile", "1/(1-p)");
        for (size_t n = 0; share < 1; n++) {
            share = rshm_bench_spectrum_share(n, count);
            fprintf(to, "%12.3f %13.6f%%", (double)rshm_histogram_percentile_ns(&row->latency, share) / 1e3, 100 * share);
            if (share < 1)
                fprintf(to, " %12.2f\n", 1 / (1 - share));
            else
                fputs("\n", to);
        }
    }
}
