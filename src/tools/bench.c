/* bench.c - redis-shm bench: finds out what can be measured, lets the rows take turns, and hands the figures on. */
#include "tools/bench.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "hiredis_shm.h"
#include "tools/outfile.h"
#include "tools/stop.h"
#include "tools/tools.h"

#define CLEAN_KEYS_MAX 5e6 /* some five seconds; more are left, and that is said */

/* ---- the output files ---- */

struct files {
    struct rshm_outfile json, csv, hdr_log, plots[RSHM_BENCH_FILES_MAX];
};

static bool in_path(const char *program)
{
    char dirs[4096], path[PATH_MAX];
    const char *from = getenv("PATH");
    snprintf(dirs, sizeof dirs, "%s", from != NULL ? from : "");
    char *rest = dirs;
    for (char *dir; (dir = strsep(&rest, ":")) != NULL;)
        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, program) < sizeof path && access(path, X_OK) == 0)
            return true;
    return false;
}

static int open_files(struct files *f, const struct rshm_bench_options *o)
{
    int r = 0;
    if (o->json != NULL)
        r = rshm_outfile_open(&f->json, o->json);
    if (r == 0 && o->csv != NULL)
        r = rshm_outfile_open(&f->csv, o->csv);
    if (r == 0 && o->hdr_log != NULL)
        r = rshm_outfile_open(&f->hdr_log, o->hdr_log);
    for (size_t i = 0; r == 0 && i < o->plot_count; i++)
        r = rshm_outfile_open(&f->plots[i], o->plots[i]);
    if (r == 0 && o->plot_count > 0 && !in_path("gnuplot")) {
        rshm_complain("--plot needs gnuplot (on Debian and Ubuntu: sudo apt-get install gnuplot-nox)");
        r = -ENOENT;
    }
    return r;
}

static void drop_files(struct files *f)
{
    rshm_outfile_drop(&f->json);
    rshm_outfile_drop(&f->csv);
    rshm_outfile_drop(&f->hdr_log);
    for (size_t i = 0; i < RSHM_BENCH_FILES_MAX; i++)
        rshm_outfile_drop(&f->plots[i]);
}

static int write_files(const struct rshm_bench *b, struct files *f)
{
    const struct rshm_bench_options *o = b->options;
    const struct { struct rshm_outfile *file; void (*write)(const struct rshm_bench *, FILE *); } all[] = {
        {&f->json, rshm_bench_write_json}, {&f->csv, rshm_bench_write_csv}, {&f->hdr_log, rshm_bench_write_hdr_log},
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof all / sizeof all[0]; i++)
        if (all[i].file->path != NULL) {
            all[i].write(b, all[i].file->to);
            r = rshm_outfile_commit(all[i].file);
        }
    for (size_t i = 0; r == 0 && i < o->plot_count; i++) {
        const char *name = o->plots[i];
        r = rshm_bench_draw(b, fileno(f->plots[i].to), strcmp(name + strlen(name) - 4, ".svg") == 0);
        if (r == 0)
            r = rshm_outfile_commit(&f->plots[i]);
    }
    return r;
}

/* ---- what there is to measure ---- */

/* Keeps what the connection has found out: the socket's path, or the port. */
static void note_address(struct rshm_bench *b, enum rshm_transport t, const redisContext *c)
{
    struct rshm_endpoint *e = &b->endpoints[t];
    if (c->connection_type == REDIS_CONN_UNIX) {
        snprintf(b->paths[t], sizeof b->paths[t], "%s", c->unix_sock.path);
        e->path = b->paths[t];
    } else {
        e->port = c->tcp.port;
        e->path = NULL;
        e->tcp_given = true;
    }
}

static bool wants(const struct rshm_bench_options *o, enum rshm_transport t)
{
    for (size_t i = 0; i < o->transport_count; i++)
        if (o->transports[i] == t)
            return true;
    return false;
}

/* Connects over each transport. One that is not to be had is an error if it was asked for by name. *control: an open connection. */
static int probe(struct rshm_bench *b, const struct rshm_endpoint *endpoint, redisContext **control)
{
    const struct rshm_bench_options *o = b->options;
    size_t there = 0;
    int first_error = 0;
    *control = NULL;
    for (enum rshm_transport t = RSHM_TCP; t < RSHM_TRANSPORTS; t++) {
        redisContext *c;
        char why[sizeof b->missing[t]];
        if (!wants(o, t))
            continue;
        b->endpoints[t] = *endpoint;
        if (t == RSHM_MEMORY && endpoint->path == NULL && !endpoint->tcp_given && b->endpoints[RSHM_UNIX].path != NULL)
            b->endpoints[t].path = b->endpoints[RSHM_UNIX].path; /* it was asked for just now */
        int r = rshm_endpoint_connect(&b->endpoints[t], t, REDIS_SHM_WAIT_ADAPTIVE, &c, why, sizeof why);
        if (r < 0 && (r != -EOPNOTSUPP || o->transports_given)) {
            redisFree(*control);
            *control = NULL;
            rshm_complain("%s: %s", rshm_transport_name(t), why);
            return r;
        }
        if (r < 0) {
            memcpy(b->missing[t], why, sizeof why);
            first_error = first_error == 0 ? r : first_error;
            continue;
        }
        note_address(b, t, c);
        there++;
        /* Fills and asks: not through what is measured, if there is anything else. */
        if (*control == NULL || t == RSHM_UNIX) {
            redisFree(*control);
            *control = c;
        } else {
            redisFree(c);
        }
    }
    if (there == 0) {
        for (enum rshm_transport t = RSHM_TCP; t < RSHM_TRANSPORTS; t++)
            if (b->missing[t][0] != '\0')
                rshm_complain("%s: %s", rshm_transport_name(t), b->missing[t]);
        return first_error;
    }
    return 0;
}

static void note_server(struct rshm_bench *b, redisContext *c)
{
    const struct timeval timeout = {.tv_sec = 60};
    char version[40], name[8] = "Redis";
    redisSetTimeout(c, timeout);
    b->server_pid = rshm_endpoint_server_pid(c);
    snprintf(b->server_version, sizeof b->server_version, "unknown");
    redisReply *info = redisCommand(c, "INFO server");
    if (info != NULL && info->str != NULL) {
        if (rshm_info_field(info->str, "valkey_version", version, sizeof version))
            strcpy(name, "Valkey");
        else if (!rshm_info_field(info->str, "redis_version", version, sizeof version))
            strcpy(version, "of unknown version");
        snprintf(b->server_version, sizeof b->server_version, "%s %s", name, version);
    }
    freeReplyObject(info);
    redisReply *mode = redisCommand(c, "CONFIG GET shm.wait-mode");
    if (mode != NULL && mode->elements == 2 && mode->element[1]->str != NULL)
        snprintf(b->server_mode, sizeof b->server_mode, "%s", mode->element[1]->str);
    freeReplyObject(mode);
}

/* A private server waits as its client does. Servers without module configuration keep their mode: that is said in the output. */
static void set_server_mode(struct rshm_bench *b, redisContext *c, const struct rshm_bench_row *row)
{
    if (!b->options->start || row->transport != RSHM_MEMORY || b->server_mode[0] == '\0')
        return;
    redisReply *reply = redisCommand(c, "CONFIG SET shm.wait-mode %s", rshm_bench_mode_name(row->mode));
    freeReplyObject(reply);
}

/* ---- rows ---- */

static int add_row(struct rshm_bench *b, size_t of_transport, int mode, double clients, double pipeline, const struct rshm_value_size *size,
                   double think_us, double rate)
{
    const struct rshm_bench_options *o = b->options;
    struct rshm_bench_row *row = &b->rows[b->row_count++];
    *row = (struct rshm_bench_row){
        .of_transport = of_transport, .transport = o->transports[of_transport], .mode = mode, .clients = (size_t)clients,
        .pipeline = (size_t)pipeline, .size = *size, .think_us = think_us, .rate = rate,
    };
    row->threads = o->async && o->threads < clients ? (size_t)o->threads : row->clients;
    if (b->missing[row->transport][0] != '\0')
        row->missing = b->missing[row->transport];
    row->rounds = calloc((size_t)o->rounds, sizeof *row->rounds);
    return row->rounds == NULL ? -ENOMEM : rshm_histogram_init(&row->latency);
}

static int make_rows(struct rshm_bench *b)
{
    const struct rshm_bench_options *o = b->options;
    int r = 0;
    b->rows = calloc(RSHM_BENCH_ROWS_MAX, sizeof *b->rows);
    if (b->rows == NULL)
        return -ENOMEM;
    for (size_t s = 0; s < o->size_count; s++)
        for (size_t k = 0; k < o->think_us.count; k++)
            for (size_t a = 0; a < o->rate.count; a++)
                for (size_t p = 0; p < o->pipeline.count; p++)
                    for (size_t c = 0; c < o->clients.count; c++)
                        for (size_t t = 0; t < o->transport_count; t++)
                            for (size_t m = 0; r == 0 && m < (o->transports[t] == RSHM_MEMORY ? o->mode_count : 1); m++)
                                r = add_row(b, t, o->modes[m], o->clients.value[c], o->pipeline.value[p], &o->sizes[s],
                                            o->think_us.value[k], o->rate.value[a]);
    return r;
}

/* Descriptors for all clients and some more. */
static int raise_limits(const struct rshm_bench *b)
{
    struct rlimit limit;
    size_t wanted = 64;
    for (size_t i = 0; i < b->row_count; i++)
        wanted = b->rows[i].clients * 2 + 64 > wanted ? b->rows[i].clients * 2 + 64 : wanted;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return 0;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (limit.rlim_cur < wanted || setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        rshm_complain("so many clients need %zu open files, and %lu are allowed: ulimit -n", wanted, (unsigned long)limit.rlim_max);
        return -EMFILE;
    }
    return 0;
}

/* ---- the run ---- */

static int measure_rounds(struct rshm_bench *b, redisContext *control, struct rshm_bench_progress *progress)
{
    const struct rshm_bench_options *o = b->options;
    const size_t rounds = (size_t)o->rounds;
    const double round_s = o->requests > 0 ? 0 : o->seconds / o->rounds;
    size_t there = 0;
    for (size_t i = 0; i < b->row_count; i++)
        there += b->rows[i].missing == NULL;
    size_t left = there * rounds;
    const uint64_t begin_ns = rshm_now_ns();
    for (size_t n = 0; n < rounds; n++)
        for (size_t i = 0; i < b->row_count; i++) {
            /* Turning: no row always follows the same one. */
            size_t turn = (i + n) % b->row_count;
            struct rshm_bench_row *row = &b->rows[turn];
            if (row->missing != NULL)
                continue;
            double each_s = left == there * rounds ? round_s + o->warmup_s
                                                   : (double)(rshm_now_ns() - begin_ns) / 1e9 / (double)(there * rounds - left);
            progress->round = n;
            progress->row = turn;
            progress->rounds_left_s = each_s * (double)--left;
            uint64_t requests = o->requests > 0 ? (uint64_t)o->requests / rounds + (n < (uint64_t)o->requests % rounds) : 0;
            if (o->requests > 0 && requests == 0)
                continue;
            set_server_mode(b, control, row);
            int r = rshm_bench_round_run(b, row, round_s, requests, progress);
            if (rshm_stop_signal() != 0)
                b->interrupted = true;
            if (r < 0 || b->interrupted)
                return r;
        }
    return 0;
}

enum keys { KEYS_FILL, KEYS_CLEAN, KEYS_CLEAN_QUIETLY };

static int prepare_keys(struct rshm_bench *b, redisContext *c, enum keys what)
{
    const bool fill = what == KEYS_FILL;
    const struct rshm_bench_options *o = b->options;
    char why[160];
    int r = 0;
    if (!fill && (o->start || !rshm_workload_has_keys(&b->workload)))
        return 0;
    if (!fill && o->keys > CLEAN_KEYS_MAX) {
        rshm_complain("the keys redis-shm:bench:* are left in the server: more than %g", CLEAN_KEYS_MAX);
        return 0;
    }
    if (rshm_stop_signal() != 0) { /* nobody waits long for a server that may hang */
        const struct timeval timeout = {.tv_sec = 1};
        redisSetTimeout(c, timeout);
    }
    for (size_t i = 0; r == 0 && i < o->size_count; i++)
        r = fill ? rshm_workload_fill(&b->workload, &o->sizes[i], c, why, sizeof why)
                 : rshm_workload_clean(&b->workload, &o->sizes[i], c, why, sizeof why);
    if (r < 0 && r != -EINTR && what != KEYS_CLEAN_QUIETLY)
        rshm_complain("cannot %s keys: %s", fill ? "store" : "delete", why);
    return r;
}

static void note_others(struct rshm_bench *b, const struct rshm_host_busy *before, uint64_t own_ns, uint64_t elapsed_ns)
{
    struct rshm_host_busy after;
    b->others_cpus = b->stolen_cpus = -1;
    if (before->busy_ns == 0 || b->server_pid == 0 || elapsed_ns == 0 || rshm_host_busy(&after) < 0)
        return;
    b->others_cpus = fmax(0, (double)(after.busy_ns - before->busy_ns) - (double)own_ns) / (double)elapsed_ns;
    b->stolen_cpus = (double)(after.stolen_ns - before->stolen_ns) / (double)elapsed_ns;
}

/* With a connection to the server: everything up to the last figure. */
static int measure(struct rshm_bench *b, redisContext *control)
{
    struct rshm_bench_progress progress = {.terminal = isatty(STDERR_FILENO) == 1, .quiet = b->options->quiet, .last_ns = rshm_now_ns()};
    struct rshm_host_busy busy = {0};
    struct timespec now;
    note_server(b, control);
    int r = make_rows(b);
    if (r == -ENOMEM)
        rshm_complain("no memory for the figures");
    if (r == 0)
        r = raise_limits(b);
    if (r == 0)
        r = prepare_keys(b, control, KEYS_FILL);
    if (r < 0)
        return r;
    clock_gettime(CLOCK_REALTIME, &now);
    b->start_s = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    b->start_ns = rshm_now_ns();
    if (b->options->json == NULL || strcmp(b->options->json, "-") != 0)
        if (b->options->csv == NULL || strcmp(b->options->csv, "-") != 0)
            rshm_bench_print_head(b, stdout);
    fflush(stdout);
    rshm_host_busy(&busy);
    uint64_t own_ns = rshm_process_cpu_ns(0) + rshm_process_cpu_ns((pid_t)b->server_pid);
    r = measure_rounds(b, control, &progress);
    note_others(b, &busy, rshm_process_cpu_ns(0) + rshm_process_cpu_ns((pid_t)b->server_pid) - own_ns, rshm_now_ns() - b->start_ns);
    if (progress.terminal && !progress.quiet)
        fputs("\r\033[K", stderr);
    int cleaned = prepare_keys(b, control, r < 0 ? KEYS_CLEAN_QUIETLY : KEYS_CLEAN); /* what failed has been told */
    return r < 0 ? r : cleaned;
}

static int run(struct rshm_bench *b)
{
    const struct rshm_bench_options *o = b->options;
    struct rshm_endpoint endpoint = o->endpoint;
    struct rshm_server server = {0};
    redisContext *control = NULL;
    char program[PATH_MAX], module[PATH_MAX];
    int r = 0;
    if (o->start) {
        r = rshm_server_find_module(o->module, module);
        if (r == 0)
            r = rshm_server_find(o->server, program, sizeof program);
        if (r == 0)
            r = rshm_server_start(&server, program, module);
        if (r < 0)
            return r;
        endpoint.port = server.tcp_port;
        endpoint.tcp_given = true;
        endpoint.path = server.socket_path;
        endpoint.password = NULL; /* REDISCLI_AUTH is for another */
    }
    r = probe(b, &endpoint, &control);
    if (r == 0)
        r = measure(b, control);
    redisFree(control);
    if (r < 0 && o->start && rshm_stop_signal() == 0)
        rshm_server_show_log(&server);
    rshm_server_stop(&server);
    return r;
}

static size_t measured(const struct rshm_bench *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->row_count; i++)
        n += b->rows[i].round_count > 0;
    return n;
}

static int tell(const struct rshm_bench *b, struct files *f)
{
    const struct rshm_bench_options *o = b->options;
    bool piped = (o->json != NULL && strcmp(o->json, "-") == 0) || (o->csv != NULL && strcmp(o->csv, "-") == 0);
    if (!piped) {
        rshm_bench_print(b, stdout);
        if (o->spectrum)
            rshm_bench_print_spectrum(b, stdout);
        if (fflush(stdout) != 0 || ferror(stdout)) {
            rshm_complain("cannot write the table: %s", strerror(errno));
            return -EIO;
        }
    }
    return write_files(b, f);
}

static uint64_t errors(const struct rshm_bench *b)
{
    uint64_t n = 0;
    for (size_t i = 0; i < b->row_count; i++)
        n += b->rows[i].error_replies + b->rows[i].wrong_replies;
    return n;
}

static void release(struct rshm_bench *b)
{
    for (size_t i = 0; i < b->row_count; i++) {
        for (size_t n = 0; n < b->rows[i].round_count; n++)
            free(b->rows[i].rounds[n].encoded);
        free(b->rows[i].rounds);
        rshm_histogram_free(&b->rows[i].latency);
    }
    free(b->rows);
    rshm_workload_free(&b->workload);
}

int rshm_bench_main(int argc, char **argv)
{
    struct rshm_bench_options o;
    struct files files = {0};
    struct rshm_key_choice keys;
    size_t largest = 0;
    static struct rshm_bench b;

    int code = rshm_bench_parse(argc, argv, &o);
    if (code >= 0)
        return code;
    b = (struct rshm_bench){.options = &o};
    for (size_t i = 0; i < o.size_count; i++)
        largest = o.sizes[i].max_bytes > largest ? o.sizes[i].max_bytes : largest;
    rshm_keys_init(&keys, o.key_choice, (uint64_t)o.keys, o.exponent);
    if (rshm_workload_init(&b.workload, o.command, o.sets, o.gets, &keys, (uint64_t)o.seed, largest) < 0)
        return RSHM_EXIT_USAGE;
    if (o.verify && !rshm_workload_is_verifiable(&b.workload)) {
        rshm_complain("--verify knows what GET __key__, SET, PING and ECHO __data__ answer, not what '%s' does", o.command);
        rshm_workload_free(&b.workload);
        return RSHM_EXIT_USAGE;
    }
    rshm_stop_catch();
    rshm_host_describe(&b.host);
    int r = open_files(&files, &o);
    if (r == 0)
        r = run(&b);
    if (r == 0 && measured(&b) > 0)
        r = tell(&b, &files);
    drop_files(&files);
    uint64_t wrong = errors(&b);
    release(&b);
    if (rshm_stop_signal() != 0) {
        rshm_complain("interrupted");
        rshm_stop_die();
    }
    return r < 0 || wrong > 0 ? RSHM_EXIT_FAILED : RSHM_EXIT_OK;
}
