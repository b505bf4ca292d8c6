/* peer.c - see peer.h. */
#include "villain/peer.h"

#include <errno.h>
#include <sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MS 5000

void peer_connect(struct peer *p, const struct server *s, bool unix_socket)
{
    memset(p, 0, sizeof *p);
    p->server = s;
    p->memory = -1;
    p->fd = socket(unix_socket ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(p->fd >= 0);
    if (unix_socket) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        strcpy(a.sun_path, s->path);
        assert_int_equal(connect(p->fd, (struct sockaddr *)&a, sizeof a), 0);
    } else {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        const int on = 1;
        assert_int_equal(connect(p->fd, (struct sockaddr *)&a, sizeof a), 0);
        setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
}

bool peer_say(struct peer *p, const void *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t w = send(p->fd, (const char *)bytes + done, n - done, MSG_NOSIGNAL);
        if (w < 0)
            return false;
        done += (size_t)w;
    }
    return true;
}

/* recvmsg() of one byte; the first fd that comes along is kept. */
static ssize_t receive(int fd, void *bytes, size_t n, int *memory)
{
    struct iovec iov = {bytes, n};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct pollfd wait = {fd, POLLIN, 0};
    if (poll(&wait, 1, PATIENCE_MS) != 1)
        return -1;
    ssize_t r = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = r > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c != NULL && c->cmsg_type == SCM_RIGHTS)
        memcpy(memory, CMSG_DATA(c), sizeof *memory);
    return r;
}

bool peer_line(struct peer *p)
{
    size_t n = 0;
    while (n < sizeof p->reply - 1 && receive(p->fd, p->reply + n, 1, &p->memory) == 1) {
        if (p->reply[n++] == '\n' && n >= 2) {
            p->reply[n - 2] = 0;
            return true;
        }
    }
    p->reply[n] = 0;
    return false;
}

static void to_hex(const uint8_t *bytes, size_t n, char *text)
{
    for (size_t i = 0; i < n; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
}

bool peer_open(struct peer *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char hex[RSHM_TOKEN_HEX + 1], request[160];
    socklen_t n = sizeof a;
    int listener = -1;

    assert_int_equal(getrandom(p->token, sizeof p->token, 0), sizeof p->token);
    to_hex(p->token, sizeof p->token, hex);
    assert_int_equal(getsockname(p->fd, (struct sockaddr *)&a, &n), 0);
    if (a.sun_family != AF_UNIX) {
        uint8_t random[8];
        memset(&a, 0, sizeof a);
        a.sun_family = AF_UNIX;
        assert_int_equal(getrandom(random, sizeof random, 0), sizeof random);
        strcpy(a.sun_path + 1, RSHM_RENDEZVOUS_PREFIX);
        to_hex(random, sizeof random, a.sun_path + 1 + strlen(RSHM_RENDEZVOUS_PREFIX));
        n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a.sun_path + 1));
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&a, n), 0);
        assert_int_equal(listen(listener, 4), 0);
        snprintf(request, sizeof request, "SHM.OPEN 2 %s %s\r\n", hex, a.sun_path + 1);
    } else {
        snprintf(request, sizeof request, "SHM.OPEN 2 %s\r\n", hex);
    }
    bool ok = peer_say(p, request, strlen(request)) && peer_line(p) && strcmp(p->reply, ":1") == 0;
    if (ok && listener >= 0) {
        uint8_t token[RSHM_TOKEN_BYTES];
        int visitor = accept(listener, NULL, NULL);
        ok = visitor >= 0 && receive(visitor, token, sizeof token, &p->memory) == (ssize_t)sizeof token &&
             memcmp(token, p->token, sizeof token) == 0;
        close(visitor);
    }
    if (listener >= 0)
        close(listener);
    return ok && p->memory >= 0;
}

void peer_map(struct peer *p)
{
    struct stat st;
    assert_int_equal(fstat(p->memory, &st), 0);
    p->bytes = (size_t)st.st_size;
    p->base = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->memory, 0);
    assert_true(p->base != MAP_FAILED);
    p->ring_bytes = p->base->ring_bytes;
    p->request_off = p->base->request_off;
    p->reply_off = p->base->reply_off;
    assert_int_equal(p->base->segment_bytes, p->bytes);
    p->write_pos = rshm_load_relaxed(peer_request_read_pos(p));
    p->read_pos = rshm_load_relaxed(peer_reply_read_pos(p));
}

void peer_bell(struct peer *p)
{
    static const char bell = RSHM_BELL;
    send(p->fd, &bell, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void peer_session(struct peer *p, const struct server *s, bool unix_socket)
{
    peer_connect(p, s, unix_socket);
    if (!peer_open(p))
        fail_msg("SHM.OPEN: %s", p->reply);
    peer_map(p);
    peer_bell(p);
    assert_true(peer_ping(p));
}

/* ---- the memory ---- */

static void *at(struct peer *p, size_t off)
{
    return (char *)p->base + off;
}

rshm_u64 *peer_request_read_pos(struct peer *p)
{
    return at(p, p->request_off);
}

rshm_u64 *peer_reply_read_pos(struct peer *p)
{
    return at(p, p->reply_off);
}

rshm_u32 *peer_reply_closed(struct peer *p)
{
    return at(p, p->reply_off + 8);
}

rshm_u64 *peer_request_header(struct peer *p, uint64_t pos)
{
    return at(p, p->request_off + 2 * LINE + (pos & (p->ring_bytes - 1)));
}

rshm_u64 *peer_reply_header(struct peer *p, uint64_t pos)
{
    return at(p, p->reply_off + 2 * LINE + (pos & (p->ring_bytes - 1)));
}

static uint64_t record_bytes(uint64_t n)
{
    return (8 + n + LINE - 1) / LINE * LINE;
}

bool peer_put(struct peer *p, const char *bytes, size_t n)
{
    const uint64_t end = now_ms() + PATIENCE_MS;
    while (n > 0) {
        uint64_t to_end = p->ring_bytes - (p->write_pos & (p->ring_bytes - 1));
        uint64_t len = n < to_end - 8 ? n : to_end - 8;
        while (p->write_pos - rshm_load_acquire(peer_request_read_pos(p)) + record_bytes(len) + LINE > p->ring_bytes) {
            if (now_ms() > end)
                return false;
            peer_bell(p);
            sleep_ms(1);
        }
        rshm_u64 *header = peer_request_header(p, p->write_pos);
        memcpy((char *)header + 8, bytes, len);
        p->write_pos += record_bytes(len);
        rshm_store_relaxed(peer_request_header(p, p->write_pos), (uint64_t)0);
        rshm_store_release(header, HEADER(0, 1, len));
        bytes += len;
        n -= len;
    }
    return true;
}

ssize_t peer_take(struct peer *p, char *bytes, size_t cap, int ms)
{
    const uint64_t end = now_ms() + (uint64_t)ms;
    uint64_t header;
    while ((header = rshm_load_acquire(peer_reply_header(p, p->read_pos))) == 0) {
        struct pollfd ended = {p->fd, POLLRDHUP, 0};
        if (now_ms() >= end || (poll(&ended, 1, 0) == 1 && rshm_load_acquire(peer_reply_header(p, p->read_pos)) == 0))
            return 0;
        sched_yield();
    }
    if ((header >> 32 & 0xff) == 2)
        return -1;
    size_t len = header & UINT32_MAX;
    memcpy(bytes, (char *)peer_reply_header(p, p->read_pos) + 8, len < cap ? len : cap);
    p->read_pos += record_bytes(len);
    rshm_store_release(peer_reply_read_pos(p), p->read_pos);
    rshm_fence_full(); /* R3: as docs/protocol.md asks of a reader that gives room back */
    if (rshm_exchange(&p->base->reply_wait.writer_waits, 0u) != 0)
        peer_bell(p);
    return (ssize_t)len;
}

bool peer_ping(struct peer *p)
{
    char reply[64] = "";
    if (!peer_put(p, "PING\r\n", 6))
        return false;
    peer_bell(p);
    return peer_take(p, reply, sizeof reply - 1, PATIENCE_MS) == 7 && memcmp(reply, "+PONG\r\n", 7) == 0;
}

bool peer_closed(struct peer *p)
{
    char rest[4096];
    for (uint64_t end = now_ms() + PATIENCE_MS; now_ms() < end;) {
        struct pollfd wait = {p->fd, POLLIN, 0};
        if (poll(&wait, 1, 100) != 1)
            continue;
        ssize_t n = recv(p->fd, rest, sizeof rest, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
    }
    return false;
}

void peer_end(struct peer *p)
{
    if (p->base != NULL)
        munmap(p->base, p->bytes);
    if (p->memory >= 0)
        close(p->memory);
    if (p->fd >= 0)
        close(p->fd);
    p->base = NULL;
    p->memory = p->fd = -1;
}
