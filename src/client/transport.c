/* transport.c - the redisContextFuncs of a connection that uses shared memory. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <async.h>
#include <sds.h>

#include "channel/clock.h"
#include "client/client.h"

#define SPIN_US 20 /* docs/benchmarks.md, "spin window" */

static rshm_u32 forks;

static void in_fork_child(void)
{
    rshm_store_relaxed(&forks, rshm_load_relaxed(&forks) + 1); /* single-threaded here */
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_fork_child);
}

unsigned rshm_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    return rshm_load_relaxed(&forks);
}

void rshm_client_error(redisContext *c, int type, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->errstr, sizeof c->errstr, fmt, ap);
    va_end(ap);
    c->err = type;
}

struct rshm_client *rshm_client_of(const redisContext *c)
{
    return c != NULL && c->funcs == &rshm_client_funcs ? c->privctx : NULL;
}

void rshm_client_opened(struct rshm_client *s)
{
    s->state = RSHM_CLIENT_OPEN;
    s->waiting.limit = SPIN_US * rshm_ticks_per_us();
    if (s->context->flags & REDIS_BLOCK)
        return;
    s->armed = !rshm_channel_arm(&s->channel, RSHM_WANT_READ);
    if (!s->armed) { /* our confirmation went out before: the server may have pushed something already, and nobody asked for a bell */
        rshm_channel_request_bell(&s->channel);
        s->due = true;
    }
}

void rshm_client_revert(struct rshm_client *s)
{
    s->context->funcs = s->plain;
    s->context->privctx = NULL;
    rshm_client_free(s);
}

/* Turns a failed wait into what hiredis reports for a socket. Returns 0 (try again) or -1. */
static ssize_t give_up(redisContext *c, int error)
{
    switch (error) {
    case -EINTR:
        return 0;
    case -ETIMEDOUT:
        errno = EAGAIN;
        rshm_client_error(c, REDIS_ERR_IO, "%s", strerror(EAGAIN));
        return -1;
    case -EPIPE:
        rshm_client_error(c, REDIS_ERR_EOF, "Server closed the connection");
        return -1;
    default:
        rshm_client_error(c, REDIS_ERR_PROTOCOL, "the server broke the shared-memory protocol");
        return -1;
    }
}

static bool inherited(redisContext *c, const struct rshm_client *s)
{
    if (s->forks == rshm_load_relaxed(&forks))
        return false;
    rshm_client_error(c, REDIS_ERR_IO, "this connection belongs to the parent process; connect again after fork");
    return true;
}

/* Only waits that never sleep need it: a sleep ends with the socket's own timeout. */
static uint64_t timeout_ticks(const redisContext *c)
{
    const struct timeval *t = c->command_timeout;
    return t == NULL ? 0 : ((uint64_t)t->tv_sec * 1000000u + (uint64_t)t->tv_usec) * rshm_ticks_per_us();
}

static ssize_t read_blocking(redisContext *c, struct rshm_client *s, char *buf, size_t cap)
{
    struct rshm_channel *ch = &s->channel;
    for (;;) {
        ssize_t n = rshm_channel_read(ch, buf, cap);
        if (n > 0)
            return n;
        if (n == 0 && rshm_channel_poll(ch) == CHARFIFO_EOF)
            n = -EPIPE;
        int r = n < 0 ? (int)n : rshm_channel_wait(ch, RSHM_WANT_READ, &s->waiting, timeout_ticks(c));
        if (r < 0)
            return give_up(c, r);
    }
}

/* Before a return to an application that will wait for the socket: either the flag is up and the FIFO was empty after that, or
 * a bell is there or will come. Returns true if the FIFO has something after all and no bell announces it. */
static bool must_look_again(struct rshm_client *s)
{
    struct rshm_channel *ch = &s->channel;
    if (rshm_channel_drain(ch, MSG_DONTWAIT) == 0) {
        if (s->armed && rshm_load_relaxed(&ch->in_wait->reader_waits) != 0)
            return false; /* nobody has rung since */
        if (s->armed || s->due) {
            s->armed = false;
            s->due = true; /* whoever took the flag down rings, once: it is on its way */
            return false;
        }
    }
    s->due = false;
    s->armed = !rshm_channel_arm(ch, RSHM_WANT_READ);
    return !s->armed;
}

static ssize_t read_nonblocking(redisContext *c, struct rshm_client *s, char *buf, size_t cap)
{
    struct rshm_channel *ch = &s->channel;
    for (;;) {
        ssize_t n = rshm_channel_read(ch, buf, cap);
        if (n > 0) {
            if (!s->armed && !s->due && must_look_again(s)) {
                rshm_channel_request_bell(ch); /* data is left that no bell announced */
                s->due = true;
            }
            return n;
        }
        if (n == 0 && (ch->hangup || rshm_channel_poll(ch) == CHARFIFO_EOF))
            n = -EPIPE;
        if (n < 0)
            return give_up(c, (int)n);
        if (!must_look_again(s) && !ch->hangup)
            return 0;
    }
}

static ssize_t shm_read(redisContext *c, char *buf, size_t cap)
{
    struct rshm_client *s = c->privctx;
    if (inherited(c, s))
        return -1;
    if (s->state == RSHM_CLIENT_OPENING)
        return rshm_client_opening_read(c, buf, cap);
    if (c->flags & REDIS_BLOCK)
        return read_blocking(c, s, buf, cap);
    return read_nonblocking(c, s, buf, cap);
}

static ssize_t opening_write(redisContext *c, struct rshm_client *s)
{
    ssize_t n = s->plain->write(c);
    if (n > 0) {
        s->overtaken |= (size_t)n > s->unsent;
        s->unsent -= (size_t)n > s->unsent ? s->unsent : (size_t)n;
    }
    return n;
}

static ssize_t shm_write(redisContext *c)
{
    struct rshm_client *s = c->privctx;
    if (inherited(c, s))
        return -1;
    if (s->state == RSHM_CLIENT_OPENING)
        return opening_write(c, s);
    const size_t n = sdslen(c->obuf);
    size_t done = 0;
    for (;;) {
        ssize_t w = rshm_channel_write(&s->channel, c->obuf + done, n - done);
        if (w > 0)
            done += (size_t)w;
        if (done == n || (w >= 0 && !(c->flags & REDIS_BLOCK)))
            return (ssize_t)done;
        /* Blocking: all of it at once, as send() does; hiredis would move what is left to the front after every part. */
        int r = w < 0 ? (int)w : rshm_channel_wait(&s->channel, RSHM_WANT_WRITE, &s->waiting, timeout_ticks(c));
        if (r < 0) /* a signal: what is written is written, and hiredis calls again; else the connection is of no more use */
            return r == -EINTR ? (ssize_t)done : give_up(c, r);
    }
}

static void shm_free(void *privctx)
{
    struct rshm_client *s = privctx;
    if (s != NULL)
        rshm_client_revert(s);
}

#if HIREDIS_MAJOR > 1 || HIREDIS_MINOR >= 1
static void shm_close(redisContext *c)
{
    struct rshm_client *s = c->privctx;
    if (s->plain->close != NULL)
        s->plain->close(c);
}
#endif

const redisContextFuncs rshm_client_funcs = {
#if HIREDIS_MAJOR > 1 || HIREDIS_MINOR >= 1
    .close = shm_close,
#endif
    .free_privctx = shm_free,
    .async_read = redisAsyncRead,
    .async_write = redisAsyncWrite,
    .read = shm_read,
    .write = shm_write,
};
