/* redirect.h - socket calls on a file descriptor that has a session go to shared memory; all others go to libc.
 *
 * Used by both ends: the module points the server's relocation slots at these functions, the preload library exports them.
 * A session keeps the kernel's fd as its identity. Its bells, its end and everything about other fds stay the kernel's.
 *
 * Threads: any, as for the libc calls they stand for; the caller sees to it that one fd is read (written, closed) by one thread at
 * a time, as the server does. Fork children: see rshm_redirect_init(). Nothing here blocks but rshm_epoll_wait().
 */
#ifndef RSHM_REDIRECT_H
#define RSHM_REDIRECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "channel/channel.h"

struct rshm_session;

/* What the redirections stand in for. */
struct rshm_libc {
    ssize_t (*read)(int, void *, size_t);
    ssize_t (*recv)(int, void *, size_t, int);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*send)(int, const void *, size_t, int);
    int (*close)(int);
    int (*epoll_ctl)(int, int, int, struct epoll_event *);
    int (*epoll_wait)(int, struct epoll_event *, int, int);
    int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
};

struct rshm_redirect_totals {
    uint64_t sessions_now, sessions_ever, hot, parked, declined, violations;
    uint64_t bytes_in, bytes_out, messages_in, messages_out, bells_sent, bells_received;
    uint64_t spin_hits, spin_misses;
};

/* Sets up the tables once per process and (again) the functions to stand in for. violation is called when a session breaks
 * the protocol, just before its connection is made to fail. Returns 0 or -errno. fork children lose all sessions: in them every
 * call goes to libc. */
int rshm_redirect_init(const struct rshm_libc *libc, void (*violation)(uint64_t client_id, const char *rule));

/* After the last call was redirected (no session is left): forgets all fds, since what happens to them is not seen any more. */
void rshm_redirect_forget(void);

/* How a waiting server spends its time; any thread, takes effect at the next wait. */
void rshm_redirect_set_waiting(enum rshm_wait_mode mode, uint64_t spin_limit_us);

/* The rule for fds the table does not know: -ENOENT when fd's epoll registration was not seen (it is older than the
 * redirection), -EALREADY when it has a session, -ENFILE when no session is free, else 0. */
int rshm_session_check(int fd);

/* Makes a session for fd out of *map (taken over on success). It is provisional: the peer's first byte on the socket decides. A
 * bell: the session opens. Anything else: it is dropped and the connection goes on as the socket it was. Call
 * rshm_session_install() once the peer has been sent the memory, or rshm_session_discard(). NULL: errno says why. */
struct rshm_session *rshm_session_new(int fd, struct rshm_map *map, uint64_t client_id);
void rshm_session_install(struct rshm_session *s);
void rshm_session_discard(struct rshm_session *s);

/* Any thread. */
uint64_t rshm_sessions_now(void);
uint64_t rshm_sessions_memory(void); /* bytes of shared memory that sessions have mapped */
void rshm_redirect_totals(struct rshm_redirect_totals *t);

/* One session, as SHM.CLIENTS tells it. */
struct rshm_session_info {
    uint64_t client_id;
    int fd;
    const char *state; /* "provisional" (not confirmed yet), "hot", "parked", "broken" */
    uint64_t ring_bytes, request_backlog_bytes, reply_backlog_bytes; /* space taken in the rings, charfifo.h */
    uint64_t bytes_in, bytes_out, messages_in, messages_out, bells_sent, bells_received;
};

/* Copies the next sessions, at most max, from *cursor (0 at first) on, which moves on. Returns how many; 0: that was all. Waits for no more
 * than a call on each session that another thread is in. Any thread. */
uint32_t rshm_sessions_list(uint32_t *cursor, struct rshm_session_info *rows, uint32_t max);

/* The redirections. */
ssize_t rshm_read(int fd, void *buf, size_t n);
ssize_t rshm_recv(int fd, void *buf, size_t n, int flags);
ssize_t rshm_write(int fd, const void *buf, size_t n);
ssize_t rshm_writev(int fd, const struct iovec *iov, int iovcnt);
ssize_t rshm_send(int fd, const void *buf, size_t n, int flags);
int rshm_close(int fd);
int rshm_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev);
int rshm_epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout_ms);
int rshm_epoll_pwait(int epfd, struct epoll_event *events, int maxevents, int timeout_ms, const sigset_t *sigmask);

#endif
