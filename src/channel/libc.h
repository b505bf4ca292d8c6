/* libc.h - how the layers below make system calls on a connection's own socket.
 *
 * The preload library exports functions of libc's names; a call by name from inside it would come back to its own. It is built with
 * RSHM_PRELOAD and defines rshm_libc_*, which are libc's. Everywhere else RSHM_LIBC(send) is send. */
#ifndef RSHM_LIBC_H
#define RSHM_LIBC_H

#include <sys/socket.h>
#include <sys/types.h>

#ifdef RSHM_PRELOAD
ssize_t rshm_libc_send(int fd, const void *p, size_t n, int flags);
ssize_t rshm_libc_recv(int fd, void *p, size_t n, int flags);
ssize_t rshm_libc_recvmsg(int fd, struct msghdr *m, int flags);
#define RSHM_LIBC(call) rshm_libc_##call
#else
#define RSHM_LIBC(call) call
#endif

#endif
