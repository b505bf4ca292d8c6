/* calls.c - the functions of libc's that the library exports: on a connection's descriptor they do what conn.h says, on every other they are
 * libc's after one look-up. descriptors.c has connect(), close(), dup() and their like. */
#define RSHM_EXPORT __attribute__((visibility("default")))
#undef _FORTIFY_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>

#include "channel/clock.h"
#include "preload/epoll.h"
#include "preload/real.h"
#include "preload/report.h"
#include "preload/transfer.h"
#include "preload/wait.h"

/* What fortified programs call instead (bits/poll2.h, bits/socket2.h, bits/unistd.h): the size of the buffer comes along. */
ssize_t __read_chk(int fd, void *p, size_t n, size_t room);
ssize_t __recv_chk(int fd, void *p, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t room, int flags, struct sockaddr *from, socklen_t *from_bytes);
int __poll_chk(struct pollfd *fds, nfds_t count, int timeout_ms, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room);
void __chk_fail(void) __attribute__((noreturn));
/* Names that libc exports beside the usual ones; old programs are linked to them. */
ssize_t __read(int fd, void *p, size_t n);
ssize_t __write(int fd, const void *p, size_t n);
ssize_t __send(int fd, const void *p, size_t n, int flags);
int __poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __select(int count, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout);

/* ---- reading ---- */

RSHM_EXPORT ssize_t read(int fd, void *p, size_t n)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL) {
        const struct iovec one = {p, n};
        ssize_t r = rshm_transfer_in(c, fd, &one, 1, 0);
        if (r != RSHM_NOT_OURS)
            return r;
    }
    return rshm_real()->read(fd, p, n);
}

RSHM_EXPORT ssize_t __read(int fd, void *p, size_t n)
{
    return read(fd, p, n);
}

RSHM_EXPORT ssize_t __read_chk(int fd, void *p, size_t n, size_t room)
{
    if (n > room)
        __chk_fail();
    return read(fd, p, n);
}

RSHM_EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL && count >= 0 && count <= IOV_MAX) {
        ssize_t r = rshm_transfer_in(c, fd, iov, count, 0);
        if (r != RSHM_NOT_OURS)
            return r;
    }
    return rshm_real()->readv(fd, iov, count);
}

RSHM_EXPORT ssize_t recvfrom(int fd, void *p, size_t n, int flags, struct sockaddr *from, socklen_t *from_bytes)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL) {
        const struct iovec one = {p, n};
        ssize_t r = rshm_transfer_in(c, fd, &one, 1, flags);
        if (r != RSHM_NOT_OURS) {
            if (from != NULL && from_bytes != NULL)
                *from_bytes = 0; /* a stream has no senders */
            return r;
        }
    }
    return rshm_real()->recvfrom(fd, p, n, flags, from, from_bytes);
}

RSHM_EXPORT ssize_t recv(int fd, void *p, size_t n, int flags)
{
    return rshm_conn_of(fd) != NULL ? recvfrom(fd, p, n, flags, NULL, NULL) : rshm_real()->recv(fd, p, n, flags);
}

RSHM_EXPORT ssize_t __recv_chk(int fd, void *p, size_t n, size_t room, int flags)
{
    if (n > room)
        __chk_fail();
    return recv(fd, p, n, flags);
}

RSHM_EXPORT ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t room, int flags, struct sockaddr *from, socklen_t *from_bytes)
{
    if (n > room)
        __chk_fail();
    return recvfrom(fd, p, n, flags, from, from_bytes);
}

RSHM_EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL && m != NULL && m->msg_iovlen <= IOV_MAX) {
        ssize_t r = rshm_transfer_in(c, fd, m->msg_iov, (int)m->msg_iovlen, flags);
        if (r != RSHM_NOT_OURS) {
            if (r >= 0) {
                m->msg_namelen = 0;
                m->msg_controllen = 0;
                m->msg_flags = 0;
            }
            return r;
        }
    }
    return rshm_real()->recvmsg(fd, m, flags);
}

RSHM_EXPORT int recvmmsg(int fd, struct mmsghdr *all, unsigned count, int flags, struct timespec *timeout)
{
    if (rshm_conn_of(fd) == NULL || count == 0)
        return rshm_real()->recvmmsg(fd, all, count, flags, timeout);
    int one_flags = flags & ~MSG_WAITFORONE; /* on a stream the first message has what there is: one is enough */
    ssize_t r = recvmsg(fd, &all[0].msg_hdr, one_flags);
    if (r < 0)
        return -1;
    all[0].msg_len = (unsigned)r;
    return 1;
}

/* ---- writing ---- */

RSHM_EXPORT ssize_t write(int fd, const void *p, size_t n)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL) {
        const struct iovec one = {(void *)(uintptr_t)p, n};
        ssize_t r = rshm_transfer_out(c, fd, &one, 1, 0);
        if (r != RSHM_NOT_OURS)
            return r;
    }
    return rshm_real()->write(fd, p, n);
}

RSHM_EXPORT ssize_t __write(int fd, const void *p, size_t n)
{
    return write(fd, p, n);
}

RSHM_EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL && count >= 0 && count <= IOV_MAX) {
        ssize_t r = rshm_transfer_out(c, fd, iov, count, 0);
        if (r != RSHM_NOT_OURS)
            return r;
    }
    return rshm_real()->writev(fd, iov, count);
}

RSHM_EXPORT ssize_t send(int fd, const void *p, size_t n, int flags)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL) {
        const struct iovec one = {(void *)(uintptr_t)p, n};
        ssize_t r = rshm_transfer_out(c, fd, &one, 1, flags);
        if (r != RSHM_NOT_OURS)
            return r;
    }
    return rshm_real()->send(fd, p, n, flags);
}

RSHM_EXPORT ssize_t __send(int fd, const void *p, size_t n, int flags)
{
    return send(fd, p, n, flags);
}

RSHM_EXPORT ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t to_bytes)
{
    return rshm_conn_of(fd) != NULL && to == NULL ? send(fd, p, n, flags) : rshm_real()->sendto(fd, p, n, flags, to, to_bytes);
}

/* Descriptors that travel in m: whoever gets one of ours gets a socket on which there are only bells. */
static void notice_passed_on(const struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR((struct msghdr *)(uintptr_t)m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= h->cmsg_len; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (rshm_conn_of(fd) != NULL)
                rshm_report_passed_on();
        }
    }
}

RSHM_EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL && m != NULL && m->msg_iovlen <= IOV_MAX) {
        if (m->msg_controllen > 0) { /* descriptors, credentials: nothing that a Redis server wants */
            errno = EINVAL;
            return -1;
        }
        ssize_t r = rshm_transfer_out(c, fd, m->msg_iov, (int)m->msg_iovlen, flags);
        if (r != RSHM_NOT_OURS)
            return r;
    }
    if (m != NULL && m->msg_controllen > 0)
        notice_passed_on(m);
    return rshm_real()->sendmsg(fd, m, flags);
}

RSHM_EXPORT int sendmmsg(int fd, struct mmsghdr *all, unsigned count, int flags)
{
    if (rshm_conn_of(fd) == NULL)
        return rshm_real()->sendmmsg(fd, all, count, flags);
    int sent = 0;
    for (; sent < (int)count; sent++) {
        ssize_t n = sendmsg(fd, &all[sent].msg_hdr, flags);
        if (n < 0)
            return sent > 0 ? sent : -1;
        all[sent].msg_len = (unsigned)n;
    }
    return sent;
}

/* What only the kernel can do. EINVAL is what it says itself where it cannot; programs then read and write. */
RSHM_EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
    if (rshm_conn_of(out) != NULL || rshm_conn_of(in) != NULL) {
        errno = EINVAL;
        return -1;
    }
    return rshm_real()->sendfile(out, in, offset, n);
}

RSHM_EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t n)
{
    return sendfile(out, in, (off_t *)offset, n); /* the same type where off_t has 64 bits, as everywhere that is supported */
}

RSHM_EXPORT ssize_t splice(int in, loff_t *in_offset, int out, loff_t *out_offset, size_t n, unsigned flags)
{
    if (rshm_conn_of(out) != NULL || rshm_conn_of(in) != NULL) {
        errno = EINVAL;
        return -1;
    }
    return rshm_real()->splice(in, in_offset, out, out_offset, n, flags);
}

/* ---- waiting ---- */

static int64_t timespec_ns(const struct timespec *t)
{
    return t == NULL ? -1 : t->tv_sec >= INT64_MAX / 2000000000 ? INT64_MAX / 2 : (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static bool valid_timespec(const struct timespec *t)
{
    return t == NULL || (t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < 1000000000);
}

RSHM_EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    if (!rshm_poll_has_ours(fds, count))
        return rshm_real()->poll(fds, count, timeout_ms);
    return rshm_preload_poll(fds, count, timeout_ms < 0 ? -1 : (int64_t)timeout_ms * 1000000, NULL, NULL);
}

RSHM_EXPORT int __poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    return poll(fds, count, timeout_ms);
}

RSHM_EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout_ms, size_t room)
{
    if (room / sizeof *fds < count)
        __chk_fail();
    return poll(fds, count, timeout_ms);
}

RSHM_EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    if (!rshm_poll_has_ours(fds, count) || !valid_timespec(timeout))
        return rshm_real()->ppoll(fds, count, timeout, mask);
    return rshm_preload_poll(fds, count, timespec_ns(timeout), mask, NULL);
}

RSHM_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
    if (room / sizeof *fds < count)
        __chk_fail();
    return ppoll(fds, count, timeout, mask);
}

RSHM_EXPORT int select(int count, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
    if (!rshm_select_has_ours(count, in, out, except) || (timeout != NULL && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
        return rshm_real()->select(count, in, out, except, timeout);
    int64_t left_ns, ns = -1;
    if (timeout != NULL) {
        const struct timespec t = {timeout->tv_sec + timeout->tv_usec / 1000000, timeout->tv_usec % 1000000 * 1000};
        ns = timespec_ns(&t);
    }
    int r = rshm_preload_select(count, in, out, except, ns, NULL, &left_ns);
    if (timeout != NULL) { /* as Linux does */
        timeout->tv_sec = (time_t)(left_ns / 1000000000);
        timeout->tv_usec = (suseconds_t)(left_ns % 1000000000 / 1000);
    }
    return r;
}

RSHM_EXPORT int __select(int count, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
    return select(count, in, out, except, timeout);
}

RSHM_EXPORT int pselect(int count, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout, const sigset_t *mask)
{
    if (!rshm_select_has_ours(count, in, out, except) || !valid_timespec(timeout))
        return rshm_real()->pselect(count, in, out, except, timeout, mask);
    return rshm_preload_select(count, in, out, except, timespec_ns(timeout), mask, NULL);
}

static bool has_connections(int epfd)
{
    const struct rshm_entry *e = rshm_entry(epfd);
    return e != NULL && e->poller != NULL;
}

RSHM_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    return rshm_preload_epoll_ctl(epfd, op, fd, ev);
}

RSHM_EXPORT int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms)
{
    if (!has_connections(epfd) || max <= 0)
        return rshm_real()->epoll_wait(epfd, events, max, timeout_ms);
    return rshm_preload_epoll_wait(epfd, events, max, timeout_ms < 0 ? -1 : (int64_t)timeout_ms * 1000000, NULL);
}

RSHM_EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout_ms, const sigset_t *mask)
{
    if (!has_connections(epfd) || max <= 0)
        return rshm_real()->epoll_pwait(epfd, events, max, timeout_ms, mask);
    return rshm_preload_epoll_wait(epfd, events, max, timeout_ms < 0 ? -1 : (int64_t)timeout_ms * 1000000, mask);
}

RSHM_EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *timeout, const sigset_t *mask)
{
    if (has_connections(epfd) && max > 0 && valid_timespec(timeout))
        return rshm_preload_epoll_wait(epfd, events, max, timespec_ns(timeout), mask);
    if (rshm_real()->epoll_pwait2 == NULL) {
        errno = ENOSYS;
        return -1;
    }
    return rshm_real()->epoll_pwait2(epfd, events, max, timeout, mask);
}
