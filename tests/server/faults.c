/* faults.c - LD_PRELOAD for the tests: makes chosen system calls fail in the server (or a client) while the file named by
 * RSHM_FAULTS says so.
 *
 * The file holds lines "CALL ERRNO", the number of the error: memfd_create 24. CALL is one of those below; mmap means a shared mapping of a
 * file, sendmsg one with a descriptor, recvmsg loses the descriptor instead of failing. Without the file nothing fails.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Returns true, with errno set, if call is to fail now. No allocation: it may run inside the allocator. */
static int fails(const char *call)
{
    const char *path = getenv("RSHM_FAULTS");
    char text[256];
    int before = errno;
    if (path == NULL)
        return 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    long n = fd < 0 ? 0 : syscall(SYS_read, fd, text, sizeof text - 1);
    if (fd >= 0)
        syscall(SYS_close, fd);
    errno = before;
    if (n <= 0)
        return 0;
    text[n] = 0;
    for (char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        size_t len = strlen(call);
        if (strncmp(line, call, len) == 0 && line[len] == ' ') {
            errno = atoi(line + len);
            return 1;
        }
    }
    return 0;
}

int memfd_create(const char *name, unsigned flags)
{
    return fails("memfd_create") ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

int ftruncate(int fd, off_t length)
{
    return fails("ftruncate") ? -1 : (int)syscall(SYS_ftruncate, fd, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    return fails("fallocate") ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fchmod(int fd, mode_t mode)
{
    return fails("fchmod") ? -1 : (int)syscall(SYS_fchmod, fd, mode);
}

int madvise(void *p, size_t n, int advice)
{
    return advice == MADV_DONTFORK && fails("madvise") ? -1 : (int)syscall(SYS_madvise, p, n, advice);
}

int fcntl(int fd, int command, ...)
{
    va_list ap;
    va_start(ap, command);
    void *argument = va_arg(ap, void *);
    va_end(ap);
    return command == F_ADD_SEALS && fails("fcntl") ? -1 : (int)syscall(SYS_fcntl, fd, command, argument);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    if (fd >= 0 && (flags & MAP_SHARED) && fails("mmap"))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

int socket(int domain, int type, int protocol)
{
    return fails("socket") ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}

int connect(int fd, const struct sockaddr *address, socklen_t n)
{
    return fails("connect") ? -1 : (int)syscall(SYS_connect, fd, address, n);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    return fails("send") ? -1 : syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    return m->msg_controllen > 0 && fails("sendmsg") ? -1 : syscall(SYS_sendmsg, fd, m, flags);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    int before = errno;
    ssize_t r = syscall(SYS_recvmsg, fd, m, flags);
    int e = errno;
    if (r >= 0 && m->msg_controllen > 0 && fails("recvmsg")) {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
            int lost;
            if (c->cmsg_type != SCM_RIGHTS)
                continue;
            memcpy(&lost, CMSG_DATA(c), sizeof lost);
            close(lost);
        }
        m->msg_controllen = 0;
        m->msg_flags |= MSG_CTRUNC;
    }
    errno = r < 0 ? e : before;
    return r;
}
