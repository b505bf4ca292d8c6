/* session.c - the life of a session, and the calls on its fd. */
#include "redirect/session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "channel/clock.h"

/* ---- one caller at a time ---- */

bool rshm_session_trylock(struct rshm_session *s)
{
    return rshm_exchange(&s->busy, 1u) == 0;
}

void rshm_session_lock(struct rshm_session *s)
{
    while (!rshm_session_trylock(s)) /* only ever held for the length of one call by another thread of the server */
        rshm_cpu_relax();
}

void rshm_session_unlock(struct rshm_session *s)
{
    rshm_store_release(&s->busy, 0u); /* pairs with the exchange in rshm_session_trylock() */
}

/* ---- birth and death ---- */

int rshm_session_check(int fd)
{
    struct rshm_fd *e = rshm_fd(fd);
    if (e == NULL)
        return -ENFILE;
    if (rshm_load_acquire(&e->session) != NULL) /* R4 */
        return -EALREADY;
    return e->epfd == 0 ? -ENOENT : 0;
}

struct rshm_session *rshm_session_new(int fd, struct rshm_map *map, uint64_t client_id)
{
    struct rshm_session *s = rshm_arena_take();
    if (s == NULL) {
        errno = ENFILE;
        return NULL;
    }
    int r = rshm_channel_init(&s->ch, RSHM_SERVER, map, fd);
    if (r < 0) {
        rshm_arena_give(s);
        errno = -r;
        return NULL;
    }
    atomic_fetch_add(&rshm_state.mapped_bytes, s->ch.map.bytes);
    s->state = RSHM_PROVISIONAL;
    s->fd = fd;
    s->client_id = client_id;
    return s;
}

void rshm_session_discard(struct rshm_session *s)
{
    atomic_fetch_sub(&rshm_state.mapped_bytes, s->ch.map.bytes);
    rshm_session_lock(s); /* whoever lists the sessions may be looking at it */
    s->state = RSHM_BROKEN;
    rshm_channel_deinit(&s->ch);
    rshm_session_unlock(s);
    rshm_arena_give(s);
}

void rshm_session_install(struct rshm_session *s)
{
    struct rshm_fd *e = rshm_fd(s->fd);
    struct rshm_poller *p = rshm_poller_of(e->epfd - 1);
    rshm_count(&rshm_state.sessions_ever, 1); /* the server opens sessions in one thread */
    atomic_fetch_add(&rshm_state.sessions_now, 1);
    rshm_store_release(&e->session, s); /* W4: the session is complete; pairs with R4 in rshm_session_of() */
    if (p != NULL)
        rshm_poller_add(p, s, e->interest, e->data);
}

void rshm_session_drop(struct rshm_session *s)
{
    rshm_store_release(&rshm_fd(s->fd)->session, (struct rshm_session *)NULL);
    atomic_fetch_sub(&rshm_state.sessions_now, 1);
    rshm_session_discard(s);
}

void rshm_session_break(struct rshm_session *s, const char *rule)
{
    if (s->state == RSHM_BROKEN)
        return;
    s->state = RSHM_BROKEN;
    atomic_fetch_add(&rshm_state.violations, 1);
    if (rshm_state.violation != NULL)
        rshm_state.violation(s->client_id, rule);
}

void rshm_session_drain(struct rshm_session *s)
{
    int r = s->ch.hangup ? 0 : rshm_channel_drain(&s->ch, MSG_DONTWAIT);
    if (r == -EPROTO)
        rshm_session_break(s, "only doorbells may travel on the socket after SHM.OPEN");
    if (r > 0)
        rshm_channel_answer_bell(&s->ch);
}

enum rshm_settled rshm_session_settle(struct rshm_session *s)
{
    char c;
    if (s->state != RSHM_PROVISIONAL)
        return RSHM_SETTLED_OPEN;
    ssize_t n = recv(s->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return RSHM_SETTLED_NOT_YET;
    if (n == 1 && c == RSHM_BELL) {
        (void)!recv(s->fd, &c, 1, MSG_DONTWAIT);
        s->state = RSHM_OPEN;
        return RSHM_SETTLED_OPEN;
    }
    atomic_fetch_add(&rshm_state.declined, 1);
    return RSHM_SETTLED_DECLINED; /* a command, or the end: the socket's own affair */
}

/* ---- the calls ---- */

static ssize_t fail(int e)
{
    errno = e;
    return -1;
}

/* The session of fd with its lock held, or NULL: not (any more) ours. */
static struct rshm_session *enter(int fd)
{
    struct rshm_session *s = rshm_session_of(fd);
    if (s == NULL)
        return NULL;
    rshm_session_lock(s);
    if (s->state == RSHM_PROVISIONAL && rshm_session_settle(s) == RSHM_SETTLED_DECLINED) {
        rshm_session_unlock(s);
        rshm_poller_remove(s, true);
        rshm_session_drop(s);
        return NULL;
    }
    return s;
}

static ssize_t session_read(struct rshm_session *s, void *buf, size_t n)
{
    if (s->state != RSHM_OPEN)
        return fail(s->state == RSHM_BROKEN ? ECONNRESET : EAGAIN);
    ssize_t r = rshm_channel_read(&s->ch, buf, n);
    if (r < 0) {
        rshm_session_break(s, "the request FIFO holds what no correct client writes");
        return fail(ECONNRESET);
    }
    if (r > 0) {
        struct rshm_poller *p = s->poller;
        if (p != NULL && !pthread_equal(p->thread, pthread_self()) && rshm_channel_poll(&s->ch) == CHARFIFO_READABLE)
            rshm_poller_kick(p);
        return r;
    }
    if (n == 0 || s->ch.hangup || rshm_channel_poll(&s->ch) == CHARFIFO_EOF)
        return 0;
    return fail(EAGAIN);
}

static ssize_t session_writev(struct rshm_session *s, const struct iovec *iov, int iovcnt)
{
    if (s->state != RSHM_OPEN)
        return fail(s->state == RSHM_BROKEN ? ECONNRESET : EAGAIN);
    ssize_t w = rshm_channel_writev(&s->ch, iov, iovcnt);
    if (w > 0)
        return w;
    if (w == -EPROTO) {
        rshm_session_break(s, "the reply FIFO's read position is one no correct client writes");
        return fail(ECONNRESET);
    }
    if (w < 0 || s->ch.hangup)
        return fail(EPIPE);
    for (int i = 0; i < iovcnt; i++)
        if (iov[i].iov_len != 0)
            return fail(EAGAIN);
    return 0;
}

ssize_t rshm_read(int fd, void *buf, size_t n)
{
    struct rshm_session *s = enter(fd);
    if (s == NULL)
        return rshm_state.libc.read(fd, buf, n);
    ssize_t r = session_read(s, buf, n);
    rshm_session_unlock(s);
    return r;
}

ssize_t rshm_writev(int fd, const struct iovec *iov, int iovcnt)
{
    struct rshm_session *s = enter(fd);
    if (s == NULL)
        return rshm_state.libc.writev(fd, iov, iovcnt);
    ssize_t r = session_writev(s, iov, iovcnt);
    rshm_session_unlock(s);
    return r;
}

ssize_t rshm_write(int fd, const void *buf, size_t n)
{
    struct rshm_session *s = enter(fd);
    if (s == NULL)
        return rshm_state.libc.write(fd, buf, n);
    const struct iovec one = {(void *)(uintptr_t)buf, n};
    ssize_t r = session_writev(s, &one, 1);
    rshm_session_unlock(s);
    return r;
}

ssize_t rshm_recv(int fd, void *buf, size_t n, int flags)
{
    /* No server receives with flags on a client's connection; should one peek, it peeks at the socket. */
    return flags == 0 || flags == MSG_DONTWAIT ? rshm_read(fd, buf, n) : rshm_state.libc.recv(fd, buf, n, flags);
}

ssize_t rshm_send(int fd, const void *buf, size_t n, int flags)
{
    if (rshm_session_of(fd) == NULL)
        return rshm_state.libc.send(fd, buf, n, flags);
    return rshm_write(fd, buf, n);
}

int rshm_close(int fd)
{
    struct rshm_fd *e = rshm_fd(fd);
    if (e != NULL) {
        struct rshm_session *s = rshm_load_acquire(&e->session); /* R4 */
        if (s != NULL) {
            rshm_poller_remove(s, false);
            rshm_session_drop(s);
        }
        if (e->poller != NULL) {
            rshm_poller_retire(e->poller);
            e->poller = NULL;
        }
        e->epfd = 0;
    }
    return rshm_state.libc.close(fd);
}
