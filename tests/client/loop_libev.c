/* loop_libev.c - hiredis' adapter for libev; see loops.h. */
#include "loops.h"

#ifdef HAVE_LIBEV
#include <adapters/libev.h>

static struct ev_loop *ev_base;
static ev_timer ev_tick;

static void ev_on_tick(struct ev_loop *l, ev_timer *t, int revents)
{
    (void)l, (void)t, (void)revents;
    loop_tick();
}

static void ev_open(void)
{
    loop_begin();
    ev_base = ev_loop_new(0);
    ev_timer_init(&ev_tick, ev_on_tick, TICK_MS / 1e3, TICK_MS / 1e3);
    ev_timer_start(ev_base, &ev_tick);
}

static void ev_close(void)
{
    ev_timer_stop(ev_base, &ev_tick);
    ev_loop_destroy(ev_base);
}

static int ev_attach(redisAsyncContext *ac)
{
    return redisLibevAttach(ev_base, ac);
}

static void ev_turn(redisAsyncContext *ac)
{
    (void)ac;
    ev_run(ev_base, EVRUN_ONCE);
}

static void ev_glance(redisAsyncContext *ac)
{
    (void)ac;
    ev_run(ev_base, EVRUN_NOWAIT);
}

const struct loop loop_libev = {"libev", true, ev_open, ev_close, ev_attach, ev_turn, ev_glance};
#else
const struct loop loop_libev = {.name = "libev"};
#endif
