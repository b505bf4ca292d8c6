/* loop_libevent.c - hiredis' adapter for libevent; see loops.h. */
#include "loops.h"

#ifdef HAVE_LIBEVENT
#include <adapters/libevent.h>

static struct event_base *le_base;
static struct event *le_tick;

static void le_on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    loop_tick();
}

static void le_open(void)
{
    const struct timeval t = {0, TICK_MS * 1000};
    loop_begin();
    le_base = event_base_new();
    le_tick = event_new(le_base, -1, EV_PERSIST, le_on_tick, NULL);
    event_add(le_tick, &t);
}

static void le_close(void)
{
    event_free(le_tick);
    event_base_free(le_base);
}

static int le_attach(redisAsyncContext *ac)
{
    return redisLibeventAttach(ac, le_base);
}

static void le_turn(redisAsyncContext *ac)
{
    (void)ac;
    event_base_loop(le_base, EVLOOP_ONCE);
}

static void le_glance(redisAsyncContext *ac)
{
    (void)ac;
    event_base_loop(le_base, EVLOOP_NONBLOCK);
}

const struct loop loop_libevent = {"libevent", true, le_open, le_close, le_attach, le_turn, le_glance};
#else
const struct loop loop_libevent = {.name = "libevent"};
#endif
