/* resp.c - see resp.h. Lengths of nested values need no stack: a message is done when no value of it is missing. */
#include "preload/resp.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void rshm_resp_start(struct rshm_resp *r)
{
    memset(r, 0, sizeof *r);
}

/* Takes bytes into s->line up to a line's end. Returns how many; *whole: the line is complete. */
static size_t take_line(struct rshm_resp_stream *s, const char *p, size_t n, bool *whole)
{
    *whole = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n') {
            *whole = true;
            s->line[s->line_bytes < sizeof s->line ? s->line_bytes : sizeof s->line - 1] = '\0';
            return i + 1;
        }
        if (p[i] != '\r') {
            if (s->line_bytes < sizeof s->line - 1)
                s->line[s->line_bytes] = p[i];
            s->line_bytes++;
        }
    }
    return n;
}

static bool is_login(const char *word, size_t n)
{
    return (n == 4 && strncasecmp(word, "AUTH", 4) == 0) || (n == 5 && strncasecmp(word, "HELLO", 5) == 0);
}

void rshm_resp_sent(struct rshm_resp *r, const char *p, size_t n)
{
    struct rshm_resp_stream *s = &r->out;
    while (n > 0 && !r->lost) {
        bool whole;
        if (s->skip > 0) {
            size_t part = n < s->skip ? n : (size_t)s->skip;
            if (r->first_word) { /* the word may come in pieces, a byte at a time: kept in the line */
                for (size_t i = 0; i < part && s->line_bytes < sizeof s->line - 1; i++)
                    s->line[s->line_bytes++] = p[i];
                if (part == s->skip) {
                    r->login |= s->line_bytes >= 2 && is_login(s->line, s->line_bytes - 2);
                    r->first_word = false;
                }
            }
            p += part;
            n -= part;
            s->skip -= part;
            if (s->skip == 0) {
                s->line_bytes = 0;
                s->values--;
            }
            continue;
        }
        size_t taken = take_line(s, p, n, &whole);
        p += taken;
        n -= taken;
        if (!whole)
            return;
        unsigned bytes = s->line_bytes;
        s->line_bytes = 0;
        if (s->values == 0 && s->line[0] == '*' && bytes > 0) {
            long long count = atoll(s->line + 1);
            r->lost |= count <= 0 || count > 1 << 20;
            s->values = count > 0 ? (uint64_t)count : 0;
            r->first_word = true;
            r->commands++;
        } else if (s->values == 0) { /* an inline command; an empty one is not answered */
            if (bytes > 0) {
                r->commands++;
                r->login |= is_login(s->line, strcspn(s->line, " "));
            }
        } else if (s->line[0] == '$' && bytes > 1) {
            long long length = atoll(s->line + 1);
            r->lost |= length < 0;
            s->skip = (uint64_t)length + 2;
        } else {
            r->lost = true;
        }
    }
}

/* A line of a reply. Returns false if it is none. */
static bool reply_line(struct rshm_resp_stream *s, unsigned bytes)
{
    long long count = atoll(s->line + 1);
    if (bytes == 0)
        return false;
    if (s->values == 0) {
        s->values = 1;
        s->push = s->line[0] == '>';
    }
    switch (s->line[0]) {
    case '+': case '-': case ':': case '_': case ',': case '#': case '(':
        s->values--;
        return true;
    case '$': case '=': case '!':
        if (count < 0)
            s->values--; /* a nil */
        else
            s->skip = (uint64_t)count + 2;
        return true;
    case '%': case '|':
        count *= 2;
        /* fall through */
    case '*': case '~': case '>':
        if (count > 0)
            s->values += (uint64_t)count;
        if (s->line[0] != '|') /* attributes stand before their value and are none */
            s->values--;
        return true;
    default:
        return false;
    }
}

/* Up to the end of one message. Returns the bytes taken; *whole: it is complete. SIZE_MAX: not the protocol. */
static size_t take_message(struct rshm_resp_stream *s, const char *p, size_t n, bool *whole)
{
    size_t sum = 0;
    *whole = false;
    while (sum < n) {
        bool line;
        if (s->skip > 0) {
            size_t part = n - sum < s->skip ? n - sum : (size_t)s->skip;
            sum += part;
            s->skip -= part;
            if (s->skip > 0)
                break;
            s->values--;
        } else {
            sum += take_line(s, p + sum, n - sum, &line);
            if (!line)
                break;
            unsigned bytes = s->line_bytes;
            s->line_bytes = 0;
            if (!reply_line(s, bytes))
                return SIZE_MAX;
        }
        if (s->values == 0 && s->skip == 0) {
            *whole = true;
            break;
        }
    }
    return sum;
}

void rshm_resp_received(struct rshm_resp *r, const char *p, size_t n)
{
    while (n > 0 && !r->lost) {
        bool whole;
        size_t taken = take_message(&r->in, p, n, &whole);
        if (taken == SIZE_MAX) {
            r->lost = true;
            return;
        }
        p += taken;
        n -= taken;
        if (whole && !r->in.push)
            r->replies++;
        r->lost |= r->replies > r->commands;
    }
}

size_t rshm_resp_push_bytes(const char *p, size_t n)
{
    struct rshm_resp_stream s = {0};
    bool whole;
    size_t taken = n > 0 && p[0] == '>' ? take_message(&s, p, n, &whole) : SIZE_MAX;
    return taken != SIZE_MAX && whole ? taken : 0;
}
