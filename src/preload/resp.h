/* resp.h - counts the commands that go out on a socket and the replies that come in, to find the moment when none is outstanding.
 *
 * For the few messages of a login. Any split of the bytes. What it cannot follow (a reply that is more than one, CLIENT REPLY OFF, bytes
 * that are not the protocol) makes it lost for good, and then nothing is ever quiet. No heap; one thread at a time. */
#ifndef RSHM_PRELOAD_RESP_H
#define RSHM_PRELOAD_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rshm_resp_stream {
    char line[24];      /* what is known of the line that is being read */
    unsigned line_bytes;
    uint64_t skip;      /* bytes of a bulk string, its end included */
    uint64_t values;    /* that this message still needs; 0: between two */
    bool push;          /* the message is one that nobody asked for */
};

struct rshm_resp {
    struct rshm_resp_stream out, in;
    uint64_t commands, replies;
    bool first_word;    /* of the command going out comes next */
    bool login;         /* AUTH or HELLO went out since rshm_resp_start() */
    bool lost;
};

void rshm_resp_start(struct rshm_resp *r);
void rshm_resp_sent(struct rshm_resp *r, const char *p, size_t n);
void rshm_resp_received(struct rshm_resp *r, const char *p, size_t n);

/* A login was answered and nothing is outstanding, in either direction. */
static inline bool rshm_resp_quiet(const struct rshm_resp *r)
{
    return r->login && !r->lost && r->commands == r->replies && r->out.values == 0 && r->out.line_bytes == 0 && r->in.values == 0 &&
           r->in.line_bytes == 0;
}

/* Bytes of the push message at p, 0: not complete in n bytes. */
size_t rshm_resp_push_bytes(const char *p, size_t n);

#endif
