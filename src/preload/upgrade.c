/* upgrade.c - see upgrade.h. */
#include "preload/upgrade.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "channel/clock.h"
#include "channel/rendezvous.h"
#include "preload/epoll.h"
#include "preload/real.h"
#include "preload/report.h"

#define PEEK_BYTES 4096 /* an error reply is far shorter; a push message in front of it may be that long */
#define TRIES_MAX 8     /* a program that fails to log in so often will not succeed */

static void complain(const char *where, const char *why)
{
    char line[512];
    int n = snprintf(line, sizeof line, "redis-shm run: %s: no shared memory: %s\n", where, why);
    if (n > 0)
        (void)!rshm_real()->write(2, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

/* No shared memory for this connection. left: the server said why to the program, which shall read it. */
static enum rshm_step refused(struct rshm_conn *c, const char *why, bool left)
{
    rshm_report_refused(c->endpoint, why);
    if (!rshm_preload_settings.require || left) {
        rshm_conn_drop(c);
        return RSHM_STEP_PLAIN;
    }
    complain(rshm_preload_settings.named[c->endpoint].text, why);
    c->state = RSHM_CONN_FAILED;
    c->failure = ECONNREFUSED;
    rshm_real()->shutdown(c->ch.fd, SHUT_RDWR);
    rshm_epoll_changed(c);
    return RSHM_STEP_ON;
}

static int format_argument(char *to, const char *text)
{
    return sprintf(to, "$%zu\r\n%s\r\n", strlen(text), text);
}

enum rshm_step rshm_upgrade_start(struct rshm_conn *c, int fd)
{
    char hex[RSHM_TOKEN_HEX + 1], version[4], name[RSHM_RENDEZVOUS_MAX + 1], request[256];
    int e = errno;

    c->tries++;
    c->stray = 0;
    if (rshm_random(c->token, sizeof c->token) < 0)
        return refused(c, "no random numbers from the kernel", false);
    if (c->tcp && c->listener < 0 && (c->listener = rshm_rendezvous_listen(name)) < 0)
        return refused(c, "no abstract socket to receive the memory on", false);
    rshm_to_hex(c->token, sizeof c->token, hex);
    snprintf(version, sizeof version, "%d", RSHM_PROTOCOL_VERSION);
    int n = sprintf(request, "*%d\r\n$8\r\nSHM.OPEN\r\n", c->tcp ? 4 : 3);
    n += format_argument(request + n, version);
    n += format_argument(request + n, hex);
    if (c->tcp)
        n += format_argument(request + n, name);
    ssize_t sent = rshm_real()->send(fd, request, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0 && sent < n) { /* an empty socket buffer takes more than that */
        rshm_real()->shutdown(fd, SHUT_RDWR);
        sent = -1;
    }
    if (sent < 0)
        return refused(c, "SHM.OPEN could not be sent", true);
    c->state = RSHM_CONN_OPENING;
    rshm_epoll_changed(c);
    errno = e;
    return RSHM_STEP_ON;
}

static void close_listener(struct rshm_conn *c)
{
    if (c->listener >= 0)
        rshm_real()->close(c->listener);
    c->listener = -1;
}

/* The server has granted it. Returns NULL or why it cannot be used. */
static const char *attach(struct rshm_conn *c, int fd)
{
    static const char reply[] = ":1\r\n", bell = RSHM_BELL;
    char buf[sizeof reply];
    struct rshm_map map;
    int memory = -1;

    if (rshm_receive_fd(fd, buf, sizeof reply - 1, MSG_DONTWAIT, &memory) != (ssize_t)(sizeof reply - 1))
        return "the reply to SHM.OPEN was gone";
    if (c->tcp && memory < 0)
        memory = rshm_rendezvous_accept(c->listener, c->token);
    close_listener(c);
    if (memory < 0)
        return "the server's memory did not arrive (is there a proxy in between?)";
    int r = rshm_segment_open(&map, memory, c->token);
    rshm_real()->close(memory);
    if (r < 0)
        return r == -EPROTO || r == -EKEYREJECTED || r == -EPROTONOSUPPORT ? "the server's memory is not what the protocol says"
                                                                             : "the server's memory could not be mapped";
    /* A fork child may go on with the connection, as with a socket. */
    if (madvise(map.base, map.bytes, MADV_DOFORK) != 0 || rshm_channel_init(&c->ch, RSHM_CLIENT, &map, fd) < 0) {
        rshm_segment_unmap(&map);
        return "the server's memory is not what the protocol says";
    }
    if (rshm_real()->send(fd, &bell, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
        return "the socket has ended";
    if (c->tcp) { /* bells are not answered: Nagle's algorithm would hold every second one for the 40 ms of a delayed ACK */
        const int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return NULL;
}

static enum rshm_step opened(struct rshm_conn *c, int fd)
{
    const char *why = attach(c, fd);
    if (why != NULL)
        return refused(c, why, false); /* the program's first byte declines */
    rshm_report_upgraded(c->endpoint);
    c->state = RSHM_CONN_OPEN;
    rshm_epoll_changed(c);
    return RSHM_STEP_ON;
}

static bool begins(const char *line, const char *with)
{
    return strncmp(line, with, strlen(with)) == 0;
}

/* An error reply of line_bytes, its end included. */
static enum rshm_step declined(struct rshm_conn *c, int fd, const char *line, size_t line_bytes)
{
    char why[RSHM_REASON_TEXT], gone[PEEK_BYTES];
    snprintf(why, sizeof why, "%.*s", (int)(line_bytes - 3), line + 1);
    /* What a server says to everybody who connects, and then closes: meant for the program. */
    if (begins(line, "-ERR max number of clients") || begins(line, "-DENIED"))
        return refused(c, why, true);
    if (rshm_real()->recv(fd, gone, line_bytes, MSG_DONTWAIT) != (ssize_t)line_bytes)
        return refused(c, "the reply to SHM.OPEN was gone", false);
    close_listener(c);
    if (begins(line, "-NOAUTH") && c->tries < TRIES_MAX) {
        c->state = RSHM_CONN_LOGIN;
        rshm_resp_start(&c->resp);
        rshm_epoll_changed(c);
        return RSHM_STEP_ON;
    }
    return refused(c, begins(why, "ERR unknown command") ? "the server does not have the module" : why, false);
}

static enum rshm_step step_opening(struct rshm_conn *c, int fd)
{
    char buf[PEEK_BYTES + 1];
    if (c->stray > 0)
        return RSHM_STEP_STRAY;
    /* A look, so that what is not ours stays on the socket; without room for control messages no descriptor comes out of it. */
    ssize_t n = rshm_real()->recv(fd, buf, PEEK_BYTES, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return RSHM_STEP_LATER;
    if (n <= 0)
        return refused(c, "the connection ended during SHM.OPEN", true);
    buf[n] = '\0';
    if (buf[0] == '>') {
        c->stray = rshm_resp_push_bytes(buf, (size_t)n);
        if (c->stray > 0)
            return RSHM_STEP_STRAY;
        if (n < PEEK_BYTES)
            return RSHM_STEP_LATER;
    }
    const char *end = memchr(buf, '\n', (size_t)n);
    if (end == NULL && n < PEEK_BYTES && (buf[0] == ':' || buf[0] == '-'))
        return RSHM_STEP_LATER;
    if (end != NULL && begins(buf, ":1\r\n"))
        return opened(c, fd);
    if (end != NULL && buf[0] == '-' && end - buf >= 2)
        return declined(c, fd, buf, (size_t)(end - buf) + 1);
    return refused(c, "something else than a Redis server answered", true);
}

static enum rshm_step step_connecting(struct rshm_conn *c, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (rshm_real()->poll(&p, 1, 0) <= 0)
        return RSHM_STEP_LATER;
    if (p.revents & (POLLERR | POLLHUP | POLLNVAL)) { /* the program learns why in its own way, SO_ERROR for instance */
        rshm_conn_drop(c);
        return RSHM_STEP_PLAIN;
    }
    return rshm_upgrade_start(c, fd);
}

enum rshm_step rshm_upgrade_step(struct rshm_conn *c, int fd)
{
    int e = errno;
    enum rshm_step s = RSHM_STEP_ON;
    if (c->state == RSHM_CONN_CONNECTING)
        s = step_connecting(c, fd);
    if (s == RSHM_STEP_ON && c->state == RSHM_CONN_OPENING)
        s = step_opening(c, fd);
    errno = e;
    return s;
}

int rshm_upgrade_settle(struct rshm_conn *c, int fd, int timeout_ms)
{
    uint64_t end_ns = rshm_now_ns() + (timeout_ms < 0 ? 0 : (uint64_t)timeout_ms * 1000000u);
    while (rshm_conn_enter(c, fd)) {
        enum rshm_step s = rshm_upgrade_step(c, fd);
        if (s == RSHM_STEP_PLAIN)
            return 0;
        struct pollfd p = {.fd = fd, .events = c->state == RSHM_CONN_CONNECTING ? POLLOUT : POLLIN};
        rshm_conn_leave(c);
        if (s != RSHM_STEP_LATER)
            return 0;
        uint64_t now_ns = rshm_now_ns();
        if (timeout_ms >= 0 && now_ns >= end_ns)
            return -EAGAIN;
        if (rshm_real()->poll(&p, 1, timeout_ms < 0 ? -1 : (int)((end_ns - now_ns) / 1000000u) + 1) < 0)
            return -errno;
    }
    return 0;
}
