/* settings.c - the module's settings, from the load's arguments (NAME VALUE pairs) and, where the server has module
 * configuration, as shm.NAME. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "module/module.h"

struct rshm_settings rshm_settings;

static const struct rshm_settings defaults = {
    .ring_bytes = 64 * 1024,
    .sessions_max = 1024,
    .memory_max_bytes = 256ll << 20, /* what 1024 sessions with the default rings take, and as much again */
    .spin_limit_us = 10,
    .wait_mode = RSHM_MODE_ADAPTIVE,
};

struct number {
    const char *name;
    long long *value;
    long long min, max;
    bool memory;       /* a size: 64kb and the like */
    bool power_of_two;
};

static struct number numbers[] = {
    {"ring-size", &rshm_settings.ring_bytes, (long long)RSHM_RING_BYTES_MIN, (long long)RSHM_RING_BYTES_MAX, true, true},
    {"max-sessions", &rshm_settings.sessions_max, 0, 65536, false, false},
    {"max-memory", &rshm_settings.memory_max_bytes, 0, 1ll << 50, true, false},
    {"spin-limit-us", &rshm_settings.spin_limit_us, 0, 1000000, false, false},
};
#define NUMBERS (sizeof numbers / sizeof numbers[0])

static const char *mode_names[] = {"adaptive", "poll", "block"};
static const int mode_values[] = {RSHM_MODE_ADAPTIVE, RSHM_MODE_POLL, RSHM_MODE_BLOCK};
#define MODES 3

/* A number with an optional unit, as in redis.conf. Returns false if s is anything else or too large. */
static bool parse(const char *s, bool memory, long long *value)
{
    static const struct { const char *unit; long long factor; } units[] = {
        {"", 1}, {"b", 1}, {"k", 1000}, {"kb", 1024}, {"m", 1000000}, {"mb", 1024 * 1024}, {"g", 1000000000}, {"gb", 1 << 30},
    };
    char *end;
    errno = 0;
    long long n = strtoll(s, &end, 10);
    if (end == s || errno != 0)
        return false;
    for (size_t i = 0; i < (memory ? sizeof units / sizeof units[0] : 1); i++)
        if (strcasecmp(end, units[i].unit) == 0)
            return !__builtin_mul_overflow(n, units[i].factor, value);
    return false;
}

static void explain(const struct number *n, char *why, size_t why_bytes)
{
    snprintf(why, why_bytes, "%s must be %s from %lld to %lld", n->name,
             n->power_of_two ? "a power of two" : "a whole number", n->min, n->max);
}

static bool acceptable(const struct number *n, long long v)
{
    return v >= n->min && v <= n->max && (!n->power_of_two || (v & (v - 1)) == 0);
}

/* Returns NULL, or false with why filled in. */
static bool set_from_argument(const char *name, const char *value, char *why, size_t why_bytes)
{
    for (size_t i = 0; i < NUMBERS; i++) {
        long long v;
        if (strcasecmp(name, numbers[i].name) != 0)
            continue;
        if (!parse(value, numbers[i].memory, &v) || !acceptable(&numbers[i], v)) {
            explain(&numbers[i], why, why_bytes);
            return false;
        }
        *numbers[i].value = v;
        return true;
    }
    if (strcasecmp(name, "wait-mode") == 0) {
        for (int i = 0; i < MODES; i++)
            if (strcasecmp(value, mode_names[i]) == 0) {
                rshm_settings.wait_mode = mode_values[i];
                return true;
            }
        snprintf(why, why_bytes, "wait-mode must be adaptive, poll or block");
        return false;
    }
    snprintf(why, why_bytes, "unknown setting '%.64s' (known: ring-size, max-sessions, max-memory, wait-mode, spin-limit-us)", name);
    return false;
}

/* ---- configuration ---- */

static void apply_waiting(void)
{
    rshm_redirect_set_waiting((enum rshm_wait_mode)rshm_settings.wait_mode, (uint64_t)rshm_settings.spin_limit_us);
}

static long long get_number(const char *name, void *privdata)
{
    (void)name;
    return *((struct number *)privdata)->value;
}

static int set_number(const char *name, long long value, void *privdata, RedisModuleString **err)
{
    struct number *n = privdata;
    char why[128];
    (void)name;
    if (!acceptable(n, value)) {
        explain(n, why, sizeof why);
        *err = redis.CreateString(NULL, why, strlen(why));
        return REDIS_ERR;
    }
    *n->value = value;
    apply_waiting();
    return REDIS_OK;
}

static int get_mode(const char *name, void *privdata)
{
    (void)name, (void)privdata;
    return rshm_settings.wait_mode;
}

static int set_mode(const char *name, int value, void *privdata, RedisModuleString **err)
{
    (void)name, (void)privdata, (void)err;
    rshm_settings.wait_mode = value;
    apply_waiting();
    return REDIS_OK;
}

static int register_configuration(RedisModuleCtx *ctx)
{
    for (size_t i = 0; i < NUMBERS; i++) {
        struct number *n = &numbers[i];
        if (redis.RegisterNumericConfig(ctx, n->name, *n->value, n->memory ? REDIS_CONFIG_MEMORY : REDIS_CONFIG_DEFAULT, n->min,
                                        n->max, get_number, set_number, NULL, n) != REDIS_OK)
            return REDIS_ERR;
    }
    if (redis.RegisterEnumConfig(ctx, "wait-mode", rshm_settings.wait_mode, REDIS_CONFIG_DEFAULT, mode_names, mode_values, MODES,
                                 get_mode, set_mode, NULL, NULL) != REDIS_OK)
        return REDIS_ERR;
    return redis.LoadConfigs(ctx);
}

int rshm_settings_load(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    rshm_settings = defaults;
    if (argc % 2 != 0) {
        redis.Log(ctx, "warning", "shm: not loaded: settings come in pairs, NAME VALUE; '%s' has no value",
                  redis.StringPtrLen(argv[argc - 1], NULL));
        return REDIS_ERR;
    }
    for (int i = 0; i < argc; i += 2) {
        char why[256];
        if (!set_from_argument(redis.StringPtrLen(argv[i], NULL), redis.StringPtrLen(argv[i + 1], NULL), why, sizeof why)) {
            redis.Log(ctx, "warning", "shm: not loaded: %s", why);
            return REDIS_ERR;
        }
    }
    if (redis.RegisterNumericConfig == NULL || redis.RegisterEnumConfig == NULL || redis.LoadConfigs == NULL) {
        redis.Log(ctx, "notice", "shm: this server has no module configuration: settings are those of the load");
        return REDIS_OK;
    }
    if (register_configuration(ctx) != REDIS_OK) {
        redis.Log(ctx, "warning", "shm: not loaded: a shm.* setting in the configuration is unknown or out of range");
        return REDIS_ERR;
    }
    return REDIS_OK;
}
