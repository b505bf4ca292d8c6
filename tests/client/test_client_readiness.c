/* test_client_readiness.c - c->fd of a non-blocking context under poll(), select() and epoll: no wake-up is ever lost, and an idle
 * connection is quiet. Sizes and pauses are random; SEED=n repeats a run. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 20000
#define SIZE_MAX_BYTES (3 * RING_BYTES)

static char *pattern; /* SIZE_MAX_BYTES and as much again to start in */
static uint64_t seed;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

/* Mostly small; around the sizes at which something ends: hiredis' read chunk, a record, the ring; now and then large. */
static size_t random_size(void)
{
    static const size_t edges[] = {16 * 1024, RING_BYTES / 4, RING_BYTES / 2, RING_BYTES, 64};
    switch (random_below(32)) {
    case 0:
        return random_below(SIZE_MAX_BYTES);
    case 1:
        return random_below(40000);
    case 2:
    case 3:
        return edges[random_below(5)] - 40 + random_below(60);
    default:
        return random_below(200);
    }
}

/* Long enough, now and then, for the server to fall asleep, or to be on its way there. */
static void think(void)
{
    uint32_t us = random_below(8) == 0 ? random_below(150) : 0;
    if (random_below(200) == 0)
        us = 1000 + random_below(500);
    struct timespec t, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += (long)us * 1000;
    do
        clock_gettime(CLOCK_MONOTONIC, &t);
    while (us > 0 && (t.tv_sec - end.tv_sec) * 1000000000L + t.tv_nsec - end.tv_nsec < 0);
}

static redisContext *open_nonblocking(const struct transport *t)
{
    redisContext *c = connect_nonblocking(t, &shared);
    assert_null(redisUseSharedMemory(c));
    reply_is_integer(await_reply(c, wait_poll), 1);
    assert_true(redisIsSharedMemoryInitialized(c));
    return c;
}

static void rounds(const struct transport *t, wait_fn *wait, int count)
{
    redisContext *c = open_nonblocking(t);
    for (int i = 0; i < count; i++) {
        size_t n = random_size();
        const char *p = pattern + random_below(SIZE_MAX_BYTES);
        assert_int_equal(redisAppendCommand(c, "ECHO %b", p, n), REDIS_OK);
        reply_is_string(await_reply(c, wait), p, n);
        think();
    }
    redisFree(c);
}

static void poll_wakes_for_every_reply(void **state)
{
    rounds(*state, wait_poll, ROUNDS);
}

static void select_wakes_for_every_reply(void **state)
{
    rounds(*state, wait_select, ROUNDS / 4);
}

static void epoll_wakes_for_every_reply(void **state)
{
    rounds(*state, wait_epoll, ROUNDS / 4);
}

/* Several requests under way, of any size, in both directions at once. */
static void poll_wakes_for_every_reply_of_a_moving_window(void **state)
{
    enum { WINDOW = 64 };
    struct {
        const char *p;
        size_t n;
    } sent[WINDOW];
    int tail = 0, head = 0;
    redisContext *c = open_nonblocking(*state);
    while (tail < ROUNDS) {
        int more = (int)random_below(WINDOW) + 1;
        for (; more > 0 && head < ROUNDS && head - tail < WINDOW; more--, head++) {
            sent[head % WINDOW].p = pattern + random_below(SIZE_MAX_BYTES);
            sent[head % WINDOW].n = random_size();
            assert_int_equal(redisAppendCommand(c, "ECHO %b", sent[head % WINDOW].p, sent[head % WINDOW].n), REDIS_OK);
        }
        for (int take = 1 + (int)random_below((uint32_t)(head - tail)); take > 0; take--, tail++)
            reply_is_string(await_reply(c, wait_poll), sent[tail % WINDOW].p, sent[tail % WINDOW].n);
        think();
    }
    redisFree(c);
}

/* ---- pub/sub ---- */

#define MESSAGES 50000

struct publisher {
    pthread_t thread;
    bool failed;
};

static size_t message_bytes(int i)
{
    return i % 1000 == 999 ? 100000 : i % 100 == 99 ? 17000 : (size_t)(i * 7 % 300);
}

static void *publish(void *arg)
{
    struct publisher *p = arg;
    redisContext *c = redisConnectUnix(shared.path);
    p->failed = c == NULL || c->err != 0;
    for (int i = 0, answered = 0; i < MESSAGES && !p->failed; i++) {
        redisAppendCommand(c, "PUBLISH flood %08d%b", i, pattern, message_bytes(i));
        void *r;
        for (; (i + 1) % 50 == 0 && answered <= i && !p->failed; answered++) {
            p->failed = redisGetReply(c, &r) != REDIS_OK;
            if (!p->failed)
                freeReplyObject(r);
        }
        if (i % 5000 == 0)
            sleep_ms(3); /* the subscriber catches up and falls asleep */
    }
    redisFree(c);
    return NULL;
}

static void poll_wakes_a_flooded_subscriber_for_every_message(void **state)
{
    struct publisher p = {0};
    redisContext *c = open_nonblocking(*state);
    redisAppendCommand(c, "SUBSCRIBE flood");
    freeReplyObject(await_reply(c, wait_poll));
    assert_int_equal(pthread_create(&p.thread, NULL, publish, &p), 0);
    for (int i = 0; i < MESSAGES; i++) {
        char number[16];
        redisReply *r = await_reply(c, wait_poll);
        assert_non_null(r);
        assert_int_equal(r->elements, 3);
        snprintf(number, sizeof number, "%08d", i);
        assert_int_equal(r->element[2]->len, 8 + message_bytes(i));
        assert_memory_equal(r->element[2]->str, number, 8);
        assert_memory_equal(r->element[2]->str + 8, pattern, message_bytes(i));
        freeReplyObject(r);
    }
    pthread_join(p.thread, NULL);
    assert_false(p.failed);
    redisFree(c);
}

/* ---- quiet, and the end ---- */

static void an_idle_connection_is_quiet(void **state)
{
    redisContext *c = open_nonblocking(*state);
    for (int i = 0; i < 20; i++) {
        struct pollfd p = {c->fd, POLLIN, 0};
        size_t n = random_size();
        redisAppendCommand(c, "ECHO %b", pattern, n);
        reply_is_string(await_reply(c, wait_poll), pattern, n);
        for (int wakes = 0; poll(&p, 1, 20) != 0; wakes++) { /* one bell may be left from a wait that was not needed */
            assert_in_range(wakes, 0, 1);
            assert_int_equal(redisBufferRead(c), REDIS_OK);
        }
        void *r = NULL;
        assert_int_equal(redisGetReply(c, &r), REDIS_OK);
        assert_null(r);
    }
    redisFree(c);
}

/* Nagle's algorithm, which redisConnectNonBlock() leaves on, holds a bell for 40 ms if one before it was not answered by a bell. */
static void no_bell_waits_for_a_delayed_ack(void **state)
{
    enum { N = 2000 };
    int slow = 0;
    redisContext *c = open_nonblocking(*state);
    for (int i = 0; i < N; i++) {
        size_t n = random_size();
        uint64_t from = now_ms();
        redisAppendCommand(c, "ECHO %b", pattern, n);
        for (uint32_t k = random_below(3); k > 0; k--)
            assert_int_equal(redisBufferRead(c), REDIS_OK);
        reply_is_string(await_reply(c, wait_poll), pattern, n);
        slow += now_ms() - from >= 30;
    }
    assert_in_range(slow, 0, 10); /* other programs may have had the CPUs; Nagle's were 1 in 40 */
    redisFree(c);
}

static void reading_too_often_does_no_harm(void **state)
{
    redisContext *c = open_nonblocking(*state);
    for (int i = 0; i < 5000; i++) {
        size_t n = random_size();
        for (uint32_t k = random_below(3); k > 0; k--)
            assert_int_equal(redisBufferRead(c), REDIS_OK);
        redisAppendCommand(c, "ECHO %b", pattern, n);
        int done;
        assert_int_equal(redisBufferWrite(c, &done), REDIS_OK);
        for (uint32_t k = random_below(3); k > 0; k--)
            assert_int_equal(redisBufferRead(c), REDIS_OK);
        reply_is_string(await_reply(c, wait_poll), pattern, n);
    }
    redisFree(c);
}

static void the_fd_is_readable_when_the_server_dies(void **state)
{
    struct server s;
    server_start(&s, true, NULL);
    redisContext *c = connect_nonblocking(*state, &s);
    assert_null(redisUseSharedMemory(c));
    reply_is_integer(await_reply(c, wait_poll), 1);
    redisAppendCommand(c, "BLPOP never-there 0");
    struct later *l = later_signal(s.pid, SIGKILL, 50);
    assert_null(await_reply(c, wait_poll));
    assert_int_equal(c->err, REDIS_ERR_EOF);
    assert_true(now_ms() - later_done(l) < 2000);
    redisFree(c);
    server_stop(&s);
}

static void what_was_replied_before_the_server_closed_is_read_first(void **state)
{
    redisContext *c = open_nonblocking(*state);
    redisAppendCommand(c, "ECHO %b", pattern, (size_t)40000);
    redisAppendCommand(c, "QUIT");
    reply_is_string(await_reply(c, wait_poll), pattern, 40000);
    reply_is_status(await_reply(c, wait_poll), "OK");
    assert_null(await_reply(c, wait_poll));
    assert_int_equal(c->err, REDIS_ERR_EOF);
    redisFree(c);
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(poll_wakes_for_every_reply),
        OVER_BOTH(select_wakes_for_every_reply),
        OVER_BOTH(epoll_wakes_for_every_reply),
        OVER_BOTH(poll_wakes_for_every_reply_of_a_moving_window),
        OVER_BOTH(poll_wakes_a_flooded_subscriber_for_every_message),
        OVER_BOTH(an_idle_connection_is_quiet),
        OVER_BOTH(no_bell_waits_for_a_delayed_ack),
        OVER_BOTH(reading_too_often_does_no_harm),
        OVER_BOTH(the_fd_is_readable_when_the_server_dies),
        OVER_BOTH(what_was_replied_before_the_server_closed_is_read_first),
    };
    const char *given = getenv("SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
    printf("# SEED=%llu\n", (unsigned long long)seed);
    pattern = malloc(2 * SIZE_MAX_BYTES);
    if (pattern == NULL)
        return 1;
    for (size_t i = 0; i < 2 * SIZE_MAX_BYTES; i++)
        pattern[i] = (char)random_below(256);
    int failed = run_over_both(tests, sizeof tests / sizeof tests[0]);
    free(pattern);
    return failed;
}
