/* demo_report.c - the demo's figures as tables, in words and as JSON. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "tools/demo.h"
#include "tools/json.h"
#include "tools/tools.h"

#define P50_RATIO_WANTED 40.0
/* Of one CPU. What else runs is known to a clock tick only, and a quiet machine's own housekeeping stays below this. */
#define OTHERS_WORTH_A_WORD 0.1
/* Times; p50 of undisturbed rounds stays within 1.2, one that lost its CPU to another process leaps by ten. */
#define ROUNDS_AGREE_WITHIN 2.0

double rshm_ops_per_s(const struct rshm_series *s)
{
    return s->elapsed_ns == 0 ? 0 : (double)s->samples.count * 1e9 / (double)s->elapsed_ns;
}

double rshm_cpu_s_per_million(const struct rshm_series *s, uint64_t cpu_ns)
{
    return s->samples.count == 0 ? 0 : (double)cpu_ns * 1e-9 * 1e6 / (double)s->samples.count;
}

static double us(uint64_t ns)
{
    return (double)ns / 1000;
}

static double ratio(uint64_t slow_ns, uint64_t fast_ns)
{
    return fast_ns == 0 ? 0 : (double)slow_ns / (double)fast_ns;
}

static const char *part_name(const struct rshm_part *p)
{
    return p->awake ? "CPUs kept awake" : "machine as it is";
}

static double times_better(const struct rshm_part *p, enum rshm_transport slow, enum rshm_transport fast)
{
    return ratio(p->of[slow].summary.p50_ns, p->of[fast].summary.p50_ns);
}

size_t rshm_demo_errors(const struct rshm_demo *d)
{
    size_t errors = 0;
    for (int i = 0; i < RSHM_PARTS; i++)
        for (int t = 0; t < RSHM_TRANSPORTS; t++)
            errors += d->parts[i].of[t].errors;
    return errors;
}

struct rshm_targets rshm_demo_targets(const struct rshm_demo *d)
{
    const struct rshm_part *p = &d->parts[RSHM_PART_IDLE];
    struct rshm_targets t = {
        .p50_ratio = times_better(p, RSHM_UNIX, RSHM_MEMORY),
        .p50_ratio_wanted = P50_RATIO_WANTED,
        .memory_p99_9_ns = p->of[RSHM_MEMORY].summary.p99_9_ns,
        .unix_p50_ns = p->of[RSHM_UNIX].summary.p50_ns,
    };
    t.p50_reached = t.p50_ratio >= t.p50_ratio_wanted;
    t.p99_9_reached = t.memory_p99_9_ns < t.unix_p50_ns;
    return t;
}

/* ---- tables ---- */

static void print_times(FILE *to, double times)
{
    if (times < 10)
        fprintf(to, " %7.1f", times);
    else
        fprintf(to, " %7.0f", times);
}

static void print_row(const struct rshm_part *p, enum rshm_transport t, FILE *to)
{
    const struct rshm_series *s = &p->of[t];
    fprintf(to, "%-13s %8.2f %8.2f %8.2f %8.2f %8.0f %10.0f", rshm_transport_name(t), s->summary.mean_ns / 1000,
            us(s->summary.p50_ns), us(s->summary.p99_ns), us(s->summary.p99_9_ns), us(s->summary.max_ns), rshm_ops_per_s(s));
    for (enum rshm_transport other = RSHM_TCP; other <= RSHM_UNIX; other++)
        if (other < t)
            print_times(to, times_better(p, other, t));
        else
            fprintf(to, " %7s", "");
    fprintf(to, " %8.2f %7.2f   %.2f (%.2f-%.2f)\n", rshm_cpu_s_per_million(s, s->client_cpu_ns),
            rshm_cpu_s_per_million(s, s->server_cpu_ns), us(s->p50_of_rounds.median_ns), us(s->p50_of_rounds.min_ns),
            us(s->p50_of_rounds.max_ns));
}

static void print_table(const struct rshm_part *p, FILE *to)
{
    fprintf(to, "\n%s\n\n", p->awake ? "CPUs kept awake by an idle-class busy process on each"
                                     : "The machine as it is: a CPU that waits for a socket may fall asleep");
    fprintf(to, "%-13s %44s %10s %15s %16s   %s\n", "", "---------- latency, microseconds ----------", "requests", "times better",
            "CPU s / million", "p50 of the rounds, us:");
    fprintf(to, "%-13s %8s %8s %8s %8s %8s %10s %7s %7s %8s %7s   %s\n", "", "mean", "p50", "p99", "p99.9", "max", "per second",
            "TCP", "Unix", "client", "server", "median (from-to)");
    for (enum rshm_transport t = RSHM_TCP; t < RSHM_TRANSPORTS; t++)
        print_row(p, t, to);
}

/* ---- in words ---- */

static void print_headline(const struct rshm_demo *d, FILE *to)
{
    const struct rshm_part *idle = &d->parts[RSHM_PART_IDLE], *awake = &d->parts[RSHM_PART_AWAKE];
    fprintf(to, "\nShared memory answers in %.2f us: %.3g times as fast as the Unix socket (%.3g times TCP) where CPUs sleep while\n"
            "they wait for a socket", us(idle->of[RSHM_MEMORY].summary.p50_ns), times_better(idle, RSHM_UNIX, RSHM_MEMORY),
            times_better(idle, RSHM_TCP, RSHM_MEMORY));
    if (awake->measured)
        fprintf(to, "; in %.2f us, %.3g times as fast (%.3g times TCP), with the CPUs kept awake",
                us(awake->of[RSHM_MEMORY].summary.p50_ns), times_better(awake, RSHM_UNIX, RSHM_MEMORY),
                times_better(awake, RSHM_TCP, RSHM_MEMORY));
    fputs(".\n", to);
}

static void print_targets(const struct rshm_demo *d, FILE *to)
{
    struct rshm_targets t = rshm_demo_targets(d);
    fprintf(to, "\nTargets, on the idle machine:\n"
            "  p50 at least %.0f times below the Unix socket's:  %s: %.1f times\n"
            "  p99.9 below the Unix socket's p50:              %s: %.2f us against %.2f us\n",
            t.p50_ratio_wanted, t.p50_reached ? "reached" : "not reached", t.p50_ratio, t.p99_9_reached ? "reached" : "not reached",
            us(t.memory_p99_9_ns), us(t.unix_p50_ns));
}

/* A pooled percentile counts requests, so fast rounds weigh more than slow ones. Where that matters, it is said. */
static void print_disagreement(const struct rshm_demo *d, FILE *to)
{
    bool first = true;
    for (int i = 0; i < RSHM_PARTS; i++)
        for (enum rshm_transport t = RSHM_TCP; d->parts[i].measured && t < RSHM_TRANSPORTS; t++) {
            const struct rshm_spread *r = &d->parts[i].of[t].p50_of_rounds;
            if ((double)r->max_ns <= ROUNDS_AGREE_WITHIN * (double)r->min_ns)
                continue;
            if (first)
                fputs("\nRounds disagree: by what else ran, or by whether client and server were put on one CPU or on two. "
                      "p50 of the rounds:\n", to);
            first = false;
            fprintf(to, "  %-14s %-16s from %.2f to %.2f us, median %.2f us\n", rshm_transport_name(t), part_name(&d->parts[i]),
                    us(r->min_ns), us(r->max_ns), us(r->median_ns));
        }
}

static void print_caveats(const struct rshm_demo *d, FILE *to)
{
    if (d->host.cpus == 1)
        fputs("\nThis process may use one CPU only: client and server take turns on it, so nobody can wait in memory for the other,\n"
              "and every request needs a change of processes as with a socket. Expect no gain over a socket here; the targets are for two\n"
              "CPUs or more.\n", to);
    for (int i = 0; i < RSHM_PARTS; i++) {
        const struct rshm_part *p = &d->parts[i];
        if (!p->measured)
            continue;
        if (p->others_cpus > OTHERS_WORTH_A_WORD)
            fprintf(to, "\nOther processes kept %.1f CPUs busy meanwhile (%s). That moves the figures: repeat it when all is quiet.\n", p->others_cpus, part_name(p));
        if (p->stolen_cpus > OTHERS_WORTH_A_WORD)
            fprintf(to, "\nThe hypervisor withheld %.1f CPUs meanwhile (%s): the machine's neighbours are in the figures.\n",
                    p->stolen_cpus, part_name(p));
    }
    print_disagreement(d, to);
}

void rshm_demo_print(const struct rshm_demo *d, FILE *to)
{
    for (int i = 0; i < RSHM_PARTS; i++)
        if (d->parts[i].measured)
            print_table(&d->parts[i], to);
    print_headline(d, to);
    print_targets(d, to);
    print_caveats(d, to);
    if (rshm_demo_errors(d) > 0)
        fprintf(to, "\n%zu replies were not the value that was asked for.\n", rshm_demo_errors(d));
}

/* ---- JSON ---- */

static void json_run(struct rshm_json *j, const struct rshm_part *p, enum rshm_transport t)
{
    const struct rshm_series *s = &p->of[t];
    rshm_json_open(j, NULL, '{');
    rshm_json_string(j, "transport", rshm_transport_id(t));
    rshm_json_string(j, "cpus", p->awake ? "awake" : "idle");
    rshm_json_integer(j, "requests", s->samples.count);
    rshm_json_integer(j, "errors", s->errors);
    rshm_json_number(j, "ops_per_sec", rshm_ops_per_s(s), 1);
    rshm_json_open(j, "latency_us", '{');
    rshm_json_number(j, "mean", s->summary.mean_ns / 1000, 3);
    rshm_json_number(j, "p50", us(s->summary.p50_ns), 3);
    rshm_json_number(j, "p99", us(s->summary.p99_ns), 3);
    rshm_json_number(j, "p99_9", us(s->summary.p99_9_ns), 3);
    rshm_json_number(j, "max", us(s->summary.max_ns), 3);
    rshm_json_close(j, '}');
    rshm_json_open(j, "p50_us_of_rounds", '{');
    rshm_json_integer(j, "rounds", s->rounds);
    rshm_json_number(j, "median", us(s->p50_of_rounds.median_ns), 3);
    rshm_json_number(j, "min", us(s->p50_of_rounds.min_ns), 3);
    rshm_json_number(j, "max", us(s->p50_of_rounds.max_ns), 3);
    rshm_json_close(j, '}');
    rshm_json_open(j, "cpu_s_per_million", '{');
    rshm_json_number(j, "client", rshm_cpu_s_per_million(s, s->client_cpu_ns), 3);
    rshm_json_number(j, "server", rshm_cpu_s_per_million(s, s->server_cpu_ns), 3);
    rshm_json_close(j, '}');
    rshm_json_close(j, '}');
}

static void json_all(struct rshm_json *j, const struct rshm_demo *d)
{
    const struct rshm_part *idle = &d->parts[RSHM_PART_IDLE];
    struct rshm_targets t = rshm_demo_targets(d);
    rshm_json_open(j, NULL, '{');
    rshm_json_open(j, "host", '{');
    rshm_json_string(j, "cpu", d->host.cpu);
    rshm_json_integer(j, "cpus", (uint64_t)d->host.cpus);
    rshm_json_string(j, "kernel", d->host.kernel);
    rshm_json_string(j, "server", d->server_version);
    rshm_json_string(j, "redis_shm", RSHM_VERSION);
    rshm_json_number(j, "load_1m", d->host.load_1m, 2);
    if (idle->others_cpus >= 0) {
        rshm_json_number(j, "others_busy_cpus", idle->others_cpus, 2);
        rshm_json_number(j, "stolen_cpus", idle->stolen_cpus, 2);
    }
    rshm_json_close(j, '}');
    rshm_json_integer(j, "value_bytes", RSHM_VALUE_BYTES);
    rshm_json_open(j, "runs", '[');
    for (int i = 0; i < RSHM_PARTS; i++)
        for (enum rshm_transport of = RSHM_TCP; d->parts[i].measured && of < RSHM_TRANSPORTS; of++)
            json_run(j, &d->parts[i], of);
    rshm_json_close(j, ']');
    rshm_json_open(j, "targets", '{');
    rshm_json_bool(j, "p50_40_times_below_unix", t.p50_reached);
    rshm_json_bool(j, "p99_9_below_unix_p50", t.p99_9_reached);
    rshm_json_close(j, '}');
    rshm_json_close(j, '}');
}

int rshm_demo_write_json(const struct rshm_demo *d, const char *dir)
{
    char path[PATH_MAX], draft[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/latency.json", dir) >= sizeof path ||
        (size_t)snprintf(draft, sizeof draft, "%s/latency.json.new", dir) >= sizeof draft) {
        rshm_complain("%s: %s", dir, strerror(ENAMETOOLONG));
        return -ENAMETOOLONG;
    }
    FILE *f = fopen(draft, "we");
    int error = f == NULL ? errno : 0;
    if (f != NULL) {
        struct rshm_json j = {.to = f};
        json_all(&j, d);
        bool bad = ferror(f);
        if (fclose(f) != 0 || bad || rename(draft, path) != 0)
            error = errno != 0 ? errno : EIO;
    }
    if (error != 0) {
        rshm_complain("cannot write %s: %s", path, strerror(error));
        unlink(draft);
    }
    return -error;
}
