/* real.c - finds libc's functions; see real.h. */
#include "preload/real.h"

#include <dlfcn.h>
#include <string.h>

#include "channel/libc.h"

struct rshm_real rshm_real_calls;

static void find(const char *name, void *pointer)
{
    void *f = dlsym(RTLD_NEXT, name);
    memcpy(pointer, &f, sizeof f); /* a data pointer becomes a function's: what POSIX asks of dlsym() */
}

void rshm_real_find(void)
{
#define X(result, name, args) find(#name, &rshm_real_calls.name);
    RSHM_REAL_CALLS(X)
#undef X
    rshm_store_release(&rshm_real_calls.found, 1u); /* W5; two threads at once find the same */
}

ssize_t rshm_libc_send(int fd, const void *p, size_t n, int flags)
{
    return rshm_real()->send(fd, p, n, flags);
}

ssize_t rshm_libc_recv(int fd, void *p, size_t n, int flags)
{
    return rshm_real()->recv(fd, p, n, flags);
}

ssize_t rshm_libc_recvmsg(int fd, struct msghdr *m, int flags)
{
    return rshm_real()->recvmsg(fd, m, flags);
}
