/* keys.h - which key the next request is for: a number below `keys`, drawn uniformly, in sequence, or with some more often than others.
 *
 * Gaussian    mean in the middle, standard deviation keys / 6; what falls outside is drawn again.
 * Zipf        number k (from 0) in proportion to 1 / (k + 1)^exponent: key 0 is the most wanted. Drawn without tables, by
 *             rejection-inversion (W. Hörmann, G. Derflinger: Rejection-inversion to generate variates from monotone discrete
 *             distributions, ACM TOMACS 6, 1996).
 * Threads     struct rshm_key_choice is not written after rshm_keys_init(): shared. struct rshm_random: one a thread. */
#ifndef RSHM_KEYS_H
#define RSHM_KEYS_H

#include <stdint.h>

/* xorshift64*: enough for load, and repeatable. */
struct rshm_random {
    uint64_t state;
};
/* Different streams of one seed are independent of each other. */
void rshm_random_init(struct rshm_random *r, uint64_t seed, uint64_t stream);
uint64_t rshm_random_next(struct rshm_random *r);
double rshm_random_unit(struct rshm_random *r); /* 0 <= x < 1 */
uint64_t rshm_random_below(struct rshm_random *r, uint64_t n);

enum rshm_keys { RSHM_KEYS_UNIFORM, RSHM_KEYS_SEQUENTIAL, RSHM_KEYS_GAUSSIAN, RSHM_KEYS_ZIPF };

struct rshm_key_choice {
    enum rshm_keys kind;
    uint64_t keys;     /* > 0 */
    double exponent;   /* of Zipf's law, > 0 */
    double low, high, shortcut; /* what the drawing of Zipf's law computes once */
};

void rshm_keys_init(struct rshm_key_choice *k, enum rshm_keys kind, uint64_t keys, double exponent);

/* The next key. position: where a sequence is, the caller's; 0 at first, or wherever it is to begin. */
uint64_t rshm_keys_next(const struct rshm_key_choice *k, struct rshm_random *r, uint64_t *position);

#endif
