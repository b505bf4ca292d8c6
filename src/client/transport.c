/* transport.c - the redisContextFuncs of a connection that uses shared memory. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <sds.h>

#include "channel/clock.h"
#include "client/client.h"

#define WRITE_BYTES_MAX (256 * 1024) /* as much as a socket buffer takes at once by default */
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

void rshm_client_refused(struct rshm_client *s)
{
    if (s->async)
        s->state = RSHM_CLIENT_REFUSED; /* callbacks may still free everything: rshm_async_read() has to know */
    else
        rshm_client_revert(s);
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

bool rshm_client_inherited(redisContext *c, const struct rshm_client *s)
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
bool rshm_client_must_look_again(struct rshm_client *s)
{
    struct rshm_channel *ch = &s->channel;
    int bells = rshm_channel_drain(ch, MSG_DONTWAIT);
    if (bells == -EPROTO) {
        s->broken = true;
        return true;
    }
    if (bells > 0 && s->async && !ch->hangup)
        rshm_channel_drain(ch, MSG_DONTWAIT); /* the end may be behind them, and libuv tells of an error only once */
    if (bells == 0) {
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

/* What a read of n <= 0 bytes means, -errno or 0: nothing yet. */
static ssize_t nothing_read(struct rshm_client *s, ssize_t n)
{
    if (n < 0)
        return n;
    if (s->broken)
        return -EPROTO;
    return s->channel.hangup || rshm_channel_poll(&s->channel) == CHARFIFO_EOF ? -EPIPE : 0;
}

static ssize_t read_nonblocking(redisContext *c, struct rshm_client *s, char *buf, size_t cap)
{
    struct rshm_channel *ch = &s->channel;
    for (;;) {
        ssize_t n = rshm_channel_read(ch, buf, cap);
        if (n > 0) {
            if (!s->armed && !s->due && rshm_client_must_look_again(s)) {
                rshm_channel_request_bell(ch); /* data is left that no bell announced */
                s->due = true;
            }
            return n;
        }
        n = nothing_read(s, n);
        if (n < 0)
            return give_up(c, (int)n);
        if (!rshm_client_must_look_again(s) && !ch->hangup)
            return 0;
    }
}

/* The wake-ups are rshm_async_read()'s. */
static ssize_t read_async(redisContext *c, struct rshm_client *s, char *buf, size_t cap)
{
    ssize_t n = rshm_channel_read(&s->channel, buf, cap < s->read_limit ? cap : s->read_limit);
    s->read_limit *= 2;
    if (n <= 0)
        n = nothing_read(s, n);
    return n < 0 ? give_up(c, (int)n) : n;
}

static ssize_t shm_read(redisContext *c, char *buf, size_t cap)
{
    struct rshm_client *s = c->privctx;
    if (rshm_client_inherited(c, s))
        return -1;
    if (s->state == RSHM_CLIENT_OPENING)
        return rshm_client_opening_read(c, buf, cap);
    if (s->state == RSHM_CLIENT_REFUSED)
        return s->plain->read(c, buf, cap);
    if (s->async)
        return read_async(c, s, buf, cap);
    if (c->flags & REDIS_BLOCK)
        return read_blocking(c, s, buf, cap);
    return read_nonblocking(c, s, buf, cap);
}

/* SHM.OPEN alone: what the application queued behind it waits in c->obuf for the reply. */
static ssize_t opening_write_async(redisContext *c, struct rshm_client *s)
{
    if (s->unsent == 0)
        return 0;
    ssize_t n = send(c->fd, c->obuf, s->unsent, MSG_NOSIGNAL);
    if (n > 0) {
        s->unsent -= (size_t)n;
        return n;
    }
    if (errno == EAGAIN || errno == EINTR || errno == EPIPE || errno == ECONNRESET) /* an end is for the reader to report */
        return 0;
    rshm_client_error(c, REDIS_ERR_IO, "%s", strerror(errno));
    return -1;
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

/* What there is room for, and no more than a turn of the loop should last. */
static ssize_t write_async(redisContext *c, struct rshm_client *s)
{
    const size_t n = sdslen(c->obuf), left = n - s->ahead;
    ssize_t w = rshm_channel_write(&s->channel, c->obuf + s->ahead, left < WRITE_BYTES_MAX ? left : WRITE_BYTES_MAX);
    if (w == -EPIPE) /* the socket ends too, and whoever reads reports it, after the replies that came before */
        return 0;
    if (w < 0)
        return give_up(c, (int)w);
    s->ahead += (size_t)w;
    if (s->ahead < n / 2) /* hiredis moves the rest to the front each time: only when that is less than what was written */
        return 0;
    w = (ssize_t)s->ahead;
    s->ahead = 0;
    return w;
}

static ssize_t shm_write(redisContext *c)
{
    struct rshm_client *s = c->privctx;
    if (rshm_client_inherited(c, s))
        return -1;
    if (s->state == RSHM_CLIENT_OPENING)
        return s->async ? opening_write_async(c, s) : opening_write(c, s);
    if (s->state == RSHM_CLIENT_REFUSED)
        return s->plain->write(c);
    if (s->async)
        return write_async(c, s);
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

#ifdef RSHM_LIBVALKEY /* calls these where hiredis acts on the socket by itself */
static int shm_connect(redisContext *c, const valkeyOptions *options)
{
    struct rshm_client *s = c->privctx;
    return s->plain->connect(c, options);
}

static int shm_set_timeout(redisContext *c, const struct timeval tv)
{
    struct rshm_client *s = c->privctx;
    return s->plain->set_timeout(c, tv);
}
#endif

const redisContextFuncs rshm_client_funcs = {
#ifdef RSHM_LIBVALKEY
    .connect = shm_connect,
    .set_timeout = shm_set_timeout,
#endif
#if HIREDIS_MAJOR > 1 || HIREDIS_MINOR >= 1
    .close = shm_close,
#endif
    .free_privctx = shm_free,
    .async_read = rshm_async_read,
    .async_write = rshm_async_write,
    .read = shm_read,
    .write = shm_write,
};
