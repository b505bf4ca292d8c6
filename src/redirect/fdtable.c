/* fdtable.c - which fd has a session, and where sessions live. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "channel/clock.h"
#include "redirect/session.h"

#define BACKLOG_RECORDS_MAX 256 /* of each session that is listed: 10 us of looking at lines of another CPU */

struct rshm_shared_state rshm_state;

static pthread_mutex_t arena_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t arena_used; /* sessions [0, arena_used) were handed out at least once */
static struct rshm_session *arena_free;

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* The memory of the rings is not even mapped in a fork child: nothing of ours may run there. */
static void in_fork_child(void)
{
    rshm_state.fds = NULL;
    rshm_store_relaxed(&rshm_state.sessions_now, (uint64_t)0); /* single-threaded here */
}

int rshm_redirect_init(const struct rshm_libc *libc, void (*violation)(uint64_t client_id, const char *rule))
{
    static bool once;
    rshm_state.libc = *libc;
    rshm_state.violation = violation;
    rshm_ticks_per_us(); /* calibrates now, not in the first request */
    if (once)
        return 0;
    /* Reserved address space; pages come with use: 32 bytes an fd, half a kilobyte a session. */
    struct rshm_fd *fds = reserve(sizeof *fds * RSHM_FDS_MAX);
    struct rshm_session *arena = reserve(sizeof *arena * RSHM_SESSIONS_MAX);
    if (fds == NULL || arena == NULL || pthread_atfork(NULL, NULL, in_fork_child) != 0) {
        int e = errno;
        if (fds != NULL)
            munmap(fds, sizeof *fds * RSHM_FDS_MAX);
        if (arena != NULL)
            munmap(arena, sizeof *arena * RSHM_SESSIONS_MAX);
        return e != 0 ? -e : -ENOMEM;
    }
    rshm_state.arena = arena;
    rshm_state.fds = fds;
    once = true;
    return 0;
}

void rshm_redirect_forget(void)
{
    for (uint32_t fd = 0; fd < rshm_load_relaxed(&rshm_state.fd_end); fd++) {
        struct rshm_fd *e = &rshm_state.fds[fd];
        if (e->poller != NULL)
            rshm_poller_retire(e->poller);
        e->poller = NULL;
        e->epfd = 0;
    }
}

void rshm_fd_registered(int fd, int epfd, uint32_t interest, epoll_data_t data)
{
    struct rshm_fd *e = rshm_fd(fd);
    if (e == NULL)
        return;
    e->epfd = epfd + 1;
    e->interest = interest;
    e->data = data;
    uint32_t end = (uint32_t)(fd > epfd ? fd : epfd) + 1;
    if (end > rshm_load_relaxed(&rshm_state.fd_end)) /* a high-water mark: a lost race leaves it a little low for a moment */
        rshm_store_relaxed(&rshm_state.fd_end, end);
}

struct rshm_session *rshm_arena_take(void)
{
    pthread_mutex_lock(&arena_lock);
    struct rshm_session *s = arena_free;
    if (s != NULL)
        arena_free = s->next;
    else if (arena_used < RSHM_SESSIONS_MAX)
        s = &rshm_state.arena[arena_used++];
    pthread_mutex_unlock(&arena_lock);
    if (s != NULL)
        memset(s, 0, sizeof *s);
    return s;
}

static struct rshm_redirect_totals ended; /* what closed sessions moved; under arena_lock */

static void add_stats(struct rshm_redirect_totals *t, const struct rshm_channel_stats *st)
{
    t->bytes_in += rshm_load_relaxed(&st->bytes_in); /* counters: each is right by itself, together they are a snapshot */
    t->bytes_out += rshm_load_relaxed(&st->bytes_out);
    t->messages_in += rshm_load_relaxed(&st->messages_in);
    t->messages_out += rshm_load_relaxed(&st->messages_out);
    t->bells_sent += rshm_load_relaxed(&st->bells_sent);
    t->bells_received += rshm_load_relaxed(&st->bells_received);
}

void rshm_arena_give(struct rshm_session *s)
{
    pthread_mutex_lock(&arena_lock);
    add_stats(&ended, &s->ch.stats);
    s->client_id = 0;
    s->next = arena_free;
    arena_free = s;
    pthread_mutex_unlock(&arena_lock);
}

void rshm_redirect_totals(struct rshm_redirect_totals *t)
{
    pthread_mutex_lock(&arena_lock);
    *t = ended;
    for (uint32_t i = 0; i < arena_used; i++) {
        const struct rshm_session *s = &rshm_state.arena[i];
        if (s->client_id == 0)
            continue;
        add_stats(t, &s->ch.stats);
        t->hot += rshm_load_relaxed(&s->is_hot);
    }
    pthread_mutex_unlock(&arena_lock);
    t->sessions_now = rshm_load_relaxed(&rshm_state.sessions_now);
    t->sessions_ever = rshm_load_relaxed(&rshm_state.sessions_ever);
    t->parked = t->sessions_now > t->hot ? t->sessions_now - t->hot : 0;
    t->declined = rshm_load_relaxed(&rshm_state.declined);
    t->violations = rshm_load_relaxed(&rshm_state.violations);
    t->spin_hits = rshm_load_relaxed(&rshm_state.spin_hits);
    t->spin_misses = rshm_load_relaxed(&rshm_state.spin_misses);
}

/* Under arena_lock, which keeps s from being given back and taken again. */
static void describe(struct rshm_session *s, struct rshm_session_info *row)
{
    const struct rshm_channel_stats *st = &s->ch.stats;
    rshm_session_lock(s); /* the handles of the rings; and rshm_session_discard() unmaps under it */
    *row = (struct rshm_session_info){
        .client_id = s->client_id,
        .fd = s->fd,
        .state = s->state == RSHM_PROVISIONAL        ? "provisional"
                 : s->state == RSHM_BROKEN           ? "broken"
                 : rshm_load_relaxed(&s->is_hot) != 0 ? "hot"
                                                     : "parked",
        .ring_bytes = s->ch.map.ring_bytes,
        .request_backlog_bytes = s->state == RSHM_OPEN ? charfifo_reader_backlog(&s->ch.in, BACKLOG_RECORDS_MAX) : 0,
        .reply_backlog_bytes = s->state == RSHM_OPEN ? charfifo_writer_backlog(&s->ch.out) : 0,
        .bytes_in = rshm_load_relaxed(&st->bytes_in), /* counters, as in add_stats() */
        .bytes_out = rshm_load_relaxed(&st->bytes_out),
        .messages_in = rshm_load_relaxed(&st->messages_in),
        .messages_out = rshm_load_relaxed(&st->messages_out),
        .bells_sent = rshm_load_relaxed(&st->bells_sent),
        .bells_received = rshm_load_relaxed(&st->bells_received),
    };
    rshm_session_unlock(s);
}

uint32_t rshm_sessions_list(uint32_t *cursor, struct rshm_session_info *rows, uint32_t max)
{
    uint32_t n = 0;
    pthread_mutex_lock(&arena_lock);
    for (; *cursor < arena_used && n < max; ++*cursor)
        if (rshm_state.arena[*cursor].client_id != 0)
            describe(&rshm_state.arena[*cursor], &rows[n++]);
    pthread_mutex_unlock(&arena_lock);
    return n;
}

uint64_t rshm_sessions_now(void)
{
    return rshm_load_relaxed(&rshm_state.sessions_now); /* a figure for people */
}

uint64_t rshm_sessions_memory(void)
{
    return rshm_load_relaxed(&rshm_state.mapped_bytes);
}
