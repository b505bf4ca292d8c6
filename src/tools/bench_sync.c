/* bench_sync.c - synchronous clients: a thread with one connection, in a closed or an open loop. The path of a request is that of
 * redisCommand() without the formatting: append, write, read, parse. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <hiredis.h>

#include "tools/bench_load.h"

/* Sleeping ends late by the timer's interrupt, the waking of the CPU and the scheduler; what is left is waited out awake. */
#define SPIN_BEFORE_DUE_NS UINT64_C(100000)
/* A pause below it stands for work of the application, one above for its waiting for something else. */
#define THINK_ASLEEP_NS UINT64_C(100000)
#define SLEEP_NS_MAX UINT64_C(50000000) /* then see whether to stop */

struct client {
    redisContext *c;
    struct rshm_generator generator;
    struct rshm_expected *expected;
    uint64_t *since_ns;
};

static int connect_client(struct rshm_load_worker *w)
{
    const struct rshm_load *l = w->load;
    const struct rshm_bench_row *row = l->row;
    const struct timeval timeout = {.tv_sec = RSHM_LOAD_REPLY_TIMEOUT_S};
    struct client *s = calloc(1, sizeof *s);
    w->driver = s;
    if (s == NULL)
        return -ENOMEM;
    s->expected = calloc(row->pipeline, sizeof *s->expected);
    s->since_ns = calloc(row->pipeline, sizeof *s->since_ns);
    if (s->expected == NULL || s->since_ns == NULL ||
        rshm_generator_init(&s->generator, &l->bench->workload, &row->size, w->first_client, row->clients) < 0)
        return -ENOMEM;
    int r = rshm_endpoint_connect(&l->bench->endpoints[row->transport], row->transport, row->mode, &s->c, w->why, sizeof w->why);
    if (r == 0 && redisSetTimeout(s->c, timeout) != REDIS_OK) {
        snprintf(w->why, sizeof w->why, "%s", s->c->errstr);
        r = -EIO;
    }
    prctl(PR_SET_TIMERSLACK, 1ul);
    return r;
}

static bool stopped(const struct rshm_load *l)
{
    return atomic_load_explicit(&l->stop, memory_order_relaxed);
}

/* Until due_ns; asleep as far as that is possible, and its end as exact as the CPU's clock if `exact`. Returns the time. */
static uint64_t wait_until(const struct rshm_load *l, uint64_t due_ns, bool exact, uint64_t now_ns)
{
    const uint64_t awake_ns = exact ? SPIN_BEFORE_DUE_NS : 0;
    while (now_ns < due_ns && !stopped(l)) {
        if (due_ns - now_ns > awake_ns) {
            uint64_t until_ns = due_ns - awake_ns - now_ns > SLEEP_NS_MAX ? now_ns + SLEEP_NS_MAX : due_ns - awake_ns;
            struct timespec t = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        }
        now_ns = rshm_now_ns();
    }
    return now_ns;
}

/* One request, or several at once, from `first` of since_ns on; since_ns is set for a closed loop. Returns when the last reply came; 0 if
 * the connection failed. */
static uint64_t exchange(struct rshm_load_worker *w, struct client *s, size_t count, bool closed)
{
    const struct rshm_load *l = w->load;
    const char *bytes;
    uint64_t now_ns = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = rshm_generator_next(&s->generator, &bytes, &s->expected[i]);
        if (count == 1)
            now_ns = rshm_now_ns();
        if (n == 0 || redisAppendFormattedCommand(s->c, bytes, n) != REDIS_OK) {
            rshm_load_fail(w, -ENOMEM, "out of memory");
            return 0;
        }
    }
    if (count > 1)
        now_ns = rshm_now_ns();
    const uint64_t sent_ns = now_ns;
    for (size_t i = 0; i < count; i++) {
        redisReply *reply = NULL;
        if (redisGetReply(s->c, (void **)&reply) != REDIS_OK) {
            char why[256];
            bool timeout = s->c->err == REDIS_ERR_IO && errno == EAGAIN;
            if (timeout)
                snprintf(why, sizeof why, "no reply within %d s", RSHM_LOAD_REPLY_TIMEOUT_S);
            else
                snprintf(why, sizeof why, "the connection is lost: %s", s->c->errstr);
            rshm_load_fail(w, -EIO, why);
            return 0;
        }
        now_ns = rshm_now_ns();
        uint64_t since_ns = closed ? sent_ns : s->since_ns[i];
        if (since_ns >= l->begin_ns) {
            rshm_load_record(w, since_ns, now_ns);
            rshm_load_judge(w, &s->generator, &s->expected[i], reply);
        }
        freeReplyObject(reply);
    }
    return now_ns;
}

/* Each reply, after a pause if one is wanted, brings the next request. */
static void closed_loop(struct rshm_load_worker *w, struct client *s)
{
    const struct rshm_load *l = w->load;
    uint64_t now_ns = rshm_now_ns();
    while (now_ns != 0 && now_ns < l->end_ns && !stopped(l)) {
        if (rshm_histogram_count(&w->latency) >= w->quota)
            break;
        uint64_t left = w->quota - rshm_histogram_count(&w->latency);
        size_t count = now_ns >= l->begin_ns && left < l->row->pipeline ? (size_t)left : l->row->pipeline;
        now_ns = exchange(w, s, count, true);
        if (l->think_ns > 0 && now_ns != 0)
            now_ns = wait_until(l, now_ns + l->think_ns, l->think_ns < THINK_ASLEEP_NS, now_ns);
    }
}

/* Requests are due by the clock. Those that could not be sent because a reply was awaited are sent at once after it, and have waited since
 * they were due: a server that stops for a while is seen by all requests that would have come meanwhile, not by one. */
static void open_loop(struct rshm_load_worker *w, struct client *s)
{
    const struct rshm_load *l = w->load;
    uint64_t n = 0, counted = 0, now_ns = rshm_now_ns(), due_ns = rshm_load_due_ns(l, w->first_client, 0);
    while (due_ns < l->end_ns && counted < w->quota && !stopped(l)) {
        if (now_ns < due_ns) {
            now_ns = wait_until(l, due_ns, true, now_ns);
            if (due_ns >= l->begin_ns && now_ns > due_ns) {
                w->late_ns += now_ns - due_ns;
                w->late_max_ns = now_ns - due_ns > w->late_max_ns ? now_ns - due_ns : w->late_max_ns;
            }
            continue;
        }
        if (l->end_ns != UINT64_MAX && now_ns > l->end_ns + RSHM_LOAD_GRACE_NS) {
            for (; due_ns < l->end_ns; due_ns = rshm_load_due_ns(l, w->first_client, ++n))
                w->unsent++;
            return;
        }
        size_t count = 0;
        while (count < l->row->pipeline && due_ns <= now_ns && due_ns < l->end_ns && counted < w->quota) {
            s->since_ns[count++] = due_ns;
            counted += due_ns >= l->begin_ns;
            due_ns = rshm_load_due_ns(l, w->first_client, ++n);
        }
        now_ns = exchange(w, s, count, false);
        if (now_ns == 0)
            return;
    }
}

static void load_client(struct rshm_load_worker *w)
{
    if (w->load->interval_ns > 0)
        open_loop(w, w->driver);
    else
        closed_loop(w, w->driver);
}

static void abort_client(struct rshm_load_worker *w)
{
    struct client *s = w->driver;
    if (s != NULL && s->c != NULL)
        shutdown(s->c->fd, SHUT_RDWR);
}

static void close_client(struct rshm_load_worker *w)
{
    struct client *s = w->driver;
    if (s == NULL)
        return;
    redisFree(s->c);
    rshm_generator_free(&s->generator);
    free(s->expected);
    free(s->since_ns);
    free(s);
}

const struct rshm_load_driver rshm_load_sync = {connect_client, load_client, abort_client, close_client};
