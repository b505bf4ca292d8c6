/* top.c - redis-shm top: a server's shared-memory sessions, live. */
#include "tools/top.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "tools/endpoint.h"
#include "tools/stop.h"
#include "tools/terminal.h"
#include "tools/tools.h"

#define DEFAULT_INTERVAL_S 1

struct options {
    struct rshm_endpoint endpoint;
    bool once, json;
    double interval_s;
};

/* The server that is watched. */
struct watch {
    redisContext *c;
    int64_t pid;
    char where[512], version[64];
};

static void help(void)
{
    printf("Usage: redis-shm top [OPTION]...\n"
           "\n"
           "Shows a server's shared-memory sessions, the busiest first: state, requests, bytes and doorbells a second, how full the rings are.\n"
           "On a terminal it goes on until q or Ctrl-C; else, and with --once, it looks once.\n"
           "\n" RSHM_ENDPOINT_HELP
           "      --interval S      seconds between two looks, 0.05 to 3600 (default %d)\n"
           "      --once            one table, of one interval\n"
           "      --json            the same as JSON\n"
           "      --help            this text\n"
           "\n"
           "Keys: q quit, r by requests, b by bytes, i by id.\n"
           "\n"
           "STATE is hot while the server looks at the session's memory by itself, and parked while it waits for a doorbell. BELLIN and BELOUT:\n"
           "doorbells from and to the client. REQ%% and REP%%: how full the rings are; replies count until the client has given a quarter back.\n"
           "Requests that come in one piece (a pipeline) count as one.\n"
           "\n"
           "Examples:\n"
           "  redis-shm top\n"
           "  redis-shm top -s /run/redis/redis.sock --interval 5\n"
           "  redis-shm top --json | jq '.sessions[] | select(.state == \"hot\") | .name'\n"
           "\n"
           "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
           DEFAULT_INTERVAL_S);
}

/* -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
    enum { INTERVAL = 256, ONCE, JSON, HELP };
    static const struct option known[] = {
        RSHM_ENDPOINT_LONG,
        {"interval", required_argument, NULL, INTERVAL}, {"once", no_argument, NULL, ONCE},
        {"json", no_argument, NULL, JSON},               {"help", no_argument, NULL, HELP},
        {0},
    };
    static char name[] = "redis-shm top"; /* what getopt begins its messages with */
    argv[0] = name;
    *o = (struct options){.interval_s = DEFAULT_INTERVAL_S};
    rshm_endpoint_init(&o->endpoint);
    for (int c; (c = getopt_long(argc, argv, RSHM_ENDPOINT_SHORT, known, NULL)) != -1;) {
        int bad = 0;
        switch (c) {
        case INTERVAL: bad = rshm_parse_number("--interval", optarg, 0.05, 3600, &o->interval_s); break;
        case ONCE: o->once = true; break;
        case JSON: o->json = true; break;
        case HELP: help(); return RSHM_EXIT_OK;
        default: bad = rshm_endpoint_option(&o->endpoint, c, optarg) != 1; break;
        }
        if (bad != 0) {
            rshm_complain("'redis-shm top --help' lists the options");
            return RSHM_EXIT_USAGE;
        }
    }
    if (optind < argc) {
        rshm_complain("'%s' is not an option; 'redis-shm top --help' lists them", argv[optind]);
        return RSHM_EXIT_USAGE;
    }
    return -1;
}

static void read_version(struct watch *w)
{
    char number[48];
    redisReply *info = redisCommand(w->c, "INFO server");
    snprintf(w->version, sizeof w->version, "server");
    if (info != NULL && info->str != NULL) {
        if (rshm_info_field(info->str, "valkey_version", number, sizeof number))
            snprintf(w->version, sizeof w->version, "Valkey %s", number);
        else if (rshm_info_field(info->str, "redis_version", number, sizeof number))
            snprintf(w->version, sizeof w->version, "Redis %s", number);
    }
    freeReplyObject(info);
}

/* 0, or -errno after a message. */
static int next_look(struct watch *w, const struct rshm_top_look *before, struct rshm_top_look *look, enum rshm_top_order order, size_t rows)
{
    char why[512] = "";
    int r = rshm_top_look(w->c, w->pid, before, look, why, sizeof why);
    if (r == 0) {
        rshm_top_sort(look, order);
        r = rshm_top_describe(w->c, look, rows, why, sizeof why);
    }
    if (r < 0) {
        rshm_top_forget(look);
        rshm_screen_close(); /* the message is for after it */
        if (rshm_stop_signal() == 0)
            rshm_complain("%s", why);
    }
    return r;
}

static int look_once(struct watch *w, const struct options *o)
{
    struct rshm_top_look first = {0}, second = {0};
    int r = next_look(w, NULL, &first, RSHM_TOP_BY_ID, 0);
    for (uint64_t end_ns = rshm_now_ns() + (uint64_t)(o->interval_s * 1e9); r == 0 && rshm_stop_signal() == 0 && rshm_now_ns() < end_ns;) {
        uint64_t left_ms = (end_ns - rshm_now_ns()) / 1000000 + 1;
        rshm_sleep_ms(left_ms < 1000 ? (int)left_ms : 1000);
    }
    if (r == 0 && rshm_stop_signal() != 0)
        r = -EINTR;
    if (r == 0)
        r = next_look(w, &first, &second, RSHM_TOP_BY_REQUESTS, SIZE_MAX);
    if (r == 0 && o->json)
        rshm_top_json(&second, w->where, w->version, stdout);
    else if (r == 0)
        rshm_top_print(&second, w->where, w->version, 0, 0, false, stdout);
    rshm_top_forget(&first);
    rshm_top_forget(&second);
    if (r == 0 && (fflush(stdout) != 0 || ferror(stdout))) {
        if (errno != EPIPE) /* whoever closed a pipe knows */
            rshm_complain("cannot write the result: %s", strerror(errno));
        r = -EIO;
    }
    return r < 0 ? RSHM_EXIT_FAILED : RSHM_EXIT_OK;
}

/* A key. False: quit. */
static bool obey(int key, enum rshm_top_order *order)
{
    switch (key) {
    case 'r': *order = RSHM_TOP_BY_REQUESTS; break;
    case 'b': *order = RSHM_TOP_BY_BYTES; break;
    case 'i': *order = RSHM_TOP_BY_ID; break;
    case 'q':
    case 'Q':
    case 4: /* Ctrl-D */
        return false;
    default: break;
    }
    return true;
}

static int go_on(struct watch *w, const struct options *o)
{
    struct rshm_top_look before = {0}, now = {0};
    enum rshm_top_order order = RSHM_TOP_BY_REQUESTS;
    const uint64_t interval_ns = (uint64_t)(o->interval_s * 1e9);
    int lines, columns, key = 0, r = rshm_screen_open();
    if (r < 0) {
        rshm_complain("this terminal cannot show a live view (%s); --once works anywhere", strerror(-r));
        return RSHM_EXIT_FAILED;
    }
    for (bool first = true; r == 0 && rshm_stop_signal() == 0; first = false) {
        rshm_screen_size(&lines, &columns);
        r = next_look(w, first ? NULL : &before, &now, order, (size_t)lines);
        if (r < 0)
            break;
        uint64_t next_ns = now.at_ns + interval_ns;
        bool quit = false;
        for (;;) { /* until the next look is due: draws again when a key or another window size asks for it */
            rshm_screen_size(&lines, &columns);
            fputs("\033[H", stdout);
            rshm_top_print(&now, w->where, w->version, lines, columns, rshm_terminal_colours(stdout), stdout);
            fflush(stdout);
            uint64_t at_ns = rshm_now_ns();
            if (at_ns >= next_ns || rshm_stop_signal() != 0)
                break;
            key = rshm_screen_key((int)((next_ns - at_ns) / 1000000) + 1);
            if (key < 0 || !obey(key, &order)) {
                quit = true;
                break;
            }
            rshm_top_sort(&now, order);
        }
        rshm_top_forget(&before);
        before = now;
        now = (struct rshm_top_look){0};
        if (quit)
            break;
    }
    rshm_top_forget(&before);
    rshm_top_forget(&now);
    rshm_screen_close();
    return r < 0 || key < 0 ? RSHM_EXIT_FAILED : RSHM_EXIT_OK;
}

int rshm_top_main(int argc, char **argv)
{
    struct options o;
    struct watch w = {0};
    char why[512];
    int code = parse_options(argc, argv, &o);
    if (code >= 0)
        return code;
    rshm_stop_catch();
    if (rshm_endpoint_connect(&o.endpoint, o.endpoint.path != NULL ? RSHM_UNIX : RSHM_TCP, -1, &w.c, why, sizeof why) == 0) {
        w.pid = rshm_endpoint_server_pid(w.c);
        rshm_endpoint_peer(w.c, w.where, sizeof w.where);
        read_version(&w);
        code = o.once || o.json || !rshm_terminal_live(stdout) ? look_once(&w, &o) : go_on(&w, &o);
        redisFree(w.c);
    } else {
        if (rshm_stop_signal() == 0)
            rshm_complain("%s", why);
        code = RSHM_EXIT_FAILED;
    }
    rshm_stop_die();
    return code;
}
