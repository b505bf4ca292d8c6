/* bench_async.c - one asynchronous client, Unix socket against shared memory, with some requests in flight, over libevent and libuv.
 *
 *   bench_async --module PATH --out FILE [--rounds N] [--slice-ms N] [--spin-us N] [--awake] [--pin] [--control] [--in-flight N] [--loop NAME]
 *
 * Each callback sends the next GET. A row is the median over the rounds of that round's figure; within a round the transports take turns.
 * Transport shm-spin calls redisAsyncSharedMemorySpin() before each turn of the loop. --awake: an idle-class busy process on each CPU, so that
 * no CPU sleeps. --pin: client and server each on a CPU of its own; without it the scheduler puts them on one or two, as it likes, which is
 * most of the difference between runs that sleep. --control measures the Unix socket a second time, to show what noise makes of two equal
 * things. Every slice begins with a warm-up that is not counted.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <async.h>
#include <hiredis.h>

#include "channel/clock.h"
#include "client/loops.h"
#include "hiredis_shm.h"
#include "tools/awake.h"
#include "tools/host.h"
#include "tools/json.h"
#include "tools/server.h"
#include "tools/stop.h"
#include "tools/stats.h"

#define ROUNDS_MAX 25
#define FLIGHT_MAX 64
#define SAMPLES_MAX (1u << 22)
#define WARM_UP_MS 50

static const int flights[] = {1, 4, 16, 64};
#define FLIGHTS (sizeof flights / sizeof flights[0])
static const char *const transports[] = {"unix", "shm", "shm-spin", "control"};
enum { UNIX, SHM, SHM_SPIN, CONTROL, TRANSPORTS };
static int measured = CONTROL; /* the first so many of them */

struct slice {
    bool measuring, stopping, failed;
    int opened;
    uint64_t count, end_at;
    uint64_t sent_at[FLIGHT_MAX];
};
static uint64_t *samples;

struct figure {
    double p50, p99, per_s, client_cpu, server_cpu;
};

static void on_open(redisAsyncContext *ac, void *reply, void *privdata)
{
    redisReply *r = reply;
    (void)privdata;
    ((struct slice *)ac->data)->opened = r != NULL && r->type == REDIS_REPLY_INTEGER ? 1 : -1;
}

static void on_reply(redisAsyncContext *ac, void *reply, void *privdata)
{
    struct slice *s = ac->data;
    redisReply *r = reply;
    const size_t i = (size_t)(uintptr_t)privdata;
    if (r == NULL || r->type != REDIS_REPLY_STRING) {
        s->failed |= !s->stopping; /* else: the rest, when it is freed */
        return;
    }
    const uint64_t now = rshm_now_ns();
    if (s->measuring) {
        if (s->count < SAMPLES_MAX)
            samples[s->count] = now - s->sent_at[i];
        s->count++;
        if (now >= s->end_at)
            s->stopping = true;
    }
    if (s->stopping)
        return;
    s->sent_at[i] = now;
    redisAsyncCommand(ac, on_reply, privdata, "GET k");
}

static void turn(const struct loop *l, redisAsyncContext *ac, bool spin, unsigned spin_us)
{
    if (spin && redisAsyncSharedMemorySpin(ac, spin_us))
        l->glance(ac);
    else
        l->turn(ac);
}

static bool run(const struct rshm_server *server, const struct loop *l, int transport, int flight, unsigned slice_ms, unsigned spin_us, struct figure *f)
{
    struct slice s = {0};
    l->open();
    redisAsyncContext *ac = redisAsyncConnectUnix(server->socket_path);
    if (ac == NULL || ac->err || l->attach(ac) != REDIS_OK)
        return false;
    ac->data = &s;
    if (transport == SHM || transport == SHM_SPIN)
        redisAsyncUseSharedMemory(ac, on_open, NULL);
    for (int i = 0; i < flight; i++) {
        s.sent_at[i] = rshm_now_ns();
        redisAsyncCommand(ac, on_reply, (void *)(uintptr_t)i, "GET k");
    }
    const bool spin = transport == SHM_SPIN;
    for (uint64_t end = rshm_now_ns() + WARM_UP_MS * 1000000u; rshm_now_ns() < end && !s.failed;)
        turn(l, ac, spin, spin_us);
    const uint64_t begin = rshm_now_ns(), cpu = rshm_process_cpu_ns(0), server_cpu = rshm_process_cpu_ns(server->pid);
    s.end_at = begin + (uint64_t)slice_ms * 1000000u;
    s.measuring = true;
    while (!s.stopping && !s.failed && rshm_stop_signal() == 0)
        turn(l, ac, spin, spin_us);
    const double seconds = (double)(rshm_now_ns() - begin) / 1e9;
    f->client_cpu = (double)(rshm_process_cpu_ns(0) - cpu) / 1e3 / (double)s.count;
    f->server_cpu = (double)(rshm_process_cpu_ns(server->pid) - server_cpu) / 1e3 / (double)s.count;
    f->per_s = (double)s.count / seconds;
    const uint64_t counted = s.count;
    s.measuring = false;
    if (!s.failed)
        redisAsyncFree(ac);
    l->close();
    if (s.failed || counted == 0 || ((transport == SHM || transport == SHM_SPIN) && s.opened != 1))
        return false;
    const struct rshm_summary sum = rshm_summarise(samples, counted < SAMPLES_MAX ? counted : SAMPLES_MAX);
    f->p50 = (double)sum.p50_ns / 1e3;
    f->p99 = (double)sum.p99_ns / 1e3;
    return true;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const struct figure *f, size_t offset, unsigned n)
{
    double v[ROUNDS_MAX];
    for (unsigned i = 0; i < n; i++)
        memcpy(&v[i], (const char *)&f[i] + offset, sizeof v[i]);
    qsort(v, n, sizeof v[0], by_size);
    return n % 2 == 1 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static const char *only_loop;
static int only_flight;

static bool measure(const struct rshm_server *server, struct rshm_json *j, unsigned rounds, unsigned slice_ms, unsigned spin_us)
{
    static struct figure figures[TRANSPORTS][ROUNDS_MAX];
    printf("%-9s %6s  %-9s %9s %9s %12s %18s\n", "loop", "flight", "transport", "p50 us", "p99 us", "requests/s", "CPU us client,srv");
    for (int l = 0; l < loop_count; l++) {
        if (loops[l]->open == NULL || (strcmp(loops[l]->name, "libevent") != 0 && strcmp(loops[l]->name, "libuv") != 0))
            continue;
        if (only_loop != NULL && strcmp(loops[l]->name, only_loop) != 0)
            continue;
        for (size_t n = 0; n < FLIGHTS; n++) {
            if (only_flight != 0 && flights[n] != only_flight)
                continue;
            for (unsigned r = 0; r < rounds; r++)
                for (int turns = 0; turns < measured; turns++) {
                    const int t = (turns + (int)r) % measured;
                    if (rshm_stop_signal() != 0)
                        return false;
                    if (!run(server, loops[l], t, flights[n], slice_ms, spin_us, &figures[t][r])) {
                        if (rshm_stop_signal() != 0)
                            return false;
                        fprintf(stderr, "bench_async: a connection over %s has failed\n", transports[t]);
                        rshm_server_show_log(server);
                        return false;
                    }
                }
            for (int t = 0; t < measured; t++) {
#define MEDIAN(member) median(figures[t], offsetof(struct figure, member), rounds)
                rshm_json_open(j, NULL, '{');
                rshm_json_string(j, "loop", loops[l]->name);
                rshm_json_integer(j, "in_flight", (uint64_t)flights[n]);
                rshm_json_string(j, "transport", transports[t]);
                rshm_json_number(j, "p50_us", MEDIAN(p50), 3);
                rshm_json_number(j, "p99_us", MEDIAN(p99), 3);
                rshm_json_number(j, "requests_per_s", MEDIAN(per_s), 0);
                rshm_json_number(j, "client_cpu_s_per_m", MEDIAN(client_cpu), 3);
                rshm_json_number(j, "server_cpu_s_per_m", MEDIAN(server_cpu), 3);
                rshm_json_close(j, '}');
                printf("%-9s %6d  %-9s %9.2f %9.2f %12.0f %9.2f %8.2f\n", loops[l]->name, flights[n], transports[t], MEDIAN(p50), MEDIAN(p99),
                       MEDIAN(per_s), MEDIAN(client_cpu), MEDIAN(server_cpu));
                fflush(stdout);
            }
        }
    }
    return true;
}

static bool pin(pid_t pid, int nth)
{
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return false;
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all) && nth-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(i, &one);
            return sched_setaffinity(pid, sizeof one, &one) == 0;
        }
    return false;
}

static unsigned number(const char *text, unsigned min, unsigned max)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end != '\0' || n < min || n > max) {
        fprintf(stderr, "bench_async: %s is not a number from %u to %u\n", text, min, max);
        exit(2);
    }
    return (unsigned)n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"module", 1, NULL, 'm'}, {"out", 1, NULL, 'o'},     {"rounds", 1, NULL, 'r'}, {"slice-ms", 1, NULL, 's'},
                                            {"spin-us", 1, NULL, 'u'}, {"awake", 0, NULL, 'a'}, {"pin", 0, NULL, 'p'}, {"control", 0, NULL, 'c'},
                                            {"in-flight", 1, NULL, 'f'}, {"loop", 1, NULL, 'l'}, {0}};
    const char *module = NULL, *out = NULL;
    char program[4096];
    unsigned rounds = 5, slice_ms = 300, spin_us = 50;
    bool awake = false, pinned = false, ok = false;
    struct rshm_server server = {0};
    struct rshm_awake idlers = {0};
    struct rshm_host host;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'm': module = optarg; break;
        case 'o': out = optarg; break;
        case 'r': rounds = number(optarg, 1, ROUNDS_MAX); break;
        case 's': slice_ms = number(optarg, 10, 60000); break;
        case 'u': spin_us = number(optarg, 1, 1000000); break;
        case 'a': awake = true; break;
        case 'p': pinned = true; break;
        case 'c': measured = TRANSPORTS; break;
        case 'f': only_flight = (int)number(optarg, 1, FLIGHT_MAX); break;
        case 'l': only_loop = optarg; break;
        default: return 2;
        }
    }
    char *path = module != NULL ? realpath(module, NULL) : NULL;
    if (path == NULL || out == NULL) {
        fprintf(stderr, "usage: bench_async --module PATH --out FILE [--rounds N] [--slice-ms N] [--spin-us N] [--awake] [--pin] [--control] [--in-flight N] [--loop NAME]\n");
        return 2;
    }
    FILE *to = fopen(out, "w");
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    if (to == NULL || samples == NULL) {
        fprintf(stderr, "bench_async: %s: %s\n", out, strerror(errno));
        return 1;
    }
    memset(samples, 0, SAMPLES_MAX * sizeof *samples); /* no page faults while measuring */
    rshm_stop_catch();
    rshm_host_describe(&host);
    printf("%s, %d CPUs, %s, load %.2f; %u rounds of %u ms, spin %u us%s%s\n", host.cpu, host.cpus, host.kernel, host.load_1m, rounds, slice_ms, spin_us,
           awake ? ", CPUs kept awake" : "", pinned ? ", pinned" : "");
    if (rshm_server_find(NULL, program, sizeof program) == 0 && (!awake || rshm_awake_start(&idlers) == 0) &&
        rshm_server_start(&server, program, path) == 0) {
        redisContext *c = redisConnectUnix(server.socket_path);
        redisReply *r = c != NULL && c->err == 0 ? redisCommand(c, "SET k 0123456789abcdef0123456789abcdef") : NULL;
        if (pinned && (!pin(server.pid, 1) || !pin(0, 0)))
            fprintf(stderr, "bench_async: --pin needs two CPUs\n");
        else if (r != NULL && r->type == REDIS_REPLY_STATUS) {
            struct rshm_json j = {.to = to};
            rshm_json_open(&j, NULL, '[');
            ok = measure(&server, &j, rounds, slice_ms, spin_us);
            rshm_json_close(&j, ']');
            fputc('\n', to);
        }
        freeReplyObject(r);
        redisFree(c);
    }
    rshm_server_stop(&server);
    rshm_awake_stop(&idlers);
    ok &= ferror(to) == 0;
    ok &= fclose(to) == 0;
    free(samples);
    free(path);
    rshm_stop_die();
    return ok ? 0 : 1;
}
