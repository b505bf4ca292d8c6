/* test_histogram.c - known distributions: counts and means exactly, percentiles within a thousandth. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tools/histogram.h"

#define PRECISION 1e-3

static int setup(void **state)
{
    static struct rshm_histogram h;
    *state = &h;
    return rshm_histogram_init(&h);
}

static int teardown(void **state)
{
    rshm_histogram_free(*state);
    return 0;
}

static void assert_within(uint64_t got, double wanted)
{
    if (fabs((double)got - wanted) > wanted * PRECISION + 1e-9)
        fail_msg("%llu is not within a thousandth of %f", (unsigned long long)got, wanted);
}

static void without_values_everything_is_zero(void **state)
{
    const struct rshm_histogram *h = *state;
    assert_int_equal(rshm_histogram_count(h), 0);
    assert_int_equal(rshm_histogram_min(h), 0);
    assert_int_equal(rshm_histogram_max(h), 0);
    assert_true(rshm_histogram_mean(h) == 0);
    assert_int_equal(rshm_histogram_percentile_ns(h, 0.99), 0);
}

static void buckets_join_without_gap_or_overlap(void **state)
{
    (void)state;
    size_t n = rshm_histogram_buckets();
    assert_int_equal(rshm_histogram_bucket_low(0), 0);
    for (size_t i = 0; i < n; i++) {
        uint64_t low = rshm_histogram_bucket_low(i), high = rshm_histogram_bucket_high(i);
        assert_true(low <= high);
        assert_int_equal(rshm_histogram_bucket(low), i);
        assert_int_equal(rshm_histogram_bucket(high), i);
        assert_int_equal(rshm_histogram_bucket_low(i + 1), high + 1);
        assert_true((double)(high - low) <= (double)low * PRECISION);
    }
    assert_true(rshm_histogram_bucket_high(n - 1) >= RSHM_HISTOGRAM_MAX_NS);
}

static void a_single_value_is_every_percentile(void **state)
{
    static const uint64_t values[] = {1, 2, 2047, 2048, 2049, 123456789, RSHM_HISTOGRAM_MAX_NS};
    struct rshm_histogram *h = *state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        rshm_histogram_reset(h);
        rshm_histogram_record(h, values[i]);
        for (double share = 0; share <= 1; share += 0.125)
            assert_int_equal(rshm_histogram_percentile_ns(h, share), values[i]);
        assert_true(rshm_histogram_mean(h) == (double)values[i]);
    }
}

static void values_out_of_range_count_at_its_ends(void **state)
{
    struct rshm_histogram *h = *state;
    rshm_histogram_record(h, 0);
    rshm_histogram_record(h, UINT64_MAX);
    assert_int_equal(rshm_histogram_count(h), 2);
    assert_int_equal(rshm_histogram_min(h), 1);
    assert_int_equal(rshm_histogram_max(h), RSHM_HISTOGRAM_MAX_NS);
    assert_int_equal(rshm_histogram_percentile_ns(h, 0.5), 1);
}

/* 1, 2, ..., 1,000,000 ns: the percentile of share s is s * 1e6. */
static void percentiles_of_a_uniform_distribution(void **state)
{
    static const double shares[] = {0.000001, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    struct rshm_histogram *h = *state;
    for (uint64_t v = 1; v <= 1000000; v++)
        rshm_histogram_record(h, v);
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++)
        assert_within(rshm_histogram_percentile_ns(h, shares[i]), shares[i] * 1e6);
    assert_int_equal(rshm_histogram_percentile_ns(h, 0), 1);
    assert_int_equal(rshm_histogram_percentile_ns(h, 1), 1000000);
    assert_true(rshm_histogram_mean(h) == 500000.5);
}

/* Up to 2^11 ns every value has its own bucket: nearest rank, exactly. */
static void small_values_are_exact(void **state)
{
    struct rshm_histogram *h = *state;
    for (uint64_t v = 1; v <= 2000; v++)
        rshm_histogram_record(h, v);
    for (uint64_t rank = 1; rank <= 2000; rank++)
        assert_int_equal(rshm_histogram_percentile_ns(h, (double)rank / 2000), rank);
}

/* One slow value in a thousand shows from p99.9 on, not before. */
static void a_rare_value_shows_where_it_belongs(void **state)
{
    struct rshm_histogram *h = *state;
    for (int i = 0; i < 99900; i++)
        rshm_histogram_record(h, 1500);
    for (int i = 0; i < 100; i++)
        rshm_histogram_record(h, 5000000);
    assert_int_equal(rshm_histogram_percentile_ns(h, 0.5), 1500);
    assert_int_equal(rshm_histogram_percentile_ns(h, 0.999), 1500);
    assert_within(rshm_histogram_percentile_ns(h, 0.9991), 5e6);
}

/* Exponentially distributed, mean 20 us, by inverse transform at even steps: the percentile of s is -ln(1 - s) * mean. */
static void percentiles_of_an_exponential_distribution(void **state)
{
    static const double shares[] = {0.1, 0.5, 0.9, 0.99, 0.999};
    enum { STEPS = 2000000 };
    struct rshm_histogram *h = *state;
    for (int i = 0; i < STEPS; i++)
        rshm_histogram_record(h, (uint64_t)(-log(1 - (i + 0.5) / STEPS) * 20000));
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        double wanted = -log(1 - shares[i]) * 20000;
        double got = (double)rshm_histogram_percentile_ns(h, shares[i]);
        assert_true(fabs(got - wanted) <= wanted * 1.5 * PRECISION + 1); /* and the steps are steps */
    }
}

static void merging_is_as_if_all_had_been_recorded_in_one(void **state)
{
    struct rshm_histogram *all = *state, parts[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(rshm_histogram_init(&parts[i]), 0);
    srandom(7);
    for (int i = 0; i < 30000; i++) {
        uint64_t v = (uint64_t)random() % 100000000;
        rshm_histogram_record(all, v);
        rshm_histogram_record(&parts[i % 2], v); /* the third stays empty */
    }
    rshm_histogram_merge(&parts[2], &parts[0]);
    rshm_histogram_merge(&parts[2], &parts[1]);
    assert_int_equal(rshm_histogram_count(&parts[2]), 30000);
    assert_int_equal(rshm_histogram_min(&parts[2]), rshm_histogram_min(all));
    assert_int_equal(rshm_histogram_max(&parts[2]), rshm_histogram_max(all));
    assert_true(fabs(rshm_histogram_mean(&parts[2]) - rshm_histogram_mean(all)) < 1e-3);
    for (double share = 0; share <= 1; share += 0.01)
        assert_int_equal(rshm_histogram_percentile_ns(&parts[2], share), rshm_histogram_percentile_ns(all, share));
    for (int i = 0; i < 3; i++)
        rshm_histogram_free(&parts[i]);
}

static void reset_forgets_everything(void **state)
{
    struct rshm_histogram *h = *state;
    rshm_histogram_record(h, 1000000);
    rshm_histogram_reset(h);
    without_values_everything_is_zero(state);
    rshm_histogram_record(h, 7);
    assert_int_equal(rshm_histogram_percentile_ns(h, 1), 7);
    assert_int_equal(rshm_histogram_min(h), 7);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(without_values_everything_is_zero), TEST(buckets_join_without_gap_or_overlap), TEST(a_single_value_is_every_percentile),
        TEST(values_out_of_range_count_at_its_ends), TEST(percentiles_of_a_uniform_distribution), TEST(small_values_are_exact),
        TEST(a_rare_value_shows_where_it_belongs), TEST(percentiles_of_an_exponential_distribution),
        TEST(merging_is_as_if_all_had_been_recorded_in_one), TEST(reset_forgets_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
