/* settings.h - what `redis-shm run` tells the preload library, in the environment.
 *
 *     REDIS_SHM_ENDPOINTS   separated by commas: 127.0.0.1:6379, [::1]:7000-7005, /path, @abstract; numeric addresses only
 *     REDIS_SHM_MODE        adaptive, poll or block
 *     REDIS_SHM_REQUIRE     1: a connection that cannot be upgraded fails
 *     REDIS_SHM_REPORT      the file that counts, report.h
 *
 * Read once, when the library is loaded, without a system call. No variable, no endpoint: the library does nothing. */
#ifndef RSHM_PRELOAD_SETTINGS_H
#define RSHM_PRELOAD_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "channel/waiting.h"

#define RSHM_ENV_ENDPOINTS "REDIS_SHM_ENDPOINTS"
#define RSHM_ENV_MODE "REDIS_SHM_MODE"
#define RSHM_ENV_REQUIRE "REDIS_SHM_REQUIRE"
#define RSHM_ENV_REPORT "REDIS_SHM_REPORT"

#define RSHM_NAMED_MAX 16  /* endpoints */
#define RSHM_NAMED_TEXT 112 /* bytes of one, its end included: a Unix socket's path is the longest */

struct rshm_named {
    char text[RSHM_NAMED_TEXT]; /* as given */
    int family;                 /* AF_UNIX, AF_INET, AF_INET6 */
    uint8_t address[16];
    unsigned port_first, port_last;
};

struct rshm_preload_settings {
    struct rshm_named named[RSHM_NAMED_MAX];
    int count;
    enum rshm_wait_mode mode;
    bool require;
    const char *report; /* NULL: nobody counts */
};
extern struct rshm_preload_settings rshm_preload_settings;

/* One endpoint of n bytes. Returns 0 or -EINVAL. Also what `redis-shm run` checks its options with. */
int rshm_named_parse(struct rshm_named *e, const char *text, size_t n);

/* The endpoint that an address belongs to, or -1. A Unix socket is looked up by its file too: two paths may lead there. */
int rshm_named_find(const struct sockaddr *address, socklen_t n);

#endif
