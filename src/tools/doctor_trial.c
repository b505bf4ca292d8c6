/* doctor_trial.c - a session of shared memory, and the same PINGs over it and over a socket; see doctor.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "hiredis_shm.h"
#include "tools/doctor.h"
#include "tools/stats.h"
#include "tools/stop.h"

#define PINGS 1000
#define WARM_UP_NS 100000000u /* both sides learn that the other is awake, and may have to leave a CPU that they share: up to 30 ms */

/* False: the connection failed, or a reply was wrong. */
static bool pings(redisContext *c, uint64_t *ns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t begin_ns = rshm_now_ns();
        redisReply *reply = redisCommand(c, "PING");
        uint64_t took_ns = rshm_now_ns() - begin_ns;
        bool right = reply != NULL && reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "PONG") == 0;
        freeReplyObject(reply);
        if (!right)
            return false;
        if (ns != NULL)
            ns[i] = took_ns;
    }
    return true;
}

static void compare(struct rshm_doctor *d, redisContext *memory)
{
    static uint64_t ns[2][PINGS];
    const char *socket_name = rshm_transport_name(d->c->connection_type == REDIS_CONN_UNIX ? RSHM_UNIX : RSHM_TCP);
    /* The socket first, as it finds the machine: sessions leave client and server on two CPUs. */
    redisContext *both[] = {d->c, memory};
    bool right = true;
    for (int i = 0; right && i < 2; i++) {
        for (uint64_t end_ns = rshm_now_ns() + WARM_UP_NS; right && rshm_now_ns() < end_ns && rshm_stop_signal() == 0;)
            right = pings(both[i], NULL, 1);
        right = right && pings(both[i], ns[i], PINGS);
    }
    if (!right || !redisIsSharedMemoryInitialized(memory)) {
        rshm_doctor_find(d, RSHM_PROBLEM, "trial", "the server's log may say more", "a session was opened, but PING over it failed: %s",
                         memory->errstr[0] != '\0' ? memory->errstr : d->c->errstr[0] != '\0' ? d->c->errstr : "wrong reply");
        return;
    }
    d->works = true;
    struct rshm_summary s = rshm_summarise(ns[0], PINGS), m = rshm_summarise(ns[1], PINGS);
    bool faster = m.p50_ns < s.p50_ns;
    rshm_doctor_find(d, faster ? RSHM_FINE : RSHM_NOTE, "trial",
                     faster ? NULL : "look at CPUs, load and waiting above; redis-shm latency --rate 0 measures for longer",
                     "shared memory works: PING takes %.2f us (p50; p99 %.2f), over %s %.2f us (p99 %.2f)", (double)m.p50_ns / 1e3,
                     (double)m.p99_ns / 1e3, socket_name, (double)s.p50_ns / 1e3, (double)s.p99_ns / 1e3);
}

void rshm_doctor_trial(struct rshm_doctor *d)
{
    char why[384];
    redisContext *memory;
    int r = rshm_endpoint_connect(&d->endpoint, RSHM_MEMORY, -1, &memory, why, sizeof why);
    if (r < 0) {
        rshm_doctor_find(d, RSHM_PROBLEM, "trial", "and run this again", "%s", why);
        return;
    }
    compare(d, memory);
    redisFree(memory);
}
