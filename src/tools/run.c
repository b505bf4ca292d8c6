/* run.c - redis-shm run: starts a command with the preload library. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/report.h"
#include "preload/settings.h"
#include "tools/run_program.h"
#include "tools/tools.h"

#define LIBRARY "libredis_shm_preload.so"
#define EXIT_NOT_EXECUTABLE 126 /* as env(1), nohup(1) and the shells have it */
#define EXIT_NOT_FOUND 127
#define ENDPOINTS_BYTES (RSHM_NAMED_MAX * RSHM_NAMED_TEXT)

struct options {
    char endpoints[ENDPOINTS_BYTES];
    struct rshm_named named[RSHM_NAMED_MAX];
    int count;
    const char *mode, *library;
    bool require, stats;
};

static const char *const default_endpoints[] = {"127.0.0.1:6379", "[::1]:6379", "/run/redis/redis-server.sock"};

static void help(void)
{
    puts("Usage: redis-shm run [OPTION]... [--] COMMAND [ARGUMENT]...\n"
         "\n"
         "Runs a program as it is, but its connections to a Redis server with the module use shared memory.\n"
         "\n"
         "      --endpoint WHERE  HOST:PORT, HOST:FIRST-LAST, or the path of a Unix socket; may be given several times.\n"
         "                        Without it: 127.0.0.1:6379, [::1]:6379 and /run/redis/redis-server.sock.\n"
         "                        Other connections are left alone\n"
         "      --mode MODE       how the program waits: adaptive (default), poll (never sleeps), block (never spins)\n"
         "      --require         a connection to an endpoint that cannot use shared memory fails; without it, it goes on over its socket\n"
         "      --stats           print at the end, on standard error, what became of the connections\n"
         "      --library PATH    the preload library, if it is not where redis-shm is\n"
         "      --help            this text\n"
         "\n"
         "Examples:\n"
         "  redis-shm run -- redis-benchmark -q -t get\n"
         "  redis-shm run --stats -- python3 app.py\n"
         "  redis-shm run --require --endpoint /tmp/redis.sock -- redis-cli -s /tmp/redis.sock\n"
         "  redis-shm run --endpoint 127.0.0.1:7000-7005 -- redis-cli -c -p 7000\n"
         "\n"
         "Exit status: that of the command; 1 if it could not be run with the library, 2 wrong usage, 126 not executable, 127 not found.");
}

/* ---- options ---- */

static int add(struct options *o, const char *text)
{
    if (o->count == RSHM_NAMED_MAX) {
        rshm_complain("more than %d endpoints; give a port range: HOST:FIRST-LAST", RSHM_NAMED_MAX);
        return -EINVAL;
    }
    int r = rshm_named_parse(&o->named[o->count], text, strlen(text));
    if (r == 0) {
        for (int i = 0; i < o->count; i++)
            if (strcmp(o->named[i].text, text) == 0) /* a name with several entries for one address */
                return 0;
        if (o->count > 0)
            strcat(o->endpoints, ",");
        strcat(o->endpoints, text);
        o->count++;
    }
    return r;
}

/* HOST:PORTS with a name instead of an address: every address it has. */
static int add_name(struct options *o, const char *text)
{
    char host[256], address[INET6_ADDRSTRLEN], one[RSHM_NAMED_TEXT];
    const char *colon = strrchr(text, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;
    if (colon == NULL || colon == text || (size_t)snprintf(host, sizeof host, "%.*s", (int)(colon - text), text) >= sizeof host)
        return -EINVAL;
    int e = getaddrinfo(host, NULL, &hints, &all);
    if (e != 0) {
        rshm_complain("--endpoint %s: %s: %s", text, host, gai_strerror(e));
        return -EHOSTUNREACH;
    }
    int r = -EINVAL;
    for (const struct addrinfo *a = all; a != NULL; a = a->ai_next) {
        if (getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST) != 0 || strchr(address, '%') != NULL)
            continue;
        snprintf(one, sizeof one, a->ai_family == AF_INET6 ? "[%s]%s" : "%s%s", address, colon);
        if ((r = add(o, one)) < 0)
            break;
    }
    freeaddrinfo(all);
    return r;
}

static int add_endpoint(struct options *o, const char *text)
{
    char path[RSHM_NAMED_TEXT];
    int r;
    if (strchr(text, '/') != NULL && text[0] != '/') { /* the command may change its directory; a connection must not depend on it */
        char cwd[PATH_MAX];
        r = getcwd(cwd, sizeof cwd) != NULL && strlen(cwd) + strlen(text) + 2 < sizeof path ? 0 : -EINVAL;
        if (r == 0) {
            strcpy(path, cwd);
            strcat(path, "/");
            strcat(path, text);
            r = add(o, path);
        }
    } else {
        int had = o->count;
        r = had < RSHM_NAMED_MAX && rshm_named_parse(&o->named[had], text, strlen(text)) == 0 ? add(o, text) : add_name(o, text);
    }
    if (r == -EINVAL)
        rshm_complain("--endpoint must be HOST:PORT, HOST:FIRST-LAST or the path of a Unix socket, not '%s'", text);
    return r;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct options *o)
{
    enum { ENDPOINT = 256, MODE, REQUIRE, STATS, LIBRARY_PATH, HELP };
    static const struct option longs[] = {
        {"endpoint", required_argument, NULL, ENDPOINT}, {"mode", required_argument, NULL, MODE},
        {"require", no_argument, NULL, REQUIRE},         {"stats", no_argument, NULL, STATS},
        {"library", required_argument, NULL, LIBRARY_PATH}, {"help", no_argument, NULL, HELP}, {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "+", longs, NULL)) != -1) { /* up to the command: its options are its own */
        switch (option) {
        case ENDPOINT:
            if (add_endpoint(o, optarg) < 0)
                return RSHM_EXIT_USAGE;
            break;
        case MODE:
            if (strcmp(optarg, "adaptive") != 0 && strcmp(optarg, "poll") != 0 && strcmp(optarg, "block") != 0) {
                rshm_complain("--mode must be adaptive, poll or block, not '%s'", optarg);
                return RSHM_EXIT_USAGE;
            }
            o->mode = optarg;
            break;
        case REQUIRE:
            o->require = true;
            break;
        case STATS:
            o->stats = true;
            break;
        case LIBRARY_PATH:
            o->library = optarg;
            break;
        case HELP:
            help();
            return RSHM_EXIT_OK;
        default:
            fputs("Try 'redis-shm run --help'.\n", stderr);
            return RSHM_EXIT_USAGE;
        }
    }
    if (optind == argc) {
        rshm_complain("no command; for instance: redis-shm run -- redis-cli ping");
        return RSHM_EXIT_USAGE;
    }
    if (o->count == 0)
        for (size_t i = 0; i < sizeof default_endpoints / sizeof default_endpoints[0]; i++)
            add(o, default_endpoints[i]);
    return -1;
}

/* ---- the library ---- */

static int find_library(const struct options *o, char path[PATH_MAX])
{
    static const char *const places[] = {"/", "/../lib/redis-shm/", "/../lib/"};
    char dir[PATH_MAX - 64];
    if (o->library != NULL) {
        if (realpath(o->library, path) != NULL)
            return 0;
        rshm_complain("--library %s: %s", o->library, strerror(errno));
        return -ENOENT;
    }
    if (rshm_executable_dir(dir, sizeof dir) == 0) {
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            char candidate[PATH_MAX];
            snprintf(candidate, sizeof candidate, "%s%s" LIBRARY, dir, places[i]);
            if (realpath(candidate, path) != NULL)
                return 0;
        }
    }
    rshm_complain("no " LIBRARY " where redis-shm is; name it with --library");
    return -ENOENT;
}

static int set_environment(const struct options *o, const char *report)
{
    char library[PATH_MAX], preload[2 * PATH_MAX];
    int r = find_library(o, library);
    if (r < 0)
        return r;
    if (strpbrk(library, ": ") != NULL) { /* what separates libraries there */
        rshm_complain("%s: the dynamic loader cannot load a library from a path with a colon or a space in it", library);
        return -EINVAL;
    }
    const char *others = getenv("LD_PRELOAD");
    bool more = others != NULL && others[0] != '\0';
    if ((size_t)snprintf(preload, sizeof preload, "%s%s%s", library, more ? ":" : "", more ? others : "") >= sizeof preload)
        return -ENAMETOOLONG;
    setenv("LD_PRELOAD", preload, 1);
    setenv(RSHM_ENV_ENDPOINTS, o->endpoints, 1);
    setenv(RSHM_ENV_MODE, o->mode, 1);
    setenv(RSHM_ENV_REQUIRE, o->require ? "1" : "0", 1);
    if (report != NULL)
        setenv(RSHM_ENV_REPORT, report, 1);
    else
        unsetenv(RSHM_ENV_REPORT);
    return 0;
}

/* ---- the command ---- */

static int start(char **argv)
{
    execvp(argv[0], argv);
    rshm_complain("%s: %s", argv[0], strerror(errno));
    return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

static volatile sig_atomic_t child_pid;

static void pass_on(int sig)
{
    int e = errno;
    if (child_pid > 0)
        kill((pid_t)child_pid, sig);
    errno = e;
}

/* The terminal's signals reach the command by themselves, what is sent to this process is passed on. */
static void mind_signals(void)
{
    static const int passed[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    for (size_t i = 0; i < sizeof passed / sizeof passed[0]; i++) {
        struct sigaction sa = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
        sigaction(passed[i], &sa, NULL);
    }
}

static void print_stats(const struct options *o, const struct rshm_report *r)
{
    bool none = true;
    for (int i = 0; i < o->count; i++) {
        const struct rshm_report_endpoint *e = &r->endpoints[i];
        if (e->upgraded + e->not_upgraded == 0)
            continue;
        none = false;
        fprintf(stderr, "redis-shm run: %s: %llu connections upgraded, %llu not\n", o->named[i].text, (unsigned long long)e->upgraded,
                (unsigned long long)e->not_upgraded);
        for (uint32_t k = 0; k < r->reasons && k < RSHM_REASONS_MAX; k++)
            if (r->reason[k].endpoint == i)
                fprintf(stderr, "  %llu not: %s\n", (unsigned long long)r->reason[k].count, r->reason[k].text);
        fprintf(stderr, "  bytes out %llu, in %llu; doorbells sent %llu, received %llu; spins that paid %llu, in vain %llu\n",
                (unsigned long long)e->bytes_out, (unsigned long long)e->bytes_in, (unsigned long long)e->bells_sent,
                (unsigned long long)e->bells_received, (unsigned long long)e->spin_hits, (unsigned long long)e->spin_misses);
    }
    if (none)
        fputs("redis-shm run: no connection was made to an endpoint\n", stderr);
    if (r->passed_on > 0)
        fprintf(stderr, "redis-shm run: %llu descriptors in shared memory were passed to another process, where they cannot work\n",
                (unsigned long long)r->passed_on);
}

static int exit_as(int status)
{
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    const struct rlimit no_core = {0, 0}; /* the command has left one, if any */
    setrlimit(RLIMIT_CORE, &no_core);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
    return 128 + WTERMSIG(status);
}

/* Stays, and looks at what the library has counted when the command ends. */
static int start_and_report(const struct options *o, char **argv)
{
    char path[64];
    int status, fd = memfd_create("redis-shm-run", MFD_CLOEXEC);
    struct rshm_report *report = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, sizeof *report) == 0)
        report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (report == MAP_FAILED) {
        rshm_complain("no memory to count in: %s", strerror(errno));
        return RSHM_EXIT_FAILED;
    }
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    if (set_environment(o, path) < 0)
        return RSHM_EXIT_FAILED;
    pid_t pid = fork();
    if (pid < 0) {
        rshm_complain("the command cannot be started: %s", strerror(errno));
        return RSHM_EXIT_FAILED;
    }
    if (pid == 0)
        _exit(start(argv));
    child_pid = pid;
    mind_signals();
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (o->stats)
        print_stats(o, report);
    bool ran = !WIFEXITED(status) || (WEXITSTATUS(status) != EXIT_NOT_FOUND && WEXITSTATUS(status) != EXIT_NOT_EXECUTABLE);
    if (report->loaded == 0 && ran) {
        rshm_complain("the library was never loaded into %s: its connections were plain sockets", argv[0]);
        if (o->require && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            return RSHM_EXIT_FAILED;
    }
    return exit_as(status);
}

int rshm_run_main(int argc, char **argv)
{
    struct options o = {.mode = "adaptive"};
    char why[PATH_MAX + 128];
    int code = parse(argc, argv, &o);
    if (code >= 0)
        return code;
    char **command = argv + optind;
    int r = rshm_run_look_at(command[0], why, sizeof why);
    if (r < 0) {
        rshm_complain("%s: %s", command[0], strerror(-r));
        return r == -ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
    }
    if (r > 0) {
        rshm_complain("%s; %s", why, o.require ? "not run, as shared memory is required" : "its connections stay on sockets");
        if (o.require)
            return RSHM_EXIT_FAILED;
    }
    if (o.stats || o.require)
        return start_and_report(&o, command);
    return set_environment(&o, NULL) < 0 ? RSHM_EXIT_FAILED : start(command);
}
