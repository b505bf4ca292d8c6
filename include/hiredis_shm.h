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

/* ---- asynchronous contexts ----
 *
 *     redisAsyncContext *ac = redisAsyncConnect("127.0.0.1", 6379);
 *     redisLibeventAttach(ac, base);
 *     redisAsyncUseSharedMemory(ac, onSharedMemory, NULL);
 *     // typical hiredis use from now on, nothing special.
 *
 * Every adapter of hiredis works, and any other that waits for ac->c.fd level-triggered, as poll() and epoll do by default.
 *
 * Ownership   As in hiredis: redisAsyncFree() and redisAsyncDisconnect() at any time, also in callbacks.
 * Threads     The thread of the event loop, as in hiredis. After fork() as above.
 * Blocking    Nothing blocks; redisAsyncSharedMemorySpin() alone takes the time it is given.
 * Fairness    One event takes at most 64 KiB of replies (or the one reply that is larger) before the loop's other events have their turn. */

struct redisAsyncContext;

/* Try to use shared memory. Call it after redisAsyncConnect() and its relatives, before or after an adapter is attached; or at
 * any time later when every reply has come, for instance in the callback of AUTH.
 *
 * fn is called as for a command: with the integer 1; with an error reply that says why not, and the connection goes on over its socket; or
 * with NULL if the connection has ended. Commands may be queued at once: they are sent in order once the reply has come, over
 * shared memory or over the socket. Called with commands unanswered, or a second time, it gives an error reply in its turn.
 *
 * Returns REDIS_OK, or REDIS_ERR as redisAsyncCommand() does: the connection has failed, or is being closed. */
int redisAsyncUseSharedMemory(struct redisAsyncContext *ac, void (*fn)(struct redisAsyncContext *, void *, void *), void *privdata);

/* The same with the permission bits of the memory object; see redisUseSharedMemoryWithMode(). */
int redisAsyncUseSharedMemoryWithMode(struct redisAsyncContext *ac, void (*fn)(struct redisAsyncContext *, void *, void *), void *privdata,
                                      mode_t mode);

/* Lets the loop spin for a bounded time before it sleeps: for up to us microseconds runs the callbacks of replies as they come, and sends
 * what these queue. This is what makes a round trip cost a microsecond or two; asleep in the loop it costs what it costs over a socket.
 *
 * libevent:   while (!done)
 *                 event_base_loop(base, redisAsyncSharedMemorySpin(ac, 50) ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
 *
 * libuv:      while (uv_run(loop, redisAsyncSharedMemorySpin(ac, 50) ? UV_RUN_NOWAIT : UV_RUN_ONCE))
 *                 ;
 *
 * Do not call it with an ac that has been freed: the disconnect callback is where to forget it (NULL is fine). Not within callbacks of ac.
 *
 * Returns 1 if callbacks ran: look at the other events without sleeping, and come again. Returns 0 if nothing came, and at once when there is
 * nothing to wait for: no reply is due and no channel subscribed to, the connection does not use shared memory, or the policy of
 * waiting says that spinning does not pay now (redisSetSharedMemoryWaiting(&ac->c, ...) works here too: REDIS_SHM_WAIT_POLL always
 * spins, REDIS_SHM_WAIT_BLOCK never). Sleeping in the loop is safe whatever it returned. Other events are late by us microseconds and the
 * time of the callbacks at most. */
int redisAsyncSharedMemorySpin(struct redisAsyncContext *ac, unsigned us);

#ifdef __cplusplus
}
#endif
#endif
