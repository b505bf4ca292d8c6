/* report.c - SHM.STATS and the INFO section, from one list of figures. */
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

int rshm_stats_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    struct figure f[FIGURES_MAX];
    (void)argv;
    if (argc != 1)
        return redis.WrongArity(ctx);
    int n = collect(f);
    if (redis.ReplyWithMap != NULL)
        redis.ReplyWithMap(ctx, n);
    else
        redis.ReplyWithArray(ctx, 2 * n);
    for (int i = 0; i < n; i++) {
        redis.ReplyWithStringBuffer(ctx, f[i].name, strlen(f[i].name));
        redis.ReplyWithLongLong(ctx, (long long)f[i].value);
    }
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
