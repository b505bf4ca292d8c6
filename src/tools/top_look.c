/* top_look.c - asks a server for its sessions; see top.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "tools/host.h"
#include "tools/top.h"

static const char no_module[] = "the server does not have the module: load it with MODULE LOAD /path/to/module-shm.so, or a loadmodule line in "
                                "its configuration";

/* NULL with why if it was not answered with an array (or a map, which has the same elements). */
static redisReply *ask(redisContext *c, const char *command, char *why, size_t why_bytes)
{
    redisReply *reply = redisCommand(c, command);
    if (reply != NULL && reply->type != REDIS_REPLY_ERROR && reply->type != REDIS_REPLY_ARRAY && reply->type != REDIS_REPLY_MAP)
        snprintf(why, why_bytes, "%s was answered with something unexpected", command);
    else if (reply == NULL)
        snprintf(why, why_bytes, "the connection was lost: %s", c->errstr);
    else if (reply->type != REDIS_REPLY_ERROR)
        return reply;
    else if (strncmp(reply->str, "NOPERM", 6) == 0)
        snprintf(why, why_bytes, "this user may not run %s: ACL SETUSER name +shm.stats +shm.clients", command);
    else if (strncmp(reply->str, "ERR unknown command", 19) != 0)
        snprintf(why, why_bytes, "%s: %s", command, reply->str);
    else if (strcmp(command, "SHM.STATS") == 0)
        snprintf(why, why_bytes, "%s", no_module);
    else
        snprintf(why, why_bytes, "the server's module has no %s: it is older than this tool", command);
    freeReplyObject(reply);
    return NULL;
}

static double per_second(uint64_t now, uint64_t before, double seconds)
{
    return seconds > 0 && now >= before ? (double)(now - before) / seconds : 0;
}

const struct rshm_top_figure *rshm_top_figure(const struct rshm_top_look *look, const char *name)
{
    for (size_t i = 0; i < look->figure_count; i++)
        if (strcmp(look->figures[i].name, name) == 0)
            return &look->figures[i];
    return NULL;
}

static void take_figures(struct rshm_top_look *look, const redisReply *reply, const struct rshm_top_look *before)
{
    for (size_t i = 0; i + 1 < reply->elements && look->figure_count < RSHM_TOP_FIGURES_MAX; i += 2) {
        const redisReply *name = reply->element[i], *value = reply->element[i + 1];
        if (name->str == NULL || value->type != REDIS_REPLY_INTEGER)
            continue;
        struct rshm_top_figure *f = &look->figures[look->figure_count++];
        snprintf(f->name, sizeof f->name, "%s", name->str);
        f->value = (uint64_t)value->integer;
        const struct rshm_top_figure *old = before != NULL ? rshm_top_figure(before, f->name) : NULL;
        f->per_s = old != NULL ? per_second(f->value, old->value, look->seconds) : 0;
    }
}

static void take_session(struct rshm_top_session *s, const redisReply *row)
{
    const struct {
        const char *name;
        uint64_t *value;
    } known[] = {
        {"id", &s->id}, {"fd", &s->fd}, {"ring_bytes", &s->ring_bytes}, {"request_backlog_bytes", &s->request_backlog_bytes},
        {"reply_backlog_bytes", &s->reply_backlog_bytes}, {"bytes_in", &s->bytes_in}, {"bytes_out", &s->bytes_out},
        {"messages_in", &s->messages_in}, {"messages_out", &s->messages_out}, {"doorbells_sent", &s->doorbells_sent},
        {"doorbells_received", &s->doorbells_received},
    };
    for (size_t i = 0; i + 1 < row->elements; i += 2) {
        const redisReply *name = row->element[i], *value = row->element[i + 1];
        if (name->str == NULL)
            continue;
        if (strcmp(name->str, "state") == 0 && value->str != NULL)
            snprintf(s->state, sizeof s->state, "%s", value->str);
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
            if (value->type == REDIS_REPLY_INTEGER && strcmp(name->str, known[k].name) == 0)
                *known[k].value = (uint64_t)value->integer;
    }
}

static int by_id(const void *left, const void *right)
{
    uint64_t a = ((const struct rshm_top_session *)left)->id, b = ((const struct rshm_top_session *)right)->id;
    return (a > b) - (a < b);
}

/* Looks are sorted by id here; rshm_top_sort() may have changed the order of the last one. */
static void compare_sessions(struct rshm_top_look *look, const struct rshm_top_look *before)
{
    static const struct rshm_top_session fresh; /* was opened since: all its figures are of this time */
    struct rshm_top_session *old = NULL;
    size_t old_count = before != NULL ? before->session_count : 0;
    if (old_count > 0 && (old = malloc(old_count * sizeof *old)) != NULL) {
        memcpy(old, before->sessions, old_count * sizeof *old);
        qsort(old, old_count, sizeof *old, by_id);
    }
    for (size_t i = 0; i < look->session_count; i++) {
        struct rshm_top_session *s = &look->sessions[i];
        const struct rshm_top_session *o = old != NULL ? bsearch(s, old, old_count, sizeof *old, by_id) : NULL;
        if (o == NULL)
            o = &fresh;
        s->requests_s = per_second(s->messages_in, o->messages_in, look->seconds);
        s->in_s = per_second(s->bytes_in, o->bytes_in, look->seconds);
        s->out_s = per_second(s->bytes_out, o->bytes_out, look->seconds);
        s->bells_out_s = per_second(s->doorbells_sent, o->doorbells_sent, look->seconds);
        s->bells_in_s = per_second(s->doorbells_received, o->doorbells_received, look->seconds);
    }
    free(old);
}

int rshm_top_look(redisContext *c, int64_t server_pid, const struct rshm_top_look *before, struct rshm_top_look *look, char *why,
                  size_t why_bytes)
{
    *look = (struct rshm_top_look){.at_ns = rshm_now_ns(), .server_cpus = -1};
    if (before != NULL)
        look->seconds = (double)(look->at_ns - before->at_ns) / 1e9;
    if (server_pid > 0)
        look->server_cpu_ns = rshm_process_cpu_ns((pid_t)server_pid);
    if (before != NULL && before->server_cpu_ns != 0 && look->server_cpu_ns >= before->server_cpu_ns)
        look->server_cpus = (double)(look->server_cpu_ns - before->server_cpu_ns) / 1e9 / look->seconds;

    redisReply *reply = ask(c, "SHM.STATS", why, why_bytes);
    if (reply == NULL)
        return -EIO;
    take_figures(look, reply, before);
    freeReplyObject(reply);

    reply = ask(c, "SHM.CLIENTS", why, why_bytes);
    if (reply == NULL)
        return -EIO;
    look->sessions = calloc(reply->elements + 1, sizeof *look->sessions);
    if (look->sessions == NULL) {
        freeReplyObject(reply);
        snprintf(why, why_bytes, "out of memory");
        return -ENOMEM;
    }
    for (size_t i = 0; i < reply->elements; i++)
        take_session(&look->sessions[look->session_count++], reply->element[i]);
    freeReplyObject(reply);
    compare_sessions(look, before);
    return 0;
}

void rshm_top_forget(struct rshm_top_look *look)
{
    free(look->sessions);
    *look = (struct rshm_top_look){0};
}

/* ---- order ---- */

static int by_requests(const void *left, const void *right)
{
    const struct rshm_top_session *a = left, *b = right;
    return a->requests_s != b->requests_s ? (a->requests_s < b->requests_s) - (a->requests_s > b->requests_s) : by_id(a, b);
}

static int by_bytes(const void *left, const void *right)
{
    const struct rshm_top_session *a = left, *b = right;
    double x = a->in_s + a->out_s, y = b->in_s + b->out_s;
    return x != y ? (x < y) - (x > y) : by_id(a, b);
}

void rshm_top_sort(struct rshm_top_look *look, enum rshm_top_order order)
{
    int (*const orders[])(const void *, const void *) = {by_requests, by_bytes, by_id};
    qsort(look->sessions, look->session_count, sizeof *look->sessions, orders[order]);
}

/* ---- CLIENT LIST ---- */

/* The value of " name=" in a line, printable characters only. */
static void take_word(const char *line, size_t line_bytes, const char *name, char *to, size_t to_bytes)
{
    size_t n = strlen(name), used = 0;
    to[0] = '\0';
    for (const char *p = line, *end = line + line_bytes; p != NULL && p < end; p = memchr(p, ' ', (size_t)(end - p))) {
        p += *p == ' ';
        if ((size_t)(end - p) <= n || memcmp(p, name, n) != 0)
            continue;
        for (p += n; p < end && *p != ' ' && used + 1 < to_bytes; p++)
            to[used++] = *p > 0x20 && *p < 0x7f ? *p : '?';
        to[used] = '\0';
        return;
    }
}

/* *at: where the search begins, and then the next: the rows come in the order in which they were asked for, some perhaps missing. */
static void take_client(struct rshm_top_look *look, size_t count, size_t *at, const char *line, size_t line_bytes)
{
    char id_text[24];
    take_word(line, line_bytes, "id=", id_text, sizeof id_text);
    uint64_t id = strtoull(id_text, NULL, 10);
    for (size_t tried = 0; tried < count; tried++, *at = (*at + 1) % count) {
        struct rshm_top_session *s = &look->sessions[*at];
        if (s->id != id)
            continue;
        s->described = true;
        take_word(line, line_bytes, "addr=", s->address, sizeof s->address);
        take_word(line, line_bytes, "name=", s->name, sizeof s->name);
        take_word(line, line_bytes, "cmd=", s->command, sizeof s->command);
        return;
    }
}

int rshm_top_describe(redisContext *c, struct rshm_top_look *look, size_t count, char *why, size_t why_bytes)
{
    enum { ID_BYTES = 24 };
    if (count > look->session_count)
        count = look->session_count;
    if (count == 0)
        return 0;
    const char **argv = calloc(3 + count, sizeof *argv);
    char(*ids)[ID_BYTES] = calloc(count, sizeof *ids);
    if (argv == NULL || ids == NULL) {
        free(argv);
        free(ids);
        return 0;
    }
    argv[0] = "CLIENT";
    argv[1] = "LIST";
    argv[2] = "ID";
    for (size_t i = 0; i < count; i++) {
        snprintf(ids[i], ID_BYTES, "%" PRIu64, look->sessions[i].id);
        argv[3 + i] = ids[i];
    }
    size_t at = 0;
    redisReply *reply = redisCommandArgv(c, (int)(3 + count), argv, NULL);
    free(argv);
    free(ids);
    if (reply == NULL) {
        snprintf(why, why_bytes, "the connection was lost: %s", c->errstr);
        return -EIO;
    }
    if (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_VERB)
        for (const char *line = reply->str, *next; *line != '\0'; line = next) {
            size_t n = strcspn(line, "\n");
            next = line + n + (line[n] == '\n');
            take_client(look, count, &at, line, n);
        }
    freeReplyObject(reply);
    return 0;
}
