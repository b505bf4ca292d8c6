/* endpoint.c - see endpoint.h. */
#include "tools/endpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <hiredis.h>

#include "hiredis_shm.h"
#include "tools/tools.h"

#define AGE_TOLERANCE_S 5 /* between a process's age and what its INFO says: whole seconds, and a clock that is being set */

static const char *const ids[] = {"tcp", "unix", "shm"};

const char *rshm_transport_id(enum rshm_transport t)
{
    return ids[t];
}

const char *rshm_transport_name(enum rshm_transport t)
{
    static const char *const names[] = {"TCP", "Unix socket", "shared memory"};
    return names[t];
}

int rshm_transport_parse(const char *option, const char *text, enum rshm_transport *t)
{
    for (enum rshm_transport i = RSHM_TCP; i < RSHM_TRANSPORTS; i++)
        if (strcmp(text, ids[i]) == 0) {
            *t = i;
            return 0;
        }
    rshm_complain("%s must be tcp, unix or shm, not '%s'", option, text);
    return -EINVAL;
}

/* ---- options ---- */

void rshm_endpoint_init(struct rshm_endpoint *e)
{
    *e = (struct rshm_endpoint){.host = "127.0.0.1", .port = 6379, .password = getenv("REDISCLI_AUTH"), .resp = 2};
}

int rshm_endpoint_option(struct rshm_endpoint *e, int opt, const char *arg)
{
    long long n;
    switch (opt) {
    case 'h':
        if (arg[0] == '\0') {
            rshm_complain("--host must not be empty");
            return -EINVAL;
        }
        e->host = arg;
        e->tcp_given = true;
        return 1;
    case 'p':
        if (rshm_parse_integer("--port", arg, 1, 65535, &n) < 0)
            return -EINVAL;
        e->port = (int)n;
        e->tcp_given = true;
        return 1;
    case 's':
        if (arg[0] == '\0' || strlen(arg) >= sizeof((struct sockaddr_un *)0)->sun_path) {
            rshm_complain("--socket must be a path of 1 to %zu bytes, not '%s'", sizeof((struct sockaddr_un *)0)->sun_path - 1, arg);
            return -EINVAL;
        }
        e->path = arg;
        return 1;
    case 'a':
        e->password = arg;
        e->password_given = true;
        return 1;
    case RSHM_ENDPOINT_USER:
        e->user = arg;
        return 1;
    case 'n':
        if (rshm_parse_integer("--db", arg, 0, INT32_MAX, &n) < 0)
            return -EINVAL;
        e->db = (int)n;
        return 1;
    case '3':
        e->resp = 3;
        return 1;
    default:
        return 0;
    }
}

const char *rshm_endpoint_describe(const struct rshm_endpoint *e, enum rshm_transport t, char *text, size_t text_bytes)
{
    if (e->path != NULL && (t != RSHM_TCP || !e->tcp_given))
        snprintf(text, text_bytes, "%s", e->path);
    else
        snprintf(text, text_bytes, strchr(e->host, ':') != NULL ? "[%s]:%d" : "%s:%d", e->host, e->port);
    return text;
}

const char *rshm_endpoint_peer(const redisContext *c, char *text, size_t text_bytes)
{
    const struct rshm_endpoint e = {.host = c->tcp.host, .port = c->tcp.port, .path = c->unix_sock.path};
    return rshm_endpoint_describe(&e, RSHM_UNIX, text, text_bytes);
}

int rshm_endpoint_is_local(const struct rshm_endpoint *e)
{
    struct addrinfo *found, hints = {.ai_socktype = SOCK_DGRAM};
    int local = 0;
    if (getaddrinfo(e->host, NULL, &hints, &found) != 0)
        return -EHOSTUNREACH;
    for (const struct addrinfo *a = found; a != NULL && !local; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        local = bind(fd, a->ai_addr, a->ai_addrlen) == 0; /* only a machine's own address can be bound to */
        close(fd);
    }
    freeaddrinfo(found);
    return local;
}

/* ---- connecting ---- */

struct attempt {
    const struct rshm_endpoint *e;
    char *why;
    size_t why_bytes;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct attempt *a, int result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(a->why, a->why_bytes, format, args);
    va_end(args);
    for (char *p = a->why; *p != '\0'; p++) /* what a server says goes to a terminal, on one line */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    return result;
}

/* A connection that has failed. */
static int fail_broken(const struct attempt *a, const redisContext *c, int error)
{
    if (c->err == REDIS_ERR_TIMEOUT || (c->err == REDIS_ERR_IO && (error == EAGAIN || error == ETIMEDOUT)))
        return fail(a, -ETIMEDOUT, "no answer within %d s: the server hangs or is busy, or this is a TLS port", RSHM_ENDPOINT_TIMEOUT_S);
    if (c->err == REDIS_ERR_PROTOCOL)
        return fail(a, -EPROTO, "what answers there is no Redis server (%s)", c->errstr);
    if (c->err == REDIS_ERR_EOF || (c->err == REDIS_ERR_IO && (error == ECONNRESET || error == EPIPE)))
        return fail(a, -ECONNRESET, "the server closed the connection: it refuses this client, or this is a TLS port");
    return fail(a, error > 0 ? -error : -EIO, "connection lost: %s", c->errstr);
}

/* An error that the server answered with. */
static int fail_refused(const struct attempt *a, const char *said)
{
    bool password = a->e->password != NULL;
    if (strncmp(said, "NOAUTH", 6) == 0)
        return fail(a, -EACCES, "the server wants a password: -a PASSWORD, or REDISCLI_AUTH in the environment");
    if (strncmp(said, "WRONGPASS", 9) == 0 || strstr(said, "invalid password") != NULL)
        return fail(a, -EACCES, "wrong password%s%s, or the user is disabled", a->e->user != NULL ? " for user " : "",
                    a->e->user != NULL ? a->e->user : "");
    if (password && strstr(said, "without any password") != NULL)
        return fail(a, -EACCES, "the server has no password: leave out %s", a->e->password_given ? "-a" : "REDISCLI_AUTH");
    if (strncmp(said, "LOADING", 7) == 0)
        return fail(a, -EAGAIN, "the server is loading its data: try again when it is done");
    if (strncmp(said, "DENIED", 6) == 0)
        return fail(a, -EACCES, "the server is in protected mode: connect from its own host, or set a password there");
    return fail(a, -EPROTO, "the server says: %s", said);
}

/* One command while connecting. 0 if it was not answered with an error. */
static int ask(const struct attempt *a, redisContext *c, redisReply **reply, int argc, const char **argv)
{
    errno = 0;
    *reply = redisCommandArgv(c, argc, argv, NULL);
    int error = errno;
    if (*reply == NULL)
        return fail_broken(a, c, error);
    return (*reply)->type == REDIS_REPLY_ERROR ? -EPROTO : 0;
}

static int order(const struct attempt *a, redisContext *c, int argc, const char **argv)
{
    redisReply *reply;
    int r = ask(a, c, &reply, argc, argv);
    if (reply == NULL)
        return r;
    /* A user may be kept from PING; and a password by the environment is for servers that want one. */
    bool harmless = r < 0 && (strncmp(reply->str, "NOPERM", 6) == 0 ||
                              (!a->e->password_given && strstr(reply->str, "without any password") != NULL));
    r = r == 0 || harmless ? 0 : fail_refused(a, reply->str);
    freeReplyObject(reply);
    return r;
}

static int introduce(const struct attempt *a, redisContext *c)
{
    const struct rshm_endpoint *e = a->e;
    char db[16];
    const char *hello[] = {"HELLO", "3", "AUTH", e->user != NULL ? e->user : "default", e->password};
    const char *auth[] = {"AUTH", e->user, e->password}, *ping[] = {"PING"}, *select_db[] = {"SELECT", db};
    int r = 0;
    if (e->resp == 3)
        r = order(a, c, e->password != NULL ? 5 : 2, hello);
    else if (e->password != NULL)
        r = e->user != NULL ? order(a, c, 3, auth) : order(a, c, 2, (const char *[]){"AUTH", e->password});
    if (r == 0)
        r = order(a, c, 1, ping); /* tells at once that a password is missing, and that this is a Redis server */
    snprintf(db, sizeof db, "%d", e->db);
    if (r == 0 && e->db != 0)
        r = order(a, c, 2, select_db);
    return r;
}

static int open_socket(const struct attempt *a, const char *path, const char *host, int port, redisContext **out)
{
    const struct timeval timeout = {.tv_sec = RSHM_ENDPOINT_TIMEOUT_S};
    errno = 0;
    redisContext *c = path != NULL ? redisConnectUnixWithTimeout(path, timeout) : redisConnectWithTimeout(host, port, timeout);
    int error = errno, r = 0;
    *out = NULL;
    if (c == NULL)
        return fail(a, -ENOMEM, "out of memory");
    if (c->err != 0) {
        const char *what = path != NULL ? path : host;
        char at[16] = "";
        if (path == NULL)
            snprintf(at, sizeof at, ":%d", port);
        r = c->err == REDIS_ERR_IO && error > 0 ? -error : -EHOSTUNREACH; /* else the name could not be resolved */
        fail(a, r, "cannot connect to %s%s: %s; is the server running there? -h, -p and -s name another", what, at, c->errstr);
    } else if (redisSetTimeout(c, timeout) != REDIS_OK) {
        r = fail(a, -EIO, "%s", c->errstr);
    } else {
        r = introduce(a, c);
    }
    if (r < 0) {
        redisFree(c);
        return r;
    }
    *out = c;
    return 0;
}

/* The value of a setting, asked on c. 0; -EOPNOTSUPP if the server does not tell. */
static int ask_setting(const struct attempt *a, redisContext *c, const char *name, char *value, size_t value_bytes)
{
    redisReply *reply;
    int r = ask(a, c, &reply, 3, (const char *[]){"CONFIG", "GET", name});
    if (reply == NULL)
        return r;
    /* A map of RESP3 has the same elements. */
    if (r == 0 && reply->elements == 2 && reply->element[1]->str != NULL && reply->element[1]->len < value_bytes) {
        snprintf(value, value_bytes, "%s", reply->element[1]->str);
    } else {
        r = fail(a, -EOPNOTSUPP, "the server does not tell its %s (%s): name it with %s", name,
                 reply->type == REDIS_REPLY_ERROR ? reply->str : "unexpected reply", strcmp(name, "port") == 0 ? "-p PORT" : "-s PATH");
    }
    freeReplyObject(reply);
    return r;
}

static int open_tcp(const struct attempt *a, redisContext **c)
{
    const struct rshm_endpoint *e = a->e;
    char value[128];
    if (e->path == NULL || e->tcp_given)
        return open_socket(a, NULL, e->host, e->port, c);
    int r = open_socket(a, e->path, NULL, 0, c);
    if (r < 0)
        return r;
    r = ask_setting(a, *c, "port", value, sizeof value);
    redisFree(*c);
    *c = NULL;
    if (r < 0)
        return r;
    if (strcmp(value, "0") == 0)
        return fail(a, -EOPNOTSUPP, "the server has no plain TCP port (port 0 in its configuration)");
    return open_socket(a, NULL, e->host, atoi(value), c);
}

static int open_unix(const struct attempt *a, redisContext **c)
{
    const struct rshm_endpoint *e = a->e;
    char path[128];
    if (e->path != NULL)
        return open_socket(a, e->path, NULL, 0, c);
    if (rshm_endpoint_is_local(e) == 0)
        return fail(a, -EOPNOTSUPP, "%s is another host, and a Unix socket is of this one: use TCP", e->host);
    int r = open_socket(a, NULL, e->host, e->port, c);
    if (r < 0)
        return r;
    r = ask_setting(a, *c, "unixsocket", path, sizeof path);
    redisFree(*c);
    *c = NULL;
    if (r < 0)
        return r;
    if (path[0] == '\0')
        return fail(a, -EOPNOTSUPP, "the server has no Unix socket: set unixsocket in its configuration and restart it");
    if (path[0] != '/')
        return fail(a, -EOPNOTSUPP, "the server's Unix socket '%s' is relative to where the server was started: name it with -s PATH", path);
    return open_socket(a, path, NULL, 0, c);
}

/* Why a server did not let the connection have shared memory. */
static int fail_no_memory(const struct attempt *a, const char *said)
{
    const char *user = a->e->user != NULL ? a->e->user : "default";
    if (strncmp(said, "ERR unknown command", 19) == 0)
        return fail(a, -EOPNOTSUPP, "the server does not have the module: load it with MODULE LOAD /path/to/module-shm.so, or a loadmodule "
                    "line in its configuration");
    if (strncmp(said, "NOPERM", 6) == 0)
        return fail(a, -EOPNOTSUPP, "user %s may not use shared memory: ACL SETUSER %s +shm.open", user, user);
    return fail(a, -EOPNOTSUPP, "no shared memory: %s", strncmp(said, "ERR SHM.OPEN: ", 14) == 0 ? said + 14 : said);
}

static int open_memory(const struct attempt *a, int wait_mode, redisContext **out)
{
    const struct rshm_endpoint *e = a->e;
    if (e->path == NULL && rshm_endpoint_is_local(e) == 0)
        return fail(a, -EOPNOTSUPP, "%s is another host, and shared memory is only within one: use TCP (from a container of the server's host: "
                    "its Unix socket, -s PATH)", e->host);
    int r = open_socket(a, e->path, e->host, e->port, out);
    if (r < 0)
        return r;
    redisContext *c = *out;
    redisReply *reply = redisUseSharedMemory(c);
    int error = errno;
    if (reply == NULL)
        r = fail_broken(a, c, error);
    else if (reply->type == REDIS_REPLY_ERROR)
        r = fail_no_memory(a, reply->str);
    else if (!redisIsSharedMemoryInitialized(c) || (wait_mode >= 0 && redisSetSharedMemoryWaiting(c, wait_mode) != REDIS_OK))
        r = fail(a, -EOPNOTSUPP, "no shared memory: %s", c->errstr[0] != '\0' ? c->errstr : "refused");
    freeReplyObject(reply);
    if (r < 0) {
        redisFree(c);
        *out = NULL;
    }
    return r;
}

int rshm_endpoint_connect(const struct rshm_endpoint *e, enum rshm_transport t, int wait_mode, redisContext **c, char *why,
                          size_t why_bytes)
{
    const struct attempt a = {e, why, why_bytes};
    *c = NULL;
    why[0] = '\0';
    if (e->user != NULL && e->password == NULL)
        return fail(&a, -EACCES, "--user needs a password: -a PASSWORD, or REDISCLI_AUTH in the environment");
    return t == RSHM_TCP ? open_tcp(&a, c) : t == RSHM_UNIX ? open_unix(&a, c) : open_memory(&a, wait_mode, c);
}

/* ---- the server's process ---- */

bool rshm_info_field(const char *info, const char *name, char *value, size_t value_bytes)
{
    size_t n = strlen(name);
    value[0] = '\0';
    for (const char *line = info; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) == 0 && line[n] == ':') {
            snprintf(value, value_bytes, "%.*s", (int)strcspn(line + n + 1, "\r\n"), line + n + 1);
            return true;
        }
    }
    return false;
}

/* Seconds since the process was started, or below 0. */
static double process_age_s(int64_t pid)
{
    char path[64], line[1024];
    double up_s = -1;
    uint64_t start_ticks = 0;
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    FILE *f = fopen(path, "re");
    bool got = f != NULL && fgets(line, sizeof line, f) != NULL;
    if (f != NULL)
        fclose(f);
    const char *after_name = got ? strrchr(line, ')') : NULL; /* a name may hold blanks; start time is the 20th field behind it */
    if (after_name == NULL || sscanf(after_name + 1, " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64,
                                     &start_ticks) != 1)
        return -1;
    f = fopen("/proc/uptime", "re");
    if (f != NULL && fscanf(f, "%lf", &up_s) != 1)
        up_s = -1;
    if (f != NULL)
        fclose(f);
    return up_s < 0 ? -1 : up_s - (double)start_ticks / (double)sysconf(_SC_CLK_TCK);
}

int64_t rshm_endpoint_server_pid(redisContext *c)
{
    struct ucred peer;
    socklen_t peer_bytes = sizeof peer;
    char pid_text[24], up_text[24];
    int64_t pid = 0;
    if (c->connection_type == REDIS_CONN_UNIX && getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) == 0)
        return peer.pid; /* 0 if it is in a namespace of processes that we do not see */
    struct sockaddr_storage address;
    socklen_t address_bytes = sizeof address;
    char host[64];
    if (getpeername(c->fd, (struct sockaddr *)&address, &address_bytes) != 0 ||
        getnameinfo((struct sockaddr *)&address, address_bytes, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
        return 0;
    const struct rshm_endpoint peer_host = {.host = host};
    if (rshm_endpoint_is_local(&peer_host) != 1)
        return 0;
    redisReply *info = redisCommand(c, "INFO server");
    /* The number is that of the server's own namespace of processes: is it the same process here? Then its age is what it says. */
    if (info != NULL && info->str != NULL && rshm_info_field(info->str, "process_id", pid_text, sizeof pid_text) &&
        rshm_info_field(info->str, "uptime_in_seconds", up_text, sizeof up_text)) {
        double age_s = process_age_s(atoll(pid_text)), said_s = atof(up_text);
        if (age_s >= 0 && age_s > said_s - AGE_TOLERANCE_S && age_s < said_s + AGE_TOLERANCE_S)
            pid = atoll(pid_text);
    }
    freeReplyObject(info);
    return pid;
}
