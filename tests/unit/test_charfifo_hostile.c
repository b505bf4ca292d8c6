/* test_charfifo_hostile.c - a peer that writes anything at any moment: -EPROTO for ever, no crash, no endless loop.
 * Access past the ring hits a guard page (ring.h); an endless loop hits alarm(). */
#include "ring.h"

#define MIN CHARFIFO_CAPACITY_MIN
#define MAX_PAYLOAD (MIN / 4 - RING_HEADER)
#define HEADER(kind, len) ((uint64_t)(kind) << 32 | (len))
#define STALL_S 60

static uint8_t buffer[4 * MIN];

static void reader_fails_for_ever(struct ring *t)
{
    const void *p;
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(charfifo_poll(&t->r), -EPROTO);
        assert_int_equal(charfifo_peek(&t->r, &p), -EPROTO);
        assert_null(p);
        assert_int_equal(charfifo_consume(&t->r, SIZE_MAX), -EINVAL);
        assert_int_equal(charfifo_read(&t->r, buffer, sizeof buffer), -EPROTO);
        assert_int_equal(charfifo_used_bytes(&t->r), -EPROTO);
        charfifo_close_reader(&t->r);
    }
}

static void writer_fails_for_ever(struct ring *t)
{
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(charfifo_free_bytes(&t->w), -EPROTO);
        assert_int_equal(charfifo_write(&t->w, buffer, 1), -EPROTO);
        assert_int_equal(charfifo_write(&t->w, buffer, sizeof buffer), -EPROTO);
        charfifo_prefetch_write(&t->w);
        charfifo_close_writer(&t->w);
    }
}

static const struct {
    const char *what;
    uint64_t header;
    size_t off; /* where in the ring of MIN bytes */
} bad_headers[] = {
    {"no kind, with a length", HEADER(0, 1), 0},
    {"an unknown kind", HEADER(3, 1), 0},
    {"both kinds at once", HEADER(3, 0), 0},
    {"a tag without a kind", HEADER(UINT64_C(1) << 8, 8), 0},
    {"a tag with an unknown kind", HEADER(UINT64_C(1) << 8 | 3, 8), 0},
    {"a tag and no bytes", HEADER(UINT64_C(1) << 8 | 1, 0), 0},
    {"only upper bits", UINT64_C(1) << 63, 0},
    {"all bits", UINT64_MAX, 0},
    {"no bytes", HEADER(1, 0), 0},
    {"one byte over the limit", HEADER(1, MAX_PAYLOAD + 1), 0},
    {"the whole capacity", HEADER(1, MIN), 0},
    {"the most 32 bits can say", HEADER(1, UINT32_MAX), 0},
    {"the header's size short of 32 bits", HEADER(1, UINT32_MAX - 7), 0},
    {"the sign bit of 32", HEADER(1, UINT32_C(1) << 31), 0},
    {"a byte past the end, in the last line", HEADER(1, RING_LINE - RING_HEADER + 1), MIN - RING_LINE},
    {"the limit, in the last line", HEADER(1, MAX_PAYLOAD), MIN - RING_LINE},
    {"a byte past the end, a quarter less a line before it", HEADER(1, MIN / 4 - RING_LINE - RING_HEADER + 1), MIN - MIN / 4 + RING_LINE},
    {"an end with a length", HEADER(2, 1), 0},
    {"an end with the greatest length", HEADER(2, UINT32_MAX), 0},
    {"an end with upper bits", HEADER(2, 0) | UINT64_C(1) << 62, 0},
};

static void every_bad_header_fails_the_reader_for_ever(void **state)
{
    (void)state;
    struct ring t;
    const void *p;
    ring_open(&t, MIN, 0);
    for (size_t i = 0; i < sizeof bad_headers / sizeof bad_headers[0]; i++)
        for (int how = 0; how < 4; how++) {
            ring_restart(&t, bad_headers[i].off);
            rshm_store_release(ring_header(&t, bad_headers[i].off), bad_headers[i].header);
            ssize_t k = how == 0   ? charfifo_poll(&t.r)
                        : how == 1 ? charfifo_peek(&t.r, &p)
                        : how == 2 ? charfifo_read(&t.r, buffer, sizeof buffer)
                                   : charfifo_used_bytes(&t.r);
            if (k != -EPROTO)
                fail_msg("%s: %zd", bad_headers[i].what, k);
            rshm_store_release(ring_header(&t, bad_headers[i].off), HEADER(1, 1)); /* repentance comes too late */
            reader_fails_for_ever(&t);
        }
    ring_close(&t);
}

static void a_bad_second_header_fails_the_reader_after_the_first_record(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    for (size_t i = 0; i < sizeof bad_headers / sizeof bad_headers[0]; i++) {
        uint64_t bad = bad_headers[i].off;
        ring_restart(&t, bad - RING_LINE);
        fill(buffer, 0, 20);
        assert_int_equal(charfifo_write(&t.w, buffer, 20), 20);
        rshm_store_release(ring_header(&t, bad), bad_headers[i].header);
        memset(buffer, 0, 20);
        assert_int_equal(charfifo_read(&t.r, buffer, sizeof buffer), 20); /* what was valid goes out first */
        check(buffer, 0, 20);
        reader_fails_for_ever(&t);

        ring_restart(&t, bad - RING_LINE);
        assert_int_equal(charfifo_write(&t.w, buffer, 20), 20);
        rshm_store_release(ring_header(&t, bad), bad_headers[i].header);
        assert_int_equal(charfifo_used_bytes(&t.r), -EPROTO); /* whoever only counts sees it, too */
    }
    ring_close(&t);
}

static void valid_headers_at_their_limits_are_no_error(void **state)
{
    (void)state;
    static const struct {
        uint64_t header;
        size_t off;
        int state;
    } good[] = {
        {HEADER(1, 1), 0, CHARFIFO_READABLE},
        {HEADER(1, 1) | UINT64_C(0xffffff) << 40, 0, CHARFIFO_READABLE}, /* a tag is the writer's own business */
        {HEADER(1, MAX_PAYLOAD), 0, CHARFIFO_READABLE},
        {HEADER(1, MAX_PAYLOAD), MIN - MIN / 4, CHARFIFO_READABLE},
        {HEADER(1, RING_LINE - RING_HEADER), MIN - RING_LINE, CHARFIFO_READABLE},
        {HEADER(2, 0), MIN - RING_LINE, CHARFIFO_EOF},
        {0, MIN - RING_LINE, CHARFIFO_EMPTY},
    };
    struct ring t;
    ring_open(&t, MIN, 0);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ring_restart(&t, good[i].off);
        rshm_store_release(ring_header(&t, good[i].off), good[i].header);
        assert_int_equal(charfifo_poll(&t.r), good[i].state);
        ssize_t n = charfifo_read(&t.r, buffer, (uint32_t)good[i].header);
        assert_int_equal(n, (uint32_t)good[i].header);
    }
    ring_close(&t);
}

static void a_header_changed_after_it_was_seen_changes_nothing(void **state)
{
    (void)state;
    struct ring t;
    const void *p;
    ring_open(&t, MIN, 0);
    fill(buffer, 0, 50);
    assert_int_equal(charfifo_write(&t.w, buffer, 50), 50);
    assert_int_equal(charfifo_peek(&t.r, &p), 50);
    rshm_store_release(ring_header(&t, 0), HEADER(1, UINT32_MAX));
    assert_int_equal(charfifo_peek(&t.r, &p), 50);
    assert_int_equal(charfifo_consume(&t.r, 51), -EINVAL);
    assert_int_equal(charfifo_read(&t.r, buffer, sizeof buffer), 50);
    assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EMPTY);
    ring_close(&t);
}

static void eof_is_final_whatever_is_written_after_it(void **state)
{
    (void)state;
    static const uint64_t after[] = {0, HEADER(1, 8), HEADER(2, 0), UINT64_MAX};
    struct ring t;
    const void *p;
    ring_open(&t, MIN, 0);
    for (size_t i = 0; i < sizeof after / sizeof after[0]; i++) {
        ring_restart(&t, 0);
        charfifo_close_writer(&t.w);
        assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EOF);
        rshm_store_release(ring_header(&t, 0), after[i]);
        assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EOF);
        assert_int_equal(charfifo_peek(&t.r, &p), 0);
        assert_int_equal(charfifo_read(&t.r, buffer, 8), 0);
        assert_int_equal(charfifo_used_bytes(&t.r), 0);
    }
    ring_close(&t);
}

/* Headers that lead round and round, all of them valid. */
static void records_all_around_the_ring_end_the_count_after_one_lap(void **state)
{
    (void)state;
    static const uint32_t lens[] = {1, 56, MAX_PAYLOAD};
    struct ring t;
    ring_open(&t, MIN, 0);
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++)
        for (uint64_t start = 0; start < MIN; start += lens[i] == MAX_PAYLOAD ? MIN / 4 : RING_LINE) {
            ring_restart(&t, start);
            for (size_t off = 0; off < MIN; off += RING_LINE)
                rshm_store_release(ring_header(&t, off), HEADER(1, lens[i]));
            assert_int_equal(charfifo_read(&t.r, buffer, sizeof buffer), sizeof buffer); /* as much as asked for, no more */
            assert_int_equal(charfifo_used_bytes(&t.r), -EPROTO); /* more than a lap, and no line kept free */
            reader_fails_for_ever(&t);
        }
    ring_close(&t);
}

static void random_headers_never_lead_out_of_the_ring(void **state)
{
    (void)state;
    struct ring t;
    uint64_t rng = random_seed();
    ring_open(&t, MIN, 0);
    for (int i = 0; i < 200000; i++) {
        if (i % 50 == 0) {
            ring_restart(&t, random_next(&rng) & ~(uint64_t)63);
            for (size_t off = 0; off < MIN; off += RING_LINE) {
                uint64_t any = random_next(&rng);
                uint64_t len = any >> 8 & (any % 5 == 0 ? UINT32_MAX : any % 2 ? 1023 : 127);
                rshm_store_relaxed(ring_header(&t, off), HEADER(any % 40 != 0, len) | (any % 41 == 0 ? any << 33 : 0));
            }
        }
        const void *p;
        size_t n = random_next(&rng) % 2000;
        ssize_t k = i % 3 == 0 ? charfifo_read(&t.r, buffer, n) : i % 3 == 1 ? charfifo_used_bytes(&t.r) : charfifo_peek(&t.r, &p);
        assert_true(k == -EPROTO || (k >= 0 && k <= (ssize_t)MIN));
        if (i % 3 == 2 && k > 0) {
            memcpy(buffer, p, (size_t)k); /* all of what peek shows can be read */
            assert_int_equal(charfifo_consume(&t.r, (size_t)k), 0);
        }
    }
    ring_close(&t);
}

/* ---- the reader as the hostile peer ---- */

/* The writer is at start + MIN / 2, its last look at the reader said start + seen. */
static void expect_of_read_pos(struct ring *t, uint64_t start, uint64_t seen, uint64_t read_pos, bool good)
{
    for (int how = 0; how < 2; how++) {
        ring_restart(t, start);
        for (size_t i = 0; i < MIN / 2 / RING_LINE; i++)
            assert_int_equal(charfifo_write(&t->w, buffer, 1), 1);
        rshm_store_release(ring_read_pos(t), start + seen);
        assert_true(charfifo_free_bytes(&t->w) > 0);
        rshm_store_release(ring_read_pos(t), read_pos);
        ssize_t k = how == 0 ? charfifo_free_bytes(&t->w) : charfifo_write(&t->w, buffer, sizeof buffer);
        if (good) {
            assert_true(k > 0 && k < (ssize_t)MIN);
            continue;
        }
        if (k != -EPROTO)
            fail_msg("start %" PRIx64 ", read_pos %" PRIx64 ": %zd", start, read_pos, k);
        rshm_store_release(ring_read_pos(t), start + seen);
        writer_fails_for_ever(t);
    }
}

static void every_bad_read_position_fails_the_writer_for_ever(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 64, UINT64_C(1) << 32, -(uint64_t)MIN / 2, -(uint64_t)MIN / 4, -(uint64_t)64, UINT64_C(1) << 63};
    struct ring t;
    ring_open(&t, MIN, 0);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        uint64_t s = starts[i], seen = MIN / 4, written = MIN / 2;
        expect_of_read_pos(&t, s, seen, s + seen, true);
        expect_of_read_pos(&t, s, seen, s + seen + 64, true);
        expect_of_read_pos(&t, s, seen, s + written, true);
        expect_of_read_pos(&t, s, seen, s + seen + 1, false);                /* misaligned */
        expect_of_read_pos(&t, s, seen, s + seen + 8, false);
        expect_of_read_pos(&t, s, seen, s + seen + 63, false);
        expect_of_read_pos(&t, s, seen, s + written + 64, false);            /* ahead of the writer */
        expect_of_read_pos(&t, s, seen, s + written + MIN, false);
        expect_of_read_pos(&t, s, seen, s + seen + (UINT64_C(1) << 32), false);
        expect_of_read_pos(&t, s, seen, s + seen + (UINT64_C(1) << 63), false);
        expect_of_read_pos(&t, s, seen, s + seen - 64, false);               /* backwards */
        expect_of_read_pos(&t, s, seen, s, false);
        expect_of_read_pos(&t, s, seen, s + seen - MIN, false);
        expect_of_read_pos(&t, s, 0, s - 64, false);
        expect_of_read_pos(&t, s, 0, UINT64_MAX, false);
    }
    uint64_t rng = random_seed();
    for (int i = 0; i < 2000; i++) {
        uint64_t start = random_next(&rng) & ~(uint64_t)63, any = random_next(&rng) & (i % 2 ? UINT64_MAX : ~(uint64_t)63);
        expect_of_read_pos(&t, start, 0, any, any - start <= MIN / 2 && any % 64 == 0);
    }
    ring_close(&t);
}

static void attaching_to_memory_that_is_no_fresh_fifo_fails(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    rshm_store_release(ring_read_pos(&t), (uint64_t)8);
    assert_int_equal(charfifo_attach_reader(&t.r, t.mem, t.mem_bytes, MIN), -EPROTO);
    reader_fails_for_ever(&t);
    assert_int_equal(charfifo_attach_writer(&t.w, t.mem, t.mem_bytes, MIN), -EPROTO);
    writer_fails_for_ever(&t);
    ring_close(&t);
}

static void what_the_peer_does_to_the_other_words_does_not_matter(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    memset(t.mem + RING_LINE, 0xff, RING_LINE); /* the spare line of the control block */
    memset(t.mem + 16, 0xff, RING_LINE - 16);
    for (int i = 0; i < 1000; i++) {
        fill(buffer, 0, 900);
        assert_int_equal(charfifo_write(&t.w, buffer, 900), 900);
        assert_int_equal(charfifo_read(&t.r, buffer, sizeof buffer), 900);
        check(buffer, 0, 900);
    }
    ring_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_header_fails_the_reader_for_ever),
        cmocka_unit_test(a_bad_second_header_fails_the_reader_after_the_first_record),
        cmocka_unit_test(valid_headers_at_their_limits_are_no_error),
        cmocka_unit_test(a_header_changed_after_it_was_seen_changes_nothing),
        cmocka_unit_test(eof_is_final_whatever_is_written_after_it),
        cmocka_unit_test(records_all_around_the_ring_end_the_count_after_one_lap),
        cmocka_unit_test(random_headers_never_lead_out_of_the_ring),
        cmocka_unit_test(every_bad_read_position_fails_the_writer_for_ever),
        cmocka_unit_test(attaching_to_memory_that_is_no_fresh_fifo_fails),
        cmocka_unit_test(what_the_peer_does_to_the_other_words_does_not_matter),
    };
    alarm(STALL_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
