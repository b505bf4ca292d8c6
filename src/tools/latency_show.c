/* latency_show.c - how redis-shm latency tells what it measured; see latency.h. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/json.h"
#include "tools/latency.h"

static const struct {
    double share;
    const char *name;
} percentiles[] = {{0.5, "p50"}, {0.9, "p90"}, {0.99, "p99"}, {0.999, "p99.9"}, {0.9999, "p99.99"}};
#define PERCENTILES (sizeof percentiles / sizeof percentiles[0])

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

/* Three digits behind the point, as long as that stays within seven characters. */
static const char *figure(double value_us, char text[24])
{
    snprintf(text, 24, "%.*f", value_us < 1000 ? 3 : value_us < 100000 ? 1 : 0, value_us);
    return text;
}

void rshm_latency_line(const struct rshm_histogram *h, char *text, size_t text_bytes)
{
    char f[5][24];
    snprintf(text, text_bytes, "min %s, avg %s, p50 %s, p99 %s, max %s us (%" PRIu64 " samples)", figure(us(rshm_histogram_min(h)), f[0]),
             figure(rshm_histogram_mean(h) / 1e3, f[1]), figure(us(rshm_histogram_percentile_ns(h, 0.5)), f[2]),
             figure(us(rshm_histogram_percentile_ns(h, 0.99)), f[3]), figure(us(rshm_histogram_max(h)), f[4]), rshm_histogram_count(h));
}

/* 80 columns. */
static void row(const char *what, const struct rshm_histogram *h, FILE *to)
{
    char f[24];
    fprintf(to, "%-7s %8" PRIu64 " %7s", what, rshm_histogram_count(h), figure(us(rshm_histogram_min(h)), f));
    fprintf(to, " %7s", figure(rshm_histogram_mean(h) / 1e3, f));
    for (size_t i = 0; i < PERCENTILES; i++)
        fprintf(to, " %7s", figure(us(rshm_histogram_percentile_ns(h, percentiles[i].share)), f));
    fprintf(to, " %7s\n", figure(us(rshm_histogram_max(h)), f));
}

void rshm_latency_summary(const struct rshm_latency *l, FILE *to)
{
    fprintf(to, "PING over %s to %s, ", l->transport, l->where);
    if (l->rate_hz > 0)
        fprintf(to, "%g a second", l->rate_hz);
    else
        fputs("back to back", to);
    fprintf(to, ", %.2f s; microseconds:\n%-7s %8s %7s %7s", l->total_seconds, "", "samples", "min", "avg");
    for (size_t i = 0; i < PERCENTILES; i++)
        fprintf(to, " %7s", percentiles[i].name);
    fprintf(to, " %7s\n", "max");
    row(l->transport_id, &l->total, to);
    if (l->intrinsic.seconds > 0) {
        row("machine", &l->intrinsic.absences, to);
        fprintf(to, "machine: a loop that only read the clock, %.2f s before; the times it was stopped\n"
                    "for %.3f us or longer, %.3f %% in all. No request can be steadier than that.\n",
                l->intrinsic.seconds, us(l->intrinsic.threshold_ns), l->intrinsic.away_share * 100);
    }
}

static void json_figures(struct rshm_json *j, const struct rshm_histogram *h)
{
    char name[24];
    rshm_json_integer(j, "samples", rshm_histogram_count(h));
    rshm_json_number(j, "min_us", us(rshm_histogram_min(h)), 3);
    rshm_json_number(j, "avg_us", rshm_histogram_mean(h) / 1e3, 3);
    for (size_t i = 0; i < PERCENTILES; i++) {
        snprintf(name, sizeof name, "%s_us", percentiles[i].name);
        for (char *dot = name; (dot = strchr(dot, '.')) != NULL;)
            *dot = '_';
        rshm_json_number(j, name, us(rshm_histogram_percentile_ns(h, percentiles[i].share)), 3);
    }
    rshm_json_number(j, "max_us", us(rshm_histogram_max(h)), 3);
}

void rshm_latency_json(const struct rshm_latency *l, const struct rshm_histogram *h, double from_s, double seconds, FILE *to)
{
    struct rshm_json j = {.to = to};
    rshm_json_open(&j, NULL, '{');
    rshm_json_string(&j, "transport", l->transport_id);
    rshm_json_string(&j, "server", l->where);
    rshm_json_number(&j, "rate_hz", l->rate_hz, 3);
    rshm_json_number(&j, "from_s", from_s, 3);
    rshm_json_number(&j, "seconds", seconds, 3);
    json_figures(&j, h);
    if (l->intrinsic.seconds > 0) {
        rshm_json_open(&j, "intrinsic", '{');
        rshm_json_number(&j, "seconds", l->intrinsic.seconds, 3);
        rshm_json_number(&j, "threshold_us", us(l->intrinsic.threshold_ns), 3);
        rshm_json_number(&j, "away_percent", l->intrinsic.away_share * 100, 4);
        json_figures(&j, &l->intrinsic.absences);
        rshm_json_close(&j, '}');
    }
    rshm_json_close(&j, '}');
}

/* ---- the spectrum ---- */

#define COLUMNS 70           /* from 0.5 us to 65 ms, and one at each end for what is beyond */
#define COLUMN_FROM_NS 500.0
#define COLUMNS_PER_DOUBLING 4

static const struct {
    double share; /* from this share of the row's samples on */
    char plain;
    int colour; /* of the 256 */
} shades[] = {{0, ' ', -1}, {1e-12, '.', 236}, {0.001, ':', 239}, {0.01, '-', 25}, {0.05, '+', 35}, {0.1, '*', 178}, {0.25, '#', 208}, {0.5, '@', 196}};
#define SHADES (sizeof shades / sizeof shades[0])

static size_t column_of(double ns)
{
    if (ns < COLUMN_FROM_NS)
        return 0;
    double column = floor(log2(ns / COLUMN_FROM_NS) * COLUMNS_PER_DOUBLING) + 1;
    return column >= COLUMNS ? COLUMNS - 1 : (size_t)column;
}

static void paint(size_t shade, bool colours, FILE *to)
{
    if (!colours)
        fputc(shades[shade].plain, to);
    else if (shades[shade].colour < 0)
        fputs("\033[0m ", to);
    else
        fprintf(to, "\033[48;5;%dm ", shades[shade].colour);
}

void rshm_latency_dist_legend(bool colours, FILE *to)
{
    static const struct {
        double ns;
        const char *label;
    } ticks[] = {{1e3, "|1us"}, {1e4, "|10us"}, {1e5, "|100us"}, {1e6, "|1ms"}, {1e7, "|10ms"}};
    char line[COLUMNS + 8];
    memset(line, ' ', sizeof line);
    for (size_t i = 0; i < sizeof ticks / sizeof ticks[0]; i++)
        memcpy(line + column_of(ticks[i].ns * 1.0001), ticks[i].label, strlen(ticks[i].label));
    fprintf(to, "%.*s %9s\n", COLUMNS, line, "p50 us");
    for (size_t i = 1; i < SHADES; i++) {
        paint(i, colours, to);
        fprintf(to, "%s%s%g %%%s", colours ? "\033[0m" : "", i == 1 ? " above " : " from ", i == 1 ? 0.0 : shades[i].share * 100,
                i + 1 < SHADES ? "  " : " of the samples\n");
    }
}

void rshm_latency_dist_row(const struct rshm_histogram *h, bool colours, FILE *to)
{
    uint64_t columns[COLUMNS] = {0};
    for (size_t i = 0, n = rshm_histogram_buckets(); i < n; i++)
        if (h->counts[i] != 0)
            columns[column_of((double)rshm_histogram_bucket_low(i))] += h->counts[i];
    for (size_t i = 0; i < COLUMNS; i++) {
        double share = h->count == 0 ? 0 : (double)columns[i] / (double)h->count;
        size_t shade = 0;
        while (shade + 1 < SHADES && share >= shades[shade + 1].share)
            shade++;
        paint(shade, colours, to);
    }
    fprintf(to, "%s %9.3f\n", colours ? "\033[0m" : "", us(rshm_histogram_percentile_ns(h, 0.5)));
}
