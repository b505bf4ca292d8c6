/* rendezvous.h - how the memory of SHM.OPEN reaches the client: docs/protocol.md "Handshake".
 *
 * Nothing here blocks on a non-blocking socket, nor needs a heap. Any thread. */
#ifndef RSHM_RENDEZVOUS_H
#define RSHM_RENDEZVOUS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "channel/segment.h"

/* Writes 2 * n digits and a zero. */
void rshm_to_hex(const uint8_t *bytes, size_t n, char *out);

/* A token or name that nobody can guess. Returns 0 or -EIO. */
int rshm_random(uint8_t *bytes, size_t n);

/* Listens on a random abstract name, which goes to name (without the zero byte in front). Returns the socket, non-blocking, or -errno. */
int rshm_rendezvous_listen(char name[RSHM_RENDEZVOUS_MAX + 1]);

/* Takes the memory from the one visitor who knows the token, and turns all others away. To be called after the reply to SHM.OPEN: the
 * memory was sent before it, so nobody needs to be waited for. Returns the memory, the caller's from then on, or -1: nobody brought it. */
int rshm_rendezvous_accept(int listener, const uint8_t token[RSHM_TOKEN_BYTES]);

/* recvmsg() that keeps the first descriptor that comes along in *fd (if that is negative) and closes all others. */
ssize_t rshm_receive_fd(int socket, void *buf, size_t cap, int flags, int *fd);

#endif
