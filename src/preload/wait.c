/* wait.c - see wait.h. The descriptors of connections are polled for bells, and what the program is told comes from the FIFOs. */
#include "preload/wait.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "channel/clock.h"
#include "preload/epoll.h"
#include "preload/real.h"
#include "preload/report.h"
#include "preload/transfer.h"
#include "preload/upgrade.h"

#define ON_STACK 64        /* descriptors; more need the heap */
#define KERNEL_EVERY_US 25 /* what other descriptors wait at most beside a busy connection */
#define LOOKS_PER_CLOCK 8
#define IN_EVENTS (POLLIN | POLLRDNORM)
#define OUT_EVENTS (POLLOUT | POLLWRNORM)

struct waits {
    struct pollfd *fds;    /* the program's */
    struct pollfd *kernel; /* what is really polled */
    nfds_t count;
    bool others;           /* some are not connections */
    bool rang;
    uint32_t peer_tag;
    struct rshm_waiting *policy;
};

bool rshm_poll_has_ours(struct pollfd *fds, nfds_t count)
{
    for (nfds_t i = 0; i < count; i++) {
        const struct rshm_entry *e = rshm_entry(fds[i].fd);
        if (e != NULL && (rshm_conn_of(fds[i].fd) != NULL || e->poller != NULL))
            return true;
    }
    return false;
}

static short told(short ready, short wanted)
{
    int events = ready & (POLLIN | POLLOUT | POLLRDHUP) & wanted;
    events |= ready & (POLLERR | POLLHUP);
    if (ready & POLLIN)
        events |= wanted & POLLRDNORM;
    if (ready & POLLOUT)
        events |= wanted & POLLWRNORM;
    return (short)events;
}

/* With c entered: brings it forward, and decides what the kernel is to be asked. Returns what to tell the program. */
static short look_at(struct waits *w, struct rshm_conn *c, nfds_t i, bool *gone)
{
    const short wanted = w->fds[i].events;
    struct pollfd *k = &w->kernel[i];
    *gone = false;
    if (c->state == RSHM_CONN_CONNECTING || c->state == RSHM_CONN_OPENING) {
        enum rshm_step s = rshm_upgrade_step(c, k->fd);
        if (s == RSHM_STEP_PLAIN) {
            *gone = true;
            return 0;
        }
        if (s == RSHM_STEP_STRAY)
            return wanted & IN_EVENTS;
    }
    k->events = c->state == RSHM_CONN_CONNECTING ? POLLOUT : c->state == RSHM_CONN_LOGIN ? wanted : POLLIN;
    if (c->state != RSHM_CONN_OPEN)
        return told(rshm_transfer_readiness(c), wanted);
    short ready = told(rshm_transfer_readiness(c), wanted);
    if (w->policy == NULL) {
        w->policy = &c->waiting;
        w->peer_tag = charfifo_tag(&c->ch.in);
    }
    w->rang |= c->ch.rang;
    c->ch.rang = false;
    return ready;
}

/* One look at every connection. Returns how many have something to tell, in w->fds. */
static int look(struct waits *w)
{
    int n = 0;
    for (nfds_t i = 0; i < w->count; i++) {
        struct rshm_conn *c = rshm_conn_of(w->kernel[i].fd);
        bool gone;
        w->fds[i].revents = 0;
        if (c == NULL || !rshm_conn_enter(c, w->kernel[i].fd)) {
            w->kernel[i].events = w->fds[i].events;
            const struct rshm_entry *e = rshm_entry(w->kernel[i].fd);
            if (e != NULL && e->poller != NULL && (w->fds[i].events & IN_EVENTS) && rshm_epoll_nested(w->kernel[i].fd)) {
                w->fds[i].revents = w->fds[i].events & IN_EVENTS;
                n++;
            }
            continue;
        }
        w->fds[i].revents = look_at(w, c, i, &gone);
        if (gone) { /* what the kernel said was about the reply to SHM.OPEN */
            w->kernel[i].events = w->fds[i].events;
            w->kernel[i].revents = 0;
            w->others = true;
        } else {
            rshm_conn_leave(c);
        }
        n += w->fds[i].revents != 0;
    }
    return n;
}

/* Before sleeping. Returns false if something is possible by now, with the bells taken back or under way. */
static bool arm(struct waits *w, bool sleeping)
{
    bool quiet = true;
    for (nfds_t i = 0; i < w->count; i++) {
        const int fd = w->kernel[i].fd;
        struct rshm_conn *c = rshm_conn_of(fd);
        if (c == NULL || !rshm_conn_enter(c, fd))
            continue;
        int want = (w->fds[i].events & IN_EVENTS ? RSHM_WANT_READ : 0) | (w->fds[i].events & OUT_EVENTS ? RSHM_WANT_WRITE : 0);
        if (c->state == RSHM_CONN_OPEN && want != 0) {
            if (sleeping)
                c->trusted = true;
            quiet &= !rshm_conn_arm(c, want);
        }
        if (sleeping && (want & RSHM_WANT_READ))
            rshm_store_relaxed(&c->readers_asleep, rshm_load_relaxed(&c->readers_asleep) + 1); /* with c entered */
        if (sleeping && (want & RSHM_WANT_WRITE))
            rshm_store_relaxed(&c->writers_asleep, rshm_load_relaxed(&c->writers_asleep) + 1);
        rshm_report_moved(c);
        rshm_conn_leave(c);
    }
    return quiet;
}

static void less(rshm_u32 *count)
{
    uint32_t n = rshm_load_relaxed(count); /* with its connection entered */
    if (n > 0)
        rshm_store_relaxed(count, n - 1);
}

/* After the sleep: bells are taken off. */
static void awake(struct waits *w, bool slept)
{
    const uint64_t now = rshm_ticks();
    for (nfds_t i = 0; i < w->count; i++) {
        const int fd = w->kernel[i].fd;
        struct rshm_conn *c = rshm_conn_of(fd);
        if (c == NULL || !rshm_conn_enter(c, fd))
            continue;
        if (slept && (w->fds[i].events & IN_EVENTS))
            less(&c->readers_asleep);
        if (slept && (w->fds[i].events & OUT_EVENTS))
            less(&c->writers_asleep);
        if (c->state == RSHM_CONN_OPEN) {
            if (w->kernel[i].revents != 0)
                rshm_conn_drain(c, fd);
            if (rshm_load_relaxed(&c->readers_asleep) == 0 && rshm_load_relaxed(&c->writers_asleep) == 0 && !rshm_watched_asleep(fd))
                rshm_channel_disarm(&c->ch);
            if (slept)
                c->ch.woke_at = now;
        }
        rshm_conn_leave(c);
    }
}

/* What the kernel said of descriptors that are not (or not yet) ours, to the program. Returns how many. */
static int tell_others(struct waits *w)
{
    int n = 0;
    for (nfds_t i = 0; i < w->count; i++) {
        struct rshm_conn *c = rshm_conn_of(w->kernel[i].fd);
        if ((c == NULL || c->state == RSHM_CONN_LOGIN) && w->kernel[i].revents != 0 && w->fds[i].revents == 0) {
            w->fds[i].revents = w->kernel[i].revents;
            n++;
        }
    }
    return n;
}

/* The others, without waiting. Those that are connections are left out. */
static int ask_kernel(struct waits *w, const sigset_t *mask)
{
    const struct timespec now = {0, 0};
    for (nfds_t i = 0; i < w->count; i++)
        w->kernel[i].revents = 0;
    return rshm_real()->ppoll(w->kernel, w->count, &now, mask) > 0 ? tell_others(w) : 0;
}

static void stay_awake(struct waits *w)
{
    for (nfds_t i = 0; i < w->count; i++) {
        struct rshm_conn *c = rshm_conn_of(w->kernel[i].fd);
        if (c == NULL || !rshm_conn_enter(c, w->kernel[i].fd))
            continue;
        if (c->state == RSHM_CONN_OPEN && c->ch.standing)
            rshm_channel_stay_awake(&c->ch);
        rshm_conn_leave(c);
    }
}

static int spin(struct waits *w, const sigset_t *mask, uint64_t budget, uint64_t limit_ticks)
{
    const uint64_t start = rshm_ticks(), every = KERNEL_EVERY_US * rshm_ticks_per_us();
    uint64_t asked_at = start, now;
    int n = 0;
    stay_awake(w);
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK && n == 0; i++) {
            n = look(w);
            rshm_cpu_relax();
        }
        now = rshm_ticks();
        if (budget == RSHM_SPIN_FOREVER) {
            rshm_yield_to(w->peer_tag);
            if (n == 0 && now - asked_at >= every * 40) { /* the end of a server shows on its socket only */
                ask_kernel(w, mask);
                awake(w, false);
            }
        }
        if (n == 0 && now - asked_at >= every && w->others)
            n = ask_kernel(w, mask);
        if (now - asked_at >= every)
            asked_at = now;
    } while (n == 0 && now - start < budget && now - start < limit_ticks);
    return n;
}

static int wait_for(struct waits *w, int64_t timeout_ns, const sigset_t *mask, uint64_t end_ns)
{
    for (bool first = true;; first = false) {
        int n = look(w);
        if (w->others && (n > 0 || timeout_ns == 0))
            n += ask_kernel(w, mask);
        else if (n == 0 && timeout_ns == 0) {
            ask_kernel(w, mask); /* as a look at the socket would: the server's end shows */
            awake(w, false);
            n = look(w) + tell_others(w);
            if (n == 0)
                arm(w, false); /* who comes only to look may sleep elsewhere */
        }
        if (n > 0 || timeout_ns == 0)
            return n;
        if (first && w->policy != NULL) {
            uint64_t budget = w->rang && w->policy->mode != RSHM_MODE_POLL ? 0 : rshm_waiting_budget(w->policy, w->peer_tag, 0, false);
            if (budget != 0) {
                n = spin(w, mask, budget, timeout_ns < 0 ? UINT64_MAX : (uint64_t)timeout_ns / 1000 * rshm_ticks_per_us());
                if (n > 0) {
                    rshm_waiting_hit(w->policy);
                    return n;
                }
                rshm_waiting_missed(w->policy);
            }
        }
        struct timespec left = {0, 0};
        if (timeout_ns > 0) {
            uint64_t now_ns = rshm_now_ns();
            if (now_ns >= end_ns)
                return look(w);
            left.tv_sec = (time_t)((end_ns - now_ns) / 1000000000u);
            left.tv_nsec = (long)((end_ns - now_ns) % 1000000000u);
        }
        for (nfds_t i = 0; i < w->count; i++)
            w->kernel[i].revents = 0;
        int r = 0, e = 0;
        if (arm(w, true)) {
            r = rshm_real()->ppoll(w->kernel, w->count, timeout_ns < 0 ? NULL : &left, mask);
            e = errno;
        }
        awake(w, true);
        if (r < 0) {
            errno = e;
            return -1;
        }
        if (r > 0 && (n = look(w) + tell_others(w)) > 0)
            return n;
    }
}

int rshm_preload_poll(struct pollfd *fds, nfds_t count, int64_t timeout_ns, const sigset_t *mask, int64_t *left_ns)
{
    struct pollfd on_stack[ON_STACK];
    struct waits w = {.fds = fds, .kernel = on_stack, .count = count};
    const uint64_t end_ns = timeout_ns > 0 ? rshm_now_ns() + (uint64_t)timeout_ns : 0;

    if (count > ON_STACK && (w.kernel = malloc(count * sizeof *fds)) == NULL) {
        errno = ENOMEM;
        return -1;
    }
    for (nfds_t i = 0; i < count; i++) {
        w.kernel[i] = (struct pollfd){.fd = fds[i].fd, .events = fds[i].events};
        w.others |= rshm_conn_of(fds[i].fd) == NULL && fds[i].fd >= 0;
    }
    int n = wait_for(&w, timeout_ns, mask, end_ns);
    int e = errno;
    if (left_ns != NULL) {
        uint64_t now_ns = timeout_ns > 0 ? rshm_now_ns() : 0;
        *left_ns = timeout_ns < 0 ? timeout_ns : now_ns < end_ns ? (int64_t)(end_ns - now_ns) : 0;
    }
    if (w.kernel != on_stack)
        free(w.kernel);
    errno = e;
    return n;
}

/* ---- select ---- */

bool rshm_select_has_ours(int count, const fd_set *in, const fd_set *out, const fd_set *except)
{
    const int end = count < rshm_fds_end() ? count : rshm_fds_end();
    (void)except;
    for (int fd = 0; fd < end; fd++)
        if (rshm_conn_of(fd) != NULL && ((in != NULL && FD_ISSET(fd, in)) || (out != NULL && FD_ISSET(fd, out))))
            return true;
    return false;
}

int rshm_preload_select(int count, fd_set *in, fd_set *out, fd_set *except, int64_t timeout_ns, const sigset_t *mask, int64_t *left_ns)
{
    struct pollfd fds[FD_SETSIZE];
    nfds_t n = 0;

    if (count < 0 || count > FD_SETSIZE) {
        errno = EINVAL;
        return -1;
    }
    for (int fd = 0; fd < count; fd++) {
        int events = (in != NULL && FD_ISSET(fd, in) ? POLLIN : 0) | (out != NULL && FD_ISSET(fd, out) ? POLLOUT : 0) |
                     (except != NULL && FD_ISSET(fd, except) ? POLLPRI : 0);
        if (events != 0)
            fds[n++] = (struct pollfd){.fd = fd, .events = (short)events};
    }
    int r = rshm_preload_poll(fds, n, timeout_ns, mask, left_ns);
    if (r < 0)
        return r;
    for (nfds_t i = 0; i < n; i++) {
        if (fds[i].revents & POLLNVAL) {
            errno = EBADF;
            return -1;
        }
    }
    if (in != NULL)
        FD_ZERO(in);
    if (out != NULL)
        FD_ZERO(out);
    if (except != NULL)
        FD_ZERO(except);
    r = 0;
    for (nfds_t i = 0; i < n; i++) {
        const int fd = fds[i].fd;
        if ((fds[i].events & POLLIN) && (fds[i].revents & (POLLIN | POLLHUP | POLLERR))) {
            FD_SET(fd, in);
            r++;
        }
        if ((fds[i].events & POLLOUT) && (fds[i].revents & (POLLOUT | POLLERR))) {
            FD_SET(fd, out);
            r++;
        }
        if ((fds[i].events & POLLPRI) && (fds[i].revents & POLLPRI)) {
            FD_SET(fd, except);
            r++;
        }
    }
    return r;
}
