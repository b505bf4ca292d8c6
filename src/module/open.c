/* open.c - SHM.OPEN <version> <token> [<rendezvous>] [MODE <octal>]: turns the calling connection into a shared-memory one.
 *
 * The reply ":1" goes out here, on the bare socket and together with the memory, before the session exists; it is the last that the
 * socket carries from the server besides doorbells. Every refusal is an ordinary error reply, and the connection stays as it was.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "module/module.h"
#include "module/open_args.h"

const char *const rshm_refusal_names[RSHM_REFUSALS] = {
    "version", "token", "rendezvous", "mode", "context", "already_open", "unanswered", "tls", "not_this_host", "max_sessions",
    "max_memory", "older_than_module", "system",
};
uint64_t rshm_refused[RSHM_REFUSALS];

/* What CLIENT LIST says of the caller. */
struct caller {
    long long fd, unread_bytes, unsent_bytes, unsent_replies;
};

static int refuse(RedisModuleCtx *ctx, enum rshm_refusal reason, const char *fmt, ...)
{
    char text[256] = "ERR SHM.OPEN: ";
    size_t n = strlen(text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - n, fmt, ap);
    va_end(ap);
    rshm_refused[reason]++;
    return redis.ReplyWithError(ctx, text);
}

/* The request's length in the protocol, to tell whether more than this command was read. */
static long long protocol_bytes(RedisModuleString **argv, int argc)
{
    long long sum = snprintf(NULL, 0, "*%d\r\n", argc);
    for (int i = 0; i < argc; i++) {
        size_t n;
        redis.StringPtrLen(argv[i], &n);
        sum += snprintf(NULL, 0, "$%zu\r\n", n) + (long long)n + 2;
    }
    return sum;
}

/* Reads the caller's own row of CLIENT LIST: public since 6.2, and the only public way to its fd. Returns false if there is
 * no such row: the caller is no connection (a script, another module). */
static bool look_up_caller(RedisModuleCtx *ctx, uint64_t id, struct caller *c)
{
    size_t n;
    bool ok = false;
    RedisModuleCallReply *reply = redis.Call(ctx, "CLIENT", "ccl", "LIST", "ID", (long long)id);
    if (reply == NULL)
        return false;
    int type = redis.CallReplyType(reply);
    const char *row = type == REDIS_REPLY_IS_STRING || type == REDIS_REPLY_IS_VERBATIM ? redis.CallReplyStringPtr(reply, &n) : NULL;
    if (row != NULL)
        ok = rshm_row_field(row, row + n, "fd=", &c->fd) && rshm_row_field(row, row + n, "qbuf=", &c->unread_bytes) &&
             rshm_row_field(row, row + n, "obl=", &c->unsent_bytes) && rshm_row_field(row, row + n, "oll=", &c->unsent_replies);
    redis.FreeCallReply(reply);
    return ok;
}

/* Sends bytes, and fd with them, in one piece and without blocking. Returns 0 or -errno. */
static int send_with_fd(int socket, const void *bytes, size_t n, int fd)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, n};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    ssize_t sent = sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent == (ssize_t)n ? 0 : sent < 0 ? -errno : -EAGAIN;
}

/* Passes the memory to whoever listens under the caller's rendezvous name; the token proves to them who we are. Returns 0 or
 * -errno: -ECONNREFUSED when nobody listens, -EAGAIN when their queue is full. Never blocks. */
static int send_to_rendezvous(const struct rshm_open_request *r, int fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0)
        return -errno;
    memcpy(address.sun_path + 1, r->rendezvous, r->rendezvous_bytes); /* abstract: a zero byte first */
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + r->rendezvous_bytes);
    int result = connect(s, (struct sockaddr *)&address, n) == 0 ? send_with_fd(s, r->token, sizeof r->token, fd) : -errno;
    close(s);
    return result;
}

/* The arguments. Returns true, or false with the error reply given. */
static bool parse(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, struct rshm_open_request *r)
{
    struct rshm_open_arg args[RSHM_OPEN_ARGS];
    for (int i = 0; i < argc; i++)
        args[i].s = redis.StringPtrLen(argv[i], &args[i].n);
    switch (rshm_open_parse(args, argc, r)) {
    case RSHM_OPEN_FINE:
        return true;
    case RSHM_OPEN_BAD_VERSION:
        refuse(ctx, RSHM_REFUSED_VERSION, "this server speaks protocol version %d; use a client library that does too",
               RSHM_PROTOCOL_VERSION);
        break;
    case RSHM_OPEN_BAD_TOKEN:
        refuse(ctx, RSHM_REFUSED_TOKEN, "the token must be %d hexadecimal digits", RSHM_TOKEN_HEX);
        break;
    case RSHM_OPEN_BAD_RENDEZVOUS:
        refuse(ctx, RSHM_REFUSED_RENDEZVOUS, "the rendezvous must be an abstract socket's name that begins with %s, at most %d bytes",
               RSHM_RENDEZVOUS_PREFIX, RSHM_RENDEZVOUS_MAX);
        break;
    case RSHM_OPEN_BAD_MODE:
        refuse(ctx, RSHM_REFUSED_MODE, "what follows must be MODE and an octal number up to 0777, for instance MODE 0660");
        break;
    }
    return false;
}

/* Whether this caller may, now. Returns its fd, or -1 with the error reply given. */
static int admit(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, const struct rshm_open_request *r)
{
    struct redis_client_info info = {.version = REDIS_CLIENTINFO_VERSION};
    struct caller c;
    uint64_t id = redis.GetClientId(ctx);
    int unread = 0;

    if (redis.GetContextFlags(ctx) & (REDIS_CTX_MULTI | REDIS_CTX_LUA)) {
        refuse(ctx, RSHM_REFUSED_CONTEXT, "not inside MULTI or a script; send it alone");
        return -1;
    }
    if (!look_up_caller(ctx, id, &c) || redis.GetClientInfoById(&info, id) != REDIS_OK) {
        refuse(ctx, RSHM_REFUSED_CONTEXT, "only a client's own connection can be opened, not a script or another module's call");
        return -1;
    }
    int fd = (int)c.fd;
    int known = rshm_session_check(fd);
    if (known == -EALREADY) {
        refuse(ctx, RSHM_REFUSED_ALREADY, "this connection uses shared memory already");
        return -1;
    }
    if (info.flags & REDIS_CLIENTINFO_SSL) {
        refuse(ctx, RSHM_REFUSED_TLS, "not over TLS; connect to the server's plain port on the loopback address or to its Unix socket");
        return -1;
    }
    /* The row counts the command itself as unread; a server that counts differently can only count less. */
    if (c.unsent_bytes != 0 || c.unsent_replies != 0 || c.unread_bytes > protocol_bytes(argv, argc) ||
        (ioctl(fd, FIONREAD, &unread) == 0 && unread > 0)) {
        refuse(ctx, RSHM_REFUSED_UNANSWERED, "other commands are unanswered; send it alone and wait for its reply");
        return -1;
    }
    if (known == -ENOENT) {
        refuse(ctx, RSHM_REFUSED_OLD, "this connection is older than the module; reconnect");
        return -1;
    }
    if ((long long)rshm_sessions_now() >= rshm_settings.sessions_max || known == -ENFILE) {
        refuse(ctx, RSHM_REFUSED_SESSIONS, "shm.max-sessions (%lld) is reached", rshm_settings.sessions_max);
        return -1;
    }
    size_t bytes = rshm_segment_bytes((size_t)rshm_settings.ring_bytes);
    if ((long long)(rshm_sessions_memory() + bytes) > rshm_settings.memory_max_bytes) {
        refuse(ctx, RSHM_REFUSED_MEMORY, "shm.max-memory (%lld bytes) does not suffice for %zu more", rshm_settings.memory_max_bytes,
               bytes);
        return -1;
    }
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    if (r->rendezvous == NULL && (getsockname(fd, (struct sockaddr *)&address, &n) != 0 || address.ss_family != AF_UNIX)) {
        refuse(ctx, RSHM_REFUSED_RENDEZVOUS, "a TCP connection needs a rendezvous: SHM.OPEN %d token redis-shm-name", RSHM_PROTOCOL_VERSION);
        return -1;
    }
    return fd;
}

int rshm_open_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    static const char done[] = ":1\r\n";
    const size_t done_bytes = sizeof done - 1;
    struct rshm_map map;
    struct rshm_open_request r;

    if (argc < 3 || argc > RSHM_OPEN_ARGS)
        return redis.WrongArity(ctx);
    if (!parse(ctx, argv, argc, &r))
        return REDIS_OK;
    int fd = admit(ctx, argv, argc, &r);
    if (fd < 0)
        return REDIS_OK;

    int memory = rshm_segment_create(&map, (size_t)rshm_settings.ring_bytes, r.token, r.mode);
    if (memory < 0)
        return refuse(ctx, RSHM_REFUSED_SYSTEM, "no shared memory of %lld bytes each way: %s", rshm_settings.ring_bytes, strerror(-memory));
    struct rshm_session *s = rshm_session_new(fd, &map, redis.GetClientId(ctx));
    if (s == NULL) {
        int e = errno;
        rshm_segment_unmap(&map);
        close(memory);
        return refuse(ctx, RSHM_REFUSED_SYSTEM, "no session: %s", strerror(e));
    }
    int sent = r.rendezvous != NULL ? send_to_rendezvous(&r, memory) : send_with_fd(fd, done, done_bytes, memory);
    close(memory); /* the client holds it now, or nobody */
    if (sent < 0) {
        rshm_session_discard(s);
        if (sent == -ECONNREFUSED)
            return refuse(ctx, RSHM_REFUSED_HOST, "nobody listens at the rendezvous: the client is not on this host, or in "
                          "another network namespace; use the Unix socket");
        return refuse(ctx, RSHM_REFUSED_SYSTEM, "the memory could not be handed over: %s", strerror(-sent));
    }
    if (r.rendezvous != NULL && send(fd, done, done_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)done_bytes) {
        rshm_session_discard(s);
        return refuse(ctx, RSHM_REFUSED_SYSTEM, "the reply could not be sent");
    }
    rshm_session_install(s);
    return REDIS_OK;
}
