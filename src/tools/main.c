/* main.c - redis-shm: finds the subcommand and hands over. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/tools.h"

static const struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} subcommands[] = {
    {"demo", rshm_demo_main, "a private server, and how fast it answers over TCP, Unix socket and shared memory"},
};
#define SUBCOMMANDS (sizeof subcommands / sizeof subcommands[0])

static const char examples[] =
    "  redis-shm demo                      two tables, a chart and latency.json, in less than a minute\n"
    "  redis-shm demo --server /opt/valkey/bin/valkey-server --out /tmp/valkey\n";

static void help(FILE *to)
{
    fputs("Usage: redis-shm COMMAND [OPTION]...\n"
          "\n"
          "Redis through shared memory: tools for module-shm.so and libhiredis_shm.\n"
          "\n"
          "Commands:\n",
          to);
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        fprintf(to, "  %-10s %s\n", subcommands[i].name, subcommands[i].what);
    fprintf(to,
            "\n"
            "  redis-shm COMMAND --help    a command's options\n"
            "  redis-shm --version         the version\n"
            "\n"
            "Examples:\n"
            "%s"
            "\n"
            "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
            examples);
}

void rshm_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("redis-shm: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int rshm_executable_dir(char *dir, size_t dir_bytes)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0)
        return -errno;
    path[n] = '\0';
    int length = snprintf(dir, dir_bytes, "%s", dirname(path));
    return length < 0 || (size_t)length >= dir_bytes ? -ENAMETOOLONG : 0;
}

int rshm_parse_number(const char *option, const char *text, double min, double max, double *value)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v) || v < min || v > max) {
        rshm_complain("%s must be a number from %g to %g, not '%s'", option, min, max, text);
        return -EINVAL;
    }
    *value = v;
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name == NULL) {
        help(stderr);
        return RSHM_EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        help(stdout);
        return RSHM_EXIT_OK;
    }
    if (strcmp(name, "--version") == 0) {
        puts("redis-shm " RSHM_VERSION);
        return RSHM_EXIT_OK;
    }
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        if (strcmp(name, subcommands[i].name) == 0)
            return subcommands[i].run(argc - 1, argv + 1);
    rshm_complain("no command '%s'; 'redis-shm --help' lists them", name);
    return RSHM_EXIT_USAGE;
}
