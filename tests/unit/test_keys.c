/* test_keys.c - the keys that a benchmark asks for follow the distribution that was asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "tools/keys.h"

#define KEYS 100
#define DRAWS 1000000

static void draw(enum rshm_keys kind, double exponent, uint64_t seed, unsigned count[KEYS])
{
    struct rshm_key_choice k;
    struct rshm_random r;
    uint64_t position = 0;
    rshm_keys_init(&k, kind, KEYS, exponent);
    rshm_random_init(&r, seed, 0);
    memset(count, 0, KEYS * sizeof *count);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t n = rshm_keys_next(&k, &r, &position);
        assert_true(n < KEYS);
        count[n]++;
    }
}

/* Pearson's statistic; with 99 degrees of freedom it is above 180 once in a million times, and the seeds are fixed. */
static double chi_square(const unsigned count[KEYS], const double share[KEYS])
{
    double sum = 0;
    for (int i = 0; i < KEYS; i++)
        sum += pow(count[i] - share[i] * DRAWS, 2) / (share[i] * DRAWS);
    return sum;
}

static void uniform_keys_are_equally_frequent(void **state)
{
    unsigned count[KEYS];
    double share[KEYS];
    (void)state;
    for (int i = 0; i < KEYS; i++)
        share[i] = 1.0 / KEYS;
    draw(RSHM_KEYS_UNIFORM, 0, 1, count);
    assert_true(chi_square(count, share) < 180);
}

static void a_sequence_takes_every_key_in_turn(void **state)
{
    struct rshm_key_choice k;
    struct rshm_random r;
    uint64_t position = 40;
    (void)state;
    rshm_keys_init(&k, RSHM_KEYS_SEQUENTIAL, KEYS, 0);
    rshm_random_init(&r, 1, 0);
    for (uint64_t i = 0; i < 3 * KEYS; i++)
        assert_int_equal(rshm_keys_next(&k, &r, &position), (40 + i) % KEYS);
}

static void gaussian_keys_follow_the_bell_curve(void **state)
{
    unsigned count[KEYS];
    double share[KEYS], sum = 0;
    (void)state;
    for (int i = 0; i < KEYS; i++) {
        share[i] = 0.5 * (erf((i + 1 - 50.0) / (KEYS / 6.0) / sqrt(2)) - erf((i - 50.0) / (KEYS / 6.0) / sqrt(2)));
        sum += share[i];
    }
    for (int i = 0; i < KEYS; i++)
        share[i] /= sum; /* what falls outside is drawn again */
    draw(RSHM_KEYS_GAUSSIAN, 0, 2, count);
    assert_true(chi_square(count, share) < 180);
}

static void zipf_keys_follow_zipfs_law_also_at_exponent_one(void **state)
{
    static const double exponents[] = {0.3, 0.99, 1, 1.2, 3};
    unsigned count[KEYS];
    double share[KEYS];
    (void)state;
    for (size_t e = 0; e < sizeof exponents / sizeof exponents[0]; e++) {
        double sum = 0;
        for (int i = 0; i < KEYS; i++)
            sum += share[i] = pow(i + 1, -exponents[e]);
        for (int i = 0; i < KEYS; i++)
            share[i] /= sum;
        draw(RSHM_KEYS_ZIPF, exponents[e], 3 + e, count);
        /* Expected counts below 5 are too few for this statistic: exponent 3 has a long tail of them. */
        if (exponents[e] < 3)
            assert_true(chi_square(count, share) < 180);
        else
            assert_true(fabs(count[0] / (share[0] * DRAWS) - 1) < 0.01 && fabs(count[1] / (share[1] * DRAWS) - 1) < 0.02);
    }
}

static void one_key_is_always_that_key(void **state)
{
    (void)state;
    for (int kind = RSHM_KEYS_UNIFORM; kind <= RSHM_KEYS_ZIPF; kind++) {
        struct rshm_key_choice k;
        struct rshm_random r;
        uint64_t position = 0;
        rshm_keys_init(&k, (enum rshm_keys)kind, 1, 0.99);
        rshm_random_init(&r, 9, 0);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(rshm_keys_next(&k, &r, &position), 0);
    }
}

static void streams_differ_and_repeat(void **state)
{
    struct rshm_random a, b, again;
    (void)state;
    rshm_random_init(&a, 7, 0);
    rshm_random_init(&b, 7, 1);
    rshm_random_init(&again, 7, 0);
    for (int i = 0; i < 100; i++) {
        uint64_t x = rshm_random_next(&a);
        assert_int_equal(x, rshm_random_next(&again));
        assert_int_not_equal(x, rshm_random_next(&b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_keys_are_equally_frequent),
        cmocka_unit_test(a_sequence_takes_every_key_in_turn),
        cmocka_unit_test(gaussian_keys_follow_the_bell_curve),
        cmocka_unit_test(zipf_keys_follow_zipfs_law_also_at_exponent_one),
        cmocka_unit_test(one_key_is_always_that_key),
        cmocka_unit_test(streams_differ_and_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
