/* rendezvous.c - receives the memory; see rendezvous.h. */
#include "channel/rendezvous.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "channel/libc.h"

#define NAME_BYTES 16   /* random part of the rendezvous' name */
#define VISITORS_MAX 64 /* others than the server that may have knocked first */

void rshm_to_hex(const uint8_t *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

int rshm_random(uint8_t *bytes, size_t n)
{
    return getrandom(bytes, n, 0) == (ssize_t)n ? 0 : -EIO;
}

int rshm_rendezvous_listen(char name[RSHM_RENDEZVOUS_MAX + 1])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t random[NAME_BYTES];

    if (rshm_random(random, sizeof random) < 0)
        return -EIO;
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0)
        return -errno;
    strcpy(name, RSHM_RENDEZVOUS_PREFIX);
    rshm_to_hex(random, sizeof random, name + strlen(name));
    size_t length = strlen(name);
    memcpy(address.sun_path + 1, name, length); /* abstract: a zero byte first */
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    if (bind(s, (struct sockaddr *)&address, n) != 0 || listen(s, VISITORS_MAX) != 0) {
        int e = errno;
        close(s);
        return -e;
    }
    return s;
}

ssize_t rshm_receive_fd(int socket, void *buf, size_t cap, int flags, int *fd)
{
    struct iovec iov = {buf, cap};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = RSHM_LIBC(recvmsg)(socket, &m, flags | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return n;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
            int one;
            memcpy(&one, CMSG_DATA(c) + i * sizeof one, sizeof one);
            if (*fd < 0)
                *fd = one;
            else
                close(one);
        }
    }
    return n;
}

static bool same_token(const uint8_t *a, const uint8_t *b)
{
    uint8_t differ = 0; /* no early end: the time tells a guesser nothing */
    for (int i = 0; i < RSHM_TOKEN_BYTES; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

int rshm_rendezvous_accept(int listener, const uint8_t token[RSHM_TOKEN_BYTES])
{
    for (int i = 0; i < VISITORS_MAX; i++) {
        uint8_t theirs[RSHM_TOKEN_BYTES];
        int fd = -1, visitor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (visitor < 0)
            return -1;
        ssize_t n = rshm_receive_fd(visitor, theirs, sizeof theirs, 0, &fd);
        close(visitor);
        if (n == (ssize_t)sizeof theirs && same_token(theirs, token) && fd >= 0)
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return -1;
}
