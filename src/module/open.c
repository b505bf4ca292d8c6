/* open.c - SHM.OPEN <version> <token> [<rendezvous>] [MODE <octal>]: turns the calling connection into a shared-memory one.
 *
 * The reply ":1" goes out here, on the bare socket and together with the memory, before the session exists; it is the last that the
 * socket carries from the server besides doorbells. Every refusal is an ordinary error reply, and the connection stays as it was.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "module/module.h"

const char *const rshm_refusal_names[RSHM_REFUSALS] = {
    "version", "token", "rendezvous", "mode", "context", "already_open", "unanswered", "tls", "not_this_host", "max_sessions",
    "max_memory", "older_than_module", "system",
};
uint64_t rshm_refused[RSHM_REFUSALS];

struct request {
    uint8_t token[RSHM_TOKEN_BYTES];
    const char *rendezvous; /* NULL: the socket itself carries the memory */
    size_t rendezvous_bytes;
    int mode; /* -1: default */
};

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

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_token(const char *s, size_t n, uint8_t token[RSHM_TOKEN_BYTES])
{
    if (n != RSHM_TOKEN_HEX)
        return false;
    for (size_t i = 0; i < RSHM_TOKEN_BYTES; i++) {
        int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        token[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static bool parse_mode(const char *s, size_t n, int *mode)
{
    if (n == 0 || n > 5)
        return false;
    *mode = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '7')
            return false;
        *mode = *mode * 8 + (s[i] - '0');
    }
    return *mode <= 0777;
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

static bool field(const char *row, const char *row_end, const char *name, long long *value)
{
    size_t n = strlen(name);
    for (const char *p = row; (p = memchr(p, ' ', (size_t)(row_end - p))) != NULL;) {
        p++;
        if ((size_t)(row_end - p) > n && memcmp(p, name, n) == 0) {
            char number[24] = "";
            size_t digits = strspn(p + n, "0123456789"), left = (size_t)(row_end - p) - n;
            if (digits == 0 || digits >= sizeof number || digits > left)
                return false;
            memcpy(number, p + n, digits);
            *value = strtoll(number, NULL, 10);
            return true;
        }
    }
    return false;
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
        ok = field(row, row + n, "fd=", &c->fd) && field(row, row + n, "qbuf=", &c->unread_bytes) &&
             field(row, row + n, "obl=", &c->unsent_bytes) && field(row, row + n, "oll=", &c->unsent_replies);
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
static int send_to_rendezvous(const struct request *r, int fd)
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
static bool parse(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, struct request *r)
{
    size_t n;
    int i = 3;
    const char *s = redis.StringPtrLen(argv[1], &n);

    if (n != 1 || s[0] != '0' + RSHM_PROTOCOL_VERSION) {
        refuse(ctx, RSHM_REFUSED_VERSION, "this server speaks protocol version %d; use a client library that does too",
               RSHM_PROTOCOL_VERSION);
        return false;
    }
    s = redis.StringPtrLen(argv[2], &n);
    if (!parse_token(s, n, r->token)) {
        refuse(ctx, RSHM_REFUSED_TOKEN, "the token must be %d hexadecimal digits", RSHM_TOKEN_HEX);
        return false;
    }
    r->rendezvous = NULL;
    r->mode = -1;
    if (argc == 4 || argc == 6) {
        s = redis.StringPtrLen(argv[i++], &n);
        if (n <= strlen(RSHM_RENDEZVOUS_PREFIX) || n > RSHM_RENDEZVOUS_MAX ||
            memcmp(s, RSHM_RENDEZVOUS_PREFIX, strlen(RSHM_RENDEZVOUS_PREFIX)) != 0) {
            refuse(ctx, RSHM_REFUSED_RENDEZVOUS, "the rendezvous must be an abstract socket's name that begins with %s, at most %d bytes",
                   RSHM_RENDEZVOUS_PREFIX, RSHM_RENDEZVOUS_MAX);
            return false;
        }
        r->rendezvous = s;
        r->rendezvous_bytes = n;
    }
    if (i < argc) {
        s = redis.StringPtrLen(argv[i], &n);
        const char *octal = s;
        bool word = n == 4 && strncasecmp(s, "mode", 4) == 0;
        if (word)
            octal = redis.StringPtrLen(argv[i + 1], &n);
        if (!word || !parse_mode(octal, n, &r->mode)) {
            refuse(ctx, RSHM_REFUSED_MODE, "what follows must be MODE and an octal number up to 0777, for instance MODE 0660");
            return false;
        }
    }
    return true;
}

/* Whether this caller may, now. Returns its fd, or -1 with the error reply given. */
static int admit(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, const struct request *r)
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
    struct request r;

    if (argc < 3 || argc > 6)
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
