/* handshake.c - the client's side of SHM.OPEN, docs/protocol.md "Handshake". */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/rendezvous.h"
#include "client/client.h"

#define NAME_BYTES 16 /* random part of a rendezvous' name that leads nowhere */

struct rshm_client *rshm_client_new(redisContext *c, const char **why)
{
    int domain = 0;
    socklen_t n = sizeof domain;
    struct rshm_client *s = calloc(1, sizeof *s);

    *why = "out of memory";
    if (s == NULL)
        return NULL;
    s->context = c;
    s->plain = c->funcs;
    s->forks = rshm_forks();
    s->listener = s->memory = -1;
    s->scanner = redisReaderCreate();
    if (s->scanner == NULL)
        goto fail;
    if (rshm_random(s->token, sizeof s->token) < 0) {
        *why = "no random numbers from the kernel";
        goto fail;
    }
    if (getsockopt(c->fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) != 0) { /* known before it is connected, unlike its names */
        *why = "the connection has no socket";
        goto fail;
    }
    if (domain != AF_UNIX && (s->listener = rshm_rendezvous_listen(s->rendezvous)) < 0) {
        *why = "no abstract socket to receive the memory on";
        goto fail;
    }
    return s;
fail:
    rshm_client_free(s);
    return NULL;
}

void rshm_client_free(struct rshm_client *s)
{
    if (s->scanner != NULL)
        redisReaderFree(s->scanner);
    if (s->listener >= 0)
        close(s->listener);
    if (s->memory >= 0)
        close(s->memory);
    if (s->forks == rshm_forks()) /* else it is the parent's, and not even mapped here */
        rshm_channel_deinit(&s->channel);
    if (s->alive != NULL)
        *s->alive = NULL;
    free(s);
}

void rshm_client_open_args(const struct rshm_client *s, int mode, struct rshm_open_args *a)
{
    a->argc = 0;
    snprintf(a->version, sizeof a->version, "%d", RSHM_PROTOCOL_VERSION);
    rshm_to_hex(s->token, sizeof s->token, a->token);
    a->argv[a->argc++] = "SHM.OPEN";
    a->argv[a->argc++] = a->version;
    a->argv[a->argc++] = a->token;
    if (s->listener >= 0) {
        strcpy(a->rendezvous, s->rendezvous);
        a->argv[a->argc++] = a->rendezvous;
    }
    if (mode >= 0) {
        snprintf(a->mode, sizeof a->mode, "%04o", (unsigned)mode & 0777);
        a->argv[a->argc++] = "MODE";
        a->argv[a->argc++] = a->mode;
    }
}

bool rshm_client_refused_args(struct rshm_open_args *a)
{
    uint8_t random[NAME_BYTES];
    memset(a, 0, sizeof *a);
    if (rshm_random(random, sizeof random) < 0)
        return false;
    snprintf(a->version, sizeof a->version, "%d", RSHM_PROTOCOL_VERSION);
    rshm_to_hex(random, sizeof random, a->token);
    strcpy(a->rendezvous, RSHM_RENDEZVOUS_PREFIX);
    rshm_to_hex(random, sizeof random, a->rendezvous + strlen(a->rendezvous));
    a->argv[a->argc++] = "SHM.OPEN";
    a->argv[a->argc++] = a->version;
    a->argv[a->argc++] = a->token;
    a->argv[a->argc++] = a->rendezvous;
    return true;
}

/* Maps the memory and tells the server so. Returns NULL or why not. */
static const char *attach(struct rshm_client *s)
{
    static const char bell = RSHM_BELL;
    struct rshm_map map;

    if (s->listener >= 0)
        s->memory = rshm_rendezvous_accept(s->listener, s->token);
    if (s->memory < 0)
        return "the server's memory did not arrive (is there a proxy in between?)";
    int r = rshm_segment_open(&map, s->memory, s->token);
    if (r == -EPROTO || r == -EKEYREJECTED || r == -EPROTONOSUPPORT)
        return "the server's memory is not what the protocol says";
    if (r < 0)
        return strerror(-r);
    r = rshm_channel_init(&s->channel, RSHM_CLIENT, &map, s->context->fd);
    if (r < 0) {
        rshm_segment_unmap(&map);
        return "the server's memory is not what the protocol says";
    }
    if (send(s->context->fd, &bell, 1, MSG_NOSIGNAL) != 1)
        return strerror(errno);
    if (s->listener >= 0) {
        /* Bells are not answered, so Nagle's algorithm would hold every second one for the 40 ms of a delayed ACK; hiredis
         * leaves it on for redisConnectNonBlock(). */
        const int on = 1;
        setsockopt(s->context->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        close(s->listener);
    }
    close(s->memory);
    s->listener = s->memory = -1;
    redisReaderFree(s->scanner);
    s->scanner = NULL;
    return NULL;
}

/* As hiredis reads from its socket, for the fd that comes along. */
static ssize_t read_socket(redisContext *c, struct rshm_client *s, char *buf, size_t cap)
{
    ssize_t n = rshm_receive_fd(c->fd, buf, cap, 0, &s->memory);
    if (n > 0)
        return n;
    if (n == 0) {
        rshm_client_error(c, REDIS_ERR_EOF, "Server closed the connection");
        return -1;
    }
    if ((errno == EWOULDBLOCK && !(c->flags & REDIS_BLOCK)) || errno == EINTR)
        return 0;
    rshm_client_error(c, REDIS_ERR_IO, "%s", strerror(errno));
    return -1;
}

/* The reply to SHM.OPEN among the n bytes just read, after push messages perhaps. Returns 1: it is ":1"; -1: it is something
 * else; 0: not there yet. *end: where in buf it ends. */
static int scan(struct rshm_client *s, const char *buf, size_t n, size_t *end)
{
    for (*end = 0; *end < n;) { /* byte by byte, once a connection: only so it is known where the reply ends */
        void *r;
        if (redisReaderFeed(s->scanner, buf + (*end)++, 1) != REDIS_OK || redisReaderGetReply(s->scanner, &r) != REDIS_OK)
            return -1;
        if (r == NULL)
            continue;
        redisReply *reply = r;
        int found = reply->type == REDIS_REPLY_PUSH ? 0 : reply->type == REDIS_REPLY_INTEGER && reply->integer == 1 ? 1 : -1;
        freeReplyObject(reply);
        if (found != 0)
            return found;
    }
    return 0;
}

ssize_t rshm_client_opening_read(redisContext *c, char *buf, size_t cap)
{
    static const char done[] = ":1\r\n";
    const size_t done_bytes = sizeof done - 1;
    struct rshm_client *s = c->privctx;
    size_t end;

    ssize_t n = read_socket(c, s, buf, cap);
    if (n <= 0)
        return n;
    int found = scan(s, buf, (size_t)n, &end);
    if (found == 0)
        return n;
    if (found < 0) { /* refused: the application reads why */
        rshm_client_refused(s);
        return n;
    }
    const char *why = s->overtaken ? "commands were sent before its reply was read" : attach(s);
    if (why == NULL) {
        rshm_client_opened(s);
        return n;
    }
    /* The server waits for our first byte: the next command declines, or one that was sent already did. The application gets an error
     * instead of the 1; replies to commands already sent may follow it. */
    char error[192];
    int error_bytes = snprintf(error, sizeof error, "-ERR SHM.OPEN: %s; the connection goes on over its socket\r\n", why);
    rshm_client_refused(s);
    if (end < done_bytes || memcmp(buf + end - done_bytes, done, done_bytes) != 0 ||
        redisReaderFeed(c->reader, buf, end - done_bytes) != REDIS_OK || redisReaderFeed(c->reader, error, (size_t)error_bytes) != REDIS_OK) {
        rshm_client_error(c, REDIS_ERR_OTHER, "SHM.OPEN: %s", why);
        return -1;
    }
    memmove(buf, buf + end, (size_t)n - end);
    return n - (ssize_t)end;
}
