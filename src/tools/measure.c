/* measure.c - see measure.h. */
#include "tools/measure.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "hiredis_shm.h"
#include "tools/host.h"
#include "tools/stop.h"
#include "tools/tools.h"

#define KEY "redis-shm:demo"
#define VALUE "0123456789abcdefghijklmnopqrstuv"
_Static_assert(sizeof VALUE - 1 == RSHM_VALUE_BYTES, "the value has the size that is reported");

/* No request takes longer than 1.5e6 a second allow, several times over; a faster machine ends its rounds early. */
#define REQUESTS_PER_S_MAX 8e6
/* A server that hangs must not hang the tool; long beside any pause of a scheduler. */
#define REPLY_TIMEOUT_S 3

static bool use_shared_memory(redisContext *c)
{
    redisReply *reply = redisUseSharedMemory(c);
    bool used = reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1 && redisIsSharedMemoryInitialized(c);
    if (!used)
        rshm_complain("no shared memory: %s",
                      reply == NULL ? c->errstr : reply->type == REDIS_REPLY_ERROR ? reply->str : "refused");
    freeReplyObject(reply);
    return used;
}

redisContext *rshm_link_open(const struct rshm_server *server, enum rshm_transport t)
{
    struct timeval timeout = {.tv_sec = REPLY_TIMEOUT_S};
    redisContext *c = t == RSHM_TCP ? redisConnectWithTimeout("127.0.0.1", server->tcp_port, timeout)
                                    : redisConnectUnixWithTimeout(server->socket_path, timeout);
    if (c != NULL && c->err == 0 && redisSetTimeout(c, timeout) == REDIS_OK && (t != RSHM_MEMORY || use_shared_memory(c)))
        return c;
    if (c == NULL || c->err != 0)
        rshm_complain("no connection over %s: %s", rshm_transport_name(t), c != NULL ? c->errstr : "out of memory");
    redisFree(c);
    return NULL;
}

int rshm_value_store(redisContext *c)
{
    redisReply *reply = redisCommand(c, "SET " KEY " " VALUE);
    bool stored = reply != NULL && reply->type == REDIS_REPLY_STATUS;
    if (!stored)
        rshm_complain("cannot store a value: %s", reply == NULL ? c->errstr : reply->str);
    freeReplyObject(reply);
    return stored ? 0 : -EIO;
}

int rshm_scratch_map(struct rshm_scratch *s, double round_s)
{
    s->room = (size_t)(round_s * REQUESTS_PER_S_MAX) + 1024;
    s->ns = mmap(NULL, s->room * sizeof *s->ns, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (s->ns == MAP_FAILED) {
        *s = (struct rshm_scratch){0};
        return -errno;
    }
    /* Or a fork would mark the pages for copying, and rounds after it would pay for that. */
    madvise(s->ns, s->room * sizeof *s->ns, MADV_DONTFORK);
    return 0;
}

void rshm_scratch_unmap(struct rshm_scratch *s)
{
    if (s->ns != NULL)
        munmap(s->ns, s->room * sizeof *s->ns);
    *s = (struct rshm_scratch){0};
}

int rshm_round_run(redisContext *c, enum rshm_transport t, const struct rshm_server *server, double round_s,
                   struct rshm_scratch *scratch, struct rshm_round *round)
{
    *round = (struct rshm_round){0};
    uint64_t client_cpu_ns = rshm_process_cpu_ns(0), server_cpu_ns = rshm_process_cpu_ns(server->pid);
    uint64_t begin_ns = rshm_now_ns(), end_ns = begin_ns + (uint64_t)(round_s * 1e9), sent_ns, done_ns;
    int error = 0;

    do {
        sent_ns = rshm_now_ns();
        redisReply *reply = redisCommand(c, "GET " KEY);
        done_ns = rshm_now_ns();
        if (reply == NULL) {
            error = errno;
            break;
        }
        if (reply->type != REDIS_REPLY_STRING || reply->len != RSHM_VALUE_BYTES || memcmp(reply->str, VALUE, reply->len) != 0)
            round->errors++;
        freeReplyObject(reply);
        scratch->ns[round->requests++] = done_ns - sent_ns;
    } while (done_ns < end_ns && round->requests < scratch->room && rshm_stop_signal() == 0);

    round->elapsed_ns = rshm_now_ns() - begin_ns;
    round->client_cpu_ns = rshm_process_cpu_ns(0) - client_cpu_ns;
    round->server_cpu_ns = rshm_process_cpu_ns(server->pid) - server_cpu_ns;
    if (c->err != 0) {
        if (rshm_stop_signal() != 0)
            return -EIO;
        if (c->err == REDIS_ERR_TIMEOUT || (c->err == REDIS_ERR_IO && error == EAGAIN))
            rshm_complain("no reply over %s within %d s", rshm_transport_name(t), REPLY_TIMEOUT_S);
        else
            rshm_complain("connection over %s lost: %s", rshm_transport_name(t), c->errstr);
        return -EIO;
    }
    if (t == RSHM_MEMORY && !redisIsSharedMemoryInitialized(c)) {
        rshm_complain("the connection does not use shared memory any more");
        return -EIO;
    }
    return 0;
}
