/* test_channel.c - segment and doorbell: what is refused, who is woken, and that no bell is lost. Both sides in one process,
 * each with a mapping of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "channel/channel.h"
#include "channel/clock.h"

#define RING ((size_t)4096)

static const uint8_t token[RSHM_TOKEN_BYTES] = "0123456789abcde";

struct pair {
    int sockets[2];
    struct rshm_channel server, client;
};

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    struct rshm_map map;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p->sockets), 0);
    int fd = rshm_segment_create(&map, RING, token, -1);
    assert_true(fd >= 0);
    assert_int_equal(rshm_channel_init(&p->server, RSHM_SERVER, &map, p->sockets[0]), 0);
    assert_int_equal(rshm_segment_open(&map, fd, token), 0);
    assert_int_equal(rshm_channel_init(&p->client, RSHM_CLIENT, &map, p->sockets[1]), 0);
    close(fd);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    rshm_channel_deinit(&p->server);
    rshm_channel_deinit(&p->client);
    close(p->sockets[0]);
    close(p->sockets[1]);
    free(p);
    return 0;
}

static int bells_at(int socket)
{
    char c[64];
    ssize_t n = recv(socket, c, sizeof c, MSG_DONTWAIT | MSG_PEEK);
    return n < 0 ? 0 : (int)n;
}

/* ---- segment ---- */

static void a_segment_is_sealed_private_and_of_the_size_it_says(void **state)
{
    struct rshm_map map;
    struct stat st;
    (void)state;
    int fd = rshm_segment_create(&map, 65536, token, -1);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, rshm_segment_bytes(65536));
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(st.st_blocks * 512 >= st.st_size); /* all of it is there: no SIGBUS when memory runs out */
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, st.st_size + 4096), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    rshm_segment_unmap(&map);
    close(fd);
}

static void a_mode_sets_the_permission_bits_without_the_execute_bits(void **state)
{
    struct rshm_map map;
    struct stat st;
    (void)state;
    int fd = rshm_segment_create(&map, RING, token, 0770);
    assert_true(fd >= 0);
    fstat(fd, &st);
    assert_int_equal(st.st_mode & 0777, 0660);
    rshm_segment_unmap(&map);
    close(fd);
}

static void ring_sizes_out_of_range_are_refused(void **state)
{
    struct rshm_map map;
    (void)state;
    const size_t bad[] = {0, 1, 2048, 4097, 65535, (size_t)1 << 31, SIZE_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(rshm_segment_bytes(bad[i]), 0);
        assert_int_equal(rshm_segment_create(&map, bad[i], token, -1), -EINVAL);
    }
}

/* A copy of a good segment with one field changed, sealed or not. */
static int forge(size_t off, uint64_t value, size_t value_bytes, int seals, off_t grow)
{
    struct rshm_map map;
    int good = rshm_segment_create(&map, RING, token, -1);
    int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(good >= 0 && fd >= 0);
    assert_int_equal(write(fd, map.base, map.bytes), (ssize_t)map.bytes);
    assert_int_equal(pwrite(fd, &value, value_bytes, (off_t)off), (ssize_t)value_bytes);
    assert_int_equal(ftruncate(fd, (off_t)map.bytes + grow), 0);
    if (seals != 0)
        assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    rshm_segment_unmap(&map);
    close(good);
    return fd;
}

static void a_client_refuses_every_segment_that_is_not_exactly_right(void **state)
{
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    const struct {
        const char *what;
        size_t off;
        uint64_t value;
        size_t bytes;
        int seals;
        off_t grow;
        int expected;
    } cases[] = {
        {"unchanged", 8, 2, 4, all, 0, 0},
        {"no seals", 8, 2, 4, 0, 0, -EPROTO},
        {"not sealed against shrinking", 8, 2, 4, F_SEAL_GROW | F_SEAL_SEAL, 0, -EPROTO},
        {"magic", 0, 0, 8, all, 0, -EPROTO},
        {"version 1", 8, 1, 4, all, 0, -EPROTONOSUPPORT},
        {"version 3", 8, 3, 4, all, 0, -EPROTONOSUPPORT},
        {"header_bytes", 12, 319, 4, all, 0, -EPROTO},
        {"segment_bytes less", 16, 4096, 8, all, 0, -EPROTO},
        {"ring_bytes 0", 24, 0, 8, all, 0, -EPROTO},
        {"ring_bytes no power of two", 24, 4160, 8, all, 0, -EPROTO},
        {"ring_bytes twice", 24, 8192, 8, all, 0, -EPROTO},
        {"ring_bytes huge", 24, UINT64_MAX, 8, all, 0, -EPROTO},
        {"request_off 0", 32, 0, 8, all, 0, -EPROTO},
        {"reply_off over the end", 40, UINT64_MAX - 63, 8, all, 0, -EPROTO},
        {"reply_off is request_off", 40, 4096, 8, all, 0, -EPROTO},
        {"another token", 48, 0, 8, all, 0, -EKEYREJECTED},
        {"a page too many", 8, 2, 4, all, 4096, -EPROTO},
        {"a page too few", 8, 2, 4, all, -4096, -EPROTO},
        {"a read position off the lines", 4096, 1, 8, all, 0, 0 /* the FIFO's attach says so */},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rshm_map map;
        struct rshm_channel ch;
        int fd = forge(cases[i].off, cases[i].value, cases[i].bytes, cases[i].seals, cases[i].grow);
        int r = rshm_segment_open(&map, fd, token);
        if (r != cases[i].expected)
            fail_msg("%s: %d instead of %d", cases[i].what, r, cases[i].expected);
        if (r == 0 && cases[i].off == 4096)
            assert_int_equal(rshm_channel_init(&ch, RSHM_CLIENT, &map, -1), -EPROTO);
        rshm_segment_unmap(&map);
        close(fd);
    }
    int pipes[2];
    struct rshm_map map;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(rshm_segment_open(&map, pipes[0], token), -EPROTO);
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- doorbells ---- */

static void nobody_rings_while_nobody_waits(void **state)
{
    struct pair *p = *state;
    char buf[64];
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rshm_channel_write(&p->client, "ping", 4), 4);
        assert_int_equal(rshm_channel_read(&p->server, buf, sizeof buf), 4);
        assert_int_equal(rshm_channel_write(&p->server, "pong!", 5), 5);
        assert_int_equal(rshm_channel_read(&p->client, buf, sizeof buf), 5);
    }
    assert_int_equal(bells_at(p->sockets[0]), 0);
    assert_int_equal(bells_at(p->sockets[1]), 0);
}

static void an_armed_reader_gets_one_bell_for_many_messages(void **state)
{
    struct pair *p = *state;
    assert_false(rshm_channel_arm(&p->server, RSHM_WANT_READ));
    for (int i = 0; i < 3; i++)
        rshm_channel_write(&p->client, "x", 1);
    assert_int_equal(bells_at(p->sockets[0]), 1);
    assert_int_equal(rshm_channel_drain(&p->server, MSG_DONTWAIT), 1);
    assert_int_equal(rshm_channel_drain(&p->server, MSG_DONTWAIT), 0);
}

static void arming_with_something_there_says_so_and_asks_for_no_bell(void **state)
{
    struct pair *p = *state;
    rshm_channel_write(&p->client, "x", 1);
    assert_true(rshm_channel_arm(&p->server, RSHM_WANT_READ));
    rshm_channel_write(&p->client, "x", 1);
    assert_int_equal(bells_at(p->sockets[0]), 0);
    assert_true(rshm_channel_arm(&p->server, RSHM_WANT_WRITE));
}

static void a_waiting_writer_is_rung_when_most_of_the_ring_is_free(void **state)
{
    struct pair *p = *state;
    char buf[RING] = {0};
    while (rshm_channel_write(&p->client, buf, 56) > 0)
        ;
    assert_false(rshm_channel_writable(&p->client));
    assert_false(rshm_channel_arm(&p->client, RSHM_WANT_WRITE));
    size_t taken = 0;
    while (bells_at(p->sockets[1]) == 0) {
        ssize_t n = rshm_channel_read(&p->server, buf, 56);
        assert_true(n > 0);
        taken += (size_t)n;
    }
    assert_true(taken >= RING / 2 / 64 * 56);
    assert_true(rshm_channel_writable(&p->client));
    while (rshm_channel_read(&p->server, buf, 56) > 0)
        ;
    assert_int_equal(bells_at(p->sockets[1]), 1); /* once */
}

static void a_waiting_writer_is_rung_when_nothing_is_left_to_read(void **state)
{
    struct pair *p = *state;
    char buf[RING] = {0};
    while (rshm_channel_write(&p->client, buf, 56) > 0)
        ;
    for (size_t i = 0; i < RING / 64 / 2; i++) /* half of it is gone before anybody waits */
        assert_int_equal(rshm_channel_read(&p->server, buf, 56), 56);
    while (rshm_channel_write(&p->client, buf, 56) > 0)
        ;
    for (size_t i = 0; i < RING / 64 / 2; i++)
        assert_int_equal(rshm_channel_read(&p->server, buf, 56), 56);
    rshm_store_relaxed(&p->client.out_wait->writer_waits, 1u);
    while (rshm_channel_read(&p->server, buf, 56) > 0)
        ;
    assert_int_equal(bells_at(p->sockets[1]), 1);
}

static void a_reader_that_leaves_bytes_behind_can_ask_to_be_rung(void **state)
{
    struct pair *p = *state;
    rshm_channel_write(&p->server, "left", 4);
    rshm_channel_request_bell(&p->client);
    assert_int_equal(bells_at(p->sockets[1]), 0);
    assert_int_equal(rshm_channel_drain(&p->server, MSG_DONTWAIT), 1);
    rshm_channel_answer_bell(&p->server);
    assert_int_equal(bells_at(p->sockets[1]), 1);
    rshm_channel_answer_bell(&p->server); /* once */
    assert_int_equal(bells_at(p->sockets[1]), 1);
}

static void something_on_the_socket_that_is_no_bell_is_an_error(void **state)
{
    struct pair *p = *state;
    send(p->sockets[1], "\nPING", 5, 0);
    assert_int_equal(rshm_channel_drain(&p->server, MSG_DONTWAIT), -EPROTO);
}

static void a_flag_that_the_peer_toggles_buys_one_bell_per_publication(void **state)
{
    struct pair *p = *state;
    for (int i = 0; i < 20; i++) {
        rshm_store_relaxed(&p->client.out_wait->reader_waits, 0xffffffffu);
        rshm_channel_write(&p->client, "x", 1);
    }
    assert_int_equal(bells_at(p->sockets[0]), 20);
}

static void send_and_take(struct pair *p)
{
    char buf[4];
    assert_int_equal(rshm_channel_write(&p->client, "x", 1), 1);
    assert_int_equal(rshm_channel_drain(&p->server, MSG_DONTWAIT), 1);
    rshm_channel_disarm(&p->server);
    assert_int_equal(rshm_channel_read(&p->server, buf, sizeof buf), 1);
}

static void sleep_for_each_of(struct pair *p, int messages)
{
    for (int i = 0; i < messages; i++) {
        assert_false(rshm_channel_arm(&p->server, RSHM_WANT_READ));
        send_and_take(p);
    }
}

static void a_bell_never_blocks_its_sender(void **state)
{
    struct pair *p = *state;
    char c = 'x';
    assert_int_equal(fcntl(p->sockets[0], F_GETFL) & O_NONBLOCK, 0); /* as that of a blocking hiredis context; a server's is not */
    rshm_store_relaxed(&p->server.out_wait->reader_waits, RSHM_RING_ALWAYS);
    alarm(30); /* ends the program if it blocks */
    for (int i = 0; i < 5000; i++) { /* the socket's buffer holds a few hundred */
        assert_int_equal(rshm_channel_write(&p->server, &c, 1), 1);
        assert_int_equal(rshm_channel_read(&p->client, &c, 1), 1);
    }
    alarm(0);
    assert_true(bells_at(p->sockets[1]) > 0);
}

static void a_reader_that_sleeps_for_each_message_leaves_its_flag_up(void **state)
{
    struct pair *p = *state;
    rshm_u32 *flag = &p->server.in_wait->reader_waits;
    sleep_for_each_of(p, 2);
    assert_int_equal(rshm_load_relaxed(flag), 0);
    sleep_for_each_of(p, 20);
    assert_int_equal(rshm_load_relaxed(flag), RSHM_RING_ALWAYS);
    send_and_take(p); /* also while it is awake */
    assert_int_equal(rshm_load_relaxed(flag), RSHM_RING_ALWAYS);
}

static void a_standing_request_ends_when_a_message_is_there_before_the_sleep(void **state)
{
    struct pair *p = *state;
    char buf[4];
    sleep_for_each_of(p, 20);
    rshm_channel_write(&p->client, "x", 1);
    assert_true(rshm_channel_arm(&p->server, RSHM_WANT_READ));
    assert_int_equal(rshm_load_relaxed(&p->server.in_wait->reader_waits), 0);
    assert_int_equal(bells_at(p->sockets[0]), 1);
    rshm_channel_read(&p->server, buf, sizeof buf);
    rshm_channel_write(&p->client, "y", 1);
    assert_int_equal(bells_at(p->sockets[0]), 1); /* no other: it is awake */
    rshm_channel_read(&p->server, buf, sizeof buf);
    rshm_channel_drain(&p->server, MSG_DONTWAIT);
    sleep_for_each_of(p, 2);
    assert_int_equal(rshm_load_relaxed(&p->server.in_wait->reader_waits), 0);
}

static void a_reader_that_stays_awake_is_rung_no_more(void **state)
{
    struct pair *p = *state;
    sleep_for_each_of(p, 20);
    rshm_channel_stay_awake(&p->server);
    rshm_channel_write(&p->client, "x", 1);
    assert_int_equal(bells_at(p->sockets[0]), 0);
}

/* ---- waiting ---- */

static struct rshm_waiting sleeping = {.mode = RSHM_MODE_BLOCK};

struct later {
    struct pair *p;
    unsigned delay_us;
};

static void *write_later(void *arg)
{
    struct later *l = arg;
    usleep(l->delay_us);
    rshm_channel_write(&l->p->client, "late", 4);
    return NULL;
}

static void a_sleeping_reader_is_woken_by_the_next_message(void **state)
{
    struct pair *p = *state;
    char buf[8];
    struct rshm_waiting spinning = {.limit = 100 * rshm_ticks_per_us()};
    for (int i = 0; i < 50; i++) {
        struct later l = {p, (unsigned)(i * 20)};
        pthread_t t;
        pthread_create(&t, NULL, write_later, &l);
        assert_int_equal(rshm_channel_wait(&p->server, RSHM_WANT_READ, i % 2 ? &spinning : &sleeping, 0), 0);
        assert_int_equal(rshm_channel_read(&p->server, buf, sizeof buf), 4);
        pthread_join(t, NULL);
    }
}

static void a_wait_ends_with_the_sockets_timeout(void **state)
{
    struct pair *p = *state;
    struct timeval tv = {.tv_usec = 30000};
    setsockopt(p->sockets[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    uint64_t start = rshm_now_ns();
    assert_int_equal(rshm_channel_wait(&p->client, RSHM_WANT_READ, &sleeping, 0), -ETIMEDOUT);
    assert_true(rshm_now_ns() - start >= 29000000u);
}

static void on_alarm(int sig)
{
    (void)sig;
}

static void a_signal_ends_a_wait(void **state)
{
    struct pair *p = *state;
    struct sigaction sa = {.sa_handler = on_alarm};
    struct itimerval it = {.it_value.tv_usec = 20000};
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &it, NULL);
    assert_int_equal(rshm_channel_wait(&p->client, RSHM_WANT_READ, &sleeping, 0), -EINTR);
}

static void a_ring_without_an_end_ends_with_its_socket(void **state)
{
    struct pair *p = *state;
    char buf[64];
    ssize_t n = 0;
    /* Records on every line, which no correct writer has: it keeps one free. */
    char *data = (char *)p->client.map.base + p->client.map.request_off + 2 * RSHM_CACHE_LINE;
    for (size_t off = 0; off < RING; off += RSHM_CACHE_LINE)
        rshm_store_relaxed((rshm_u64 *)(void *)(data + off), (uint64_t)1 << 32 | 2);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(rshm_channel_read(&p->server, buf, sizeof buf), sizeof buf); /* as it would from one who goes on writing */
    shutdown(p->sockets[1], SHUT_RDWR);
    assert_int_equal(rshm_channel_drain(&p->server, MSG_DONTWAIT), -EPIPE);
    size_t sum = 0;
    while ((n = rshm_channel_read(&p->server, buf, sizeof buf)) > 0 && sum <= 2 * RING)
        sum += (size_t)n;
    assert_int_equal(n, -EPROTO);
    assert_in_range(sum, RING - sizeof buf, RING);
}

static void what_was_written_before_the_end_is_read_before_the_end(void **state)
{
    struct pair *p = *state;
    char buf[16];
    rshm_channel_write(&p->server, "last words", 10);
    rshm_channel_deinit(&p->server);
    shutdown(p->sockets[0], SHUT_RDWR);
    assert_int_equal(rshm_channel_wait(&p->client, RSHM_WANT_READ, &sleeping, 0), 0);
    assert_int_equal(rshm_channel_read(&p->client, buf, sizeof buf), 10);
    assert_int_equal(rshm_channel_poll(&p->client), CHARFIFO_EOF);
    assert_int_equal(rshm_channel_write(&p->client, "x", 1), -EPIPE);
}

static void a_peer_that_dies_without_a_word_ends_the_wait(void **state)
{
    struct pair *p = *state;
    shutdown(p->sockets[0], SHUT_RDWR); /* all that a SIGKILLed server leaves behind */
    assert_int_equal(rshm_channel_wait(&p->client, RSHM_WANT_READ, &sleeping, 0), -EPIPE);
    assert_true(p->client.hangup);
    assert_int_equal(rshm_channel_wait(&p->client, RSHM_WANT_READ, &sleeping, 0), -EPIPE);
}

static void a_mapping_is_not_there_in_a_fork_child(void **state)
{
    struct pair *p = *state;
    char line[256];
    FILE *maps = fopen("/proc/self/smaps", "re");
    bool inside = false, dontfork = false;
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from <= (uintptr_t)p->server.map.base && (uintptr_t)p->server.map.base < to;
        if (inside && strncmp(line, "VmFlags:", 8) == 0)
            dontfork = strstr(line, " dc") != NULL;
    }
    fclose(maps);
    assert_true(dontfork);
}

int main(void)
{
#define WITH_PAIR(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_segment_is_sealed_private_and_of_the_size_it_says),
        cmocka_unit_test(a_mode_sets_the_permission_bits_without_the_execute_bits),
        cmocka_unit_test(ring_sizes_out_of_range_are_refused),
        cmocka_unit_test(a_client_refuses_every_segment_that_is_not_exactly_right),
        WITH_PAIR(nobody_rings_while_nobody_waits),
        WITH_PAIR(an_armed_reader_gets_one_bell_for_many_messages),
        WITH_PAIR(arming_with_something_there_says_so_and_asks_for_no_bell),
        WITH_PAIR(a_waiting_writer_is_rung_when_most_of_the_ring_is_free),
        WITH_PAIR(a_waiting_writer_is_rung_when_nothing_is_left_to_read),
        WITH_PAIR(a_reader_that_leaves_bytes_behind_can_ask_to_be_rung),
        WITH_PAIR(something_on_the_socket_that_is_no_bell_is_an_error),
        WITH_PAIR(a_flag_that_the_peer_toggles_buys_one_bell_per_publication),
        WITH_PAIR(a_bell_never_blocks_its_sender),
        WITH_PAIR(a_reader_that_sleeps_for_each_message_leaves_its_flag_up),
        WITH_PAIR(a_standing_request_ends_when_a_message_is_there_before_the_sleep),
        WITH_PAIR(a_reader_that_stays_awake_is_rung_no_more),
        WITH_PAIR(a_sleeping_reader_is_woken_by_the_next_message),
        WITH_PAIR(a_wait_ends_with_the_sockets_timeout),
        WITH_PAIR(a_signal_ends_a_wait),
        WITH_PAIR(a_ring_without_an_end_ends_with_its_socket),
        WITH_PAIR(what_was_written_before_the_end_is_read_before_the_end),
        WITH_PAIR(a_peer_that_dies_without_a_word_ends_the_wait),
        WITH_PAIR(a_mapping_is_not_there_in_a_fork_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
