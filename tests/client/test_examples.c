/* test_examples.c - the programs of examples/ do what they say, against a real server. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* Runs an example against s; its exit code, and what it printed. */
static int run(const char *example, const struct transport *t, const struct server *s, char *output, size_t n)
{
    char command[4352], where[128];
    if (t->unix_socket)
        snprintf(where, sizeof where, "%s", s->path);
    else
        snprintf(where, sizeof where, "127.0.0.1 %d", s->port);
    snprintf(command, sizeof command, "%s/examples/%s %s 2>&1", EXAMPLES_BUILD, example, where);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t got = fread(output, 1, n - 1, p);
    output[got] = '\0';
    int status = pclose(p);
    if (!WIFEXITED(status))
        fail_msg("%s was ended by a signal: %s", example, output);
    return WEXITSTATUS(status);
}

static void uses_shared_memory(const char *example, const struct transport *t)
{
    char output[1024];
    long long opened = shm_stat(&shared, "sessions_opened");
    assert_int_equal(run(example, t, &shared, output, sizeof output), 0);
    assert_string_equal(output, "Using shared memory from now on!\nexample:greeting is \"hello through shared memory\"\n");
    assert_int_equal(shm_stat(&shared, "sessions_opened"), opened + 1);
    await_stat(&shared, "sessions", 0);
}

static void says_so_when_the_server_has_no_module(const char *example, const struct transport *t)
{
    char output[1024];
    struct server s;
    server_start(&s, false, NULL);
    assert_int_equal(run(example, t, &s, output, sizeof output), 1);
    assert_non_null(strstr(output, "no shared memory: ERR unknown command"));
    server_stop(&s);
    assert_int_equal(run(example, t, &s, output, sizeof output), 1); /* nor a server */
    assert_non_null(strstr(output, "connect: "));
}

static void sync_uses_shared_memory(void **state)
{
    uses_shared_memory("sync", *state);
}

static void sync_says_so_when_the_server_has_no_module(void **state)
{
    says_so_when_the_server_has_no_module("sync", *state);
}

static void async_uses_shared_memory(void **state)
{
#ifndef HAVE_LIBEVENT
    skip();
#endif
    uses_shared_memory("async", *state);
}

static void async_says_so_when_the_server_has_no_module(void **state)
{
#ifndef HAVE_LIBEVENT
    skip();
#endif
    says_so_when_the_server_has_no_module("async", *state);
}

int main(void)
{
    static const struct named_test tests[] = {
        OVER_BOTH(sync_uses_shared_memory),
        OVER_BOTH(sync_says_so_when_the_server_has_no_module),
        OVER_BOTH(async_uses_shared_memory),
        OVER_BOTH(async_says_so_when_the_server_has_no_module),
    };
    return run_over_both(tests, sizeof tests / sizeof tests[0]);
}
