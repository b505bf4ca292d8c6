/* json.c - see json.h. */
#include "tools/json.h"

#include <inttypes.h>
#include <math.h>

static void quoted(FILE *to, const char *s)
{
    fputc('"', to);
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20)
            fprintf(to, "\\u%04x", c);
        else
            fputc(c < 0x7f ? c : '?', to);
    }
    fputc('"', to);
}

static void begin(struct rshm_json *j, const char *name)
{
    if (j->follows)
        fputc(',', j->to);
    if (j->depth > 0)
        fprintf(j->to, "\n%*s", 2 * j->depth, "");
    if (name != NULL) {
        quoted(j->to, name);
        fputs(": ", j->to);
    }
    j->follows = true;
}

void rshm_json_open(struct rshm_json *j, const char *name, char bracket)
{
    begin(j, name);
    fputc(bracket, j->to);
    j->depth++;
    j->follows = false;
}

void rshm_json_close(struct rshm_json *j, char bracket)
{
    j->depth--;
    if (j->follows)
        fprintf(j->to, "\n%*s", 2 * j->depth, "");
    fputc(bracket, j->to);
    if (j->depth == 0)
        fputc('\n', j->to);
    j->follows = true;
}

void rshm_json_string(struct rshm_json *j, const char *name, const char *value)
{
    begin(j, name);
    quoted(j->to, value);
}

void rshm_json_integer(struct rshm_json *j, const char *name, uint64_t value)
{
    begin(j, name);
    fprintf(j->to, "%" PRIu64, value);
}

void rshm_json_number(struct rshm_json *j, const char *name, double value, int decimals)
{
    begin(j, name);
    if (isfinite(value))
        fprintf(j->to, "%.*f", decimals, value);
    else
        fputs("null", j->to);
}

void rshm_json_bool(struct rshm_json *j, const char *name, bool value)
{
    begin(j, name);
    fputs(value ? "true" : "false", j->to);
}
