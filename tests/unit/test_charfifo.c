/* test_charfifo.c - the FIFO's contract, one process, no concurrency. Hostile peers: test_charfifo_hostile.c. */
#include "ring.h"

#define MIN CHARFIFO_CAPACITY_MIN

static uint8_t out[2 * MIN], in[2 * MIN];

/* Moves both ends on by n lines' worth of one-byte records. */
static void advance_lines(struct ring *t, size_t n)
{
    for (uint8_t byte = 1; n > 0; n--) {
        assert_int_equal(charfifo_write(&t->w, &byte, 1), 1);
        assert_int_equal(charfifo_read(&t->r, &byte, 1), 1);
    }
}

/* ---- init and attach ---- */

static void memory_bytes_knows_the_valid_capacities(void **state)
{
    (void)state;
    for (size_t c = MIN; c <= CHARFIFO_CAPACITY_MAX; c *= 2) {
        assert_true(charfifo_memory_bytes(c) > c);
        assert_int_equal(charfifo_memory_bytes(c) % RING_LINE, 0);
        assert_int_equal(charfifo_memory_bytes(c - 1), 0);
        assert_int_equal(charfifo_memory_bytes(c + 64), 0);
    }
    assert_int_equal(charfifo_memory_bytes(0), 0);
    assert_int_equal(charfifo_memory_bytes(MIN / 2), 0);
    assert_int_equal(charfifo_memory_bytes(CHARFIFO_CAPACITY_MAX * 2), 0);
    assert_int_equal(charfifo_memory_bytes(SIZE_MAX), 0);
}

static void init_refuses_bad_arguments(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    assert_int_equal(charfifo_init(NULL, t.mem_bytes, MIN, 0), -EINVAL);
    assert_int_equal(charfifo_init(t.mem + 8, t.mem_bytes, MIN, 0), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, t.mem_bytes - 1, MIN, 0), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, t.mem_bytes, MIN * 2, 0), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, t.mem_bytes, MIN - 64, 0), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, t.mem_bytes, MIN / 2, 0), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, SIZE_MAX, CHARFIFO_CAPACITY_MAX * 2, 0), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, t.mem_bytes, MIN, 1), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, t.mem_bytes, MIN, UINT64_MAX), -EINVAL);
    assert_int_equal(charfifo_init(t.mem, t.mem_bytes, MIN, UINT64_MAX - 63), 0);
    ring_close(&t);
}

static void attach_refuses_bad_arguments(void **state)
{
    (void)state;
    int (*const attach[])(charfifo *, void *, size_t, size_t) = {charfifo_attach_writer, charfifo_attach_reader};
    struct ring t;
    ring_open(&t, MIN, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(attach[i](NULL, t.mem, t.mem_bytes, MIN), -EINVAL);
        assert_int_equal(attach[i](&t.w, NULL, t.mem_bytes, MIN), -EINVAL);
        assert_int_equal(attach[i](&t.w, t.mem + 32, t.mem_bytes, MIN), -EINVAL);
        assert_int_equal(attach[i](&t.w, t.mem, t.mem_bytes - 1, MIN), -EINVAL);
        assert_int_equal(attach[i](&t.w, t.mem, t.mem_bytes, MIN + 64), -EINVAL);
        assert_int_equal(attach[i](&t.w, t.mem, t.mem_bytes, 0), -EINVAL);
        assert_int_equal(attach[i](&t.w, t.mem, t.mem_bytes, MIN), 0);
    }
    ring_close(&t);
}

static void a_writer_cannot_attach_to_a_fifo_in_use(void **state)
{
    (void)state;
    struct ring t;
    charfifo late;
    ring_open(&t, MIN, 0);
    assert_int_equal(charfifo_write(&t.w, "x", 1), 1);
    assert_int_equal(charfifo_attach_writer(&late, t.mem, t.mem_bytes, MIN), -EPROTO);
    assert_int_equal(charfifo_write(&late, "x", 1), -EPROTO);
    assert_int_equal(charfifo_attach_reader(&late, t.mem, t.mem_bytes, MIN), 0); /* first bytes may precede the reader */
    assert_int_equal(charfifo_read(&late, in, 1), 1);
    ring_close(&t);
}

static void init_makes_an_empty_fifo_of_any_garbage(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    for (uint64_t start = 0; start < 2 * MIN; start += RING_LINE) {
        memset(t.mem, 0xff, t.mem_bytes);
        ring_restart(&t, start);
        assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EMPTY);
        for (size_t n = 1; n < MIN / 2; n += 250) { /* later headers must be zeroed as the writer goes */
            fill(out, 0, n);
            assert_int_equal(charfifo_write(&t.w, out, n), n);
            assert_int_equal(charfifo_used_bytes(&t.r), n);
            assert_int_equal(charfifo_read(&t.r, in, n + 1), n);
            check(in, 0, n);
            assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EMPTY);
        }
    }
    ring_close(&t);
}

/* ---- sizes and positions ---- */

static void every_size_passes_at_every_line_of_the_ring(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    for (uint64_t start = 0; start < MIN; start += RING_LINE)
        for (size_t n = 0; n <= MIN + 1; n++) {
            ring_restart(&t, start);
            ssize_t space = charfifo_free_bytes(&t.w);
            size_t fits = n < (size_t)space ? n : (size_t)space;
            fill(out, n, n);
            assert_int_equal(charfifo_write(&t.w, out, n), fits);
            assert_int_equal(charfifo_used_bytes(&t.r), fits);
            assert_int_equal(charfifo_read(&t.r, in, sizeof in), fits);
            check(in, n, fits);
            assert_int_equal(charfifo_used_bytes(&t.r), 0);
            assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EMPTY);
        }
    ring_close(&t);
}

static void a_record_can_be_read_in_two_parts_cut_at_every_byte(void **state)
{
    (void)state;
    struct ring t;
    static const size_t sizes[] = {1, 2, 7, 8, 55, 56, 57, 63, 64, 65, 120, 121, MIN / 4 - 9, MIN / 4 - 8, MIN / 4 - 7, MIN / 4, MIN / 2, 3000};
    ring_open(&t, MIN, 0);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (uint64_t start = 0; start < MIN; start += 5 * RING_LINE)
            for (size_t cut = 0; cut <= sizes[s]; cut++) {
                size_t n = sizes[s];
                ring_restart(&t, start);
                fill(out, cut, n);
                assert_int_equal(charfifo_write(&t.w, out, n), n);
                assert_int_equal(charfifo_read(&t.r, in, cut), cut);
                assert_int_equal(charfifo_used_bytes(&t.r), n - cut);
                assert_int_equal(charfifo_read(&t.r, in + cut, sizeof in - cut), n - cut);
                check(in, cut, n);
                assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EMPTY);
            }
    ring_close(&t);
}

static void bytes_keep_their_order_over_many_laps(void **state)
{
    (void)state;
    struct ring t;
    uint64_t wrote = 0, got = 0;
    ring_open(&t, MIN, 0);
    for (size_t n = 1; wrote < 100 * MIN; n = n % 1700 + 13) {
        fill(out, wrote, n);
        ssize_t w = charfifo_write(&t.w, out, n);
        assert_true(w >= 0);
        wrote += (uint64_t)w;
        ssize_t r = charfifo_read(&t.r, in, n * 7 % 1500);
        assert_true(r >= 0);
        check(in, got, (size_t)r);
        got += (uint64_t)r;
        assert_int_equal(charfifo_used_bytes(&t.r), wrote - got);
    }
    ring_close(&t);
}

static void counters_pass_their_wraps(void **state)
{
    (void)state;
    static const uint64_t wraps[] = {0, UINT64_C(1) << 32, UINT64_C(1) << 31, UINT64_C(1) << 63};
    struct ring t;
    ring_open(&t, MIN, 0);
    for (size_t i = 0; i < sizeof wraps / sizeof wraps[0]; i++)
        for (uint64_t before = 0; before <= 2 * MIN; before += RING_LINE) {
            ring_restart(&t, wraps[i] - before);
            for (uint64_t at = 0; at < 4 * MIN; at += 950) {
                assert_true(charfifo_free_bytes(&t.w) >= 950);
                fill(out, at, 950);
                assert_int_equal(charfifo_write(&t.w, out, 950), 950);
                assert_int_equal(charfifo_used_bytes(&t.r), 950);
                assert_int_equal(charfifo_read(&t.r, in, 950), 950);
                check(in, at, 950);
            }
        }
    ring_close(&t);
}

static void a_write_of_exactly_the_free_bytes_is_accepted_whole(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    for (int more = 0; more <= 1; more++)
        for (uint64_t start = 0; start < MIN; start += RING_LINE)
            for (size_t filled = 0; filled < MIN; filled += 41)
                for (size_t taken = 0; taken <= filled; taken += 641) {
                    ring_restart(&t, start);
                    ssize_t w = charfifo_write(&t.w, out, filled);
                    assert_true(w >= 0);
                    charfifo_read(&t.r, in, taken);
                    ssize_t space = charfifo_free_bytes(&t.w);
                    assert_true(space >= 0);
                    assert_int_equal(charfifo_write(&t.w, out, (size_t)(space + more)), space);
                    assert_int_equal(charfifo_free_bytes(&t.w), 0);
                    assert_int_equal(charfifo_write(&t.w, out, 1), 0);
                }
    ring_close(&t);
}

static void a_write_sees_the_space_given_back_without_asking_for_it(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    assert_true(charfifo_write(&t.w, out, sizeof out) > 0);
    assert_true(charfifo_read(&t.r, in, sizeof in) > 0);
    assert_int_equal(charfifo_write(&t.w, out, MIN / 2), MIN / 2);
    ring_close(&t);
}

/* A writer that waits for any space at all must never wait for a reader that has read everything. */
static void an_idle_fifo_has_at_least_half_its_capacity_free(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    for (size_t lines = 0; lines < 3 * MIN / RING_LINE; lines++) {
        assert_true(charfifo_free_bytes(&t.w) >= (ssize_t)(MIN / 2));
        advance_lines(&t, 1);
    }
    ring_close(&t);
}

static void every_capacity_up_to_a_gibibyte_works(void **state)
{
    (void)state;
    for (size_t c = MIN; c <= CHARFIFO_CAPACITY_MAX; c *= 2)
        for (int end = 0; end < 2; end++) { /* at the start of the data, and across its end */
            struct ring t;
            ring_open(&t, c, end ? UINT64_MAX - 63 : 0);
            ssize_t space = charfifo_free_bytes(&t.w);
            assert_true(space > (ssize_t)(c - c / 16 - 64) && space < (ssize_t)c);
            fill(out, c, sizeof out);
            size_t n = sizeof out < (size_t)space ? sizeof out : (size_t)space;
            assert_int_equal(charfifo_write(&t.w, out, n), n);
            assert_int_equal(charfifo_used_bytes(&t.r), n);
            assert_int_equal(charfifo_read(&t.r, in, sizeof in), n);
            check(in, c, n);
            ring_close(&t);
        }
}

/* ---- peek and consume ---- */

static void peek_shows_the_bytes_in_place_until_they_are_consumed(void **state)
{
    (void)state;
    struct ring t;
    const void *p, *again;
    ring_open(&t, MIN, MIN - RING_LINE);
    assert_int_equal(charfifo_peek(&t.r, &p), 0);
    assert_null(p);
    assert_int_equal(charfifo_consume(&t.r, 0), 0);
    assert_int_equal(charfifo_consume(&t.r, 1), -EINVAL);
    fill(out, 0, 100);
    assert_int_equal(charfifo_write(&t.w, out, 100), 100); /* one line to the end of the data, the rest from its start */
    assert_int_equal(charfifo_peek(&t.r, &p), 56);
    check(p, 0, 56);
    assert_int_equal(charfifo_consume(&t.r, 0), 0);
    assert_int_equal(charfifo_peek(&t.r, &again), 56);
    assert_ptr_equal(p, again);
    assert_int_equal(charfifo_consume(&t.r, 57), -EINVAL);
    assert_int_equal(charfifo_consume(&t.r, SIZE_MAX), -EINVAL);
    assert_int_equal(charfifo_consume(&t.r, 50), 0);
    assert_int_equal(charfifo_peek(&t.r, &p), 6);
    check(p, 50, 6);
    assert_int_equal(charfifo_consume(&t.r, 6), 0);
    assert_int_equal(charfifo_consume(&t.r, 1), -EINVAL); /* not peeked at yet */
    assert_int_equal(charfifo_peek(&t.r, &p), 44);
    check(p, 56, 44);
    assert_int_equal(charfifo_read(&t.r, in, 10), 10);
    check(in, 56, 10);
    assert_int_equal(charfifo_peek(&t.r, &p), 34);
    assert_int_equal(charfifo_consume(&t.r, 34), 0);
    assert_int_equal(charfifo_peek(&t.r, &p), 0);
    ring_close(&t);
}

static void peek_shows_at_most_a_quarter_of_the_capacity(void **state)
{
    (void)state;
    struct ring t;
    const void *p;
    size_t sum = 0;
    ring_open(&t, MIN, 0);
    fill(out, 0, sizeof out);
    ssize_t wrote = charfifo_write(&t.w, out, sizeof out);
    for (ssize_t n; (n = charfifo_peek(&t.r, &p)) > 0; sum += (size_t)n) {
        assert_true(n <= (ssize_t)(MIN / 4));
        check(p, sum, (size_t)n);
        assert_int_equal(charfifo_consume(&t.r, (size_t)n), 0);
    }
    assert_int_equal(sum, wrote);
    ring_close(&t);
}

static void released_says_once_that_space_went_back(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    assert_int_equal(charfifo_released(&t.r), 0);
    for (int lap = 0; lap < 20; lap++) {
        uint64_t before = rshm_load_relaxed(ring_read_pos(&t));
        advance_lines(&t, MIN / 4 / RING_LINE - 1);
        assert_int_equal(charfifo_released(&t.r), 0);
        assert_true(rshm_load_relaxed(ring_read_pos(&t)) == before);
        advance_lines(&t, 1);
        assert_true(rshm_load_relaxed(ring_read_pos(&t)) == before + MIN / 4);
        assert_int_equal(charfifo_released(&t.r), 1);
        assert_int_equal(charfifo_released(&t.r), 0);
    }
    ring_close(&t);
}

static void nothing_is_read_or_written_for_a_length_of_zero(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    assert_int_equal(charfifo_write(&t.w, NULL, 0), 0);
    assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EMPTY);
    assert_int_equal(charfifo_write(&t.w, "x", 1), 1);
    assert_int_equal(charfifo_read(&t.r, NULL, 0), 0);
    assert_int_equal(charfifo_used_bytes(&t.r), 1);
    ring_close(&t);
}

static void backlogs_tell_how_much_of_the_capacity_is_taken(void **state)
{
    (void)state;
    struct ring t;
    for (uint64_t start = 0; start < MIN; start += RING_LINE) {
        ring_open(&t, MIN, start);
        assert_int_equal(charfifo_writer_backlog(&t.w), 0);
        assert_int_equal(charfifo_reader_backlog(&t.r, 100), 0);
        size_t taken = 0;
        for (int i = 0; i < 10; i++) { /* records of one line and of two, in turn */
            fill(out, 0, 100);
            size_t n = i % 2 == 0 ? 56 : 100;
            size_t before = charfifo_writer_backlog(&t.w);
            assert_int_equal(charfifo_write(&t.w, out, n), n);
            size_t record = charfifo_writer_backlog(&t.w) - before;
            assert_true(record == (n == 56 ? 64 : 128) || record == 192); /* 192: cut in two at the end of the data */
            taken += record;
        }
        assert_int_equal(charfifo_writer_backlog(&t.w), taken);
        assert_int_equal(charfifo_reader_backlog(&t.r, 100), taken);
        assert_int_equal(charfifo_reader_backlog(&t.r, 1), 64);
        assert_int_equal(charfifo_reader_backlog(&t.r, 0), 0);
        assert_int_equal(charfifo_read(&t.r, in, 1), 1); /* a record is there until its last byte is read */
        assert_int_equal(charfifo_reader_backlog(&t.r, 100), taken);
        assert_int_equal(charfifo_read(&t.r, in, 55), 55);
        assert_int_equal(charfifo_reader_backlog(&t.r, 100), taken - 64);
        charfifo_close_writer(&t.w);
        assert_int_equal(charfifo_reader_backlog(&t.r, 100), taken - 64);
        while (charfifo_read(&t.r, in, sizeof in) > 0)
            ;
        assert_int_equal(charfifo_reader_backlog(&t.r, 100), 0);
        ring_close(&t);
    }
}

static void prefetching_changes_nothing(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, MIN - RING_LINE); /* the second line is the first of the data: an unmasked one would be out of bounds */
    for (int i = 0; i < 200; i++) {
        charfifo_prefetch_write(&t.w);
        assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EMPTY);
        advance_lines(&t, 1);
    }
    ring_close(&t);
}

/* ---- the two ways to end ---- */

static void eof_comes_after_the_last_byte_and_stays(void **state)
{
    (void)state;
    struct ring t;
    const void *p;
    ring_open(&t, MIN, 0);
    for (uint64_t start = 0; start < MIN; start += RING_LINE)
        for (size_t n = 0; n <= MIN; n += 117) {
            ring_restart(&t, start);
            fill(out, 0, n);
            ssize_t wrote = charfifo_write(&t.w, out, n); /* up to a ring that is full to the last line */
            charfifo_close_writer(&t.w);
            charfifo_close_writer(&t.w);
            assert_int_equal(charfifo_write(&t.w, out, 1), -EPIPE);
            assert_int_equal(charfifo_free_bytes(&t.w), 0);
            assert_int_equal(charfifo_poll(&t.r), wrote > 0 ? CHARFIFO_READABLE : CHARFIFO_EOF);
            assert_int_equal(charfifo_used_bytes(&t.r), wrote);
            assert_int_equal(charfifo_read(&t.r, in, sizeof in), wrote);
            check(in, 0, (size_t)wrote);
            for (int twice = 0; twice < 2; twice++) {
                assert_int_equal(charfifo_poll(&t.r), CHARFIFO_EOF);
                assert_int_equal(charfifo_read(&t.r, in, 1), 0);
                assert_int_equal(charfifo_peek(&t.r, &p), 0);
                assert_int_equal(charfifo_used_bytes(&t.r), 0);
            }
        }
    ring_close(&t);
}

static void a_write_fails_with_epipe_as_soon_as_the_reader_has_closed(void **state)
{
    (void)state;
    struct ring t;
    ring_open(&t, MIN, 0);
    assert_int_equal(charfifo_write(&t.w, out, 10), 10);
    charfifo_close_reader(&t.r);
    charfifo_close_reader(&t.r);
    assert_int_equal(charfifo_write(&t.w, out, 10), -EPIPE); /* though there is room that needs no look at the reader */
    assert_int_equal(charfifo_write(&t.w, out, 10), -EPIPE);
    assert_int_equal(charfifo_free_bytes(&t.w), 0);
    ring_restart(&t, 0);
    assert_true(charfifo_write(&t.w, out, sizeof out) > 0);
    charfifo_close_reader(&t.r);
    assert_int_equal(charfifo_write(&t.w, out, 1), -EPIPE);
    ring_restart(&t, 0);
    charfifo_close_reader(&t.r);
    assert_int_equal(charfifo_free_bytes(&t.w), 0);
    assert_int_equal(charfifo_write(&t.w, out, 1), -EPIPE);
    ring_close(&t);
}

/* ---- against a reference ---- */

/* The reference: a queue that is too simple to be wrong. It holds positions of the pattern only, since the bytes follow. */
struct queue {
    uint64_t wrote, got;
    bool writer_closed, reader_closed;
};

static void random_step(struct ring *t, struct queue *q, uint64_t *rng, size_t max)
{
    uint64_t dice = random_next(rng);
    size_t n = (dice >> 32) % (random_next(rng) % 4 == 0 ? max : 100);
    const void *p;
    ssize_t k;

    switch (dice % 16) {
    case 0 ... 5:
        fill(out, q->wrote, n);
        ssize_t space = charfifo_free_bytes(&t->w);
        k = charfifo_write(&t->w, out, n);
        if (q->writer_closed || q->reader_closed) {
            assert_int_equal(space, 0);
            assert_int_equal(k, -EPIPE);
        } else {
            assert_int_equal(k, (ssize_t)n < space ? (ssize_t)n : space);
            q->wrote += (uint64_t)k;
        }
        break;
    case 6: /* without the fresh look that charfifo_free_bytes() takes */
    case 7:
        fill(out, q->wrote, n);
        k = charfifo_write(&t->w, out, n);
        if (q->writer_closed || q->reader_closed) {
            assert_int_equal(k, -EPIPE);
        } else {
            assert_true(k >= 0 && k <= (ssize_t)n);
            q->wrote += (uint64_t)k;
        }
        break;
    case 8 ... 11:
        k = charfifo_read(&t->r, in, n);
        assert_int_equal(k, n < q->wrote - q->got ? n : q->wrote - q->got);
        check(in, q->got, (size_t)k);
        q->got += (uint64_t)k;
        break;
    case 12:
    case 13:
        k = charfifo_peek(&t->r, &p);
        assert_true(q->wrote == q->got ? k == 0 : k >= 1 && (uint64_t)k <= q->wrote - q->got);
        check(p, q->got, (size_t)k);
        assert_int_equal(charfifo_consume(&t->r, (size_t)k + 1), -EINVAL);
        size_t part = k > 0 ? n % ((size_t)k + 1) : 0;
        assert_int_equal(charfifo_consume(&t->r, part), 0);
        q->got += part;
        break;
    case 14:
        assert_int_equal(charfifo_used_bytes(&t->r), q->wrote - q->got);
        break;
    default:
        assert_int_equal(charfifo_poll(&t->r), q->wrote != q->got ? CHARFIFO_READABLE : q->writer_closed ? CHARFIFO_EOF : CHARFIFO_EMPTY);
        if (random_next(rng) % 200 == 0) {
            charfifo_close_writer(&t->w);
            q->writer_closed = true;
        } else if (random_next(rng) % 400 == 0) {
            charfifo_close_reader(&t->r);
            q->reader_closed = true;
        }
    }
}

/* OPS in the environment sets the number of operations. */
static void random_operations_match_a_reference_queue(void **state)
{
    (void)state;
    uint64_t rng = random_seed();
    const char *s = getenv("OPS");
    uint64_t ops = s != NULL ? strtoull(s, NULL, 0) : 3000000;
    struct ring t;
    struct queue q = {0};
    for (uint64_t i = 0, next = 0; i < ops; i++) {
        if (i == next) { /* a new ring every 20000 operations */
            if (i > 0)
                ring_close(&t);
            next += 20000;
            q = (struct queue){0};
            uint64_t dice = random_next(&rng);
            ring_open(&t, MIN << (dice % 3), -(dice >> 8 & 0xff) * RING_LINE);
        } else if (q.wrote == q.got && (q.writer_closed || q.reader_closed)) {
            q = (struct queue){0};
            ring_restart(&t, random_next(&rng) & ~(uint64_t)63);
        }
        random_step(&t, &q, &rng, sizeof out);
    }
    ring_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_bytes_knows_the_valid_capacities),
        cmocka_unit_test(init_refuses_bad_arguments),
        cmocka_unit_test(attach_refuses_bad_arguments),
        cmocka_unit_test(a_writer_cannot_attach_to_a_fifo_in_use),
        cmocka_unit_test(init_makes_an_empty_fifo_of_any_garbage),
        cmocka_unit_test(every_size_passes_at_every_line_of_the_ring),
        cmocka_unit_test(a_record_can_be_read_in_two_parts_cut_at_every_byte),
        cmocka_unit_test(bytes_keep_their_order_over_many_laps),
        cmocka_unit_test(counters_pass_their_wraps),
        cmocka_unit_test(a_write_of_exactly_the_free_bytes_is_accepted_whole),
        cmocka_unit_test(a_write_sees_the_space_given_back_without_asking_for_it),
        cmocka_unit_test(an_idle_fifo_has_at_least_half_its_capacity_free),
        cmocka_unit_test(every_capacity_up_to_a_gibibyte_works),
        cmocka_unit_test(peek_shows_the_bytes_in_place_until_they_are_consumed),
        cmocka_unit_test(peek_shows_at_most_a_quarter_of_the_capacity),
        cmocka_unit_test(released_says_once_that_space_went_back),
        cmocka_unit_test(nothing_is_read_or_written_for_a_length_of_zero),
        cmocka_unit_test(backlogs_tell_how_much_of_the_capacity_is_taken),
        cmocka_unit_test(prefetching_changes_nothing),
        cmocka_unit_test(eof_comes_after_the_last_byte_and_stays),
        cmocka_unit_test(a_write_fails_with_epipe_as_soon_as_the_reader_has_closed),
        cmocka_unit_test(random_operations_match_a_reference_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
