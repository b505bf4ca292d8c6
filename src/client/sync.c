/* sync.c - the synchronous API of hiredis_shm.h. */
#pragma GCC visibility push(default)
#include "hiredis_shm.h"
#pragma GCC visibility pop

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <sds.h>

#include "client/client.h"

/* An error reply of our own, as the server would have given it. Blocking: returned. Non-blocking: the next reply; only where no other is
 * due. */
static redisReply *refuse(redisContext *c, const char *why)
{
    char error[192];
    void *reply = NULL;
    snprintf(error, sizeof error, "-ERR SHM.OPEN: %s\r\n", why);
    if (!(c->flags & REDIS_BLOCK)) {
        redisReaderFeed(c->reader, error, strlen(error));
        return NULL;
    }
    /* Made by the context's own reply functions: whoever set others expects their kind of object. */
    redisReader *reader = redisReaderCreateWithFunctions(c->reader->fn);
    if (reader != NULL)
        reader->privdata = c->reader->privdata;
    if (reader == NULL || redisReaderFeed(reader, error, strlen(error)) != REDIS_OK ||
        redisReaderGetReply(reader, &reply) != REDIS_OK)
        rshm_client_error(c, REDIS_ERR_OOM, "Out of memory");
    if (reader != NULL)
        redisReaderFree(reader);
    return reply;
}

/* The same where replies may be due before it. Non-blocking: the server gives the error, in its turn among them. It sees what is
 * wrong as well as we do; should it not (the earlier commands may be done by then), there is still nobody at this rendezvous. */
static redisReply *refuse_in_turn(redisContext *c, const char *why)
{
    struct rshm_open_args args;
    if (c->flags & REDIS_BLOCK)
        return refuse(c, why);
    if (rshm_client_refused_args(&args))
        redisAppendCommandArgv(c, args.argc, args.argv, NULL);
    else
        rshm_client_error(c, REDIS_ERR_OTHER, "no random numbers from the kernel");
    return NULL;
}

/* An earlier command's reply, which the one to SHM.OPEN would be mistaken for. A push message may well be there. */
static bool reply_is_unread(const redisContext *c)
{
    char first;
    return recv(c->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && first != '>';
}

static redisReply *use_shared_memory(redisContext *c, int mode)
{
    const char *why;
    struct rshm_open_args args;

    if (c == NULL || c->err)
        return NULL;
    if (rshm_client_of(c) != NULL)
        return refuse_in_turn(c, "this connection uses shared memory already");
    if (c->privctx != NULL)
        return refuse_in_turn(c, "not over TLS; connect to the server's plain port on the loopback address or to its Unix socket");
    if (sdslen(c->obuf) > 0 || c->reader->pos < c->reader->len || reply_is_unread(c))
        return refuse_in_turn(c, "other commands are unanswered; read their replies first");
    struct rshm_client *s = rshm_client_new(c, &why);
    if (s == NULL)
        return refuse(c, why);
    c->privctx = s;
    c->funcs = &rshm_client_funcs;
    rshm_client_open_args(s, mode, &args);
    if (redisAppendCommandArgv(c, args.argc, args.argv, NULL) != REDIS_OK) {
        rshm_client_revert(s);
        return NULL;
    }
    s->unsent = sdslen(c->obuf);
    void *reply = NULL;
    if ((c->flags & REDIS_BLOCK) && redisGetReply(c, &reply) != REDIS_OK)
        return NULL;
    return reply;
}

redisReply *redisUseSharedMemory(redisContext *c)
{
    return use_shared_memory(c, -1);
}

redisReply *redisUseSharedMemoryWithMode(redisContext *c, mode_t mode)
{
    return use_shared_memory(c, (int)(mode & 0777));
}

int redisIsSharedMemoryInitialized(redisContext *c)
{
    const struct rshm_client *s = rshm_client_of(c);
    return s != NULL && s->state == RSHM_CLIENT_OPEN;
}

int redisSetSharedMemoryWaiting(redisContext *c, int waiting)
{
    static const enum rshm_wait_mode modes[] = {
        [REDIS_SHM_WAIT_ADAPTIVE] = RSHM_MODE_ADAPTIVE,
        [REDIS_SHM_WAIT_POLL] = RSHM_MODE_POLL,
        [REDIS_SHM_WAIT_BLOCK] = RSHM_MODE_BLOCK,
    };
    struct rshm_client *s = rshm_client_of(c);
    if (s == NULL || s->state != RSHM_CLIENT_OPEN || waiting < 0 || (size_t)waiting >= sizeof modes / sizeof modes[0])
        return REDIS_ERR;
    s->waiting.mode = modes[waiting];
    return REDIS_OK;
}
