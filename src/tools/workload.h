/* workload.h - what a benchmark asks the server: command templates, keys and values, made into requests, and what replies to expect.
 *
 * Template    words as in a shell ('...' and "..." quote); in them __key__ stands for a key, drawn anew each time, and __data__ for a
 *             value of that key. The names get and set stand for GET __key__ and SET __key__ __data__, mixed for both.
 * Values      The value of a key is a stretch of one block of random letters that begins where the key's number says, so a reply that
 *             belongs to another key, or is cut short, is noticed without a list of what was stored.
 * Keys        "redis-shm:bench:SIZE:NUMBER", twelve digits: nobody else's keys are touched.
 * Ownership   A workload is read-only once made, and shared by threads; a generator belongs to one thread, and outlives its requests.
 */
#ifndef RSHM_WORKLOAD_H
#define RSHM_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/keys.h"

struct redisContext;
struct redisReply;

#define RSHM_WORDS_MAX 64
#define RSHM_VALUE_BYTES_MAX (64u << 20)

/* What a command answers, as far as it can be known beforehand. */
enum rshm_answer { RSHM_ANSWER_UNKNOWN, RSHM_ANSWER_OK, RSHM_ANSWER_PONG, RSHM_ANSWER_STORED, RSHM_ANSWER_ECHO };

struct rshm_command {
    int words;
    char *word[RSHM_WORDS_MAX];
    bool has_key, has_data;
    bool reads_strings; /* only of use with the keys filled with values */
    enum rshm_answer answer;
};

/* The value's size of a workload: drawn anew for each request when the two differ. */
struct rshm_value_size {
    size_t min_bytes, max_bytes;
};

struct rshm_workload {
    struct rshm_command commands[2]; /* the second only in a mix */
    double first_share;              /* of commands[0], 0 to 1 */
    struct rshm_key_choice keys;
    uint64_t seed;
    char *pool;
    size_t pool_bytes;
};

/* text: the template. sets and gets: their parts in `mixed`. value_bytes_max: of the largest value that will be asked for.
 * 0, -EINVAL after a complaint about the option, or -ENOMEM. */
int rshm_workload_init(struct rshm_workload *w, const char *text, double sets, double gets, const struct rshm_key_choice *keys,
                       uint64_t seed, size_t value_bytes_max);
void rshm_workload_free(struct rshm_workload *w);

bool rshm_workload_is_verifiable(const struct rshm_workload *w);
/* Whether values make a difference: a command has __data__, or reads what was filled in. */
bool rshm_workload_has_values(const struct rshm_workload *w);
bool rshm_workload_has_keys(const struct rshm_workload *w);

/* Stores every key of this size, if a command reads them. Gives up when a signal asks for it. 0, -EINTR, or -EIO with why. */
int rshm_workload_fill(const struct rshm_workload *w, const struct rshm_value_size *size, struct redisContext *c, char *why, size_t why_bytes);
/* Deletes them again. The same results. */
int rshm_workload_clean(const struct rshm_workload *w, const struct rshm_value_size *size, struct redisContext *c, char *why, size_t why_bytes);

/* ---- requests ---- */

struct rshm_expected {
    uint64_t key;
    size_t value_bytes; /* of what was sent */
    enum rshm_answer answer;
};

struct rshm_patch {
    size_t offset;
    bool is_key; /* else data */
};

struct rshm_generator {
    const struct rshm_workload *workload;
    struct rshm_value_size size;
    struct rshm_random random;
    uint64_t position;
    struct rshm_prepared {
        char *bytes; /* the request, with places for keys and values; of a drawn size: made anew each time */
        size_t bytes_count, patches;
        struct rshm_patch patch[RSHM_WORDS_MAX];
    } prepared[2];
    char *made, *scratch; /* for a drawn size: the last request, and room for its words */
    size_t scratch_bytes;
    bool fixed;           /* nothing differs from request to request */
};

/* stream and streams: which of how many generators this is; a sequence of keys is divided among them. 0 or -ENOMEM. */
int rshm_generator_init(struct rshm_generator *g, const struct rshm_workload *w, const struct rshm_value_size *size, size_t stream, size_t streams);
void rshm_generator_free(struct rshm_generator *g);

/* The next request in RESP, valid until the next call. Returns its length, 0 if out of memory. */
size_t rshm_generator_next(struct rshm_generator *g, const char **bytes, struct rshm_expected *expected);

enum rshm_verdict { RSHM_REPLY_RIGHT, RSHM_REPLY_ERROR, RSHM_REPLY_WRONG };

/* Without verify only error replies are seen. */
enum rshm_verdict rshm_reply_judge(const struct rshm_generator *g, const struct rshm_expected *e, const struct redisReply *reply, bool verify);
/* What was expected and what came, in a line. */
void rshm_reply_explain(const struct rshm_expected *e, const struct redisReply *reply, char *text, size_t text_bytes);

#endif
