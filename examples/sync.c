/* sync.c - a hiredis program whose connection uses shared memory. Usage: sync [PATH | HOST PORT], by default 127.0.0.1 6379.
 *
 *     cc sync.c -lhiredis_shm $(pkg-config --cflags --libs hiredis)
 *
 * Exits with 0 if shared memory was used and the value came back, else with 1 and a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis.h>
#include <hiredis_shm.h>

static int fail(redisContext *c, const char *what, redisReply *reply)
{
    fprintf(stderr, "%s: %s\n", what, reply != NULL ? reply->str : c != NULL && c->err ? c->errstr : "no reply");
    if (reply != NULL)
        freeReplyObject(reply);
    if (c != NULL)
        redisFree(c);
    return 1;
}

int main(int argc, char **argv)
{
    /* A shared-memory connection starts as any other, over TCP on this host or a Unix socket. */
    redisContext *c = argc == 2 ? redisConnectUnix(argv[1]) : redisConnect(argc == 3 ? argv[1] : "127.0.0.1", argc == 3 ? atoi(argv[2]) : 6379);
    if (c == NULL || c->err)
        return fail(c, "connect", NULL);

    redisReply *reply = redisUseSharedMemory(c);
    if (reply == NULL || reply->type != REDIS_REPLY_INTEGER || reply->integer != 1)
        return fail(c, "no shared memory", reply); /* an error reply is no end: the connection would go on over its socket */
    freeReplyObject(reply);
    printf("Using shared memory from now on!\n");

    reply = redisCommand(c, "SET %s %s", "example:greeting", "hello through shared memory");
    if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
        return fail(c, "SET", reply);
    freeReplyObject(reply);

    reply = redisCommand(c, "GET %s", "example:greeting");
    if (reply == NULL || reply->type != REDIS_REPLY_STRING)
        return fail(c, "GET", reply);
    printf("example:greeting is \"%s\"\n", reply->str);
    int same = strcmp(reply->str, "hello through shared memory") == 0;
    freeReplyObject(reply);
    redisFree(c);
    return same ? 0 : 1;
}
