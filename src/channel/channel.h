/* channel.h - one connection's shared memory: two FIFOs, the doorbell between the two sides, and bounded waiting.
 *
 * The doorbell is a byte on the socket the connection came from, so every way to wait for a socket also waits for the
 * channel. A side that wants to sleep arms a wait flag, looks again, and only then sleeps; a side that publishes looks at the flag
 * and rings if it is set. Readiness is always computed from the FIFOs and never remembered from a bell.
 *
 * Threads: one at a time per channel. Processes: after fork() the child must not use it (the mapping is not even there).
 */
#ifndef RSHM_CHANNEL_H
#define RSHM_CHANNEL_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "channel/segment.h"
#include "channel/waiting.h"
#include "charfifo.h"

enum rshm_side { RSHM_SERVER, RSHM_CLIENT };

/* What to wait for. */
enum { RSHM_WANT_READ = 1, RSHM_WANT_WRITE = 2 };

/* Read by other threads (SHM.STATS) while the channel is in use. */
struct rshm_channel_stats {
    rshm_u64 bytes_in, bytes_out;
    rshm_u64 messages_in, messages_out; /* reads and writes that moved something */
    rshm_u64 bells_sent, bells_received;
    rshm_u64 spin_hits, spin_misses;
};

struct rshm_channel {
    charfifo in, out;
    struct rshm_wait *in_wait, *out_wait;
    int fd;          /* the socket; not owned */
    bool rang;       /* the last write found the peer asleep and woke it */
    uint64_t woke_at; /* ticks when the last sleep ended, until the next write; 0: none since */
    uint32_t pace;    /* what the tag says of us, waiting.h */
    bool hangup;     /* the socket has ended: what is in the FIFO is the last there will be */
    size_t after_end_bytes; /* read since then: at most a ring of it can be the peer's */
    int armed;       /* the flags that are up as far as we know: of RSHM_WANT_READ, RSHM_WANT_WRITE */
    bool standing;   /* RSHM_RING_ALWAYS is in our flag */
    uint32_t room_due; /* quarters given back since a writer was seen waiting for them that it has not been told of yet */
    uint64_t streamed_in, streamed_out; /* of bytes_in, bytes_out: where the present run of reads, of writes, began */
    uint32_t asleep; /* sleeps for data in a row, each ended by one bell; see rshm_channel_arm() */
    struct rshm_map map;
    struct rshm_channel_stats stats;
};

/* Takes over *map (unmapped by rshm_channel_deinit) and fd (not closed). Returns 0 or -EPROTO; then *map is still the caller's. */
int rshm_channel_init(struct rshm_channel *ch, enum rshm_side side, struct rshm_map *map, int fd);

/* Tells the peer through the FIFOs that this side is gone and unmaps. The peer wakes when the socket closes. */
void rshm_channel_deinit(struct rshm_channel *ch);

/* Writes up to n bytes and rings if the peer sleeps. Returns the count, 0 (full), -EPIPE (the peer has closed), -EPROTO.
 * Never blocks. */
ssize_t rshm_channel_write(struct rshm_channel *ch, const void *p, size_t n);

/* The same for iovcnt pieces, ringing once. */
ssize_t rshm_channel_writev(struct rshm_channel *ch, const struct iovec *iov, int iovcnt);

/* Reads up to n bytes, and rings if the peer waits for the space: not before the FIFO is empty or most of it is free, since waking up costs
 * more than a ring of bytes takes. Returns the count, 0 (nothing now; see rshm_channel_poll()), or -EPROTO (also for a peer whose ring has no end
 * after its socket has). Never blocks. */
ssize_t rshm_channel_read(struct rshm_channel *ch, void *p, size_t n);

/* A charfifo_state of the incoming FIFO, or -EPROTO. */
static inline int rshm_channel_poll(struct rshm_channel *ch)
{
    return charfifo_poll(&ch->in);
}

/* Room for at least an eighth of the ring, or an error that a write should report. */
bool rshm_channel_writable(struct rshm_channel *ch);

/* True if one of want is possible now (an error or the end counts: a call would tell). */
bool rshm_channel_ready(struct rshm_channel *ch, int want);

/* Before sleeping: asks the peer to ring when one of want becomes possible, then looks again. Returns true if it already is,
 * with the flags of want taken back (an earlier wait for the other direction stays); false: sleep now, a bell will come.
 * A reader that has slept for each of its last messages makes its request a standing one: the peer then rings after every publication, as a
 * write to a socket would, and neither side touches the line of the flag any more. */
bool rshm_channel_arm(struct rshm_channel *ch, int want);

/* Takes back what rshm_channel_arm() asked for, but for a standing request. A bell may still be under way. */
void rshm_channel_disarm(struct rshm_channel *ch);

/* We are going to look at the FIFO for some time: takes back a standing request too. */
void rshm_channel_stay_awake(struct rshm_channel *ch);

#ifdef RSHM_TEST_HOOKS
/* Tests only, never in what is installed: called inside rshm_channel_arm(), where a peer may be quickest. */
enum rshm_hook { RSHM_HOOK_BEFORE_FLAG, RSHM_HOOK_BEFORE_SECOND_LOOK, RSHM_HOOK_ARMED };
extern void (*rshm_channel_hook)(struct rshm_channel *ch, int want, enum rshm_hook where);
#endif

/* For a reader that will wait for the socket though something is left to read: makes the peer ring once. */
void rshm_channel_request_bell(struct rshm_channel *ch);

/* After taking a bell off the socket: rings back if that is what the peer asked for. */
void rshm_channel_answer_bell(struct rshm_channel *ch);

/* Takes bells off the socket. flags: MSG_DONTWAIT, or 0 to sleep until one comes as the socket's own timeout and signals
 * allow. Returns their number, 0 (MSG_DONTWAIT and none there), -ETIMEDOUT, -EINTR, -EPIPE (the socket ended; hangup is set),
 * -EPROTO (something that is no bell). */
int rshm_channel_drain(struct rshm_channel *ch, int flags);

/* True in the middle of something large: an eighth of the ring has come since the last write (RSHM_WANT_READ), or gone since the last read
 * (RSHM_WANT_WRITE). The peer is busy with it and will go on at once; to wake it up for each ring would take longer than the copying. */
bool rshm_channel_streams(const struct rshm_channel *ch, int want);

/* Waits until one of want is possible: spins as the policy says (not at all if the last write woke the peer up, who then needs a
 * CPU more than we do), then sleeps on the socket. timeout_ticks bounds a spin that would not end otherwise (mode poll; 0: none); a sleep
 * ends with the socket's own timeout. Returns 0, or as rshm_channel_drain(); -EPIPE only when nothing is left to read. */
int rshm_channel_wait(struct rshm_channel *ch, int want, struct rshm_waiting *w, uint64_t timeout_ticks);

#endif
