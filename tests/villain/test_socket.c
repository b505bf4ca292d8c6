/* The socket, the memory object and the handshake in the hands of a villain; and one who holds a full ring and sleeps. */
#include "villain/witness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static bool over_unix(void **state)
{
    return ((struct transport *)*state)->unix_socket;
}

/* ---- the socket ---- */

static void what_is_no_bell_is_punished(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } said[] = {{"x", 1}, {"\0", 1}, {"\r\n", 2}, {"\n\n\nPING\r\n", 9}, {"*1\r\n$8\r\nSHUTDOWN\r\n", 18}, {"\xff\xff\xff\xff", 4}};
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        struct peer p;
        long mark = log_mark();
        peer_session(&p, &villain_server, over_unix(state));
        assert_true(peer_say(&p, said[i].bytes, said[i].n));
        expect_punished(&p, mark, RULE_SOCKET);
    }
}

static void a_flood_of_bells_is_only_noise(void **state)
{
    static char bells[1 << 16];
    struct peer p;
    long mark = log_mark();
    memset(bells, RSHM_BELL, sizeof bells);
    peer_session(&p, &villain_server, over_unix(state));
    for (int i = 0; i < 16; i++) {
        assert_true(peer_say(&p, bells, sizeof bells));
        expect_service();
    }
    expect_harmless(&p, mark);
}

static void descriptors_sent_with_a_bell_do_not_pile_up(void **state)
{
    struct peer p;
    long mark = log_mark();
    (void)state;
    peer_session(&p, &villain_server, true);
    int fds = count_fds(villain_server.pid);
    for (int i = 0; i < 200; i++) {
        union {
            struct cmsghdr align;
            char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec iov = {"\n", 1};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &p.memory, sizeof p.memory);
        assert_int_equal(sendmsg(p.fd, &m, MSG_NOSIGNAL), 1);
    }
    assert_true(peer_ping(&p));
    for (uint64_t end = now_ms() + 5000; count_fds(villain_server.pid) > fds && now_ms() < end;) /* connections of others come and go */
        sleep_ms(5);
    assert_in_range(count_fds(villain_server.pid), 0, fds);
    expect_harmless(&p, mark);
}

static void bells_that_are_never_taken_block_nobody(void **state)
{
    struct peer p;
    long mark = log_mark();
    int small = 1;
    peer_connect(&p, &villain_server, over_unix(state));
    setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_true(peer_open(&p));
    peer_map(&p);
    peer_bell(&p);
    rshm_store_release(&p.base->reply_wait.reader_waits, RSHM_RING_ALWAYS);
    /* Each buys a bell, none is taken. Over TCP the villain's kernel throws away what finds no room in its receive buffer, and the acknowledgements
     * of its own bells with it: its own connection may stall there. */
    for (int i = 0; i < 3000 && (over_unix(state) || i < 3 || p.write_pos < 2 * RING_BYTES); i++) {
        bool ok = over_unix(state) ? peer_ping(&p) : peer_put(&p, "PING\r\n", 6);
        peer_bell(&p);
        if (!over_unix(state) && !ok)
            break;
        assert_true(ok);
    }
    expect_service();
    expect_no_rule(mark);
    peer_end(&p);
    expect_service();
}

/* ---- the memory object ---- */

static void the_memory_cannot_be_truncated_grown_or_sealed(void **state)
{
    struct peer p;
    long mark = log_mark();
    peer_session(&p, &villain_server, over_unix(state));
    assert_int_equal(ftruncate(p.memory, 0), -1);
    assert_int_equal(ftruncate(p.memory, 4096), -1);
    assert_int_equal(ftruncate(p.memory, (off_t)p.bytes * 2), -1);
    assert_int_equal(fallocate(p.memory, 0, 0, (off_t)p.bytes * 2), -1);
    assert_int_equal(fcntl(p.memory, F_ADD_SEALS, F_SEAL_WRITE), -1);
    expect_harmless(&p, mark);
}

static void holes_in_the_memory_read_as_nothing(void **state)
{
    struct peer p;
    long mark = log_mark();
    peer_session(&p, &villain_server, over_unix(state));
    for (int i = 0; i < 50; i++) {
        assert_int_equal(fallocate(p.memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)p.bytes), 0);
        /* The reply header behind the last is zero as it was; our own positions are in our memory. */
        rshm_store_relaxed(peer_reply_read_pos(&p), p.read_pos);
        assert_true(peer_ping(&p));
    }
    expect_harmless(&p, mark);
}

static void closed_and_unmapped_memory_harms_only_its_client(void **state)
{
    struct peer p;
    long mark = log_mark();
    peer_session(&p, &villain_server, over_unix(state));
    close(p.memory);
    p.memory = -1;
    assert_true(peer_ping(&p));
    assert_int_equal(mprotect(p.base, p.bytes, PROT_NONE), 0);
    peer_bell(&p);
    expect_service();
    expect_no_rule(mark);
    munmap(p.base, p.bytes);
    p.base = NULL;
    peer_end(&p);
    expect_service();
}

static void memory_mapped_by_somebody_after_its_end_harms_nobody(void **state)
{
    struct peer p;
    peer_session(&p, &villain_server, over_unix(state));
    close(p.fd);
    p.fd = -1;
    for (int i = 0; i < 100; i++)
        memset(p.base, i, p.bytes);
    expect_service();
    peer_end(&p);
}

/* ---- the handshake ---- */

static void half_a_handshake_a_thousand_times_leaves_nothing(void **state)
{
    for (int i = 0; i < 1000; i++) {
        struct peer p;
        peer_connect(&p, &villain_server, over_unix(state));
        if (i % 4 == 0)
            peer_say(&p, "*3\r\n$8\r\nSHM.OPEN\r\n", 18);
        else if (i % 4 == 1)
            peer_say(&p, "SHM.OPEN 2 00000000000000000000000000000000 redis-shm-nobody\r\n", 62);
        else if (!peer_open(&p))
            fail_msg("SHM.OPEN: %s", p.reply);
        if (i % 4 == 3) {
            peer_map(&p); /* written to before it is confirmed, which the server must not look at */
            memset(p.base, 0xff, p.bytes);
        }
        peer_end(&p);
        if (i % 100 == 0)
            expect_service();
    }
    expect_service();
}

static void half_handshakes_all_at_once_are_limited(void **state)
{
    enum { MANY = 1100 }; /* the default limit is 1024 */
    struct peer *p = calloc(MANY, sizeof *p);
    int opened = 0;
    for (int i = 0; i < MANY; i++) {
        peer_connect(&p[i], &villain_server, over_unix(state));
        bool ok = peer_open(&p[i]);
        opened += ok;
        if (!ok)
            assert_non_null(strstr(p[i].reply, "shm.max-sessions (1024) is reached"));
    }
    assert_int_equal(opened, 1023); /* the witness has the other */
    expect_service();
    assert_in_range(shm_stat(&villain_server, "memory_bytes"), 1024u * 2 * RING_BYTES, 256u << 20);
    for (int i = 0; i < MANY; i++)
        peer_end(&p[i]);
    free(p);
    await_stat(&villain_server, "sessions", 1);
    expect_service();
}

static void memory_broken_before_the_confirmation_is_punished_after_it(void **state)
{
    struct peer p;
    long mark = log_mark();
    peer_connect(&p, &villain_server, over_unix(state));
    assert_true(peer_open(&p));
    peer_map(&p);
    memset((char *)p.base + p.request_off, 0xff, p.ring_bytes);
    peer_bell(&p);
    expect_punished(&p, mark, RULE_REQUEST);
}

/* The server connects to a name that it is told; the name of somebody else's rendezvous gives that one a wrong token, and us nothing. */
static void other_peoples_rendezvous_are_of_no_use(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char request[160], name[] = "redis-shm-somebody-elses", token[64];
    struct peer p;
    (void)state;
    int victim = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(a.sun_path + 1, name, sizeof name - 1);
    assert_int_equal(bind(victim, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof name)), 0);
    assert_int_equal(listen(victim, 1), 0);
    for (int i = 0; i < 5; i++) { /* a full queue too: refused, and never waited for */
        peer_connect(&p, &villain_server, false);
        snprintf(request, sizeof request, "SHM.OPEN 2 %032d %s\r\n", 7, name);
        peer_say(&p, request, strlen(request));
        assert_true(peer_line(&p));
        if (i < 2)
            assert_string_equal(p.reply, ":1");
        else
            assert_non_null(strstr(p.reply, "ERR SHM.OPEN: the memory could not be handed over"));
        assert_int_equal(p.memory, -1);
        peer_end(&p);
        expect_service();
    }
    int visitor = accept(victim, NULL, NULL);
    assert_int_equal(recv(visitor, token, sizeof token, 0), RSHM_TOKEN_BYTES); /* theirs, not the victim's */
    close(visitor);
    close(victim);
}

static void only_names_with_the_prefix_are_connected_to(void **state)
{
    static const char *const names[] = {"x", "redis-shm", "redis-shm-", "/run/dbus/system_bus_socket", "@redis-shm-x", "REDIS-SHM-x", ""};
    struct peer p;
    char request[256];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        peer_connect(&p, &villain_server, false);
        snprintf(request, sizeof request, "*4\r\n$8\r\nSHM.OPEN\r\n$1\r\n2\r\n$32\r\n%032d\r\n$%zu\r\n%s\r\n", 7, strlen(names[i]), names[i]);
        peer_say(&p, request, strlen(request));
        assert_true(peer_line(&p));
        assert_non_null(strstr(p.reply, "the rendezvous must be"));
        peer_end(&p);
    }
}

/* A visitor who comes to the client's rendezvous before the server does cannot know the token, so the client takes the server's memory. */
static void an_attacker_who_knocks_first_is_sent_away(void **state)
{
    (void)state;
    int stop[2];
    assert_int_equal(pipe(stop), 0);
    pid_t attacker = fork();
    if (attacker == 0) { /* connects to every rendezvous that shows up in this namespace, with a forged segment of its own */
        int forged = memfd_create("forged", MFD_ALLOW_SEALING | MFD_CLOEXEC);
        if (ftruncate(forged, 1 << 20) != 0 || fcntl(forged, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
            _exit(1);
        close(stop[1]);
        struct pollfd p = {stop[0], POLLIN, 0};
        while (poll(&p, 1, 0) == 0) {
            FILE *f = fopen("/proc/net/unix", "re");
            char line[512];
            while (f != NULL && fgets(line, sizeof line, f) != NULL) {
                char *name = strstr(line, "@redis-shm-");
                struct sockaddr_un a = {.sun_family = AF_UNIX};
                if (name == NULL)
                    continue;
                name[strcspn(name, "\n")] = 0;
                size_t n = strlen(name + 1);
                if (n > sizeof a.sun_path - 1)
                    continue;
                memcpy(a.sun_path + 1, name + 1, n);
                int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
                if (connect(s, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) == 0) {
                    char token[RSHM_TOKEN_BYTES] = {0};
                    union {
                        struct cmsghdr align;
                        char space[CMSG_SPACE(sizeof(int))];
                    } control = {0};
                    struct iovec iov = {token, sizeof token};
                    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
                    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
                    c->cmsg_level = SOL_SOCKET;
                    c->cmsg_type = SCM_RIGHTS;
                    c->cmsg_len = CMSG_LEN(sizeof(int));
                    memcpy(CMSG_DATA(c), &forged, sizeof forged);
                    (void)!sendmsg(s, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
                }
                close(s);
            }
            if (f != NULL)
                fclose(f);
        }
        _exit(0);
    }
    close(stop[0]);
    int open = 0;
    for (int i = 0; i < 100; i++) {
        redisContext *c = connect_plain(&transports[0], &villain_server);
        redisReply *r = redisUseSharedMemory(c);
        assert_non_null(r); /* shared memory, or an error and a plain socket: never somebody else's memory */
        open += redisIsSharedMemoryInitialized(c) != 0;
        freeReplyObject(r);
        reply_is_status(redisCommand(c, "PING"), "PONG");
        redisFree(c);
    }
    close(stop[1]);
    int status;
    waitpid(attacker, &status, 0);
    assert_int_equal(status, 0);
    assert_true(open > 0);
    expect_service();
}

/* ---- asleep with everything ---- */

/* Like SIGSTOP, which a test cannot tell from a client that just does nothing: the ring of replies is full, more waits in the server. */
static void a_client_that_stops_with_a_full_ring_stops_nobody_else(void **state)
{
    struct peer p;
    char get[] = "GET villain:stopped\r\n", set[] = "SETRANGE villain:stopped 60000 x\r\n";
    long mark = log_mark();
    peer_session(&p, &villain_server, over_unix(state));
    assert_true(peer_put(&p, set, strlen(set)));
    for (int i = 0; i < 400; i++)
        if (!peer_put(&p, get, strlen(get)))
            break;
    peer_bell(&p);
    for (int i = 0; i < 20; i++) {
        sleep_ms(50);
        expect_service();
    }
    expect_no_rule(mark);
    peer_end(&p);
    expect_service();
}

static void a_stopped_process_stops_nobody_else(void **state)
{
    int ready[2];
    char c;
    const bool unix_socket = over_unix(state);
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct peer p;
        char get[] = "GET villain:stopped\r\n";
        peer_session(&p, &villain_server, unix_socket);
        rshm_store_release(&p.base->reply_wait.reader_waits, RSHM_RING_ALWAYS);
        for (int i = 0; i < 100; i++)
            peer_put(&p, get, strlen(get));
        peer_bell(&p);
        (void)!write(ready[1], "x", 1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    kill(child, SIGSTOP);
    for (int i = 0; i < 20; i++) {
        sleep_ms(50);
        expect_service();
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    expect_service();
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(what_is_no_bell_is_punished),
        OVER_BOTH(a_flood_of_bells_is_only_noise),
        OVER_UNIX(descriptors_sent_with_a_bell_do_not_pile_up),
        OVER_BOTH(bells_that_are_never_taken_block_nobody),
        OVER_BOTH(the_memory_cannot_be_truncated_grown_or_sealed),
        OVER_BOTH(holes_in_the_memory_read_as_nothing),
        OVER_BOTH(closed_and_unmapped_memory_harms_only_its_client),
        OVER_BOTH(memory_mapped_by_somebody_after_its_end_harms_nobody),
        OVER_BOTH(half_a_handshake_a_thousand_times_leaves_nothing),
        OVER_BOTH(half_handshakes_all_at_once_are_limited),
        OVER_BOTH(memory_broken_before_the_confirmation_is_punished_after_it),
        OVER_TCP(other_peoples_rendezvous_are_of_no_use),
        OVER_TCP(only_names_with_the_prefix_are_connected_to),
        OVER_TCP(an_attacker_who_knocks_first_is_sent_away),
        OVER_BOTH(a_client_that_stops_with_a_full_ring_stops_nobody_else),
        OVER_BOTH(a_stopped_process_stops_nobody_else),
    };
    return villain_run(tests, sizeof tests / sizeof tests[0]);
}
