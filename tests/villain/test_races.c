/* Words that change between two looks: a second thread of the villain writes as fast as it can while the server works. Either the server saw a legal value
 * at each look, and serves; or it saw an illegal one, and closes that connection. Nothing in between, and nobody else notices. */
#include "villain/witness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define RACE_MS 150
#define SESSIONS 12

static bool over_unix(void **state)
{
    return ((struct transport *)*state)->unix_socket;
}

struct toggler {
    pthread_t thread;
    atomic_bool stop;
    rshm_u64 *word64; /* one of the two */
    rshm_u32 *word32;
    uint64_t values[4];
    int count;
};

static void *toggle(void *arg)
{
    struct toggler *t = arg;
    for (unsigned i = 0; !t->stop; i++) {
        const uint64_t v = t->values[i % (unsigned)t->count];
        if (t->word64 != NULL)
            rshm_store_relaxed(t->word64, v);
        else
            rshm_store_relaxed(t->word32, (uint32_t)v);
        if (i % 64 == 0)
            rshm_cpu_relax();
    }
    return NULL;
}

static void start(struct toggler *t)
{
    t->stop = false;
    assert_int_equal(pthread_create(&t->thread, NULL, toggle, t), 0);
}

static void end(struct toggler *t)
{
    t->stop = true;
    pthread_join(t->thread, NULL);
}

static void flags_that_flicker_are_harmless(void **state)
{
    for (int flag = 0; flag < 4; flag++) {
        struct peer p;
        long mark = log_mark();
        peer_session(&p, &villain_server, over_unix(state));
        rshm_u32 *const flags[4] = {&p.base->request_wait.reader_waits, &p.base->request_wait.writer_waits, &p.base->reply_wait.reader_waits,
                                    &p.base->reply_wait.writer_waits};
        struct toggler t = {.word32 = flags[flag], .values = {0, 1, RSHM_RING_BACK, RSHM_RING_ALWAYS}, .count = 4};
        start(&t);
        for (uint64_t until = now_ms() + RACE_MS; now_ms() < until;)
            assert_true(peer_ping(&p));
        end(&t);
        expect_harmless(&p, mark);
    }
}

/* The record's header flickers between a legal one, none, and lengths that would lead out of the ring, if ever the server took one look to check
 * and another to use. */
static void a_header_that_flickers_is_served_or_punished(void **state)
{
    const uint64_t other[] = {HEADER(0, 1, UINT32_MAX), HEADER(0, 1, RING_BYTES), HEADER(0, 1, RING_BYTES / 4 - 8), HEADER(0, 2, 0)};
    for (int i = 0; i < SESSIONS; i++) {
        struct peer p;
        peer_session(&p, &villain_server, over_unix(state));
        rshm_u64 *header = peer_request_header(&p, p.write_pos);
        memcpy((char *)header + 8, "PING\r\n", 6);
        rshm_store_relaxed(peer_request_header(&p, p.write_pos + LINE), (uint64_t)0);
        struct toggler t = {.word64 = header, .values = {HEADER(0, 1, 6), 0, other[i % 4], HEADER(0, 1, 6)}, .count = 4};
        start(&t);
        for (int bells = 0; bells < 20; bells++) {
            peer_bell(&p);
            sleep_ms(1);
        }
        end(&t);
        peer_end(&p);
        expect_service();
    }
}

/* The request's bytes change after the record is published: the server parses a copy, so what is echoed was there byte by byte. */
static void a_payload_that_flickers_is_echoed_as_it_was_copied(void **state)
{
    static const char prefix[] = "*2\r\n$4\r\nECHO\r\n$16\r\nxxxxx", suffix[] = "yyy\r\n"; /* 24 bytes, 8 that flicker, the rest */
    uint64_t a, b;
    struct peer p;
    long mark = log_mark();
    memset(&a, 'a', sizeof a);
    memset(&b, 'b', sizeof b);
    peer_session(&p, &villain_server, over_unix(state));
    for (uint64_t until = now_ms() + RACE_MS; now_ms() < until;) {
        char request[40], reply[64] = "";
        if (p.ring_bytes - (p.write_pos & (p.ring_bytes - 1)) < 2 * LINE)
            assert_true(peer_ping(&p));
        rshm_u64 *word = peer_request_header(&p, p.write_pos) + 4;
        struct toggler t = {.word64 = word, .values = {a, b}, .count = 2};
        memcpy(request, prefix, 24);
        memset(request + 24, 'a', 8);
        memcpy(request + 32, suffix, 5);
        start(&t);
        assert_true(peer_put(&p, request, 37));
        peer_bell(&p);
        ssize_t n = peer_take(&p, reply, sizeof reply - 1, 5000);
        end(&t);
        assert_int_equal(n, 23);
        assert_memory_equal(reply, "$16\r\nxxxxx", 10);
        assert_int_equal(strspn(reply + 10, "ab"), 8);
        assert_memory_equal(reply + 18, suffix, 5);
    }
    expect_harmless(&p, mark);
}

/* The read position flickers between the truth and what no client writes while the server fills the reply ring. */
static void a_read_position_that_flickers_is_served_or_punished(void **state)
{
    for (int i = 0; i < SESSIONS; i++) {
        struct peer p;
        char request[64];
        peer_session(&p, &villain_server, over_unix(state));
        struct toggler t = {.word64 = peer_reply_read_pos(&p), .values = {p.read_pos, p.read_pos - 64, p.read_pos + 1, p.read_pos + (uint64_t)i * RING_BYTES},
                            .count = 4};
        start(&t);
        snprintf(request, sizeof request, "SETRANGE villain:race 30000 x\r\n");
        peer_put(&p, request, strlen(request));
        for (int n = 0; n < 8; n++)
            peer_put(&p, "GET villain:race\r\n", 18);
        for (int bells = 0; bells < 20; bells++) {
            peer_bell(&p);
            sleep_ms(1);
        }
        end(&t);
        peer_end(&p);
        expect_service();
    }
}

/* Every word of the rings and the header page at once, for a while. */
static void a_segment_that_is_written_all_over_ends_at_most_that_connection(void **state)
{
    unsigned seed = 1;
    for (int i = 0; i < SESSIONS; i++) {
        struct peer p;
        peer_session(&p, &villain_server, over_unix(state));
        struct toggler t = {.word64 = peer_request_header(&p, p.write_pos), .values = {0, HEADER(0, 1, 2), UINT64_MAX, 1}, .count = 4};
        start(&t);
        for (uint64_t until = now_ms() + 30; now_ms() < until;) {
            for (int n = 0; n < 1000; n++) {
                seed = seed * 1103515245u + 12345u;
                size_t word = (seed >> 4) % (p.bytes / 4);
                static const uint32_t values[] = {0, 1, 2, 3, 64, RING_BYTES, UINT32_MAX, 0x80000000u};
                rshm_store_relaxed((rshm_u32 *)(void *)p.base + word, values[seed >> 29]);
            }
            peer_bell(&p);
        }
        end(&t);
        peer_end(&p);
        expect_service();
    }
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(flags_that_flicker_are_harmless),
        OVER_BOTH(a_header_that_flickers_is_served_or_punished),
        OVER_BOTH(a_payload_that_flickers_is_echoed_as_it_was_copied),
        OVER_BOTH(a_read_position_that_flickers_is_served_or_punished),
        OVER_BOTH(a_segment_that_is_written_all_over_ends_at_most_that_connection),
    };
    return villain_run(tests, sizeof tests / sizeof tests[0]);
}
