/* tools.h - the subcommands of redis-shm, and what all of them do alike. */
#ifndef RSHM_TOOLS_H
#define RSHM_TOOLS_H

#include <stddef.h>

/* Exit codes of every subcommand. An interrupted one dies of the signal instead, see stop.h. */
enum {
    RSHM_EXIT_OK = 0,
    RSHM_EXIT_FAILED = 1,
    RSHM_EXIT_USAGE = 2,
};

/* One per subcommand; argv[0] is its name. Returns the exit code. */
int rshm_demo_main(int argc, char **argv);
int rshm_bench_main(int argc, char **argv);
int rshm_latency_main(int argc, char **argv);
int rshm_top_main(int argc, char **argv);
int rshm_doctor_main(int argc, char **argv);
int rshm_run_main(int argc, char **argv);

/* A line on stderr that begins with "redis-shm: ". */
__attribute__((format(printf, 1, 2))) void rshm_complain(const char *format, ...);

/* The directory of this executable, without a slash at the end. 0, or -errno if /proc is not there or the path does not fit. */
int rshm_executable_dir(char *dir, size_t dir_bytes);

/* Reads a number in [min, max] from an option's text. Returns 0, or -EINVAL after a complaint that names the option. */
int rshm_parse_number(const char *option, const char *text, double min, double max, double *value);

/* The same for a whole number. */
int rshm_parse_integer(const char *option, const char *text, long long min, long long max, long long *value);

#endif
