/* open_args.c - see open_args.h. */
#include "module/open_args.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_token(const char *s, size_t n, uint8_t token[RSHM_TOKEN_BYTES])
{
    if (n != RSHM_TOKEN_HEX)
        return false;
    for (size_t i = 0; i < RSHM_TOKEN_BYTES; i++) {
        int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        token[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static bool parse_mode(const char *s, size_t n, int *mode)
{
    if (n == 0 || n > 5)
        return false;
    *mode = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '7')
            return false;
        *mode = *mode * 8 + (s[i] - '0');
    }
    return *mode <= 0777;
}

enum rshm_open_parsed rshm_open_parse(const struct rshm_open_arg *args, int argc, struct rshm_open_request *r)
{
    static const char prefix[] = RSHM_RENDEZVOUS_PREFIX;
    int i = 3;

    r->rendezvous = NULL;
    r->rendezvous_bytes = 0;
    r->mode = -1;
    if (args[1].n != 1 || args[1].s[0] != '0' + RSHM_PROTOCOL_VERSION)
        return RSHM_OPEN_BAD_VERSION;
    if (!parse_token(args[2].s, args[2].n, r->token))
        return RSHM_OPEN_BAD_TOKEN;
    if (argc == 4 || argc == 6) {
        const struct rshm_open_arg name = args[i++];
        if (name.n <= sizeof prefix - 1 || name.n > RSHM_RENDEZVOUS_MAX || memcmp(name.s, prefix, sizeof prefix - 1) != 0)
            return RSHM_OPEN_BAD_RENDEZVOUS;
        r->rendezvous = name.s;
        r->rendezvous_bytes = name.n;
    }
    if (i < argc && (args[i].n != 4 || strncasecmp(args[i].s, "mode", 4) != 0 || !parse_mode(args[i + 1].s, args[i + 1].n, &r->mode)))
        return RSHM_OPEN_BAD_MODE;
    return RSHM_OPEN_FINE;
}

bool rshm_row_field(const char *row, const char *row_end, const char *name, long long *value)
{
    size_t n = strlen(name);
    for (const char *p = row; (p = memchr(p, ' ', (size_t)(row_end - p))) != NULL;) {
        p++;
        if ((size_t)(row_end - p) > n && memcmp(p, name, n) == 0) {
            char number[24] = "";
            size_t digits = 0;
            for (const char *d = p + n; d < row_end && *d >= '0' && *d <= '9'; d++)
                digits++;
            if (digits == 0 || digits >= sizeof number)
                return false;
            memcpy(number, p + n, digits);
            *value = strtoll(number, NULL, 10);
            return true;
        }
    }
    return false;
}
