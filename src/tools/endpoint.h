/* endpoint.h - which server a subcommand talks to, over which transport, and as whom; the options that say so.
 *
 * Ownership   The strings are the caller's, usually argv's: they outlive the struct. A redisContext is freed with redisFree().
 * Threads     Any; several connections to one endpoint may be opened at once.
 * Blocking    Connecting, and each reply while connecting, takes RSHM_ENDPOINT_TIMEOUT_S at most; a look-up of a host's name takes as
 *             long as the system's resolver does. */
#ifndef RSHM_ENDPOINT_H
#define RSHM_ENDPOINT_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redisContext;

enum rshm_transport { RSHM_TCP, RSHM_UNIX, RSHM_MEMORY };
#define RSHM_TRANSPORTS 3

const char *rshm_transport_id(enum rshm_transport t);   /* tcp, unix, shm: as in options and JSON */
const char *rshm_transport_name(enum rshm_transport t); /* for people */
/* From an id. 0, or -EINVAL after a complaint that names the option. */
int rshm_transport_parse(const char *option, const char *text, enum rshm_transport *t);

#define RSHM_ENDPOINT_TIMEOUT_S 3

struct rshm_endpoint {
    const char *host;
    int port;
    const char *path;            /* Unix socket; NULL: not named */
    const char *user, *password; /* NULL: none */
    int resp;                    /* 2 or 3 */
    int db;
    bool tcp_given;              /* host or port was named: else, with a path, the port is asked from the server */
    bool password_given;         /* with an option, not by the environment: then a server without a password is an error */
};

/* 127.0.0.1:6379, RESP2, database 0; the password from the environment's REDISCLI_AUTH, as redis-cli does. */
void rshm_endpoint_init(struct rshm_endpoint *e);

/* For getopt_long(): the letters, the entries, and what --help says of them. */
#define RSHM_ENDPOINT_SHORT "h:p:s:a:n:3"
#define RSHM_ENDPOINT_LONG                                                                                                        \
    {"host", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'}, {"socket", required_argument, NULL, 's'},     \
    {"pass", required_argument, NULL, 'a'}, {"user", required_argument, NULL, RSHM_ENDPOINT_USER},                                \
    {"db", required_argument, NULL, 'n'}, {"resp3", no_argument, NULL, '3'}
#define RSHM_ENDPOINT_USER 0x7e01 /* beyond any letter and any subcommand's own numbers */
#define RSHM_ENDPOINT_HELP                                                                                                        \
    "  -h, --host HOST       the server's host (default 127.0.0.1)\n"                                                             \
    "  -p, --port PORT       its TCP port (default 6379)\n"                                                                       \
    "  -s, --socket PATH     its Unix socket; without it the server is asked over TCP where it is\n"                              \
    "  -a, --pass PASSWORD   password; REDISCLI_AUTH in the environment does not show in the process list\n"                      \
    "      --user NAME       ACL user, with a password\n"                                                                         \
    "  -n, --db N            database\n"                                                                                          \
    "  -3, --resp3           speak RESP3\n"

/* An option that getopt_long() returned. 1: taken; 0: not one of these; -EINVAL after a complaint. */
int rshm_endpoint_option(struct rshm_endpoint *e, int opt, const char *arg);

/* "127.0.0.1:6379" or the path, as far as it is known without asking the server. Returns text. */
const char *rshm_endpoint_describe(const struct rshm_endpoint *e, enum rshm_transport t, char *text, size_t text_bytes);

/* The same of an open connection: where it really leads. */
const char *rshm_endpoint_peer(const struct redisContext *c, char *text, size_t text_bytes);

/* 1: the host is this machine (one of its addresses; a container's forwarded port looks like it too); 0: another; -EHOSTUNREACH: the
 * name cannot be resolved. */
int rshm_endpoint_is_local(const struct rshm_endpoint *e);

/* Opens a connection, authenticated and with the database selected, in shared memory for RSHM_MEMORY (over the Unix socket if its path was
 * given, else TCP on this host). The socket's timeout stays RSHM_ENDPOINT_TIMEOUT_S. wait_mode: REDIS_SHM_WAIT_..., or -1 for the
 * default; only RSHM_MEMORY looks at it.
 *
 * Returns 0 with *c; else *c is NULL and `why` has a line that says what happened and what to do:
 * -EOPNOTSUPP    the server is there, but not this transport: no module, not this host, refused by ACL or a limit, no Unix socket
 * -EACCES        wrong password or user, or one is needed
 * -EAGAIN        the server is loading its data
 * -ECONNREFUSED, -ENOENT, -ETIMEDOUT, -EHOSTUNREACH, ...   cannot be reached
 * -EPROTO        it does not answer as a Redis server does
 * -ENOMEM */
int rshm_endpoint_connect(const struct rshm_endpoint *e, enum rshm_transport t, int wait_mode, struct redisContext **c, char *why,
                          size_t why_bytes);

/* The process id of the server behind c if it runs on this host and shows in this process's /proc, else 0. One INFO. */
int64_t rshm_endpoint_server_pid(struct redisContext *c);

/* "name:value" of an INFO text, into value (empty if not there). Returns true if there. */
bool rshm_info_field(const char *info, const char *name, char *value, size_t value_bytes);

#endif
