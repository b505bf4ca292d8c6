/* demo.c - redis-shm demo: the same GETs over TCP, Unix socket and shared memory, in turns against one private server. */
#include "tools/demo.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "tools/awake.h"
#include "tools/stop.h"
#include "tools/tools.h"

struct options {
    const char *server, *module, *out; /* NULL: look for it */
    double seconds, rounds;
    bool awake;
};

#define DEFAULT_SECONDS 11 /* two tables and their warm-up in 25 s */
#define DEFAULT_ROUNDS 9
#define WARM_UP_S 0.25     /* of each transport; a server's first requests page in code and grow its memory */
#define PROGRESS_EVERY_NS 4000000000u

static void help(void)
{
    printf("Usage: redis-shm demo [OPTION]...\n"
           "\n"
           "Starts a private server with the module, reads a %d-byte value over TCP, Unix socket and shared memory in turns, and\n"
           "prints two tables: the machine as it is, and with its CPUs kept awake. Writes latency.json and, with gnuplot,\n"
           "latency_barchart.png and .svg. Stops what it started.\n"
           "\n"
           "  --module PATH   module-shm.so (default: beside this program, else ../lib/redis/modules)\n"
           "  --server PATH   the server's program (default: redis-server, else valkey-server, from PATH)\n"
           "  --out DIR       where the files go (default: demo beside the build's module, else redis-shm-demo here)\n"
           "  --seconds S     how long each table measures, 0.1 to 300 (default %d)\n"
           "  --rounds N      turns of each transport in a table, 1 to 1000 (default %d)\n"
           "  --no-awake      only the first table\n"
           "  --help          this text\n"
           "\n"
           "Examples:\n"
           "  redis-shm demo\n"
           "  redis-shm demo --seconds 2 --rounds 3 --no-awake      a first look in three seconds\n"
           "  redis-shm demo --server valkey-server --out /tmp/valkey\n"
           "\n"
           "Exit status: 0 measured, 1 failed or a reply was wrong, 2 wrong usage.\n",
           RSHM_VALUE_BYTES, DEFAULT_SECONDS, DEFAULT_ROUNDS);
}

/* -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
    enum { MODULE = 256, SERVER, OUT, SECONDS, ROUNDS, NO_AWAKE, HELP };
    static const struct option known[] = {
        {"module", required_argument, NULL, MODULE},   {"server", required_argument, NULL, SERVER},
        {"out", required_argument, NULL, OUT},         {"seconds", required_argument, NULL, SECONDS},
        {"rounds", required_argument, NULL, ROUNDS},   {"no-awake", no_argument, NULL, NO_AWAKE},
        {"help", no_argument, NULL, HELP},             {0},
    };
    static char name[] = "redis-shm demo"; /* what getopt begins its messages with */
    argv[0] = name;
    *o = (struct options){.seconds = DEFAULT_SECONDS, .rounds = DEFAULT_ROUNDS, .awake = true};
    for (int c; (c = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        int bad = 0;
        switch (c) {
        case MODULE: o->module = optarg; break;
        case SERVER: o->server = optarg; break;
        case OUT: o->out = optarg; break;
        case SECONDS: bad = rshm_parse_number("--seconds", optarg, 0.1, 300, &o->seconds); break;
        case ROUNDS: bad = rshm_parse_number("--rounds", optarg, 1, 1000, &o->rounds); break;
        case NO_AWAKE: o->awake = false; break;
        case 'h':
        case HELP: help(); return RSHM_EXIT_OK;
        default: bad = 1; break; /* getopt has said what */
        }
        if (bad != 0) {
            rshm_complain("'redis-shm demo --help' lists the options");
            return RSHM_EXIT_USAGE;
        }
    }
    if (optind < argc) {
        rshm_complain("'%s' is not an option; 'redis-shm demo --help' lists them", argv[optind]);
        return RSHM_EXIT_USAGE;
    }
    return -1;
}

/* ---- where things are ---- */

static int make_dirs(char *path)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        int r = mkdir(path, 0777) != 0 && errno != EEXIST ? -errno : 0;
        *slash = '/';
        if (r < 0)
            return r;
    }
    return mkdir(path, 0777) != 0 && errno != EEXIST ? -errno : 0;
}

static int make_out(const char *wanted, char *out, size_t out_bytes)
{
    char dir[PATH_MAX - 64], path[PATH_MAX];
    const char *name = wanted != NULL ? wanted : "redis-shm-demo";
    if (wanted == NULL && rshm_executable_dir(dir, sizeof dir) == 0) {
        snprintf(path, sizeof path, "%s/module-shm.so", dir);
        if (access(path, F_OK) == 0) { /* a build directory */
            snprintf(path, sizeof path, "%s/demo", dir);
            name = path;
        }
    }
    int r = name[0] == '\0' || (size_t)snprintf(out, out_bytes, "%s", name) >= out_bytes ? -EINVAL : make_dirs(out);
    if (r == 0 && access(out, W_OK | X_OK) != 0)
        r = -errno;
    if (r < 0)
        rshm_complain("cannot write into '%s': %s", name, strerror(-r));
    return r;
}

/* ---- progress: one line that changes on a terminal, else one now and then ---- */

struct progress {
    bool terminal;
    uint64_t last_ns;
};

static void progress_show(struct progress *p, const struct rshm_part *part, size_t round, size_t rounds)
{
    uint64_t now_ns = rshm_now_ns();
    if (!p->terminal && now_ns - p->last_ns < PROGRESS_EVERY_NS)
        return;
    p->last_ns = now_ns;
    fprintf(stderr, "%s%s: round %zu of %zu", p->terminal ? "\r\033[K" : "", part->awake ? "CPUs kept awake" : "machine as it is",
            round, rounds);
    for (enum rshm_transport t = RSHM_TCP; t < RSHM_TRANSPORTS; t++)
        if (part->of[t].rounds > 0)
            fprintf(stderr, ", %s %.2f us", rshm_transport_name(t), (double)part->of[t].round_p50_ns[part->of[t].rounds - 1] / 1e3);
    fputs(p->terminal ? "" : "\n", stderr);
}

static void progress_end(const struct progress *p)
{
    if (p->terminal)
        fputs("\r\033[K", stderr);
}

/* ---- measuring ---- */

static int keep_round(struct rshm_series *s, const struct rshm_round *round, struct rshm_scratch *scratch)
{
    int r = rshm_samples_add(&s->samples, scratch->ns, round->requests);
    if (r < 0) {
        rshm_complain("no memory for the samples; use a smaller --seconds");
        return r;
    }
    s->errors += round->errors;
    s->elapsed_ns += round->elapsed_ns;
    s->client_cpu_ns += round->client_cpu_ns;
    s->server_cpu_ns += round->server_cpu_ns;
    s->round_p50_ns[s->rounds++] = rshm_summarise(scratch->ns, round->requests).p50_ns;
    return 0;
}

/* All rounds of a table over open connections; the order turns, so that no transport always follows the same one. */
static int measure_rounds(struct rshm_part *part, redisContext **links, const struct rshm_server *server, size_t rounds,
                          double round_s, struct rshm_scratch *scratch, struct progress *progress)
{
    struct rshm_round round;
    for (enum rshm_transport t = RSHM_TCP; t < RSHM_TRANSPORTS; t++) {
        int r = rshm_round_run(links[t], t, server, WARM_UP_S < round_s ? WARM_UP_S : round_s, scratch, &round);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < rounds; i++) {
        progress_show(progress, part, i + 1, rounds);
        for (size_t turn = 0; turn < RSHM_TRANSPORTS; turn++) {
            enum rshm_transport t = (enum rshm_transport)((i + turn) % RSHM_TRANSPORTS);
            int r = rshm_round_run(links[t], t, server, round_s, scratch, &round);
            if (r == 0 && rshm_stop_signal() != 0)
                r = -EINTR;
            if (r == 0)
                r = keep_round(&part->of[t], &round, scratch);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* CPU time of everything that the demo runs. */
static uint64_t own_cpu_ns(const struct rshm_server *server, const struct rshm_awake *awake)
{
    return rshm_process_cpu_ns(0) + rshm_process_cpu_ns(server->pid) + rshm_awake_cpu_ns(awake);
}

/* What others did since `before`, in CPUs. */
static void note_others(struct rshm_part *part, const struct rshm_host_busy *before, uint64_t own_ns, uint64_t elapsed_ns)
{
    struct rshm_host_busy after;
    part->others_cpus = part->stolen_cpus = -1;
    if (before->busy_ns == 0 || rshm_host_busy(&after) < 0)
        return;
    double others_ns = (double)(after.busy_ns - before->busy_ns) - (double)own_ns;
    part->others_cpus = others_ns > 0 ? others_ns / (double)elapsed_ns : 0;
    part->stolen_cpus = (double)(after.stolen_ns - before->stolen_ns) / (double)elapsed_ns;
}

static int measure_part(struct rshm_part *part, const struct rshm_server *server, const struct rshm_awake *awake,
                        const struct options *o, struct rshm_scratch *scratch, struct progress *progress)
{
    redisContext *links[RSHM_TRANSPORTS] = {NULL};
    size_t rounds = (size_t)o->rounds;
    struct rshm_host_busy busy = {0};
    int r = 0;

    for (enum rshm_transport t = RSHM_TCP; r == 0 && t < RSHM_TRANSPORTS; t++) {
        part->of[t].round_p50_ns = calloc(rounds, sizeof(uint64_t));
        links[t] = rshm_link_open(server, t);
        if (part->of[t].round_p50_ns == NULL || links[t] == NULL)
            r = -EIO;
    }
    if (r == 0)
        r = rshm_value_store(links[RSHM_UNIX]);
    rshm_host_busy(&busy);
    uint64_t begin_ns = rshm_now_ns(), begin_cpu_ns = own_cpu_ns(server, awake);
    if (r == 0)
        r = measure_rounds(part, links, server, rounds, o->seconds / (double)(rounds * RSHM_TRANSPORTS), scratch, progress);
    note_others(part, &busy, own_cpu_ns(server, awake) - begin_cpu_ns, rshm_now_ns() - begin_ns);
    for (enum rshm_transport t = RSHM_TCP; t < RSHM_TRANSPORTS; t++)
        redisFree(links[t]);
    part->measured = r == 0;
    return r;
}

static int measure_parts(struct rshm_demo *d, const struct rshm_server *server, const struct options *o,
                         struct rshm_scratch *scratch, struct progress *progress)
{
    struct rshm_awake awake = {0};
    int r = measure_part(&d->parts[RSHM_PART_IDLE], server, &awake, o, scratch, progress);
    if (r < 0 || !o->awake)
        return r;
    r = rshm_awake_start(&awake);
    if (r < 0) { /* a container may forbid it; the first table stands on its own */
        rshm_complain("no second table: cannot run an idle-class process on each CPU: %s", strerror(-r));
        return 0;
    }
    r = measure_part(&d->parts[RSHM_PART_AWAKE], server, &awake, o, scratch, progress);
    rshm_awake_stop(&awake);
    return r;
}

/* Starts the server, measures, stops it. 0 or -errno after a message. */
static int measure(struct rshm_demo *d, const struct options *o, const char *program, const char *module)
{
    struct progress progress = {.terminal = isatty(STDERR_FILENO) == 1};
    struct rshm_scratch scratch = {0};
    struct rshm_server server;

    int r = rshm_server_start(&server, program, module);
    if (r < 0)
        return r;
    memcpy(d->server_version, server.version, sizeof d->server_version);
    printf("%s, %d CPU%s, %s, %s with module-shm %s\nsynchronous GETs of a %d-byte value with hiredis, %d rounds of each transport "
           "in turns\n", d->host.cpu, d->host.cpus, d->host.cpus == 1 ? "" : "s", d->host.kernel, d->server_version, RSHM_VERSION,
           RSHM_VALUE_BYTES, (int)o->rounds);
    fflush(stdout);

    r = rshm_scratch_map(&scratch, o->seconds / (double)((size_t)o->rounds * RSHM_TRANSPORTS));
    if (r < 0)
        rshm_complain("no memory for the samples: %s", strerror(-r));
    if (r == 0)
        r = measure_parts(d, &server, o, &scratch, &progress);
    progress_end(&progress);
    if (r < 0 && rshm_stop_signal() == 0)
        rshm_server_show_log(&server);
    rshm_server_stop(&server);
    rshm_scratch_unmap(&scratch);
    return r;
}

static void summarise(struct rshm_demo *d)
{
    for (int i = 0; i < RSHM_PARTS; i++)
        for (enum rshm_transport t = RSHM_TCP; d->parts[i].measured && t < RSHM_TRANSPORTS; t++) {
            struct rshm_series *s = &d->parts[i].of[t];
            s->summary = rshm_summarise(s->samples.ns, s->samples.count);
            s->p50_of_rounds = rshm_spread(s->round_p50_ns, s->rounds);
        }
}

static int tell(const struct rshm_demo *d, const char *out)
{
    rshm_demo_print(d, stdout);
    fflush(stdout);
    int r = rshm_demo_write_json(d, out);
    if (r < 0)
        return r;
    r = rshm_demo_draw(d, out);
    printf("\nWritten: %s/latency.json%s\n", out, r == 0 ? ", latency_barchart.png, latency_barchart.svg" : "");
    if (fflush(stdout) != 0 || ferror(stdout)) {
        rshm_complain("cannot write the tables: %s", strerror(errno));
        return -EIO;
    }
    return r == -ENOENT ? 0 : r; /* without gnuplot the figures are complete all the same */
}

static void release(struct rshm_demo *d)
{
    for (int i = 0; i < RSHM_PARTS; i++)
        for (int t = 0; t < RSHM_TRANSPORTS; t++) {
            rshm_samples_free(&d->parts[i].of[t].samples);
            free(d->parts[i].of[t].round_p50_ns);
        }
}

int rshm_demo_main(int argc, char **argv)
{
    struct options o;
    struct rshm_demo d = {.parts[RSHM_PART_AWAKE].awake = true};
    char program[PATH_MAX], module[PATH_MAX], out[PATH_MAX - 64];

    int code = parse_options(argc, argv, &o);
    if (code >= 0)
        return code;
    rshm_stop_catch();
    rshm_host_describe(&d.host);
    int r = rshm_server_find_module(o.module, module);
    if (r == 0)
        r = rshm_server_find(o.server, program, sizeof program);
    if (r == 0)
        r = make_out(o.out, out, sizeof out);
    if (r == 0)
        r = measure(&d, &o, program, module);
    if (r == 0) {
        summarise(&d);
        r = tell(&d, out);
    }
    size_t errors = rshm_demo_errors(&d);
    release(&d);
    if (rshm_stop_signal() != 0) {
        rshm_complain("interrupted");
        rshm_stop_die();
    }
    return r < 0 || errors > 0 ? RSHM_EXIT_FAILED : RSHM_EXIT_OK;
}
