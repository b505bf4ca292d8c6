/* report.c - SHM.STATS and the INFO section, from one list of figures; SHM.CLIENTS. */
#include <stdio.h>
#include <string.h>

#include "module/module.h"

#define FIGURES_MAX 48

struct figure {
    char name[40];
    uint64_t value;
};

static int collect(struct figure f[FIGURES_MAX])
{
    struct rshm_redirect_totals t;
    uint64_t refused = 0;
    int n = 0;
    rshm_redirect_totals(&t);
#define ADD(key, val) (snprintf(f[n].name, sizeof f[n].name, "%s", key), f[n++].value = (uint64_t)(val))
    ADD("version", RSHM_VERSION_NUMBER); /* major * 10000 + minor * 100 + patch, as in MODULE LIST */
    ADD("protocol", RSHM_PROTOCOL_VERSION);
    ADD("sessions", t.sessions_now);
    ADD("sessions_hot", t.hot);
    ADD("sessions_parked", t.parked);
    ADD("sessions_opened", t.sessions_ever);
    ADD("sessions_declined", t.declined);
    ADD("sessions_violated", t.violations);
    ADD("memory_bytes", rshm_sessions_memory());
    ADD("bytes_in", t.bytes_in);
    ADD("bytes_out", t.bytes_out);
    ADD("messages_in", t.messages_in);
    ADD("messages_out", t.messages_out);
    ADD("doorbells_sent", t.bells_sent);
    ADD("doorbells_received", t.bells_received);
    ADD("spins_hit", t.spin_hits);
    ADD("spins_missed", t.spin_misses);
    for (int i = 0; i < RSHM_REFUSALS; i++)
        refused += rshm_refused[i];
    ADD("refused", refused);
    for (int i = 0; i < RSHM_REFUSALS; i++) {
        snprintf(f[n].name, sizeof f[n].name, "refused_%s", rshm_refusal_names[i]);
        f[n++].value = rshm_refused[i];
    }
    return n;
}

/* RESP2 has no maps, and servers before 7.0 no such call. */
static void begin_map(RedisModuleCtx *ctx, int pairs)
{
    if (redis.ReplyWithMap != NULL)
        redis.ReplyWithMap(ctx, pairs);
    else
        redis.ReplyWithArray(ctx, 2 * pairs);
}

static void reply_string(RedisModuleCtx *ctx, const char *s)
{
    redis.ReplyWithStringBuffer(ctx, s, strlen(s));
}

int rshm_stats_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    struct figure f[FIGURES_MAX];
    (void)argv;
    if (argc != 1)
        return redis.WrongArity(ctx);
    int n = collect(f);
    begin_map(ctx, n);
    for (int i = 0; i < n; i++) {
        reply_string(ctx, f[i].name);
        redis.ReplyWithLongLong(ctx, (long long)f[i].value);
    }
    return REDIS_OK;
}

/* New fields go to the end. */
static void reply_session(RedisModuleCtx *ctx, const struct rshm_session_info *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        {"ring_bytes", s->ring_bytes},
        {"request_backlog_bytes", s->request_backlog_bytes},
        {"reply_backlog_bytes", s->reply_backlog_bytes},
        {"bytes_in", s->bytes_in},
        {"bytes_out", s->bytes_out},
        {"messages_in", s->messages_in},
        {"messages_out", s->messages_out},
        {"doorbells_sent", s->bells_sent},
        {"doorbells_received", s->bells_received},
    };
    const int n = (int)(sizeof figures / sizeof figures[0]);
    begin_map(ctx, 3 + n);
    reply_string(ctx, "id");
    redis.ReplyWithLongLong(ctx, (long long)s->client_id);
    reply_string(ctx, "fd");
    redis.ReplyWithLongLong(ctx, s->fd);
    reply_string(ctx, "state");
    reply_string(ctx, s->state);
    for (int i = 0; i < n; i++) {
        reply_string(ctx, figures[i].name);
        redis.ReplyWithLongLong(ctx, (long long)figures[i].value);
    }
}

int rshm_clients_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    struct rshm_session_info rows[32]; /* a few at a time: no memory of a size that a client decides, no lock held while replying */
    uint32_t cursor = 0, n;
    long sessions = 0;
    (void)argv;
    if (argc != 1)
        return redis.WrongArity(ctx);
    redis.ReplyWithArray(ctx, REDIS_POSTPONED_LENGTH);
    while ((n = rshm_sessions_list(&cursor, rows, sizeof rows / sizeof rows[0])) > 0) {
        for (uint32_t i = 0; i < n; i++)
            reply_session(ctx, &rows[i]);
        sessions += n;
    }
    redis.ReplySetArrayLength(ctx, sessions);
    return REDIS_OK;
}

void rshm_info_section(RedisModuleInfoCtx *ctx, int for_crash_report)
{
    struct figure f[FIGURES_MAX];
    if (for_crash_report) /* in a signal handler: no locks */
        return;
    int n = collect(f);
    redis.InfoAddSection(ctx, "");
    for (int i = 0; i < n; i++)
        redis.InfoAddFieldULongLong(ctx, f[i].name, f[i].value);
}
