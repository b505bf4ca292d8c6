/* app.c - a libvalkey program over shared memory. Usage: app PATH PORT. Exits with 0 if all of it worked, else with the line that did not. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <valkey/async.h>
#include <valkey/valkey.h>
#include <valkey_shm.h>

#define MUST(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "line %d: %s\n", __LINE__, #what); \
            exit(1); \
        } \
    } while (0)

static int is_one(valkeyReply *r)
{
    if (r != NULL && r->type == VALKEY_REPLY_ERROR)
        fprintf(stderr, "%s\n", r->str);
    int one = r != NULL && r->type == VALKEY_REPLY_INTEGER && r->integer == 1;
    freeReplyObject(r);
    return one;
}

static int echoes(valkeyContext *c, size_t n)
{
    char *value = malloc(n + 1);
    memset(value, 'v', n);
    valkeyReply *r = valkeyCommand(c, "ECHO %b", value, n);
    int same = r != NULL && r->type == VALKEY_REPLY_STRING && r->len == n && memcmp(r->str, value, n) == 0;
    freeReplyObject(r);
    free(value);
    return same;
}

static void synchronous(valkeyContext *c)
{
    static const size_t sizes[] = {0, 1, 20, 200, 250, 300, 60000, 70000, 300000, 3000000}; /* every width of an sds length */
    MUST(c != NULL && c->err == 0 && !valkeyIsSharedMemoryInitialized(c));
    MUST(is_one(valkeyUseSharedMemory(c)) && valkeyIsSharedMemoryInitialized(c));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        MUST(echoes(c, sizes[i]));
    MUST(valkeySetSharedMemoryWaiting(c, VALKEY_SHM_WAIT_BLOCK) == VALKEY_OK && echoes(c, 10));
    for (int i = 0; i < 1000; i++)
        MUST(valkeyAppendCommand(c, "INCR counter") == VALKEY_OK);
    for (int i = 0; i < 1000; i++) {
        void *r;
        MUST(valkeyGetReply(c, &r) == VALKEY_OK);
        freeReplyObject(r);
    }
    valkeyReply *again = valkeyUseSharedMemory(c);
    MUST(again != NULL && again->type == VALKEY_REPLY_ERROR);
    freeReplyObject(again);

    struct timeval soon = {0, 100000};
    MUST(valkeySetTimeout(c, soon) == VALKEY_OK); /* goes through the table of functions */
    MUST(valkeyCommand(c, "BLPOP nothing 0") == NULL && c->err == VALKEY_ERR_IO);
    MUST(valkeyReconnect(c) == VALKEY_OK && !valkeyIsSharedMemoryInitialized(c) && echoes(c, 10));
    MUST(is_one(valkeyUseSharedMemory(c)) && echoes(c, 100000));
    valkeyFree(c);
}

/* The smallest loop: always interested in both. */
static int replies, opened, ended;
static void nothing(void *privdata) { (void)privdata; }

static void on_open(valkeyAsyncContext *ac, void *r, void *privdata)
{
    (void)ac, (void)privdata;
    valkeyReply *reply = r;
    opened = reply != NULL && reply->type == VALKEY_REPLY_INTEGER && reply->integer == 1;
}

static void on_pong(valkeyAsyncContext *ac, void *r, void *privdata)
{
    (void)privdata;
    MUST(r != NULL);
    if (++replies == 1000)
        valkeyAsyncDisconnect(ac);
    else
        valkeyAsyncCommand(ac, on_pong, NULL, "PING");
}

static void on_end(const valkeyAsyncContext *ac, int status)
{
    (void)ac;
    MUST(status == VALKEY_OK);
    ended = 1;
}

static void asynchronous(const char *path, int spin_us)
{
    replies = opened = ended = 0;
    valkeyAsyncContext *ac = valkeyAsyncConnectUnix(path);
    MUST(ac != NULL && ac->err == 0);
    ac->ev.addRead = ac->ev.delRead = ac->ev.addWrite = ac->ev.delWrite = ac->ev.cleanup = nothing;
    valkeyAsyncSetDisconnectCallback(ac, on_end);
    MUST(valkeyAsyncUseSharedMemory(ac, on_open, NULL) == VALKEY_OK);
    MUST(valkeyAsyncCommand(ac, on_pong, NULL, "PING") == VALKEY_OK);
    valkeyAsyncHandleWrite(ac);
    while (!ended) {
        int more = valkeyAsyncSharedMemorySpin(ac, spin_us);
        if (ended)
            break;
        struct pollfd p = {ac->c.fd, POLLIN, 0};
        MUST(poll(&p, 1, more ? 0 : 5000) >= 0);
        if (p.revents != 0)
            valkeyAsyncHandleRead(ac);
        if (!ended)
            valkeyAsyncHandleWrite(ac);
    }
    MUST(opened && replies == 1000);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    synchronous(valkeyConnectUnix(argv[1]));
    synchronous(valkeyConnect("127.0.0.1", atoi(argv[2])));
    asynchronous(argv[1], 0);
    asynchronous(argv[1], 50);
    puts("libvalkey over shared memory");
    return 0;
}
