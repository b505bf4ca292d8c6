/* beside.c - see beside.h. */
#include "beside.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_MS 100

const char *const load_names[LOADS] = {"nobody", "a Unix-socket client", "a shared-memory client"};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* In a process of its own, until killed. */
static void load_flat_out(const struct server *s, bool shm, int depth, _Atomic uint64_t *done)
{
    redisContext *c = redisConnectUnix(s->path);
    void *r = NULL;
    if (c == NULL || c->err != 0)
        _exit(1);
    if (shm) {
        redisReply *opened = redisUseSharedMemory(c);
        if (opened == NULL || opened->type != REDIS_REPLY_INTEGER || opened->integer != 1)
            _exit(1);
        freeReplyObject(opened);
    }
    for (;;) {
        for (int i = 0; i < depth; i++)
            redisAppendCommand(c, "GET beside");
        for (int i = 0; i < depth; i++) {
            if (redisGetReply(c, &r) != REDIS_OK)
                _exit(1);
            freeReplyObject(r);
        }
        atomic_fetch_add_explicit(done, (uint64_t)depth, memory_order_relaxed);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void measure_beside(const struct transport *t, const struct server *s, enum load load, int depth, int count, int gap_us, struct beside *out)
{
    _Atomic uint64_t *done = mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double *us = calloc((size_t)count, sizeof *us);
    assert_true(done != MAP_FAILED);
    assert_non_null(us);
    redisContext *c = connect_plain(t, s);
    reply_is_status(redisCommand(c, "SET beside %s", "0123456789abcdef0123456789abcdef"), "OK");

    pid_t parent = getpid(), child = load == LOAD_NONE ? 0 : fork();
    assert_true(child >= 0);
    if (load != LOAD_NONE && child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            load_flat_out(s, load == LOAD_SHM, depth, done);
        _exit(1);
    }
    sleep_ms(WARM_UP_MS);
    uint64_t from = now_ns(), turn = from, before = atomic_load(done);
    bool failed = false;
    for (int i = 0; i < count && !failed; i++) {
        if (gap_us > 0)
            sleep_until(turn += (uint64_t)gap_us * 1000);
        uint64_t start = now_ns();
        redisReply *r = redisCommand(c, "PING");
        us[i] = (double)(now_ns() - start) / 1000;
        failed = r == NULL || r->type != REDIS_REPLY_STATUS;
        freeReplyObject(r);
    }
    out->load_per_s = (double)(atomic_load(done) - before) * 1e9 / (double)(now_ns() - from);
    int status = 0;
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    munmap(done, sizeof *done);
    redisFree(c);
    qsort(us, (size_t)count, sizeof *us, by_value);
    out->p50_us = us[count / 2];
    out->p99_us = us[count - 1 - count / 100];
    out->p99_9_us = us[count - 1 - count / 1000];
    out->max_us = us[count - 1];
    free(us);
    assert_false(failed);
    assert_true(child == 0 || WIFSIGNALED(status)); /* else the load had ended by itself */
    assert_true(child == 0 || out->load_per_s > 0);
}
