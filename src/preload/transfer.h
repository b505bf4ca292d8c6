/* transfer.h - reading and writing on a connection, as libc's calls do: they return a count or -1 with errno.
 *
 * Blocking    As the socket would: by O_NONBLOCK, MSG_DONTWAIT, SO_RCVTIMEO and SO_SNDTIMEO, EINTR.
 * Threads     Any number; one reads while another writes. */
#ifndef RSHM_PRELOAD_TRANSFER_H
#define RSHM_PRELOAD_TRANSFER_H

#include "preload/conn.h"

/* RSHM_NOT_OURS: it is a plain socket now: call libc. */
#define RSHM_NOT_OURS (-2)
ssize_t rshm_transfer_in(struct rshm_conn *c, int fd, const struct iovec *iov, int iovcnt, int flags);
ssize_t rshm_transfer_out(struct rshm_conn *c, int fd, const struct iovec *iov, int iovcnt, int flags);

/* What poll() would say, of POLLIN, POLLOUT, POLLRDHUP, POLLERR, POLLHUP, for an OPEN or FAILED connection. With c entered. */
short rshm_transfer_readiness(struct rshm_conn *c);

#endif
