/* channel.c - two FIFOs, doorbells, waiting; the contract is in channel.h. */
#include "channel/channel.h"

#include <errno.h>
#include <string.h>

#include "channel/clock.h"
#include "channel/libc.h"

#define SOCKET_EVERY_US 1000 /* mode poll: a receive costs 0.3 us, so this is free, and the end is seen soon enough */
#define ROOM_QUARTERS 3        /* as sockets do: a writer is woken when three quarters are free, or all */
#define STANDING_AFTER 4       /* sleeps in a row: two requests and replies that were cold are no pattern yet */
#define SPIN_LOOKS_PER_CLOCK 8 /* a look and a pause take some 20 ns, the clock 10: read it seldom, yet stop within 0.2 us */

int rshm_channel_init(struct rshm_channel *ch, enum rshm_side side, struct rshm_map *map, int fd)
{
    memset(ch, 0, sizeof *ch);
    struct rshm_segment *s = map->base;
    size_t fifo_bytes = charfifo_memory_bytes(map->ring_bytes);
    char *request = (char *)s + map->request_off, *reply = (char *)s + map->reply_off;
    bool server = side == RSHM_SERVER;

    ch->fd = fd;
    ch->in_wait = server ? &s->request_wait : &s->reply_wait;
    ch->out_wait = server ? &s->reply_wait : &s->request_wait;
    int r = charfifo_attach_reader(&ch->in, server ? request : reply, fifo_bytes, map->ring_bytes);
    if (r == 0)
        r = charfifo_attach_writer(&ch->out, server ? reply : request, fifo_bytes, map->ring_bytes);
    if (r < 0)
        return -EPROTO;
    ch->map = *map;
    map->base = NULL;
    return 0;
}

void rshm_channel_deinit(struct rshm_channel *ch)
{
    if (ch->map.base == NULL)
        return;
    charfifo_close_writer(&ch->out);
    charfifo_close_reader(&ch->in);
    rshm_segment_unmap(&ch->map);
}

/* One byte, never blocking: a full socket buffer holds bells enough already, and an ended one is noticed by whoever reads. */
static void ring(struct rshm_channel *ch)
{
    static const char bell = RSHM_BELL;
    RSHM_LIBC(send)(ch->fd, &bell, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    rshm_count(&ch->stats.bells_sent, 1);
}

/* After publishing something that whoever set *flag waits for. Returns true if it rang. */
static bool wake(struct rshm_channel *ch, rshm_u32 *flag)
{
    rshm_fence_full(); /* W3: our publication before our look at the flag; pairs with R3 in rshm_channel_arm() */
    uint32_t waits = rshm_load_relaxed(flag);
    if (waits == 0)
        return false;
    if (waits != RSHM_RING_ALWAYS && !rshm_compare_exchange(flag, &waits, 0u) && waits == 0) /* taken back meanwhile: the peer is awake */
        return false;
    ring(ch);
    return true;
}

ssize_t rshm_channel_writev(struct rshm_channel *ch, const struct iovec *iov, int iovcnt)
{
    ssize_t sum = 0;
    if (ch->woke_at != 0) {
        ch->pace = rshm_pace(rshm_ticks() - ch->woke_at);
        ch->woke_at = 0;
    }
    charfifo_set_tag(&ch->out, rshm_tag(rshm_cpu_tag(), ch->pace));
    for (int i = 0; i < iovcnt; i++) {
        ssize_t w = charfifo_write(&ch->out, iov[i].iov_base, iov[i].iov_len);
        if (w < 0 && sum == 0)
            return w;
        if (w > 0)
            sum += w;
        if (w < (ssize_t)iov[i].iov_len)
            break;
    }
    if (sum > 0) {
        rshm_count(&ch->stats.bytes_out, (uint64_t)sum);
        rshm_count(&ch->stats.messages_out, 1);
        ch->streamed_in = rshm_load_relaxed(&ch->stats.bytes_in);
        ch->rang = wake(ch, &ch->out_wait->reader_waits);
        charfifo_prefetch_write(&ch->out);
    }
    return sum;
}

ssize_t rshm_channel_write(struct rshm_channel *ch, const void *p, size_t n)
{
    const struct iovec one = {(void *)(uintptr_t)p, n};
    return rshm_channel_writev(ch, &one, 1);
}

/* After giving space back. A waiting writer is seen at once and told later; whoever reads until nothing is left comes by here again. */
static void give_room(struct rshm_channel *ch, bool released)
{
    if (released) {
        rshm_fence_full(); /* W3: the read position before our look at the flag; pairs with R3 in rshm_channel_arm() */
        if (ch->room_due != 0 || rshm_load_relaxed(&ch->in_wait->writer_waits) != 0)
            ch->room_due++;
    }
    if (ch->room_due != 0 && (ch->room_due >= ROOM_QUARTERS || charfifo_poll(&ch->in) != CHARFIFO_READABLE)) {
        ch->room_due = 0;
        wake(ch, &ch->in_wait->writer_waits);
    }
}

ssize_t rshm_channel_read(struct rshm_channel *ch, void *p, size_t n)
{
    ssize_t r = charfifo_read(&ch->in, p, n);
    if (r > 0) {
        rshm_count(&ch->stats.bytes_in, (uint64_t)r);
        rshm_count(&ch->stats.messages_in, 1);
        ch->streamed_out = rshm_load_relaxed(&ch->stats.bytes_out);
        if (ch->hangup) {
            /* Records all around the ring, without the free line, would be read for ever by whoever reads "what is left". */
            ch->after_end_bytes += (size_t)r;
            if (ch->after_end_bytes > ch->map.ring_bytes)
                return -EPROTO;
        }
    }
    if (r >= 0)
        give_room(ch, charfifo_released(&ch->in));
    return r;
}

bool rshm_channel_streams(const struct rshm_channel *ch, int want)
{
    const uint64_t run = ch->map.ring_bytes / 8;
    return ((want & RSHM_WANT_READ) && rshm_load_relaxed(&ch->stats.bytes_in) - ch->streamed_in >= run) ||
           ((want & RSHM_WANT_WRITE) && rshm_load_relaxed(&ch->stats.bytes_out) - ch->streamed_out >= run);
}

bool rshm_channel_writable(struct rshm_channel *ch)
{
    ssize_t room = charfifo_free_bytes(&ch->out);
    /* A reader gives space back a quarter of the lines at a time, headers and padding included: an eighth of payload is always
     * there when it rings, and is worth waking up for. Closed (0 for ever) is left to the socket's end. */
    return room < 0 || (size_t)room >= ch->map.ring_bytes / 8;
}

bool rshm_channel_ready(struct rshm_channel *ch, int want)
{
    return ((want & RSHM_WANT_READ) && rshm_channel_poll(ch) != CHARFIFO_EMPTY) ||
           ((want & RSHM_WANT_WRITE) && rshm_channel_writable(ch));
}

static void take_back(struct rshm_channel *ch, int want)
{
    want &= ch->armed;
    if (ch->standing)
        want &= ~RSHM_WANT_READ;
    ch->armed &= ~want;
    /* Plain stores: a peer that takes the flag at this very moment rings once too often, which costs a look. */
    if (want & RSHM_WANT_READ)
        rshm_store_relaxed(&ch->in_wait->reader_waits, 0u);
    if (want & RSHM_WANT_WRITE)
        rshm_store_relaxed(&ch->out_wait->writer_waits, 0u);
}

static void raise_reader_flag(struct rshm_channel *ch)
{
    if (ch->standing)
        return;
    ch->standing = ch->asleep >= STANDING_AFTER;
    rshm_store_relaxed(&ch->in_wait->reader_waits, ch->standing ? RSHM_RING_ALWAYS : 1u);
}

#ifdef RSHM_TEST_HOOKS
void (*rshm_channel_hook)(struct rshm_channel *ch, int want, enum rshm_hook where);
#define HOOK(where) \
    do { \
        if (rshm_channel_hook != NULL) \
            rshm_channel_hook(ch, want, where); \
    } while (0)
#else
#define HOOK(where) ((void)0)
#endif

bool rshm_channel_arm(struct rshm_channel *ch, int want)
{
    HOOK(RSHM_HOOK_BEFORE_FLAG);
    if (want & RSHM_WANT_READ)
        raise_reader_flag(ch);
    if (want & RSHM_WANT_WRITE)
        rshm_store_relaxed(&ch->out_wait->writer_waits, 1u);
    ch->armed |= want;
    HOOK(RSHM_HOOK_BEFORE_SECOND_LOOK);
    rshm_fence_full(); /* R3: our flags before our second look; pairs with W3 in wake() */
    if (!rshm_channel_ready(ch, want)) {
        HOOK(RSHM_HOOK_ARMED);
        if (want & RSHM_WANT_READ)
            ch->asleep++;
        return false;
    }
    if (want & RSHM_WANT_READ)
        rshm_channel_stay_awake(ch); /* messages come faster than we fall asleep: a bell for each would be too many */
    take_back(ch, want);
    return true;
}

void rshm_channel_disarm(struct rshm_channel *ch)
{
    take_back(ch, RSHM_WANT_READ | RSHM_WANT_WRITE);
}

void rshm_channel_stay_awake(struct rshm_channel *ch)
{
    ch->asleep = 0;
    if (ch->standing) {
        ch->standing = false;
        take_back(ch, RSHM_WANT_READ);
    }
}

void rshm_channel_request_bell(struct rshm_channel *ch)
{
    ch->standing = false;
    ch->asleep = 0;
    ch->armed |= RSHM_WANT_READ;
    rshm_store_relaxed(&ch->in_wait->reader_waits, RSHM_RING_BACK); /* ordered by the system call that follows */
    ring(ch);
}

void rshm_channel_answer_bell(struct rshm_channel *ch)
{
    uint32_t waits = rshm_load_relaxed(&ch->out_wait->reader_waits);
    if (waits == RSHM_RING_BACK && rshm_compare_exchange(&ch->out_wait->reader_waits, &waits, 0u))
        ring(ch);
}

int rshm_channel_drain(struct rshm_channel *ch, int flags)
{
    char bells[64];
    ssize_t n = RSHM_LIBC(recv)(ch->fd, bells, sizeof bells, flags);
    if (n > 0) {
        for (ssize_t i = 0; i < n; i++)
            if (bells[i] != RSHM_BELL)
                return -EPROTO;
        rshm_count(&ch->stats.bells_received, (uint64_t)n);
        return (int)n;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return (flags & MSG_DONTWAIT) ? 0 : -ETIMEDOUT;
    if (n < 0 && errno == EINTR)
        return -EINTR;
    ch->hangup = true; /* closed, or reset because bells lay unread: the same to us */
    return -EPIPE;
}

/* Spins for budget ticks. Returns 1: one of want is possible; 0: the budget has ended; or -errno of the socket. */
static int spin(struct rshm_channel *ch, int want, uint64_t budget, uint64_t timeout)
{
    const uint64_t start = rshm_ticks();
    const bool forever = budget == RSHM_SPIN_FOREVER;
    uint64_t look_at = SOCKET_EVERY_US * rshm_ticks_per_us(), spent;
    do {
        for (int i = 0; i < SPIN_LOOKS_PER_CLOCK; i++) {
            if (rshm_channel_ready(ch, want)) {
                rshm_count(&ch->stats.spin_hits, 1);
                return 1;
            }
            rshm_cpu_relax();
        }
        spent = rshm_ticks() - start;
        if (forever)
            rshm_yield_to(charfifo_tag(&ch->in));
        if (forever && spent >= look_at) { /* whoever never sleeps must look for the end of the peer */
            int r = rshm_channel_drain(ch, MSG_DONTWAIT);
            if (r < 0)
                return r == -EPIPE && rshm_channel_ready(ch, want) ? 1 : r;
            if (timeout != 0 && spent >= timeout)
                return -ETIMEDOUT;
            look_at = spent + SOCKET_EVERY_US * rshm_ticks_per_us();
        }
    } while (spent < budget);
    rshm_count(&ch->stats.spin_misses, 1);
    return 0;
}

int rshm_channel_wait(struct rshm_channel *ch, int want, struct rshm_waiting *w, uint64_t timeout_ticks)
{
    if (ch->hangup)
        return rshm_channel_ready(ch, want) ? 0 : -EPIPE;
    uint64_t budget = 0;
    if (!ch->rang || w->mode == RSHM_MODE_POLL)
        budget = rshm_waiting_budget(w, charfifo_tag(&ch->in), 0, rshm_channel_streams(ch, RSHM_WANT_READ | RSHM_WANT_WRITE));
    ch->rang = false; /* its wake-up is over once we have slept: the next wait may spin */
    if (budget != 0) {
        rshm_channel_stay_awake(ch);
        int r = spin(ch, want, budget, timeout_ticks);
        if (r < 0)
            return r;
        if (r > 0) {
            rshm_waiting_hit(w);
            return 0;
        }
        rshm_waiting_missed(w);
    }
    for (;;) {
        if (rshm_channel_arm(ch, want))
            return 0;
        int r = rshm_channel_drain(ch, 0);
        if (r > 0 && !rshm_channel_ready(ch, want))
            continue; /* a bell from before, or for the other direction */
        rshm_channel_disarm(ch);
        ch->woke_at = rshm_ticks();
        if (r > 0 || (r == -EPIPE && rshm_channel_ready(ch, want)))
            return 0;
        return r;
    }
}
