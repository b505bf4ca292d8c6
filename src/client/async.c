/* async.c - the asynchronous API of hiredis_shm.h, and the events of a context that uses it.
 *
 * Adapters wait for the socket and call redisAsyncHandleRead() or ...Write(), which end in rshm_async_read() or ...write() below. What must
 * hold whenever these return to the loop, once the connection is open (level-triggered waiting for the socket then misses nothing):
 *
 *   replies   armed or due, client.h: either the FIFO was found empty after our wait flag went up, so that whoever publishes next
 *             rings; or a bell is on the socket or on its way, so that the socket is or becomes readable.
 *   requests  c->obuf is empty; or the loop waits for the socket to be writable, which it is; or there was no room after our flag
 *             in the other direction went up, so that the server rings when it has made some.
 *
 * A bell does not say what it is for. Each readable event therefore looks at the incoming FIFO and, if something is left to write, at the
 * outgoing one, in this order: take bells off the socket, raise the flag, look. A bell that comes after it was too late to be
 * taken off makes the next event; one that came before is gone, but then the look that follows sees what it was rung for. A write interest is dropped
 * while the ring is full, else the loop would spin on a socket that always has room.
 *
 * Callbacks may free the context and with it our state. rshm_client_free() clears what s->alive points to; after each call into hiredis
 * that can run callbacks this is asked first.
 */
#pragma GCC visibility push(default)
#include "hiredis_shm.h"
#pragma GCC visibility pop

#include <poll.h>
#include <sys/socket.h>

#include <async.h>
#include <sds.h>

#include "channel/clock.h"
#include "client/client.h"

/* How much one event may take before the loop's others have their turn. hiredis takes 16 KiB from a socket per event; a bell costs more
 * than an epoll_wait(), so a few of those at a time. */
#define EVENT_BYTES (64 * 1024)
#define EVENT_READS 64
/* Callbacks run, and what they send goes out, read by read. The first of an event is short, so that the server has work while the callbacks
 * of the rest run; each takes twice as much as the one before. */
#define FIRST_READ_BYTES 256
#define SPIN_LOOKS_PER_CLOCK 8

static redisAsyncContext *async_of(const struct rshm_client *s)
{
    return (redisAsyncContext *)(void *)s->context; /* its first member */
}

/* Lets hiredis read once and run the callbacks of what came. Meanwhile it does not ask the loop for write events: what callbacks queue is
 * written by us before the event ends, a turn of the loop earlier. Returns the state, another one if a callback of a refused connection
 * has tried again; or NULL if it must not be touched any more: freed, or failed and left to its owner. */
static struct rshm_client *run_callbacks(struct rshm_client *s)
{
    redisAsyncContext *ac = async_of(s);
    struct rshm_client *alive = s;
    void (*add_write)(void *) = ac->ev.addWrite;

    s->alive = &alive;
    ac->ev.addWrite = NULL;
    redisAsyncRead(ac);
    if (alive == NULL)
        return NULL;
    alive->alive = NULL;
    if (ac->ev.addWrite == NULL)
        ac->ev.addWrite = add_write;
    return ac->c.err == 0 ? alive : NULL;
}

static void ask_for_write_events(redisAsyncContext *ac)
{
    if (ac->ev.addWrite != NULL)
        ac->ev.addWrite(ac->ev.data);
}

static void drop_write_events(redisAsyncContext *ac)
{
    if (ac->ev.delWrite != NULL)
        ac->ev.delWrite(ac->ev.data);
}

enum written {
    WRITTEN_ALL,
    WRITTEN_NO_ROOM, /* and a bell will say when there is some */
    WRITTEN_MORE,    /* there is room, but this event has written enough */
    WRITTEN_GONE     /* failed: s must not be touched any more */
};

static enum written write_out(struct rshm_client *s)
{
    redisContext *c = s->context;
    int done;
    if (redisBufferWrite(c, &done) != REDIS_OK) {
        redisAsyncWrite(async_of(s)); /* c->err is set: hiredis ends the connection */
        return WRITTEN_GONE;
    }
    if (done)
        return WRITTEN_ALL;
    return rshm_channel_arm(&s->channel, RSHM_WANT_WRITE) ? WRITTEN_MORE : WRITTEN_NO_ROOM;
}

/* In a readable event: what callbacks have queued, or what found no room before. Returns false if s is gone. */
static bool write_pending(struct rshm_client *s)
{
    if (sdslen(s->context->obuf) == 0)
        return true;
    enum written w = write_out(s);
    if (w == WRITTEN_MORE)
        ask_for_write_events(async_of(s));
    return w != WRITTEN_GONE;
}

static bool something_to_read(struct rshm_client *s)
{
    return rshm_channel_poll(&s->channel) != CHARFIFO_EMPTY || s->channel.hangup || s->broken;
}

/* Something is left to read, and the loop's other events have their turn first. */
static void leave_readable(struct rshm_client *s)
{
    struct rshm_channel *ch = &s->channel;
    if (s->armed || s->due) {
        /* A bell is still on the socket. So may the end be, behind it: libuv reports an error once only, so it must not be left. */
        struct pollfd p = {ch->fd, 0, 0};
        if (poll(&p, 1, 0) == 1)
            ch->hangup = true;
    } else if (rshm_client_must_look_again(s)) {
        rshm_channel_request_bell(ch);
        s->due = true;
    }
}

/* Woken by a bell. The server stays awake for a client that tells it a short time from here to its next request (channel/waiting.h). That pays if
 * the client will be awake too when the reply comes, on another CPU. A loop that sleeps is better off if the server sleeps too: then both share
 * a CPU, and none has to be fetched from its idle state. */
static void tell_pace(struct rshm_client *s)
{
    struct rshm_channel *ch = &s->channel;
    const bool tell = s->spins && !rshm_same_cpu(charfifo_tag(&ch->in));
    ch->woke_at = tell ? rshm_ticks() : 0;
    if (!tell)
        ch->pace = RSHM_PACE_UNKNOWN;
    s->spins = false;
}

/* One readable event of an open connection. */
static void read_event(struct rshm_client *s)
{
    struct rshm_channel *ch = &s->channel;
    const uint64_t bytes = rshm_load_relaxed(&ch->stats.bytes_in);
    int reads = 0;

    s->read_limit = FIRST_READ_BYTES;
    for (;;) {
        if (something_to_read(s)) {
            reads++;
            if ((s = run_callbacks(s)) == NULL)
                return;
        }
        if (!write_pending(s))
            return;
        if (something_to_read(s)) {
            if (reads >= EVENT_READS || rshm_load_relaxed(&ch->stats.bytes_in) - bytes >= EVENT_BYTES) {
                leave_readable(s);
                if (!ch->hangup && !s->broken)
                    return;
            }
            continue; /* an end that was noticed is reported now, after what came before it */
        }
        if (!rshm_client_must_look_again(s) && !something_to_read(s)) {
            write_pending(s); /* a bell just taken off may have been about room */
            return;
        }
    }
}

void rshm_async_read(redisAsyncContext *ac)
{
    struct rshm_client *s = ac->c.privctx;
    if (!s->async || rshm_client_inherited(&ac->c, s)) {
        redisAsyncRead(ac);
        return;
    }
    if (s->state == RSHM_CLIENT_OPEN) {
        if (s->armed && (s->channel.standing || rshm_load_relaxed(&s->channel.in_wait->reader_waits) == 0))
            tell_pace(s);
        read_event(s);
        return;
    }
    if ((s = run_callbacks(s)) == NULL)
        return;
    switch (s->state) {
    case RSHM_CLIENT_OPENING:
        if (s->unsent > 0) /* a second try, from the callback of the first */
            ask_for_write_events(ac);
        return;
    case RSHM_CLIENT_REFUSED:
        rshm_client_revert(s);
        if (sdslen(ac->c.obuf) > 0)
            ask_for_write_events(ac);
        return;
    case RSHM_CLIENT_OPEN: /* just now: what was held back goes out */
        read_event(s);
        return;
    }
}

void rshm_async_write(redisAsyncContext *ac)
{
    struct rshm_client *s = ac->c.privctx, *alive = s;
    if (!s->async || rshm_client_inherited(&ac->c, s)) {
        redisAsyncWrite(ac);
        return;
    }
    if (s->state == RSHM_CLIENT_OPEN) {
        enum written w = write_out(s);
        if (w == WRITTEN_ALL || w == WRITTEN_NO_ROOM)
            drop_write_events(ac);
        return;
    }
    if (s->unsent > 0) {
        s->alive = &alive;
        redisAsyncWrite(ac);
        if (alive == NULL)
            return;
        s->alive = NULL;
    }
    if (s->unsent == 0 && ac->c.err == 0) /* what else is queued waits for the reply */
        drop_write_events(ac);
}

/* ---- the calls ---- */

static bool expects_something(const redisAsyncContext *ac)
{
#if HIREDIS_MAJOR > 1 || HIREDIS_MINOR >= 1
    if (ac->sub.replies.head != NULL)
        return true;
#endif
    return ac->replies.head != NULL || (ac->c.flags & (REDIS_SUBSCRIBED | REDIS_MONITORING)) != 0;
}

/* Replies due, or commands unsent: the reply to SHM.OPEN could not be told from theirs. */
static bool busy(const redisAsyncContext *ac)
{
    const redisContext *c = &ac->c;
    return sdslen(c->obuf) > 0 || c->reader->pos < c->reader->len || expects_something(ac);
}

static int use_shared_memory(redisAsyncContext *ac, redisCallbackFn *fn, void *privdata, int mode)
{
    const char *why;
    struct rshm_open_args args;
    struct rshm_client *s = NULL;

    if (ac == NULL || ac->c.err != 0 || (ac->c.flags & (REDIS_DISCONNECTING | REDIS_FREEING)) != 0)
        return REDIS_ERR;
    redisContext *c = &ac->c;
    struct rshm_client *old = rshm_client_of(c);
    const bool other = old != NULL ? old->state != RSHM_CLIENT_REFUSED : c->privctx != NULL; /* open already, or TLS */
    if (!other && !busy(ac))
        s = rshm_client_new(c, &why);
    if (s == NULL) /* the server says why not, in its turn among the replies; or at least that nobody is at this rendezvous */
        return rshm_client_refused_args(&args) ? redisAsyncCommandArgv(ac, fn, privdata, args.argc, args.argv, NULL) : REDIS_ERR;
    s->async = true;
    if (old != NULL) { /* called by the callback of the first try: the event under way goes on with the new state */
        s->plain = old->plain;
        s->alive = old->alive;
        old->alive = NULL;
        if (s->alive != NULL)
            *s->alive = s;
        rshm_client_free(old);
    }
    c->privctx = s;
    c->funcs = &rshm_client_funcs;
    rshm_client_open_args(s, mode, &args);
    if (redisAsyncCommandArgv(ac, fn, privdata, args.argc, args.argv, NULL) != REDIS_OK) {
        s->state = RSHM_CLIENT_REFUSED;
        if (s->alive == NULL)
            rshm_client_revert(s);
        return REDIS_ERR;
    }
    s->unsent = sdslen(c->obuf);
    return REDIS_OK;
}

int redisAsyncUseSharedMemory(redisAsyncContext *ac, redisCallbackFn *fn, void *privdata)
{
    return use_shared_memory(ac, fn, privdata, -1);
}

int redisAsyncUseSharedMemoryWithMode(redisAsyncContext *ac, redisCallbackFn *fn, void *privdata, mode_t mode)
{
    return use_shared_memory(ac, fn, privdata, (int)(mode & 0777));
}

/* How long a spin may last, in ticks. 0: sleep at once. */
static uint64_t spin_budget(struct rshm_client *s, uint64_t limit)
{
    struct rshm_channel *ch = &s->channel;
    const bool rang = ch->rang;
    ch->rang = false; /* its wake-up is over when we come here again */
    s->spins = s->waiting.mode != RSHM_MODE_BLOCK;
    if (!s->spins)
        return 0;
    if (rshm_same_cpu(charfifo_tag(&ch->in))) /* they wake each other up there, and would for ever */
        return rshm_move_aside(&s->aside, rshm_ticks()) ? limit : 0;
    if (rang && s->waiting.mode == RSHM_MODE_ADAPTIVE)
        return 0; /* the server is being woken up and needs a CPU more than we do */
    s->waiting.limit = limit;
    uint64_t budget = rshm_waiting_budget(&s->waiting, charfifo_tag(&ch->in), 0, false);
    return budget < limit ? budget : limit;
}

int redisAsyncSharedMemorySpin(redisAsyncContext *ac, unsigned us)
{
    struct rshm_client *s = ac != NULL ? rshm_client_of(&ac->c) : NULL;
    if (s == NULL || !s->async || s->state != RSHM_CLIENT_OPEN || ac->c.err != 0 || (ac->c.flags & REDIS_IN_CALLBACK) != 0 ||
        rshm_client_inherited(&ac->c, s))
        return 0;
    struct rshm_channel *ch = &s->channel;
    bool did = false;

    if (sdslen(ac->c.obuf) > 0) { /* queued outside of callbacks: no need to wait for the socket to be writable */
        enum written w = write_out(s);
        if (w == WRITTEN_GONE)
            return 1;
        if (w != WRITTEN_MORE)
            drop_write_events(ac);
    }
    if (!expects_something(ac))
        return 0;
    const uint64_t limit = us * rshm_ticks_per_us(), budget = spin_budget(s, limit), start = rshm_ticks();
    if (budget == 0)
        return 0;
    /* Down with the flag: nobody needs to ring while we look. If it is down already, a bell is on its way, as before. */
    if (ch->standing) {
        s->armed = false; /* whatever has rung until now, nothing is known to be under way */
        rshm_channel_stay_awake(ch);
    } else if (s->armed) {
        s->armed = false;
        s->due = rshm_exchange(&ch->in_wait->reader_waits, 0u) == 0;
    }
    s->read_limit = FIRST_READ_BYTES;
    do {
        if (!something_to_read(s))
            s->read_limit = FIRST_READ_BYTES;
        for (int i = 0; i < SPIN_LOOKS_PER_CLOCK && !something_to_read(s); i++)
            rshm_cpu_relax();
        if (something_to_read(s)) {
            did = true;
            if (ch->pace == RSHM_PACE_UNKNOWN || ch->pace == RSHM_PACE_MAX)
                ch->woke_at = rshm_ticks(); /* as after a sleep: it tells the server that staying awake pays */
            if ((s = run_callbacks(s)) == NULL || !write_pending(s))
                return 1;
        }
    } while (expects_something(ac) && rshm_ticks() - start < budget);
    if (did) {
        rshm_waiting_hit(&s->waiting);
        rshm_aside_hit(&s->aside);
    } else {
        rshm_waiting_missed(&s->waiting);
    }
    if (!s->due) { /* nor armed: as if the application slept from here on */
        s->armed = !rshm_channel_arm(ch, RSHM_WANT_READ);
        if (!s->armed) {
            rshm_channel_request_bell(ch);
            s->due = true;
        }
    }
    return did;
}
