/* server.h - a private Redis or Valkey server with the module: in a fresh directory of its own, on a free TCP port of 127.0.0.1
 * and a Unix socket, keeping nothing.
 *
 * Lifetime    The caller calls rshm_server_stop() on every way out; signals only raise a flag (stop.h). If the tool is killed
 *             outright, the kernel kills the server; then the directory stays behind.
 * Messages    What goes wrong is explained on stderr, with the end of the server's log where that helps. */
#ifndef RSHM_SERVER_H
#define RSHM_SERVER_H

#include <limits.h>
#include <sys/types.h>
#include <sys/un.h>

struct rshm_server {
    pid_t pid;
    int tcp_port;
    char dir[96];          /* leaves room for the socket's name in an address */
    char socket_path[sizeof((struct sockaddr_un *)0)->sun_path];
    char version[64];      /* "Redis 7.0.15" */
};

/* Finds the server: the given program (a path, or a name in PATH) or, if NULL, the build's own, redis-server, valkey-server.
 * 0, or -ENOENT after saying what to install. */
int rshm_server_find(const char *wanted, char *program, size_t program_bytes);

/* Finds the module: the given path or, if NULL, module-shm.so beside this program or where it is installed. 0, or -ENOENT after a message. */
int rshm_server_find_module(const char *wanted, char module[PATH_MAX]);

/* Starts program with the module (absolute path) loaded and waits until it answers. 0, or -errno after a message; then nothing
 * is left over. -EINTR, without a message: a signal asked this process to end. */
int rshm_server_start(struct rshm_server *s, const char *program, const char *module);

/* Ends the server and removes its directory; also on one that is all zero or has been stopped. */
void rshm_server_stop(struct rshm_server *s);

/* The last lines of its log on stderr: for when its connections fail. */
void rshm_server_show_log(const struct rshm_server *s);

#endif
