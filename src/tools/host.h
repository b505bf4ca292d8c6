/* host.h - the machine that figures were measured on, and who else used it meanwhile. */
#ifndef RSHM_HOST_H
#define RSHM_HOST_H

#include <stdint.h>
#include <sys/types.h>

struct rshm_host {
    char cpu[96];     /* the model, plain ASCII without quotes */
    char kernel[128]; /* "Linux 6.1.0 x86_64" */
    int cpus;         /* that this process may use */
    double load_1m;
};

void rshm_host_describe(struct rshm_host *h);

/* CPU time of all processes and interrupts so far, and what the hypervisor took, over all CPUs. 0, or -errno: then unknown. */
struct rshm_host_busy {
    uint64_t busy_ns, stolen_ns;
};
int rshm_host_busy(struct rshm_host_busy *b);

/* CPU time that a process has used, all threads, user and system; pid 0: this one. 0 if it cannot be told. */
uint64_t rshm_process_cpu_ns(pid_t pid);

/* How often the threads that a process has now have been taken off a CPU, by themselves or by the scheduler. 0 if it cannot be told. */
uint64_t rshm_process_switches(pid_t pid);

#endif
