/* open_args.h - what a client says in SHM.OPEN, and what the server says of the client: texts to numbers, without a server, so that they can be
 * tried on anything (tests/fuzz/fuzz_open_args.c). Pure functions: any thread, no allocation, errno untouched.
 */
#ifndef RSHM_OPEN_ARGS_H
#define RSHM_OPEN_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/segment.h"

#define RSHM_OPEN_ARGS 6 /* at most, the command's name included; at least three */

struct rshm_open_arg {
    const char *s; /* not ended by a zero */
    size_t n;
};

struct rshm_open_request {
    uint8_t token[RSHM_TOKEN_BYTES];
    const char *rendezvous; /* in the arguments; NULL: the socket itself carries the memory */
    size_t rendezvous_bytes;
    int mode; /* -1: default; else at most 0777 */
};

enum rshm_open_parsed { RSHM_OPEN_FINE, RSHM_OPEN_BAD_VERSION, RSHM_OPEN_BAD_TOKEN, RSHM_OPEN_BAD_RENDEZVOUS, RSHM_OPEN_BAD_MODE };

/* args: argc of them, 3 to RSHM_OPEN_ARGS. *r is whole only with RSHM_OPEN_FINE. */
enum rshm_open_parsed rshm_open_parse(const struct rshm_open_arg *args, int argc, struct rshm_open_request *r);

/* A number of a row of CLIENT LIST, [row, row_end): name is that of the field with its "=", after a blank. Returns false if it is not there, not
 * a number, or longer than 23 digits. */
bool rshm_row_field(const char *row, const char *row_end, const char *name, long long *value);

#endif
