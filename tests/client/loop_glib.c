/* loop_glib.c - hiredis' adapter for glib; see loops.h. */
#include "loops.h"

#ifdef HAVE_GLIB
#include <adapters/glib.h>

static GMainContext *gl_base;
static GSource *gl_tick, *gl_sources[16]; /* the adapter leaves removing its source to the application */
static int gl_source_count;

static gboolean gl_on_tick(gpointer arg)
{
    (void)arg;
    loop_tick();
    return TRUE;
}

static void gl_open(void)
{
    loop_begin();
    gl_base = g_main_context_new();
    gl_tick = g_timeout_source_new(TICK_MS);
    g_source_set_callback(gl_tick, gl_on_tick, NULL, NULL);
    g_source_attach(gl_tick, gl_base);
    gl_source_count = 0;
}

static void gl_close(void)
{
    for (int i = 0; i < gl_source_count; i++) {
        g_source_destroy(gl_sources[i]);
        g_source_unref(gl_sources[i]);
    }
    g_source_destroy(gl_tick);
    g_source_unref(gl_tick);
    g_main_context_unref(gl_base);
}

static int gl_attach(redisAsyncContext *ac)
{
    GSource *s = redis_source_new(ac);
    gl_sources[gl_source_count++] = s;
    return g_source_attach(s, gl_base) != 0 ? REDIS_OK : REDIS_ERR;
}

static void gl_turn(redisAsyncContext *ac)
{
    (void)ac;
    g_main_context_iteration(gl_base, TRUE);
}

static void gl_glance(redisAsyncContext *ac)
{
    (void)ac;
    g_main_context_iteration(gl_base, FALSE);
}

const struct loop loop_glib = {"glib", false, gl_open, gl_close, gl_attach, gl_turn, gl_glance};
#else
const struct loop loop_glib = {.name = "glib"};
#endif
