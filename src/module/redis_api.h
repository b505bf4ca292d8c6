/* redis_api.h - the part of the public module API that this module calls, declared from the API manual; nothing of any server's
 * headers. Functions are looked up by name through the first field of the load context; one the server lacks stays NULL, and
 * whoever calls it checks. */
#ifndef RSHM_REDIS_API_H
#define RSHM_REDIS_API_H

#include <stdint.h>
#include <stddef.h>

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleCallReply RedisModuleCallReply;
typedef struct RedisModuleInfoCtx RedisModuleInfoCtx;

enum { REDIS_OK = 0, REDIS_ERR = 1, REDIS_APIVER = 1 };
enum { REDIS_POSTPONED_LENGTH = -1 };
enum { REDIS_CTX_LUA = 1 << 0, REDIS_CTX_MULTI = 1 << 1 };
enum { REDIS_CLIENTINFO_SSL = 1 << 0, REDIS_CLIENTINFO_VERSION = 1 };
enum { REDIS_REPLY_IS_STRING = 0, REDIS_REPLY_IS_VERBATIM = 10 };
enum { REDIS_CONFIG_DEFAULT = 0, REDIS_CONFIG_MEMORY = 1 << 7 };

struct redis_client_info {
    uint64_t version, flags, id;
    char addr[46];
    uint16_t port, db;
};

typedef int redis_command_fn(RedisModuleCtx *, RedisModuleString **argv, int argc);
typedef long long redis_get_numeric_fn(const char *name, void *privdata);
typedef int redis_set_numeric_fn(const char *name, long long value, void *privdata, RedisModuleString **err);
typedef int redis_get_enum_fn(const char *name, void *privdata);
typedef int redis_set_enum_fn(const char *name, int value, void *privdata, RedisModuleString **err);
typedef int redis_apply_fn(RedisModuleCtx *, void *privdata, RedisModuleString **err);
typedef void redis_info_fn(RedisModuleInfoCtx *, int for_crash_report);

/* name, required (the module does not load without it), return type, arguments */
#define REDIS_API(X)                                                                                                              \
    X(SetModuleAttribs, 1, void, (RedisModuleCtx *, const char *name, int version, int apiver))                                   \
    X(IsModuleNameBusy, 0, int, (const char *name))                                                                               \
    X(CreateCommand, 1, int, (RedisModuleCtx *, const char *name, redis_command_fn *, const char *flags, int, int, int))          \
    X(StringPtrLen, 1, const char *, (const RedisModuleString *, size_t *len))                                                    \
    X(WrongArity, 1, int, (RedisModuleCtx *))                                                                                     \
    X(ReplyWithError, 1, int, (RedisModuleCtx *, const char *err))                                                                \
    X(ReplyWithArray, 1, int, (RedisModuleCtx *, long len))                                                                       \
    X(ReplyWithMap, 0, int, (RedisModuleCtx *, long pairs))                                                                       \
    X(ReplySetArrayLength, 1, void, (RedisModuleCtx *, long len))                                                                 \
    X(ReplyWithLongLong, 1, int, (RedisModuleCtx *, long long))                                                                   \
    X(ReplyWithStringBuffer, 1, int, (RedisModuleCtx *, const char *, size_t len))                                                \
    X(Call, 1, RedisModuleCallReply *, (RedisModuleCtx *, const char *command, const char *fmt, ...))                             \
    X(CallReplyType, 1, int, (RedisModuleCallReply *))                                                                            \
    X(CallReplyStringPtr, 1, const char *, (RedisModuleCallReply *, size_t *len))                                                 \
    X(FreeCallReply, 1, void, (RedisModuleCallReply *))                                                                           \
    X(CreateString, 1, RedisModuleString *, (RedisModuleCtx *, const char *, size_t len))                                         \
    X(GetClientId, 1, unsigned long long, (RedisModuleCtx *))                                                                     \
    X(GetClientInfoById, 1, int, (void *info, uint64_t id))                                                                       \
    X(GetContextFlags, 1, int, (RedisModuleCtx *))                                                                                \
    X(Log, 1, void, (RedisModuleCtx *, const char *level, const char *fmt, ...))                                                  \
    X(RegisterInfoFunc, 0, int, (RedisModuleCtx *, redis_info_fn *))                                                              \
    X(InfoAddSection, 0, int, (RedisModuleInfoCtx *, const char *name))                                                           \
    X(InfoAddFieldULongLong, 0, int, (RedisModuleInfoCtx *, const char *field, unsigned long long))                               \
    X(RegisterNumericConfig, 0, int, (RedisModuleCtx *, const char *name, long long def, unsigned flags, long long min,           \
                                      long long max, redis_get_numeric_fn *, redis_set_numeric_fn *, redis_apply_fn *, void *))   \
    X(RegisterEnumConfig, 0, int, (RedisModuleCtx *, const char *name, int def, unsigned flags, const char **names,               \
                                   const int *values, int count, redis_get_enum_fn *, redis_set_enum_fn *, redis_apply_fn *,      \
                                   void *))                                                                                       \
    X(LoadConfigs, 0, int, (RedisModuleCtx *))

struct redis_api {
#define X(name, required, type, args) type(*name) args;
    REDIS_API(X)
#undef X
};

/* The server's functions; valid once the module is loaded. */
extern struct redis_api redis;

#endif
