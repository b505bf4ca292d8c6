/* bench_files.c - the figures as JSON, CSV and HdrHistogram log. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/bench.h"
#include "tools/bench_text.h"
#include "tools/hdrlog.h"
#include "tools/json.h"

static const struct {
    const char *name;
    double share;
} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99_9", 0.999}, {"p99_99", 0.9999}};
#define PERCENTILES (sizeof percentiles / sizeof percentiles[0])

static double percentile_us(const struct rshm_bench_row *row, double share)
{
    return (double)rshm_histogram_percentile_ns(&row->latency, share) / 1e3;
}

static double per_million(uint64_t cpu_ns, uint64_t requests)
{
    return (double)cpu_ns / 1e9 / ((double)requests / 1e6);
}

/* Unknown is not zero. */
static double server_figure(const struct rshm_bench *b, double value)
{
    return b->server_pid > 0 ? value : NAN;
}

/* ---- JSON ---- */

static void json_host(struct rshm_json *j, const struct rshm_bench *b)
{
    rshm_json_open(j, "host", '{');
    rshm_json_string(j, "cpu", b->host.cpu);
    rshm_json_integer(j, "cpus", (uint64_t)b->host.cpus);
    rshm_json_string(j, "kernel", b->host.kernel);
    rshm_json_string(j, "server", b->server_version);
    rshm_json_string(j, "redis_shm", RSHM_VERSION);
    rshm_json_number(j, "load_1m", b->host.load_1m, 2);
    if (b->others_cpus >= 0) {
        rshm_json_number(j, "others_busy_cpus", b->others_cpus, 2);
        rshm_json_number(j, "stolen_cpus", b->stolen_cpus, 2);
    }
    if (b->server_mode[0] != '\0' && !b->options->start)
        rshm_json_string(j, "server_wait_mode", b->server_mode);
    rshm_json_close(j, '}');
}

static void json_options(struct rshm_json *j, const struct rshm_bench *b)
{
    static const char *const choices[] = {"uniform", "sequential", "gaussian", "zipf"};
    const struct rshm_bench_options *o = b->options;
    rshm_json_open(j, "options", '{');
    rshm_json_string(j, "client", o->async ? "async" : "sync");
    rshm_json_integer(j, "resp", (uint64_t)o->endpoint.resp);
    rshm_json_integer(j, "keys", (uint64_t)o->keys);
    rshm_json_string(j, "key_choice", choices[o->key_choice]);
    rshm_json_bool(j, "verify", o->verify);
    rshm_json_number(j, "warmup_s", o->warmup_s, 3);
    rshm_json_integer(j, "rounds", (uint64_t)o->rounds);
    rshm_json_integer(j, "seed", (uint64_t)o->seed);
    rshm_json_close(j, '}');
}

static void json_figure(struct rshm_json *j, const char *name, struct rshm_bench_figure f, int decimals)
{
    rshm_json_open(j, name, '{');
    rshm_json_number(j, "median", f.median, decimals);
    rshm_json_number(j, "min", f.min, decimals);
    rshm_json_number(j, "max", f.max, decimals);
    rshm_json_close(j, '}');
}

static void json_latency(struct rshm_json *j, const struct rshm_bench_row *row)
{
    const struct rshm_histogram *h = &row->latency;
    double share = 0;
    rshm_json_open(j, "latency_us", '{');
    rshm_json_number(j, "min", (double)rshm_histogram_min(h) / 1e3, 3);
    rshm_json_number(j, "mean", rshm_histogram_mean(h) / 1e3, 3);
    for (size_t i = 0; i < PERCENTILES; i++)
        rshm_json_number(j, percentiles[i].name, percentile_us(row, percentiles[i].share), 3);
    rshm_json_number(j, "max", (double)rshm_histogram_max(h) / 1e3, 3);
    rshm_json_close(j, '}');
    rshm_json_open(j, "spectrum_us", '[');
    for (size_t n = 0; share < 1; n++) {
        share = rshm_bench_spectrum_share(n, rshm_histogram_count(h));
        rshm_json_open(j, NULL, '[');
        rshm_json_number(j, NULL, share, 9);
        rshm_json_number(j, NULL, percentile_us(row, share), 3);
        rshm_json_close(j, ']');
    }
    rshm_json_close(j, ']');
}

static void json_run(struct rshm_json *j, const struct rshm_bench *b, const struct rshm_bench_row *row)
{
    const struct rshm_bench_row *base = rshm_bench_base(b, row);
    struct rshm_bench_sums s = rshm_bench_sums(row);
    char text[128];
    rshm_json_open(j, NULL, '{');
    rshm_json_string(j, "label", rshm_bench_label(b, row, text, sizeof text));
    rshm_json_string(j, "transport", rshm_transport_id(row->transport));
    if (row->transport == RSHM_MEMORY)
        rshm_json_string(j, "mode", rshm_bench_mode_name(row->mode));
    else
        rshm_json_number(j, "mode", NAN, 0);
    rshm_json_integer(j, "clients", row->clients);
    rshm_json_integer(j, "threads", row->threads);
    rshm_json_integer(j, "pipeline", row->pipeline);
    rshm_json_string(j, "command", b->options->command);
    rshm_bench_size_text(&row->size, text, sizeof text);
    if (row->size.min_bytes == row->size.max_bytes)
        rshm_json_integer(j, "value_bytes", row->size.min_bytes);
    else
        rshm_json_string(j, "value_bytes", text);
    rshm_json_number(j, "think_us", row->think_us, 3);
    rshm_json_number(j, "rate", row->rate > 0 ? row->rate : NAN, 3);
    rshm_json_integer(j, "requests", s.requests);
    rshm_json_integer(j, "errors", row->error_replies + row->wrong_replies);
    rshm_json_integer(j, "wrong_replies", row->wrong_replies);
    rshm_json_number(j, "ops_per_sec", rshm_bench_figure(row, RSHM_OPS_PER_S).median, 1);
    json_latency(j, row);
    rshm_json_open(j, "of_rounds", '{');
    rshm_json_integer(j, "rounds", row->round_count);
    json_figure(j, "ops_per_sec", rshm_bench_figure(row, RSHM_OPS_PER_S), 1);
    json_figure(j, "p50_us", rshm_bench_figure(row, RSHM_P50_US), 3);
    json_figure(j, "p99_us", rshm_bench_figure(row, RSHM_P99_US), 3);
    rshm_json_close(j, '}');
    if (base != NULL) {
        rshm_json_open(j, "times_better", '{');
        rshm_json_string(j, "than", rshm_bench_label(b, base, text, sizeof text));
        json_figure(j, "ops_per_sec", rshm_bench_ratio(row, base, RSHM_OPS_PER_S), 3);
        json_figure(j, "p50", rshm_bench_ratio(base, row, RSHM_P50_US), 3);
        json_figure(j, "p99", rshm_bench_ratio(base, row, RSHM_P99_US), 3);
        rshm_json_close(j, '}');
    }
    if (row->rate > 0) {
        rshm_json_open(j, "open_loop", '{');
        rshm_json_integer(j, "unsent", s.unsent);
        rshm_json_number(j, "own_delay_mean_us", (double)s.late_ns / (double)s.requests / 1e3, 3);
        rshm_json_number(j, "own_delay_max_us", (double)s.late_max_ns / 1e3, 3);
        rshm_json_close(j, '}');
    }
    rshm_json_open(j, "cpu_s_per_million", '{');
    rshm_json_number(j, "client", per_million(s.client_cpu_ns, s.requests), 3);
    rshm_json_number(j, "server", server_figure(b, per_million(s.server_cpu_ns, s.requests)), 3);
    rshm_json_close(j, '}');
    rshm_json_open(j, "context_switches_per_request", '{');
    rshm_json_number(j, "client", (double)s.client_switches / (double)s.requests, 4);
    rshm_json_number(j, "server", server_figure(b, (double)s.server_switches / (double)s.requests), 4);
    rshm_json_close(j, '}');
    rshm_json_close(j, '}');
}

void rshm_bench_write_json(const struct rshm_bench *b, FILE *to)
{
    struct rshm_json j = {.to = to};
    bool some_missing = false;
    rshm_json_open(&j, NULL, '{');
    json_host(&j, b);
    json_options(&j, b);
    rshm_json_bool(&j, "interrupted", b->interrupted);
    rshm_json_open(&j, "runs", '[');
    for (size_t i = 0; i < b->row_count; i++)
        if (b->rows[i].round_count > 0)
            json_run(&j, b, &b->rows[i]);
    rshm_json_close(&j, ']');
    for (size_t t = 0; t < RSHM_TRANSPORTS; t++)
        some_missing |= b->missing[t][0] != '\0';
    if (some_missing) {
        rshm_json_open(&j, "missing", '[');
        for (size_t t = 0; t < RSHM_TRANSPORTS; t++)
            if (b->missing[t][0] != '\0') {
                rshm_json_open(&j, NULL, '{');
                rshm_json_string(&j, "transport", rshm_transport_id((enum rshm_transport)t));
                rshm_json_string(&j, "reason", b->missing[t]);
                rshm_json_close(&j, '}');
            }
        rshm_json_close(&j, ']');
    }
    rshm_json_close(&j, '}');
}

/* ---- CSV ---- */

static void csv_text(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text != '\0'; text++)
        fprintf(to, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', to);
}

static void csv_number(FILE *to, double v)
{
    if (isfinite(v))
        fprintf(to, ",%.3f", v);
    else
        fputc(',', to);
}

void rshm_bench_write_csv(const struct rshm_bench *b, FILE *to)
{
    fputs("transport,mode,clients,pipeline,command,value_bytes,think_us,rate,requests,errors,ops_per_sec,ops_per_sec_min,ops_per_sec_max,"
          "min_us,mean_us,p50_us,p90_us,p99_us,p99_9_us,p99_99_us,max_us,client_cpu_s_per_million,server_cpu_s_per_million,"
          "client_switches_per_request,server_switches_per_request,missing\n", to);
    for (size_t i = 0; i < b->row_count; i++) {
        const struct rshm_bench_row *row = &b->rows[i];
        struct rshm_bench_sums s = rshm_bench_sums(row);
        struct rshm_bench_figure ops = rshm_bench_figure(row, RSHM_OPS_PER_S);
        char size[48];
        rshm_bench_size_text(&row->size, size, sizeof size);
        fprintf(to, "%s,%s,%zu,%zu,", rshm_transport_id(row->transport), row->transport == RSHM_MEMORY ? rshm_bench_mode_name(row->mode) : "",
                row->clients, row->pipeline);
        csv_text(to, b->options->command);
        fprintf(to, ",%s", size);
        csv_number(to, row->think_us);
        csv_number(to, row->rate > 0 ? row->rate : NAN);
        if (row->round_count == 0) {
            fputs(",0,0,,,,,,,,,,,,,,,,", to);
            csv_text(to, row->missing != NULL ? row->missing : "interrupted");
            fputc('\n', to);
            continue;
        }
        fprintf(to, ",%" PRIu64 ",%" PRIu64, s.requests, row->error_replies + row->wrong_replies);
        csv_number(to, ops.median);
        csv_number(to, ops.min);
        csv_number(to, ops.max);
        csv_number(to, (double)rshm_histogram_min(&row->latency) / 1e3);
        csv_number(to, rshm_histogram_mean(&row->latency) / 1e3);
        for (size_t n = 0; n < PERCENTILES; n++)
            csv_number(to, percentile_us(row, percentiles[n].share));
        csv_number(to, (double)rshm_histogram_max(&row->latency) / 1e3);
        csv_number(to, per_million(s.client_cpu_ns, s.requests));
        csv_number(to, server_figure(b, per_million(s.server_cpu_ns, s.requests)));
        csv_number(to, (double)s.client_switches / (double)s.requests);
        csv_number(to, server_figure(b, (double)s.server_switches / (double)s.requests));
        fputs(",\n", to);
    }
}

/* ---- HdrHistogram log ---- */

struct line {
    const struct rshm_bench_row *row;
    const struct rshm_bench_round *round;
};

/* A line a round, in order of time, tagged with the row. */
void rshm_bench_write_hdr_log(const struct rshm_bench *b, FILE *to)
{
    char tag[128];
    rshm_hdrlog_head(to, b->start_s, "redis-shm bench " RSHM_VERSION ", values in nanoseconds, a line for each round");
    double last_s = -1;
    for (;;) {
        struct line next = {0};
        for (size_t i = 0; i < b->row_count; i++)
            for (size_t n = 0; n < b->rows[i].round_count; n++) {
                const struct rshm_bench_round *r = &b->rows[i].rounds[n];
                if (r->begin_s > last_s && (next.round == NULL || r->begin_s < next.round->begin_s))
                    next = (struct line){&b->rows[i], r};
            }
        if (next.round == NULL)
            return;
        last_s = next.round->begin_s;
        rshm_bench_label(b, next.row, tag, sizeof tag);
        for (char *p = tag; *p != '\0'; p++)
            if (*p == ' ' || *p == ',')
                *p = '_';
        rshm_hdrlog_line(to, tag, next.round->begin_s, (double)next.round->elapsed_ns / 1e9, (double)next.round->max_ns, next.round->encoded);
    }
}
