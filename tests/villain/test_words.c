/* Every word of the shared memory that a peer can write, set to every value that might hurt: what no correct client writes closes that connection
 * and names the rule, all else is harmless. docs/protocol.md, "What to validate", says which is which. */
#include "villain/witness.h"

#include <string.h>
#include <sys/socket.h>

#define BIG_BYTES 40000 /* a reply that is most of a ring */

static bool over_unix(void **state)
{
    return ((struct transport *)*state)->unix_socket;
}

/* ---- the header of the next request ---- */

static void each_header_that_no_client_writes_is_punished(void **state)
{
    const uint64_t quarter = RING_BYTES / 4;
    const uint64_t bad[] = {
        1, 5, UINT32_MAX,                                        /* a length without a kind */
        HEADER(0, 1, 0), HEADER(0, 1, quarter - 7), HEADER(0, 1, quarter), HEADER(0, 1, RING_BYTES), HEADER(0, 1, INT32_MAX),
        HEADER(0, 1, UINT32_MAX), HEADER(0, 1, UINT32_MAX - 7),  /* lengths: none, beyond the limit, those that overflow when rounded up */
        HEADER(0, 2, 1), HEADER(1, 2, 0), HEADER(0xffffff, 2, 0), /* ends with something */
        HEADER(0, 3, 5), HEADER(0, 0xff, 5), HEADER(1, 0, 0), HEADER(1, 0, 5), HEADER(0x800000, 0, 0), UINT64_MAX, UINT64_MAX - 1,
        (uint64_t)1 << 63, (uint64_t)INT64_MAX, HEADER(0, 5, 1),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct peer p;
        long mark = log_mark();
        peer_session(&p, &villain_server, over_unix(state));
        rshm_store_release(peer_request_header(&p, p.write_pos), bad[i]);
        peer_bell(&p);
        expect_punished(&p, mark, RULE_REQUEST);
    }
}

/* Goes to where a record of the longest legal length crosses the end of the data. */
static void go_near_the_end(struct peer *p)
{
    char reply[1024];
    while (p->ring_bytes - (p->write_pos & (p->ring_bytes - 1)) > 1024) {
        static const char filler[] = "*2\r\n$4\r\nECHO\r\n$600\r\n";
        char request[sizeof filler + 602];
        memset(request, 'x', sizeof request);
        memcpy(request, filler, sizeof filler - 1);
        memcpy(request + sizeof filler - 1 + 600, "\r\n", 2);
        assert_true(peer_put(p, request, sizeof filler - 1 + 602));
        peer_bell(p);
        for (ssize_t got = 0, n; got < 608; got += n)
            assert_true((n = peer_take(p, reply, sizeof reply, 5000)) > 0);
    }
}

static void a_record_that_crosses_the_end_of_the_data_is_punished(void **state)
{
    for (int more = 0; more < 3; more++) {
        struct peer p;
        long mark = log_mark();
        peer_session(&p, &villain_server, over_unix(state));
        go_near_the_end(&p);
        uint64_t to_end = p.ring_bytes - (p.write_pos & (p.ring_bytes - 1));
        rshm_store_release(peer_request_header(&p, p.write_pos), HEADER(0, 1, to_end - 7 + (uint64_t)more * 3000));
        peer_bell(&p);
        expect_punished(&p, mark, RULE_REQUEST);
    }
}

static void a_record_up_to_the_very_end_is_served(void **state)
{
    struct peer p;
    long mark = log_mark();
    peer_session(&p, &villain_server, over_unix(state));
    go_near_the_end(&p);
    char padding[1024];
    uint64_t to_end = p.ring_bytes - (p.write_pos & (p.ring_bytes - 1));
    memset(padding, '\n', sizeof padding); /* empty inline commands */
    assert_true(peer_put(&p, padding, to_end - 8));
    expect_harmless(&p, mark);
}

static void half_of_a_header_is_punished_or_not_seen(void **state)
{
    for (int half = 0; half < 2; half++) { /* torn: the length without its kind, the kind without its length */
        struct peer p;
        long mark = log_mark();
        peer_session(&p, &villain_server, over_unix(state));
        rshm_store_release((rshm_u32 *)(void *)peer_request_header(&p, p.write_pos) + half, half == 0 ? 6u : 1u);
        peer_bell(&p);
        expect_punished(&p, mark, RULE_REQUEST);
    }
}

static void an_end_record_ends_only_that_connection_without_a_rule(void **state)
{
    struct peer p;
    long mark = log_mark();
    peer_session(&p, &villain_server, over_unix(state));
    rshm_store_release(peer_request_header(&p, p.write_pos), HEADER(0, 2, 0));
    peer_bell(&p);
    assert_true(peer_closed(&p));
    expect_no_rule(mark);
    peer_end(&p);
    expect_service();
}

static void records_all_around_the_ring_are_served_once_and_end(void **state)
{
    /* Every line a legal header, without the free one that a correct writer keeps: whoever counts or follows them must stop. */
    struct peer p;
    peer_session(&p, &villain_server, over_unix(state));
    for (uint64_t off = LINE; off <= p.ring_bytes; off += LINE) {
        rshm_u64 *header = peer_request_header(&p, p.write_pos + p.ring_bytes - off);
        memcpy((char *)header + 8, "\r\n", 2);
        rshm_store_release(header, HEADER(0, 1, 2));
    }
    peer_bell(&p);
    for (int i = 0; i < 20; i++) {
        redisContext *c = connect_plain(&transports[1], &villain_server);
        redisReply *r = redisCommand(c, "SHM.CLIENTS"); /* looks at the backlog */
        assert_non_null(r);
        assert_int_equal(r->type, REDIS_REPLY_ARRAY);
        freeReplyObject(r);
        redisFree(c);
        expect_service();
    }
    peer_end(&p);
    await_stat(&villain_server, "sessions", 1); /* the witness' own: the villain's has ended, though its ring has not */
    expect_service();
}

/* ---- how far we have read ---- */

static void set_big(struct peer *p)
{
    char request[64], value[8000];
    redisContext *c = connect_plain(&transports[1], p->server);
    snprintf(request, sizeof request, "%d", BIG_BYTES);
    memset(value, 'v', sizeof value);
    freeReplyObject(redisCommand(c, "SETRANGE villain:big %d x", BIG_BYTES - 1));
    redisFree(c);
}

/* Asks for more than the reply ring holds, so that the server has to look at the read position. */
static void ask_for_much(struct peer *p)
{
    static const char get[] = "GET villain:big\r\nGET villain:big\r\nGET villain:big\r\n";
    peer_put(p, get, sizeof get - 1);
    peer_bell(p);
}

static void drink(struct peer *p, size_t bytes)
{
    static char all[RING_BYTES];
    for (size_t got = 0; got < bytes;) {
        ssize_t n = peer_take(p, all, sizeof all, 5000);
        assert_true(n > 0);
        got += (size_t)n;
    }
}

static void each_read_position_that_no_client_writes_is_punished(void **state)
{
    for (int i = 0; i < 10; i++) {
        struct peer p;
        peer_session(&p, &villain_server, over_unix(state));
        set_big(&p);
        for (int lap = 0; lap < 2; lap++) { /* so that it can go back behind what the server last saw */
            ask_for_much(&p);
            drink(&p, 3 * (BIG_BYTES + 10));
        }
        const uint64_t now = p.read_pos, r = p.ring_bytes;
        const uint64_t bad[10] = {0, 1, now + 1, now - 2 * r, now + LINE + r, now + r, now + 8 * r, UINT64_MAX, UINT64_MAX - 63, (uint64_t)1 << 63};
        long mark = log_mark();
        rshm_store_release(peer_reply_read_pos(&p), bad[i]);
        ask_for_much(&p);
        expect_punished(&p, mark, RULE_REPLY);
    }
}

static void a_reader_that_says_it_has_closed_ends_only_itself(void **state)
{
    const uint32_t values[] = {1, 2, INT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct peer p;
        long mark = log_mark();
        peer_session(&p, &villain_server, over_unix(state));
        rshm_store_relaxed(peer_reply_closed(&p), values[i]);
        assert_true(peer_put(&p, "PING\r\n", 6));
        peer_bell(&p);
        assert_true(peer_closed(&p));
        expect_no_rule(mark);
        peer_end(&p);
        expect_service();
    }
}

/* ---- what the server wrote for us, and never reads back ---- */

static void what_the_server_wrote_itself_is_not_read_back(void **state)
{
    const uint64_t values[] = {0, 1, 64, RING_BYTES, UINT32_MAX, UINT64_MAX, (uint64_t)1 << 63, 0 - (uint64_t)RING_BYTES};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct peer p;
        long mark = log_mark();
        peer_session(&p, &villain_server, over_unix(state));
        rshm_store_relaxed(peer_request_read_pos(&p), values[i]);
        rshm_store_relaxed((rshm_u64 *)(void *)((char *)peer_request_read_pos(&p) + 8), values[i]); /* "the server has closed" */
        memset((char *)peer_request_read_pos(&p) + LINE, (int)values[i], LINE);
        memset((char *)peer_reply_read_pos(&p) + LINE, (int)values[i], LINE);
        for (uint64_t *word = (uint64_t *)(void *)p.base; word < (uint64_t *)(void *)&p.base->request_wait; word++)
            *word = values[i]; /* magic, sizes, offsets, token */
        for (uint64_t pos = p.read_pos + 2 * LINE; pos < p.read_pos + p.ring_bytes; pos += LINE)
            rshm_store_relaxed(peer_reply_header(&p, pos), values[i]);
        rshm_store_relaxed(peer_reply_header(&p, p.read_pos), (uint64_t)0); /* or we would take it for a reply ourselves */
        static const char ping[] = "PING\r\n";
        memcpy((char *)peer_request_header(&p, p.write_pos) + 8, ping, 6);
        rshm_store_relaxed(peer_request_header(&p, p.write_pos + LINE), (uint64_t)0);
        rshm_store_release(peer_request_header(&p, p.write_pos), HEADER(0, 1, 6));
        peer_bell(&p);
        char reply[64];
        assert_int_equal(peer_take(&p, reply, sizeof reply, 5000), 7);
        expect_no_rule(mark);
        peer_end(&p);
        expect_service();
    }
}

/* ---- flags ---- */

static void any_value_in_any_flag_is_harmless(void **state)
{
    const uint32_t values[] = {0, 1, 2, 3, 4, 0x80000000u, INT32_MAX, UINT32_MAX};
    struct peer p;
    long mark = log_mark();
    peer_session(&p, &villain_server, over_unix(state));
    for (int round = 0; round < 5; round++)
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
            for (int flag = 0; flag < 4; flag++) {
                rshm_u32 *const flags[4] = {&p.base->request_wait.reader_waits, &p.base->request_wait.writer_waits,
                                            &p.base->reply_wait.reader_waits, &p.base->reply_wait.writer_waits};
                rshm_store_relaxed(flags[flag], values[i]);
                assert_true(peer_ping(&p));
            }
    expect_harmless(&p, mark);
}

/* "Ring always" (and every other value) buys one bell for each reply, and one for each bell of ours with "ring back": never more. */
static void a_forged_flag_buys_one_bell_a_reply(void **state)
{
    const uint32_t values[] = {1, RSHM_RING_BACK, RSHM_RING_ALWAYS, 4, UINT32_MAX};
    enum { PINGS = 100 };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct peer p;
        char bells[4096];
        long mark = log_mark(), got = 0;
        peer_session(&p, &villain_server, over_unix(state));
        for (int n = 0; n < PINGS; n++) {
            rshm_store_release(&p.base->reply_wait.reader_waits, values[i]);
            rshm_store_release(&p.base->request_wait.writer_waits, values[i]);
            assert_true(peer_ping(&p));
        }
        sleep_ms(20);
        for (ssize_t n; (n = recv(p.fd, bells, sizeof bells, MSG_DONTWAIT)) > 0; got += n)
            ;
        /* One for each reply; one for each of our own bells if it was "ring back"; one for each quarter of the requests' ring. */
        assert_in_range(got, values[i] == RSHM_RING_ALWAYS ? PINGS : 0, 2 * PINGS + PINGS * (long)LINE * 4 / RING_BYTES + 2);
        expect_harmless(&p, mark);
    }
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(each_header_that_no_client_writes_is_punished),
        OVER_BOTH(a_record_that_crosses_the_end_of_the_data_is_punished),
        OVER_BOTH(a_record_up_to_the_very_end_is_served),
        OVER_BOTH(half_of_a_header_is_punished_or_not_seen),
        OVER_BOTH(an_end_record_ends_only_that_connection_without_a_rule),
        OVER_BOTH(records_all_around_the_ring_are_served_once_and_end),
        OVER_BOTH(each_read_position_that_no_client_writes_is_punished),
        OVER_BOTH(a_reader_that_says_it_has_closed_ends_only_itself),
        OVER_BOTH(what_the_server_wrote_itself_is_not_read_back),
        OVER_BOTH(any_value_in_any_flag_is_harmless),
        OVER_BOTH(a_forged_flag_buys_one_bell_a_reply),
    };
    return villain_run(tests, sizeof tests / sizeof tests[0]);
}
