/* wake.h - what wake_processes and wake_threads share: real sockets, real sleeps, and what is a lost wake-up.
 *
 * Every sleep ends after WAKE_STALL_S at the latest. If then there is something to do, has been for most of that time, and no bell lies on
 * the socket, nobody has rung who should have: a lost wake-up. Both sides are printed, and the program fails.
 */
#ifndef TESTS_STRESS_WAKE_H
#define TESTS_STRESS_WAKE_H

#include "traffic.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#define WAKE_STALL_S 2
#define WAKE_SILENT_S 60 /* nothing to do for so long, though operations are left: the other side hangs somewhere else */
#define EXIT_SKIP 77

struct wake_board { /* in memory that both sides, and whoever prints them, can see */
    struct traffic_side sides[2];
    double deadline_s;
    uint32_t failed;
};

static struct wake_board *board;

struct wake_round {
    size_t ring_bytes;
    uint64_t sleep_every;
    uint64_t spin_us[2]; /* server, client */
};
static const struct wake_round wake_rounds[] = {
    {4096, 4, {0, 0}},
    {4096, 12, {3, 0}},
    {8192, 12, {0, 3}},
    {4096, 24, {5, 5}},
};
#define WAKE_ROUNDS (sizeof wake_rounds / sizeof wake_rounds[0])

static void traffic_relax(void)
{
    rshm_cpu_relax();
}

static bool traffic_in_time(struct traffic_side *s)
{
    return rshm_load_relaxed(&s->sent) % 64 != 0 || stress_now_s() < board->deadline_s;
}

static void wake_print_side(const struct traffic_side *s, uint64_t now)
{
    struct traffic_side *unconst = (struct traffic_side *)(uintptr_t)s;
    fprintf(stderr,
            "%s: waits for %s, last moved %.3f s ago; sent %" PRIu64 ", received %" PRIu64 " of %" PRIu64 " messages\n"
            "    out: byte %" PRIu64 ", %" PRIu64 " left, line at %" PRIu64 ", reader known at %" PRIu64 "\n"
            "    in:  byte %" PRIu64 ", %" PRIu64 " left, line at %" PRIu64 ", given back to %" PRIu64 "\n"
            "    bells: %" PRIu64 " sent, %" PRIu64 " received\n",
            s->name, (const char *[]){"nothing", "data", "room", "data or room"}[rshm_load_relaxed(&unconst->waits_for) & 3],
            (double)(now - rshm_load_relaxed(&unconst->moved_ns)) * 1e-9, rshm_load_relaxed(&unconst->sent),
            rshm_load_relaxed(&unconst->received), s->operations, s->out_pos, s->out_left, s->ch.out.charfifo_private[3],
            s->ch.out.charfifo_private[4], s->in_pos, s->in_left, s->ch.in.charfifo_private[3], s->ch.in.charfifo_private[4],
            rshm_load_relaxed(&unconst->ch.stats.bells_sent), rshm_load_relaxed(&unconst->ch.stats.bells_received));
}

/* The other side goes on meanwhile: the figures need not fit together to the last byte. */
static void wake_print(struct traffic_side *s, const char *what)
{
    struct rshm_segment *m = s->ch.map.base;
    uint64_t now = rshm_now_ns();
    int bytes = 0;
    ioctl(s->ch.fd, FIONREAD, &bytes);
    fprintf(stderr, "%s, says the %s; %d bells on its socket\n", what, s->name, bytes);
    for (int i = 0; i < 2; i++)
        wake_print_side(&board->sides[i], now);
    fprintf(stderr, "flags: request.reader_waits %u, request.writer_waits %u, reply.reader_waits %u, reply.writer_waits %u\n",
            rshm_load_relaxed(&m->request_wait.reader_waits), rshm_load_relaxed(&m->request_wait.writer_waits),
            rshm_load_relaxed(&m->reply_wait.reader_waits), rshm_load_relaxed(&m->reply_wait.writer_waits));
}

static int traffic_wait(struct traffic_side *s, int want)
{
    const struct traffic_side *other = &board->sides[s == &board->sides[0]];
    for (int silent_s = 0;; silent_s += WAKE_STALL_S) {
        int r = rshm_channel_wait(&s->ch, want, &s->waiting, 0);
        if (r != -ETIMEDOUT)
            return r;
        /* The wait has lowered the flags, so what was published after that gets no bell: only what is older counts. */
        uint64_t age_ns = rshm_now_ns() - rshm_load_relaxed(&((struct traffic_side *)(uintptr_t)other)->moved_ns);
        char bell;
        if (rshm_channel_ready(&s->ch, want) && age_ns > WAKE_STALL_S * 500000000u &&
            recv(s->ch.fd, &bell, 1, MSG_PEEK | MSG_DONTWAIT) < 0) {
            wake_print(s, "LOST WAKE-UP");
            return -ETIMEDOUT;
        }
        if (silent_s >= WAKE_SILENT_S) {
            wake_print(s, "nothing happens");
            return -ETIMEDOUT;
        }
    }
}

/* Attaches one side. */
static bool wake_attach(enum rshm_side side, struct rshm_map *map, int fd, const struct wake_round *round, uint64_t seed, uint64_t operations)
{
    struct traffic_side *s = &board->sides[side];
    struct timeval stall = {.tv_sec = WAKE_STALL_S};
    memset(s, 0, sizeof *s);
    traffic_begin(s, side, seed);
    s->operations = operations;
    s->sleep_every = round->sleep_every;
    s->size_max = TRAFFIC_MESSAGE_MAX;
    s->big_every = 64;
    s->looks = 2000; /* some 50 us: longer than it takes the other to go to sleep */
    s->waiting.mode = round->spin_us[side] == 0 ? RSHM_MODE_BLOCK : RSHM_MODE_ADAPTIVE;
    s->waiting.limit = round->spin_us[side] * rshm_ticks_per_us();
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof stall) == 0 && rshm_channel_init(&s->ch, side, map, fd) == 0;
}

static bool wake_verdict(const struct wake_round *round, int client, int server, double seconds)
{
    struct traffic_side *c = &board->sides[RSHM_CLIENT], *s = &board->sides[RSHM_SERVER];
    uint64_t sent = rshm_load_relaxed(&c->sent);
    bool good = client == 0 && server == -EPIPE && sent > 0 && sent == rshm_load_relaxed(&c->received) &&
                sent == rshm_load_relaxed(&s->sent) && sent == rshm_load_relaxed(&s->received);
    printf("%s: ring of %zu bytes, spin %" PRIu64 " and %" PRIu64 " us: %" PRIu64 " operations, %" PRIu64
           " MB, %" PRIu64 " pauses, %" PRIu64 " bells, %.1f s",
           good ? "ok" : "FAILED", round->ring_bytes, round->spin_us[0], round->spin_us[1], sent, (c->out_pos + c->in_pos) / 1000000,
           c->pauses, rshm_load_relaxed(&c->ch.stats.bells_sent) + rshm_load_relaxed(&s->ch.stats.bells_sent), seconds);
    if (!good)
        printf("; the client ended with %d, the server with %d", client, server);
    printf("\n");
    fflush(stdout);
    return good;
}

static const uint8_t wake_token[RSHM_TOKEN_BYTES] = "0123456789abcde";

/* One round; the program says who runs the server. */
static bool wake_run(const struct wake_round *round, uint64_t seed, uint64_t operations);

/* program [thousand operations [seconds]]: ends early, but not failed, when the seconds are over. */
int main(int argc, char **argv)
{
    const char *given = getenv("SEED");
    uint64_t operations = (argc > 1 ? strtoull(argv[1], NULL, 0) : 1000) * 1000, seed;
    double seconds = argc > 2 ? atof(argv[2]) : 5, start = stress_now_s();
    bool good = true;
    if (argc > 3 || operations == 0 || seconds <= 0) {
        fprintf(stderr, "usage: %s [thousand operations [seconds]]\n", argv[0]);
        return 2;
    }
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    printf("SEED=%" PRIu64 "\n", seed);
    fflush(stdout);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        return 1;
    for (size_t i = 0; i < WAKE_ROUNDS && good; i++) {
        board->deadline_s = start + seconds * (double)(i + 1) / WAKE_ROUNDS;
        good = wake_run(&wake_rounds[i], seed + i, operations / WAKE_ROUNDS);
    }
    return good ? 0 : 1;
}

#endif
