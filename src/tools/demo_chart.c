/* demo_chart.c - the demo's bar chart: a gnuplot script with the figures in it, and gnuplot run on it. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "tools/demo.h"
#include "tools/gnuplot.h"
#include "tools/tools.h"

#define SCRIPT "latency_barchart.gp"

static double p50_us(const struct rshm_part *p, enum rshm_transport t)
{
    return (double)p->of[t].summary.p50_ns / 1000;
}

static double times(const struct rshm_part *p, enum rshm_transport slow)
{
    double fast_us = p50_us(p, RSHM_MEMORY);
    return fast_us > 0 ? p50_us(p, slow) / fast_us : 0;
}

/* The figures, and a tic and a remark for each group. Returns how many groups there are. */
static int groups(const struct rshm_demo *d, FILE *f)
{
    static const char *const names[] = {
        "the machine as it is:\\nCPUs may sleep while they wait",
        "CPUs kept awake:\\nan idle-class busy process on each",
    };
    int n = 0;
    fputs("# p50 in microseconds: TCP, Unix socket, shared memory\n$p50 << END\n", f);
    for (int i = 0; i < RSHM_PARTS; i++) {
        const struct rshm_part *p = &d->parts[i];
        if (p->measured)
            fprintf(f, "%.3f %.3f %.3f\n", p50_us(p, RSHM_TCP), p50_us(p, RSHM_UNIX), p50_us(p, RSHM_MEMORY));
    }
    fputs("END\nset xtics scale 0 ()\n", f);
    for (int i = 0; i < RSHM_PARTS; i++) {
        const struct rshm_part *p = &d->parts[i];
        if (!p->measured)
            continue;
        fprintf(f, "set xtics add (\"%s\" %d)\n", names[i], n);
        fprintf(f, "set label \"Unix ÷ %.*f\\nTCP ÷ %.*f\" at %d + step, %.3f center offset 0,3.1 font ',10' "
                "tc rgb '#b03a05'\n",
                times(p, RSHM_UNIX) < 10, times(p, RSHM_UNIX), times(p, RSHM_TCP) < 10, times(p, RSHM_TCP), n, p50_us(p, RSHM_MEMORY));
        n++;
    }
    return n;
}

/* The axis begins at a power of ten well below the lowest bar, so that it too has a height, and leaves room for the labels. */
static void axis(const struct rshm_demo *d, FILE *f)
{
    double low = INFINITY, high = 0;
    for (int i = 0; i < RSHM_PARTS; i++)
        for (enum rshm_transport t = RSHM_TCP; d->parts[i].measured && t < RSHM_TRANSPORTS; t++) {
            low = fmin(low, p50_us(&d->parts[i], t));
            high = fmax(high, p50_us(&d->parts[i], t));
        }
    fprintf(f, "set yrange [%g:%g]\n", pow(10, floor(log10(fmax(low, 0.001) / 3))), fmax(high, 0.01) * 3);
}

static void script(const struct rshm_demo *d, FILE *f)
{
    fputs("width = 0.25\nstep = width * 1.08\n", f);
    int n = groups(d, f);
    fprintf(f, "set xrange [-0.6:%g]\n", n - 0.4);
    axis(d, f);
    fprintf(f,
            "set title \"Redis GET of a %d-byte value: time to the reply, median (p50)\" font ',16' offset 0,0.9\n"
            "set label 99 \"%s, %d CPU%s · %s · %s\" at graph 0.5, 1.04 center noenhanced tc rgb '#444444'\n",
            RSHM_VALUE_BYTES, d->host.cpu, d->host.cpus, d->host.cpus == 1 ? "" : "s", d->host.kernel, d->server_version);
    fputs("set encoding utf8\n"
          "set ylabel 'microseconds, logarithmic scale (lower is better)'\n"
          "set logscale y 10\n"
          "set format y '%g'\n"
          "set mytics 10\n"
          "set style fill solid 1.0 noborder\n"
          "set grid ytics mytics lt 1 lw 1.2 lc rgb '#cccccc', lt 1 lw 0.6 lc rgb '#eeeeee'\n"
          "set border 3 lc rgb '#444444'\n"
          "set tics nomirror textcolor rgb '#222222'\n"
          "set key bmargin center horizontal reverse Left samplen 1.2 spacing 1.3\n"
          "set tmargin 5.5\n"
          "set bmargin 6\n"
          "shown(y) = y < 10 ? sprintf('%.2f µs', y) : y < 100 ? sprintf('%.1f µs', y) : sprintf('%.0f µs', y)\n"
          "bar(i) = $0 + (i - 1) * step\n"
          "array colour[3] = [0x8a8f98, 0x3b7dc4, 0xd9480f]\n" /* apart in lightness too, for eyes that do not tell red from blue */
          "array name[3] = ['TCP', 'Unix socket', 'shared memory']\n"
          "draw = \"plot for [i=0:2] $p50 using (bar(i)):(column(i + 1)):(width) with boxes lc rgb colour[i + 1] title name[i + 1],"
          " for [i=0:2] $p50 using (bar(i)):(column(i + 1)):(shown(column(i + 1))) with labels offset 0,0.9 tc rgb '#111111'"
          " notitle\"\n"
          "if (strstrt(GPVAL_TERMINALS, 'pngcairo') > 0) {\n"
          "    set terminal pngcairo size 1000,640 font 'DejaVu Sans,12' background rgb 'white'\n"
          "} else {\n"
          "    set terminal png size 1000,640\n"
          "}\n"
          "set output 'latency_barchart.png'\n"
          "@draw\n"
          "set terminal svg size 1000,640 font 'DejaVu Sans,12' background rgb 'white'\n"
          "set output 'latency_barchart.svg'\n"
          "@draw\n"
          "set output\n",
          f);
}

int rshm_demo_draw(const struct rshm_demo *d, const char *dir)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" SCRIPT, dir);
    FILE *f = fopen(path, "we");
    if (f == NULL) {
        int error = errno;
        rshm_complain("cannot write %s: %s", path, strerror(error));
        return -error;
    }
    script(d, f);
    bool bad = ferror(f);
    if (fclose(f) != 0 || bad) {
        rshm_complain("cannot write %s", path);
        return -EIO;
    }
    int r = rshm_gnuplot_run(dir, SCRIPT, -1);
    if (r == RSHM_NO_GNUPLOT) {
        rshm_complain("no chart: gnuplot is not installed (on Debian and Ubuntu: sudo apt-get install gnuplot-nox)");
        return -ENOENT;
    }
    if (r != 0 && r != -EINTR)
        rshm_complain("no chart: gnuplot failed on %s", path);
    return r > 0 ? -EIO : r;
}
