/* loops.h - hiredis' stock adapters, each with its library's loop, behind one face for the tests of the asynchronous API. */
#ifndef RSHM_TEST_LOOPS_H
#define RSHM_TEST_LOOPS_H

#include <stdbool.h>

#include <async.h>
#include <hiredis.h>

#define TICK_MS 10

struct loop {
    const char *name;
    bool timeouts; /* the adapter has a timer for redisAsyncSetTimeout() */
    /* NULL all: this program was built without the library. */
    void (*open)(void);
    void (*close)(void);
    int (*attach)(redisAsyncContext *ac);
    /* One turn; sleeps until an event or the next tick. ac: for the poll adapter, which knows one connection only; may be NULL. */
    void (*turn)(redisAsyncContext *ac);
    /* One turn that does not sleep. */
    void (*glance)(redisAsyncContext *ac);
};

extern const struct loop *const loops[];
extern const int loop_count;

/* What a timer of the open loop does every TICK_MS: shows that the loop goes round. */
extern unsigned loop_ticks;
extern double loop_gap_ms; /* longest time between two ticks; reset it to 0 */

/* For the loops. */
extern const struct loop loop_libevent, loop_libev, loop_libuv, loop_glib, loop_poll;
void loop_begin(void);
void loop_tick(void);
void loop_tick_if_due(void);

#endif
