/* descriptors.c - connect() and what happens to descriptors: options, copies, the end. See calls.c. */
#define RSHM_EXPORT __attribute__((visibility("default")))
#undef _FORTIFY_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "preload/epoll.h"
#include "preload/real.h"
#include "preload/report.h"
#include "preload/settings.h"
#include "preload/upgrade.h"

#define CONNECT_WAIT_MS 1000 /* what a blocking connect() waits for a server that is slow to answer SHM.OPEN; the next call waits on */

int __connect(int fd, const struct sockaddr *address, socklen_t n);
int __close(int fd);
int __dup2(int oldfd, int newfd);
int __fcntl(int fd, int command, ...);
int fcntl64(int fd, int command, ...);

static bool is_stream(int fd)
{
    int type = 0;
    socklen_t n = sizeof type;
    return rshm_real()->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM;
}

/* A second connect(), by which programs learn what became of the first. */
static int connect_again(struct rshm_conn *c, int fd, const struct sockaddr *address, socklen_t n)
{
    int r = rshm_real()->connect(fd, address, n), e = errno;
    if (!rshm_conn_enter(c, fd)) {
        errno = e;
        return r;
    }
    if ((r == 0 || e == EISCONN) && rshm_upgrade_step(c, fd) == RSHM_STEP_PLAIN) {
        errno = e;
        return r;
    }
    if (c->state == RSHM_CONN_FAILED) {
        r = -1;
        e = c->failure;
        c->failure_told = true;
    }
    rshm_conn_leave(c);
    errno = e;
    return r;
}

/* Connected: asks for shared memory. Returns 0, or -1 with errno if it was required and is not to be had. */
static int begin(struct rshm_conn *c, int fd)
{
    int failure = 0;
    if (rshm_conn_enter(c, fd)) {
        /* A Unix socket's connect() is done at once even if it may not block: to make it fail we have to wait for the answer. */
        bool blocking = !c->nonblocking || (rshm_preload_settings.require && !c->tcp);
        if (rshm_upgrade_start(c, fd) != RSHM_STEP_PLAIN)
            rshm_conn_leave(c);
        if (blocking)
            rshm_upgrade_settle(c, fd, CONNECT_WAIT_MS);
    }
    if (rshm_conn_of(fd) == c && rshm_conn_enter(c, fd)) {
        if (c->state == RSHM_CONN_FAILED) {
            failure = c->failure;
            c->failure_told = true;
        }
        rshm_conn_leave(c);
    }
    errno = failure;
    return failure != 0 ? -1 : 0;
}

RSHM_EXPORT int connect(int fd, const struct sockaddr *address, socklen_t n)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL)
        return connect_again(c, fd, address, n);
    int endpoint = rshm_named_find(address, n);
    if (endpoint < 0 || !is_stream(fd))
        return rshm_real()->connect(fd, address, n);
    int r = rshm_real()->connect(fd, address, n), e = errno;
    if (r != 0 && e != EINPROGRESS && e != EINTR)
        return r;
    c = rshm_conn_new(fd, endpoint, address->sa_family != AF_UNIX, RSHM_CONN_CONNECTING);
    if (c == NULL) {
        rshm_report_refused(endpoint, "no room for another connection");
        errno = e;
        return r;
    }
    if (r == 0 && begin(c, fd) != 0)
        return -1;
    errno = e;
    return r;
}

RSHM_EXPORT int __connect(int fd, const struct sockaddr *address, socklen_t n)
{
    return connect(fd, address, n);
}

RSHM_EXPORT int getsockopt(int fd, int level, int option, void *restrict value, socklen_t *restrict n)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    int r = rshm_real()->getsockopt(fd, level, option, value, n);
    if (c != NULL && r == 0 && level == SOL_SOCKET && option == SO_ERROR && *n == sizeof(int) && rshm_conn_enter(c, fd)) {
        if (c->state == RSHM_CONN_FAILED && !c->failure_told) {
            *(int *)value = c->failure;
            c->failure_told = true;
        }
        rshm_conn_leave(c);
    }
    return r;
}

RSHM_EXPORT int shutdown(int fd, int how)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL && rshm_conn_enter(c, fd)) {
        if (c->state == RSHM_CONN_OPEN) {
            c->read_shut |= how == SHUT_RD || how == SHUT_RDWR;
            c->write_shut |= how == SHUT_WR || how == SHUT_RDWR;
        }
        rshm_conn_leave(c);
    }
    return rshm_real()->shutdown(fd, how); /* the server reads what is in the FIFO first, then the end */
}

/* ---- O_NONBLOCK, FIONREAD ---- */

static void set_nonblocking(int fd, bool on)
{
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL && rshm_conn_enter(c, fd)) {
        c->nonblocking = on;
        rshm_conn_leave(c);
    }
}

static int fcntl_with(int fd, int command, void *argument)
{
    int r = rshm_real()->fcntl(fd, command, argument);
    if (r < 0)
        return r;
    if (command == F_SETFL)
        set_nonblocking(fd, ((intptr_t)argument & O_NONBLOCK) != 0);
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && rshm_conn_of(fd) != NULL)
        rshm_conn_duplicated(fd, r);
    return r;
}

/* The third argument is an int, a pointer, or nothing: passed on as what is widest. */
#define PASS_ON_FCNTL                            \
    va_list ap;                                  \
    va_start(ap, command);                       \
    void *argument = va_arg(ap, void *);         \
    va_end(ap);                                  \
    return fcntl_with(fd, command, argument)

RSHM_EXPORT int fcntl(int fd, int command, ...)
{
    PASS_ON_FCNTL;
}

RSHM_EXPORT int fcntl64(int fd, int command, ...)
{
    PASS_ON_FCNTL;
}

RSHM_EXPORT int __fcntl(int fd, int command, ...)
{
    PASS_ON_FCNTL;
}

RSHM_EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *argument = va_arg(ap, void *);
    va_end(ap);
    struct rshm_conn *c = rshm_conn_of(fd);
    if (c != NULL && request == FIONREAD && argument != NULL && rshm_conn_enter(c, fd)) {
        bool open = c->state == RSHM_CONN_OPEN;
        ssize_t there = open ? charfifo_used_bytes(&c->ch.in) : 0;
        rshm_conn_return(c, fd, 0);
        if (open) {
            *(int *)argument = there < 0 ? 0 : there > INT_MAX ? INT_MAX : (int)there;
            return 0;
        }
    }
    int r = rshm_real()->ioctl(fd, request, argument);
    if (r == 0 && request == FIONBIO && argument != NULL)
        set_nonblocking(fd, *(const int *)argument != 0);
    return r;
}

/* ---- copies, and the end ---- */

RSHM_EXPORT int dup(int oldfd)
{
    int fd = rshm_real()->dup(oldfd);
    if (fd >= 0 && rshm_conn_of(oldfd) != NULL)
        rshm_conn_duplicated(oldfd, fd);
    return fd;
}

RSHM_EXPORT int dup2(int oldfd, int newfd)
{
    if (oldfd != newfd && rshm_real()->fcntl(oldfd, F_GETFD) >= 0)
        rshm_conn_closing(newfd);
    int fd = rshm_real()->dup2(oldfd, newfd);
    if (fd >= 0 && rshm_conn_of(oldfd) != NULL)
        rshm_conn_duplicated(oldfd, fd);
    return fd;
}

RSHM_EXPORT int __dup2(int oldfd, int newfd)
{
    return dup2(oldfd, newfd);
}

RSHM_EXPORT int dup3(int oldfd, int newfd, int flags)
{
    if (oldfd != newfd && (flags & ~O_CLOEXEC) == 0 && rshm_real()->fcntl(oldfd, F_GETFD) >= 0)
        rshm_conn_closing(newfd);
    int fd = rshm_real()->dup3(oldfd, newfd, flags);
    if (fd >= 0 && rshm_conn_of(oldfd) != NULL)
        rshm_conn_duplicated(oldfd, fd);
    return fd;
}

RSHM_EXPORT int close(int fd)
{
    rshm_conn_closing(fd);
    return rshm_real()->close(fd);
}

RSHM_EXPORT int __close(int fd)
{
    return close(fd);
}

RSHM_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    if (rshm_real()->close_range == NULL) {
        errno = ENOSYS;
        return -1;
    }
    if ((flags & ~2) == 0 && first <= last) /* 2: CLOSE_RANGE_UNSHARE; with CLOEXEC nothing is closed */
        rshm_conn_closing_range(first, last);
    return rshm_real()->close_range(first, last, flags);
}

void closefrom(int first);
RSHM_EXPORT void closefrom(int first)
{
    rshm_conn_closing_range(first < 0 ? 0 : (unsigned)first, UINT_MAX);
    if (rshm_real()->closefrom != NULL)
        rshm_real()->closefrom(first);
}
