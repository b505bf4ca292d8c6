/* traffic.h - requests and replies over a channel that make both sides sleep, for data and for room, as often as can be.
 *
 * Both sides know from the seed how long the n-th request and its reply are; the bytes tell their position. The client keeps some
 * requests under way and, every few operations (their number is random, too), lets all replies come in and waits until the server has
 * raised its wait flag, or nearly; so the next request meets a server that is just going to sleep, is asleep, or has just thought better of
 * it. Now and then a side does not read, until the other waits for room.
 *
 * The program that includes this says how to wait.
 */
#ifndef TESTS_STRESS_TRAFFIC_H
#define TESTS_STRESS_TRAFFIC_H

#include "stress.h"

#include "channel/channel.h"
#include "channel/clock.h"

#define TRAFFIC_MESSAGE_MAX 20000 /* bytes: five of the smallest rings */

struct traffic_side {
    struct rshm_channel ch;
    const char *name;
    uint64_t operations; /* in all */
    uint64_t sleep_every; /* at most: the client pauses after 1 to so many operations */
    uint64_t size_max, big_every; /* bytes; one message in so many may have them */
    uint64_t looks;      /* how long to wait for the other's flag, in looks */
    uint64_t dice, sizes_out, sizes_in; /* random numbers: own decisions; lengths, the same at both sides */
    uint64_t out_pos, in_pos;           /* bytes */
    uint64_t out_left, in_left;         /* of the message under way */
    rshm_u64 sent, received;            /* messages */
    rshm_u64 moved_ns;                  /* when the last bytes moved */
    rshm_u32 waits_for;                 /* RSHM_WANT_..., 0: awake */
    uint64_t pauses, waits;
    struct rshm_waiting waiting;
    uint8_t out_chunk[TRAFFIC_MESSAGE_MAX], in_chunk[TRAFFIC_MESSAGE_MAX];
};

/* Sleeps until one of want is possible, or spins first. 0, or -errno: over. */
static int traffic_wait(struct traffic_side *s, int want);
/* One look at the other's flag: the CPU goes elsewhere for a moment. */
static void traffic_relax(void);
/* False ends the client early. */
static bool traffic_in_time(struct traffic_side *s);

static inline uint64_t traffic_size(const struct traffic_side *s, uint64_t *x)
{
    uint64_t dice = stress_random(x), most = dice % s->big_every == 0 ? s->size_max : dice % 7 == 0 ? 1200 : 100;
    return 1 + (dice >> 16) % (most < s->size_max ? most : s->size_max);
}

static inline void traffic_begin(struct traffic_side *s, enum rshm_side side, uint64_t seed)
{
    bool client = side == RSHM_CLIENT;
    s->name = client ? "client" : "server";
    s->dice = seed * 2 + client + 1;
    s->sizes_out = (seed ^ (client ? 0x5bd1e995 : 0xc2b2ae35)) | 1;
    s->sizes_in = (seed ^ (client ? 0xc2b2ae35 : 0x5bd1e995)) | 1;
}

/* Writes some of what is left of the message, and begins the next. Returns the bytes, 0: no room, or -errno. */
static inline ssize_t traffic_write(struct traffic_side *s)
{
    uint8_t *chunk = s->out_chunk;
    if (s->out_left == 0)
        s->out_left = traffic_size(s, &s->sizes_out);
    for (size_t i = 0; i < s->out_left; i++)
        chunk[i] = stress_byte(s->out_pos + i);
    ssize_t n = rshm_channel_write(&s->ch, chunk, s->out_left);
    if (n > 0) {
        s->out_pos += (uint64_t)n;
        s->out_left -= (uint64_t)n;
        rshm_count(&s->sent, s->out_left == 0);
        rshm_store_relaxed(&s->moved_ns, rshm_now_ns());
    }
    return n;
}

/* Counts n bytes that came in. */
static inline int traffic_came(struct traffic_side *s, const uint8_t *chunk, size_t n)
{
    if (!stress_check(chunk, s->in_pos, n))
        return -EIO;
    s->in_pos += n;
    rshm_store_relaxed(&s->moved_ns, rshm_now_ns());
    while (n > 0) {
        if (s->in_left == 0)
            s->in_left = traffic_size(s, &s->sizes_in);
        size_t of_this = n < s->in_left ? n : (size_t)s->in_left;
        s->in_left -= of_this;
        n -= of_this;
        rshm_count(&s->received, s->in_left == 0);
    }
    return 0;
}

/* Reads what is there, or part of it. Returns the bytes, 0: none, or -errno; -EPIPE: the other side has closed. */
static inline ssize_t traffic_read(struct traffic_side *s)
{
    uint8_t *chunk = s->in_chunk;
    uint64_t dice = stress_random(&s->dice);
    ssize_t n = rshm_channel_read(&s->ch, chunk, dice % 4 == 0 ? 1 + (dice >> 8) % 200 : sizeof s->in_chunk);
    if (n == 0 && rshm_channel_poll(&s->ch) == CHARFIFO_EOF)
        return -EPIPE;
    int r = n > 0 ? traffic_came(s, chunk, (size_t)n) : 0;
    return r < 0 ? r : n;
}

/* Until the other side has raised a flag, or for so many looks. */
static inline void traffic_until_waiting(struct traffic_side *s, rshm_u32 *flag)
{
    uint64_t looks = stress_random(&s->dice) % 4 == 0 ? stress_random(&s->dice) % (s->looks + 1) : s->looks;
    while (looks-- > 0 && rshm_load_relaxed(flag) == 0)
        traffic_relax();
    for (looks = stress_random(&s->dice) % 16; looks-- > 0;)
        traffic_relax();
}

static inline int traffic_wait_for(struct traffic_side *s, int want)
{
    s->waits++;
    rshm_store_relaxed(&s->waits_for, (uint32_t)want);
    int r = traffic_wait(s, want);
    rshm_store_relaxed(&s->waits_for, 0u);
    return r;
}

static inline int traffic_client(struct traffic_side *s)
{
    uint64_t until_pause = 1 + stress_random(&s->dice) % s->sleep_every, window = 1;
    bool last = false;
    for (;;) {
        const uint64_t sent = rshm_load_relaxed(&s->sent), received = rshm_load_relaxed(&s->received);
        last = last || sent >= s->operations || !traffic_in_time(s);
        if (sent == received && s->out_left == 0) {
            if (last)
                return 0;
            if (sent >= until_pause) {
                until_pause = sent + 1 + stress_random(&s->dice) % s->sleep_every;
                window = 1 + stress_random(&s->dice) % 8;
                s->pauses++;
                traffic_until_waiting(s, &s->ch.out_wait->reader_waits);
            }
        }
        const bool may_send = s->out_left != 0 || (!last && sent < until_pause && sent - received < window);
        ssize_t wrote = may_send ? traffic_write(s) : 0;
        if (wrote < 0)
            return (int)wrote;
        if (sent != received && stress_random(&s->dice) % 128 == 0)
            traffic_until_waiting(s, &s->ch.in_wait->writer_waits);
        ssize_t got = wrote == 0 || stress_random(&s->dice) % 4 != 0 ? traffic_read(s) : 0;
        if (got < 0)
            return (int)got;
        if (wrote == 0 && got == 0) {
            int r = traffic_wait_for(s, RSHM_WANT_READ | (may_send ? RSHM_WANT_WRITE : 0));
            if (r < 0)
                return r;
        }
    }
}

static inline int traffic_server(struct traffic_side *s)
{
    for (;;) {
        if (rshm_load_relaxed(&s->sent) != rshm_load_relaxed(&s->received)) { /* while it waits for room it does not read, as servers do */
            ssize_t wrote = traffic_write(s);
            int r = wrote == 0 ? traffic_wait_for(s, RSHM_WANT_WRITE) : (int)wrote;
            if (r < 0)
                return r;
            continue;
        }
        if (stress_random(&s->dice) % 128 == 0)
            traffic_until_waiting(s, &s->ch.in_wait->writer_waits);
        ssize_t got = traffic_read(s);
        if (got == 0) {
            int r = traffic_wait_for(s, RSHM_WANT_READ);
            if (r < 0)
                return r;
        } else if (got < 0) {
            return (int)got;
        }
    }
}

#endif
