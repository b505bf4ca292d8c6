/* bench_wait.c - Unix socket against shared memory in every regime that waiting depends on: synchronous GETs through hiredis,
 * the transports and modes of a regime in turn, several rounds in one run.
 *
 *   bench_wait --module PATH --out FILE [--rounds N] [--slice-ms N] [--regime NAME]... [--mode NAME]...
 *
 * A row is the median over the rounds of that round's figure. Gaps up to 45 us are spent computing (the client's CPU seconds are given
 * without them), longer ones asleep, as applications do, but in the regimes called computed: after a sleep of 2 ms the client's own CPU
 * takes longer to warm up than a request, and these show what is left without that. Every slice begins with a warm-up that is not counted.
 * --mode control measures the Unix socket a second time: its quotients are what the machine's noise makes of two equal things.
 */
#include <errno.h>
#include <getopt.h>
#include <hiredis.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "channel/clock.h"
#include "hiredis_shm.h"
#include "tools/awake.h"
#include "tools/host.h"
#include "tools/json.h"
#include "tools/server.h"
#include "tools/stats.h"
#include "tools/stop.h"

#define ROUNDS_MAX 25
#define CLIENTS_MAX 8
#define SAMPLES_MAX (1u << 20) /* per client and slice; the rest of a slice is only counted */
#define WARM_UP_MS 30
#define COMPUTED_GAP_US 100    /* shorter gaps are always spent computing */

struct regime {
    const char *name;
    unsigned gap_us;
    int busy;      /* ordinary busy processes */
    bool awake;    /* an idle-class busy process on each CPU */
    int clients;   /* > 1: each a process, and all on one CPU with the server */
    size_t value;
    unsigned slices; /* slice lengths that it needs for its percentiles */
    bool computed;   /* the gap is */
};

static const struct regime regimes[] = {
    {"back-to-back", 0, 0, false, 1, 32, 1, false},
    {"awake", 0, 0, true, 1, 32, 1, false},
    {"gap-5us", 5, 0, false, 1, 32, 1, false},
    {"gap-20us", 20, 0, false, 1, 32, 1, false},
    {"gap-45us", 45, 0, false, 1, 32, 1, false},
    {"gap-200us", 200, 0, false, 1, 32, 1, false},
    {"gap-2ms", 2000, 0, false, 1, 32, 2, false},
    {"gap-10ms", 10000, 0, false, 1, 32, 5, false},
    {"gap-200us-computed", 200, 0, false, 1, 32, 1, true},
    {"gap-2ms-computed", 2000, 0, false, 1, 32, 2, true},
    {"gap-10ms-computed", 10000, 0, false, 1, 32, 5, true},
    {"busy-2", 0, 2, false, 1, 32, 2, false},
    {"busy-4", 0, 4, false, 1, 32, 2, false},
    {"busy-2-gap-200us", 200, 2, false, 1, 32, 4, false},
    {"busy-4-gap-200us", 200, 4, false, 1, 32, 4, false},
    {"one-cpu-8-clients", 0, 0, false, 8, 32, 1, false},
    {"value-1B", 0, 0, false, 1, 1, 1, false},
    {"value-1KiB", 0, 0, false, 1, 1024, 1, false},
    {"value-64KiB", 0, 0, false, 1, 65536, 1, false},
    {"value-1MiB", 0, 0, false, 1, 1 << 20, 1, false},
};
#define REGIMES (sizeof regimes / sizeof regimes[0])

static const struct {
    const char *transport, *mode;
    int waiting;
} variants[] = {
    {"unix", "", 0},
    {"shm", "adaptive", REDIS_SHM_WAIT_ADAPTIVE},
    {"shm", "poll", REDIS_SHM_WAIT_POLL},
    {"shm", "block", REDIS_SHM_WAIT_BLOCK},
    {"unix", "control", 0},
};
#define VARIANTS (sizeof variants / sizeof variants[0])
#define CONTROL (VARIANTS - 1)

/* Shared with client processes. */
struct slot {
    uint64_t count, cpu_ns, elapsed_ns, errors;
    uint64_t samples[SAMPLES_MAX];
};
static struct slot *slots;

struct figure {
    double p50, p99, mean, client_cpu, server_cpu;
};

struct run {
    struct rshm_server server;
    redisContext *control;
    unsigned slice_ms;
    struct rshm_host host;
};

static bool computed(const struct regime *g)
{
    return g->computed || g->gap_us <= COMPUTED_GAP_US;
}

static void gap(const struct regime *g)
{
    const unsigned us = g->gap_us;
    if (us == 0)
        return;
    if (computed(g)) {
        uint64_t end = rshm_now_ns() + us * 1000u;
        while (rshm_now_ns() < end)
            ;
        return;
    }
    struct timespec t = {us / 1000000, (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

static redisContext *connect_to(const struct run *r, size_t variant)
{
    redisContext *c = redisConnectUnix(r->server.socket_path);
    if (c == NULL || c->err || variant == 0 || variant == CONTROL)
        return c;
    redisReply *reply = redisUseSharedMemory(c);
    if (reply == NULL || reply->type != REDIS_REPLY_INTEGER)
        fprintf(stderr, "bench_wait: %s\n", reply != NULL ? reply->str : c->errstr);
    freeReplyObject(reply);
    redisSetSharedMemoryWaiting(c, variants[variant].waiting);
    return c;
}

/* One client for slice_ms after the warm-up. */
static void client(redisContext *c, const struct regime *g, unsigned slice_ms, struct slot *s)
{
    const uint64_t begin = rshm_now_ns(), warm = begin + WARM_UP_MS * 1000000u;
    uint64_t end = 0, cpu = 0, started = 0;
    s->count = s->errors = 0;
    for (;;) {
        uint64_t t0 = rshm_now_ns();
        if (started == 0 && t0 >= warm) {
            started = t0;
            cpu = rshm_process_cpu_ns(0);
            end = t0 + (uint64_t)slice_ms * 1000000u;
        }
        redisReply *reply = redisCommand(c, "GET k");
        uint64_t t1 = rshm_now_ns();
        bool good = reply != NULL && reply->type == REDIS_REPLY_STRING && reply->len == g->value;
        freeReplyObject(reply);
        if (started != 0) {
            if (s->count < SAMPLES_MAX)
                s->samples[s->count] = t1 - t0;
            s->count++;
        }
        if (!good) {
            s->errors++;
            break;
        }
        if (started != 0 && t1 >= end)
            break;
        gap(g);
    }
    s->cpu_ns = rshm_process_cpu_ns(0) - cpu;
    s->elapsed_ns = rshm_now_ns() - started;
    if (computed(g)) /* what it computed meanwhile is the application's */
        s->cpu_ns -= s->count * g->gap_us * 1000u < s->cpu_ns ? s->count * g->gap_us * 1000u : s->cpu_ns;
}

static void on_one_cpu(pid_t pid, bool one)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < (one ? 1 : CPU_SETSIZE); i++)
        CPU_SET((size_t)i, &set);
    sched_setaffinity(pid, sizeof set, &set);
}

/* Client and server on two CPUs, as an idle machine places them, whatever the slice before led to. Free to move at once. */
static void apart(pid_t server)
{
    cpu_set_t set;
    for (int i = 0; i < 2; i++) {
        CPU_ZERO(&set);
        CPU_SET((size_t)i, &set);
        sched_setaffinity(i == 0 ? 0 : server, sizeof set, &set);
    }
    on_one_cpu(0, false);
    on_one_cpu(server, false);
}

static int slice(struct run *r, const struct regime *g, size_t variant, redisContext *c, struct figure *f)
{
    static uint64_t all[CLIENTS_MAX * (size_t)SAMPLES_MAX];
    const unsigned ms = r->slice_ms * g->slices;
    size_t n = 0;
    uint64_t count = 0, client_ns = 0, sum = 0;

    /* Sessions of other modes are open beside a socket's slice: the server must not spin for them meanwhile. */
    freeReplyObject(redisCommand(r->control, "CONFIG SET shm.wait-mode %s", variant == 0 || variant == CONTROL ? "adaptive" : variants[variant].mode));
    uint64_t server_before = 0, server_ns;
    if (g->clients == 1) {
        apart(r->server.pid);
        /* The warm-up's share of the server's CPU time is taken off by time below: it is a few per cent. */
        server_before = rshm_process_cpu_ns(r->server.pid);
        client(c, g, ms, &slots[0]);
        server_ns = rshm_process_cpu_ns(r->server.pid) - server_before;
    } else {
        pid_t pids[CLIENTS_MAX];
        server_before = rshm_process_cpu_ns(r->server.pid);
        for (int i = 0; i < g->clients; i++) {
            pids[i] = fork();
            if (pids[i] == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                on_one_cpu(0, true);
                redisContext *own = connect_to(r, variant);
                if (own != NULL && !own->err)
                    client(own, g, ms, &slots[i]);
                _exit(0);
            }
        }
        for (int i = 0; i < g->clients; i++)
            waitpid(pids[i], NULL, 0);
        server_ns = rshm_process_cpu_ns(r->server.pid) - server_before;
    }
    for (int i = 0; i < g->clients; i++) {
        if (slots[i].errors != 0 || slots[i].count == 0)
            return -EIO;
        size_t k = slots[i].count < SAMPLES_MAX ? slots[i].count : SAMPLES_MAX;
        memcpy(all + n, slots[i].samples, k * sizeof *all);
        n += k;
        count += slots[i].count;
        client_ns += slots[i].cpu_ns;
    }
    for (size_t i = 0; i < n; i++)
        sum += all[i];
    struct rshm_summary s = rshm_summarise(all, n);
    f->p50 = (double)s.p50_ns / 1000;
    f->p99 = (double)s.p99_ns / 1000;
    f->mean = (double)sum / (double)n / 1000;
    f->client_cpu = (double)client_ns / (double)count / 1000;
    f->server_cpu = (double)server_ns * ms / (ms + WARM_UP_MS) / (double)count / 1000;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static double median(const struct figure *f, size_t n, size_t offset)
{
    double v[ROUNDS_MAX];
    for (size_t i = 0; i < n; i++)
        v[i] = *(const double *)((const char *)&f[i] + offset);
    qsort(v, n, sizeof v[0], by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static int hog(pid_t parent)
{
    pid_t pid = fork();
    if (pid == 0) {
        rshm_stop_child(parent);
        for (;;)
            __asm__ __volatile__("" ::: "memory");
    }
    return pid;
}

static int regime(struct run *r, const struct regime *g, unsigned rounds, unsigned modes, struct rshm_json *j)
{
    struct figure figures[VARIANTS][ROUNDS_MAX];
    redisContext *c[VARIANTS] = {NULL};
    struct rshm_awake awake = {0};
    pid_t hogs[8];
    int status = 0;
    char *value = malloc(g->value);

    memset(value, 'v', g->value);
    freeReplyObject(redisCommand(r->control, "SET k %b", value, g->value));
    free(value);
    for (int i = 0; i < g->busy; i++)
        hogs[i] = hog(getpid());
    if (g->awake)
        rshm_awake_start(&awake);
    if (g->clients > 1)
        on_one_cpu(r->server.pid, true);
    for (size_t v = 0; v < VARIANTS && g->clients == 1; v++)
        c[v] = modes & 1u << v ? connect_to(r, v) : NULL;
    for (unsigned round = 0; round < rounds && status == 0; round++)
        for (size_t v = 0; v < VARIANTS && status == 0; v++) {
            size_t turn = (v + round) % VARIANTS;
            if (!(modes & 1u << turn))
                continue;
            status = rshm_stop_signal() ? -EINTR : slice(r, g, turn, c[turn], &figures[turn][round]);
        }
    for (size_t v = 0; v < VARIANTS; v++)
        redisFree(c[v]);
    for (int i = 0; i < g->busy; i++)
        rshm_stop_end_child(hogs[i], 0);
    rshm_awake_stop(&awake);
    if (g->clients > 1)
        on_one_cpu(r->server.pid, false);
    if (status != 0)
        return status;
    double socket[4] = {0};
    for (size_t v = 0; v < VARIANTS; v++) {
        if (!(modes & 1u << v))
            continue;
        double p50 = median(figures[v], rounds, offsetof(struct figure, p50)), p99 = median(figures[v], rounds, offsetof(struct figure, p99));
        double mean = median(figures[v], rounds, offsetof(struct figure, mean));
        double client_cpu = median(figures[v], rounds, offsetof(struct figure, client_cpu));
        double server_cpu = median(figures[v], rounds, offsetof(struct figure, server_cpu));
        if (v == 0)
            memcpy(socket, (double[]){p50, p99, mean, client_cpu + server_cpu}, sizeof socket);
        printf("%-18s %-4s %-8s %9.2f %9.2f %9.2f %8.2f %8.2f", g->name, variants[v].transport, variants[v].mode, p50, p99, mean, client_cpu,
               server_cpu);
        if (v != 0 && socket[0] > 0)
            printf("   %6.2f %6.2f %6.2f %6.2f", p50 / socket[0], p99 / socket[1], mean / socket[2], (client_cpu + server_cpu) / socket[3]);
        printf("\n");
        rshm_json_open(j, NULL, '{');
        rshm_json_string(j, "transport", variants[v].transport);
        rshm_json_string(j, "mode", variants[v].mode);
        rshm_json_string(j, "regime", g->name);
        rshm_json_number(j, "p50_us", p50, 3);
        rshm_json_number(j, "p99_us", p99, 3);
        rshm_json_number(j, "mean_us", mean, 3);
        rshm_json_number(j, "client_cpu_s_per_m", client_cpu, 3);
        rshm_json_number(j, "server_cpu_s_per_m", server_cpu, 3);
        rshm_json_integer(j, "rounds", rounds);
        rshm_json_string(j, "server", r->server.version);
        rshm_json_string(j, "cpu", r->host.cpu);
        rshm_json_string(j, "kernel", r->host.kernel);
        rshm_json_close(j, '}');
    }
    fflush(stdout);
    return 0;
}

static size_t find(const char *what, const char *name, size_t n, const char *(*nth)(size_t))
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(nth(i), name) == 0)
            return i;
    fprintf(stderr, "bench_wait: no %s '%s'; there are:", what, name);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, " %s", nth(i));
    fprintf(stderr, "\n");
    exit(2);
}

static const char *regime_name(size_t i)
{
    return regimes[i].name;
}

static const char *mode_name(size_t i)
{
    return i == 0 ? "unix" : variants[i].mode;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"module", required_argument, NULL, 'm'}, {"out", required_argument, NULL, 'o'}, {"rounds", required_argument, NULL, 'r'},
        {"slice-ms", required_argument, NULL, 's'}, {"regime", required_argument, NULL, 'g'}, {"mode", required_argument, NULL, 'w'},
        {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0},
    };
    const char *module = NULL, *out = NULL;
    unsigned rounds = 5, chosen = 0, modes = 0;
    struct run r = {.slice_ms = 250};
    char program[512];
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 'm': module = optarg; break;
        case 'o': out = optarg; break;
        case 'r': rounds = (unsigned)atoi(optarg); break;
        case 's': r.slice_ms = (unsigned)atoi(optarg); break;
        case 'g': chosen |= 1u << find("regime", optarg, REGIMES, regime_name); break;
        case 'w': modes |= 1u << find("mode", optarg, VARIANTS, mode_name); break;
        default:
            fprintf(option == 'h' ? stdout : stderr,
                    "usage: bench_wait --module PATH [--out FILE] [--rounds N] [--slice-ms N] [--regime NAME]... [--mode NAME]...\n");
            return option == 'h' ? 0 : 2;
        }
    }
    if (module == NULL || rounds < 1 || rounds > ROUNDS_MAX || r.slice_ms < 10) {
        fprintf(stderr, "bench_wait: --module PATH is needed; rounds 1 to %d, slices from 10 ms\n", ROUNDS_MAX);
        return 2;
    }
    if (chosen == 0)
        chosen = (1u << REGIMES) - 1;
    modes = modes == 0 ? (1u << CONTROL) - 1 : modes | 1;
    prctl(PR_SET_TIMERSLACK, 1UL); /* gaps as asked for, not 50 us more */
    rshm_stop_catch();
    char *absolute = realpath(module, NULL);
    slots = mmap(NULL, CLIENTS_MAX * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (absolute == NULL || slots == MAP_FAILED || rshm_server_find(NULL, program, sizeof program) != 0 ||
        rshm_server_start(&r.server, program, absolute) != 0) {
        fprintf(stderr, "bench_wait: cannot start: %s\n", strerror(errno));
        return 1;
    }
    r.control = redisConnectUnix(r.server.socket_path);

    rshm_host_describe(&r.host);
    FILE *json = out != NULL ? fopen(out, "we") : fopen("/dev/null", "we");
    struct rshm_json j = {.to = json};
    int status = json == NULL ? -errno : 0;
    if (status == 0) {
        rshm_json_open(&j, NULL, '[');
        printf("%s, %s, %s; medians of %u rounds\n\n", r.host.cpu, r.host.kernel, r.server.version, rounds);
        printf("%-18s %-13s %9s %9s %9s %8s %8s   times the Unix socket's\n", "", "", "p50", "p99", "mean", "client", "server");
        printf("%-18s %-13s %9s %9s %9s %17s   %6s %6s %6s %6s\n", "regime", "transport", "us", "us", "us", "CPU s per million", "p50", "p99",
               "mean", "CPU");
    }
    for (size_t i = 0; i < REGIMES && status == 0; i++)
        if (chosen & 1u << i)
            status = regime(&r, &regimes[i], rounds, modes, &j);
    if (json != NULL) {
        rshm_json_close(&j, ']');
        fclose(json);
    }
    redisFree(r.control);
    rshm_server_stop(&r.server);
    free(absolute);
    rshm_stop_die();
    if (status != 0)
        fprintf(stderr, "bench_wait: %s\n", strerror(-status));
    return status != 0;
}
