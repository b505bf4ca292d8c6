/* conn.c - the table of descriptors, and the life of connections; see conn.h. */
#include "preload/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "channel/clock.h"
#include "preload/epoll.h"
#include "preload/real.h"
#include "preload/report.h"

#define SPIN_US 20             /* docs/benchmarks.md, "spin window" */
#define TRIES_BEFORE_YIELD 200 /* some microseconds: longer than a call takes, unless its thread has lost the CPU */

struct rshm_entry rshm_entries[RSHM_FDS_MAX]; /* zero pages until used: costs address space only */

static struct rshm_conn *arena; /* of this process; relatives know theirs by address */
static rshm_u32 arena_hint, fds_end, this_process;
static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER; /* descriptors come and go */

/* ---- processes ---- */

bool rshm_not_this_process(void)
{
    return (uint32_t)getpid() != rshm_load_relaxed(&this_process); /* one number, written before there were threads */
}

/* Each connection once, though several descriptors lead there. */
static void for_each_conn(void (*f)(struct rshm_conn *c))
{
    for (int fd = 0; fd < rshm_fds_end(); fd++) {
        struct rshm_conn *c = rshm_conn_of(fd);
        if (c == NULL)
            continue;
        int other = c->dups ? 0 : fd;
        while (rshm_conn_of(other) != c)
            other++;
        if (other == fd)
            f(c);
    }
}

static void one_process_more(struct rshm_conn *c)
{
    atomic_fetch_add(&c->processes, 1);
}

static void one_process_less(struct rshm_conn *c)
{
    atomic_fetch_sub(&c->processes, 1);
}

static bool from_a_vfork_child;

static void before_fork(void)
{
    from_a_vfork_child = rshm_not_this_process();
    if (from_a_vfork_child)
        return;
    rshm_epoll_before_fork();
    pthread_mutex_lock(&life);
    for_each_conn(one_process_more); /* before there is a child: the parent may close first */
}

static void after_fork(bool child)
{
    if (from_a_vfork_child)
        return;
    pthread_mutex_unlock(&life);
    rshm_epoll_after_fork(child);
}

static void in_parent(void)
{
    after_fork(false);
}

static void in_child(void)
{
    rshm_store_relaxed(&this_process, (uint32_t)getpid()); /* no other thread here */
    arena = NULL; /* the parent's, and shared: its free slots are the parent's */
    after_fork(true);
}

static void prepare(void)
{
    rshm_store_relaxed(&this_process, (uint32_t)getpid());
    pthread_atfork(before_fork, in_parent, in_child);
    rshm_ticks_per_us(); /* calibrates now, not in the first request */
}

/* ---- slots ---- */

static struct rshm_conn *take_slot(void)
{
    if (arena == NULL) {
        void *p = mmap(NULL, sizeof *arena * RSHM_CONNS_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            return NULL;
        arena = p;
        arena_hint = 0;
    }
    for (uint32_t i = 0; i < RSHM_CONNS_MAX; i++) {
        struct rshm_conn *c = &arena[(arena_hint + i) % RSHM_CONNS_MAX];
        if (rshm_load_relaxed(&c->taken) == 0) { /* only this process takes; a relative may give back meanwhile: it is missed, no more */
            rshm_fence_full();
            memset(c, 0, sizeof *c);
            c->taken = 1;
            arena_hint = i == 0 ? arena_hint + 1 : 0;
            return c;
        }
    }
    return NULL;
}

int rshm_fds_end(void)
{
    return (int)rshm_load_relaxed(&fds_end); /* changed under the lock; others look for what they know of */
}

static void point(int fd, struct rshm_conn *c)
{
    if ((uint32_t)fd >= rshm_load_relaxed(&fds_end))
        rshm_store_relaxed(&fds_end, (uint32_t)fd + 1);
    rshm_store_release(&rshm_entries[fd].conn, c); /* W4: complete; pairs with R4 in rshm_conn_of() */
}

struct rshm_conn *rshm_conn_new(int fd, int endpoint, bool tcp, enum rshm_conn_state state)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
    if (rshm_entry(fd) == NULL || rshm_not_this_process())
        return NULL;
    int flags = rshm_real()->fcntl(fd, F_GETFL);
    if (flags < 0)
        return NULL;
    pthread_mutex_lock(&life);
    struct rshm_conn *c = take_slot();
    if (c != NULL) {
        c->processes = 1;
        c->state = state;
        c->endpoint = endpoint;
        c->tcp = tcp;
        c->listener = -1;
        c->nonblocking = (flags & O_NONBLOCK) != 0;
        c->waiting.mode = rshm_preload_settings.mode;
        c->waiting.limit = SPIN_US * rshm_ticks_per_us();
        point(fd, c);
    }
    pthread_mutex_unlock(&life);
    if (c != NULL)
        rshm_epoll_adopt(c, fd);
    return c;
}

/* ---- one thread at a time ---- */

static bool try_enter(struct rshm_conn *c)
{
    return rshm_exchange(&c->busy, 1u) == 0;
}

bool rshm_conn_enter(struct rshm_conn *c, int fd)
{
    if (!try_enter(c)) {
        atomic_fetch_add(&c->wanted, 1);
        for (int i = 0; !try_enter(c); i++) {
            if (i < TRIES_BEFORE_YIELD)
                rshm_cpu_relax();
            else
                sched_yield();
        }
        atomic_fetch_sub(&c->wanted, 1);
    }
    if (rshm_conn_of(fd) == c && !c->dropped) {
        c->ch.fd = fd; /* another process, or the descriptor of a dup(), may have been here before */
        return true;
    }
    bool forget = rshm_conn_of(fd) == c;
    rshm_conn_leave(c);
    if (forget) /* it was a relative who found that it is a plain socket */
        rshm_conn_closing(fd);
    return false;
}

void rshm_conn_leave(struct rshm_conn *c)
{
    rshm_store_release(&c->busy, 0u); /* pairs with the exchange in try_enter() */
}

bool rshm_conn_make_way(struct rshm_conn *c, int fd)
{
    if (rshm_load_relaxed(&c->wanted) == 0) /* seen late at worst: it is looked at again in a fraction of a microsecond */
        return true;
    rshm_conn_leave(c);
    sched_yield();
    return rshm_conn_enter(c, fd);
}

/* ---- the end ---- */

/* This process is done with c. With the life lock, and c entered. */
static void give_up(struct rshm_conn *c)
{
    if (c->listener >= 0)
        rshm_real()->close(c->listener);
    c->listener = -1;
    rshm_report_moved(c);
    uint32_t left = atomic_fetch_sub(&c->processes, 1) - 1;
    if (c->ch.map.base != NULL) {
        /* No word in the FIFO: the socket's end is the end, as somebody else may have a descriptor of it. */
        struct rshm_map map = c->ch.map; /* relatives have theirs at the same place and need to know it */
        rshm_segment_unmap(&map);
    }
    bool own = arena != NULL && c >= arena && c < arena + RSHM_CONNS_MAX;
    rshm_conn_leave(c);
    if (left == 0 && own)
        rshm_store_release(&c->taken, 0u); /* pairs with the fence in take_slot() */
}

static bool has_other(struct rshm_conn *c, int fd)
{
    for (int other = 0; c->dups && other < rshm_fds_end(); other++)
        if (other != fd && rshm_conn_of(other) == c)
            return true;
    return false;
}

/* Under the life lock, which is let go while waiting for c. */
static void forget(int fd)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c == NULL)
        return;
    while (!try_enter(c)) { /* a call of another thread is under way, or a spin: it sees that it is wanted */
        atomic_fetch_add(&c->wanted, 1);
        sched_yield();
        atomic_fetch_sub(&c->wanted, 1);
    }
    bool last = !has_other(c, fd);
    rshm_store_release(&rshm_entries[fd].conn, (struct rshm_conn *)NULL);
    if (last)
        give_up(c);
    else
        rshm_conn_leave(c);
}

void rshm_conn_closing(int fd)
{
    struct rshm_entry *e = rshm_entry(fd);
    if (e == NULL || (rshm_conn_of(fd) == NULL && e->poller == NULL && e->epfd == 0) || rshm_not_this_process())
        return;
    rshm_epoll_closing(fd);
    pthread_mutex_lock(&life);
    forget(fd);
    pthread_mutex_unlock(&life);
}

void rshm_conn_closing_range(unsigned first, unsigned last)
{
    unsigned end = (unsigned)rshm_fds_end();
    for (unsigned fd = first; fd < end && fd <= last; fd++)
        if (rshm_conn_of((int)fd) != NULL)
            rshm_conn_closing((int)fd);
}

void rshm_conn_drop(struct rshm_conn *c)
{
    c->dropped = true;
    int fd = c->ch.fd;
    bool dups = c->dups;
    rshm_conn_leave(c);
    for (int other = dups ? 0 : fd; other < (dups ? rshm_fds_end() : fd + 1); other++) {
        if (rshm_conn_of(other) != c)
            continue;
        rshm_epoll_release(other);
        pthread_mutex_lock(&life);
        if (rshm_conn_of(other) == c)
            forget(other);
        pthread_mutex_unlock(&life);
    }
}

void rshm_conn_duplicated(int oldfd, int newfd)
{
    struct rshm_conn *c = rshm_conn_of(oldfd);
    if (c == NULL || oldfd == newfd || rshm_entry(newfd) == NULL || rshm_not_this_process())
        return;
    pthread_mutex_lock(&life);
    c->dups = true;
    point(newfd, c);
    pthread_mutex_unlock(&life);
}

/* ---- bells for those who sleep elsewhere ---- */

void rshm_conn_drain(struct rshm_conn *c, int fd)
{
    if (c->ch.hangup)
        return;
    int r = rshm_channel_drain(&c->ch, MSG_DONTWAIT);
    if (r == -EPROTO)
        rshm_conn_break(c);
    if (r > 0) {
        c->due = false;
        rshm_conn_pass_on(c, fd);
    }
}

void rshm_conn_break(struct rshm_conn *c)
{
    c->state = RSHM_CONN_FAILED;
    c->failure = ECONNRESET;
    rshm_report_refused(c->endpoint, "the server broke the shared-memory protocol; the connection was ended");
    rshm_real()->shutdown(c->ch.fd, SHUT_RDWR);
}

bool rshm_conn_arm(struct rshm_conn *c, int want)
{
    struct rshm_channel *ch = &c->ch;
    if (!(want & RSHM_WANT_READ) || !c->due || rshm_load_relaxed(&ch->in_wait->reader_waits) != RSHM_RING_BACK) /* if it goes down just now, it rang */
        return rshm_channel_arm(ch, want);
    bool ready = (want & RSHM_WANT_WRITE) && rshm_channel_arm(ch, RSHM_WANT_WRITE);
    ch->armed |= RSHM_WANT_READ;
    rshm_fence_full(); /* R3 */
    return ready || rshm_channel_ready(ch, RSHM_WANT_READ);
}

static void request_bell(struct rshm_conn *c)
{
    if (!c->due)
        rshm_channel_request_bell(&c->ch);
    c->due = true;
}

void rshm_conn_pass_on(struct rshm_conn *c, int fd)
{
    int want = (rshm_load_relaxed(&c->readers_asleep) != 0 ? RSHM_WANT_READ : 0) | /* both change with c entered only */
               (rshm_load_relaxed(&c->writers_asleep) != 0 ? RSHM_WANT_WRITE : 0);
    if (rshm_watched_asleep(fd))
        want |= RSHM_WANT_READ;
    if (want != 0 && c->state == RSHM_CONN_OPEN && rshm_conn_arm(c, want))
        request_bell(c);
}

bool rshm_watched_asleep(int fd)
{
    return rshm_entries[fd].watches != NULL && rshm_epoll_asleep(fd);
}

void rshm_conn_return(struct rshm_conn *c, int fd, int want)
{
    if (c->state == RSHM_CONN_OPEN && !c->ch.hangup && (!c->trusted || rshm_watched_asleep(fd))) {
        if (!c->trusted)
            rshm_conn_drain(c, fd);
        if (rshm_conn_arm(c, want | RSHM_WANT_READ))
            request_bell(c);
    }
    rshm_conn_leave(c);
}

/* What is open at the end of the process still counts. */
static void count_one(struct rshm_conn *c)
{
    if (try_enter(c)) {
        rshm_report_moved(c);
        rshm_conn_leave(c);
    }
    one_process_less(c);
}

__attribute__((destructor)) static void at_exit(void)
{
    if (rshm_fds_end() > 0 && !rshm_not_this_process())
        for_each_conn(count_one);
}
