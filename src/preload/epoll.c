/* epoll.c - see epoll.h. A watch is hot (in its poller's ring, looked at in user space) or parked (armed: its bell comes through the
 * kernel). Whatever is idle for a millisecond is parked, so that a thousand idle connections cost nothing beside a busy one. */
#include "preload/epoll.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "channel/clock.h"
#include "preload/real.h"
#include "preload/report.h"
#include "preload/settings.h"
#include "preload/transfer.h"
#include "preload/upgrade.h"

#define SPIN_US 20         /* docs/benchmarks.md, "spin window" */
#define KERNEL_EVERY_US 25 /* what other descriptors wait at most beside a busy connection */
#define IDLE_US 1000
#define LOOKS_PER_CLOCK 4

struct rshm_watch {
    struct rshm_watch *next_of_fd;
    struct rshm_watch *prev, *next; /* in the ring of hot ones; NULL: parked */
    struct rshm_watch *all;         /* every one of the poller */
    struct rshm_poller *poller;     /* NULL: free */
    int fd;
    uint32_t events, told;          /* told: edge-triggered, and reported since the program last did something about it */
    epoll_data_t data;
    bool fired;                     /* EPOLLONESHOT, and reported */
    bool kicked;                    /* EPOLLOUT is in the kernel's registration, to wake up whoever sleeps */
    uint64_t reads, full_writes;    /* of the connection, when it was reported */
    uint64_t active_at;
};

struct rshm_poller {
    pthread_mutex_t lock;
    rshm_u32 wanted, sleeping;
    int epfd;                       /* -1: the instance was closed */
    bool nested;
    uint32_t count;
    struct rshm_watch *all, *hot;
    uint32_t hot_count;
    uint32_t peer_tag;
    uint64_t kernel_at, sweep_at;
    struct rshm_waiting waiting;
    struct rshm_poller *next;
};

static struct rshm_watch watches[RSHM_CONNS_MAX]; /* zero pages until used */
static struct rshm_watch *free_watches;
static uint32_t watches_end;
static struct rshm_poller *pollers;
static rshm_u32 outside; /* threads asleep in any poller, and nested pollers: mostly 0, and then no lock is needed to know */
static pthread_mutex_t lists = PTHREAD_MUTEX_INITIALIZER; /* watches of a descriptor, free ones, pollers */

static bool is_watch(const void *p)
{
    return (const char *)p >= (const char *)watches && (const char *)p < (const char *)(watches + RSHM_CONNS_MAX);
}

static void lock(struct rshm_poller *p)
{
    if (pthread_mutex_trylock(&p->lock) == 0)
        return;
    atomic_fetch_add(&p->wanted, 1u); /* who spins with it lets go when it sees this */
    pthread_mutex_lock(&p->lock);
    atomic_fetch_sub(&p->wanted, 1u);
}

static void unlock(struct rshm_poller *p)
{
    pthread_mutex_unlock(&p->lock);
}

static void init_lock(struct rshm_poller *p)
{
    pthread_mutexattr_t a; /* recursive: a connection may turn out to be a plain socket inside of a wait */
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&p->lock, &a);
    pthread_mutexattr_destroy(&a);
}

void rshm_epoll_before_fork(void)
{
    for (struct rshm_poller *p = pollers; p != NULL; p = p->next)
        lock(p);
    pthread_mutex_lock(&lists);
}

void rshm_epoll_after_fork(bool child)
{
    pthread_mutex_unlock(&lists);
    for (struct rshm_poller *p = pollers; p != NULL; p = p->next) {
        if (child) { /* the owner of a recursive lock is a thread's number, and this one's has changed */
            init_lock(p);
            rshm_store_relaxed(&p->wanted, 0u);
            atomic_fetch_sub(&outside, rshm_exchange(&p->sleeping, 0u)); /* other threads, which are not here */
        } else {
            unlock(p);
        }
    }
}

static void fall_asleep(struct rshm_poller *p)
{
    atomic_fetch_add(&p->sleeping, 1u);
    atomic_fetch_add(&outside, 1u);
}

static void wake_up(struct rshm_poller *p)
{
    atomic_fetch_sub(&outside, 1u);
    atomic_fetch_sub(&p->sleeping, 1u);
}

/* ---- watches ---- */

static void make_hot(struct rshm_poller *p, struct rshm_watch *w, uint64_t now)
{
    w->active_at = now;
    if (w->next != NULL)
        return;
    if (p->hot == NULL) {
        p->hot = w->prev = w->next = w;
    } else {
        w->next = p->hot;
        w->prev = p->hot->prev;
        w->prev->next = w->next->prev = w;
    }
    p->hot_count++;
}

static void unlink_hot(struct rshm_poller *p, struct rshm_watch *w)
{
    if (w->next == NULL)
        return;
    if (p->hot == w)
        p->hot = w->next == w ? NULL : w->next;
    w->prev->next = w->next;
    w->next->prev = w->prev;
    w->prev = w->next = NULL;
    p->hot_count--;
}

static struct rshm_poller *poller_of(int epfd)
{
    struct rshm_entry *e = rshm_entry(epfd);
    if (e == NULL)
        return NULL;
    pthread_mutex_lock(&lists);
    if (e->poller == NULL) {
        struct rshm_poller *p = pollers;
        while (p != NULL && p->epfd != -1)
            p = p->next;
        if (p == NULL && (p = calloc(1, sizeof *p)) != NULL) {
            init_lock(p);
            p->next = pollers;
            pollers = p;
        }
        if (p != NULL) {
            p->epfd = epfd;
            p->waiting = (struct rshm_waiting){.mode = rshm_preload_settings.mode, .limit = SPIN_US * rshm_ticks_per_us()};
        }
        e->poller = p;
    }
    pthread_mutex_unlock(&lists);
    return e->poller;
}

static struct rshm_watch *watch_of(int fd, const struct rshm_poller *p)
{
    pthread_mutex_lock(&lists);
    struct rshm_watch *w = rshm_entries[fd].watches;
    while (w != NULL && w->poller != p)
        w = w->next_of_fd;
    pthread_mutex_unlock(&lists);
    return w;
}

/* With p's lock. NULL: no more to be had. */
static struct rshm_watch *add_watch(struct rshm_poller *p, int fd, uint32_t events, epoll_data_t data)
{
    pthread_mutex_lock(&lists);
    struct rshm_watch *w = free_watches;
    if (w != NULL)
        free_watches = w->next_of_fd;
    else if (watches_end < RSHM_CONNS_MAX)
        w = &watches[watches_end++];
    if (w != NULL) {
        *w = (struct rshm_watch){.poller = p, .fd = fd, .events = events, .data = data, .all = p->all,
                                 .next_of_fd = rshm_entries[fd].watches};
        rshm_entries[fd].watches = w;
        p->all = w;
        p->count++;
    }
    pthread_mutex_unlock(&lists);
    return w;
}

/* With p's lock. */
static void remove_watch(struct rshm_poller *p, struct rshm_watch *w)
{
    unlink_hot(p, w);
    pthread_mutex_lock(&lists);
    struct rshm_watch **at = &rshm_entries[w->fd].watches;
    while (*at != NULL && *at != w)
        at = &(*at)->next_of_fd;
    if (*at == w)
        *at = w->next_of_fd;
    for (at = &p->all; *at != NULL && *at != w;)
        at = &(*at)->all;
    if (*at == w)
        *at = w->all;
    p->count--;
    w->poller = NULL;
    w->next_of_fd = free_watches;
    free_watches = w;
    pthread_mutex_unlock(&lists);
}

/* ---- the kernel's registration ---- */

static int kernel_ctl(struct rshm_watch *w, int op, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = w};
    return rshm_real()->epoll_ctl(w->poller->epfd, op, w->fd, &ev);
}

/* What the kernel is to tell in c's state. Kicked: whoever sleeps looks at once. */
static uint32_t kernel_events(const struct rshm_conn *c, struct rshm_watch *w, bool kick)
{
    w->kicked = kick && c->state == RSHM_CONN_OPEN;
    switch (c->state) {
    case RSHM_CONN_CONNECTING:
        return EPOLLIN | EPOLLOUT;
    case RSHM_CONN_LOGIN:
        return w->events;
    default:
        return EPOLLIN | (w->kicked ? EPOLLOUT : 0);
    }
}

void rshm_epoll_changed(struct rshm_conn *c)
{
    int e = errno;
    pthread_mutex_lock(&lists);
    for (int fd = c->dups ? 0 : c->ch.fd; fd < (c->dups ? rshm_fds_end() : c->ch.fd + 1); fd++)
        if (rshm_conn_of(fd) == c)
            for (struct rshm_watch *w = rshm_entries[fd].watches; w != NULL; w = w->next_of_fd)
                kernel_ctl(w, EPOLL_CTL_MOD, kernel_events(c, w, true));
    pthread_mutex_unlock(&lists);
    errno = e;
}

void rshm_epoll_adopt(struct rshm_conn *c, int fd)
{
    struct rshm_entry *e = &rshm_entries[fd];
    if (e->epfd == 0)
        return;
    struct rshm_poller *p = poller_of(e->epfd - 1);
    if (p == NULL)
        return;
    lock(p);
    struct rshm_watch *w = add_watch(p, fd, e->events, e->data);
    if (w != NULL && kernel_ctl(w, EPOLL_CTL_MOD, kernel_events(c, w, true)) != 0)
        remove_watch(p, w); /* the instance is another one by now */
    unlock(p);
    e->epfd = 0;
}

void rshm_epoll_release(int fd)
{
    struct rshm_entry *e = &rshm_entries[fd];
    struct rshm_watch *w;
    while ((w = e->watches) != NULL) {
        struct rshm_poller *p = w->poller;
        lock(p);
        if (w->poller == p && e->watches == w) {
            struct epoll_event ev = {.events = w->fired ? 0 : w->events, .data = w->data};
            rshm_real()->epoll_ctl(p->epfd, EPOLL_CTL_MOD, fd, &ev);
            e->epfd = p->epfd + 1;
            e->events = w->events;
            e->data = w->data;
            remove_watch(p, w);
        }
        unlock(p);
    }
}

void rshm_epoll_closing(int fd)
{
    struct rshm_entry *e = &rshm_entries[fd];
    struct rshm_conn *c = rshm_conn_of(fd);
    struct rshm_watch *w;
    while ((w = e->watches) != NULL) {
        struct rshm_poller *p = w->poller;
        lock(p);
        if (w->poller == p && e->watches == w) {
            if (c == NULL || c->dups) /* the file stays open: the kernel would go on telling */
                kernel_ctl(w, EPOLL_CTL_DEL, 0);
            remove_watch(p, w);
        }
        unlock(p);
    }
    e->epfd = 0;
    struct rshm_poller *p = e->poller;
    if (p == NULL)
        return;
    lock(p);
    while (p->all != NULL)
        remove_watch(p, p->all);
    p->epfd = -1;
    if (p->nested)
        atomic_fetch_sub(&outside, 1u);
    p->nested = false;
    e->poller = NULL;
    unlock(p);
}

bool rshm_epoll_asleep(int fd)
{
    bool asleep = false;
    if (rshm_load_relaxed(&outside) == 0) /* see poller_sleep() for the order */
        return false;
    pthread_mutex_lock(&lists);
    for (const struct rshm_watch *w = rshm_entries[fd].watches; w != NULL; w = w->next_of_fd)
        asleep |= w->poller->nested || rshm_load_relaxed(&w->poller->sleeping) != 0; /* see poller_sleep() */
    pthread_mutex_unlock(&lists);
    return asleep;
}

static void note(int fd, int epfd, int op, const struct epoll_event *ev)
{
    struct rshm_entry *e = rshm_entry(fd);
    if (e == NULL)
        return;
    if (op == EPOLL_CTL_DEL) {
        if (e->epfd == epfd + 1)
            e->epfd = 0;
        return;
    }
    e->events = ev->events;
    e->data = ev->data;
    e->epfd = epfd + 1;
    struct rshm_entry *inner = e;
    if (inner->poller != NULL)
        rshm_epoll_nested(fd);
}

int rshm_preload_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    struct rshm_poller *p;
    int r;
    if (c == NULL || rshm_not_this_process() || (ev == NULL && op != EPOLL_CTL_DEL) || (p = poller_of(epfd)) == NULL) {
        r = rshm_real()->epoll_ctl(epfd, op, fd, ev);
        if (r == 0)
            note(fd, epfd, op, ev);
        return r;
    }
    lock(p);
    struct rshm_watch *w = watch_of(fd, p);
    if (op == EPOLL_CTL_ADD && w == NULL && (w = add_watch(p, fd, ev->events, ev->data)) != NULL) {
        /* A thread that is asleep there cannot be told in another way. */
        r = kernel_ctl(w, op, kernel_events(c, w, rshm_load_relaxed(&p->sleeping) != 0));
        if (r != 0)
            remove_watch(p, w);
        else if (c->state == RSHM_CONN_OPEN || c->state == RSHM_CONN_FAILED)
            make_hot(p, w, rshm_ticks());
    } else if (op == EPOLL_CTL_MOD && w != NULL) {
        w->events = ev->events;
        w->data = ev->data;
        w->fired = false;
        w->told = 0;
        bool sleeping = rshm_load_relaxed(&p->sleeping) != 0 || p->nested;
        r = c->state == RSHM_CONN_LOGIN || (sleeping && c->state == RSHM_CONN_OPEN) ? kernel_ctl(w, op, kernel_events(c, w, sleeping)) : 0;
        if (c->state == RSHM_CONN_OPEN || c->state == RSHM_CONN_FAILED)
            make_hot(p, w, rshm_ticks());
    } else if (op == EPOLL_CTL_DEL && w != NULL) {
        r = rshm_real()->epoll_ctl(epfd, op, fd, ev);
        remove_watch(p, w);
    } else {
        r = rshm_real()->epoll_ctl(epfd, op, fd, ev); /* EEXIST, ENOENT */
    }
    unlock(p);
    return r;
}

/* ---- what is ready ---- */

/* With c entered. What the program would be told about w now. */
static uint32_t ready_events(struct rshm_conn *c, struct rshm_watch *w)
{
    if (w->fired)
        return 0;
    uint32_t ready = (uint32_t)(unsigned short)rshm_transfer_readiness(c) & (w->events | EPOLLERR | EPOLLHUP);
    if (ready & EPOLLIN)
        ready |= w->events & EPOLLRDNORM;
    if (ready & EPOLLOUT)
        ready |= w->events & EPOLLWRNORM;
    if ((w->events & EPOLLET) == 0)
        return ready;
    if (w->reads != c->reads)
        w->told &= ~(uint32_t)(EPOLLIN | EPOLLRDNORM);
    if (w->full_writes != c->full_writes)
        w->told &= ~(uint32_t)(EPOLLOUT | EPOLLWRNORM);
    return (ready & ~w->told) != 0 ? ready : 0;
}

/* Appends what hot watches have to tell. With p's lock. */
static int scan(struct rshm_poller *p, struct epoll_event *events, int n, int max, uint64_t now, bool *rang)
{
    struct rshm_watch *w = p->hot;
    for (uint32_t left = p->hot_count; left > 0 && w != NULL && n < max; left--) {
        struct rshm_watch *next = w->next;
        struct rshm_conn *c = rshm_conn_of(w->fd);
        if (c == NULL || !rshm_conn_enter(c, w->fd)) {
            if (w->next != NULL)
                unlink_hot(p, w);
            w = p->hot == NULL ? NULL : next;
            continue;
        }
        c->trusted = true;
        uint32_t ready = ready_events(c, w);
        if (ready != 0) {
            w->told |= ready;
            w->reads = c->reads;
            w->full_writes = c->full_writes;
            w->fired = (w->events & EPOLLONESHOT) != 0;
            w->active_at = now;
            if (ready & EPOLLIN)
                p->peer_tag = charfifo_tag(&c->ch.in);
            events[n].events = ready;
            events[n].data = w->data;
            n++;
        }
        if (c->ch.rang) {
            *rang = true;
            c->ch.rang = false;
        }
        rshm_conn_leave(c);
        w = next;
    }
    if (p->hot != NULL && w != NULL)
        p->hot = w; /* whoever did not fit comes first next time */
    return n;
}

/* Parks w if there is nothing to tell: a bell will come. Returns false if there is. What was told already and is not read yet (edge-triggered)
 * cannot be armed for: it stays hot, and whoever reads it to its end arms, if we sleep by then. */
static bool park(struct rshm_poller *p, struct rshm_watch *w)
{
    struct rshm_conn *c = rshm_conn_of(w->fd);
    bool tells = false, armed = true;
    if (c != NULL && rshm_conn_enter(c, w->fd)) {
        int want = (w->events & EPOLLIN ? RSHM_WANT_READ : 0) | (w->events & EPOLLOUT ? RSHM_WANT_WRITE : 0);
        if (c->state == RSHM_CONN_OPEN && (w->told & EPOLLOUT) && rshm_channel_writable(&c->ch))
            want &= ~RSHM_WANT_WRITE; /* told as well: it does not keep us from arming for what may come */
        if (c->state == RSHM_CONN_OPEN && !c->ch.hangup && !w->fired && want != 0)
            armed = !rshm_conn_arm(c, want);
        tells = ready_events(c, w) != 0;
        if (!tells)
            rshm_report_moved(c);
        rshm_conn_leave(c);
    }
    if (!tells && armed && w->next != NULL)
        unlink_hot(p, w);
    return !tells;
}

/* Parks what was idle for idle_ticks. Returns false if something is ready after all. */
static bool park_idle(struct rshm_poller *p, uint64_t now, uint64_t idle_ticks)
{
    bool all = true;
    struct rshm_watch *w = p->hot;
    for (uint32_t left = p->hot_count; left > 0 && w != NULL; left--) {
        struct rshm_watch *next = w->next;
        if (now - w->active_at >= idle_ticks)
            all &= park(p, w);
        w = next;
    }
    return all;
}

/* An event of the kernel's for w. Returns true if it is the program's: *ev is filled in. With p's lock. */
static bool attend(struct rshm_poller *p, struct rshm_watch *w, struct epoll_event *ev, uint64_t now)
{
    struct rshm_conn *c = w->poller == p ? rshm_conn_of(w->fd) : NULL;
    int fd = w->fd;
    if (c == NULL || !rshm_conn_enter(c, fd))
        return false;
    if (c->state == RSHM_CONN_CONNECTING || c->state == RSHM_CONN_OPENING) {
        enum rshm_step s = rshm_upgrade_step(c, fd);
        if (s == RSHM_STEP_PLAIN)
            return false; /* the kernel has the program's own registration again, and tells it in the next look */
        if (s == RSHM_STEP_STRAY && (w->events & EPOLLIN) && !w->fired) {
            rshm_conn_leave(c);
            *ev = (struct epoll_event){.events = EPOLLIN, .data = w->data};
            return true;
        }
    } else if (c->state == RSHM_CONN_LOGIN) {
        rshm_conn_leave(c);
        ev->data = w->data;
        return true;
    } else if (c->state == RSHM_CONN_OPEN) {
        if (w->kicked)
            kernel_ctl(w, EPOLL_CTL_MOD, kernel_events(c, w, false));
        rshm_conn_drain(c, fd);
        if (w->next == NULL)
            rshm_channel_disarm(&c->ch);
        c->ch.woke_at = now;
    }
    if (c->state == RSHM_CONN_OPEN || c->state == RSHM_CONN_FAILED)
        make_hot(p, w, now);
    rshm_conn_leave(c);
    return false;
}

/* Keeps the program's events of n that came from the kernel; ours are attended to. */
static int sift(struct rshm_poller *p, struct epoll_event *events, int n, uint64_t now)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        struct epoll_event ev = events[i];
        if (!is_watch(ev.data.ptr) || attend(p, ev.data.ptr, &ev, now))
            events[kept++] = ev;
    }
    return kept;
}

static int ask_kernel(struct rshm_poller *p, struct epoll_event *events, int n, int max, uint64_t now)
{
    p->kernel_at = now;
    int got = n < max ? rshm_real()->epoll_wait(p->epfd, events + n, max - n, 0) : 0;
    return got > 0 ? n + sift(p, events + n, got, now) : n;
}

bool rshm_epoll_nested(int epfd)
{
    struct rshm_entry *e = rshm_entry(epfd);
    struct rshm_poller *p = e == NULL ? NULL : e->poller;
    if (p == NULL)
        return false;
    lock(p);
    if (!p->nested)
        atomic_fetch_add(&outside, 1u);
    p->nested = true;
    bool ready = !park_idle(p, rshm_ticks(), 0);
    unlock(p);
    return ready;
}

/* Spins for what the policy gives, as long as nobody else wants the poller. Returns the number of events. */
static int spin(struct rshm_poller *p, struct epoll_event *events, int max, uint64_t budget, uint64_t limit_ticks)
{
    const uint64_t start = rshm_ticks(), kernel_every = KERNEL_EVERY_US * rshm_ticks_per_us();
    uint64_t now = start;
    bool rang = false;
    int n = 0;
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK && n == 0; i++) {
            n = scan(p, events, 0, max, now, &rang);
            rshm_cpu_relax();
        }
        now = rshm_ticks();
        if (n == 0 && budget == RSHM_SPIN_FOREVER)
            rshm_yield_to(p->peer_tag);
        if (now - p->kernel_at >= kernel_every)
            n = ask_kernel(p, events, n, max, now);
        if (n == 0 && rshm_load_relaxed(&p->wanted) != 0) { /* of another thread; looked at all the time */
            unlock(p);
            sched_yield();
            lock(p);
            if (p->epfd < 0)
                break;
        }
    } while (n == 0 && now - start < budget && now - start < limit_ticks);
    return n;
}

/* Sleeps in the kernel; with p's lock, which is let go meanwhile. A connection that is registered, changed or read by another thread
 * from now on looks at p->sleeping: under the lock, or with the connection entered that park() has entered before. */
static int poller_sleep(struct rshm_poller *p, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask)
{
    int epfd = p->epfd;
    unlock(p);
    int n = rshm_real()->epoll_pwait(epfd, events, max, timeout_ms, mask);
    int e = errno;
    lock(p);
    wake_up(p);
    errno = e;
    return n;
}

int rshm_preload_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns, const sigset_t *mask)
{
    struct rshm_entry *e = rshm_entry(epfd);
    struct rshm_poller *p = e->poller;
    const uint64_t per_us = rshm_ticks_per_us(), end_ns = timeout_ns > 0 ? rshm_now_ns() + (uint64_t)timeout_ns : 0;
    bool rang = false;
    int n = 0;

    lock(p);
    for (bool first = true;; first = false) {
        uint64_t now = rshm_ticks();
        n = scan(p, events, 0, max, now, &rang);
        if (n == 0 && timeout_ns == 0) {
            n = ask_kernel(p, events, 0, max, now);
            if (n == 0)
                n = scan(p, events, 0, max, now, &rang);
            park_idle(p, now, 0); /* who comes only to look may sleep elsewhere */
            break;
        }
        if (n > 0 && now - p->kernel_at >= KERNEL_EVERY_US * per_us)
            n = ask_kernel(p, events, n, max, now);
        if (n > 0 && now - p->sweep_at >= IDLE_US * per_us) {
            p->sweep_at = now;
            park_idle(p, now, IDLE_US * per_us);
        }
        if (n > 0)
            break;
        if (first && p->hot_count > 0) {
            uint64_t budget = rang && p->waiting.mode != RSHM_MODE_POLL ? 0 : rshm_waiting_budget(&p->waiting, p->peer_tag, 0, false);
            if (budget != 0) {
                n = spin(p, events, max, budget, timeout_ns < 0 ? UINT64_MAX : (uint64_t)timeout_ns / 1000 * per_us);
                if (n > 0) {
                    rshm_waiting_hit(&p->waiting);
                    break;
                }
                rshm_waiting_missed(&p->waiting);
            }
        }
        if (p->epfd < 0) {
            unlock(p);
            errno = EBADF;
            return -1;
        }
        fall_asleep(p); /* before the last look: whoever reads after it sees that bells are needed */
        if (!park_idle(p, now, 0)) {
            wake_up(p);
            continue;
        }
        int64_t left_ns = timeout_ns < 0 ? -1 : (int64_t)(end_ns - rshm_now_ns());
        if (timeout_ns > 0 && left_ns <= 0) {
            wake_up(p);
            break;
        }
        int got = poller_sleep(p, events, max, timeout_ns < 0 ? -1 : (int)((left_ns + 999999) / 1000000), mask);
        if (got < 0) {
            unlock(p);
            return -1;
        }
        now = p->kernel_at = rshm_ticks();
        n = sift(p, events, got, now);
        if (n > 0) {
            n = scan(p, events, n, max, now, &rang);
            break;
        }
        rang = false;
    }
    if (p->nested)
        park_idle(p, rshm_ticks(), 0);
    unlock(p);
    return n;
}
