/* latency.c - redis-shm latency: PINGs over one connection, and how long they take. */
#include "tools/latency.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "hiredis_shm.h"
#include "tools/endpoint.h"
#include "tools/stop.h"
#include "tools/terminal.h"
#include "tools/tools.h"

#define DEFAULT_RATE_HZ 100 /* as redis-cli --latency */
#define DEFAULT_HISTORY_S 15
#define DEFAULT_INTERVAL_S 1
#define SHOW_EVERY_NS 100000000u
#define SLEEP_ABOVE_NS 200000 /* closer to the next request than this, sleeping would miss it */

struct options {
    struct rshm_endpoint endpoint;
    enum rshm_transport transport;
    int wait_mode; /* -1: not given */
    bool history, dist, json;
    double rate_hz, interval_s, seconds, intrinsic_s; /* 0: not given, but for the rate: back to back */
    long long count;
};

static void help(void)
{
    printf("Usage: redis-shm latency [OPTION]...\n"
           "\n"
           "Sends PING after PING over one connection and shows how long the replies take, in microseconds: on a terminal a line that\n"
           "changes until Ctrl-C, else one table after --interval seconds.\n"
           "\n" RSHM_ENDPOINT_HELP
           "      --transport T     tcp, unix or shm: shared memory (default shm)\n"
           "      --wait MODE       how the client waits over shm: adaptive (default), poll, block\n"
           "      --rate HZ         requests a second (default %d); 0: back to back, each when the last is answered\n"
           "      --count N         end after N requests\n"
           "      --seconds S       end after S seconds\n"
           "      --history         a line for every --interval (default %d s), and a table at the end\n"
           "      --dist            a row of the spectrum for every --interval (default %d s)\n"
           "      --interval S      see there; without a terminal, how long to measure (default %d s)\n"
           "      --intrinsic S     first see for S seconds how steady the machine is without any server\n"
           "      --json            one object at the end, with --history one for every interval\n"
           "      --help            this text\n"
           "\n"
           "Examples:\n"
           "  redis-shm latency                                       shared memory, the server on 127.0.0.1:6379\n"
           "  redis-shm latency -s /run/redis/redis.sock --rate 0     back to back: what a busy client sees\n"
           "  redis-shm latency --transport tcp --history             a line every %d seconds, to compare with\n"
           "  redis-shm latency --seconds 10 --intrinsic 5 --json     for a script\n"
           "\n"
           "Exit status: 0 measured, 1 failed, 2 wrong usage; interrupted: the table, and dies of the signal.\n",
           DEFAULT_RATE_HZ, DEFAULT_HISTORY_S, DEFAULT_INTERVAL_S, DEFAULT_INTERVAL_S, DEFAULT_HISTORY_S);
}

static int parse_wait(const char *text, int *mode)
{
    static const char *const names[] = {"adaptive", "poll", "block"}; /* in the order of REDIS_SHM_WAIT_... */
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *mode = i;
            return 0;
        }
    rshm_complain("--wait must be adaptive, poll or block, not '%s'", text);
    return -EINVAL;
}

/* What the options say together. NULL: fine. */
static const char *contradiction(const struct options *o)
{
    if (o->history && o->dist)
        return "--history and --dist exclude each other";
    if (o->json && o->dist)
        return "--json has no spectrum: leave out --dist";
    if (o->wait_mode >= 0 && o->transport != RSHM_MEMORY)
        return "--wait is for --transport shm";
    return NULL;
}

/* -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
    enum { TRANSPORT = 256, WAIT, RATE, COUNT, SECONDS, HISTORY, DIST, INTERVAL, INTRINSIC, JSON, HELP };
    static const struct option known[] = {
        RSHM_ENDPOINT_LONG,
        {"transport", required_argument, NULL, TRANSPORT}, {"wait", required_argument, NULL, WAIT},
        {"rate", required_argument, NULL, RATE},           {"count", required_argument, NULL, COUNT},
        {"seconds", required_argument, NULL, SECONDS},     {"history", no_argument, NULL, HISTORY},
        {"dist", no_argument, NULL, DIST},                 {"interval", required_argument, NULL, INTERVAL},
        {"intrinsic", required_argument, NULL, INTRINSIC}, {"json", no_argument, NULL, JSON},
        {"help", no_argument, NULL, HELP},                 {0},
    };
    static char name[] = "redis-shm latency"; /* what getopt begins its messages with */
    argv[0] = name;
    *o = (struct options){.transport = RSHM_MEMORY, .wait_mode = -1, .rate_hz = DEFAULT_RATE_HZ};
    rshm_endpoint_init(&o->endpoint);
    for (int c; (c = getopt_long(argc, argv, RSHM_ENDPOINT_SHORT, known, NULL)) != -1;) {
        int bad = 0;
        switch (c) {
        case TRANSPORT: bad = rshm_transport_parse("--transport", optarg, &o->transport); break;
        case WAIT: bad = parse_wait(optarg, &o->wait_mode); break;
        case RATE: bad = rshm_parse_number("--rate", optarg, 0, 1e6, &o->rate_hz); break;
        case COUNT: bad = rshm_parse_integer("--count", optarg, 1, INT64_MAX, &o->count); break;
        case SECONDS: bad = rshm_parse_number("--seconds", optarg, 0.001, 1e9, &o->seconds); break;
        case HISTORY: o->history = true; break;
        case DIST: o->dist = true; break;
        case INTERVAL: bad = rshm_parse_number("--interval", optarg, 0.001, 1e6, &o->interval_s); break;
        case INTRINSIC: bad = rshm_parse_number("--intrinsic", optarg, 0.001, 1e6, &o->intrinsic_s); break;
        case JSON: o->json = true; break;
        case HELP: help(); return RSHM_EXIT_OK;
        default: bad = rshm_endpoint_option(&o->endpoint, c, optarg) != 1; break;
        }
        if (bad != 0) {
            rshm_complain("'redis-shm latency --help' lists the options");
            return RSHM_EXIT_USAGE;
        }
    }
    const char *wrong = contradiction(o);
    if (wrong != NULL) {
        rshm_complain("%s", wrong);
        return RSHM_EXIT_USAGE;
    }
    if (optind < argc) {
        rshm_complain("'%s' is not an option; 'redis-shm latency --help' lists them", argv[optind]);
        return RSHM_EXIT_USAGE;
    }
    return -1;
}

/* ---- measuring ---- */

static void wait_until(uint64_t at_ns)
{
    uint64_t now_ns;
    while ((now_ns = rshm_now_ns()) < at_ns && rshm_stop_signal() == 0)
        if (at_ns - now_ns > SLEEP_ABOVE_NS) {
            uint64_t until_ns = at_ns - SLEEP_ABOVE_NS / 4;
            struct timespec t = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL); /* a signal ends it, and the loop asks why */
        }
}

/* One PING. 0, or -EIO after a message. */
static int ping(redisContext *c, enum rshm_transport t, uint64_t *took_ns, uint64_t *done_ns)
{
    uint64_t sent_ns = rshm_now_ns();
    errno = 0;
    redisReply *reply = redisCommand(c, "PING");
    int error = errno;
    *done_ns = rshm_now_ns();
    *took_ns = *done_ns - sent_ns;
    bool right = reply != NULL && reply->type == REDIS_REPLY_STATUS;
    if (reply != NULL && !right)
        rshm_complain("PING was answered with %s", reply->str != NULL ? reply->str : "something else than PONG");
    else if (reply == NULL && rshm_stop_signal() == 0) {
        bool late = c->err == REDIS_ERR_TIMEOUT || (c->err == REDIS_ERR_IO && error == EAGAIN);
        if (late)
            rshm_complain("no reply within %d s: the server hangs or is busy", RSHM_ENDPOINT_TIMEOUT_S);
        else
            rshm_complain("the connection was lost: %s", c->errstr);
    }
    freeReplyObject(reply);
    if (right && t == RSHM_MEMORY && !redisIsSharedMemoryInitialized(c)) {
        rshm_complain("the connection does not use shared memory any more");
        right = false;
    }
    return right ? 0 : -EIO;
}

struct show {
    bool live, colours;   /* a line that changes */
    uint64_t next_ns;     /* when it does */
    unsigned dist_rows;
};

static void show_live(const struct rshm_histogram *h)
{
    char text[256];
    int lines, columns;
    rshm_screen_size(&lines, &columns);
    rshm_latency_line(h, text, sizeof text);
    printf("\r\033[K%.*s", columns - 1, text); /* a line that wraps could not be drawn over */
    fflush(stdout);
}

/* An interval is over. -EIO: the output takes no more. */
static int end_interval(const struct options *o, const struct rshm_latency *l, const struct rshm_histogram *window, double from_s,
                        double seconds, struct show *show)
{
    if (window->count == 0)
        return 0;
    if (o->json) {
        rshm_latency_json(l, window, from_s, seconds, stdout);
    } else if (o->dist) {
        if (show->dist_rows++ % 20 == 0)
            rshm_latency_dist_legend(show->colours, stdout);
        rshm_latency_dist_row(window, show->colours, stdout);
    } else {
        char text[256];
        rshm_latency_line(window, text, sizeof text);
        printf("%s%s -- %.2f seconds\n", show->live ? "\r\033[K" : "", text, seconds);
    }
    return fflush(stdout) == 0 ? 0 : -EIO;
}

/* Until there is a reason to end. 0, or -EIO after a message. */
static int measure(redisContext *c, const struct options *o, struct rshm_latency *l, struct rshm_histogram *window, struct show *show)
{
    const bool windows = o->history || o->dist;
    const bool endless = show->live || windows;
    const uint64_t period_ns = o->rate_hz > 0 ? (uint64_t)(1e9 / o->rate_hz) : 0, interval_ns = (uint64_t)(o->interval_s * 1e9);
    const uint64_t begin_ns = rshm_now_ns();
    uint64_t end_ns = UINT64_MAX, window_ns = begin_ns, next_ns = begin_ns, took_ns, now_ns = begin_ns;
    int r = 0;

    if (o->seconds > 0)
        end_ns = begin_ns + (uint64_t)(o->seconds * 1e9);
    else if (o->count == 0 && !endless)
        end_ns = begin_ns + interval_ns;
    while (r == 0 && rshm_stop_signal() == 0) {
        if (period_ns > 0) {
            wait_until(next_ns < end_ns ? next_ns : end_ns);
            if (rshm_stop_signal() != 0 || rshm_now_ns() >= end_ns)
                break;
        }
        r = ping(c, o->transport, &took_ns, &now_ns);
        if (r < 0)
            break;
        rshm_histogram_record(&l->total, took_ns);
        if (windows)
            rshm_histogram_record(window, took_ns);
        if (windows && now_ns - window_ns >= interval_ns) {
            r = end_interval(o, l, window, (double)(window_ns - begin_ns) / 1e9, (double)(now_ns - window_ns) / 1e9, show);
            rshm_histogram_reset(window);
            window_ns = now_ns;
        }
        if (show->live && now_ns >= show->next_ns) {
            show->next_ns = now_ns + SHOW_EVERY_NS;
            show_live(windows ? window : &l->total);
        }
        if (now_ns >= end_ns || (o->count > 0 && rshm_histogram_count(&l->total) >= (uint64_t)o->count))
            break;
        next_ns += period_ns;
        if (next_ns < now_ns)
            next_ns = now_ns; /* what could not be sent in time is left out, not made up for */
    }
    if (show->live)
        fputs("\r\033[K", stdout);
    l->total_seconds = (double)(rshm_now_ns() - begin_ns) / 1e9;
    if (r == 0 && windows)
        r = end_interval(o, l, window, (double)(window_ns - begin_ns) / 1e9, (double)(rshm_now_ns() - window_ns) / 1e9, show);
    return r;
}

static int run(const struct options *o, struct rshm_latency *l, struct rshm_histogram *window)
{
    static char where[512]; /* l keeps it */
    char why[512];
    redisContext *c;
    struct show show = {.live = !o->json && !o->dist && rshm_terminal_live(stdout), .colours = rshm_terminal_colours(stdout)};
    if (rshm_endpoint_connect(&o->endpoint, o->transport, o->wait_mode, &c, why, sizeof why) < 0) {
        if (rshm_stop_signal() == 0)
            rshm_complain("%s", why);
        return RSHM_EXIT_FAILED;
    }
    l->where = rshm_endpoint_peer(c, where, sizeof where);
    if (o->intrinsic_s > 0) {
        if (show.live) {
            printf("looking at the machine alone for %g s ...", o->intrinsic_s);
            fflush(stdout);
        }
        if (rshm_intrinsic_measure(&l->intrinsic, o->intrinsic_s) < 0) {
            rshm_complain("out of memory");
            redisFree(c);
            return RSHM_EXIT_FAILED;
        }
    }
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul); /* or every sleep is 50 us longer */
    int r = measure(c, o, l, window, &show);
    redisFree(c);
    if (l->total.count > 0 && o->json && !o->history)
        rshm_latency_json(l, &l->total, 0, l->total_seconds, stdout);
    else if (l->total.count > 0 && !o->json)
        rshm_latency_summary(l, stdout);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        if (errno != EPIPE) /* whoever closed a pipe knows */
            rshm_complain("cannot write the result: %s", strerror(errno));
        return RSHM_EXIT_FAILED;
    }
    return r < 0 ? RSHM_EXIT_FAILED : RSHM_EXIT_OK;
}

int rshm_latency_main(int argc, char **argv)
{
    struct options o;
    struct rshm_histogram window = {0};
    int code = parse_options(argc, argv, &o);
    if (code >= 0)
        return code;
    if (o.interval_s == 0) /* redis-cli's intervals */
        o.interval_s = o.history ? DEFAULT_HISTORY_S : DEFAULT_INTERVAL_S;
    struct rshm_latency l = {
        .transport = rshm_transport_name(o.transport),
        .transport_id = rshm_transport_id(o.transport),
        .rate_hz = o.rate_hz,
    };
    rshm_stop_catch();
    if (rshm_histogram_init(&l.total) == 0 && rshm_histogram_init(&window) == 0) {
        code = run(&o, &l, &window);
    } else {
        rshm_complain("out of memory");
        code = RSHM_EXIT_FAILED;
    }
    rshm_histogram_free(&l.total);
    rshm_histogram_free(&window);
    rshm_intrinsic_free(&l.intrinsic);
    rshm_stop_die();
    return code;
}
