/* keys.c - see keys.h. */
#include "tools/keys.h"

#include <math.h>

void rshm_random_init(struct rshm_random *r, uint64_t seed, uint64_t stream)
{
    uint64_t x = seed + (stream + 1) * 0x9e3779b97f4a7c15u; /* splitmix64: neighbouring seeds give states that have nothing in common */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    r->state = x != 0 ? x : 1;
}

uint64_t rshm_random_next(struct rshm_random *r)
{
    uint64_t x = r->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->state = x;
    return x * 0x2545f4914f6cdd1du;
}

double rshm_random_unit(struct rshm_random *r)
{
    return (double)(rshm_random_next(r) >> 11) * 0x1p-53;
}

uint64_t rshm_random_below(struct rshm_random *r, uint64_t n)
{
    return (uint64_t)((unsigned __int128)rshm_random_next(r) * n >> 64);
}

/* ---- Zipf: h is the density, H its integral, both continued to real numbers; keys count from 1 here ---- */

static double density(const struct rshm_key_choice *k, double x)
{
    return exp(-k->exponent * log(x));
}

/* expm1 and log1p keep exponents near 1 exact, where the integral becomes a logarithm. */
static double integral(const struct rshm_key_choice *k, double x)
{
    double l = log(x), t = (1 - k->exponent) * l;
    return l * (fabs(t) > 1e-8 ? expm1(t) / t : 1 + t / 2);
}

static double inverse(const struct rshm_key_choice *k, double y)
{
    double t = y * (1 - k->exponent);
    if (t < -1)
        t = -1; /* rounding */
    return exp(y * (fabs(t) > 1e-8 ? log1p(t) / t : 1 - t / 2));
}

static uint64_t zipf(const struct rshm_key_choice *k, struct rshm_random *r)
{
    for (;;) {
        double y = k->high + rshm_random_unit(r) * (k->low - k->high);
        double x = inverse(k, y), n = floor(x + 0.5);
        if (n < 1)
            n = 1;
        else if (n > (double)k->keys)
            n = (double)k->keys;
        if (n - x <= k->shortcut || y >= integral(k, n + 0.5) - density(k, n))
            return (uint64_t)n - 1;
    }
}

static uint64_t gaussian(const struct rshm_key_choice *k, struct rshm_random *r)
{
    for (;;) {
        double radius = sqrt(-2 * log(1 - rshm_random_unit(r))), angle = 2 * acos(-1) * rshm_random_unit(r);
        double x = (double)k->keys * (0.5 + radius * cos(angle) / 6);
        if (x >= 0 && x < (double)k->keys)
            return (uint64_t)x;
    }
}

void rshm_keys_init(struct rshm_key_choice *k, enum rshm_keys kind, uint64_t keys, double exponent)
{
    *k = (struct rshm_key_choice){.kind = kind, .keys = keys, .exponent = exponent};
    if (kind != RSHM_KEYS_ZIPF)
        return;
    k->low = integral(k, 1.5) - 1;
    k->high = integral(k, (double)keys + 0.5);
    k->shortcut = 2 - inverse(k, integral(k, 2.5) - density(k, 2));
}

uint64_t rshm_keys_next(const struct rshm_key_choice *k, struct rshm_random *r, uint64_t *position)
{
    uint64_t n;
    switch (k->kind) {
    case RSHM_KEYS_SEQUENTIAL:
        n = *position;
        *position = n + 1 < k->keys ? n + 1 : 0;
        return n;
    case RSHM_KEYS_GAUSSIAN: return gaussian(k, r);
    case RSHM_KEYS_ZIPF: return zipf(k, r);
    case RSHM_KEYS_UNIFORM: break;
    }
    return rshm_random_below(r, k->keys);
}
