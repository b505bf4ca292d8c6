/* hiredis_shm.h - shared memory under a hiredis connection. Add-on to hiredis 1.0 or later; link with -lhiredis_shm -lhiredis.
 *
 *     redisContext *c = redisConnect("127.0.0.1", 6379);
 *     redisReply *reply = redisUseSharedMemory(c);
 *     if (reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1)
 *         printf("Using shared memory from now on!\n");
 *     freeReplyObject(reply);
 *     // typical hiredis use from now on, nothing special.
 *
 * What        After redisUseSharedMemory() the bytes of this connection travel in memory shared with the server, which runs
 *             with module-shm.so on the same host. Everything else is hiredis as before: commands, pipelining, Pub/Sub, RESP3,
 *             push messages, timeouts, reply functions. The socket stays open for waking and for noticing the end.
 * Ownership   Replies are the caller's, as with redisCommand(). redisFree() frees everything; redisReconnect() gives a plain
 *             socket connection, on which redisUseSharedMemory() may be called again.
 * Threads     As a redisContext: one thread at a time. After fork() the child must not use the connection, as with hiredis; it may
 *             redisFree() it, and commands in the child fail with REDIS_ERR_IO instead of disturbing the parent's.
 * Blocking    As hiredis over a socket: a blocking context waits for the reply, up to redisSetTimeout(); a signal handler
 *             runs at once and the wait goes on; the death of the server ends it at once with REDIS_ERR_EOF. A wait first spins
 *             for a bounded time, then sleeps.
 * select/poll c->fd of a non-blocking context is readable when there is something to read. On a blocking context it need not be.
 */
#ifndef HIREDIS_SHM_H
#define HIREDIS_SHM_H

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct redisContext;
struct redisReply;

/* Try to use shared memory for communicating with the server. No command may be unanswered on c.
 *
 * Blocking context: returns a reply with the integer 1; or an error reply that says why not, and the connection goes on over its
 * socket; or NULL with c->err and c->errstr set, and the connection is of no more use, as with redisCommand().
 * Non-blocking context: returns NULL. The request is queued like one of redisAppendCommand(), its reply (as above) comes from
 * redisGetReply(), and shared memory is on once that reply is consumed. Send nothing else until then: it would be answered, but over
 * the socket, where the connection then stays, and the reply to the request would be an error.
 *
 * Error replies come from the server (no module, not allowed by ACL, limits, not on this host, ...) or from this side: "ERR
 * SHM.OPEN: ..." if it is open already, if commands are unanswered, over TLS, or if the memory could not be mapped. */
struct redisReply *redisUseSharedMemory(struct redisContext *c);

/* The same with the permission bits of the memory object, 0600 else. The object has no name and is passed from server to client only,
 * so there is no more need to; MODE shows in /proc/PID/map_files. */
struct redisReply *redisUseSharedMemoryWithMode(struct redisContext *c, mode_t mode);

/* 1 if the connection uses shared memory now, else 0 (NULL too). */
int redisIsSharedMemoryInitialized(struct redisContext *c);

/* How this connection's waits spend their time. The server has a setting of its own, shm.wait-mode. */
enum redisSharedMemoryWaiting {
    REDIS_SHM_WAIT_ADAPTIVE = 0, /* spin while that pays, else sleep: the default */
    REDIS_SHM_WAIT_POLL = 1,     /* never sleep: the lowest latency, and a CPU kept busy during every wait */
    REDIS_SHM_WAIT_BLOCK = 2     /* sleep at once */
};

/* Sets it for c, which must use shared memory. Returns REDIS_OK, or REDIS_ERR: no shared memory, or an unknown value; c goes on
 * as it was. */
int redisSetSharedMemoryWaiting(struct redisContext *c, int waiting);

#ifdef __cplusplus
}
#endif
#endif
