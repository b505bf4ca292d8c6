/* harness.c - see harness.h. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS 10000
#define LOST_MS 5000
#define ARGS_MAX 48

struct server shared;
struct transport transports[2] = {{"TCP", false}, {"a Unix socket", true}};

uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void sleep_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* ---- the server ---- */

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s >= 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&a, &n), 0);
    close(s);
    return ntohs(a.sin_port);
}

static void print_log(const struct server *s)
{
    char path[128], line[512];
    snprintf(path, sizeof path, "%s/log", s->dir);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        fprintf(stderr, "server: %s", line);
    if (f != NULL)
        fclose(f);
}

void server_start(struct server *s, bool module, const char *const *args)
{
    const char *program = getenv("REDIS_SERVER"), *build = getenv("RSHM_BUILD");
    char port[16], log[128], module_path[4096];
    const char *argv[ARGS_MAX] = {program != NULL ? program : "redis-server"};
    int argc = 1;

    memset(s, 0, sizeof *s);
    snprintf(s->dir, sizeof s->dir, "%s/rshm-test-XXXXXX", getenv("TMPDIR") != NULL && strlen(getenv("TMPDIR")) < 32 ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(s->dir));
    s->port = free_port();
    snprintf(s->path, sizeof s->path, "%s/s", s->dir);
    snprintf(port, sizeof port, "%d", s->port);
    snprintf(log, sizeof log, "%s/log", s->dir);
    snprintf(module_path, sizeof module_path, "%s/module-shm.so", build != NULL ? build : RSHM_BUILD_DEFAULT);
    char *absolute = realpath(module_path, NULL);
    if (module && absolute == NULL)
        fail_msg("%s: %s", module_path, strerror(errno));
    const char *const fixed[] = {"--port", port, "--bind", "127.0.0.1", "--unixsocket", s->path, "--dir", s->dir, "--logfile", log,
                                 "--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0"};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        argv[argc++] = fixed[i];
    while (args != NULL && *args != NULL && argc < ARGS_MAX - 3)
        argv[argc++] = *args++;
    if (module) {
        argv[argc++] = "--loadmodule";
        argv[argc++] = absolute;
    }
    pid_t parent = getpid();
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        if (getenv("RSHM_SERVER_PRELOAD") != NULL)
            setenv("LD_PRELOAD", getenv("RSHM_SERVER_PRELOAD"), 1);
        execvp(argv[0], (char *const *)argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    free(absolute);
    for (uint64_t end = now_ms() + START_MS; now_ms() < end; sleep_ms(5)) {
        redisContext *c = redisConnectUnix(s->path);
        redisReply *r = c != NULL && c->err == 0 ? redisCommand(c, "PING") : NULL;
        bool up = r != NULL && r->type == REDIS_REPLY_STATUS;
        freeReplyObject(r);
        redisFree(c);
        if (up)
            return;
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
            break;
    }
    print_log(s);
    fail_msg("%s did not start", argv[0]);
}

void server_stop(struct server *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
    DIR *d = opendir(s->dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL)
        closedir(d);
    rmdir(s->dir);
}

int group_setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN); /* as every program that uses hiredis does: it writes without MSG_NOSIGNAL */
    server_start(&shared, true, NULL);
    return 0;
}

int group_teardown(void **state)
{
    (void)state;
    server_stop(&shared);
    return 0;
}

/* ---- connections ---- */

static redisContext *checked(redisContext *c)
{
    assert_non_null(c);
    if (c->err != 0)
        fail_msg("connect: %s", c->errstr);
    return c;
}

redisContext *connect_plain(const struct transport *t, const struct server *s)
{
    return checked(t->unix_socket ? redisConnectUnix(s->path) : redisConnect("127.0.0.1", s->port));
}

redisContext *connect_nonblocking(const struct transport *t, const struct server *s)
{
    return checked(t->unix_socket ? redisConnectUnixNonBlock(s->path) : redisConnectNonBlock("127.0.0.1", s->port));
}

redisContext *connect_shm(const struct transport *t, const struct server *s)
{
    redisContext *c = connect_plain(t, s);
    reply_is_integer(redisUseSharedMemory(c), 1);
    assert_true(redisIsSharedMemoryInitialized(c));
    return c;
}

/* ---- replies ---- */

static void show(const redisReply *r)
{
    if (r == NULL)
        print_error("no reply\n");
    else
        print_error("reply of type %d: %.*s\n", r->type, r->str != NULL ? (int)(r->len < 200 ? r->len : 200) : 0, r->str != NULL ? r->str : "");
}

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            show(r); \
            fail_msg("expected %s", #condition); \
        } \
    } while (0)

void reply_is_status(redisReply *r, const char *status)
{
    EXPECT(r != NULL && r->type == REDIS_REPLY_STATUS && strcmp(r->str, status) == 0);
    freeReplyObject(r);
}

void reply_is_integer(redisReply *r, long long value)
{
    EXPECT(r != NULL && r->type == REDIS_REPLY_INTEGER && r->integer == value);
    freeReplyObject(r);
}

void reply_is_string(redisReply *r, const char *bytes, size_t n)
{
    EXPECT(r != NULL && r->type == REDIS_REPLY_STRING && r->len == n && memcmp(r->str, bytes, n) == 0);
    freeReplyObject(r);
}

void reply_is_error(redisReply *r, const char *part)
{
    EXPECT(r != NULL && r->type == REDIS_REPLY_ERROR && strstr(r->str, part) != NULL);
    freeReplyObject(r);
}

long long shm_stat(const struct server *s, const char *name)
{
    long long value = -1;
    redisContext *c = connect_plain(&transports[1], s);
    redisReply *r = redisCommand(c, "SHM.STATS");
    assert_non_null(r);
    for (size_t i = 0; i + 1 < r->elements; i += 2)
        if (strcmp(r->element[i]->str, name) == 0)
            value = r->element[i + 1]->integer;
    freeReplyObject(r);
    redisFree(c);
    assert_true(value >= 0);
    return value;
}

void await_stat(const struct server *s, const char *name, long long value)
{
    for (uint64_t end = now_ms() + 1000; now_ms() < end && shm_stat(s, name) != value; sleep_ms(2))
        ;
    assert_int_equal(shm_stat(s, name), value);
}

/* ---- waiting as an event loop does ---- */

bool wait_poll(int fd, bool write_too)
{
    struct pollfd p = {fd, (short)(POLLIN | (write_too ? POLLOUT : 0)), 0};
    if (poll(&p, 1, LOST_MS) == 0)
        fail_msg("poll: a wake-up was lost");
    return (p.revents & ~POLLOUT) != 0;
}

bool wait_select(int fd, bool write_too)
{
    fd_set in, out;
    struct timeval tv = {LOST_MS / 1000, 0};
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    if (select(fd + 1, &in, write_too ? &out : NULL, NULL, &tv) == 0)
        fail_msg("select: a wake-up was lost");
    return FD_ISSET(fd, &in);
}

bool wait_epoll(int fd, bool write_too)
{
    struct epoll_event ev = {.events = EPOLLIN | (write_too ? EPOLLOUT : 0u)};
    int ep = epoll_create1(EPOLL_CLOEXEC);
    assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
    int n = epoll_wait(ep, &ev, 1, LOST_MS);
    close(ep);
    if (n == 0)
        fail_msg("epoll: a wake-up was lost");
    return (ev.events & ~(unsigned)EPOLLOUT) != 0;
}

redisReply *await_reply(redisContext *c, wait_fn *wait)
{
    for (;;) {
        void *reply = NULL;
        int done = 0;
        if (redisGetReply(c, &reply) != REDIS_OK)
            return NULL;
        if (reply != NULL)
            return reply;
        if (redisBufferWrite(c, &done) != REDIS_OK)
            return NULL;
        if (wait(c->fd, !done) && redisBufferRead(c) != REDIS_OK)
            return NULL;
    }
}

/* ---- someone else ---- */

struct later {
    pthread_t thread;
    const struct server *server; /* NULL: the signal */
    char command[256];
    pid_t pid;
    int signal, ms;
    uint64_t acted_at;
};

/* No assertions here: cmocka's belong to the main thread. */
static void *act(void *arg)
{
    struct later *l = arg;
    redisContext *c = l->server != NULL ? redisConnectUnix(l->server->path) : NULL;
    sleep_ms(l->ms);
    l->acted_at = now_ms();
    if (l->server == NULL)
        kill(l->pid, l->signal);
    else if (c != NULL && c->err == 0)
        freeReplyObject(redisCommand(c, l->command));
    redisFree(c);
    return NULL;
}

static struct later *begin(struct later l)
{
    struct later *copy = malloc(sizeof *copy);
    sigset_t all, before;
    assert_non_null(copy);
    *copy = l;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    assert_int_equal(pthread_create(&copy->thread, NULL, act, copy), 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return copy;
}

struct later *later_command(const struct server *s, int ms, const char *format, ...)
{
    struct later l = {.server = s, .ms = ms};
    va_list ap;
    va_start(ap, format);
    vsnprintf(l.command, sizeof l.command, format, ap);
    va_end(ap);
    return begin(l);
}

struct later *later_signal(pid_t pid, int signal, int ms)
{
    return begin((struct later){.pid = pid, .signal = signal, .ms = ms});
}

uint64_t later_done(struct later *l)
{
    pthread_join(l->thread, NULL);
    uint64_t at = l->acted_at;
    free(l);
    return at;
}

/* ---- what a process holds ---- */

int count_fds(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2 - (pid == getpid() ? 1 : 0); /* . and .., and the directory itself */
}

int count_mappings(pid_t pid, const char *containing)
{
    char path[64], line[1024];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        n += strstr(line, containing) != NULL;
    fclose(f);
    return n;
}

/* ---- running ---- */

static int after_each(void **state)
{
    (void)state;
    if (shared.pid > 0)
        kill(shared.pid, SIGCONT); /* a test that failed may have left it stopped */
    return 0;
}

int run_group_over_both(const struct named_test *tests, size_t n, CMFixtureFunction setup, CMFixtureFunction teardown)
{
    struct CMUnitTest *all = calloc(2 * n, sizeof *all);
    char(*names)[160] = calloc(2 * n, sizeof *names);
    if (all == NULL || names == NULL)
        return 1;
    size_t count = 0;
    for (size_t k = 0; k < 2 * n; k++) {
        const size_t i = count;
        struct transport *t = &transports[k % 2];
        if (tests[k / 2].only != NULL && tests[k / 2].only != t)
            continue;
        count++;
        snprintf(names[i], sizeof names[i], "%s over %s", tests[k / 2].name, t->name);
        for (char *p = names[i]; *p != '\0'; p++)
            if (*p == '_')
                *p = ' ';
        all[i] = (struct CMUnitTest){names[i], tests[k / 2].run, NULL, after_each, t};
    }
    int failed = _cmocka_run_group_tests("client", all, count, setup, teardown);
    free(all);
    free(names);
    return failed;
}

int run_over_both(const struct named_test *tests, size_t n)
{
    return run_group_over_both(tests, n, group_setup, group_teardown);
}
