/* doctor.c - redis-shm doctor: whether shared memory works here, and if not, why. */
#include "tools/doctor.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include <hiredis.h>

#include "tools/json.h"
#include "tools/stop.h"
#include "tools/terminal.h"
#include "tools/tools.h"

static const char *const level_names[] = {"ok", "note", "PROBLEM"};

static void help(void)
{
    printf("Usage: redis-shm doctor [OPTION]...\n"
           "\n"
           "Tells whether clients here can use shared memory with a server, how fast it is, and what stands in the way. A line for each check:\n"
           "ok, note (works, but could be better) or PROBLEM, and what to do. Opens a session of its own and sends it 1000 PINGs.\n"
           "\n" RSHM_ENDPOINT_HELP
           "      --json            the findings as JSON\n"
           "      --help            this text\n"
           "\n"
           "Examples:\n"
           "  redis-shm doctor\n"
           "  redis-shm doctor -s /run/redis/redis.sock\n"
           "  redis-shm doctor --json | jq -r '.findings[] | select(.level != \"ok\") | .todo'\n"
           "\n"
           "Exit status: 0 shared memory works, 1 it does not, 2 wrong usage.\n");
}

/* -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, struct rshm_doctor *d, bool *json)
{
    enum { JSON = 256, HELP };
    static const struct option known[] = {
        RSHM_ENDPOINT_LONG,
        {"json", no_argument, NULL, JSON},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    static char name[] = "redis-shm doctor"; /* what getopt begins its messages with */
    argv[0] = name;
    rshm_endpoint_init(&d->endpoint);
    for (int c; (c = getopt_long(argc, argv, RSHM_ENDPOINT_SHORT, known, NULL)) != -1;) {
        if (c == HELP) {
            help();
            return RSHM_EXIT_OK;
        }
        if (c == JSON) {
            *json = true;
        } else if (rshm_endpoint_option(&d->endpoint, c, optarg) != 1) {
            rshm_complain("'redis-shm doctor --help' lists the options");
            return RSHM_EXIT_USAGE;
        }
    }
    if (optind < argc) {
        rshm_complain("'%s' is not an option; 'redis-shm doctor --help' lists them", argv[optind]);
        return RSHM_EXIT_USAGE;
    }
    return -1;
}

/* ---- findings ---- */

static void print(const struct rshm_doctor *d, const struct rshm_finding *f)
{
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[1;31m"};
    fprintf(d->live, "%s%-7s%s  %-9s  %s%s%s\n", d->colours ? colours[f->level] : "", level_names[f->level], d->colours ? "\033[0m" : "", f->check,
            f->what, f->todo[0] != '\0' ? " - " : "", f->todo);
    fflush(d->live);
}

void rshm_doctor_find(struct rshm_doctor *d, enum rshm_level level, const char *check, const char *todo, const char *what, ...)
{
    if (d->count == RSHM_FINDINGS_MAX || rshm_stop_signal() != 0)
        return; /* what an interrupted check says means nothing */
    struct rshm_finding *f = &d->findings[d->count++];
    va_list args;
    f->level = level;
    snprintf(f->check, sizeof f->check, "%s", check);
    snprintf(f->todo, sizeof f->todo, "%s", todo != NULL ? todo : "");
    va_start(args, what);
    vsnprintf(f->what, sizeof f->what, what, args);
    va_end(args);
    if (d->live != NULL)
        print(d, f);
}

static void print_json(const struct rshm_doctor *d, FILE *to)
{
    struct rshm_json j = {.to = to};
    rshm_json_open(&j, NULL, '{');
    rshm_json_bool(&j, "works", d->works);
    rshm_json_string(&j, "server", d->where);
    rshm_json_string(&j, "server_version", d->server_version);
    rshm_json_string(&j, "version", RSHM_VERSION);
    rshm_json_open(&j, "findings", '[');
    for (size_t i = 0; i < d->count; i++) {
        const struct rshm_finding *f = &d->findings[i];
        rshm_json_open(&j, NULL, '{');
        rshm_json_string(&j, "level", level_names[f->level]);
        rshm_json_string(&j, "check", f->check);
        rshm_json_string(&j, "what", f->what);
        rshm_json_string(&j, "todo", f->todo);
        rshm_json_close(&j, '}');
    }
    rshm_json_close(&j, ']');
    rshm_json_close(&j, '}');
}

static void check_tool(struct rshm_doctor *d)
{
    rshm_doctor_find(d, RSHM_FINE, "client", NULL, "redis-shm and libhiredis_shm " RSHM_VERSION ", built with hiredis %d.%d.%d", HIREDIS_MAJOR,
                     HIREDIS_MINOR, HIREDIS_PATCH);
}

int rshm_doctor_main(int argc, char **argv)
{
    static struct rshm_doctor d; /* some 40 KiB */
    bool json = false;
    int code = parse_options(argc, argv, &d, &json);
    if (code >= 0)
        return code;
    rshm_stop_catch();
    d.live = json ? NULL : stdout;
    d.colours = rshm_terminal_colours(stdout);
    rshm_endpoint_describe(&d.endpoint, RSHM_MEMORY, d.where, sizeof d.where);
    check_tool(&d);
    bool reached = rshm_doctor_reach(&d);
    if (reached) {
        rshm_doctor_place(&d);
        rshm_doctor_module(&d);
    }
    rshm_doctor_host(&d);
    if (reached && rshm_stop_signal() == 0)
        rshm_doctor_trial(&d);
    redisFree(d.c);
    if (json && rshm_stop_signal() == 0)
        print_json(&d, stdout);
    rshm_stop_die();
    if (fflush(stdout) != 0 || ferror(stdout)) {
        if (errno != EPIPE) /* whoever closed a pipe knows */
            rshm_complain("cannot write the result: %s", strerror(errno));
        return RSHM_EXIT_FAILED;
    }
    return d.works ? RSHM_EXIT_OK : RSHM_EXIT_FAILED;
}
