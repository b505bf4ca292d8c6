/* caller.c - a module for the tests that passes its arguments on as a command: CALLER.CALL SHM.OPEN 2 ... */
#include <stddef.h>
#include <string.h>

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleCallReply RedisModuleCallReply;
typedef int command_fn(RedisModuleCtx *, RedisModuleString **, int);

static void (*set_attributes)(RedisModuleCtx *, const char *name, int version, int api);
static int (*create_command)(RedisModuleCtx *, const char *name, command_fn *, const char *flags, int, int, int);
static RedisModuleCallReply *(*call)(RedisModuleCtx *, const char *command, const char *format, ...);
static const char *(*string)(const RedisModuleString *, size_t *);
static int (*reply_with)(RedisModuleCtx *, RedisModuleCallReply *);
static int (*reply_error)(RedisModuleCtx *, const char *);
static void (*free_reply)(RedisModuleCallReply *);

static int call_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    RedisModuleCallReply *r = call(ctx, string(argv[1], NULL), "v", argv + 2, (size_t)(argc - 2));
    if (r == NULL)
        return reply_error(ctx, "ERR caller: the call was refused");
    reply_with(ctx, r);
    free_reply(r);
    return 0;
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    int (*get)(const char *, void *);
    (void)argv, (void)argc;
    memcpy(&get, ctx, sizeof get);
    if (get("RedisModule_SetModuleAttribs", &set_attributes) || get("RedisModule_CreateCommand", &create_command) ||
        get("RedisModule_Call", &call) || get("RedisModule_StringPtrLen", &string) ||
        get("RedisModule_ReplyWithCallReply", &reply_with) || get("RedisModule_ReplyWithError", &reply_error) ||
        get("RedisModule_FreeCallReply", &free_reply))
        return 1;
    set_attributes(ctx, "caller", 1, 1);
    return create_command(ctx, "caller.call", call_command, "", 0, 0, 0);
}
