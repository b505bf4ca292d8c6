/* loops.c - see loops.h. */
#include "loops.h"

#include <stddef.h>
#include <time.h>

unsigned loop_ticks;
double loop_gap_ms;
static double last_tick;

const struct loop *const loops[] = {&loop_libevent, &loop_libev, &loop_libuv, &loop_glib, &loop_poll};
const int loop_count = sizeof loops / sizeof loops[0];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

void loop_begin(void)
{
    loop_ticks = 0;
    loop_gap_ms = last_tick = 0;
}

void loop_tick(void)
{
    double at = now();
    loop_ticks++;
    if (last_tick != 0 && at - last_tick > loop_gap_ms)
        loop_gap_ms = at - last_tick;
    last_tick = at;
}

void loop_tick_if_due(void)
{
    if (now() - last_tick >= TICK_MS)
        loop_tick();
}
