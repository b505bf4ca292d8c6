/* witness.c - see witness.h. */
#include "villain/witness.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 5000
#define ALONE_MS 300
#define PAUSE_US 200       /* between requests: a witness that never sleeps takes the CPU that the others need */
#define LATE_NS 2000000000 /* a server that waits for a villain waits for ever, or seconds; a busy machine does not reach this */
#define SAMPLES_MAX (1u << 20)

struct witness {
    redisContext *c;
    pthread_t thread;
    const char *name;
    _Atomic uint64_t done;
    _Atomic int wrong;
    char what[200];
    uint32_t *ns; /* latencies */
    size_t samples, alone;
};

struct server villain_server;
static struct witness witnesses[2];
static atomic_bool stop;
static int fds_before, maps_before;
static bool unfinished = true; /* cmocka's result does not know of a teardown that failed */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *watch(void *arg)
{
    struct witness *w = arg;
    const struct timespec pause = {0, PAUSE_US * 1000};
    for (uint64_t i = 0; !stop && !w->wrong; i++) {
        uint64_t start = now_ns();
        redisReply *r = redisCommand(w->c, i % 2 == 0 ? "SET witness:%s %llu" : "GET witness:%s", w->name, (unsigned long long)(i / 2));
        uint64_t took = now_ns() - start;
        char expect[24] = "OK";
        if (i % 2 != 0)
            snprintf(expect, sizeof expect, "%llu", (unsigned long long)(i / 2));
        if (r == NULL || r->str == NULL || strcmp(r->str, expect) != 0)
            snprintf(w->what, sizeof w->what, "%s: request %llu: %s instead of %s", w->name, (unsigned long long)i,
                     r == NULL ? w->c->errstr : r->str == NULL ? "nothing" : r->str, expect);
        else if (took > LATE_NS)
            snprintf(w->what, sizeof w->what, "%s: request %llu took %.3f s", w->name, (unsigned long long)i, (double)took / 1e9);
        if (w->what[0] != 0)
            w->wrong = 1;
        freeReplyObject(r);
        if (w->samples < SAMPLES_MAX)
            w->ns[w->samples++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
        w->done++;
        nanosleep(&pause, NULL);
    }
    return NULL;
}

void expect_service(void)
{
    for (int i = 0; i < 2; i++) {
        struct witness *w = &witnesses[i];
        const uint64_t seen = w->done, end = now_ms() + PATIENCE_MS;
        while (w->done < seen + 2 && !w->wrong && now_ms() < end)
            sleep_ms(1);
        if (w->wrong)
            fail_msg("%s", w->what);
        if (w->done < seen + 2)
            fail_msg("%s is not served any more", w->name);
    }
    assert_int_equal(waitpid(villain_server.pid, NULL, WNOHANG), 0);
}

/* After its first session a server keeps one descriptor more, for the poller: the state to return to is that. */
int villain_setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    server_start(&villain_server, true, NULL);
    for (int i = 0; i < 2; i++) {
        struct witness *w = &witnesses[i];
        memset(w, 0, sizeof *w);
        w->name = i == 0 ? "shared-memory" : "socket";
        w->ns = calloc(SAMPLES_MAX, sizeof *w->ns);
        w->c = i == 0 ? connect_shm(&transports[1], &villain_server) : connect_plain(&transports[1], &villain_server);
        reply_is_status(redisCommand(w->c, "PING"), "PONG"); /* it is accepted, so its descriptor counts */
        redisSetTimeout(w->c, (struct timeval){PATIENCE_MS / 1000, 0});
    }
    fds_before = count_fds(villain_server.pid);
    maps_before = count_mappings(villain_server.pid, "memfd:redis-shm");
    stop = false;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&witnesses[i].thread, NULL, watch, &witnesses[i]) != 0)
            return -1;
    sleep_ms(ALONE_MS);
    for (int i = 0; i < 2; i++)
        witnesses[i].alone = witnesses[i].samples; /* a racy look at a counter that only grows */
    return 0;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double p99_us(uint32_t *ns, size_t n)
{
    if (n == 0)
        return 0;
    qsort(ns, n, sizeof *ns, by_value);
    return ns[n * 99 / 100] / 1e3;
}

int villain_teardown(void **state)
{
    int wrong = 0;
    (void)state;
    stop = true;
    for (int i = 0; i < 2; i++) {
        struct witness *w = &witnesses[i];
        pthread_join(w->thread, NULL);
        print_message("# witness over %s: %zu requests, p99 %.0f us alone, %.0f us beside the villain\n", w->name, w->samples,
                      p99_us(w->ns, w->alone), p99_us(w->ns + w->alone, w->samples - w->alone));
        if (w->wrong) {
            print_error("%s\n", w->what);
            wrong = 1;
        }
        free(w->ns);
    }
    const uint64_t end = now_ms() + PATIENCE_MS;
    int fds, maps;
    do {
        sleep_ms(10);
        fds = count_fds(villain_server.pid);
        maps = count_mappings(villain_server.pid, "memfd:redis-shm");
    } while ((fds != fds_before || maps != maps_before) && now_ms() < end);
    if (fds != fds_before || maps != maps_before) {
        print_error("%d descriptors and %d mappings before, %d and %d after\n", fds_before, maps_before, fds, maps);
        wrong = 1;
    }
    for (int i = 0; i < 2; i++)
        redisFree(witnesses[i].c);
    await_stat(&villain_server, "sessions", 0);
    await_stat(&villain_server, "memory_bytes", 0);
    server_stop(&villain_server);
    unfinished = wrong != 0;
    return -wrong;
}

int villain_run(const struct named_test *tests, size_t n)
{
    if (getenv("TEST_FILTER") != NULL)
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    const int failed = run_group_over_both(tests, n, villain_setup, villain_teardown);
    return failed != 0 ? failed : unfinished;
}

/* ---- the log ---- */

static char *log_since(long mark)
{
    char path[128];
    snprintf(path, sizeof path, "%s/log", villain_server.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long end = ftell(f);
    char *text = calloc(1, (size_t)(end - mark) + 1);
    assert_non_null(text);
    fseek(f, mark, SEEK_SET);
    size_t n = fread(text, 1, (size_t)(end - mark), f);
    text[n] = 0;
    fclose(f);
    return text;
}

long log_mark(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/log", villain_server.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long end = ftell(f);
    fclose(f);
    return end;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

void expect_rule(long mark, const char *rule)
{
    const uint64_t end = now_ms() + PATIENCE_MS;
    for (;;) {
        char *text = log_since(mark);
        const int named = count(text, rule), closed = count(text, "shm: closing client");
        if (named == 1 && closed == 1) {
            free(text);
            return;
        }
        if (now_ms() > end || closed > 1) {
            print_error("%s\n", text);
            free(text);
            fail_msg("the log should name once: %s", rule);
        }
        free(text);
        sleep_ms(5);
    }
}

void expect_no_rule(long mark)
{
    char *text = log_since(mark);
    const int closed = count(text, "shm: closing client");
    if (closed != 0)
        print_error("%s\n", text);
    free(text);
    assert_int_equal(closed, 0);
}

void expect_punished(struct peer *p, long mark, const char *rule)
{
    if (!peer_closed(p))
        fail_msg("the server did not close the connection; it should, for: %s", rule);
    expect_rule(mark, rule);
    peer_end(p);
    expect_service();
}

void expect_harmless(struct peer *p, long mark)
{
    assert_true(peer_ping(p));
    expect_no_rule(mark);
    peer_end(p);
    expect_service();
}
