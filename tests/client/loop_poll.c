/* loop_poll.c - hiredis' adapter for poll(): no loop but a call per connection; see loops.h. */
#include "loops.h"

#include <adapters/poll.h>
#include <poll.h>

static void poll_turn(redisAsyncContext *ac)
{
    if (ac == NULL || redisPollTick(ac, TICK_MS / 1e3) < 0)
        poll(NULL, 0, TICK_MS);
    loop_tick_if_due();
}

static void poll_glance(redisAsyncContext *ac)
{
    if (ac != NULL)
        redisPollTick(ac, 0);
    loop_tick_if_due();
}

static void poll_close(void)
{
}

const struct loop loop_poll = {"poll", true, loop_begin, poll_close, redisPollAttach, poll_turn, poll_glance};
