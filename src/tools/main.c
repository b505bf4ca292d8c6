/* main.c - redis-shm: finds the subcommand and hands over. */
#include <stdio.h>
#include <string.h>

#include "tools/tools.h"

static const struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} subcommands[] = {
    {"bench", rshm_bench_main, "any load over TCP, Unix socket and shared memory, in turns: latency, throughput, CPU time"},
    {"demo", rshm_demo_main, "a private server, and how fast it answers over TCP, Unix socket and shared memory"},
    {"latency", rshm_latency_main, "how long a PING takes, over shared memory or a socket"},
    {"doctor", rshm_doctor_main, "whether shared memory works here, and if not, why"},
    {"run", rshm_run_main, "any program, unchanged, with its connections in shared memory"},
    {"top", rshm_top_main, "a server's sessions, live"},
};
#define SUBCOMMANDS (sizeof subcommands / sizeof subcommands[0])

static const char examples[] =
    "  redis-shm demo                      two tables, a chart and latency.json, in less than a minute\n"
    "  redis-shm bench --start             the same figures from a load that can be chosen\n"
    "  redis-shm doctor                    what stands in the way of shared memory with the server on 127.0.0.1:6379\n"
    "  redis-shm latency --rate 0          what a busy client of it sees\n"
    "  redis-shm run -- redis-cli          redis-cli with that server, in shared memory\n"
    "  redis-shm top                       its sessions, the busiest first\n";

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
