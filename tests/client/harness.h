/* harness.h - a real server for the client's tests, connections to it, and someone who acts elsewhere at the same time.
 *
 * REDIS_SERVER  the server to start (default redis-server)
 * RSHM_BUILD    the directory of module-shm.so (default: the one compiled in); under a sanitizer that of the plain build
 * RSHM_SERVER_PRELOAD  LD_PRELOAD of the server, for instance the runtime of a sanitizer that the module was built with
 */
#ifndef RSHM_TEST_HARNESS_H
#define RSHM_TEST_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>
#include <hiredis.h>
#include <hiredis_shm.h>

#define RING_BYTES 65536 /* the module's default */

struct server {
    pid_t pid;
    int port;
    char dir[64];  /* temporary; the server's files */
    char path[96]; /* its Unix socket */
};

/* Starts a server on a free port of 127.0.0.1 and a Unix socket, and waits until it answers. args: further arguments, NULL
 * last, or NULL. module: loads module-shm.so. The kernel kills it if the test program dies. Fails the test if it cannot. */
void server_start(struct server *s, bool module, const char *const *args);
/* Kills it if it still runs and removes its files. Idempotent. */
void server_stop(struct server *s);

/* The one that most tests share; started by group_setup. */
extern struct server shared;
int group_setup(void **state);
int group_teardown(void **state);

/* How a test connects: its cmocka state. */
struct transport {
    const char *name;
    bool unix_socket;
};
extern struct transport transports[2];

redisContext *connect_plain(const struct transport *t, const struct server *s);
redisContext *connect_nonblocking(const struct transport *t, const struct server *s);
/* Blocking and upgraded: fails the test unless redisUseSharedMemory() gave 1. */
redisContext *connect_shm(const struct transport *t, const struct server *s);

/* Both free the reply. */
void reply_is_status(redisReply *r, const char *status);
void reply_is_integer(redisReply *r, long long value);
void reply_is_string(redisReply *r, const char *bytes, size_t n);
void reply_is_error(redisReply *r, const char *part);

/* A figure of SHM.STATS, asked over a plain connection of its own. */
long long shm_stat(const struct server *s, const char *name);
/* Waits up to a second for a figure. */
void await_stat(const struct server *s, const char *name, long long value);

uint64_t now_ms(void);
void sleep_ms(int ms);

/* Waits for c->fd; the waiters below. Fails the test after 5 seconds: a wake-up was lost. Returns true if readable. */
typedef bool wait_fn(int fd, bool write_too);
bool wait_poll(int fd, bool write_too);
bool wait_select(int fd, bool write_too);
bool wait_epoll(int fd, bool write_too);

/* Drives a non-blocking context as an event loop would until it has a reply: reads only when the fd is readable. Returns NULL
 * with c->err set if the connection failed. */
redisReply *await_reply(redisContext *c, wait_fn *wait);

/* Someone else, after ms: a thread that sends a command over a plain connection, or a signal to a process. */
struct later;
struct later *later_command(const struct server *s, int ms, const char *format, ...);
struct later *later_signal(pid_t pid, int signal, int ms);
/* Waits for it; returns when (now_ms) it acted. */
uint64_t later_done(struct later *l);

/* Open fds and mappings of a process. */
int count_fds(pid_t pid);
int count_mappings(pid_t pid, const char *containing);

/* Adds each function once per transport, named "name over TCP" and "... over a Unix socket". */
#define OVER_BOTH(f) {#f, f, NULL}
#define OVER_TCP(f) {#f, f, &transports[0]}
#define OVER_UNIX(f) {#f, f, &transports[1]}
struct named_test {
    const char *name;
    CMUnitTestFunction run;
    struct transport *only; /* NULL: both */
};
int run_over_both(const struct named_test *tests, size_t n);
/* The same with a setup and a teardown of the group of one's own. */
int run_group_over_both(const struct named_test *tests, size_t n, CMFixtureFunction setup, CMFixtureFunction teardown);

#endif
