/* test_async.c - what the asynchronous API promises, over hiredis' stock adapters, TCP and Unix sockets. SEED=n repeats the random parts; arguments: parts
 * of names, to run only some. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sds.h>

#include "channel/channel.h"
#include "loops.h"

#define LOST_MS 5000
#define PATTERN_BYTES (4 * RING_BYTES)

static struct server without; /* no module */
static char *pattern;         /* PATTERN_BYTES and as much again to start in */
static uint64_t seed;

/* How a test runs: its cmocka state. */
struct way {
    const struct loop *loop;
    const struct transport *transport;
};

static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

/* ---- a connection ---- */

enum { ATTACH_FIRST = 1, ATTACH_LAST = 2, PLAIN = 4, NO_AUTO_FREE = 8 };

struct conn {
    const struct way *way;
    redisAsyncContext *ac; /* NULL once hiredis has freed it */
    int opened;            /* 1: shared memory, -1: an error reply, -2: NULL */
    char why[256];
    bool connected;
    int disconnects, disconnect_status;
    int replies, nulls;    /* counted by the callbacks below */
    bool in_order;
    bool spin;             /* between turns */
};

/* Those that a failed test leaves behind must not disturb the next. */
#define LIVE_MAX 8
static redisAsyncContext *live[LIVE_MAX];

static void on_freed(void *data)
{
    struct conn *k = data;
    for (int i = 0; i < LIVE_MAX; i++)
        if (live[i] == k->ac)
            live[i] = NULL;
    k->ac = NULL;
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    ((struct conn *)ac->data)->connected = status == REDIS_OK;
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
    struct conn *k = ac->data;
    k->disconnects++;
    k->disconnect_status = status;
}

static void on_open(redisAsyncContext *ac, void *reply, void *privdata)
{
    struct conn *k = privdata;
    redisReply *r = reply;
    assert_int_equal(k->opened, 0);
    assert_ptr_equal(ac->data, k);
    if (r == NULL) {
        k->opened = -2;
    } else if (r->type == REDIS_REPLY_INTEGER) {
        assert_int_equal(r->integer, 1);
        assert_true(redisIsSharedMemoryInitialized(&ac->c));
        k->opened = 1;
    } else {
        assert_int_equal(r->type, REDIS_REPLY_ERROR);
        assert_false(redisIsSharedMemoryInitialized(&ac->c));
        snprintf(k->why, sizeof k->why, "%s", r->str);
        k->opened = -1;
    }
}

static void attach(struct conn *k)
{
    assert_int_equal(k->way->loop->attach(k->ac), REDIS_OK);
    assert_int_equal(redisAsyncSetConnectCallback(k->ac, on_connect), REDIS_OK);
    assert_int_equal(redisAsyncSetDisconnectCallback(k->ac, on_disconnect), REDIS_OK);
}

/* Connects, without waiting for anything. */
static void start(struct conn *k, const struct way *w, const struct server *s, int how)
{
    redisOptions o = {0};
    memset(k, 0, sizeof *k);
    k->way = w;
    k->in_order = true;
    if (w->transport->unix_socket)
        REDIS_OPTIONS_SET_UNIX(&o, s->path);
    else
        REDIS_OPTIONS_SET_TCP(&o, "127.0.0.1", s->port);
    if (how & NO_AUTO_FREE)
        o.options |= REDIS_OPT_NOAUTOFREE;
    k->ac = redisAsyncConnectWithOptions(&o);
    assert_non_null(k->ac);
    if (k->ac->err != 0)
        fail_msg("connect: %s", k->ac->errstr);
    k->ac->data = k;
    k->ac->dataCleanup = on_freed;
    for (int i = 0; i < LIVE_MAX; i++)
        if (live[i] == NULL) {
            live[i] = k->ac;
            break;
        }
    if (!(how & ATTACH_LAST))
        attach(k);
    if (!(how & PLAIN))
        assert_int_equal(redisAsyncUseSharedMemory(k->ac, on_open, k), REDIS_OK);
    if (how & ATTACH_LAST)
        attach(k);
}

static void turn(struct conn *k)
{
    if (k->spin && redisAsyncSharedMemorySpin(k->ac, random_below(100)))
        k->way->loop->glance(k->ac);
    else
        k->way->loop->turn(k->ac);
}

/* Turns the loop until what holds; a wait of LOST_MS says that a wake-up was lost. */
#define UNTIL(k, what) \
    do { \
        for (uint64_t end_ = now_ms() + LOST_MS; !(what);) { \
            turn(k); \
            if (now_ms() > end_) \
                fail_msg("a wake-up was lost: %s:%d: %s; %d replies", __FILE__, __LINE__, #what, (k)->replies); \
        } \
    } while (0)

static void turn_for(struct conn *k, int ms)
{
    for (uint64_t end = now_ms() + (uint64_t)ms; now_ms() < end;)
        turn(k);
}

static void open_shm(struct conn *k, const struct way *w, const struct server *s)
{
    start(k, w, s, ATTACH_FIRST);
    UNTIL(k, k->opened != 0);
    if (k->opened != 1)
        fail_msg("not opened: %s", k->why);
}

static void finish(struct conn *k)
{
    redisAsyncDisconnect(k->ac);
    UNTIL(k, k->ac == NULL);
    assert_int_equal(k->disconnects, 1);
    assert_int_equal(k->disconnect_status, REDIS_OK);
}

/* ---- callbacks ---- */

static struct conn *of(const redisAsyncContext *ac)
{
    return ac->data;
}

/* privdata: the number of the command, whose reply is this number. */
static void on_number(redisAsyncContext *ac, void *reply, void *privdata)
{
    struct conn *k = of(ac);
    redisReply *r = reply;
    if (r == NULL) {
        k->nulls++;
        return;
    }
    if (r->type != REDIS_REPLY_STRING || atol(r->str) != (long)(intptr_t)privdata || (intptr_t)privdata != k->replies)
        k->in_order = false;
    k->replies++;
}

static int queue_numbers(struct conn *k, int from, int n)
{
    int r = REDIS_OK;
    for (int i = from; i < from + n && r == REDIS_OK; i++)
        r = redisAsyncCommand(k->ac, on_number, (void *)(intptr_t)i, "ECHO %d", i);
    return r;
}

static void numbers_came(struct conn *k, int n)
{
    UNTIL(k, k->replies == n);
    assert_true(k->in_order);
}

static void on_any(redisAsyncContext *ac, void *reply, void *privdata)
{
    (void)privdata;
    if (reply == NULL)
        of(ac)->nulls++;
    else
        of(ac)->replies++;
}

/* ---- opening ---- */

static void queued_commands_follow(const struct way *w, int how)
{
    struct conn k;
    long long opened = shm_stat(&shared, "sessions_opened");
    start(&k, w, &shared, how);
    assert_int_equal(queue_numbers(&k, 0, 1000), REDIS_OK);
    assert_int_equal(k.opened, 0);
    numbers_came(&k, 1000);
    assert_int_equal(k.opened, 1);
    assert_int_equal(shm_stat(&shared, "sessions_opened"), opened + 1);
    assert_int_equal(queue_numbers(&k, 1000, 1000), REDIS_OK);
    numbers_came(&k, 2000);
    finish(&k);
    await_stat(&shared, "sessions", 0);
}

static void commands_queued_behind_it_run_in_order(void **state)
{
    queued_commands_follow(*state, ATTACH_FIRST);
}

static void it_may_be_called_before_the_adapter_is_attached(void **state)
{
    queued_commands_follow(*state, ATTACH_LAST);
}

static void it_may_be_called_once_replies_have_come(void **state)
{
    struct conn k;
    start(&k, *state, &shared, PLAIN);
    queue_numbers(&k, 0, 10);
    numbers_came(&k, 10);
    assert_int_equal(redisAsyncUseSharedMemoryWithMode(k.ac, on_open, &k, 0660), REDIS_OK);
    queue_numbers(&k, 10, 10);
    numbers_came(&k, 20);
    assert_int_equal(k.opened, 1);
    finish(&k);
}

static void call_it(redisAsyncContext *ac, void *reply, void *privdata)
{
    (void)privdata;
    assert_int_equal(((redisReply *)reply)->type, REDIS_REPLY_STATUS);
    assert_int_equal(redisAsyncUseSharedMemory(ac, on_open, of(ac)), REDIS_OK);
    assert_int_equal(queue_numbers(of(ac), 0, 10), REDIS_OK);
}

static void it_may_be_called_in_a_callback(void **state)
{
    struct conn k;
    start(&k, *state, &shared, PLAIN);
    redisAsyncCommand(k.ac, call_it, NULL, "PING");
    numbers_came(&k, 10);
    assert_int_equal(k.opened, 1);
    finish(&k);
}

static void refused_commands_queued_behind_it_run_over_the_socket(void **state)
{
    struct conn k;
    start(&k, *state, &without, ATTACH_FIRST);
    queue_numbers(&k, 0, 1000);
    numbers_came(&k, 1000);
    assert_int_equal(k.opened, -1);
    assert_non_null(strstr(k.why, "unknown command"));
    queue_numbers(&k, 1000, 10);
    numbers_came(&k, 1010);
    finish(&k);
}

static void try_again(redisAsyncContext *ac, void *reply, void *privdata)
{
    (void)privdata;
    assert_int_equal(((redisReply *)reply)->type, REDIS_REPLY_ERROR);
    of(ac)->nulls++;
    assert_int_equal(redisAsyncUseSharedMemory(ac, on_open, of(ac)), REDIS_OK);
    assert_int_equal(queue_numbers(of(ac), 0, 10), REDIS_OK);
}

static void refused_it_may_be_tried_again_at_once(void **state)
{
    struct conn k;
    redisContext *c = connect_plain(&transports[1], &shared);
    start(&k, *state, &without, PLAIN);
    assert_int_equal(redisAsyncUseSharedMemory(k.ac, try_again, NULL), REDIS_OK);
    numbers_came(&k, 10);
    assert_int_equal(k.opened, -1);
    assert_int_equal(k.nulls, 1);
    finish(&k);
    /* Also where the server has the module. */
    freeReplyObject(redisCommand(c, "ACL SETUSER default -shm.open"));
    start(&k, *state, &shared, PLAIN);
    assert_int_equal(redisAsyncUseSharedMemory(k.ac, try_again, NULL), REDIS_OK);
    UNTIL(&k, k.replies == 10);
    assert_int_equal(k.opened, -1); /* still not allowed */
    freeReplyObject(redisCommand(c, "ACL SETUSER default +shm.open"));
    redisFree(c);
    assert_true(k.in_order);
    finish(&k);
}

static void a_second_call_gets_an_error_in_its_turn(void **state)
{
    struct conn k, second = {0};
    for (int settled = 0; settled < 2; settled++) {
        memset(&second, 0, sizeof second);
        start(&k, *state, &shared, ATTACH_FIRST);
        if (settled)
            UNTIL(&k, k.opened == 1);
        queue_numbers(&k, 0, 5);
        k.ac->data = &k;
        assert_int_equal(redisAsyncUseSharedMemory(k.ac, on_any, NULL), REDIS_OK);
        UNTIL(&k, k.replies == 6);
        assert_true(k.in_order);
        assert_int_equal(k.opened, 1);
        assert_true(redisIsSharedMemoryInitialized(&k.ac->c));
        k.replies = 5;
        queue_numbers(&k, 5, 5);
        numbers_came(&k, 10);
        finish(&k);
    }
}

static void a_call_with_commands_unanswered_gets_an_error_in_its_turn(void **state)
{
    struct conn k;
    start(&k, *state, &shared, PLAIN);
    queue_numbers(&k, 0, 5);
    assert_int_equal(redisAsyncUseSharedMemory(k.ac, on_open, &k), REDIS_OK);
    queue_numbers(&k, 5, 5);
    numbers_came(&k, 10);
    assert_int_equal(k.opened, -1);
    finish(&k);
}

static void nobody_there_gives_null(void **state)
{
    const struct way *w = *state;
    struct conn k;
    struct server gone;
    server_start(&gone, false, NULL);
    if (w->transport->unix_socket) { /* a Unix socket refuses at once; this one ends while it opens */
        start(&k, w, &gone, ATTACH_FIRST);
        server_stop(&gone);
    } else {
        server_stop(&gone);
        start(&k, w, &gone, ATTACH_FIRST);
    }
    queue_numbers(&k, 0, 5);
    UNTIL(&k, k.ac == NULL);
    assert_int_equal(k.opened, -2);
    assert_int_equal(k.nulls, 5);
}

/* ---- the end ---- */

static void disconnect_waits_for_pending_replies(void **state)
{
    struct conn k;
    for (int settled = 0; settled < 2; settled++) {
        start(&k, *state, &shared, ATTACH_FIRST);
        if (settled)
            UNTIL(&k, k.opened == 1);
        queue_numbers(&k, 0, 1000);
        redisAsyncDisconnect(k.ac);
        assert_int_equal(queue_numbers(&k, 1000, 1), REDIS_ERR);
        assert_int_equal(redisAsyncUseSharedMemory(k.ac, on_open, &k), REDIS_ERR);
        UNTIL(&k, k.ac == NULL);
        assert_int_equal(k.replies, 1000);
        assert_int_equal(k.nulls, 0);
        assert_int_equal(k.disconnects, 1);
        assert_int_equal(k.disconnect_status, REDIS_OK);
    }
}

static void free_at(redisAsyncContext *ac, void *reply, void *privdata)
{
    on_number(ac, reply, privdata);
    if (reply != NULL)
        redisAsyncFree(ac);
}

static void disconnect_at(redisAsyncContext *ac, void *reply, void *privdata)
{
    on_number(ac, reply, privdata);
    if (reply != NULL)
        redisAsyncDisconnect(ac);
}

static void the_context_may_be_freed_in_a_callback(void **state)
{
    struct conn k;
    for (int spin = 0; spin < 2; spin++) {
        open_shm(&k, *state, &shared);
        k.spin = spin;
        queue_numbers(&k, 0, 10);
        redisAsyncCommand(k.ac, free_at, (void *)10, "ECHO 10");
        queue_numbers(&k, 11, 10);
        UNTIL(&k, k.ac == NULL);
        assert_int_equal(k.replies, 11);
        assert_int_equal(k.nulls, 10);
        assert_int_equal(k.disconnects, 1);

        open_shm(&k, *state, &shared);
        k.spin = spin;
        redisAsyncCommand(k.ac, disconnect_at, (void *)0, "ECHO 0");
        queue_numbers(&k, 1, 10);
        UNTIL(&k, k.ac == NULL);
        assert_int_equal(k.replies, 11);
        assert_int_equal(k.nulls, 0);
    }
    await_stat(&shared, "sessions", 0);
}

static void free_now(redisAsyncContext *ac, void *reply, void *privdata)
{
    (void)privdata;
    if (reply != NULL)
        redisAsyncFree(ac);
}

static void disconnect_now(redisAsyncContext *ac, void *reply, void *privdata)
{
    (void)privdata;
    if (reply != NULL)
        redisAsyncDisconnect(ac);
}

static void the_context_may_be_freed_in_the_callback_of_opening(void **state)
{
    const struct server *servers[] = {&shared, &without};
    struct conn k;
    for (int i = 0; i < 2; i++) {
        start(&k, *state, servers[i], PLAIN);
        assert_int_equal(redisAsyncUseSharedMemory(k.ac, free_now, NULL), REDIS_OK);
        queue_numbers(&k, 0, 10);
        UNTIL(&k, k.ac == NULL);
        assert_int_equal(k.nulls, 10);

        start(&k, *state, servers[i], PLAIN);
        assert_int_equal(redisAsyncUseSharedMemory(k.ac, disconnect_now, NULL), REDIS_OK);
        queue_numbers(&k, 0, 10);
        UNTIL(&k, k.ac == NULL);
        assert_int_equal(k.replies, 10);

        start(&k, *state, servers[i], PLAIN);
        assert_int_equal(redisAsyncUseSharedMemory(k.ac, disconnect_now, NULL), REDIS_OK);
        UNTIL(&k, k.ac == NULL);
        assert_int_equal(k.disconnect_status, REDIS_OK);
    }
    await_stat(&shared, "sessions", 0);
}

static void the_context_may_be_freed_at_any_moment_of_opening(void **state)
{
    struct conn k;
    for (int turns = 0; turns < 12; turns++) {
        start(&k, *state, &shared, ATTACH_FIRST);
        queue_numbers(&k, 0, 10);
        for (int i = 0; i < turns && k.replies == 0; i++)
            k.way->loop->glance(k.ac);
        redisAsyncFree(k.ac);
        assert_null(k.ac);
        assert_int_equal(k.nulls + k.replies, 10);
        k.way->loop->glance(NULL);
    }
    await_stat(&shared, "sessions", 0);
}

static void the_death_of_the_server_gives_null_and_a_disconnect(void **state)
{
    struct server s;
    struct conn k;
    server_start(&s, true, NULL);
    open_shm(&k, *state, &s);
    queue_numbers(&k, 0, 10);
    numbers_came(&k, 10);
    redisAsyncCommand(k.ac, on_number, (void *)10, "BLPOP nothing 0");
    queue_numbers(&k, 11, 10);
    turn_for(&k, 20);
    struct later *l = later_signal(s.pid, SIGKILL, 30);
    UNTIL(&k, k.ac == NULL);
    assert_true(now_ms() - later_done(l) < 1000);
    assert_int_equal(k.nulls, 11);
    assert_int_equal(k.disconnects, 1);
    assert_int_equal(k.disconnect_status, REDIS_ERR);
    server_stop(&s);
}

/* Bells that the server has not read make its end an error of the socket. */
static void the_death_of_a_server_that_hangs_is_seen_too(void **state)
{
    struct server s;
    struct conn k;
    server_start(&s, true, NULL);
    for (int full = 0; full < 2; full++) {
        if (s.pid == 0)
            server_start(&s, true, NULL);
        open_shm(&k, *state, &s);
        turn_for(&k, 30); /* it falls asleep */
        kill(s.pid, SIGSTOP);
        queue_numbers(&k, 0, 10);
        if (full)
            redisAsyncCommand(k.ac, on_any, NULL, "ECHO %b", pattern, (size_t)PATTERN_BYTES);
        turn_for(&k, 30);
        struct later *l = later_signal(s.pid, SIGKILL, 10);
        UNTIL(&k, k.ac == NULL);
        later_done(l);
        assert_int_equal(k.nulls, 10 + full);
        assert_int_equal(k.disconnect_status, REDIS_ERR);
        server_stop(&s);
    }
}

static void a_context_that_is_not_freed_by_itself_stays(void **state)
{
    struct server s;
    struct conn k;
    server_start(&s, true, NULL);
    start(&k, *state, &s, NO_AUTO_FREE);
    UNTIL(&k, k.opened == 1);
    redisAsyncCommand(k.ac, on_any, NULL, "BLPOP nothing 0");
    turn_for(&k, 20);
    server_stop(&s);
    UNTIL(&k, k.ac->err != 0);
    assert_int_equal(k.ac->err, REDIS_ERR_EOF);
    assert_int_equal(redisAsyncSharedMemorySpin(k.ac, 10), 0);
    k.way->loop->glance(NULL);
    redisAsyncFree(k.ac);
    assert_null(k.ac);
    assert_int_equal(k.nulls, 1);
}

static void replies_before_the_server_closes_come_first(void **state)
{
    struct conn k;
    open_shm(&k, *state, &shared);
    queue_numbers(&k, 0, 1000);
    redisAsyncCommand(k.ac, on_any, NULL, "ECHO %b", pattern, (size_t)PATTERN_BYTES);
    redisAsyncCommand(k.ac, on_any, NULL, "QUIT");
    redisAsyncCommand(k.ac, on_any, NULL, "PING");
    UNTIL(&k, k.ac == NULL);
    assert_int_equal(k.replies, 1002);
    assert_int_equal(k.nulls, 1);
}

static void a_timeout_ends_it_as_over_a_socket(void **state)
{
    const struct way *w = *state;
    struct conn k;
    open_shm(&k, w, &shared);
    assert_int_equal(redisAsyncSetTimeout(k.ac, (struct timeval){0, 100000}), REDIS_OK);
    queue_numbers(&k, 0, 10);
    numbers_came(&k, 10);
    uint64_t from = now_ms();
    redisAsyncCommand(k.ac, on_any, NULL, "BLPOP nothing 0");
    UNTIL(&k, k.ac == NULL);
    assert_int_equal(k.nulls, 1);
    assert_int_equal(k.disconnect_status, REDIS_ERR);
    assert_in_range(now_ms() - from, 80, 2000);
    await_stat(&shared, "sessions", 0);
    /* While it opens: the server does not answer. */
    kill(shared.pid, SIGSTOP);
    start(&k, w, &shared, ATTACH_FIRST);
    redisAsyncSetTimeout(k.ac, (struct timeval){0, 50000});
    queue_numbers(&k, 0, 10);
    UNTIL(&k, k.ac == NULL);
    kill(shared.pid, SIGCONT);
    assert_int_equal(k.opened, -2);
    assert_int_equal(k.nulls, 10);
}

/* ---- sizes and load ---- */

struct echo {
    const char *p;
    size_t n;
};

static void on_echo(redisAsyncContext *ac, void *reply, void *privdata)
{
    const struct echo *e = privdata;
    redisReply *r = reply;
    if (r == NULL || r->type != REDIS_REPLY_STRING || r->len != e->n || memcmp(r->str, e->p, e->n) != 0)
        of(ac)->in_order = false;
    of(ac)->replies++;
}

static void requests_and_replies_larger_than_the_ring(void **state)
{
    struct echo e[20];
    struct conn k;
    for (int spin = 0; spin < 2; spin++) {
        open_shm(&k, *state, &shared);
        k.spin = spin;
        for (int i = 0; i < 20; i++) {
            e[i] = (struct echo){pattern + i, i % 2 == 0 ? PATTERN_BYTES : (size_t)i};
            redisAsyncCommand(k.ac, on_echo, &e[i], "ECHO %b", e[i].p, e[i].n);
        }
        UNTIL(&k, k.replies == 20);
        assert_true(k.in_order);
        finish(&k);
    }
}

static void a_hundred_thousand_commands_queued_at_once(void **state)
{
    struct conn k;
    start(&k, *state, &shared, ATTACH_FIRST);
    queue_numbers(&k, 0, 50000);
    UNTIL(&k, k.opened == 1);
    queue_numbers(&k, 50000, 50000);
    numbers_came(&k, 100000);
    finish(&k);
}

/* Of any size, in both directions at once, and with pauses in which either side falls asleep. */
static void no_wakeup_is_lost_in_a_moving_window(void **state)
{
    enum { WINDOW = 64, ROUNDS = 6000 };
    static const size_t edges[] = {16 * 1024, RING_BYTES / 4, RING_BYTES / 2, RING_BYTES, 64};
    struct echo e[WINDOW];
    struct conn k;
    open_shm(&k, *state, &shared);
    for (int sent = 0; sent < ROUNDS;) {
        for (uint32_t more = 1 + random_below(WINDOW); more > 0 && sent < ROUNDS && sent - k.replies < WINDOW; more--, sent++) {
            struct echo *one = &e[sent % WINDOW];
            one->p = pattern + random_below(PATTERN_BYTES);
            one->n = random_below(100) == 0 ? random_below(PATTERN_BYTES) : random_below(20) == 0 ? edges[random_below(5)] - 40 + random_below(60) : random_below(200);
            assert_int_equal(redisAsyncCommand(k.ac, on_echo, one, "ECHO %b", one->p, one->n), REDIS_OK);
        }
        k.spin = random_below(4) == 0;
        int enough = k.replies + 1 + (int)random_below((uint32_t)(sent - k.replies));
        UNTIL(&k, k.replies >= enough);
        if (random_below(100) == 0)
            usleep(random_below(1500));
    }
    UNTIL(&k, k.replies == ROUNDS);
    assert_true(k.in_order);
    finish(&k);
}

/* ---- a peer that is quickest at the worst moment ---- */

static int hook_hits;
static bool hook_after_flag;

static void reply_comes_now(struct rshm_channel *ch, int want, enum rshm_hook where)
{
    if (!(want & RSHM_WANT_READ) || (where == RSHM_HOOK_BEFORE_SECOND_LOOK) != hook_after_flag)
        return;
    uint64_t end = now_ms() + 200; /* the request that this reply is for has been written, or there is none */
    while (rshm_channel_poll(ch) == CHARFIFO_EMPTY && now_ms() < end)
        ;
    hook_hits += rshm_channel_poll(ch) == CHARFIFO_READABLE;
}

/* Each reply's callback sends the next command, whose reply then comes while the event is about to end; not before. */
#define SLOWLY "EVAL %s 0 %d", "for i = 1, 5000 do end return ARGV[1]"
static void next_number(redisAsyncContext *ac, void *reply, void *privdata)
{
    on_number(ac, reply, privdata);
    if (reply != NULL && (intptr_t)privdata < 200)
        redisAsyncCommand(ac, next_number, (char *)privdata + 1, SLOWLY, (int)(intptr_t)privdata + 1);
}

static void a_reply_between_the_last_look_and_sleep_is_noticed(void **state)
{
    struct conn k;
    for (int variant = 0; variant < 4; variant++) {
        open_shm(&k, *state, &shared);
        hook_after_flag = variant & 1;
        k.spin = variant & 2;
        hook_hits = 0;
        rshm_channel_hook = reply_comes_now;
        redisAsyncCommand(k.ac, next_number, (void *)0, SLOWLY, 0);
        numbers_came(&k, 201);
        rshm_channel_hook = NULL;
        if (hook_hits == 0)
            fail_msg("variant %d: never forced", variant);
        finish(&k);
    }
}

static void room_comes_now(struct rshm_channel *ch, int want, enum rshm_hook where)
{
    if (!(want & RSHM_WANT_WRITE) || (where == RSHM_HOOK_BEFORE_SECOND_LOOK) != hook_after_flag)
        return;
    uint64_t end = now_ms() + 50;
    while (!rshm_channel_writable(ch) && now_ms() < end)
        ;
    hook_hits += rshm_channel_writable(ch);
}

static void room_between_the_last_look_and_sleep_is_noticed(void **state)
{
    struct echo e = {pattern, PATTERN_BYTES};
    struct conn k;
    for (int variant = 0; variant < 2; variant++) {
        open_shm(&k, *state, &shared);
        hook_after_flag = variant & 1;
        hook_hits = 0;
        for (int i = 0; i < 10; i++) {
            rshm_channel_hook = room_comes_now;
            redisAsyncCommand(k.ac, on_echo, &e, "ECHO %b", e.p, e.n);
            UNTIL(&k, k.replies == i + 1);
            rshm_channel_hook = NULL;
        }
        assert_true(k.in_order);
        assert_true(hook_hits > 0);
        finish(&k);
    }
}

/* The bell for room and the bell for a reply are one byte on one socket: taking either off must not lose the other. */
static void the_writer_may_take_the_reader_s_bell_off(void **state)
{
    struct echo e = {pattern, 3 * RING_BYTES};
    struct conn k;
    open_shm(&k, *state, &shared);
    for (int i = 0; i < 100; i++) {
        redisAsyncCommand(k.ac, on_any, NULL, "PING");
        redisAsyncCommand(k.ac, on_echo, &e, "ECHO %b", e.p, e.n);
        redisAsyncCommand(k.ac, on_any, NULL, "PING");
        if (i % 10 == 0) {
            turn_for(&k, 2);
            kill(shared.pid, SIGSTOP); /* whatever it had rung for and not yet rung for */
            turn_for(&k, 12);
            kill(shared.pid, SIGCONT);
        }
        UNTIL(&k, k.replies == 3 * (i + 1));
    }
    assert_true(k.in_order);
    finish(&k);
}

/* ---- the loop's other events ---- */

static int turns_in(struct conn *k, int ms)
{
    int turns = 0;
    for (uint64_t end = now_ms() + (uint64_t)ms; now_ms() < end; turns++)
        k->way->loop->turn(k->ac);
    return turns;
}

static void an_idle_connection_and_a_full_ring_let_the_loop_sleep(void **state)
{
    struct echo e = {pattern, 3 * RING_BYTES};
    struct conn k;
    open_shm(&k, *state, &shared);
    queue_numbers(&k, 0, 100);
    numbers_came(&k, 100);
    assert_in_range(turns_in(&k, 100), 1, 25);
    struct pollfd p = {k.ac->c.fd, POLLIN, 0};
    assert_int_equal(poll(&p, 1, 0), 0);
    kill(shared.pid, SIGSTOP);
    redisAsyncCommand(k.ac, on_echo, &e, "ECHO %b", e.p, e.n);
    assert_in_range(turns_in(&k, 100), 1, 30);
    queue_numbers(&k, 100, 1);
    assert_in_range(turns_in(&k, 50), 1, 25);
    kill(shared.pid, SIGCONT);
    k.replies = 100;
    UNTIL(&k, k.replies == 102);
    finish(&k);
}

static void flood(redisAsyncContext *ac, void *reply, void *privdata)
{
    struct conn *k = of(ac);
    if (reply == NULL)
        return;
    k->replies++;
    if (!k->connected)
        return; /* enough */
    redisAsyncCommand(ac, flood, privdata, "ECHO %b", pattern, (size_t)1000);
}

static void a_flood_leaves_time_for_the_loop_s_timers(void **state)
{
    struct conn k;
    for (int spin = 0; spin < 2; spin++) {
        open_shm(&k, *state, &shared);
        UNTIL(&k, k.connected);
        k.spin = spin;
        for (int i = 0; i < 2000; i++)
            redisAsyncCommand(k.ac, flood, NULL, "ECHO %b", pattern, (size_t)1000);
        turn_for(&k, 20);
        loop_gap_ms = 0;
        unsigned ticks = loop_ticks;
        turn_for(&k, 400);
        assert_true(loop_ticks - ticks >= 15); /* of 40 */
        assert_true(loop_gap_ms < 150);
        assert_true(k.replies > 1000);
        k.connected = false;
        finish(&k);
    }
}

/* ---- pushed messages ---- */

static void on_message(redisAsyncContext *ac, void *reply, void *privdata)
{
    struct conn *k = of(ac);
    redisReply *r = reply;
    (void)privdata;
    if (r == NULL) {
        k->nulls++;
        return;
    }
    assert_int_equal(r->elements, 3);
    if (strcmp(r->element[0]->str, "message") != 0)
        return;
    if (atoi(r->element[2]->str) != k->replies)
        k->in_order = false;
    k->replies++;
}

static long long subscribers(const char *channel)
{
    redisContext *c = connect_plain(&transports[1], &shared);
    redisReply *r = redisCommand(c, "PUBSUB NUMSUB %s", channel);
    assert_non_null(r);
    long long n = r->element[1]->integer;
    freeReplyObject(r);
    redisFree(c);
    return n;
}

static void *publish(void *arg)
{
    redisContext *c = redisConnectUnix(shared.path);
    for (int i = 0; i < *(int *)arg; i++) {
        redisReply *r = redisCommand(c, "PUBLISH news %d", i);
        if (r == NULL || r->integer != 1)
            abort();
        freeReplyObject(r);
        if (i % 500 == 0)
            sleep_ms(2);
    }
    redisFree(c);
    return NULL;
}

static void pubsub_delivers_every_message(void **state)
{
    int n = 3000;
    struct conn k;
    pthread_t t;
    for (int spin = 0; spin < 2; spin++) {
        open_shm(&k, *state, &shared);
        redisAsyncCommand(k.ac, on_message, NULL, "SUBSCRIBE news");
        UNTIL(&k, subscribers("news") == 1);
        k.spin = spin;
        assert_int_equal(pthread_create(&t, NULL, publish, &n), 0);
        UNTIL(&k, k.replies == n);
        pthread_join(t, NULL);
        assert_true(k.in_order);
        redisAsyncCommand(k.ac, NULL, NULL, "UNSUBSCRIBE news");
        UNTIL(&k, subscribers("news") == 0);
        redisAsyncFree(k.ac);
        assert_null(k.ac);
    }
}

static void on_push(redisAsyncContext *ac, void *reply)
{
    redisReply *r = reply;
    assert_int_equal(r->type, REDIS_REPLY_PUSH);
    assert_string_equal(r->element[0]->str, "invalidate");
    of(ac)->disconnects++;
}

static void resp3_pushes_reach_their_callback(void **state)
{
    struct conn k;
    open_shm(&k, *state, &shared);
    redisAsyncSetPushCallback(k.ac, on_push);
    redisAsyncCommand(k.ac, on_any, NULL, "HELLO 3");
    redisAsyncCommand(k.ac, on_any, NULL, "CLIENT TRACKING ON");
    redisAsyncCommand(k.ac, on_any, NULL, "GET tracked");
    UNTIL(&k, k.replies == 3);
    turn_for(&k, 20);
    struct later *l = later_command(&shared, 20, "SET tracked 1");
    UNTIL(&k, k.disconnects == 1);
    later_done(l);
    queue_numbers(&k, 3, 10);
    numbers_came(&k, 13);
    k.disconnects = 0;
    finish(&k);
}

/* ---- spinning ---- */

/* Nobody spins for a peer on the same CPU. */
static bool pin(pid_t pid, size_t cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(pid, sizeof set, &set) == 0;
}

static void spinning_says_whether_something_came(void **state)
{
    struct conn k;
    cpu_set_t before;
    size_t cpus[2], n = 0;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (size_t i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &before))
            cpus[n++] = i;
    if (n < 2 || !pin(0, cpus[0]) || !pin(shared.pid, cpus[1]))
        skip();
    assert_int_equal(redisAsyncSharedMemorySpin(NULL, 10), 0);
    start(&k, *state, &shared, ATTACH_FIRST);
    assert_int_equal(redisAsyncSharedMemorySpin(k.ac, 10), 0); /* not open yet */
    UNTIL(&k, k.opened == 1);
    assert_int_equal(redisAsyncSharedMemorySpin(k.ac, 1000000), 0); /* nothing to wait for */
    redisSetSharedMemoryWaiting(&k.ac->c, REDIS_SHM_WAIT_POLL);
    int hits = 0;
    for (int i = 0; i < 100; i++) {
        queue_numbers(&k, i, 1);
        hits += redisAsyncSharedMemorySpin(k.ac, 20000) && k.replies == i + 1;
        UNTIL(&k, k.replies == i + 1);
    }
    assert_in_range(hits, 80, 100); /* all, but for a CPU both sides share */
    redisAsyncCommand(k.ac, on_any, NULL, "BLPOP nothing 0.05");
    assert_int_equal(redisAsyncSharedMemorySpin(k.ac, 1000), 0);
    UNTIL(&k, k.nulls + k.replies == 101);
    redisSetSharedMemoryWaiting(&k.ac->c, REDIS_SHM_WAIT_BLOCK);
    queue_numbers(&k, 101, 1);
    assert_int_equal(redisAsyncSharedMemorySpin(k.ac, 20000), 0);
    UNTIL(&k, k.replies == 102);
    assert_true(k.in_order);
    finish(&k);
    sched_setaffinity(0, sizeof before, &before);
    sched_setaffinity(shared.pid, sizeof before, &before);
}

/* ---- running ---- */

static int before_each(void **state)
{
    const struct way *w = *state;
    if (w->loop->open != NULL)
        w->loop->open();
    return 0;
}

static int after_each(void **state)
{
    const struct way *w = *state;
    rshm_channel_hook = NULL;
    if (shared.pid > 0)
        kill(shared.pid, SIGCONT); /* a test that failed may have left it stopped */
    for (int i = 0; i < LIVE_MAX; i++)
        if (live[i] != NULL) { /* its test's variables are gone */
            static struct conn nobody;
            live[i]->data = &nobody;
            nobody.ac = live[i];
            live[i]->c.flags &= ~REDIS_IN_CALLBACK;
            redisAsyncFree(live[i]);
        }
    if (w->loop->open != NULL)
        w->loop->close();
    return 0;
}

static void library_is_missing(void **state)
{
    (void)state;
    skip();
}

static int before_all(void **state)
{
    group_setup(state);
    server_start(&without, false, NULL);
    return 0;
}

static int after_all(void **state)
{
    server_stop(&without);
    return group_teardown(state);
}

static bool chosen(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i]) == NULL)
            return false;
    return true;
}

int main(int argc, char **argv)
{
#define TEST(f) {#f, f}
    static const struct named_test tests[] = {
        TEST(commands_queued_behind_it_run_in_order),
        TEST(it_may_be_called_before_the_adapter_is_attached),
        TEST(it_may_be_called_once_replies_have_come),
        TEST(it_may_be_called_in_a_callback),
        TEST(refused_commands_queued_behind_it_run_over_the_socket),
        TEST(refused_it_may_be_tried_again_at_once),
        TEST(a_second_call_gets_an_error_in_its_turn),
        TEST(a_call_with_commands_unanswered_gets_an_error_in_its_turn),
        TEST(nobody_there_gives_null),
        TEST(disconnect_waits_for_pending_replies),
        TEST(the_context_may_be_freed_in_a_callback),
        TEST(the_context_may_be_freed_in_the_callback_of_opening),
        TEST(the_context_may_be_freed_at_any_moment_of_opening),
        TEST(the_death_of_the_server_gives_null_and_a_disconnect),
        TEST(the_death_of_a_server_that_hangs_is_seen_too),
        TEST(a_context_that_is_not_freed_by_itself_stays),
        TEST(replies_before_the_server_closes_come_first),
        TEST(a_timeout_ends_it_as_over_a_socket),
        TEST(requests_and_replies_larger_than_the_ring),
        TEST(a_hundred_thousand_commands_queued_at_once),
        TEST(no_wakeup_is_lost_in_a_moving_window),
        TEST(a_reply_between_the_last_look_and_sleep_is_noticed),
        TEST(room_between_the_last_look_and_sleep_is_noticed),
        TEST(the_writer_may_take_the_reader_s_bell_off),
        TEST(an_idle_connection_and_a_full_ring_let_the_loop_sleep),
        TEST(a_flood_leaves_time_for_the_loop_s_timers),
        TEST(pubsub_delivers_every_message),
        TEST(resp3_pushes_reach_their_callback),
        TEST(spinning_says_whether_something_came),
    };
    enum { TESTS = sizeof tests / sizeof tests[0] };
    const int ways = 2 * loop_count;
    struct way *way = calloc((size_t)ways, sizeof *way);
    struct CMUnitTest *all = calloc((size_t)(TESTS * ways), sizeof *all);
    char(*names)[160] = calloc((size_t)(TESTS * ways), sizeof *names);
    const char *given = getenv("SEED");
    size_t n = 0;

    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
    printf("# SEED=%llu\n", (unsigned long long)seed);
    pattern = malloc(2 * PATTERN_BYTES);
    if (pattern == NULL || way == NULL || all == NULL || names == NULL)
        return 1;
    for (size_t i = 0; i < 2 * PATTERN_BYTES; i++)
        pattern[i] = (char)random_below(256);
    for (int w = 0; w < ways; w++) {
        way[w] = (struct way){loops[w / 2], &transports[w % 2]};
        for (size_t t = 0; t < TESTS; t++) {
            snprintf(names[n], sizeof names[n], "%s with %s over %s", tests[t].name, way[w].loop->name, way[w].transport->name);
            for (char *p = names[n]; *p != '\0'; p++)
                if (*p == '_')
                    *p = ' ';
            if (!chosen(names[n], argc, argv) || (tests[t].run == a_timeout_ends_it_as_over_a_socket && !way[w].loop->timeouts))
                continue;
            all[n] = (struct CMUnitTest){names[n], way[w].loop->open != NULL ? tests[t].run : library_is_missing, before_each, after_each, &way[w]};
            n++;
        }
    }
    int failed = _cmocka_run_group_tests("async", all, n, before_all, after_all);
    free(pattern);
    free(names);
    free(all);
    free(way);
    return failed;
}
