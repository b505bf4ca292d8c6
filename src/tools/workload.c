/* workload.c - see workload.h. */
#include "tools/workload.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <hiredis.h>

#include "tools/stop.h"
#include "tools/tools.h"

#define KEY "__key__"
#define DATA "__data__"
#define KEY_PREFIX "redis-shm:bench:"
#define KEY_DIGITS 12
#define KEY_BYTES_MAX 96
#define STARTS 65536 /* where in the block a value may begin: two keys share a value once in so many pairs */
#define BATCH 500    /* keys filled or deleted at a time: small beside the server's output buffer limits */
#define BATCH_BYTES (1u << 20)

/* ---- templates ---- */

/* The next word of *text, unquoted. NULL at the end; sets *bad for a quote that does not end. */
static char *next_word(const char **text, bool *bad)
{
    const char *s = *text;
    while (isspace((unsigned char)*s))
        s++;
    if (*s == '\0')
        return NULL;
    char *word = malloc(strlen(s) + 1), *to = word, quote = '\0';
    for (; word != NULL && *s != '\0' && (quote != '\0' || !isspace((unsigned char)*s)); s++) {
        if (quote == '\0' && (*s == '"' || *s == '\'')) {
            quote = *s;
        } else if (*s == quote) {
            quote = '\0';
        } else {
            if (quote == '"' && *s == '\\' && (s[1] == '"' || s[1] == '\\'))
                s++;
            *to++ = *s;
        }
    }
    *bad = quote != '\0' || word == NULL;
    if (word != NULL)
        *to = '\0';
    *text = s;
    return word;
}

static enum rshm_answer known_answer(const struct rshm_command *c)
{
    bool key = c->words > 1 && strcmp(c->word[1], KEY) == 0, data = c->words > 1 && strcmp(c->word[c->words - 1], DATA) == 0;
    if (strcasecmp(c->word[0], "GET") == 0 && c->words == 2 && key)
        return RSHM_ANSWER_STORED;
    if (strcasecmp(c->word[0], "SET") == 0 && c->words == 3)
        return RSHM_ANSWER_OK;
    if (strcasecmp(c->word[0], "PING") == 0 && c->words == 1)
        return RSHM_ANSWER_PONG;
    return strcasecmp(c->word[0], "ECHO") == 0 && c->words == 2 && data ? RSHM_ANSWER_ECHO : RSHM_ANSWER_UNKNOWN;
}

static int parse(struct rshm_command *c, const char *text)
{
    static const char *const readers[] = {"GET", "MGET", "GETRANGE", "STRLEN", "SUBSTR", "GETEX"};
    bool bad = false;
    for (char *word; (word = next_word(&text, &bad)) != NULL;) {
        c->word[c->words++] = word;
        c->has_key |= strstr(word, KEY) != NULL;
        c->has_data |= strstr(word, DATA) != NULL;
        if (bad || c->words == RSHM_WORDS_MAX) {
            rshm_complain("--command: %s", bad ? "a quote does not end" : "too many words");
            return -EINVAL;
        }
    }
    if (c->words == 0) {
        rshm_complain("--command must not be empty");
        return -EINVAL;
    }
    c->answer = known_answer(c);
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
        c->reads_strings |= c->has_key && strcasecmp(c->word[0], readers[i]) == 0;
    return 0;
}

int rshm_workload_init(struct rshm_workload *w, const char *text, double sets, double gets, const struct rshm_key_choice *keys,
                       uint64_t seed, size_t value_bytes_max)
{
    static const char get[] = "GET " KEY, set[] = "SET " KEY " " DATA;
    struct rshm_random random;
    bool mixed = strcasecmp(text, "mixed") == 0;
    *w = (struct rshm_workload){.keys = *keys, .seed = seed, .first_share = mixed ? gets / (sets + gets) : 1};
    int r = parse(&w->commands[0], mixed || strcasecmp(text, "get") == 0 ? get : strcasecmp(text, "set") == 0 ? set : text);
    if (r == 0 && mixed)
        r = parse(&w->commands[1], set);
    if (r == 0) {
        w->pool_bytes = STARTS + value_bytes_max;
        w->pool = malloc(w->pool_bytes);
        r = w->pool == NULL ? -ENOMEM : 0;
    }
    rshm_random_init(&random, seed, UINT32_MAX);
    for (size_t i = 0; r == 0 && i < w->pool_bytes; i++)
        w->pool[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[rshm_random_next(&random) >> 58];
    if (r < 0)
        rshm_workload_free(w);
    return r;
}

void rshm_workload_free(struct rshm_workload *w)
{
    for (int i = 0; i < 2; i++)
        for (int n = 0; n < w->commands[i].words; n++)
            free(w->commands[i].word[n]);
    free(w->pool);
    *w = (struct rshm_workload){0};
}

static int commands(const struct rshm_workload *w)
{
    return w->commands[1].words > 0 ? 2 : 1;
}

bool rshm_workload_is_verifiable(const struct rshm_workload *w)
{
    for (int i = 0; i < commands(w); i++)
        if (w->commands[i].answer == RSHM_ANSWER_UNKNOWN)
            return false;
    return true;
}

bool rshm_workload_has_values(const struct rshm_workload *w)
{
    return w->commands[0].has_data || w->commands[1].has_data || w->commands[0].reads_strings;
}

bool rshm_workload_has_keys(const struct rshm_workload *w)
{
    return w->commands[0].has_key || w->commands[1].has_key;
}

/* ---- keys and values ---- */

static uint64_t mix(uint64_t key)
{
    struct rshm_random r;
    rshm_random_init(&r, 0, key);
    return r.state;
}

static const char *value_of(const struct rshm_workload *w, uint64_t key)
{
    return w->pool + mix(key) % STARTS;
}

static void put_digits(char *to, uint64_t n)
{
    for (int i = KEY_DIGITS - 1; i >= 0; i--, n /= 10)
        to[i] = (char)('0' + n % 10);
}

static size_t put_key(char *to, const struct rshm_value_size *size, uint64_t key)
{
    int n = snprintf(to, KEY_BYTES_MAX, KEY_PREFIX "%zu", size->min_bytes);
    if (size->max_bytes != size->min_bytes)
        n += snprintf(to + n, KEY_BYTES_MAX - (size_t)n, "-%zu", size->max_bytes);
    to[n++] = ':';
    put_digits(to + n, key);
    return (size_t)n + KEY_DIGITS;
}

/* Commands sent in batches; an error reply ends it. */
static int read_batch(redisContext *c, size_t count, char *why, size_t why_bytes)
{
    while (count-- > 0) {
        redisReply *reply = NULL;
        bool lost = redisGetReply(c, (void **)&reply) != REDIS_OK, refused = !lost && reply->type == REDIS_REPLY_ERROR;
        if (lost || refused)
            snprintf(why, why_bytes, "%s", lost ? c->errstr : reply->str);
        freeReplyObject(reply);
        if (lost || refused)
            return -EIO;
    }
    return 0;
}

static int for_all_keys(const struct rshm_workload *w, const struct rshm_value_size *size, redisContext *c, bool store, char *why,
                        size_t why_bytes)
{
    char key[KEY_BYTES_MAX];
    size_t pending = 0, pending_bytes = 0;
    int r = 0;
    for (uint64_t k = 0; r == 0 && k < w->keys.keys; k++) {
        size_t key_bytes = put_key(key, size, k), bytes = size->min_bytes + mix(k ^ w->seed) % (size->max_bytes - size->min_bytes + 1);
        const char *argv[] = {store ? "SET" : "DEL", key, value_of(w, k)};
        if (redisAppendCommandArgv(c, store ? 3 : 2, argv, (const size_t[]){3, key_bytes, bytes}) != REDIS_OK) {
            snprintf(why, why_bytes, "%s", c->errstr);
            return -EIO;
        }
        pending++;
        pending_bytes += key_bytes + (store ? bytes : 0);
        if (pending == BATCH || pending_bytes >= BATCH_BYTES || k + 1 == w->keys.keys) {
            r = read_batch(c, pending, why, why_bytes);
            pending = pending_bytes = 0;
            if (r == 0 && store && rshm_stop_signal() != 0)
                r = -EINTR;
        }
    }
    return r;
}

int rshm_workload_fill(const struct rshm_workload *w, const struct rshm_value_size *size, redisContext *c, char *why, size_t why_bytes)
{
    if (!w->commands[0].reads_strings)
        return 0;
    return for_all_keys(w, size, c, true, why, why_bytes);
}

int rshm_workload_clean(const struct rshm_workload *w, const struct rshm_value_size *size, redisContext *c, char *why, size_t why_bytes)
{
    return rshm_workload_has_keys(w) ? for_all_keys(w, size, c, false, why, why_bytes) : 0;
}

/* ---- requests ---- */

/* A template's word with keys and values in place; returns its length. to: NULL to count only. Notes the places in p, if given, as
 * offsets from `to`. */
static size_t compose(const struct rshm_generator *g, const char *word, uint64_t key, size_t value_bytes, char *to, struct rshm_prepared *p)
{
    char name[KEY_BYTES_MAX];
    size_t key_bytes = put_key(name, &g->size, key), n = 0;
    while (*word != '\0') {
        bool is_key = strncmp(word, KEY, sizeof KEY - 1) == 0, is_data = !is_key && strncmp(word, DATA, sizeof DATA - 1) == 0;
        const char *from = is_key ? name : is_data ? value_of(g->workload, key) : word;
        size_t bytes = is_key ? key_bytes : is_data ? value_bytes : 1;
        if (to != NULL)
            memcpy(to + n, from, bytes);
        if (p != NULL && (is_key || is_data) && p->patches < RSHM_WORDS_MAX)
            p->patch[p->patches++] = (struct rshm_patch){n + (is_key ? key_bytes - KEY_DIGITS : 0), is_key};
        n += bytes;
        word += is_key ? sizeof KEY - 1 : is_data ? sizeof DATA - 1 : 1;
    }
    return n;
}

static int decimal_digits(size_t n)
{
    return snprintf(NULL, 0, "%zu", n);
}

/* The request whose values all have the same size, and where its keys and values are. */
static int prepare(struct rshm_generator *g, const struct rshm_command *c, struct rshm_prepared *p)
{
    const char *argv[RSHM_WORDS_MAX];
    size_t lengths[RSHM_WORDS_MAX], used = 0, offset = 1 + (size_t)decimal_digits((size_t)c->words) + 2;
    for (int i = 0; i < c->words; i++) {
        size_t first = p->patches;
        argv[i] = g->scratch + used;
        lengths[i] = compose(g, c->word[i], 0, g->size.max_bytes, g->scratch + used, p);
        used += lengths[i];
        offset += 1 + (size_t)decimal_digits(lengths[i]) + 2;
        for (size_t n = first; n < p->patches; n++)
            p->patch[n].offset += offset;
        offset += lengths[i] + 2;
    }
    long long n = redisFormatCommandArgv(&p->bytes, c->words, argv, lengths);
    if (n < 0)
        return -ENOMEM;
    p->bytes_count = (size_t)n;
    return 0;
}

int rshm_generator_init(struct rshm_generator *g, const struct rshm_workload *w, const struct rshm_value_size *size, size_t stream, size_t streams)
{
    int r = 0;
    *g = (struct rshm_generator){.workload = w, .size = *size, .position = w->keys.keys / streams * stream};
    rshm_random_init(&g->random, w->seed, stream);
    g->fixed = commands(w) == 1 && w->keys.keys == 1 && size->min_bytes == size->max_bytes;
    for (int i = 0; i < commands(w); i++) {
        size_t bytes = 1;
        for (int n = 0; n < w->commands[i].words; n++)
            bytes += compose(g, w->commands[i].word[n], 0, size->max_bytes, NULL, NULL);
        g->scratch_bytes = bytes > g->scratch_bytes ? bytes : g->scratch_bytes;
    }
    g->scratch = malloc(g->scratch_bytes);
    if (g->scratch == NULL)
        return -ENOMEM;
    for (int i = 0; r == 0 && i < commands(w); i++)
        r = prepare(g, &w->commands[i], &g->prepared[i]);
    if (r < 0)
        rshm_generator_free(g);
    return r;
}

void rshm_generator_free(struct rshm_generator *g)
{
    for (int i = 0; i < 2; i++)
        if (g->prepared[i].bytes != NULL)
            redisFreeCommand(g->prepared[i].bytes);
    if (g->made != NULL)
        redisFreeCommand(g->made);
    free(g->scratch);
    *g = (struct rshm_generator){0};
}

static uint64_t next_key(struct rshm_generator *g)
{
    return rshm_keys_next(&g->workload->keys, &g->random, &g->position);
}

static size_t make(struct rshm_generator *g, const struct rshm_command *c, struct rshm_expected *e)
{
    const char *argv[RSHM_WORDS_MAX];
    size_t lengths[RSHM_WORDS_MAX], used = 0;
    e->value_bytes = g->size.min_bytes + rshm_random_below(&g->random, g->size.max_bytes - g->size.min_bytes + 1);
    e->key = next_key(g);
    bool first = true;
    for (int i = 0; i < c->words; i++) {
        if (strstr(c->word[i], KEY) != NULL) { /* one key a word here; the fixed size has one for each __key__ */
            if (!first)
                e->key = next_key(g);
            first = false;
        }
        argv[i] = g->scratch + used;
        lengths[i] = compose(g, c->word[i], e->key, e->value_bytes, g->scratch + used, NULL);
        used += lengths[i];
    }
    if (g->made != NULL)
        redisFreeCommand(g->made);
    long long n = redisFormatCommandArgv(&g->made, c->words, argv, lengths);
    if (n < 0)
        g->made = NULL;
    return n < 0 ? 0 : (size_t)n;
}

size_t rshm_generator_next(struct rshm_generator *g, const char **bytes, struct rshm_expected *e)
{
    const struct rshm_workload *w = g->workload;
    int which = commands(w) == 2 && rshm_random_unit(&g->random) >= w->first_share;
    struct rshm_prepared *p = &g->prepared[which];
    e->answer = w->commands[which].answer;
    if (g->size.min_bytes != g->size.max_bytes && w->commands[which].has_data) {
        size_t n = make(g, &w->commands[which], e);
        *bytes = g->made;
        return n;
    }
    *bytes = p->bytes;
    e->value_bytes = g->size.max_bytes;
    e->key = 0;
    if (g->fixed)
        return p->bytes_count;
    bool drawn = false;
    for (size_t i = 0; i < p->patches; i++) {
        if (p->patch[i].is_key || !drawn)
            e->key = next_key(g);
        drawn = true;
        if (p->patch[i].is_key)
            put_digits(p->bytes + p->patch[i].offset, e->key);
        else
            memcpy(p->bytes + p->patch[i].offset, value_of(w, e->key), g->size.max_bytes);
    }
    return p->bytes_count;
}

/* ---- replies ---- */

static bool is_text(const redisReply *r, int type, const char *text)
{
    return r->type == type && r->len == strlen(text) && memcmp(r->str, text, r->len) == 0;
}

enum rshm_verdict rshm_reply_judge(const struct rshm_generator *g, const struct rshm_expected *e, const redisReply *r, bool verify)
{
    if (r->type == REDIS_REPLY_ERROR)
        return RSHM_REPLY_ERROR;
    if (!verify)
        return RSHM_REPLY_RIGHT;
    bool right = true;
    switch (e->answer) {
    case RSHM_ANSWER_OK: right = is_text(r, REDIS_REPLY_STATUS, "OK"); break;
    case RSHM_ANSWER_PONG: right = is_text(r, REDIS_REPLY_STATUS, "PONG"); break;
    case RSHM_ANSWER_ECHO: /* exactly what was sent */
        right = r->type == REDIS_REPLY_STRING && r->len == e->value_bytes && memcmp(r->str, value_of(g->workload, e->key), r->len) == 0;
        break;
    case RSHM_ANSWER_STORED: /* somebody's SET of this run, or what was filled in: any size of the range */
        right = r->type == REDIS_REPLY_STRING && r->len >= g->size.min_bytes && r->len <= g->size.max_bytes &&
                memcmp(r->str, value_of(g->workload, e->key), r->len) == 0;
        break;
    case RSHM_ANSWER_UNKNOWN: break;
    }
    return right ? RSHM_REPLY_RIGHT : RSHM_REPLY_WRONG;
}

void rshm_reply_explain(const struct rshm_expected *e, const redisReply *r, char *text, size_t text_bytes)
{
    static const char *const expected[] = {"any reply", "OK", "PONG", "its value", "what was sent"};
    char want[64], got[96];
    if (e->answer == RSHM_ANSWER_STORED)
        snprintf(want, sizeof want, "the value of key %" PRIu64, e->key);
    else
        snprintf(want, sizeof want, "%s", expected[e->answer]);
    if (r->str != NULL) {
        snprintf(got, sizeof got, r->len > 40 ? "%zu bytes, '%.40s...'" : "%zu bytes, '%.40s'", r->len, r->str);
        for (char *p = got; *p != '\0'; p++)
            if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
                *p = '?';
    } else if (r->type == REDIS_REPLY_INTEGER) {
        snprintf(got, sizeof got, "the integer %lld", r->integer);
    } else {
        snprintf(got, sizeof got, "%s", r->type == REDIS_REPLY_NIL ? "nil" : "a reply of another type");
    }
    if (r->type == REDIS_REPLY_ERROR)
        snprintf(text, text_bytes, "%.*s", 90, r->str);
    else
        snprintf(text, text_bytes, "expected %s, got %s", want, got);
}
