/* wait.h - poll() and select() over connections and any other descriptors. */
#ifndef RSHM_PRELOAD_WAIT_H
#define RSHM_PRELOAD_WAIT_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/select.h>

/* True if one of them needs rshm_preload_poll(). */
bool rshm_poll_has_ours(struct pollfd *fds, nfds_t count);
bool rshm_select_has_ours(int count, const fd_set *in, const fd_set *out, const fd_set *except);

/* As ppoll() and pselect(). timeout_ns: negative for none; *left_ns (or NULL): what is left of it. */
int rshm_preload_poll(struct pollfd *fds, nfds_t count, int64_t timeout_ns, const sigset_t *mask, int64_t *left_ns);
int rshm_preload_select(int count, fd_set *in, fd_set *out, fd_set *except, int64_t timeout_ns, const sigset_t *mask, int64_t *left_ns);

#endif
