/* poller.c - epoll_wait over sockets and sessions.
 *
 * Sessions of an epoll instance are hot (in the poller's ring: looked at from user space at every turn) or parked (armed: their
 * next bell comes through the kernel's epoll, registered with the session's address as its data). While one is hot the poller
 * spins for a bounded time before it parks them all and sleeps in the kernel. By time, not by count, it asks the kernel
 * too, so that sockets and timers never starve.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "channel/clock.h"
#include "redirect/session.h"

#define KERNEL_EVERY_US 25   /* what a socket client waits at most beside a busy session; an epoll_wait(0) costs 0.3 us: 1 % */
#define SWEEP_EVERY_US 1000  /* how often idle sessions are looked for among the hot ones ... */
#define IDLE_US 1000         /* ... and after how long without an event one is parked */
#define WAKE_US 150          /* what a client takes at most from our bell to running, on a CPU that sleeps deeply */
#define LOOKS_PER_CLOCK 4

static struct rshm_poller pollers[RSHM_POLLERS_MAX];

static void lock(struct rshm_poller *p)
{
    if (pthread_mutex_trylock(&p->lock) == 0)
        return;
    atomic_fetch_add(&p->wanted, 1u); /* the spinning poller lets go when it sees this */
    pthread_mutex_lock(&p->lock);
    atomic_fetch_sub(&p->wanted, 1u);
}

static void unlock(struct rshm_poller *p)
{
    pthread_mutex_unlock(&p->lock);
}

/* ---- the ring of hot sessions; under the lock ---- */

static void make_hot(struct rshm_poller *p, struct rshm_session *s, uint64_t now)
{
    s->active_at = now;
    if (s->next != NULL)
        return;
    rshm_channel_disarm(&s->ch);
    if (p->hot == NULL) {
        p->hot = s->prev = s->next = s;
    } else {
        s->next = p->hot;
        s->prev = p->hot->prev;
        s->prev->next = s->next->prev = s;
    }
    p->hot_count++;
    rshm_store_relaxed(&s->is_hot, 1u);
}

static void unlink_hot(struct rshm_poller *p, struct rshm_session *s)
{
    if (s->next == NULL)
        return;
    if (p->hot == s)
        p->hot = s->next == s ? NULL : s->next;
    s->prev->next = s->next;
    s->next->prev = s->prev;
    s->prev = s->next = NULL;
    p->hot_count--;
    rshm_store_relaxed(&s->is_hot, 0u);
}

/* What the caller would be told about s now. With the session's lock. */
static uint32_t readiness(struct rshm_session *s)
{
    uint32_t ready = 0;
    if (s->state == RSHM_PROVISIONAL)
        return 0;
    if (s->state == RSHM_BROKEN || s->ch.hangup)
        return s->interest & (EPOLLIN | EPOLLOUT); /* what is left is read first, then the end */
    if ((s->interest & EPOLLIN) && rshm_channel_poll(&s->ch) != CHARFIFO_EMPTY)
        ready |= EPOLLIN;
    if ((s->interest & EPOLLOUT) && rshm_channel_writable(&s->ch))
        ready |= EPOLLOUT;
    return ready;
}

/* Appends the events of hot sessions. */
static int scan(struct rshm_poller *p, struct epoll_event *events, int n, int max, uint64_t now)
{
    struct rshm_session *s = p->hot;
    for (uint32_t left = p->hot_count; left > 0 && n < max; left--, s = s->next) {
        if (!rshm_session_trylock(s))
            continue; /* an IO thread is reading it, and kicks if it leaves something */
        uint32_t ready = readiness(s);
        rshm_session_unlock(s);
        if (ready != 0) {
            if (ready & EPOLLIN)
                p->peer_tag = charfifo_tag(&s->ch.in);
            events[n].events = ready;
            events[n].data = s->data;
            n++;
            s->active_at = now;
        }
    }
    p->hot = s; /* whoever did not fit comes first next time */
    return n;
}

/* Parks s if nothing is there for it. */
static void park(struct rshm_poller *p, struct rshm_session *s)
{
    if (!rshm_session_trylock(s))
        return;
    int want = (s->interest & EPOLLIN ? RSHM_WANT_READ : 0) | (s->interest & EPOLLOUT ? RSHM_WANT_WRITE : 0);
    bool stays = s->state == RSHM_OPEN && !s->ch.hangup ? rshm_channel_arm(&s->ch, want) : readiness(s) != 0;
    rshm_session_unlock(s);
    if (!stays)
        unlink_hot(p, s);
}

static void park_idle(struct rshm_poller *p, uint64_t now, uint64_t idle_ticks)
{
    struct rshm_session *s = p->hot;
    for (uint32_t left = p->hot_count; left > 0; left--) {
        struct rshm_session *next = s->next;
        if (now - s->active_at >= idle_ticks)
            park(p, s);
        s = next;
    }
}

/* ---- the kernel's side ---- */

static int kernel_ctl(struct rshm_poller *p, struct rshm_session *s, int op)
{
    /* EPOLLIN whatever the caller wants: bells must come in. EPOLLOUT never: the socket always has room. */
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};
    return rshm_state.libc.epoll_ctl(p->epfd, op, s->fd, &ev);
}

/* A bell, the first byte, or the end of the peer. Returns true if the event is the caller's after all: s is gone. */
static bool attend(struct rshm_poller *p, struct rshm_session *s, uint64_t now, struct epoll_event *ev)
{
    rshm_session_lock(s);
    if (s->state == RSHM_PROVISIONAL) {
        enum rshm_settled settled = rshm_session_settle(s);
        if (settled == RSHM_SETTLED_DECLINED) {
            struct epoll_event own = {.events = s->interest, .data = s->data};
            rshm_session_unlock(s);
            unlink_hot(p, s);
            p->session_count--;
            s->poller = NULL;
            rshm_state.libc.epoll_ctl(p->epfd, EPOLL_CTL_MOD, s->fd, &own);
            rshm_fd_registered(s->fd, p->epfd, own.events, own.data);
            ev->events &= own.events | EPOLLHUP | EPOLLERR;
            ev->data = own.data;
            rshm_session_drop(s);
            return ev->events != 0;
        }
    } else if (s->state == RSHM_OPEN) {
        rshm_session_drain(s);
    }
    if ((s->ch.hangup || s->state == RSHM_BROKEN) && s->in_kernel) {
        /* Its end is known: the kernel would only repeat it at every turn. */
        rshm_state.libc.epoll_ctl(p->epfd, EPOLL_CTL_DEL, s->fd, NULL);
        s->in_kernel = false;
    }
    rshm_session_unlock(s);
    make_hot(p, s, now);
    p->woken = true;
    return false;
}

/* Takes what is ours out of n events of the kernel; returns how many are left for the caller. */
static int sift(struct rshm_poller *p, struct epoll_event *events, int n)
{
    uint64_t now = rshm_ticks();
    int kept = 0;
    p->kernel_at = now;
    for (int i = 0; i < n; i++) {
        struct epoll_event ev = events[i];
        if (ev.data.ptr == p) {
            uint64_t kicks;
            (void)!read(p->wakefd, &kicks, sizeof kicks);
            continue;
        }
        if (rshm_arena_has(ev.data.ptr)) {
            struct rshm_session *s = ev.data.ptr;
            if (s->poller != p || !attend(p, s, now, &ev))
                continue;
        }
        events[kept++] = ev;
    }
    return kept;
}

static int kernel_wait(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *sigmask)
{
    return sigmask == NULL ? rshm_state.libc.epoll_wait(epfd, events, max, timeout_ms)
                           : rshm_state.libc.epoll_pwait(epfd, events, max, timeout_ms, sigmask);
}

/* Asks the kernel. Sessions among the answers become hot and are left out; returns how many events are the caller's. The lock
 * is let go while it sleeps. */
static int ask_kernel(struct rshm_poller *p, struct epoll_event *events, int max, int timeout_ms, const sigset_t *sigmask)
{
    if (timeout_ms != 0)
        unlock(p);
    int n = kernel_wait(p->epfd, events, max, timeout_ms, sigmask);
    if (timeout_ms != 0) {
        int e = errno;
        lock(p);
        errno = e;
    }
    return n < 0 ? n : sift(p, events, n);
}

/* ---- pollers ---- */

struct rshm_poller *rshm_poller_of(int epfd)
{
    struct rshm_fd *e = rshm_fd(epfd);
    if (e == NULL || e->poller != NULL)
        return e == NULL ? NULL : e->poller;
    /* From a table: nothing here uses a heap, since the server's and libc's may be two (docs/design.md, "allocator"). */
    struct rshm_poller *p = pollers;
    uint32_t zero = 0;
    while (p < pollers + RSHM_POLLERS_MAX && !atomic_compare_exchange_strong(&p->taken, &zero, 1u)) {
        p++;
        zero = 0;
    }
    if (p == pollers + RSHM_POLLERS_MAX) {
        errno = ENFILE;
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    p->epfd = epfd;
    p->thread = pthread_self();
    p->wakefd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};
    if (p->wakefd < 0 || rshm_state.libc.epoll_ctl(epfd, EPOLL_CTL_ADD, p->wakefd, &ev) != 0) {
        int err = errno;
        if (p->wakefd >= 0)
            close(p->wakefd);
        memset(p, 0, sizeof *p);
        errno = err;
        return NULL;
    }
    e->poller = p;
    return p;
}

void rshm_poller_retire(struct rshm_poller *p)
{
    close(p->wakefd);
    p->wakefd = -1;
}

void rshm_poller_kick(struct rshm_poller *p)
{
    const uint64_t one = 1;
    rshm_store_relaxed(&p->kicked, 1u);
    rshm_fence_full(); /* W3: the work before our look; pairs with R3 in sleep_in_kernel() */
    if (rshm_load_relaxed(&p->asleep) != 0)
        (void)!write(p->wakefd, &one, sizeof one);
}

void rshm_poller_add(struct rshm_poller *p, struct rshm_session *s, uint32_t interest, epoll_data_t data)
{
    lock(p);
    s->poller = p;
    s->interest = interest;
    s->data = data;
    p->session_count++;
    s->in_kernel = kernel_ctl(p, s, EPOLL_CTL_MOD) == 0;
    unlock(p);
}

void rshm_poller_remove(struct rshm_session *s, bool plain)
{
    struct rshm_poller *p = s->poller;
    if (p == NULL)
        return;
    lock(p);
    unlink_hot(p, s);
    p->session_count--;
    s->poller = NULL;
    if (plain) {
        struct epoll_event own = {.events = s->interest, .data = s->data};
        rshm_state.libc.epoll_ctl(p->epfd, EPOLL_CTL_MOD, s->fd, &own);
        rshm_fd_registered(s->fd, p->epfd, own.events, own.data);
    }
    unlock(p);
}

/* ---- the redirections ---- */

static int session_ctl(struct rshm_session *s, int epfd, int op, const struct epoll_event *ev)
{
    struct rshm_poller *p = s->poller;
    if (op == EPOLL_CTL_DEL) {
        if (p == NULL || p->epfd != epfd) {
            errno = ENOENT;
            return -1;
        }
        lock(p);
        unlink_hot(p, s);
        p->session_count--;
        s->poller = NULL;
        int r = s->in_kernel ? rshm_state.libc.epoll_ctl(epfd, EPOLL_CTL_DEL, s->fd, NULL) : 0;
        s->in_kernel = false;
        unlock(p);
        return r;
    }
    if (op == EPOLL_CTL_ADD ? p != NULL : p == NULL) {
        errno = op == EPOLL_CTL_ADD ? EEXIST : ENOENT;
        return -1;
    }
    if (p == NULL && (p = rshm_poller_of(epfd)) == NULL)
        return -1;
    lock(p);
    s->interest = ev->events;
    s->data = ev->data;
    if (op == EPOLL_CTL_ADD) {
        if (!s->ch.hangup && s->state != RSHM_BROKEN) {
            if (kernel_ctl(p, s, EPOLL_CTL_ADD) != 0) {
                unlock(p);
                return -1;
            }
            s->in_kernel = true;
        }
        s->poller = p;
        p->session_count++;
    }
    if (s->state != RSHM_PROVISIONAL)
        make_hot(p, s, rshm_ticks()); /* looked at in the next turn; parked again if there is nothing */
    unlock(p);
    if (!pthread_equal(p->thread, pthread_self()))
        rshm_poller_kick(p);
    return 0;
}

int rshm_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    struct rshm_session *s = rshm_session_of(fd);
    if (s != NULL)
        return session_ctl(s, epfd, op, ev);
    int r = rshm_state.libc.epoll_ctl(epfd, op, fd, ev);
    if (r == 0 && op != EPOLL_CTL_DEL)
        rshm_fd_registered(fd, epfd, ev->events, ev->data);
    else if (r == 0 && rshm_fd(fd) != NULL)
        rshm_fd(fd)->epfd = 0;
    return r;
}

/* Spins until a session has an event, the budget ends, or another thread wants the lock. Returns the number of events. */
static int spin(struct rshm_poller *p, struct epoll_event *events, int max, uint64_t budget)
{
    const uint64_t start = rshm_ticks(), kernel_every = KERNEL_EVERY_US * rshm_ticks_per_us();
    uint64_t now = start;
    struct rshm_session *s = p->hot;
    for (uint32_t left = p->hot_count; left > 0; left--, s = s->next)
        rshm_channel_stay_awake(&s->ch);
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            rshm_cpu_relax();
            int n = scan(p, events, 0, max, now);
            if (n > 0) {
                rshm_count(&rshm_state.spin_hits, 1);
                rshm_waiting_hit(&p->waiting);
                rshm_aside_hit(&p->aside);
                p->woken = false;
                return n;
            }
        }
        if (p->waiting.mode == RSHM_MODE_POLL)
            rshm_yield_to(p->peer_tag);
        now = rshm_ticks();
        if (now - p->kernel_at >= kernel_every) {
            int n = ask_kernel(p, events, max, 0, NULL);
            if (n != 0)
                return n;
        }
        while (rshm_load_relaxed(&p->wanted) != 0) { /* a hint: the mutex does the ordering */
            unlock(p);
            rshm_cpu_relax();
            lock(p);
        }
    } while (p->hot != NULL && now - start < budget && rshm_load_relaxed(&p->kicked) == 0);
    rshm_count(&rshm_state.spin_misses, 1);
    rshm_waiting_missed(&p->waiting);
    return 0;
}

/* Some client is in the middle of a large request, or a large reply has found no more room. */
static bool streams(struct rshm_poller *p)
{
    struct rshm_session *s = p->hot;
    for (uint32_t left = p->hot_count; left > 0; left--, s = s->next)
        if ((s->interest & EPOLLOUT) || rshm_channel_streams(&s->ch, RSHM_WANT_READ))
            return true;
    return false;
}

/* How long to spin now. Clients that were awake when they asked ask again soon, or the policy notices. Those that had rung for us are
 * asleep until our reply wakes them, but told how long they take from there to the next request: if that is short, waiting for
 * them once is what keeps both sides awake from then on. */
static uint64_t spin_budget(struct rshm_poller *p, uint64_t now)
{
    const uint64_t limit = rshm_load_relaxed(&rshm_state.spin_ticks);
    p->waiting.mode = (enum rshm_wait_mode)rshm_load_relaxed(&rshm_state.mode);
    p->waiting.limit = limit;
    const bool large = p->waiting.mode == RSHM_MODE_ADAPTIVE && streams(p); /* the others do not ask */
    const bool fast = rshm_pace_ticks(rshm_tag_pace(p->peer_tag)) <= limit;
    if (rshm_same_cpu(p->peer_tag) && p->waiting.mode != RSHM_MODE_BLOCK && (fast || p->waiting.mode == RSHM_MODE_POLL))
        rshm_move_aside(&p->aside, now);
    if (!p->woken || p->waiting.mode != RSHM_MODE_ADAPTIVE)
        return rshm_waiting_budget(&p->waiting, p->peer_tag, 0, large);
    if (!fast && !large)
        return 0;
    return rshm_waiting_budget(&p->waiting, p->peer_tag, WAKE_US * rshm_ticks_per_us(), large);
}

/* Parks everybody, looks again, sleeps. */
static int sleep_in_kernel(struct rshm_poller *p, struct epoll_event *events, int max, int timeout_ms, const sigset_t *sigmask)
{
    park_idle(p, 0, 0);
    rshm_store_relaxed(&p->asleep, 1u);
    rshm_fence_full(); /* R3: asleep before our look at kicked; pairs with W3 in rshm_poller_kick() */
    bool kicked = rshm_exchange(&p->kicked, 0u) != 0;
    bool stay = p->hot != NULL || kicked;
    int n = ask_kernel(p, events, max, stay ? 0 : timeout_ms, sigmask);
    rshm_store_relaxed(&p->asleep, 0u);
    return n;
}

static int poller_wait(struct rshm_poller *p, struct epoll_event *events, int max, int timeout_ms, const sigset_t *sigmask)
{
    const uint64_t per_us = rshm_ticks_per_us();
    uint64_t deadline = 0;
    int n;

    p->thread = pthread_self();
    for (;;) {
        uint64_t now = rshm_ticks();
        if (now - p->sweep_at >= SWEEP_EVERY_US * per_us) {
            p->sweep_at = now;
            if (p->waiting.mode != RSHM_MODE_POLL) /* which promises to be there after any pause */
                park_idle(p, now, IDLE_US * per_us);
        }
        n = scan(p, events, 0, max, now);
        if (n > 0 && now - p->kernel_at < KERNEL_EVERY_US * per_us)
            return n;
        if (n > 0 || timeout_ms == 0) {
            /* Sockets next to the sessions' events. An error here (a signal) is for the next call to see. */
            int more = n < max ? ask_kernel(p, events + n, max - n, 0, timeout_ms == 0 ? sigmask : NULL) : 0;
            if (n > 0)
                return more > 0 ? n + more : n;
            return more != 0 ? more : scan(p, events, 0, max, now);
        }
        if (timeout_ms > 0) {
            if (deadline == 0)
                deadline = now + (uint64_t)timeout_ms * 1000 * per_us;
            else if ((int64_t)(deadline - now) <= 0)
                return 0;
        }
        uint64_t budget = p->hot != NULL ? spin_budget(p, now) : 0;
        if (timeout_ms > 0 && budget > deadline - now)
            budget = deadline - now;
        if (budget != 0 && (n = spin(p, events, max, budget)) != 0)
            return n;
        if (timeout_ms > 0) {
            int64_t left_us = (int64_t)(deadline - rshm_ticks()) / (int64_t)per_us;
            if (left_us <= 0)
                continue;
            n = sleep_in_kernel(p, events, max, (int)((left_us + 999) / 1000), sigmask);
        } else {
            n = sleep_in_kernel(p, events, max, -1, sigmask);
        }
        if (n != 0)
            return n;
    }
}

/* The poller of epfd if it has sessions now. */
static struct rshm_poller *busy_poller(int epfd)
{
    struct rshm_fd *e = rshm_load_relaxed(&rshm_state.sessions_now) == 0 ? NULL : rshm_fd(epfd);
    return e != NULL && e->poller != NULL && e->poller->session_count != 0 ? e->poller : NULL;
}

int rshm_epoll_pwait(int epfd, struct epoll_event *events, int maxevents, int timeout_ms, const sigset_t *sigmask)
{
    struct rshm_poller *p = busy_poller(epfd);
    if (p == NULL) {
        int n = kernel_wait(epfd, events, maxevents, timeout_ms, sigmask);
        /* Another thread of the server may have made a session here while this one slept. */
        if (n <= 0 || (p = busy_poller(epfd)) == NULL)
            return n;
        lock(p);
        n = sift(p, events, n);
        unlock(p);
        if (n > 0)
            return n;
    }
    lock(p);
    int n = poller_wait(p, events, maxevents, timeout_ms, sigmask);
    unlock(p);
    return n;
}

int rshm_epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout_ms)
{
    return rshm_epoll_pwait(epfd, events, maxevents, timeout_ms, NULL);
}

void rshm_redirect_set_waiting(enum rshm_wait_mode mode, uint64_t spin_limit_us)
{
    /* Two settings of their own; a wait that sees one old and one new of them is as good as any. */
    rshm_store_relaxed(&rshm_state.mode, (uint32_t)mode);
    rshm_store_relaxed(&rshm_state.spin_ticks, spin_limit_us * rshm_ticks_per_us());
}
