/* host.c - see host.h. */
#include "tools/host.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* Plain text without runs of blanks: it goes into a table, JSON and a gnuplot string. */
static void tidy(char *to, size_t to_bytes, const char *from)
{
    size_t n = 0;
    for (; *from != '\0' && n + 1 < to_bytes; from++) {
        char c = isspace((unsigned char)*from) ? ' ' : *from;
        if (c == ' ' && (n == 0 || to[n - 1] == ' '))
            continue;
        if (isalnum((unsigned char)c) || strchr(" ()@.,:/+-_#~", c) != NULL)
            to[n++] = c;
    }
    while (n > 0 && to[n - 1] == ' ')
        n--;
    to[n] = '\0';
}

/* The kernel names the model on x86; on other machines the firmware's device tree names the board, if anybody does. */
static void cpu_model(char *model, size_t model_bytes, const char *machine)
{
    char line[512];
    model[0] = '\0';
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f != NULL && model[0] == '\0' && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (colon != NULL && strncmp(line, "model name", 10) == 0)
            tidy(model, model_bytes, colon + 1);
    }
    if (f != NULL)
        fclose(f);
    if (model[0] == '\0' && (f = fopen("/sys/firmware/devicetree/base/model", "re")) != NULL) {
        if (fgets(line, sizeof line, f) != NULL)
            tidy(model, model_bytes, line);
        fclose(f);
    }
    if (model[0] == '\0')
        snprintf(model, model_bytes, "%s CPU", machine);
}

static int usable_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t holds */
}

void rshm_host_describe(struct rshm_host *h)
{
    struct utsname u;
    char kernel[3 * sizeof u.release];
    *h = (struct rshm_host){.cpus = usable_cpus()};
    if (uname(&u) == 0) {
        snprintf(kernel, sizeof kernel, "%s %s %s", u.sysname, u.release, u.machine);
        tidy(h->kernel, sizeof h->kernel, kernel);
        cpu_model(h->cpu, sizeof h->cpu, u.machine);
    }
    if (getloadavg(&h->load_1m, 1) != 1)
        h->load_1m = 0;
}

int rshm_host_busy(struct rshm_host_busy *b)
{
    uint64_t user, nice_time, system_time, idle, iowait, irq, softirq, steal;
    uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    FILE *f = fopen("/proc/stat", "re");
    if (f == NULL)
        return -errno;
    int n = fscanf(f, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
                   &user, &nice_time, &system_time, &idle, &iowait, &irq, &softirq, &steal);
    fclose(f);
    if (n != 8)
        return -EPROTO;
    b->busy_ns = (user + nice_time + system_time + irq + softirq) * tick_ns;
    b->stolen_ns = steal * tick_ns;
    return 0;
}

uint64_t rshm_process_cpu_ns(pid_t pid)
{
    clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
    struct timespec t;
    /* A process's CPU clock counts nanoseconds; /proc/PID/stat only has ticks of 10 ms, too coarse for a round. */
    if ((pid != 0 && clock_getcpuclockid(pid, &clock) != 0) || clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t thread_switches(const char *status)
{
    char line[256];
    uint64_t sum = 0, n;
    FILE *f = fopen(status, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &n) == 1 || sscanf(line, "nonvoluntary_ctxt_switches: %" SCNu64, &n) == 1)
            sum += n;
    if (f != NULL)
        fclose(f);
    return sum;
}

uint64_t rshm_process_switches(pid_t pid)
{
    char path[300];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    DIR *d = opendir(path);
    if (d == NULL)
        return 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        if (isdigit((unsigned char)e->d_name[0])) {
            snprintf(path, sizeof path, "/proc/%ld/task/%s/status", (long)pid, e->d_name);
            sum += thread_switches(path);
        }
    closedir(d);
    return sum;
}
