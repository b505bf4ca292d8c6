/* module.c - loads and unloads. */
#include "module/module.h"

#include <string.h>

struct redis_api redis;

#define EXPORT __attribute__((visibility("default")))
EXPORT int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
EXPORT int RedisModule_OnUnload(RedisModuleCtx *ctx);

/* Fills in the table. Returns the name of a required function that the server lacks, or NULL. */
static const char *look_up(RedisModuleCtx *ctx)
{
    int (*get)(const char *name, void *target) = NULL;
    memcpy(&get, ctx, sizeof get); /* the context's first field, as the API manual says */
#define X(name, required, type, args)                                                                                             \
    if (get("RedisModule_" #name, &redis.name) != REDIS_OK) {                                                                      \
        redis.name = NULL;                                                                                                         \
        if (required)                                                                                                              \
            return #name;                                                                                                          \
    }
    REDIS_API(X)
#undef X
    return NULL;
}

static void log_violation(uint64_t client_id, const char *rule)
{
    redis.Log(NULL, "warning", "shm: closing client id=%llu: %s", (unsigned long long)client_id, rule);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    struct rshm_libc libc;
    char why[256];

    const char *missing = look_up(ctx);
    if (missing != NULL) {
        if (redis.Log != NULL)
            redis.Log(ctx, "warning", "shm: this server has no RedisModule_%s; Redis 6.2 or Valkey 7.2 is the oldest that works",
                      missing);
        return REDIS_ERR;
    }
    if (redis.IsModuleNameBusy != NULL && redis.IsModuleNameBusy("shm"))
        return REDIS_ERR;
    redis.SetModuleAttribs(ctx, "shm", RSHM_VERSION_NUMBER, REDIS_APIVER);
    if (rshm_settings_load(ctx, argv, argc) != REDIS_OK)
        return REDIS_ERR;
    if (redis.CreateCommand(ctx, "shm.open", rshm_open_command, "deny-script no-monitor no-slowlog allow-stale", 0, 0, 0) != REDIS_OK ||
        redis.CreateCommand(ctx, "shm.stats", rshm_stats_command, "readonly allow-loading allow-stale", 0, 0, 0) != REDIS_OK ||
        redis.CreateCommand(ctx, "shm.clients", rshm_clients_command, "readonly allow-loading allow-stale", 0, 0, 0) != REDIS_OK) {
        redis.Log(ctx, "warning", "shm: the commands SHM.OPEN, SHM.STATS and SHM.CLIENTS could not be registered");
        return REDIS_ERR;
    }
    if (redis.RegisterInfoFunc != NULL && redis.InfoAddSection != NULL && redis.InfoAddFieldULongLong != NULL)
        redis.RegisterInfoFunc(ctx, rshm_info_section);
    /* Last, so that nothing above has to be undone. */
    if (!rshm_slots_find(&libc, why, sizeof why)) {
        redis.Log(ctx, "warning", "shm: not loaded: %s", why);
        return REDIS_ERR;
    }
    int r = rshm_redirect_init(&libc, log_violation);
    if (r < 0) {
        redis.Log(ctx, "warning", "shm: not loaded: %s", strerror(-r));
        return REDIS_ERR;
    }
    if (!rshm_slots_write(why, sizeof why)) {
        redis.Log(ctx, "warning", "shm: not loaded: %s", why);
        return REDIS_ERR;
    }
    rshm_redirect_set_waiting((enum rshm_wait_mode)rshm_settings.wait_mode, (uint64_t)rshm_settings.spin_limit_us);
    redis.Log(ctx, "notice", "shm: version " RSHM_VERSION " ready, protocol %d, rings of %lld bytes", RSHM_PROTOCOL_VERSION,
              rshm_settings.ring_bytes);
    return REDIS_OK;
}

int RedisModule_OnUnload(RedisModuleCtx *ctx)
{
    if (rshm_sessions_now() != 0) {
        redis.Log(ctx, "warning", "shm: not unloaded: %llu sessions are open; close these clients first (CLIENT KILL)",
                  (unsigned long long)rshm_sessions_now());
        return REDIS_ERR;
    }
    rshm_slots_restore();
    rshm_redirect_forget();
    return REDIS_OK;
}
