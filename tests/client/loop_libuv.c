/* loop_libuv.c - hiredis' adapter for libuv; see loops.h. */
#include "loops.h"

#ifdef HAVE_LIBUV
#include <adapters/libuv.h>

static uv_loop_t uv_base;
static uv_timer_t uv_tick;

static void uv_on_tick(uv_timer_t *t)
{
    (void)t;
    loop_tick();
}

static void uv_open(void)
{
    loop_begin();
    uv_loop_init(&uv_base);
    uv_timer_init(&uv_base, &uv_tick);
    uv_timer_start(&uv_tick, uv_on_tick, TICK_MS, TICK_MS);
}

static void uv_shut(void)
{
    uv_close((uv_handle_t *)&uv_tick, NULL);
    for (int i = 0; i < 100 && uv_run(&uv_base, UV_RUN_NOWAIT) != 0; i++)
        ; /* not for ever: a test that failed has left its connection behind */
    uv_loop_close(&uv_base);
}

static int uv_attach(redisAsyncContext *ac)
{
    return redisLibuvAttach(ac, &uv_base);
}

static void uv_turn(redisAsyncContext *ac)
{
    (void)ac;
    uv_run(&uv_base, UV_RUN_ONCE);
}

static void uv_glance(redisAsyncContext *ac)
{
    (void)ac;
    uv_run(&uv_base, UV_RUN_NOWAIT);
}

const struct loop loop_libuv = {"libuv", true, uv_open, uv_shut, uv_attach, uv_turn, uv_glance};
#else
const struct loop loop_libuv = {.name = "libuv"};
#endif
