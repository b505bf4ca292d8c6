/* worker.c - a client that writes and keeps a journal, until it is killed: for tests/crash/crash.py and soak.py.
 *
 *   worker SOCKET|PORT shm|plain ID JOURNAL FIRST
 *
 * Sends "APPEND log:ID N," for N = FIRST, FIRST + 1, ... and each time "INCR count:ID". The journal has a line "s N" before N is sent and "a N" once
 * both were acknowledged; "e MS" when the end of a connection was noticed (CLOCK_MONOTONIC). After an end it connects again and goes on with
 * the next N: what was sent and not acknowledged may or may not be there. SIGTERM ends it with 0; a wrong answer with 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <hiredis.h>
#include <hiredis_shm.h>

static volatile sig_atomic_t stop;
static int journal;

static void on_term(int signal)
{
    (void)signal;
    stop = 1;
}

static unsigned long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000;
}

static void note(char what, unsigned long long n)
{
    char line[32];
    int len = snprintf(line, sizeof line, "%c %llu\n", what, n);
    if (write(journal, line, (size_t)len) != len)
        exit(1);
}

static redisContext *connect_to(const char *where, int shm)
{
    redisContext *c = strchr(where, '/') != NULL ? redisConnectUnix(where) : redisConnect("127.0.0.1", atoi(where));
    if (c == NULL || c->err != 0) {
        redisFree(c);
        return NULL;
    }
    redisSetTimeout(c, (struct timeval){20, 0});
    if (shm) {
        redisReply *r = redisUseSharedMemory(c);
        const int ok = r != NULL && r->type == REDIS_REPLY_INTEGER && r->integer == 1;
        freeReplyObject(r);
        if (!ok) { /* still loading, or it has ended again */
            redisFree(c);
            return NULL;
        }
    }
    return c;
}

/* Returns 1 (acknowledged), 0 (the connection has ended, or a server that is loading: not done). */
static int acknowledged(redisContext *c, redisReply *r)
{
    int ok = r != NULL && r->type == REDIS_REPLY_INTEGER;
    if (r != NULL && !ok && strncmp(r->str, "LOADING", 7) != 0) {
        fprintf(stderr, "worker: unexpected reply: %s\n", r->str);
        exit(1);
    }
    if (r == NULL && c->err != REDIS_ERR_EOF && c->err != REDIS_ERR_IO) {
        fprintf(stderr, "worker: error %d: %s\n", c->err, c->errstr);
        exit(1);
    }
    freeReplyObject(r);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: worker SOCKET|PORT shm|plain ID JOURNAL FIRST\n");
        return 2;
    }
    const char *where = argv[1], *id = argv[3];
    const int shm = strcmp(argv[2], "shm") == 0;
    unsigned long long n = strtoull(argv[5], NULL, 10);
    redisContext *c = NULL;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_term);
    journal = open(argv[4], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) {
        fprintf(stderr, "worker: %s: %s\n", argv[4], strerror(errno));
        return 1;
    }
    while (!stop) {
        if (c == NULL && (c = connect_to(where, shm)) == NULL) {
            nanosleep(&(struct timespec){0, 2000000}, NULL);
            continue;
        }
        note('s', n);
        const int appended = acknowledged(c, redisCommand(c, "APPEND log:%s %llu,", id, n));
        if (appended && acknowledged(c, redisCommand(c, "INCR count:%s", id)))
            note('a', n);
        if (c->err != 0) {
            note('e', now_ms());
            redisFree(c);
            c = NULL;
        }
        n++;
    }
    redisFree(c);
    return 0;
}
