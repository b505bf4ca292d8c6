/* client.h - what the files of client/ share: the state that hangs on a redisContext's privctx. */
#ifndef RSHM_CLIENT_H
#define RSHM_CLIENT_H

#include <stdbool.h>

#include <hiredis.h>

#include "channel/channel.h"

enum rshm_client_state {
    RSHM_CLIENT_OPENING, /* SHM.OPEN is queued or sent; its reply is yet to come over the socket */
    RSHM_CLIENT_OPEN,
    RSHM_CLIENT_REFUSED  /* asynchronous contexts, until the event is over: a plain connection from then on */
};

struct rshm_client {
    redisContext *context;
    const redisContextFuncs *plain; /* hiredis' own functions */
    enum rshm_client_state state;
    unsigned forks;                 /* rshm_forks() when the connection was opened */

    /* while opening */
    uint8_t token[RSHM_TOKEN_BYTES];
    int listener;                   /* the rendezvous of a TCP connection, or -1 */
    char rendezvous[RSHM_RENDEZVOUS_MAX + 1]; /* its name */
    int memory;                     /* the memory that came over a Unix socket, or -1 */
    redisReader *scanner;           /* looks for the reply among push messages */
    size_t unsent;                  /* bytes of SHM.OPEN that are still in c->obuf, at its front */
    bool overtaken;                 /* more was sent before the reply was read: that declines the memory */

    /* while open */
    struct rshm_channel channel;
    struct rshm_waiting waiting;
    /* Non-blocking contexts: at every return to the application one of these holds, or the next bell would be missed. */
    bool armed;                     /* the FIFO was empty after the wait flag went up */
    bool due;                       /* a bell is on the socket or on its way */
    bool broken;                    /* something else than bells came over the socket */

    /* asynchronous contexts: async.c */
    bool async;
    size_t ahead;                   /* bytes at the front of c->obuf that are in the ring already */
    bool spins;                     /* the loop spins before it sleeps: redisAsyncSharedMemorySpin() was called since the last event */
    struct rshm_aside aside;
    size_t read_limit;              /* what the next read takes at most */
    struct rshm_client **alive;     /* where an event under way wants to know that this state is freed; or NULL */
};

/* handshake.c */
/* Makes the state for c with a fresh token, and a rendezvous if c is a TCP connection. NULL with *why, a sentence. */
struct rshm_client *rshm_client_new(redisContext *c, const char **why);
void rshm_client_free(struct rshm_client *s);
/* argv of SHM.OPEN for this state; strings live in the state or are static. Returns argc. */
#define RSHM_OPEN_ARGS_MAX 6
struct rshm_open_args {
    char version[4], token[RSHM_TOKEN_HEX + 1], rendezvous[RSHM_RENDEZVOUS_MAX + 1], mode[8];
    const char *argv[RSHM_OPEN_ARGS_MAX];
    int argc;
};
void rshm_client_open_args(const struct rshm_client *s, int mode, struct rshm_open_args *a);
/* Arguments of a SHM.OPEN that no server grants. Returns false if there are no random numbers. */
bool rshm_client_refused_args(struct rshm_open_args *a);
/* Reads from the socket while opening, as redisContextFuncs.read; notices the reply to SHM.OPEN and acts on it. */
ssize_t rshm_client_opening_read(redisContext *c, char *buf, size_t cap);

/* transport.c */
extern const redisContextFuncs rshm_client_funcs;
/* The state of c, or NULL if c is a plain connection. */
struct rshm_client *rshm_client_of(const redisContext *c);
/* The memory is mapped: bytes travel there from now on. */
void rshm_client_opened(struct rshm_client *s);
/* The server, or this side, did not want shared memory. */
void rshm_client_refused(struct rshm_client *s);
/* Forgets shared memory; c is as hiredis made it. */
void rshm_client_revert(struct rshm_client *s);
/* How often this process is the child of a fork. */
unsigned rshm_forks(void);
/* True with c->err set if c is the parent's. */
bool rshm_client_inherited(redisContext *c, const struct rshm_client *s);
/* Restores what must hold when the application waits for the socket, see armed and due. Call it with the FIFO empty. Returns true
 * if there is something to read after all (or an error to report) that no bell announces. */
bool rshm_client_must_look_again(struct rshm_client *s);

/* async.c */
struct redisAsyncContext;
void rshm_async_read(struct redisAsyncContext *ac);
void rshm_async_write(struct redisAsyncContext *ac);
void rshm_client_error(redisContext *c, int type, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
