/* beside.h - how long a plain client waits for its replies while another client keeps the server busy. */
#ifndef RSHM_TEST_BESIDE_H
#define RSHM_TEST_BESIDE_H

#include "harness.h"

enum load { LOAD_NONE, LOAD_UNIX, LOAD_SHM, LOADS };
extern const char *const load_names[LOADS];

struct beside {
    double p50_us, p99_us, p99_9_us, max_us;
    double load_per_s; /* commands of the other client */
};

/* Sends count PINGs over a plain connection, one each gap_us (0: at once after the reply), while a process of its own sends
 * 32-byte GETs flat out, depth of them under way at a time (1: synchronous). Fails the test if a reply is missing. */
void measure_beside(const struct transport *t, const struct server *s, enum load load, int depth, int count, int gap_us, struct beside *out);

#endif
