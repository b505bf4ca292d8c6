/* test_client_waiting.c - a blocking context that waits: timeouts, signals, and a server that dies or is stopped. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLACK_MS 50    /* how late the end of a wait may be noticed ... */
#define DEATH_MS 100
#define TRIES 4        /* ... in one of so many tries: other programs may have the CPUs */
#define LATE_MS 2000   /* never later than this, however busy the machine */

static void set_timeout_ms(redisContext *c, int ms)
{
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    assert_int_equal(redisSetTimeout(c, tv), REDIS_OK);
}

/* ---- timeouts ---- */

static redisReply *blpop(redisContext *c)
{
    return redisCommand(c, "BLPOP never-there 0");
}

static redisReply *echo_megabytes(redisContext *c)
{
    const size_t n = 4 << 20;
    char *p = calloc(1, n);
    assert_non_null(p);
    redisReply *r = redisCommand(c, "ECHO %b", p, n);
    free(p);
    return r;
}

/* The call fails with REDIS_ERR_IO after 100 ms, and the context can be reconnected. */
static void times_out(const struct transport *t, redisReply *(*call)(redisContext *), bool stopped, bool first_upgrade)
{
    const int timeout = 100;
    for (int i = 0; i < TRIES; i++) {
        redisContext *c = first_upgrade ? connect_shm(t, &shared) : connect_plain(t, &shared);
        set_timeout_ms(c, timeout);
        if (stopped)
            kill(shared.pid, SIGSTOP);
        uint64_t from = now_ms();
        assert_null(call(c));
        int took = (int)(now_ms() - from);
        if (stopped)
            kill(shared.pid, SIGCONT);
        assert_int_equal(c->err, REDIS_ERR_IO);
        assert_true(took >= timeout - 1);
        assert_true(took < LATE_MS);
        set_timeout_ms(c, 5000);
        assert_int_equal(redisReconnect(c), REDIS_OK);
        reply_is_integer(redisUseSharedMemory(c), 1);
        reply_is_status(redisCommand(c, "PING"), "PONG");
        redisFree(c);
        if (took < timeout + SLACK_MS)
            return;
    }
    fail_msg("timeouts come late");
}

static void a_read_times_out_with_err_io(void **state)
{
    times_out(*state, blpop, false, true);
}

static void a_read_from_a_stopped_server_times_out(void **state)
{
    times_out(*state, blpop, true, true);
}

static redisReply *ping(redisContext *c)
{
    return redisCommand(c, "PING");
}

static void a_read_from_a_paused_server_times_out(void **state)
{
    redisContext *admin = connect_plain(&transports[1], &shared);
    reply_is_status(redisCommand(admin, "CLIENT PAUSE 150 ALL"), "OK");
    redisFree(admin);
    redisContext *c = connect_plain(*state, &shared);
    sleep_ms(200);
    reply_is_integer(redisUseSharedMemory(c), 1);
    admin = connect_plain(&transports[1], &shared);
    reply_is_status(redisCommand(admin, "CLIENT PAUSE 400 ALL"), "OK");
    set_timeout_ms(c, 100);
    uint64_t from = now_ms();
    assert_null(ping(c));
    assert_int_equal(c->err, REDIS_ERR_IO);
    assert_in_range(now_ms() - from, 99, 399); /* the pause has not ended it */
    freeReplyObject(redisCommand(admin, "CLIENT UNPAUSE"));
    redisFree(admin);
    redisFree(c);
}

static void a_write_into_a_full_ring_times_out(void **state)
{
    times_out(*state, echo_megabytes, true, true);
}

static void the_call_itself_times_out(void **state)
{
    times_out(*state, redisUseSharedMemory, true, false);
}

static void the_timeout_is_for_each_wait_not_for_their_sum(void **state)
{
    redisContext *c = connect_shm(*state, &shared);
    set_timeout_ms(c, 500);
    freeReplyObject(redisCommand(c, "SUBSCRIBE slow"));
    uint64_t from = now_ms();
    for (int i = 0; i < 6; i++) {
        void *r;
        struct later *l = later_command(&shared, 120, "PUBLISH slow x");
        assert_int_equal(redisGetReply(c, &r), REDIS_OK);
        freeReplyObject(r);
        later_done(l);
    }
    assert_true(now_ms() - from > 500);
    redisFree(c);
}

static void a_timeout_of_zero_waits_for_ever(void **state)
{
    redisContext *c = connect_shm(*state, &shared);
    set_timeout_ms(c, 50);
    set_timeout_ms(c, 0);
    struct later *l = later_command(&shared, 300, "RPUSH forever x");
    redisReply *r = redisCommand(c, "BLPOP forever 0");
    assert_non_null(r);
    freeReplyObject(r);
    later_done(l);
    redisFree(c);
}

/* ---- signals ---- */

static volatile sig_atomic_t handled;
static volatile uint64_t handled_at;
static volatile pid_t continue_whom;

static void on_signal(int signal)
{
    (void)signal;
    handled_at = now_ms();
    handled++;
    if (continue_whom != 0)
        kill(continue_whom, SIGCONT);
}

static void catch(int signal)
{
    struct sigaction a = {.sa_handler = on_signal}; /* no SA_RESTART */
    sigaction(signal, &a, NULL);
    handled = 0;
    continue_whom = 0;
}

static void a_signal_is_handled_at_once_and_the_wait_goes_on(void **state)
{
    uint64_t best = LATE_MS;
    for (int i = 0; i < TRIES && best > SLACK_MS; i++) {
        redisContext *c = connect_shm(*state, &shared);
        catch(SIGUSR1);
        struct later *reply = later_command(&shared, 400, "RPUSH signalled x"), *signal = later_signal(getpid(), SIGUSR1, 100);
        redisReply *r = redisCommand(c, "BLPOP signalled 0");
        assert_non_null(r);
        assert_int_equal(r->type, REDIS_REPLY_ARRAY);
        freeReplyObject(r);
        uint64_t sent = later_done(signal), replied = later_done(reply);
        assert_int_equal(handled, 1);
        assert_true(handled_at < replied);
        if (handled_at - sent < best)
            best = handled_at - sent;
        reply_is_status(redisCommand(c, "PING"), "PONG");
        redisFree(c);
    }
    assert_in_range(best, 0, SLACK_MS);
}

static void many_signals_lose_nothing(void **state)
{
    enum { N = 3000 };
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    redisContext *c = connect_shm(*state, &shared);
    catch(SIGUSR1);
    timer_t timer;
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {{0, 300000}, {0, 300000}};
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &ev, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &every, NULL), 0);
    char *p = malloc(2 * RING_BYTES);
    assert_non_null(p);
    for (int i = 0; i < N; i++) {
        size_t n = i % 10 == 0 ? (size_t)(rand() % (2 * RING_BYTES)) : (size_t)(rand() % 100);
        memset(p, 'a' + i % 26, n);
        reply_is_string(redisCommand(c, "ECHO %b", p, n), p, n);
    }
    timer_delete(timer);
    sigaction(SIGUSR1, &ignore, NULL);
    free(p);
    assert_true(handled > 10);
    redisFree(c);
}

static void a_signal_during_a_wait_for_room_is_handled_at_once(void **state)
{
    redisContext *c = connect_shm(*state, &shared);
    catch(SIGUSR1);
    continue_whom = shared.pid; /* nothing but the handler ends the wait */
    kill(shared.pid, SIGSTOP);
    struct later *l = later_signal(getpid(), SIGUSR1, 100);
    redisReply *r = echo_megabytes(c);
    assert_non_null(r);
    assert_int_equal(r->len, 4 << 20);
    freeReplyObject(r);
    later_done(l);
    assert_int_equal(handled, 1);
    redisFree(c);
}

/* ---- a server that dies or is stopped ---- */

static redisReply *pings(redisContext *c)
{
    redisReply *r;
    while ((r = redisCommand(c, "PING")) != NULL)
        freeReplyObject(r);
    return NULL;
}

static redisReply *echoes(redisContext *c)
{
    redisReply *r;
    while ((r = echo_megabytes(c)) != NULL)
        freeReplyObject(r);
    return NULL;
}

static void ends_at_once(const struct transport *t, redisReply *(*call)(redisContext *), bool stopped)
{
    uint64_t best = LATE_MS;
    for (int i = 0; i < TRIES && best > DEATH_MS; i++) {
        struct server s;
        server_start(&s, true, NULL);
        redisContext *c = connect_shm(t, &s);
        if (stopped)
            kill(s.pid, SIGSTOP);
        struct later *l = later_signal(s.pid, SIGKILL, 60);
        assert_null(call(c));
        uint64_t end = now_ms(), killed = later_done(l);
        assert_int_equal(c->err, REDIS_ERR_EOF);
        assert_true(end - killed < LATE_MS);
        if (end - killed < best)
            best = end - killed;
        assert_null(redisCommand(c, "PING"));
        assert_int_equal(c->err, REDIS_ERR_EOF);
        redisFree(c);
        server_stop(&s);
    }
    assert_in_range(best, 0, DEATH_MS);
}

static void the_servers_death_ends_a_sleeping_wait_with_err_eof(void **state)
{
    ends_at_once(*state, blpop, false);
}

static void the_servers_death_ends_a_busy_client_with_err_eof(void **state)
{
    ends_at_once(*state, pings, false);
}

static void the_servers_death_ends_a_wait_for_room_with_err_eof(void **state)
{
    ends_at_once(*state, echo_megabytes, true);
    ends_at_once(*state, echoes, false);
}

static void a_stopped_server_is_waited_for(void **state)
{
    redisContext *c = connect_shm(*state, &shared);
    struct later *stop = later_signal(shared.pid, SIGSTOP, 50), *go_on = later_signal(shared.pid, SIGCONT, 350);
    uint64_t end = now_ms() + 600, longest = 0;
    while (now_ms() < end) {
        uint64_t from = now_ms();
        reply_is_string(redisCommand(c, "ECHO %d", 42), "42", 2);
        if (now_ms() - from > longest)
            longest = now_ms() - from;
    }
    assert_true(later_done(stop) < later_done(go_on));
    assert_true(longest >= 200);
    redisFree(c);
}

static void a_subscriber_sees_everything_a_stopped_server_had(void **state)
{
    redisContext *c = connect_shm(*state, &shared), *admin = connect_plain(&transports[1], &shared);
    freeReplyObject(redisCommand(c, "SUBSCRIBE stop"));
    for (int i = 0; i < 3; i++) {
        void *r;
        kill(shared.pid, SIGSTOP);
        for (int k = 0; k < 100; k++)
            redisAppendCommand(admin, "PUBLISH stop m%d", k);
        int done = 0;
        while (!done)
            assert_int_equal(redisBufferWrite(admin, &done), REDIS_OK);
        struct later *l = later_signal(shared.pid, SIGCONT, 50);
        for (int k = 0; k < 100; k++) {
            char s[16];
            int n = snprintf(s, sizeof s, "m%d", k);
            assert_int_equal(redisGetReply(c, &r), REDIS_OK);
            assert_int_equal(((redisReply *)r)->element[2]->len, n);
            assert_memory_equal(((redisReply *)r)->element[2]->str, s, n);
            freeReplyObject(r);
        }
        for (int k = 0; k < 100; k++) {
            assert_int_equal(redisGetReply(admin, &r), REDIS_OK);
            reply_is_integer(r, 1);
        }
        later_done(l);
    }
    redisFree(admin);
    redisFree(c);
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(a_read_times_out_with_err_io),
        OVER_BOTH(a_read_from_a_stopped_server_times_out),
        OVER_BOTH(a_read_from_a_paused_server_times_out),
        OVER_BOTH(a_write_into_a_full_ring_times_out),
        OVER_BOTH(the_call_itself_times_out),
        OVER_BOTH(the_timeout_is_for_each_wait_not_for_their_sum),
        OVER_BOTH(a_timeout_of_zero_waits_for_ever),
        OVER_BOTH(a_signal_is_handled_at_once_and_the_wait_goes_on),
        OVER_BOTH(many_signals_lose_nothing),
        OVER_BOTH(a_signal_during_a_wait_for_room_is_handled_at_once),
        OVER_BOTH(the_servers_death_ends_a_sleeping_wait_with_err_eof),
        OVER_BOTH(the_servers_death_ends_a_busy_client_with_err_eof),
        OVER_BOTH(the_servers_death_ends_a_wait_for_room_with_err_eof),
        OVER_BOTH(a_stopped_server_is_waited_for),
        OVER_BOTH(a_subscriber_sees_everything_a_stopped_server_had),
    };
    return run_over_both(tests, sizeof tests / sizeof tests[0]);
}
