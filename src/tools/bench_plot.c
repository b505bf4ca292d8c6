/* bench_plot.c - three charts in one picture: p50 as bars, the percentile spectrum, and throughput against latency. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hiredis_shm.h"
#include "tools/bench.h"
#include "tools/bench_text.h"
#include "tools/gnuplot.h"
#include "tools/tools.h"

#define SCRIPT "bench.gp"
#define SPECTRA_MAX 8 /* curves that can be told apart; the first rows */

/* Colours that are apart in lightness too: TCP, Unix socket, shared memory in its modes. Rows of one series share one, and differ in dashes. */
static const char *const colours[] = {"#8a8f98", "#3b7dc4", "#d9480f", "#7a1f0a", "#f0a35e"};
#define COLOURS (sizeof colours / sizeof colours[0])
_Static_assert(COLOURS == RSHM_TRANSPORTS + REDIS_SHM_WAIT_BLOCK, "a colour for each");

static size_t colour(const struct rshm_bench_row *row)
{
    return (size_t)row->transport + (row->transport == RSHM_MEMORY ? (size_t)row->mode : 0);
}

/* In a gnuplot string of single quotes, which some versions cannot have inside; nor anything that it might run. */
static void put_quoted(FILE *f, const char *text)
{
    fputc('\'', f);
    for (; *text != '\0'; text++)
        fputc(*text == '\'' || *text == '`' ? '"' : *text, f);
    fputc('\'', f);
}

static bool same_series(const struct rshm_bench_row *a, const struct rshm_bench_row *b)
{
    return a->of_transport == b->of_transport && a->mode == b->mode;
}

static double us(const struct rshm_bench_row *row, double share)
{
    return (double)rshm_histogram_percentile_ns(&row->latency, share) / 1e3;
}

/* The figures, as named blocks: $bars, $spectrum_N a row, $load_N a series. Returns how many rows there are. */
static size_t data(const struct rshm_bench *b, FILE *f)
{
    size_t n = 0;
    fputs("$bars << END\n", f);
    for (size_t i = 0; i < b->row_count; i++)
        if (b->rows[i].round_count > 0)
            fprintf(f, "%zu %.3f %d\n", n++, us(&b->rows[i], 0.5), (int)colour(&b->rows[i]));
    fputs("END\n", f);
    for (size_t i = 0, k = 0; i < b->row_count && k < SPECTRA_MAX; i++) {
        const struct rshm_bench_row *row = &b->rows[i];
        double share = 0;
        if (row->round_count == 0)
            continue;
        fprintf(f, "$spectrum_%zu << END\n", k++);
        for (size_t s = 0; (share = rshm_bench_spectrum_share(s, rshm_histogram_count(&row->latency))) < 1; s++)
            fprintf(f, "%.9g %.3f\n", 1 / (1 - share), us(row, share));
        fprintf(f, "%.9g %.3f\nEND\n", (double)rshm_histogram_count(&row->latency), us(row, 1));
    }
    for (size_t i = 0; i < b->row_count; i++) {
        bool first = b->rows[i].round_count > 0;
        for (size_t k = 0; k < i; k++)
            first &= b->rows[k].round_count == 0 || !same_series(&b->rows[k], &b->rows[i]);
        if (!first)
            continue;
        fprintf(f, "$load_%zu << END\n", i);
        for (size_t k = i; k < b->row_count; k++)
            if (b->rows[k].round_count > 0 && same_series(&b->rows[k], &b->rows[i]))
                fprintf(f, "%.3f %.3f %.3f\n", rshm_bench_figure(&b->rows[k], RSHM_OPS_PER_S).median, us(&b->rows[k], 0.5), us(&b->rows[k], 0.99));
        fputs("END\n", f);
    }
    return n;
}

static void bars(const struct rshm_bench *b, size_t rows, FILE *f)
{
    double low = INFINITY, high = 0;
    char label[128];
    for (size_t i = 0; i < b->row_count; i++)
        if (b->rows[i].round_count > 0)
            low = fmin(low, us(&b->rows[i], 0.5)), high = fmax(high, us(&b->rows[i], 0.5));
    /* Room above the highest bar for its label. */
    fprintf(f, "set title 'median (p50)'\nset ylabel 'microseconds'\nset logscale y 10\nset yrange [%g:%g]\nset xrange [-0.7:%g]\n"
            "set xtics %s noenhanced scale 0 (", pow(10, floor(log10(fmax(low, 0.001) / 3))), fmax(high, 0.001) * 3, (double)rows - 0.3,
            rows > 3 ? "rotate by 45 right" : "norotate center");
    for (size_t i = 0, n = 0; i < b->row_count; i++)
        if (b->rows[i].round_count > 0) {
            fputs(n > 0 ? ", " : "", f);
            put_quoted(f, rshm_bench_label(b, &b->rows[i], label, sizeof label));
            fprintf(f, " %zu", n++);
        }
    fputs(")\n", f);
    fputs("set style fill solid 1.0 noborder\nshown(y) = y < 10 ? sprintf('%.2f', y) : y < 100 ? sprintf('%.1f', y) : sprintf('%.0f', y)\nplot ", f);
    for (size_t c = 0; c < COLOURS; c++)
        fprintf(f, "$bars using ($3 == %zu ? $1 : NaN):2:(0.7) with boxes lc rgb '%s' notitle, ", c, colours[c]);
    fputs("$bars using 1:2:(shown($2)) with labels offset 0,0.7 notitle\n", f);
}

static void spectra(const struct rshm_bench *b, FILE *f)
{
    char label[128];
    size_t k = 0;
    fputs("set title 'percentile spectrum'\nset xlabel 'percentile'\nset logscale x 10\nset xrange [1:*]\nset yrange [*:*]\n"
          "set xtics norotate center scale 1 ('0' 1, '90' 10, '99' 100, '99.9' 1000, '99.99' 10000, '99.999' 100000, '99.9999' 1000000)\nset key bmargin center horizontal samplen 2\nplot ", f);
    for (size_t i = 0; i < b->row_count && k < SPECTRA_MAX; i++)
        if (b->rows[i].round_count > 0) {
            size_t dashes = 1;
            for (size_t before = 0; before < i; before++)
                dashes += b->rows[before].round_count > 0 && same_series(&b->rows[before], &b->rows[i]);
            fprintf(f, "%s$spectrum_%zu using 1:2 with lines lw 2 dt %zu lc rgb '%s' title ", k > 0 ? ", " : "", k, dashes,
                    colours[colour(&b->rows[i])]);
            put_quoted(f, rshm_bench_label(b, &b->rows[i], label, sizeof label));
            fputs(" noenhanced", f);
            k++;
        }
    fputs("\n", f);
}

static void load(const struct rshm_bench *b, FILE *f)
{
    char name[64];
    bool begun = false;
    int point = 5;
    fputs("set title 'latency against requests per second'\nunset xlabel\nset xrange [*:*]\nset xtics autofreq\nset yrange [*:*]\nset format x '%.0s%c'\nplot ", f);
    for (size_t i = 0; i < b->row_count; i++) {
        const struct rshm_bench_row *row = &b->rows[i];
        bool first = row->round_count > 0;
        for (size_t k = 0; k < i; k++)
            first &= b->rows[k].round_count == 0 || !same_series(&b->rows[k], row);
        if (!first)
            continue;
        snprintf(name, sizeof name, "%s%s%s", rshm_transport_id(row->transport), row->transport == RSHM_MEMORY ? " " : "",
                 row->transport == RSHM_MEMORY ? rshm_bench_mode_name(row->mode) : "");
        fprintf(f, "%s$load_%zu using 1:2 with linespoints lw 2 pt %d lc rgb '%s' title '%s, p50', $load_%zu using 1:3 with linespoints dt 2 pt %d "
                "lc rgb '%s' title '%s, p99'", begun ? ", " : "", i, point, colours[colour(row)], name, i, point + 1, colours[colour(row)], name);
        begun = true;
        point += 2;
    }
    fputs("\n", f);
}

static void script(const struct rshm_bench *b, bool svg, FILE *f)
{
    char size[48];
    size_t rows = data(b, f);
    rshm_bench_size_text(&b->options->sizes[0], size, sizeof size);
    fprintf(f, "set encoding utf8\n%s\n", svg ? "set terminal svg size 1500,620 font 'DejaVu Sans,11' background rgb 'white'"
                                                         : "if (strstrt(GPVAL_TERMINALS, 'pngcairo') > 0) {\n"
                                                           "    set terminal pngcairo size 1500,620 font 'DejaVu Sans,11' background rgb 'white'\n"
                                                           "} else {\n    set terminal png size 1500,620\n}");
    fputs("set multiplot layout 1,3 title ", f);
    char title[512];
    snprintf(title, sizeof title, "redis-shm bench: %s%s%s · %s, %d CPU%s · %s", b->options->command,
             rshm_workload_has_values(&b->workload) && b->options->size_count == 1 ? ", bytes: " : "",
             rshm_workload_has_values(&b->workload) && b->options->size_count == 1 ? size : "", b->host.cpu, b->host.cpus,
             b->host.cpus == 1 ? "" : "s", b->server_version);
    put_quoted(f, title);
    fputs(" noenhanced\nset border 3 lc rgb '#444444'\nset tics nomirror\nset format y '%g'\n"
          "set grid ytics mytics lt 1 lw 1 lc rgb '#cccccc', lt 1 lw 0.5 lc rgb '#eeeeee'\n", f);
    bars(b, rows, f);
    spectra(b, f);
    load(b, f);
    fputs("unset multiplot\n", f);
}

int rshm_bench_draw(const struct rshm_bench *b, int out_fd, bool svg)
{
    char dir[] = "/tmp/redis-shm-plot.XXXXXX", path[PATH_MAX];
    int r = 0;
    if (mkdtemp(dir) == NULL) {
        r = -errno;
        rshm_complain("no chart: cannot make a directory in /tmp: %s", strerror(-r));
        return r;
    }
    snprintf(path, sizeof path, "%s/" SCRIPT, dir);
    FILE *f = fopen(path, "we");
    if (f != NULL)
        script(b, svg, f);
    bool bad = f == NULL || ferror(f);
    if (f != NULL && fclose(f) != 0)
        bad = true;
    if (bad) {
        rshm_complain("cannot write %s", path);
        r = -EIO;
    } else {
        r = rshm_gnuplot_run(dir, SCRIPT, out_fd);
        if (r > 0)
            rshm_complain("gnuplot failed: no chart");
        r = r > 0 ? -EIO : r;
    }
    unlink(path);
    rmdir(dir);
    return r;
}
