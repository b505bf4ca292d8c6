/* session.h - what the files of redirect/ share: the fd table, sessions, pollers. */
#ifndef RSHM_SESSION_H
#define RSHM_SESSION_H

#include <pthread.h>

#include "redirect/redirect.h"

#define RSHM_FDS_MAX (1 << 20)       /* fds above are never ours */
#define RSHM_SESSIONS_MAX (1 << 16)
#define RSHM_POLLERS_MAX 256         /* epoll instances with a session: one a server, or one an IO thread (128 at most there) */

enum rshm_session_state {
    RSHM_PROVISIONAL, /* memory sent, no confirmation seen */
    RSHM_OPEN,
    RSHM_BROKEN       /* the peer broke a rule: every call fails until close */
};

struct rshm_poller;

struct rshm_session {
    rshm_u32 busy; /* whoever holds it may use the channel and the state; held for one call, never while waiting */
    enum rshm_session_state state;
    int fd;
    uint64_t client_id;
    struct rshm_channel ch;

    /* Registration with an epoll instance; under the poller's lock, NULL while in none. */
    struct rshm_poller *poller;
    uint32_t interest;
    epoll_data_t data;
    bool in_kernel;     /* the kernel's epoll has the fd too */
    struct rshm_session *prev, *next; /* in the poller's ring of hot sessions; NULL: parked */
    rshm_u32 is_hot;                  /* the same for SHM.STATS */
    uint64_t active_at; /* ticks of the last event handed out */
};

/* One per epoll instance that has (had) a session. */
struct rshm_poller {
    rshm_u32 taken; /* the table slot is in use */
    pthread_mutex_t lock;
    rshm_u32 wanted;   /* threads that want the lock while the poller spins with it */
    int epfd;
    int wakefd;        /* eventfd in epfd: work from another thread */
    rshm_u32 asleep;
    rshm_u32 kicked;
    pthread_t thread;  /* the last that waited */
    struct rshm_session *hot;
    uint32_t hot_count, session_count;
    uint64_t kernel_at; /* ticks when the kernel was last asked */
    struct rshm_waiting waiting;
    struct rshm_aside aside;
    uint32_t peer_tag;  /* of the last request that was found */
    bool woken;         /* the last requests came with a bell: their clients sleep until our replies ring */
    uint64_t sweep_at;
};

struct rshm_fd {
    _Atomic(struct rshm_session *) session;
    struct rshm_poller *poller; /* if the fd is an epoll instance */
    epoll_data_t data;          /* the caller's registration of an fd without a session */
    uint32_t interest;
    int epfd;                   /* plus one; 0: none seen */
};

struct rshm_shared_state {
    struct rshm_fd *fds; /* NULL before init and in fork children */
    struct rshm_session *arena;
    struct rshm_libc libc;
    void (*violation)(uint64_t client_id, const char *rule);
    rshm_u32 fd_end;     /* no fd from here on was ever registered */
    rshm_u64 sessions_now, sessions_ever, mapped_bytes, declined, violations, spin_hits, spin_misses;
    rshm_u32 mode;
    rshm_u64 spin_ticks;
};
extern struct rshm_shared_state rshm_state;

/* fdtable.c */
static inline struct rshm_fd *rshm_fd(int fd)
{
    return rshm_state.fds != NULL && (unsigned)fd < RSHM_FDS_MAX ? &rshm_state.fds[fd] : NULL;
}
static inline struct rshm_session *rshm_session_of(int fd)
{
    if (rshm_load_relaxed(&rshm_state.sessions_now) == 0) /* a count of our own; a session this thread knows of is in it */
        return NULL;
    struct rshm_fd *e = rshm_fd(fd);
    return e == NULL ? NULL : rshm_load_acquire(&e->session); /* R4: pairs with W4 in rshm_session_install() */
}
/* The kernel has fd's registration as the caller gave it. */
void rshm_fd_registered(int fd, int epfd, uint32_t interest, epoll_data_t data);
struct rshm_session *rshm_arena_take(void);
void rshm_arena_give(struct rshm_session *s);
static inline bool rshm_arena_has(const void *p)
{
    return (const char *)p >= (const char *)rshm_state.arena &&
           (const char *)p < (const char *)(rshm_state.arena + RSHM_SESSIONS_MAX);
}

/* session.c */
void rshm_session_lock(struct rshm_session *s);
bool rshm_session_trylock(struct rshm_session *s);
void rshm_session_unlock(struct rshm_session *s);
enum rshm_settled { RSHM_SETTLED_OPEN, RSHM_SETTLED_NOT_YET, RSHM_SETTLED_DECLINED };
/* With the lock held: what became of a session that was provisional. */
enum rshm_settled rshm_session_settle(struct rshm_session *s);
/* With the lock held: names the rule and makes every later call fail. */
void rshm_session_break(struct rshm_session *s, const char *rule);
/* With the lock held: takes bells off the socket; a broken rule breaks the session. */
void rshm_session_drain(struct rshm_session *s);
/* Frees the session; the fd is a plain socket again. Without its lock, with no poller. */
void rshm_session_drop(struct rshm_session *s);

/* poller.c */
/* The poller of an epoll instance, made if need be. NULL: errno. */
struct rshm_poller *rshm_poller_of(int epfd);
void rshm_poller_add(struct rshm_poller *p, struct rshm_session *s, uint32_t interest, epoll_data_t data);
/* Takes s out; plain: give the kernel the caller's own registration back. */
void rshm_poller_remove(struct rshm_session *s, bool plain);
/* Data is left in s after a read by a thread that is not the poller's. */
void rshm_poller_kick(struct rshm_poller *p);
/* Its epoll instance is gone, or not watched any more. The table slot stays taken: a thread may still be on its way out. */
void rshm_poller_retire(struct rshm_poller *p);

#endif
