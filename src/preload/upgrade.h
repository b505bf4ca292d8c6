/* upgrade.h - from connect() to shared memory: docs/protocol.md "Handshake", a step at a time, so that a program that does not block is
 * not blocked.
 *
 * Blocking    rshm_upgrade_settle() may; nothing else. errno is kept. */
#ifndef RSHM_PRELOAD_UPGRADE_H
#define RSHM_PRELOAD_UPGRADE_H

#include "preload/conn.h"

/* What a step found. But for LATER and STRAY the connection's state has changed; after PLAIN it is gone, and not entered any more. */
enum rshm_step {
    RSHM_STEP_LATER, /* nothing yet: look again when the socket is readable (CONNECTING: writable) */
    RSHM_STEP_STRAY, /* something for the program comes first: c->stray bytes */
    RSHM_STEP_ON,    /* OPENING, LOGIN, OPEN or FAILED now */
    RSHM_STEP_PLAIN  /* a socket as it was, libc's affair from now on */
};

/* With c entered: sends SHM.OPEN. The socket is connected and nothing is unanswered. */
enum rshm_step rshm_upgrade_start(struct rshm_conn *c, int fd);

/* With c entered, in state CONNECTING or OPENING: as far as it goes without waiting. */
enum rshm_step rshm_upgrade_step(struct rshm_conn *c, int fd);

/* Without c entered: waits until c is neither CONNECTING nor OPENING, timeout_ms at most (-1: as long as it takes). Returns 0, -EAGAIN
 * (timeout), -EINTR. */
int rshm_upgrade_settle(struct rshm_conn *c, int fd, int timeout_ms);

#endif
