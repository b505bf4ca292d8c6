/* doctor.h - what the files of redis-shm doctor share: findings, and what is known of the server so far. */
#ifndef RSHM_DOCTOR_H
#define RSHM_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/endpoint.h"

enum rshm_level { RSHM_FINE, RSHM_NOTE, RSHM_PROBLEM };

struct rshm_finding {
    enum rshm_level level;
    char check[16];
    char what[384];
    char todo[384]; /* empty if it is fine */
};

#define RSHM_FINDINGS_MAX 48
struct rshm_doctor {
    struct rshm_endpoint endpoint;
    FILE *live; /* findings are printed here as they come; NULL: later */
    bool colours;
    struct rshm_finding findings[RSHM_FINDINGS_MAX];
    size_t count;
    /* what the checks learn for those after them */
    struct redisContext *c; /* a plain connection; NULL: none */
    char where[256], server_version[64];
    int64_t server_pid;     /* 0: not seen from here */
    bool works;             /* the trial session did */
};

/* what: one sentence; todo: what to do about it, NULL if it is fine. */
__attribute__((format(printf, 5, 6))) void rshm_doctor_find(struct rshm_doctor *d, enum rshm_level level, const char *check, const char *todo,
                                                            const char *what, ...);

/* doctor_server.c: connects, and asks. False: the server cannot be asked. */
bool rshm_doctor_reach(struct rshm_doctor *d);
void rshm_doctor_module(struct rshm_doctor *d);
/* doctor_host.c: this machine; the server's process, if it is seen from here. */
void rshm_doctor_place(struct rshm_doctor *d);
void rshm_doctor_host(struct rshm_doctor *d);
/* doctor_trial.c: a session, and how fast it is beside a socket. */
void rshm_doctor_trial(struct rshm_doctor *d);

#endif
