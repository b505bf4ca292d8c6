/* epoll.h - epoll instances in which connections are registered, beside any other descriptor.
 *
 * In the kernel's epoll such a descriptor is registered for bells, with the address of a watch of ours as its data: an address inside our
 * own array cannot be anybody else's data. What the program asked for, level-triggered, edge-triggered or once, is computed from the
 * FIFOs. EPOLLOUT goes to the kernel only to wake up a thread that sleeps there: a socket always has room.
 *
 * Locks       A poller's, then a connection (rshm_conn_enter()), then the one of the lists of watches. */
#ifndef RSHM_PRELOAD_EPOLL_H
#define RSHM_PRELOAD_EPOLL_H

#include "preload/conn.h"

/* fd became c's; it may have been registered before, as a plain socket. */
void rshm_epoll_adopt(struct rshm_conn *c, int fd);
/* With c entered: its state has changed. */
void rshm_epoll_changed(struct rshm_conn *c);
/* fd is a plain socket again: the kernel gets the program's own registrations back. No connection entered. */
void rshm_epoll_release(int fd);
/* fd will be closed: as a connection, or an epoll instance. */
void rshm_epoll_closing(int fd);
/* Somebody sleeps in an epoll instance in which fd is registered, or may. */
bool rshm_epoll_asleep(int fd);
/* For a poll() on an epoll instance, or one inside another: bells will come from now on for whatever is in it. True: something is
 * ready now. */
bool rshm_epoll_nested(int epfd);

void rshm_epoll_before_fork(void);
void rshm_epoll_after_fork(bool child);

/* The calls. timeout_ns: negative for none. */
int rshm_preload_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev);
int rshm_preload_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns, const sigset_t *mask);

#endif
