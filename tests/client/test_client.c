/* test_client.c - the contract of hiredis_shm.h against a real server: what each call returns, what goes on working, and what is
 * left behind. Waiting is in test_client_waiting.c, readiness of the fd in test_client_readiness.c. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- redisUseSharedMemory, blocking ---- */

static void it_returns_1_and_commands_travel_in_shared_memory(void **state)
{
    const char bytes[] = "a\0b\r\n";
    long long before = shm_stat(&shared, "bytes_in");
    redisContext *c = connect_plain(*state, &shared);
    assert_int_equal(redisIsSharedMemoryInitialized(c), 0);
    reply_is_integer(redisUseSharedMemory(c), 1);
    assert_int_equal(redisIsSharedMemoryInitialized(c), 1);
    reply_is_status(redisCommand(c, "SET contract %b", bytes, sizeof bytes), "OK");
    reply_is_string(redisCommand(c, "GET contract"), bytes, sizeof bytes);
    assert_true(shm_stat(&shared, "bytes_in") > before + 40);
    redisFree(c);
}

static void a_second_call_is_an_error_reply_and_the_connection_goes_on(void **state)
{
    redisContext *c = connect_shm(*state, &shared);
    for (int i = 0; i < 3; i++) {
        reply_is_error(redisUseSharedMemory(c), "already");
        assert_int_equal(c->err, 0);
        assert_int_equal(redisIsSharedMemoryInitialized(c), 1);
        reply_is_status(redisCommand(c, "PING"), "PONG");
    }
    redisFree(c);
}

static void null_and_failed_contexts_give_null(void **state)
{
    assert_null(redisUseSharedMemory(NULL));
    assert_int_equal(redisIsSharedMemoryInitialized(NULL), 0);
    redisContext *c = connect_plain(*state, &shared);
    freeReplyObject(redisCommand(c, "QUIT"));
    assert_null(redisCommand(c, "PING"));
    int err = c->err;
    assert_true(err == REDIS_ERR_EOF || err == REDIS_ERR_IO);
    assert_null(redisUseSharedMemory(c));
    assert_int_equal(c->err, err);
    redisFree(c);
}

static void a_server_that_hangs_up_during_the_call_gives_null_and_err(void **state)
{
    redisContext *c = connect_plain(*state, &shared);
    redisReply *id = redisCommand(c, "CLIENT ID");
    redisContext *admin = connect_plain(&transports[1], &shared);
    reply_is_integer(redisCommand(admin, "CLIENT KILL ID %lld", id->integer), 1);
    assert_null(redisUseSharedMemory(c));
    assert_true(c->err == REDIS_ERR_EOF || c->err == REDIS_ERR_IO);
    assert_int_equal(redisIsSharedMemoryInitialized(c), 0);
    freeReplyObject(id);
    redisFree(admin);
    redisFree(c);
}

static void the_mode_is_that_of_the_memory(void **state)
{
    redisContext *c = connect_plain(*state, &shared);
    reply_is_integer(redisUseSharedMemoryWithMode(c, 0640), 1);
    reply_is_status(redisCommand(c, "PING"), "PONG");
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[1024], range[64], path[128];
    struct stat st;
    int seen = 0;
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        if (strstr(line, "memfd:redis-shm") == NULL || sscanf(line, "%63s", range) != 1)
            continue;
        snprintf(path, sizeof path, "/proc/self/map_files/%s", range);
        if (stat(path, &st) != 0)
            continue; /* only root may look */
        assert_int_equal(st.st_mode & 07777, 0640);
        seen++;
    }
    fclose(maps);
    assert_true(seen == 1 || geteuid() != 0);
    redisFree(c);
}

static void a_server_without_the_module_gives_its_error_and_the_socket_goes_on(void **state)
{
    struct server s;
    server_start(&s, false, NULL);
    int fds = count_fds(getpid());
    redisContext *c = connect_plain(*state, &s);
    for (int i = 0; i < 2; i++) {
        reply_is_error(redisUseSharedMemory(c), "unknown command");
        assert_int_equal(redisIsSharedMemoryInitialized(c), 0);
        reply_is_status(redisCommand(c, "PING"), "PONG");
    }
    redisFree(c);
    c = connect_nonblocking(*state, &s);
    assert_null(redisUseSharedMemory(c));
    reply_is_error(await_reply(c, wait_poll), "unknown command");
    assert_int_equal(redisAppendCommand(c, "PING"), REDIS_OK);
    reply_is_status(await_reply(c, wait_poll), "PONG");
    redisFree(c);
    assert_int_equal(count_fds(getpid()), fds);
    server_stop(&s);
}

/* ---- commands that are unanswered at the call ---- */

static void a_command_not_yet_sent_makes_it_an_error(void **state)
{
    redisContext *c = connect_plain(*state, &shared);
    void *r;
    redisAppendCommand(c, "ECHO waiting");
    reply_is_error(redisUseSharedMemory(c), "unanswered");
    assert_int_equal(redisGetReply(c, &r), REDIS_OK);
    reply_is_string(r, "waiting", 7);
    reply_is_integer(redisUseSharedMemory(c), 1);
    redisFree(c);
}

static void a_reply_already_read_but_not_taken_makes_it_an_error(void **state)
{
    redisContext *c = connect_plain(*state, &shared);
    void *r;
    redisAppendCommand(c, "MULTI");
    redisAppendCommand(c, "DISCARD");
    redisAppendCommand(c, "ECHO last");
    assert_int_equal(redisGetReply(c, &r), REDIS_OK);
    reply_is_status(r, "OK");
    sleep_ms(20);
    reply_is_error(redisUseSharedMemory(c), "unanswered");
    assert_int_equal(redisGetReply(c, &r), REDIS_OK);
    reply_is_status(r, "OK");
    reply_is_error(redisUseSharedMemory(c), "unanswered");
    assert_int_equal(redisGetReply(c, &r), REDIS_OK);
    reply_is_string(r, "last", 4);
    reply_is_integer(redisUseSharedMemory(c), 1);
    redisFree(c);
}

static void a_reply_still_in_the_socket_makes_it_an_error_even_if_it_is_a_1(void **state)
{
    redisContext *c = connect_plain(*state, &shared);
    void *r;
    int done = 0;
    reply_is_status(redisCommand(c, "SET unread 0"), "OK");
    redisAppendCommand(c, "INCR unread");
    while (!done)
        assert_int_equal(redisBufferWrite(c, &done), REDIS_OK);
    sleep_ms(50);
    reply_is_error(redisUseSharedMemory(c), "unanswered");
    assert_int_equal(redisGetReply(c, &r), REDIS_OK);
    reply_is_integer(r, 1);
    reply_is_status(redisCommand(c, "PING"), "PONG");
    reply_is_integer(redisUseSharedMemory(c), 1);
    redisFree(c);
}

static void a_reply_that_is_to_come_is_not_lost(void **state)
{
    redisContext *c = connect_plain(*state, &shared);
    void *r;
    int done = 0;
    redisAppendCommand(c, "BLPOP no-such-list 0.1");
    while (!done)
        assert_int_equal(redisBufferWrite(c, &done), REDIS_OK);
    redisReply *first = redisUseSharedMemory(c); /* against the contract: this is the reply to BLPOP */
    assert_non_null(first);
    assert_int_equal(first->type, REDIS_REPLY_NIL);
    freeReplyObject(first);
    assert_int_equal(redisGetReply(c, &r), REDIS_OK);
    reply_is_error(r, "unanswered");
    assert_int_equal(redisIsSharedMemoryInitialized(c), 0);
    reply_is_status(redisCommand(c, "PING"), "PONG");
    reply_is_integer(redisUseSharedMemory(c), 1);
    redisFree(c);
}

/* ---- non-blocking ---- */

static void on_a_nonblocking_context_it_queues_the_request(void **state)
{
    redisContext *c = connect_nonblocking(*state, &shared);
    assert_null(redisUseSharedMemory(c));
    assert_int_equal(c->err, 0);
    assert_int_equal(redisIsSharedMemoryInitialized(c), 0);
    redisReply *r = await_reply(c, wait_poll);
    reply_is_integer(r, 1);
    assert_int_equal(redisIsSharedMemoryInitialized(c), 1);
    for (int i = 0; i < 100; i++) {
        redisAppendCommand(c, "ECHO %d", i);
        char s[16];
        int n = snprintf(s, sizeof s, "%d", i);
        reply_is_string(await_reply(c, wait_poll), s, (size_t)n);
    }
    assert_null(redisUseSharedMemory(c)); /* twice: the server refuses, in its turn */
    reply_is_error(await_reply(c, wait_poll), "already");
    redisAppendCommand(c, "PING");
    reply_is_status(await_reply(c, wait_poll), "PONG");
    redisFree(c);
}

static void a_nonblocking_context_may_be_freed_before_the_reply(void **state)
{
    int fds = count_fds(getpid());
    long long sessions = shm_stat(&shared, "sessions");
    for (int i = 0; i < 20; i++) {
        redisContext *c = connect_nonblocking(*state, &shared);
        int done;
        assert_null(redisUseSharedMemory(c));
        if (i % 2 == 1) {
            wait_poll(c->fd, true);
            redisBufferWrite(c, &done);
            if (i % 4 == 1)
                sleep_ms(5); /* the server has sent memory and reply: both are dropped */
        }
        redisFree(c);
    }
    assert_int_equal(count_fds(getpid()), fds);
    await_stat(&shared, "sessions", sessions);
}

/* ---- hiredis' other features ---- */

static void pipelines_keep_their_order(void **state)
{
    enum { N = 20000 };
    redisContext *c = connect_shm(*state, &shared);
    void *r;
    char s[64];
    for (int i = 0; i < N; i++)
        redisAppendCommand(c, "ECHO %d:%032d", i, i);
    for (int i = 0; i < N; i++) {
        int n = snprintf(s, sizeof s, "%d:%032d", i, i);
        assert_int_equal(redisGetReply(c, &r), REDIS_OK);
        reply_is_string(r, s, (size_t)n);
    }
    redisFree(c);
}

static void large_values_pass_in_both_directions(void **state)
{
    const size_t sizes[] = {0, 1, RING_BYTES / 4, RING_BYTES - 1, RING_BYTES, RING_BYTES + 1, 16 * 1024, 3 << 20};
    redisContext *c = connect_shm(*state, &shared);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = sizes[i];
        char *p = malloc(n + 1);
        assert_non_null(p);
        for (size_t k = 0; k < n; k++)
            p[k] = (char)(k * 2654435761u >> 13);
        reply_is_string(redisCommand(c, "ECHO %b", p, n), p, n);
        free(p);
    }
    redisFree(c);
}

static void a_blocking_subscriber_is_woken_by_a_plain_publisher(void **state)
{
    redisContext *c = connect_shm(*state, &shared);
    redisReply *r = redisCommand(c, "SUBSCRIBE news");
    assert_int_equal(r->type, REDIS_REPLY_ARRAY);
    freeReplyObject(r);
    for (int i = 0; i < 5; i++) {
        int ms = i * 10;
        char message[16];
        void *got;
        int n = snprintf(message, sizeof message, "m%d", i);
        struct later *l = later_command(&shared, ms, "PUBLISH news m%d", i);
        assert_int_equal(redisGetReply(c, &got), REDIS_OK);
        r = got;
        assert_int_equal(r->elements, 3);
        assert_int_equal(r->element[2]->len, n);
        assert_memory_equal(r->element[2]->str, message, n);
        freeReplyObject(r);
        later_done(l);
    }
    redisFree(c);
}

static int pushes;
static char last_push[64];

static void on_push(void *privdata, void *reply)
{
    redisReply *r = reply;
    (void)privdata;
    pushes++;
    if (r->elements == 2 && r->element[1]->type == REDIS_REPLY_ARRAY && r->element[1]->elements == 1)
        snprintf(last_push, sizeof last_push, "%s %s", r->element[0]->str, r->element[1]->element[0]->str);
    freeReplyObject(r);
}

static void hello(redisContext *c)
{
    redisReply *r = redisCommand(c, "HELLO 3");
    assert_non_null(r);
    assert_int_equal(r->type, REDIS_REPLY_MAP);
    freeReplyObject(r);
    redisSetPushCallback(c, on_push);
    pushes = 0;
    last_push[0] = '\0';
}

static void resp3_pushes_reach_the_push_callback(void **state)
{
    redisContext *admin = connect_plain(&transports[1], &shared), *c = connect_shm(*state, &shared);
    hello(c);
    reply_is_status(redisCommand(c, "CLIENT TRACKING ON"), "OK");
    reply_is_status(redisCommand(admin, "SET tracked 1"), "OK");
    for (int i = 0; i < 3; i++) {
        reply_is_string(redisCommand(c, "GET tracked"), "1", 1);
        reply_is_status(redisCommand(admin, "SET tracked 1"), "OK");
        reply_is_status(redisCommand(c, "PING"), "PONG");
        assert_int_equal(pushes, i + 1);
        assert_string_equal(last_push, "invalidate tracked");
    }
    redisReply *nil = redisCommand(c, "GET no-such-key");
    assert_int_equal(nil->type, REDIS_REPLY_NIL);
    freeReplyObject(nil);
    redisFree(admin);
    redisFree(c);
}

static void a_push_before_the_reply_to_the_call_is_delivered_and_does_no_harm(void **state)
{
    redisContext *admin = connect_plain(&transports[1], &shared), *c = connect_plain(*state, &shared);
    hello(c);
    reply_is_status(redisCommand(c, "CLIENT TRACKING ON"), "OK");
    reply_is_status(redisCommand(admin, "SET tracked 2"), "OK");
    reply_is_string(redisCommand(c, "GET tracked"), "2", 1);
    reply_is_status(redisCommand(admin, "SET tracked 3"), "OK");
    sleep_ms(30); /* the push lies in the socket */
    reply_is_integer(redisUseSharedMemory(c), 1);
    assert_int_equal(pushes, 1);
    reply_is_string(redisCommand(c, "GET tracked"), "3", 1);
    redisFree(admin);
    redisFree(c);
}

/* Reply functions of the application's own. */
struct own_reply {
    int magic, type;
    long long integer;
};
#define MAGIC 4711
static int own_made, own_freed;

static void *own(const redisReadTask *task, long long integer)
{
    struct own_reply *r = malloc(sizeof *r);
    own_made++;
    if (task->parent != NULL) { /* elements are not kept */
        free(r);
        own_made--;
        return task->parent->obj;
    }
    *r = (struct own_reply){MAGIC, task->type, integer};
    return r;
}
static void *own_string(const redisReadTask *task, char *s, size_t n)
{
    (void)s;
    return own(task, (long long)n);
}
static void *own_array(const redisReadTask *task, size_t n)
{
    return own(task, (long long)n);
}
static void *own_integer(const redisReadTask *task, long long v)
{
    return own(task, v);
}
static void *own_double(const redisReadTask *task, double v, char *s, size_t n)
{
    (void)s, (void)n;
    return own(task, (long long)v);
}
static void *own_nil(const redisReadTask *task)
{
    return own(task, 0);
}
static void *own_bool(const redisReadTask *task, int v)
{
    return own(task, v);
}
static void own_free(void *r)
{
    own_freed++;
    free(r);
}
static redisReplyObjectFunctions own_functions = {own_string, own_array, own_integer, own_double, own_nil, own_bool, own_free};

static void expect_own(void *reply, int type, long long integer)
{
    struct own_reply *r = reply;
    assert_non_null(r);
    assert_int_equal(r->magic, MAGIC);
    assert_int_equal(r->type, type);
    if (integer >= 0)
        assert_int_equal(r->integer, integer);
    own_free(r);
}

static void custom_reply_functions_make_every_reply_even_the_calls_own(void **state)
{
    own_made = own_freed = 0;
    redisContext *c = connect_plain(*state, &shared);
    c->reader->fn = &own_functions;
    redisAppendCommand(c, "PING");
    expect_own(redisUseSharedMemory(c), REDIS_REPLY_ERROR, -1); /* unanswered */
    void *r;
    assert_int_equal(redisGetReply(c, &r), REDIS_OK);
    expect_own(r, REDIS_REPLY_STATUS, 4);
    expect_own(redisUseSharedMemory(c), REDIS_REPLY_INTEGER, 1);
    assert_int_equal(redisIsSharedMemoryInitialized(c), 1);
    expect_own(redisUseSharedMemory(c), REDIS_REPLY_ERROR, -1); /* twice */
    expect_own(redisCommand(c, "ECHO four"), REDIS_REPLY_STRING, 4);
    expect_own(redisCommand(c, "COMMAND COUNT"), REDIS_REPLY_INTEGER, -1);
    redisFree(c);
    c = connect_nonblocking(*state, &shared);
    c->reader->fn = &own_functions;
    assert_null(redisUseSharedMemory(c));
    expect_own(await_reply(c, wait_poll), REDIS_REPLY_INTEGER, 1);
    assert_null(redisUseSharedMemory(c));
    expect_own(await_reply(c, wait_poll), REDIS_REPLY_ERROR, -1);
    redisFree(c);
    assert_int_equal(own_made, own_freed);
}

static void the_readers_maxbuf_goes_on_working(void **state)
{
    const size_t n = 200000, maxbufs[] = {0, 1, 1024, 1 << 20};
    char *p = malloc(n);
    assert_non_null(p);
    memset(p, 'v', n);
    for (size_t i = 0; i < sizeof maxbufs / sizeof maxbufs[0]; i++) {
        redisContext *c = connect_plain(*state, &shared);
        c->reader->maxbuf = maxbufs[i];
        reply_is_integer(redisUseSharedMemory(c), 1);
        for (int k = 0; k < 3; k++) {
            reply_is_string(redisCommand(c, "ECHO %b", p, n), p, n);
            reply_is_status(redisCommand(c, "PING"), "PONG");
        }
        assert_int_equal(c->reader->maxbuf, maxbufs[i]);
        redisFree(c);
    }
    free(p);
}

/* ---- the end ---- */

static void reconnect_gives_a_plain_socket_that_can_be_opened_again(void **state)
{
    redisContext *c = connect_shm(*state, &shared);
    long long sessions = shm_stat(&shared, "sessions");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(redisReconnect(c), REDIS_OK);
        assert_int_equal(redisIsSharedMemoryInitialized(c), 0);
        reply_is_status(redisCommand(c, "PING"), "PONG");
        await_stat(&shared, "sessions", sessions - 1);
        reply_is_integer(redisUseSharedMemory(c), 1);
        reply_is_status(redisCommand(c, "PING"), "PONG");
        await_stat(&shared, "sessions", sessions);
    }
    /* After an error too: that is what people reconnect for. */
    redisReply *id = redisCommand(c, "CLIENT ID");
    redisContext *admin = connect_plain(&transports[1], &shared);
    reply_is_integer(redisCommand(admin, "CLIENT KILL ID %lld", id->integer), 1);
    assert_null(redisCommand(c, "PING"));
    assert_int_equal(c->err, REDIS_ERR_EOF);
    assert_int_equal(redisReconnect(c), REDIS_OK);
    reply_is_integer(redisUseSharedMemory(c), 1);
    reply_is_status(redisCommand(c, "PING"), "PONG");
    freeReplyObject(id);
    redisFree(admin);
    redisFree(c);
}

/* The server closes what clients left when it gets round to it: shm_stat()'s connection for one. */
static int settled_server_fds(void)
{
    sleep_ms(150);
    return count_fds(shared.pid);
}

static void free_leaves_nothing_on_either_side(void **state)
{
    long long sessions = shm_stat(&shared, "sessions"), memory = shm_stat(&shared, "memory_bytes");
    int fds = 0, maps = 0, server_fds = 0, server_maps = 0;
    for (int i = 0; i <= 200; i++) {
        redisContext *c = connect_shm(*state, &shared);
        if (i % 5 == 1)
            freeReplyObject(redisUseSharedMemory(c)); /* refused */
        if (i % 5 == 2)
            assert_int_equal(redisReconnect(c), REDIS_OK);
        if (i % 5 == 3)
            redisAppendCommand(c, "PING"); /* never sent */
        if (i % 5 == 4) {
            int fd = redisFreeKeepFd(c);
            close(fd);
            continue;
        }
        redisFree(c);
        if (i == 0) { /* whatever is made once is made now */
            await_stat(&shared, "sessions", sessions);
            fds = count_fds(getpid());
            maps = count_mappings(getpid(), "memfd:redis-shm");
            server_fds = settled_server_fds();
            server_maps = count_mappings(shared.pid, "memfd:redis-shm");
        }
    }
    await_stat(&shared, "sessions", sessions);
    assert_int_equal(shm_stat(&shared, "memory_bytes"), memory);
    assert_int_equal(count_fds(getpid()), fds);
    assert_int_equal(count_mappings(getpid(), "memfd:redis-shm"), maps);
    assert_int_equal(settled_server_fds(), server_fds);
    assert_int_equal(count_mappings(shared.pid, "memfd:redis-shm"), server_maps);
}

/* In the child of a fork. Returns an exit code. */
static int use_in_child(redisContext *c, redisContext *never_used)
{
    int wrong = count_mappings(getpid(), "memfd:redis-shm") != 0;
    redisReply *r = redisCommand(c, "PING");
    if (r != NULL || c->err != REDIS_ERR_IO)
        wrong |= 2;
    redisFree(c);
    redisFree(never_used);
    return wrong;
}

static void after_fork_the_child_can_do_no_harm_and_the_parent_goes_on(void **state)
{
    redisContext *c = connect_shm(*state, &shared), *other = connect_shm(*state, &shared);
    long long sessions = shm_stat(&shared, "sessions");
    void *r;
    int done = 0, status;
    redisAppendCommand(c, "ECHO before"); /* its reply is on its way during the fork */
    while (!done)
        assert_int_equal(redisBufferWrite(c, &done), REDIS_OK);
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit(use_in_child(c, other));
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        if (i == 0) {
            assert_int_equal(redisGetReply(c, &r), REDIS_OK);
            reply_is_string(r, "before", 6);
        }
        for (int k = 0; k < 100; k++)
            reply_is_status(redisCommand(c, "PING"), "PONG");
        reply_is_status(redisCommand(other, "PING"), "PONG");
    }
    assert_int_equal(shm_stat(&shared, "sessions"), sessions);
    redisFree(c);
    redisFree(other);
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(it_returns_1_and_commands_travel_in_shared_memory),
        OVER_BOTH(a_second_call_is_an_error_reply_and_the_connection_goes_on),
        OVER_BOTH(null_and_failed_contexts_give_null),
        OVER_BOTH(a_server_that_hangs_up_during_the_call_gives_null_and_err),
        OVER_BOTH(the_mode_is_that_of_the_memory),
        OVER_BOTH(a_server_without_the_module_gives_its_error_and_the_socket_goes_on),
        OVER_BOTH(a_command_not_yet_sent_makes_it_an_error),
        OVER_BOTH(a_reply_already_read_but_not_taken_makes_it_an_error),
        OVER_BOTH(a_reply_still_in_the_socket_makes_it_an_error_even_if_it_is_a_1),
        OVER_BOTH(a_reply_that_is_to_come_is_not_lost),
        OVER_BOTH(on_a_nonblocking_context_it_queues_the_request),
        OVER_BOTH(a_nonblocking_context_may_be_freed_before_the_reply),
        OVER_BOTH(pipelines_keep_their_order),
        OVER_BOTH(large_values_pass_in_both_directions),
        OVER_BOTH(a_blocking_subscriber_is_woken_by_a_plain_publisher),
        OVER_BOTH(resp3_pushes_reach_the_push_callback),
        OVER_BOTH(a_push_before_the_reply_to_the_call_is_delivered_and_does_no_harm),
        OVER_BOTH(custom_reply_functions_make_every_reply_even_the_calls_own),
        OVER_BOTH(the_readers_maxbuf_goes_on_working),
        OVER_BOTH(reconnect_gives_a_plain_socket_that_can_be_opened_again),
        OVER_BOTH(free_leaves_nothing_on_either_side),
        OVER_BOTH(after_fork_the_child_can_do_no_harm_and_the_parent_goes_on),
    };
    return run_over_both(tests, sizeof tests / sizeof tests[0]);
}
