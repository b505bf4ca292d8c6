/* doctor_host.c - this machine: the same host, namespaces, CPUs, load; see doctor.h. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "tools/doctor.h"
#include "tools/host.h"
#include "tools/stop.h"

#define LOOK_MS 250            /* at what others and the hypervisor do */
#define STOLEN_SHARE_MANY 0.02 /* of a CPU's time: then it shows in p99 */

/* ---- where the server is ---- */

/* 1: the server's namespace is ours; 0: it is not; -errno: not to be seen. */
static int same_namespace(int64_t pid, const char *which)
{
    char own[64], its[64];
    struct stat a, b;
    snprintf(own, sizeof own, "/proc/self/ns/%s", which);
    snprintf(its, sizeof its, "/proc/%" PRId64 "/ns/%s", pid, which);
    if (stat(own, &a) != 0 || stat(its, &b) != 0)
        return -errno;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void rshm_doctor_place(struct rshm_doctor *d)
{
    bool unix_socket = d->c->connection_type == REDIS_CONN_UNIX;
    const struct rshm_endpoint peer = {.host = d->c->tcp.host};
    if (!unix_socket && rshm_endpoint_is_local(&peer) != 1) {
        rshm_doctor_find(d, RSHM_PROBLEM, "host", "run the client on the server's host (in a container there: with its Unix socket, -s PATH); elsewhere TCP is the way",
                         "%s is another host, and shared memory is only within one", d->c->tcp.host);
        return;
    }
    if (d->server_pid == 0) {
        rshm_doctor_find(d, RSHM_NOTE, "host", "run this where the server's process shows, to be told about its CPUs",
                         unix_socket ? "the Unix socket is of this host; the server's process is in another process namespace"
                                     : "the address is of this host, but the server's process is not seen here: it may be in a container");
        return;
    }
    int same = same_namespace(d->server_pid, "net");
    if (same == 0 && !unix_socket)
        rshm_doctor_find(d, RSHM_PROBLEM, "host", "use the Unix socket: -s PATH, mounted into the container",
                         "process %" PRId64 " is on this host, but in another network namespace: over TCP it cannot hand the memory over", d->server_pid);
    else if (same == 0)
        rshm_doctor_find(d, RSHM_FINE, "host", NULL, "process %" PRId64 " is on this host, in another network namespace; the Unix socket reaches it",
                         d->server_pid);
    else
        rshm_doctor_find(d, RSHM_FINE, "host", NULL, "process %" PRId64 " is on this host%s", d->server_pid,
                         same == 1 ? ", in the same network namespace" : "");
}

/* ---- CPUs ---- */

/* How many CPUs a control group's quota allows; below 0: no quota, or not to be seen. Of process pid; 0: this one. */
static double quota_cpus(int64_t pid, char *group, size_t group_bytes)
{
    char path[PATH_MAX], line[PATH_MAX];
    double quota_us = -1, period_us = 0;
    group[0] = '\0';
    snprintf(path, sizeof path, pid == 0 ? "/proc/self/cgroup" : "/proc/%" PRId64 "/cgroup", pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "0::/", 4) == 0)
            snprintf(group, group_bytes, "/sys/fs/cgroup/%.*s", (int)strcspn(line + 4, "\n"), line + 4);
    if (f != NULL)
        fclose(f);
    if (group[0] == '\0' || (size_t)snprintf(path, sizeof path, "%s/cpu.max", group) >= sizeof path || (f = fopen(path, "re")) == NULL)
        return -1;
    if (fscanf(f, "%lf %lf", &quota_us, &period_us) != 2) /* "max 100000" is no number */
        quota_us = -1;
    fclose(f);
    return quota_us > 0 && period_us > 0 ? quota_us / period_us : -1;
}

/* The memory of a session is charged to the server's control group. */
static void check_memory(struct rshm_doctor *d, const char *group)
{
    char path[PATH_MAX + 32];
    uint64_t values[2];
    static const char *const names[] = {"memory.max", "memory.current"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", group, names[i]);
        FILE *f = fopen(path, "re");
        bool got = f != NULL && fscanf(f, "%" SCNu64, &values[i]) == 1; /* "max": no limit */
        if (f != NULL)
            fclose(f);
        if (!got)
            return;
    }
    double share = values[0] > 0 ? (double)values[1] / (double)values[0] : 0;
    if (share > 0.9)
        rshm_doctor_find(d, RSHM_NOTE, "memory", "raise the limit: sessions need memory of it too",
                         "the server's control group uses %.0f %% of its memory limit", share * 100);
}

static void check_quota(struct rshm_doctor *d, int64_t pid, const char *whose)
{
    char group[PATH_MAX];
    double cpus = quota_cpus(pid, group, sizeof group);
    if (cpus > 0 && cpus < 1)
        rshm_doctor_find(d, RSHM_NOTE, "cpus", "raise the quota to a whole CPU at least, or shm.wait-mode block",
                         "%s may use %.2f of a CPU: it is stopped when that is used up, for milliseconds, and spinning uses it up", whose, cpus);
    if (pid != 0 && group[0] != '\0')
        check_memory(d, group);
}

static void check_cpus(struct rshm_doctor *d)
{
    cpu_set_t ours, its, both, shared;
    if (sched_getaffinity(0, sizeof ours, &ours) != 0)
        return; /* more CPUs than a cpu_set_t has room for: enough */
    bool seen = d->server_pid != 0 && sched_getaffinity((pid_t)d->server_pid, sizeof its, &its) == 0;
    if (!seen)
        its = ours;
    CPU_OR(&both, &ours, &its);
    CPU_AND(&shared, &ours, &its);
    if (CPU_COUNT(&both) == 1)
        rshm_doctor_find(d, RSHM_NOTE, "cpus", "give client and server a CPU each (taskset, cpuset, more virtual CPUs)",
                         "client and server have one CPU between them: they take turns, and a request costs two switches");
    else if (seen && CPU_COUNT(&its) == 1)
        rshm_doctor_find(d, RSHM_NOTE, "cpus", "fine for a pinned server, if clients are kept off this CPU",
                         "the server may only use one CPU%s", CPU_COUNT(&shared) > 0 ? ", and this client may use it too" : "");
    else if (seen)
        rshm_doctor_find(d, RSHM_FINE, "cpus", NULL, "%d CPUs for this client, %d for the server", CPU_COUNT(&ours), CPU_COUNT(&its));
    else
        rshm_doctor_find(d, RSHM_FINE, "cpus", NULL, "%d CPUs for this client", CPU_COUNT(&ours));
}

static void check_load(struct rshm_doctor *d)
{
    struct rshm_host host;
    struct rshm_host_busy before, after;
    uint64_t begin_ns = rshm_now_ns(), own_ns = rshm_process_cpu_ns(0);
    rshm_host_describe(&host);
    int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN); /* the load is that of the whole machine, whatever this process may use */
    if (rshm_host_busy(&before) < 0)
        return;
    for (uint64_t left_ms = LOOK_MS; left_ms > 0 && left_ms <= LOOK_MS && rshm_stop_signal() == 0;) {
        rshm_sleep_ms((int)left_ms);
        left_ms = LOOK_MS - (rshm_now_ns() - begin_ns) / 1000000;
    }
    if (rshm_host_busy(&after) < 0)
        return;
    double elapsed_ns = (double)(rshm_now_ns() - begin_ns);
    double busy = ((double)(after.busy_ns - before.busy_ns) - (double)(rshm_process_cpu_ns(0) - own_ns)) / elapsed_ns;
    double stolen = (double)(after.stolen_ns - before.stolen_ns) / elapsed_ns;
    busy = busy < 0 ? 0 : busy;
    if (host.load_1m > cpus || busy > cpus - 0.5)
        rshm_doctor_find(d, RSHM_NOTE, "load", "expect slow requests now and then: whoever has to wait for a CPU waits for milliseconds",
                         "load %.2f and %.1f CPUs busy now, on %d", host.load_1m, busy, cpus);
    else
        rshm_doctor_find(d, RSHM_FINE, "load", NULL, "load %.2f and %.1f CPUs busy now, on %d", host.load_1m, busy, cpus);
    if (stolen > STOLEN_SHARE_MANY)
        rshm_doctor_find(d, RSHM_NOTE, "stolen", "ask for dedicated CPUs, if slow requests matter",
                         "the hypervisor gave %.0f %% of a CPU's time to others meanwhile", stolen * 100);
}

void rshm_doctor_host(struct rshm_doctor *d)
{
    check_cpus(d);
    check_quota(d, 0, "this client");
    if (d->server_pid != 0)
        check_quota(d, d->server_pid, "the server");
    check_load(d);
}
