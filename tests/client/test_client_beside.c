/* test_client_beside.c - socket clients beside a shared-memory client at full speed are not starved. The bound is one that even a
 * crowded machine keeps; `make bench-beside` has the figures. */
#include "beside.h"

#define PINGS 2000
#define STARVED_US 1e6

static void not_starved(const struct transport *t, int depth)
{
    struct beside b;
    for (enum load l = LOAD_UNIX; l <= LOAD_SHM; l++) {
        measure_beside(t, &shared, l, depth, PINGS, 0, &b);
        print_message("# plain client over %s beside %s with %d under way (%.0f/s): p50 %.0f us, p99 %.0f us, max %.0f us\n", t->name,
                      load_names[l], depth, b.load_per_s, b.p50_us, b.p99_us, b.max_us);
        assert_true(b.max_us < STARVED_US);
    }
}

static void a_plain_client_is_answered_beside_a_busy_one(void **state)
{
    not_starved(*state, 1);
}

static void a_plain_client_is_answered_beside_a_busy_pipeline(void **state)
{
    not_starved(*state, 200);
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(a_plain_client_is_answered_beside_a_busy_one),
        OVER_BOTH(a_plain_client_is_answered_beside_a_busy_pipeline),
    };
    return run_over_both(tests, sizeof tests / sizeof tests[0]);
}
