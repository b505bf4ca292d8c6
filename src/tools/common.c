/* common.c - what all subcommands do alike; see tools.h. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/tools.h"

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

int rshm_parse_integer(const char *option, const char *text, long long min, long long max, long long *value)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || v < min || v > max) {
        rshm_complain("%s must be a whole number from %lld to %lld, not '%s'", option, min, max, text);
        return -EINVAL;
    }
    *value = v;
    return 0;
}
