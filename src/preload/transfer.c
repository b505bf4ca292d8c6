/* transfer.c - see transfer.h. */
#include "preload/transfer.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "channel/clock.h"
#include "preload/real.h"
#include "preload/report.h"
#include "preload/upgrade.h"

#define LOOKS_PER_CLOCK 8
#define SOCKET_EVERY_US 1000 /* mode poll: how often it is looked at for the end of the server, and the timeout */

static ssize_t fail(int e)
{
    errno = e;
    return -1;
}

static size_t total_bytes(const struct iovec *iov, int iovcnt)
{
    size_t sum = 0;
    for (int i = 0; i < iovcnt; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* ---- waiting ---- */

static uint64_t socket_timeout_us(int fd, int want)
{
    struct timeval t = {0, 0};
    socklen_t n = sizeof t;
    rshm_real()->getsockopt(fd, SOL_SOCKET, want == RSHM_WANT_READ ? SO_RCVTIMEO : SO_SNDTIMEO, &t, &n);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static bool possible(struct rshm_conn *c, int want)
{
    return c->state != RSHM_CONN_OPEN || c->ch.hangup || rshm_channel_ready(&c->ch, want);
}

/* With c entered. 1: possible; 0: not within budget; -errno; -EBADF: and not entered any more. */
static int spin(struct rshm_conn *c, int fd, int want, uint64_t budget)
{
    const uint64_t start = rshm_ticks(), per_us = rshm_ticks_per_us();
    uint64_t look_at = SOCKET_EVERY_US * per_us, spent, timeout_us = UINT64_MAX;
    rshm_channel_stay_awake(&c->ch);
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (possible(c, want)) {
                rshm_count(&c->ch.stats.spin_hits, 1);
                return 1;
            }
            rshm_cpu_relax();
        }
        if (!rshm_conn_make_way(c, fd))
            return -EBADF;
        spent = rshm_ticks() - start;
        if (budget == RSHM_SPIN_FOREVER) {
            rshm_yield_to(charfifo_tag(&c->ch.in));
            if (spent >= look_at) {
                if (timeout_us == UINT64_MAX)
                    timeout_us = socket_timeout_us(fd, want);
                rshm_conn_drain(c, fd);
                if (timeout_us != 0 && spent >= timeout_us * per_us)
                    return -EAGAIN;
                look_at = spent + SOCKET_EVERY_US * per_us;
            }
        }
    } while (spent < budget);
    rshm_count(&c->ch.stats.spin_misses, 1);
    return 0;
}

/* Sleeps on the socket until a bell comes, as its own timeout and signals allow: like the call that the program made. Without c entered.
 * Returns recv()'s result for bells, with errno. */
static ssize_t sleep_on(int fd, int want, char *bells, size_t cap)
{
    if (want == RSHM_WANT_READ)
        return rshm_real()->recv(fd, bells, cap, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t us = socket_timeout_us(fd, want);
    int r = rshm_real()->poll(&p, 1, us == 0 ? -1 : (int)(us / 1000 + 1));
    if (r > 0)
        r = (int)rshm_real()->recv(fd, bells, cap, MSG_DONTWAIT);
    else if (r == 0)
        r = (int)fail(EAGAIN);
    else
        return r;
    return r < 0 && errno == EAGAIN && us == 0 ? (ssize_t)fail(0) : r; /* another thread took them: look again */
}

/* With c entered, and still so unless it returns -EBADF. 0: look again; else -errno. */
static int wait_for(struct rshm_conn *c, int fd, int want)
{
    char bells[64];
    rshm_u32 *asleep = want == RSHM_WANT_READ ? &c->readers_asleep : &c->writers_asleep;

    c->trusted = true;
    uint64_t budget = c->ch.rang && c->waiting.mode != RSHM_MODE_POLL ? 0
                                                                      : rshm_waiting_budget(&c->waiting, charfifo_tag(&c->ch.in), 0,
                                                                                            rshm_channel_streams(&c->ch, want));
    c->ch.rang = false; /* the server's wake-up is over once we have slept */
    if (budget != 0) {
        int r = spin(c, fd, want, budget);
        if (r == 1)
            rshm_waiting_hit(&c->waiting);
        if (r != 0)
            return r < 0 ? r : 0;
        rshm_waiting_missed(&c->waiting);
    }
    for (;;) {
        if (possible(c, want) || rshm_conn_arm(c, want))
            return 0;
        rshm_report_moved(c);
        rshm_store_relaxed(asleep, rshm_load_relaxed(asleep) + 1); /* both change with c entered only */
        rshm_conn_leave(c);
        ssize_t n = sleep_on(fd, want, bells, sizeof bells);
        int e = errno;
        if (!rshm_conn_enter(c, fd))
            return -EBADF;
        if (rshm_load_relaxed(asleep) > 0) /* 0: the descriptor was closed under us, and is another connection of the program's now */
            rshm_store_relaxed(asleep, rshm_load_relaxed(asleep) - 1);
        bool again = n < 0 && e == 0;
        if (n == 0 || (n < 0 && e != 0 && e != EAGAIN && e != EINTR))
            c->ch.hangup = true;
        for (ssize_t i = 0; i < n; i++)
            if (bells[i] != RSHM_BELL)
                rshm_conn_break(c);
        if (n > 0) {
            rshm_count(&c->ch.stats.bells_received, (uint64_t)n);
            c->due = false;
            rshm_conn_pass_on(c, fd);
        }
        if ((n > 0 || again) && !possible(c, want))
            continue; /* a bell from before, or for somebody else */
        if (rshm_load_relaxed(&c->readers_asleep) == 0 && rshm_load_relaxed(&c->writers_asleep) == 0 && !rshm_watched_asleep(fd))
            rshm_channel_disarm(&c->ch);
        c->ch.woke_at = rshm_ticks();
        return possible(c, want) || n >= 0 || again ? 0 : -e;
    }
}

/* ---- before there is shared memory ---- */

static ssize_t login_in(struct rshm_conn *c, int fd, const struct iovec *iov, int iovcnt, int flags)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)iovcnt};
    rshm_conn_leave(c);
    ssize_t n = rshm_real()->recvmsg(fd, &m, flags);
    if (n <= 0 || flags & MSG_PEEK || !rshm_conn_enter(c, fd))
        return n;
    size_t left = (size_t)n;
    for (int i = 0; i < iovcnt && left > 0; i++) {
        size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;
        rshm_resp_received(&c->resp, iov[i].iov_base, part);
        left -= part;
    }
    rshm_conn_leave(c);
    return n;
}

static ssize_t login_out(struct rshm_conn *c, int fd, const struct iovec *iov, int iovcnt, int flags)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)iovcnt};
    rshm_conn_leave(c);
    ssize_t n = rshm_real()->sendmsg(fd, &m, flags);
    if (n <= 0 || !rshm_conn_enter(c, fd))
        return n;
    size_t left = (size_t)n;
    for (int i = 0; i < iovcnt && left > 0; i++) {
        size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;
        rshm_resp_sent(&c->resp, iov[i].iov_base, part);
        left -= part;
    }
    rshm_conn_leave(c);
    return n;
}

/* Enters c and brings it to LOGIN, OPEN or FAILED. 0: there; 1: bytes for the program lie on the socket; RSHM_NOT_OURS, or -1 with errno:
 * not entered. */
static int begin(struct rshm_conn *c, int fd, bool reading, bool blocking)
{
    for (;;) {
        if (!rshm_conn_enter(c, fd))
            return RSHM_NOT_OURS;
        if (!reading && c->state == RSHM_CONN_LOGIN && rshm_resp_quiet(&c->resp) && rshm_upgrade_start(c, fd) == RSHM_STEP_PLAIN)
            return RSHM_NOT_OURS;
        if (c->state != RSHM_CONN_CONNECTING && c->state != RSHM_CONN_OPENING)
            return 0;
        enum rshm_step s = rshm_upgrade_step(c, fd);
        if (s == RSHM_STEP_PLAIN)
            return RSHM_NOT_OURS;
        if (s == RSHM_STEP_STRAY && reading)
            return 1;
        if (c->state != RSHM_CONN_CONNECTING && c->state != RSHM_CONN_OPENING)
            return 0;
        rshm_conn_leave(c);
        if (!blocking)
            return (int)fail(EAGAIN);
        if (s == RSHM_STEP_STRAY) /* a writer, while another thread has yet to read what comes first */
            rshm_real()->poll(NULL, 0, 1);
        int r = rshm_upgrade_settle(c, fd, -1);
        if (r == -EINTR)
            return (int)fail(EINTR);
    }
}

/* A piece of what lies in front of the reply to SHM.OPEN. With c entered. */
static ssize_t stray_in(struct rshm_conn *c, int fd, const struct iovec *iov, int iovcnt, int flags)
{
    ssize_t n = 0;
    for (int i = 0; i < iovcnt && n == 0; i++)
        if (iov[i].iov_len > 0)
            n = rshm_real()->recv(fd, iov[i].iov_base, iov[i].iov_len < c->stray ? iov[i].iov_len : c->stray,
                                  (flags & MSG_PEEK) | MSG_DONTWAIT);
    if (n > 0 && !(flags & MSG_PEEK))
        c->stray -= (size_t)n;
    rshm_conn_leave(c);
    return n;
}

/* ---- reading ---- */

static ssize_t peek(struct rshm_conn *c, const struct iovec *iov, int iovcnt)
{
    const void *p;
    ssize_t there = charfifo_peek(&c->ch.in, &p);
    size_t sum = 0;
    for (int i = 0; i < iovcnt && there > (ssize_t)sum; i++) { /* one record: fewer bytes than are there, as peeking may */
        size_t part = iov[i].iov_len < (size_t)there - sum ? iov[i].iov_len : (size_t)there - sum;
        memcpy(iov[i].iov_base, (const char *)p + sum, part);
        sum += part;
    }
    return there < 0 ? there : (ssize_t)sum;
}

/* Skips `from` bytes of the vector and fills the rest. Returns the count, 0: empty, -EPROTO. */
static ssize_t fill(struct rshm_conn *c, const struct iovec *iov, int iovcnt, size_t from, int flags)
{
    char nobody[4096];
    size_t sum = 0;
    for (int i = 0; i < iovcnt; i++) {
        size_t length = iov[i].iov_len;
        if (from >= length) {
            from -= length;
            continue;
        }
        while (from < length) {
            bool thrown = (flags & MSG_TRUNC) != 0; /* on a stream: thrown away */
            size_t room = length - from;
            ssize_t n = thrown ? rshm_channel_read(&c->ch, nobody, room < sizeof nobody ? room : sizeof nobody)
                               : rshm_channel_read(&c->ch, (char *)iov[i].iov_base + from, room);
            if (n <= 0)
                return sum > 0 ? (ssize_t)sum : n;
            sum += (size_t)n;
            from += (size_t)n;
        }
        from = 0;
    }
    return (ssize_t)sum;
}

ssize_t rshm_transfer_in(struct rshm_conn *c, int fd, const struct iovec *iov, int iovcnt, int flags)
{
    const size_t wanted = total_bytes(iov, iovcnt);
    const bool blocking = !c->nonblocking && !(flags & MSG_DONTWAIT);
    size_t done = 0;

    if (flags & (MSG_OOB | MSG_ERRQUEUE)) /* the kernel's; bells are neither */
        return RSHM_NOT_OURS;
    int r = begin(c, fd, true, blocking);
    if (r < 0)
        return r;
    if (r == 1)
        return stray_in(c, fd, iov, iovcnt, flags);
    if (c->state == RSHM_CONN_LOGIN)
        return login_in(c, fd, iov, iovcnt, flags);
    for (;;) {
        if (c->state == RSHM_CONN_FAILED) {
            r = c->failure;
            rshm_conn_leave(c);
            return fail(r);
        }
        ssize_t n = c->read_shut ? 0 : flags & MSG_PEEK ? peek(c, iov, iovcnt) : fill(c, iov, iovcnt, done, flags);
        c->reads++;
        if (n < 0) {
            rshm_conn_break(c);
            continue;
        }
        done += (size_t)n;
        bool enough = done > 0 && (done == wanted || !(flags & MSG_WAITALL) || flags & MSG_PEEK);
        if (enough || wanted == 0 || c->read_shut || c->ch.hangup || rshm_channel_poll(&c->ch) == CHARFIFO_EOF) {
            rshm_conn_return(c, fd, 0);
            return (ssize_t)done;
        }
        if (!blocking) {
            rshm_conn_drain(c, fd); /* a system call, as the socket's own EAGAIN would be: the server's end is seen */
            if (possible(c, RSHM_WANT_READ))
                continue;
            /* Else the program may now wait where we do not see it. */
            if ((c->trusted && !rshm_watched_asleep(fd)) || !rshm_conn_arm(c, RSHM_WANT_READ)) {
                rshm_conn_leave(c);
                return done > 0 ? (ssize_t)done : fail(EAGAIN);
            }
            continue;
        }
        r = wait_for(c, fd, RSHM_WANT_READ);
        if (r == -EBADF)
            return done > 0 ? (ssize_t)done : fail(EBADF);
        if (r < 0) {
            rshm_conn_return(c, fd, RSHM_WANT_READ);
            return done > 0 ? (ssize_t)done : fail(-r);
        }
    }
}

/* ---- writing ---- */

static ssize_t broken_pipe(int flags)
{
    if (!(flags & MSG_NOSIGNAL))
        raise(SIGPIPE); /* this thread's, as the kernel's would be */
    return fail(EPIPE);
}

/* Skips `from` bytes of the vector and writes the rest. */
static ssize_t put(struct rshm_conn *c, const struct iovec *iov, int iovcnt, size_t from)
{
    int i = 0;
    while (i < iovcnt && from >= iov[i].iov_len)
        from -= iov[i++].iov_len;
    if (i == iovcnt)
        return 0;
    if (from == 0)
        return rshm_channel_writev(&c->ch, iov + i, iovcnt - i);
    const struct iovec rest = {(char *)iov[i].iov_base + from, iov[i].iov_len - from};
    ssize_t n = rshm_channel_writev(&c->ch, &rest, 1);
    if (n != (ssize_t)rest.iov_len || i + 1 == iovcnt)
        return n;
    ssize_t more = rshm_channel_writev(&c->ch, iov + i + 1, iovcnt - i - 1);
    return more > 0 ? n + more : n;
}

ssize_t rshm_transfer_out(struct rshm_conn *c, int fd, const struct iovec *iov, int iovcnt, int flags)
{
    const size_t wanted = total_bytes(iov, iovcnt);
    const bool blocking = !c->nonblocking && !(flags & MSG_DONTWAIT);
    size_t done = 0;

    if (flags & MSG_OOB)
        return fail(EOPNOTSUPP);
    int r = begin(c, fd, false, blocking);
    if (r < 0)
        return r;
    if (c->state == RSHM_CONN_LOGIN)
        return login_out(c, fd, iov, iovcnt, flags);
    for (;;) {
        if (c->state == RSHM_CONN_FAILED || c->write_shut || c->ch.hangup) {
            rshm_conn_leave(c);
            return done > 0 ? (ssize_t)done : broken_pipe(flags);
        }
        ssize_t n = put(c, iov, iovcnt, done);
        if (n < 0) {
            if (n == -EPROTO)
                rshm_conn_break(c);
            else
                c->write_shut = true;
            continue;
        }
        done += (size_t)n;
        if (done == wanted) {
            rshm_conn_return(c, fd, 0);
            return (ssize_t)done;
        }
        if (n > 0)
            continue; /* there may be more room by now */
        c->full_writes++;
        if (!blocking) {
            if (rshm_watched_asleep(fd) && rshm_conn_arm(c, RSHM_WANT_WRITE))
                continue;
            rshm_conn_return(c, fd, 0);
            return done > 0 ? (ssize_t)done : fail(EAGAIN);
        }
        r = wait_for(c, fd, RSHM_WANT_WRITE);
        if (r == -EBADF)
            return done > 0 ? (ssize_t)done : fail(EBADF);
        if (r < 0) {
            rshm_conn_return(c, fd, RSHM_WANT_WRITE);
            return done > 0 ? (ssize_t)done : fail(-r);
        }
    }
}

short rshm_transfer_readiness(struct rshm_conn *c)
{
    int ready = 0;
    if (c->state == RSHM_CONN_FAILED)
        return POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP;
    if (c->state != RSHM_CONN_OPEN)
        return 0;
    int in = rshm_channel_poll(&c->ch);
    if (in != CHARFIFO_EMPTY || c->read_shut)
        ready |= POLLIN;
    if (c->ch.hangup || in == CHARFIFO_EOF)
        ready |= POLLIN | POLLRDHUP | (c->ch.hangup ? POLLOUT | POLLHUP : 0);
    if (c->write_shut || rshm_channel_writable(&c->ch))
        ready |= POLLOUT;
    return (short)ready;
}
