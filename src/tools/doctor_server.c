/* doctor_server.c - what the server says of itself, the module and its settings; see doctor.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <hiredis.h>

#include "tools/doctor.h"

#define LIMIT_NEAR 0.8 /* of a limit: then it is worth a note */

static const char load_it[] = "MODULE LOAD /path/to/module-shm.so, or a line 'loadmodule /path/to/module-shm.so' in its configuration and a restart";

static redisReply *ask(struct rshm_doctor *d, const char *command)
{
    redisReply *reply = d->c->err != 0 ? NULL : redisCommand(d->c, command);
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR) {
        freeReplyObject(reply);
        return NULL;
    }
    return reply;
}

/* A setting. False: there is none, or the server does not tell. */
static bool setting(struct rshm_doctor *d, const char *name, char *value, size_t value_bytes)
{
    redisReply *reply = d->c->err != 0 ? NULL : redisCommand(d->c, "CONFIG GET %s", name);
    bool told = reply != NULL && reply->type != REDIS_REPLY_ERROR && reply->elements == 2 && reply->element[1]->str != NULL;
    snprintf(value, value_bytes, "%s", told ? reply->element[1]->str : "");
    freeReplyObject(reply);
    return told;
}

static bool number_setting(struct rshm_doctor *d, const char *name, uint64_t *value)
{
    char text[64], *end;
    bool told = setting(d, name, text, sizeof text);
    *value = strtoull(text, &end, 10);
    return told && end != text;
}

/* A figure of SHM.STATS. */
static uint64_t figure(const redisReply *stats, const char *name)
{
    for (size_t i = 0; i + 1 < stats->elements; i += 2)
        if (stats->element[i]->str != NULL && strcmp(stats->element[i]->str, name) == 0)
            return (uint64_t)stats->element[i + 1]->integer;
    return 0;
}

/* ---- the server ---- */

static void check_version(struct rshm_doctor *d)
{
    char number[48] = "", product[24] = "the server";
    int major = 0, minor = 0;
    redisReply *info = ask(d, "INFO server");
    if (info != NULL && info->str != NULL) {
        bool valkey = rshm_info_field(info->str, "valkey_version", number, sizeof number);
        snprintf(product, sizeof product, valkey ? "Valkey" : "Redis");
        if (!valkey)
            rshm_info_field(info->str, "redis_version", number, sizeof number);
    }
    freeReplyObject(info);
    snprintf(d->server_version, sizeof d->server_version, "%s%s%s", product, number[0] != '\0' ? " " : "", number);
    sscanf(number, "%d.%d", &major, &minor);
    if (number[0] != '\0' && (major < 6 || (major == 6 && minor < 2)))
        rshm_doctor_find(d, RSHM_PROBLEM, "server", "update it to Redis 6.2, Valkey 7.2 or later", "%s at %s is too old for the module", d->server_version,
                         d->where);
    else
        rshm_doctor_find(d, RSHM_FINE, "server", NULL, "%s answers at %s", d->server_version, d->where);
}

bool rshm_doctor_reach(struct rshm_doctor *d)
{
    char why[384];
    int r = rshm_endpoint_connect(&d->endpoint, d->endpoint.path != NULL ? RSHM_UNIX : RSHM_TCP, -1, &d->c, why, sizeof why);
    if (r < 0) {
        rshm_doctor_find(d, RSHM_PROBLEM, "server", "nothing else can be checked before that", "%s", why);
        return false;
    }
    rshm_endpoint_peer(d->c, d->where, sizeof d->where);
    d->server_pid = rshm_endpoint_server_pid(d->c);
    check_version(d);
    return true;
}

/* ---- the module ---- */

/* The module's version as MODULE LIST has it; -1: not loaded; -2: the server does not tell. */
static int64_t module_version(struct rshm_doctor *d)
{
    int64_t version = -1;
    redisReply *list = ask(d, "MODULE LIST");
    if (list == NULL)
        return -2;
    for (size_t i = 0; i < list->elements; i++) {
        const redisReply *module = list->element[i];
        bool ours = false;
        int64_t its = -1;
        for (size_t k = 0; k + 1 < module->elements; k += 2) {
            const redisReply *name = module->element[k], *value = module->element[k + 1];
            if (name->str != NULL && strcmp(name->str, "name") == 0)
                ours = value->str != NULL && strcmp(value->str, "shm") == 0;
            if (name->str != NULL && strcmp(name->str, "ver") == 0)
                its = value->integer;
        }
        if (ours)
            version = its;
    }
    freeReplyObject(list);
    return version;
}

static bool check_loaded(struct rshm_doctor *d)
{
    char allowed[16];
    int64_t version = module_version(d);
    redisReply *stats = version == -2 ? ask(d, "SHM.STATS") : NULL;
    bool seen = stats != NULL;
    freeReplyObject(stats);
    if (version == RSHM_VERSION_NUMBER) {
        rshm_doctor_find(d, RSHM_FINE, "module", NULL, "module-shm.so " RSHM_VERSION " is loaded");
    } else if (version >= 0) {
        rshm_doctor_find(d, RSHM_NOTE, "module", "install the same version on both sides and restart the server",
                         "the server has module-shm.so %" PRId64 ".%" PRId64 ".%" PRId64 ", and this is " RSHM_VERSION, version / 10000,
                         version / 100 % 100, version % 100);
    } else if (seen) {
        rshm_doctor_find(d, RSHM_NOTE, "module", "ACL SETUSER name +module|list shows it, if it matters",
                         "the module is loaded, but this user may not see which version");
    } else if (version == -2) {
        rshm_doctor_find(d, RSHM_NOTE, "module", "run this as a user with +module|list and +shm.stats, to be told more",
                         "this user may not see which modules are loaded");
    } else {
        bool locked = setting(d, "enable-module-command", allowed, sizeof allowed) && strcmp(allowed, "no") == 0;
        rshm_doctor_find(d, RSHM_PROBLEM, "module",
                         locked ? "a line 'loadmodule /path/to/module-shm.so' in its configuration and a restart (MODULE LOAD is switched off there)"
                                : load_it,
                         "the server does not have the module");
        return false;
    }
    return true;
}

static void check_limit(struct rshm_doctor *d, const char *name, uint64_t used, uint64_t more, const char *unit)
{
    char todo[160];
    uint64_t limit;
    if (!number_setting(d, name, &limit))
        return; /* 6.2 has no module configuration */
    snprintf(todo, sizeof todo, "CONFIG SET %s, or close sessions (redis-shm top shows them)", name);
    if (used + more > limit)
        rshm_doctor_find(d, RSHM_PROBLEM, "limits", todo, "%s (%" PRIu64 "%s) is reached: new clients are refused", name, limit, unit);
    else if ((double)used > LIMIT_NEAR * (double)limit)
        rshm_doctor_find(d, RSHM_NOTE, "limits", todo, "%s: %" PRIu64 " of %" PRIu64 "%s are used", name, used, limit, unit);
    else
        rshm_doctor_find(d, RSHM_FINE, "limits", NULL, "%s: %" PRIu64 " of %" PRIu64 "%s are used", name, used, limit, unit);
}

/* Why the server has refused clients so far, and what these should do. */
static void check_refusals(struct rshm_doctor *d, const redisReply *stats)
{
    static const struct {
        const char *figure, *what, *todo;
    } reasons[] = {
        {"refused_older_than_module", "were connected before the module was loaded", "let these clients reconnect"},
        {"refused_not_this_host", "came over TCP from another host or network namespace", "use the Unix socket, or the host's network, from containers"},
        {"refused_max_sessions", "met shm.max-sessions", "CONFIG SET shm.max-sessions"},
        {"refused_max_memory", "met shm.max-memory", "CONFIG SET shm.max-memory"},
        {"refused_tls", "came over TLS", "let them use the plain port or the Unix socket of this host"},
        {"refused_version", "speak another version of the protocol", "update their library"},
        {"refused_system", "met an error of the system", "look into the server's log, and at its limits of open files and memory"},
        {"refused_unanswered", "asked with other commands unanswered", "let them ask first thing on a connection"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        uint64_t n = figure(stats, reasons[i].figure);
        if (n > 0)
            rshm_doctor_find(d, RSHM_NOTE, "refused", reasons[i].todo, "%" PRIu64 " attempts since the module was loaded %s", n, reasons[i].what);
    }
    if (figure(stats, "sessions_violated") > 0)
        rshm_doctor_find(d, RSHM_NOTE, "refused", "the server's log names the clients and the rules",
                         "%" PRIu64 " sessions were closed because their clients broke the protocol", figure(stats, "sessions_violated"));
}

static void check_waiting(struct rshm_doctor *d)
{
    char mode[24];
    uint64_t limit_us;
    if (!setting(d, "shm.wait-mode", mode, sizeof mode))
        return;
    number_setting(d, "shm.spin-limit-us", &limit_us);
    if (strcmp(mode, "block") == 0 || (strcmp(mode, "adaptive") == 0 && limit_us == 0))
        rshm_doctor_find(d, RSHM_NOTE, "waiting", "CONFIG SET shm.wait-mode adaptive, and shm.spin-limit-us 10, for microseconds",
                         "shm.wait-mode %s%s: the server never spins, so a request costs a wake-up as over a socket", mode,
                         limit_us == 0 && mode[0] == 'a' ? " with shm.spin-limit-us 0" : "");
    else if (strcmp(mode, "poll") == 0)
        rshm_doctor_find(d, RSHM_NOTE, "waiting", "right on a CPU of its own; else CONFIG SET shm.wait-mode adaptive",
                         "shm.wait-mode poll: the server keeps a CPU busy while any session is open");
    else
        rshm_doctor_find(d, RSHM_FINE, "waiting", NULL, "shm.wait-mode %s: the server spins for up to %" PRIu64 " us where that pays, and sleeps otherwise", mode,
                         limit_us);
}

static void check_tls(struct rshm_doctor *d)
{
    char port[16], tls_port[16], path[256];
    bool plain = setting(d, "port", port, sizeof port) && strcmp(port, "0") != 0;
    bool told = setting(d, "unixsocket", path, sizeof path);
    if (told && !plain && path[0] == '\0')
        rshm_doctor_find(d, RSHM_PROBLEM, "tls", "set unixsocket, or port with bind 127.0.0.1, in its configuration and restart it",
                         "the server has neither a plain port nor a Unix socket, and shared memory cannot be opened over TLS");
    else if (setting(d, "tls-port", tls_port, sizeof tls_port) && strcmp(tls_port, "0") != 0)
        rshm_doctor_find(d, RSHM_NOTE, "tls", "clients of this host use the plain port or the Unix socket",
                         "clients on the TLS port %s cannot use shared memory", tls_port);
    if (told && path[0] == '\0')
        rshm_doctor_find(d, RSHM_NOTE, "socket", "set unixsocket in its configuration if containers are to use it",
                         "the server has no Unix socket: clients in another network namespace cannot have shared memory");
}

void rshm_doctor_module(struct rshm_doctor *d)
{
    uint64_t ring_bytes;
    if (!check_loaded(d))
        return;
    redisReply *stats = ask(d, "SHM.STATS");
    if (stats != NULL) {
        check_limit(d, "shm.max-sessions", figure(stats, "sessions"), 1, "");
        if (number_setting(d, "shm.ring-size", &ring_bytes))
            check_limit(d, "shm.max-memory", figure(stats, "memory_bytes"), 2 * ring_bytes, " bytes");
        check_refusals(d, stats);
    }
    freeReplyObject(stats);
    check_waiting(d);
    check_tls(d);
}
