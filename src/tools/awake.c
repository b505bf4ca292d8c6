/* awake.c - see awake.h. */
#include "tools/awake.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/host.h"
#include "tools/stop.h"

/* Tells the parent 0 or an errno through `ready`. Without the idle class it must not spin: it would compete with what is
 * measured. */
static void stay_busy(int cpu, pid_t parent, int ready)
{
    struct sched_param priority = {0};
    cpu_set_t set;
    int error = 0;
    rshm_stop_child(parent);
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0 || sched_setscheduler(0, SCHED_IDLE, &priority) != 0)
        error = errno;
    if (write(ready, &error, sizeof error) != sizeof error || error != 0)
        _exit(1);
    close(ready);
    for (;;) /* no pause instruction: a hypervisor takes a loop of them as a reason to take the CPU away */
        __asm__ __volatile__("" ::: "memory");
}

static int start_one(struct rshm_awake *a, int cpu)
{
    int ready[2], error = 0;
    pid_t parent = getpid();
    if (pipe2(ready, O_CLOEXEC) != 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0) {
        error = errno;
        close(ready[0]);
        close(ready[1]);
        return -error;
    }
    if (pid == 0)
        stay_busy(cpu, parent, ready[1]);
    a->pids[a->count++] = pid;
    close(ready[1]);
    ssize_t n;
    while ((n = read(ready[0], &error, sizeof error)) < 0 && errno == EINTR)
        ;
    close(ready[0]);
    return n != sizeof error ? -ECHILD : -error;
}

int rshm_awake_start(struct rshm_awake *a)
{
    cpu_set_t set;
    *a = (struct rshm_awake){0};
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return -errno;
    a->pids = calloc((size_t)CPU_COUNT(&set), sizeof *a->pids);
    if (a->pids == NULL)
        return -ENOMEM;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &set))
            continue;
        int r = start_one(a, cpu);
        if (r < 0) {
            rshm_awake_stop(a);
            return r;
        }
    }
    return 0;
}

uint64_t rshm_awake_cpu_ns(const struct rshm_awake *a)
{
    uint64_t ns = 0;
    for (int i = 0; i < a->count; i++)
        ns += rshm_process_cpu_ns(a->pids[i]);
    return ns;
}

void rshm_awake_stop(struct rshm_awake *a)
{
    /* SIGKILL to all first: there is nothing for them to clean up. */
    for (int i = 0; i < a->count; i++)
        kill(a->pids[i], SIGKILL);
    for (int i = 0; i < a->count; i++)
        while (waitpid(a->pids[i], NULL, 0) < 0 && errno == EINTR)
            ;
    free(a->pids);
    *a = (struct rshm_awake){0};
}
