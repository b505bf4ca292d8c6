/* bench_fifo.c - what the FIFO costs, against the round trip of one bare cache line in the same run.
 *
 * Two processes, pinned to one CPU each, spin. Rounds go through all cases in turn, so that whatever changes on the machine
 * meanwhile (frequency, a noisy neighbour) hits all cases alike; the figures are medians over the rounds.
 *
 * Every round trip is timed on its own: batches would average the tail away. The stamp is the CPU's own counter (rdtsc, cntvct),
 * some 10 ns; clock_gettime() would be a tenth of what is measured. The stamp that ends one trip begins the next, so each trip
 * holds exactly one, in the line's figure as in the FIFO's. Where that counter moves in steps of 10 ns, so do the percentiles.
 *
 * A hypervisor may move the two CPUs at any time between cores that share a cache and cores that do not: the bare line then
 * takes 50 ns or 400. Where the rounds show that, the output says so.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "charfifo.h"
#include "fifo/atomic.h"

#define EXIT_SKIP 77
#define ROUNDS_MAX 101
#define TRIPS_MAX 100000
#define MESSAGE_MAX ((size_t)65536)
#define STALL_S 60 /* a case takes well under a second; one that hangs takes both processes down */

enum kind { LINE, ECHO, STREAM };

struct bench_case {
    enum kind kind;
    size_t request, reply; /* bytes; STREAM: bytes per write, unused */
    uint32_t count;        /* round trips; STREAM: MiB */
    double p50[ROUNDS_MAX], p99[ROUNDS_MAX]; /* ns; STREAM: GB/s, unused */
};

static struct bench_case cases[] = {
    {.kind = LINE, .count = 50000},
    {.kind = ECHO, .request = 22, .reply = 39, .count = 50000}, /* a GET of a short key and its reply */
    {.kind = ECHO, .request = 64, .reply = 64, .count = 50000},
    {.kind = ECHO, .request = 512, .reply = 512, .count = 20000},
    {.kind = ECHO, .request = 4096, .reply = 4096, .count = 10000},
    {.kind = ECHO, .request = 65536, .reply = 65536, .count = 1000},
    {.kind = STREAM, .request = 64, .count = 64},
    {.kind = STREAM, .request = 512, .count = 256},
    {.kind = STREAM, .request = 4096, .count = 512},
    {.kind = STREAM, .request = 16384, .count = 512},
    {.kind = STREAM, .request = 65536, .count = 512},
};
#define CASES (sizeof cases / sizeof cases[0])

/* All of it MAP_SHARED, the samples too: private pages would fault anew after each fork(). */
struct shared {
    _Alignas(RSHM_CACHE_LINE) rshm_u64 turn; /* the bare line */
    _Alignas(RSHM_CACHE_LINE) rshm_u32 ready;
    _Alignas(RSHM_CACHE_LINE) rshm_u32 done;
    _Alignas(RSHM_CACHE_LINE) uint32_t ticks[TRIPS_MAX];
    uint8_t buffer[2][MESSAGE_MAX];
    _Alignas(RSHM_CACHE_LINE) uint8_t rings[];
};

static struct shared *sh;
static size_t ring_bytes = 65536;
static int rounds = 11;
static int cpus[2] = {-1, -1};
static uint32_t warm_up = 4000; /* trips, more than two laps of the default ring; the first ones of a fork fault pages in */

static uint64_t ticks_now(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
#endif
}

static double clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double ns_per_tick(void)
{
    double ns = clock_ns();
    uint64_t t = ticks_now();
    while (clock_ns() - ns < 1e8)
        ;
    return (clock_ns() - ns) / (double)(ticks_now() - t);
}

static void die(const char *what, int err)
{
    fprintf(stderr, "bench_fifo: %s: %s\n", what, strerror(err));
    _exit(1);
}

static void skip(const char *why)
{
    fprintf(stderr, "bench_fifo: skipped: %s\n", why);
    exit(EXIT_SKIP);
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        skip("cannot pin to the chosen CPU");
}

/* True if both are threads of one core: they share its caches, and the line never travels. */
static bool siblings(int a, int b)
{
    char path[96], list[128] = "";
    int core[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i == 0 ? a : b);
        FILE *f = fopen(path, "r");
        if (f == NULL || fgets(list, sizeof list, f) == NULL)
            list[0] = '\0';
        if (f != NULL)
            fclose(f);
        core[i] = list[0] != '\0' ? atoi(list) : -1 - i;
    }
    return core[0] == core[1];
}

static void choose_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        die("sched_getaffinity", errno);
    if (CPU_COUNT(&set) < 2)
        skip("needs two CPUs");
    for (int pass = 0; pass < 2 && cpus[1] < 0; pass++) { /* second pass: better two threads of one core than nothing */
        for (int cpu = 0; cpu < CPU_SETSIZE && cpus[1] < 0; cpu++) {
            if (!CPU_ISSET(cpu, &set) || cpu == cpus[0])
                continue;
            if (cpus[0] < 0)
                cpus[0] = cpu;
            else if (pass == 1 || !siblings(cpus[0], cpu))
                cpus[1] = cpu;
        }
    }
}

/* The child of a case: pinned to the second CPU, and gone when the parent goes (Ctrl-C, kill, a stall): nothing of us stays. */
static pid_t fork_pinned(void)
{
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        die("fork", errno);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        pin(cpus[1]);
    }
    return child;
}

static int by_ticks(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* ---- the two ends of each case ---- */

static void send_all(charfifo *w, const uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t k = charfifo_write(w, p, n);
        if (k < 0)
            die("charfifo_write", (int)-k);
        if (k == 0)
            rshm_cpu_relax();
        p += k;
        n -= (size_t)k;
    }
}

static void receive_all(charfifo *r, uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t k = charfifo_read(r, p, n);
        if (k < 0)
            die("charfifo_read", (int)-k);
        if (k == 0)
            rshm_cpu_relax();
        p += k;
        n -= (size_t)k;
    }
}

static void await_turn(uint64_t turn)
{
    while (rshm_load_acquire(&sh->turn) != turn) /* R1: pairs with the peer's store */
        rshm_cpu_relax();
}

static void serve(const struct bench_case *c, charfifo *requests, charfifo *replies)
{
    uint8_t *buffer = sh->buffer[1];
    if (c->kind == LINE) {
        for (uint64_t i = 0; i < warm_up + c->count; i++) {
            await_turn(2 * i + 1);
            rshm_store_release(&sh->turn, 2 * i + 2); /* W1 */
        }
    } else if (c->kind == ECHO) {
        for (uint32_t i = 0; i < warm_up + c->count; i++) {
            receive_all(requests, buffer, c->request);
            send_all(replies, buffer, c->reply);
        }
    } else {
        while (charfifo_poll(requests) != CHARFIFO_EOF) {
            ssize_t k = charfifo_read(requests, buffer, MESSAGE_MAX);
            if (k < 0)
                die("charfifo_read", (int)-k);
            if (k == 0)
                rshm_cpu_relax();
        }
    }
    rshm_store_release(&sh->done, 1u); /* W1 */
}

static void drive(const struct bench_case *c, charfifo *requests, charfifo *replies)
{
    uint8_t *buffer = sh->buffer[0];
    uint64_t from = ticks_now();
    for (uint32_t i = 0; i < warm_up + c->count; i++) {
        if (c->kind == LINE) {
            rshm_store_release(&sh->turn, 2 * (uint64_t)i + 1); /* W1 */
            await_turn(2 * (uint64_t)i + 2);
        } else {
            send_all(requests, buffer, c->request);
            receive_all(replies, buffer, c->reply);
        }
        uint64_t to = ticks_now();
        if (i >= warm_up)
            sh->ticks[i - warm_up] = to - from < UINT32_MAX ? (uint32_t)(to - from) : UINT32_MAX;
        from = to;
    }
}

static double stream(const struct bench_case *c, charfifo *requests)
{
    uint64_t writes = ((uint64_t)c->count << 20) / c->request;
    double from = clock_ns();
    for (uint64_t i = 0; i < writes; i++)
        send_all(requests, sh->buffer[0], c->request);
    charfifo_close_writer(requests);
    while (rshm_load_acquire(&sh->done) == 0) /* R1: all was received, not just sent */
        rshm_cpu_relax();
    return (double)(writes * c->request) / (clock_ns() - from);
}

static void run(struct bench_case *c, int round, double tick_ns)
{
    size_t each = charfifo_memory_bytes(ring_bytes);
    charfifo requests, replies;
    int r = 0;

    memset(sh->rings, 0, 2 * each);
    r |= charfifo_init(sh->rings, each, ring_bytes, 0);
    r |= charfifo_init(sh->rings + each, each, ring_bytes, 0);
    rshm_store_relaxed(&sh->turn, (uint64_t)0); /* fork() orders these */
    rshm_store_relaxed(&sh->ready, 0u);
    rshm_store_relaxed(&sh->done, 0u);

    alarm(STALL_S);
    pid_t child = fork_pinned();
    if (child == 0) {
        r |= charfifo_attach_reader(&requests, sh->rings, each, ring_bytes);
        r |= charfifo_attach_writer(&replies, sh->rings + each, each, ring_bytes);
        if (r < 0)
            die("attach", EPROTO);
        rshm_store_release(&sh->ready, 1u);
        serve(c, &requests, &replies);
        _exit(0);
    }
    r |= charfifo_attach_writer(&requests, sh->rings, each, ring_bytes);
    r |= charfifo_attach_reader(&replies, sh->rings + each, each, ring_bytes);
    if (r < 0)
        die("attach", EPROTO);
    int status;
    while (rshm_load_acquire(&sh->ready) == 0)
        if (waitpid(child, &status, WNOHANG) != 0)
            exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    if (c->kind == STREAM) {
        c->p50[round] = stream(c, &requests);
    } else {
        drive(c, &requests, &replies);
        qsort(sh->ticks, c->count, sizeof sh->ticks[0], by_ticks);
        c->p50[round] = sh->ticks[c->count / 2] * tick_ns;
        c->p99[round] = sh->ticks[c->count - 1 - c->count / 100] * tick_ns;
    }
    if (waitpid(child, &status, 0) != child || status != 0)
        die("the echoing process failed", ECHILD);
    alarm(0);
}

/* ---- results ---- */

struct stat3 {
    double median, min, max;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct stat3 stat_of(const double *values)
{
    double v[ROUNDS_MAX];
    memcpy(v, values, (size_t)rounds * sizeof v[0]);
    qsort(v, (size_t)rounds, sizeof v[0], by_value);
    return (struct stat3){v[rounds / 2], v[0], v[rounds - 1]};
}

/* The bare line's own spread stays below that; the figures of such a run mix two machines. */
static bool cpus_were_moved(void)
{
    struct stat3 line = stat_of(cases[0].p50);
    return line.max > 3 * line.min;
}

static struct stat3 ratio_of_rounds(void)
{
    double v[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++)
        v[i] = cases[1].p50[i] / cases[0].p50[i];
    struct stat3 s = stat_of(v);
    s.median = stat_of(cases[1].p50).median / stat_of(cases[0].p50).median; /* the definition; min and max show the spread */
    return s;
}

static void cpu_model(char *out, size_t n)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, n, "unknown");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL && colon[1] == ' ') {
            colon[strcspn(colon, "\"\\\n")] = '\0'; /* it goes into JSON */
            snprintf(out, n, "%s", colon + 2);
            break;
        }
    }
    if (f != NULL)
        fclose(f);
}

static void print_table(const char *cpu, const struct utsname *u)
{
    struct stat3 ratio = ratio_of_rounds();
    printf("%s, Linux %s, CPUs %d and %d, ring %zu bytes, %d rounds, median (min..max of the rounds)\n", cpu, u->release, cpus[0], cpus[1],
           ring_bytes, rounds);
    if (cpus_were_moved())
        printf("NOTE: the bare line differs more than threefold between rounds: the CPUs were moved meanwhile. Repeat.\n");
    printf("\n");
    printf("%-24s %10s %22s %10s %22s\n", "round trip", "p50 ns", "", "p99 ns", "");
    bool head = false;
    for (size_t i = 0; i < CASES; i++) {
        struct stat3 a = stat_of(cases[i].p50);
        char name[64], as[48], bs[48];
        if (cases[i].kind == STREAM) {
            if (!head)
                printf("\n%-24s %10s\n", "one way", "GB/s");
            head = true;
            snprintf(name, sizeof name, "writes of %zu bytes", cases[i].request);
            snprintf(as, sizeof as, "(%.2f..%.2f)", a.min, a.max);
            printf("%-24s %10.2f %22s\n", name, a.median, as);
            continue;
        }
        struct stat3 b = stat_of(cases[i].p99);
        if (cases[i].kind == LINE)
            snprintf(name, sizeof name, "one bare cache line");
        else
            snprintf(name, sizeof name, "echo %zu -> %zu bytes", cases[i].request, cases[i].reply);
        snprintf(as, sizeof as, "(%.0f..%.0f)", a.min, a.max);
        snprintf(bs, sizeof bs, "(%.0f..%.0f)", b.min, b.max);
        printf("%-24s %10.0f %22s %10.0f %22s\n", name, a.median, as, b.median, bs);
    }
    printf("\necho 22 -> 39 / bare line %9.2f %15s(%.2f..%.2f)\n", ratio.median, "", ratio.min, ratio.max);
}

static void write_json(const char *path, const char *cpu, const struct utsname *u)
{
    FILE *f = fopen(path, "w");
    if (f == NULL)
        die(path, errno);
    struct stat3 line = stat_of(cases[0].p50), echo = stat_of(cases[1].p50), ratio = ratio_of_rounds();
    fprintf(f, "{\n  \"host\": {\"cpu\": \"%s\", \"kernel\": \"%s\", \"arch\": \"%s\", \"cpus_pinned\": [%d, %d]},\n", cpu, u->release,
            u->machine, cpus[0], cpus[1]);
    fprintf(f, "  \"cpus_were_moved\": %s,\n", cpus_were_moved() ? "true" : "false");
    fprintf(f, "  \"ring_bytes\": %zu,\n  \"rounds\": %d,\n  \"warm_up_trips\": %" PRIu32 ",\n", ring_bytes, rounds, warm_up);
    fprintf(f, "  \"line_rtt_ns\": %.1f,\n  \"line_rtt_spread_ns\": [%.1f, %.1f],\n  \"line_rtt_p99_ns\": %.1f,\n", line.median, line.min, line.max,
            stat_of(cases[0].p99).median);
    fprintf(f, "  \"echo_rtt_ns\": {\"p50\": %.1f, \"p99\": %.1f},\n", echo.median, stat_of(cases[1].p99).median);
    fprintf(f, "  \"ratio\": %.3f,\n  \"ratio_spread\": [%.3f, %.3f],\n  \"echo\": [", ratio.median, ratio.min, ratio.max);
    const char *comma = "";
    bool streams = false;
    for (size_t i = 1; i < CASES; i++) {
        struct stat3 a = stat_of(cases[i].p50);
        if (cases[i].kind == STREAM && !streams) {
            fprintf(f, "\n  ],\n  \"throughput\": [");
            comma = "";
            streams = true;
        }
        if (streams)
            fprintf(f, "%s\n    {\"write_bytes\": %zu, \"gb_per_s\": %.3f, \"spread\": [%.3f, %.3f]}", comma, cases[i].request, a.median, a.min, a.max);
        else
            fprintf(f, "%s\n    {\"request_bytes\": %zu, \"reply_bytes\": %zu, \"p50_ns\": %.1f, \"p50_spread_ns\": [%.1f, %.1f], \"p99_ns\": %.1f, \"trips_per_round\": %" PRIu32 "}",
                    comma, cases[i].request, cases[i].reply, a.median, a.min, a.max, stat_of(cases[i].p99).median, cases[i].count);
        comma = ",";
    }
    fprintf(f, "\n  ]\n}\n");
    if (fclose(f) != 0)
        die(path, errno);
}

static void usage(FILE *to)
{
    fprintf(to, "usage: bench_fifo [options]\n"
                "Round trips of a bare cache line and of the FIFO, and the FIFO's throughput, between two pinned processes.\n\n"
                "  -r, --rounds N     rounds over all cases, odd, 1 to %d (default %d)\n"
                "  -c, --cpus A,B     the two CPUs (default: the first two allowed ones on different cores)\n"
                "  -s, --ring BYTES   capacity of each ring, a power of two (default %zu)\n"
                "  -o, --out FILE     also write the figures as JSON\n"
                "  -h, --help         this\n\n"
                "Exit: 0 done, 1 failure, 2 usage, 77 skipped (fewer than two CPUs).\n",
            ROUNDS_MAX, rounds, ring_bytes);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rounds", required_argument, NULL, 'r'}, {"cpus", required_argument, NULL, 'c'},
                                            {"ring", required_argument, NULL, 's'},   {"out", required_argument, NULL, 'o'},
                                            {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    const char *out = NULL;
    for (int o; (o = getopt_long(argc, argv, "r:c:s:o:h", options, NULL)) != -1;) {
        if (o == 'r')
            rounds = atoi(optarg);
        else if (o == 's')
            ring_bytes = strtoul(optarg, NULL, 0);
        else if (o == 'o')
            out = optarg;
        else if (o == 'c' && sscanf(optarg, "%d,%d", &cpus[0], &cpus[1]) == 2 && cpus[0] >= 0 && cpus[1] >= 0 && cpus[0] != cpus[1])
            continue;
        else {
            usage(o == 'h' ? stdout : stderr);
            return o == 'h' ? 0 : 2;
        }
    }
    if (optind != argc || rounds < 1 || rounds > ROUNDS_MAX || rounds % 2 == 0 || charfifo_memory_bytes(ring_bytes) == 0) {
        usage(stderr);
        return 2;
    }
    if (cpus[1] < 0)
        choose_cpus();
    pin(cpus[0]);

    size_t bytes = sizeof *sh + 2 * charfifo_memory_bytes(ring_bytes);
    sh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED)
        die("mmap", errno);
    memset(sh, 'x', bytes);
    uint32_t trips_of_two_laps = (uint32_t)(2 * ring_bytes / RSHM_CACHE_LINE);
    if (warm_up < trips_of_two_laps)
        warm_up = trips_of_two_laps;

    double tick_ns = ns_per_tick();
    bool progress = isatty(STDERR_FILENO);
    for (int round = 0; round < rounds; round++)
        for (size_t i = 0; i < CASES; i++) {
            if (progress)
                fprintf(stderr, "\rbench_fifo: round %d of %d, case %zu of %zu ", round + 1, rounds, i + 1, CASES);
            run(&cases[i], round, tick_ns);
        }
    if (progress)
        fprintf(stderr, "\r%60s\r", "");

    char cpu[128];
    struct utsname u;
    cpu_model(cpu, sizeof cpu);
    uname(&u);
    print_table(cpu, &u);
    if (out != NULL)
        write_json(out, cpu, &u);
    return 0;
}
