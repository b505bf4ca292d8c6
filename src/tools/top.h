/* top.h - what the files of redis-shm top share: one look at a server's sessions, and what changed since the look before. */
#ifndef RSHM_TOP_H
#define RSHM_TOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct redisContext;

/* A row of SHM.CLIENTS, with what CLIENT LIST says of the client. */
struct rshm_top_session {
    uint64_t id, fd, ring_bytes, request_backlog_bytes, reply_backlog_bytes;
    uint64_t bytes_in, bytes_out, messages_in, messages_out, doorbells_sent, doorbells_received;
    char state[16];
    bool described; /* the three below are known */
    char address[64], name[64], command[32];
    /* a second, since the look before */
    double requests_s, in_s, out_s, bells_out_s, bells_in_s;
};

#define RSHM_TOP_FIGURES_MAX 64
struct rshm_top_figure {
    char name[40];
    uint64_t value;
    double per_s;
};

struct rshm_top_look {
    uint64_t at_ns, server_cpu_ns; /* the second is 0 if the server's process is not seen from here */
    double seconds;                /* since the look before; 0: there was none */
    double server_cpus;            /* busy in the meantime; below 0: unknown */
    struct rshm_top_figure figures[RSHM_TOP_FIGURES_MAX]; /* SHM.STATS, as it comes */
    size_t figure_count;
    struct rshm_top_session *sessions;
    size_t session_count;
};

/* Asks the server. before: the last look, or NULL. 0, or -errno after filling in why; then *look is empty. */
int rshm_top_look(struct redisContext *c, int64_t server_pid, const struct rshm_top_look *before, struct rshm_top_look *look, char *why,
                  size_t why_bytes);
/* Also on one that is all zero. */
void rshm_top_forget(struct rshm_top_look *look);

enum rshm_top_order { RSHM_TOP_BY_REQUESTS, RSHM_TOP_BY_BYTES, RSHM_TOP_BY_ID };
void rshm_top_sort(struct rshm_top_look *look, enum rshm_top_order order);

/* Asks CLIENT LIST for the first `count` sessions. A server that does not tell leaves them undescribed: 0 then too; -errno with why if
 * the connection is lost. */
int rshm_top_describe(struct redisContext *c, struct rshm_top_look *look, size_t count, char *why, size_t why_bytes);

/* A figure of SHM.STATS; NULL: the server has none of that name. */
const struct rshm_top_figure *rshm_top_figure(const struct rshm_top_look *look, const char *name);

/* The table, at most `lines` lines (0: all) of at most `columns` characters (0: any). bold: for a terminal. */
void rshm_top_print(const struct rshm_top_look *look, const char *where, const char *version, int lines, int columns, bool bold, FILE *to);
void rshm_top_json(const struct rshm_top_look *look, const char *where, const char *version, FILE *to);

#endif
