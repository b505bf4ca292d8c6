/* measure.h - synchronous GETs over one connection, each one timed and its reply checked. */
#ifndef RSHM_MEASURE_H
#define RSHM_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include "tools/endpoint.h"
#include "tools/server.h"

/* Connects to the server. NULL after a message, also if shared memory was asked for and is not to be had. */
struct redisContext *rshm_link_open(const struct rshm_server *server, enum rshm_transport t);

#define RSHM_VALUE_BYTES 32

/* Stores the value that rounds read. 0, or -EIO after a message. */
int rshm_value_store(struct redisContext *c);

/* Room for the samples of one round, mapped beforehand so that a round meets no page fault of its own making. */
struct rshm_scratch {
    uint64_t *ns;
    size_t room;
};
int rshm_scratch_map(struct rshm_scratch *s, double round_s); /* 0 or -errno */
void rshm_scratch_unmap(struct rshm_scratch *s);

struct rshm_round {
    size_t requests;         /* samples, from the start of the scratch memory */
    size_t errors;           /* replies that were not the value */
    uint64_t elapsed_ns;
    uint64_t client_cpu_ns, server_cpu_ns;
};

/* One round: for round_s seconds, or until a signal asks to stop. A sample is the time in redisCommand(), from the call to the
 * parsed reply. 0; -EIO if the connection is lost or has left shared memory, after a message. */
int rshm_round_run(struct redisContext *c, enum rshm_transport t, const struct rshm_server *server, double round_s,
                   struct rshm_scratch *scratch, struct rshm_round *round);

#endif
