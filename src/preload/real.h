/* real.h - libc's own functions, behind the ones of the same names that the preload library exports.
 *
 * Found on first use (a program's constructors may run before ours) with dlsym(RTLD_NEXT). A function that this libc does not have is
 * NULL. Any thread. */
#ifndef RSHM_REAL_H
#define RSHM_REAL_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fifo/atomic.h"

#define RSHM_REAL_CALLS(X)                                                                              \
    X(int, connect, (int, const struct sockaddr *, socklen_t))                                          \
    X(ssize_t, read, (int, void *, size_t))                                                             \
    X(ssize_t, readv, (int, const struct iovec *, int))                                                 \
    X(ssize_t, recv, (int, void *, size_t, int))                                                        \
    X(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *))                    \
    X(ssize_t, recvmsg, (int, struct msghdr *, int))                                                    \
    X(int, recvmmsg, (int, struct mmsghdr *, unsigned, int, struct timespec *))                         \
    X(ssize_t, write, (int, const void *, size_t))                                                      \
    X(ssize_t, writev, (int, const struct iovec *, int))                                                \
    X(ssize_t, send, (int, const void *, size_t, int))                                                  \
    X(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))            \
    X(ssize_t, sendmsg, (int, const struct msghdr *, int))                                              \
    X(int, sendmmsg, (int, struct mmsghdr *, unsigned, int))                                            \
    X(ssize_t, sendfile, (int, int, off_t *, size_t))                                                   \
    X(ssize_t, splice, (int, loff_t *, int, loff_t *, size_t, unsigned))                                \
    X(int, poll, (struct pollfd *, nfds_t, int))                                                        \
    X(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))                 \
    X(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *))                               \
    X(int, pselect, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *))     \
    X(int, epoll_ctl, (int, int, int, struct epoll_event *))                                            \
    X(int, epoll_wait, (int, struct epoll_event *, int, int))                                           \
    X(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *))                        \
    X(int, epoll_pwait2, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *))   \
    X(int, close, (int))                                                                                \
    X(int, close_range, (unsigned, unsigned, int))                                                      \
    X(void, closefrom, (int))                                                                           \
    X(int, shutdown, (int, int))                                                                        \
    X(int, dup, (int))                                                                                  \
    X(int, dup2, (int, int))                                                                            \
    X(int, dup3, (int, int, int))                                                                       \
    X(int, fcntl, (int, int, ...))                                                                      \
    X(int, ioctl, (int, unsigned long, ...))                                                            \
    X(int, getsockopt, (int, int, int, void *, socklen_t *))

struct rshm_real {
#define X(result, name, args) result(*name) args;
    RSHM_REAL_CALLS(X)
#undef X
    rshm_u32 found;
};
extern struct rshm_real rshm_real_calls;
void rshm_real_find(void);

static inline const struct rshm_real *rshm_real(void)
{
    if (__builtin_expect(rshm_load_acquire(&rshm_real_calls.found) == 0, 0)) /* R5: pairs with W5 in rshm_real_find() */
        rshm_real_find();
    return &rshm_real_calls;
}

#endif
