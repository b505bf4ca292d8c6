/* async.c - a hiredis program with libevent whose connection uses shared memory. Usage: async [PATH | HOST PORT], by default 127.0.0.1 6379.
 *
 *     cc async.c -lhiredis_shm $(pkg-config --cflags --libs hiredis libevent)
 *
 * Exits with 0 if shared memory was used and the value came back, else with 1 and a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis.h>
#include <async.h>
#include <adapters/libevent.h>
#include <hiredis_shm.h>

#define SPIN_US 50 /* how long the loop may wait for a reply before it sleeps */

static redisAsyncContext *ac; /* NULL once hiredis has freed it */
static int shared, same;

static void on_shared_memory(redisAsyncContext *c, void *r, void *privdata)
{
    redisReply *reply = r;
    (void)privdata;
    shared = reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
    if (shared)
        printf("Using shared memory from now on!\n");
    else /* an error reply is no end: the connection goes on over its socket */
        fprintf(stderr, "no shared memory: %s\n", reply != NULL ? reply->str : c->errstr);
}

static void on_get(redisAsyncContext *c, void *r, void *privdata)
{
    redisReply *reply = r;
    if (reply != NULL && reply->type == REDIS_REPLY_STRING) {
        printf("%s is \"%s\"\n", (const char *)privdata, reply->str);
        same = strcmp(reply->str, "hello through shared memory") == 0;
    }
    redisAsyncDisconnect(c);
}

static void on_connect(const redisAsyncContext *c, int status)
{
    if (status != REDIS_OK) {
        fprintf(stderr, "connect: %s\n", c->errstr);
        ac = NULL;
    }
}

static void on_disconnect(const redisAsyncContext *c, int status)
{
    if (status != REDIS_OK)
        fprintf(stderr, "disconnected: %s\n", c->errstr);
    ac = NULL;
}

int main(int argc, char **argv)
{
    struct event_base *base = event_base_new();
    ac = argc == 2 ? redisAsyncConnectUnix(argv[1]) : redisAsyncConnect(argc == 3 ? argv[1] : "127.0.0.1", argc == 3 ? atoi(argv[2]) : 6379);
    if (base == NULL || ac == NULL || ac->err) {
        fprintf(stderr, "connect: %s\n", ac != NULL && ac->err ? ac->errstr : "out of memory");
        return 1;
    }
    redisLibeventAttach(ac, base);
    redisAsyncSetConnectCallback(ac, on_connect);
    redisAsyncSetDisconnectCallback(ac, on_disconnect);

    redisAsyncUseSharedMemory(ac, on_shared_memory, NULL);
    /* Typical hiredis use from here on: these wait for the answer and then go the way that it says. */
    redisAsyncCommand(ac, NULL, NULL, "SET %s %s", "example:greeting", "hello through shared memory");
    redisAsyncCommand(ac, on_get, (void *)"example:greeting", "GET %s", "example:greeting");

    while (ac != NULL)
        event_base_loop(base, redisAsyncSharedMemorySpin(ac, SPIN_US) ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
    event_base_free(base);
    return shared && same ? 0 : 1;
}
