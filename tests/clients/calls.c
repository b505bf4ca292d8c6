/* calls.c - a Redis client made of the calls that programs use, one test a run: calls PATH TEST. Exit 0: right.
 *
 * Run under `redis-shm run --require`, and without it: what it expects is what a socket does. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIG 3000000

static const char *path;

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "line %d: %s (errno %d: %s)\n", __LINE__, #what, errno, strerror(errno)); \
            exit(1); \
        } \
    } while (0)

static int open_connection(int flags)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | flags, 0);
    strcpy(a.sun_path, path);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

static void put(int fd, const char *text)
{
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* Non-blocking: until it is all out. */
static void put_all(int fd, const char *text)
{
    size_t n = strlen(text), done = 0;
    while (done < n) {
        ssize_t w = write(fd, text + done, n - done);
        if (w < 0) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            CHECK(errno == EAGAIN && poll(&p, 1, 10000) == 1);
        } else {
            done += (size_t)w;
        }
    }
}

static void expect(int fd, const char *text)
{
    char buf[1024];
    size_t n = strlen(text), done = 0;
    while (done < n) {
        ssize_t r = read(fd, buf + done, n - done);
        CHECK(r > 0);
        done += (size_t)r;
    }
    buf[n] = '\0';
    if (strcmp(buf, text) != 0) {
        fprintf(stderr, "expected %s, got %s\n", text, buf);
        exit(1);
    }
}

static void ping(int fd)
{
    put(fd, "PING\r\n");
    expect(fd, "+PONG\r\n");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r = poll(&p, 1, ms);
    CHECK(r >= 0);
    return r == 1 && (p.revents & POLLIN);
}

/* ---- reading and writing ---- */

static void test_flags(void)
{
    char buf[64];
    int fd = open_connection(0), n;
    CHECK(recv(fd, buf, sizeof buf, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    CHECK(send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 && recv(fd, buf, 3, MSG_PEEK) == 3 && memcmp(buf, "+PO", 3) == 0);
    CHECK(ioctl(fd, FIONREAD, &n) == 0 && n == 7);
    CHECK(recv(fd, buf, 7, MSG_WAITALL) == 7 && memcmp(buf, "+PONG\r\n", 7) == 0);
    put(fd, "PI");
    put(fd, "NG\r\nPI");
    put(fd, "NG\r\n");
    CHECK(recv(fd, buf, 14, MSG_WAITALL) == 14 && memcmp(buf, "+PONG\r\n+PONG\r\n", 14) == 0);
    CHECK(ioctl(fd, FIONREAD, &n) == 0 && n == 0);
    CHECK(recv(fd, buf, sizeof buf, MSG_DONTWAIT | MSG_PEEK) == -1 && errno == EAGAIN);
    CHECK(read(fd, buf, 0) == 0);
    CHECK(send(fd, "PING\r\n", 6, MSG_MORE) == 6);
    struct sockaddr_un from;
    socklen_t from_bytes = sizeof from;
    CHECK(recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &from_bytes) == 7);
    CHECK(sendto(fd, "PING\r\n", 6, 0, NULL, 0) == 6);
    expect(fd, "+PONG\r\n");
}

static void test_vectors(void)
{
    char a[3], b[4], c[10];
    int fd = open_connection(0);
    struct iovec out[3] = {{"PI", 2}, {"NG", 2}, {"\r\n", 2}}, in[3] = {{a, 3}, {b, 4}, {c, 10}};
    CHECK(writev(fd, out, 3) == 6 && readable(fd, 5000) && readv(fd, in, 3) == 7 && memcmp(a, "+PO", 3) == 0 && memcmp(b, "NG\r\n", 4) == 0);
    char control[64];
    struct msghdr m = {.msg_iov = out, .msg_iovlen = 3}, r = {.msg_iov = in, .msg_iovlen = 3, .msg_control = control, .msg_controllen = 64};
    CHECK(sendmsg(fd, &m, 0) == 6 && recvmsg(fd, &r, 0) == 7 && memcmp(b, "NG\r\n", 4) == 0 && r.msg_controllen == 0 && r.msg_flags == 0);
    struct mmsghdr two[2] = {{.msg_hdr = m}, {.msg_hdr = m}};
    CHECK(sendmmsg(fd, two, 2, 0) == 2 && two[1].msg_len == 6);
    expect(fd, "+PONG\r\n+PONG\r\n");
}

/* More than the ring holds, in one call. */
static void test_big(void)
{
    int fd = open_connection(0);
    char head[64], *value = malloc(BIG + 64), *back = malloc(BIG + 64);
    for (int i = 0; i < BIG; i++)
        value[i] = (char)(i * 7 + i / 1000);
    int n = sprintf(head, "*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n", BIG);
    struct iovec all[3] = {{head, (size_t)n}, {value, BIG}, {"\r\n", 2}};
    CHECK(writev(fd, all, 3) == n + BIG + 2);
    expect(fd, "+OK\r\n");
    put(fd, "GET big\r\n");
    n = sprintf(head, "$%d\r\n", BIG);
    CHECK(recv(fd, back, (size_t)n + BIG + 2, MSG_WAITALL) == n + BIG + 2);
    CHECK(memcmp(back, head, (size_t)n) == 0 && memcmp(back + n, value, BIG) == 0);
    free(value);
    free(back);
}

/* A writer that does not block fills the ring, and is told when there is room. */
static void test_full(void)
{
    enum { COMMANDS = 40000 };
    int fd = open_connection(SOCK_NONBLOCK), sent = 0, got = 0;
    char buf[65536];
    bool was_full = false;
    put_all(fd, "EVAL \"local a=redis.call('TIME') local e=a[1]*1000000+a[2]+200000 repeat local b=redis.call('TIME') "
                "until b[1]*1000000+b[2]>e return 1\" 0\r\n"); /* nothing is read meanwhile */
    while (got < COMMANDS * 7 + 4) {
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (sent < COMMANDS * 6 ? POLLOUT : 0))};
        CHECK(poll(&p, 1, 10000) == 1);
        while (sent < COMMANDS * 6) {
            int n = COMMANDS * 6 - sent < 600 ? COMMANDS * 6 - sent : 600;
            char pings[1200];
            for (int i = 0; i < 200; i++)
                memcpy(pings + 6 * i, "PING\r\n", 6);
            ssize_t w = write(fd, pings + sent % 6, (size_t)n);
            if (w < 0) {
                CHECK(errno == EAGAIN);
                was_full = true;
                break;
            }
            sent += (int)w;
        }
        ssize_t r = read(fd, buf, sizeof buf);
        CHECK(r > 0 || (r == -1 && errno == EAGAIN));
        got += r > 0 ? (int)r : 0;
    }
    CHECK(was_full && got == COMMANDS * 7 + 4);
}

static void test_timeouts(void)
{
    char c;
    struct timeval t = {0, 200000};
    int fd = open_connection(0);
    ping(fd);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0);
    double begin = seconds();
    CHECK(read(fd, &c, 1) == -1 && errno == EAGAIN);
    CHECK(seconds() - begin > 0.15 && seconds() - begin < 10);
    ping(fd);
    begin = seconds();
    CHECK(!readable(fd, 200) && seconds() - begin > 0.15);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    t = (struct timeval){0, 200000};
    CHECK(select(fd + 1, &set, NULL, NULL, &t) == 0 && !FD_ISSET(fd, &set) && t.tv_sec == 0 && t.tv_usec == 0);
    ping(fd);
}

/* ---- waiting ---- */

static void test_select_and_blocking_reads(void)
{
    int fd = open_connection(0), pipes[2];
    CHECK(pipe(pipes) == 0);
    for (int i = 0; i < 300; i++) {
        fd_set in, out;
        FD_ZERO(&in);
        FD_ZERO(&out);
        FD_SET(fd, &out);
        CHECK(select(fd + 1, NULL, &out, NULL, NULL) == 1 && FD_ISSET(fd, &out));
        put(fd, "PING\r\n");
        if (i % 3 == 0) {
            FD_SET(fd, &in);
            FD_SET(pipes[0], &in);
            CHECK(select(FD_SETSIZE, &in, NULL, NULL, NULL) == 1 && FD_ISSET(fd, &in) && !FD_ISSET(pipes[0], &in));
        } else if (i % 3 == 1) {
            struct pollfd p[2] = {{.fd = pipes[0], .events = POLLIN}, {.fd = fd, .events = POLLIN | POLLRDNORM}};
            struct timespec t = {5, 0};
            CHECK(ppoll(p, 2, &t, NULL) == 1 && p[0].revents == 0 && p[1].revents == (POLLIN | POLLRDNORM));
        }
        expect(fd, "+PONG\r\n");
        if (i % 50 == 0)
            usleep(20000); /* the server falls asleep */
    }
    CHECK(write(pipes[1], "x", 1) == 1);
    struct pollfd p[2] = {{.fd = pipes[0], .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    CHECK(poll(p, 2, 5000) == 1 && p[0].revents == POLLIN && p[1].revents == 0);
}

static int wait_one(int ep, struct epoll_event *ev, int ms)
{
    int n = epoll_wait(ep, ev, 1, ms);
    CHECK(n >= 0);
    return n;
}

static void test_epoll(void)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdef};
    int fd = open_connection(SOCK_NONBLOCK), ep = epoll_create1(0);
    char buf[64];
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == -1 && errno == ENOENT);
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == -1 && errno == EEXIST);
    for (int i = 0; i < 200; i++) { /* level-triggered */
        put_all(fd, "PING\r\n");
        ev.data.u64 = 0;
        CHECK(wait_one(ep, &ev, 5000) == 1 && ev.events == EPOLLIN && ev.data.u64 == 0x1234567890abcdef);
        CHECK(read(fd, buf, 3) == 3 && wait_one(ep, &ev, 5000) == 1 && read(fd, buf, 64) == 4);
        CHECK(read(fd, buf, 64) == -1 && errno == EAGAIN);
        CHECK(wait_one(ep, &ev, i % 40 == 0 ? 20 : 0) == 0);
    }
    ev = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = 7};
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0);
    CHECK(wait_one(ep, &ev, 5000) == 1 && ev.events == EPOLLOUT && ev.data.u64 == 7);
    CHECK(wait_one(ep, &ev, 20) == 0);
    ev = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.u64 = 7};
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0);
    for (int i = 0; i < 200; i++) { /* edge-triggered: once for what has come, read to its end */
        put_all(fd, "PING\r\n");
        CHECK(wait_one(ep, &ev, 5000) == 1 && (ev.events & EPOLLIN));
        CHECK(wait_one(ep, &ev, i % 40 == 0 ? 20 : 0) == 0);
        while (read(fd, buf, 4) > 0)
            ;
        CHECK(errno == EAGAIN && wait_one(ep, &ev, 0) == 0);
    }
    ev = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 8};
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0);
    for (int i = 0; i < 50; i++) { /* once */
        put_all(fd, "PING\r\n");
        CHECK(wait_one(ep, &ev, 5000) == 1 && ev.data.u64 == 8 && wait_one(ep, &ev, i % 10 == 0 ? 20 : 0) == 0);
        ev = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 8};
        CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0 && wait_one(ep, &ev, 0) == 1);
        CHECK(read(fd, buf, 64) == 7);
        ev = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 8};
        CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0 && wait_one(ep, &ev, 0) == 0);
    }
    CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL) == 0 && epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL) == -1 && errno == ENOENT);
    put_all(fd, "PING\r\n");
    CHECK(wait_one(ep, &ev, 20) == 0 && readable(fd, 5000));
}

/* Registered before it was connected, as Java's Netty does. */
static void test_registered_early(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 5};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
    strcpy(a.sun_path, path);
    ev.events = EPOLLOUT | EPOLLONESHOT;
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    ev = (struct epoll_event){.events = EPOLLIN, .data.u64 = 6};
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0);
    put_all(fd, "PING\r\n");
    CHECK(wait_one(ep, &ev, 5000) == 1 && ev.events == EPOLLIN && ev.data.u64 == 6);
    expect(fd, "+PONG\r\n");
}

/* Waiting where nobody intercepts it: system calls made directly, and an epoll instance inside another. */
static void test_waits_elsewhere(void)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 1};
    int fd = open_connection(SOCK_NONBLOCK), inner = epoll_create1(0), outer = epoll_create1(0);
    char buf[64];
    for (int i = 0; i < 300; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct timespec t = {5, 0};
        put_all(fd, "PING\r\n");
        while (read(fd, buf, 64) != 7) {
            CHECK(errno == EAGAIN);
            CHECK(syscall(SYS_ppoll, &p, 1, &t, NULL, 8) == 1);
        }
    }
    CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, fd, &ev) == 0 && epoll_ctl(outer, EPOLL_CTL_ADD, inner, &ev) == 0);
    for (int i = 0; i < 300; i++) {
        put_all(fd, "PING\r\n");
        for (;;) {
            CHECK(wait_one(outer, &ev, 5000) == 1);
            if (wait_one(inner, &ev, 0) == 1)
                break;
        }
        CHECK(read(fd, buf, 64) == 7);
    }
    put_all(fd, "PING\r\n");
    CHECK(readable(inner, 5000));
}

/* ---- descriptors ---- */

static void test_dup(void)
{
    int fd = open_connection(0), other = dup(fd), third = fcntl(fd, F_DUPFD_CLOEXEC, 100), fourth = dup2(fd, 200);
    CHECK(other >= 0 && third >= 100 && fourth == 200);
    ping(fd);
    ping(other);
    close(fd);
    ping(third);
    put(other, "PING\r\n");
    CHECK(readable(fourth, 5000));
    expect(fourth, "+PONG\r\n");
    CHECK(fcntl(other, F_SETFL, O_NONBLOCK) == 0);
    char c;
    CHECK(read(third, &c, 1) == -1 && errno == EAGAIN); /* of the socket, not of the descriptor */
    CHECK(fcntl(third, F_SETFL, 0) == 0);
    close(other);
    close(third);
    int plain = open("/dev/null", O_RDWR);
    CHECK(dup2(plain, 150) == 150 && dup3(200, 150, O_CLOEXEC) == 150);
    ping(150);
    CHECK(dup2(plain, 200) == 200 && write(200, "x", 1) == 1 && read(200, &c, 1) == 0);
    ping(150);
    close(150);
    CHECK(write(150, "x", 1) == -1 && errno == EBADF);
}

/* Parent and child use the connection in turn, as they could a socket. */
static void test_fork(void)
{
    int fd = open_connection(0), turn[2], status;
    CHECK(pipe(turn) == 0);
    ping(fd);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 50; i++)
            ping(fd);
        put(fd, "PING\r\n"); /* the reply is the parent's */
        CHECK(write(turn[1], "x", 1) == 1);
        close(fd);
        exit(0);
    }
    char c;
    CHECK(read(turn[0], &c, 1) == 1);
    expect(fd, "+PONG\r\n");
    for (int i = 0; i < 50; i++)
        ping(fd);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    ping(fd);
    if (fork() == 0) { /* a daemon: the parent goes, the child stays */
        usleep(100000);
        ping(fd);
        put(fd, "SET daemon done\r\n");
        expect(fd, "+OK\r\n");
        exit(0);
    }
    exit(0);
}

/* A server that forks workers, each with connections of its own, and closes what it inherited. */
static void test_prefork(void)
{
    int fd = open_connection(0), status;
    ping(fd);
    for (int i = 0; i < 4; i++) {
        if (fork() == 0) {
            close(fd);
            int mine = open_connection(0);
            for (int k = 0; k < 200; k++)
                ping(mine);
            exit(0);
        }
    }
    for (int k = 0; k < 200; k++)
        ping(fd);
    for (int i = 0; i < 4; i++)
        CHECK(wait(&status) > 0 && status == 0);
    ping(fd);
}

static void test_vfork_and_exec(void)
{
    int fd = open_connection(SOCK_CLOEXEC), status;
    ping(fd);
    pid_t pid = vfork();
    if (pid == 0) {
        close(fd); /* the child's own: the parent, whose memory this is, keeps it */
        execl("/bin/true", "true", (char *)NULL);
        _exit(9);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    ping(fd);
    CHECK(system("exit 3") == 3 << 8);
    ping(fd);
}

static void test_shutdown(void)
{
    char c;
    int fd = open_connection(0);
    put(fd, "PING\r\n");
    expect(fd, "+PONG\r\n");
    CHECK(shutdown(fd, SHUT_WR) == 0);
    CHECK(read(fd, &c, 1) == 0);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(fd, "x", 1) == -1 && errno == EPIPE);
    fd = open_connection(0);
    put(fd, "QUIT\r\n");
    expect(fd, "+OK\r\n");
    CHECK(read(fd, &c, 1) == 0 && readable(fd, 1000));
}

static void test_what_only_the_kernel_can_do(void)
{
    int fd = open_connection(0), file = open("/proc/self/exe", O_RDONLY), pipes[2];
    CHECK(pipe(pipes) == 0 && write(pipes[1], "PING\r\n", 6) == 6);
    if (getenv("REDIS_SHM_ENDPOINTS") != NULL) {
        CHECK(sendfile(fd, file, NULL, 10) == -1 && errno == EINVAL);
        CHECK(splice(pipes[0], NULL, fd, NULL, 6, 0) == -1 && errno == EINVAL);
    }
    ping(fd);
}

/* ---- signals and threads ---- */

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
}

static void test_signals(void)
{
    char c;
    int fd = open_connection(0);
    struct sigaction sa = {.sa_handler = on_alarm};
    struct itimerval once = {.it_value = {0, 100000}};
    ping(fd);
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &once, NULL);
    CHECK(read(fd, &c, 1) == -1 && errno == EINTR && alarms == 1);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    setitimer(ITIMER_REAL, &once, NULL);
    CHECK(poll(&p, 1, -1) == -1 && errno == EINTR && alarms == 2);
    ping(fd);
    sa.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &sa, NULL);
    put(fd, "BLPOP none 1\r\n");
    setitimer(ITIMER_REAL, &once, NULL);
    expect(fd, "*-1\r\n");
    CHECK(alarms == 3);
    put(fd, "QUIT\r\n");
    expect(fd, "+OK\r\n");
    CHECK(read(fd, &c, 1) == 0);
    sa.sa_handler = on_alarm;
    sigaction(SIGPIPE, &sa, NULL);
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE && alarms == 3);
    CHECK(write(fd, "x", 1) == -1 && errno == EPIPE && alarms == 4);
}

enum { EACH = 200000 };

static void *write_all(void *arg)
{
    static const char pings[] = "PING\r\nPING\r\nPING\r\nPING\r\nPING\r\n";
    for (int i = 0; i < EACH / 5; i++)
        CHECK(write(*(int *)arg, pings, 30) == 30);
    return NULL;
}

/* One thread writes, and is stopped by a full ring, while another reads. */
static void test_two_threads(void)
{
    int fd = open_connection(0);
    char buf[4096];
    long got = 0;
    pthread_t t;
    CHECK(pthread_create(&t, NULL, write_all, &fd) == 0);
    while (got < EACH * 7L) {
        ssize_t r = read(fd, buf, sizeof buf);
        CHECK(r > 0);
        for (ssize_t i = 0; i < r; i++)
            CHECK(buf[i] == "+PONG\r\n"[(got + i) % 7]);
        got += r;
    }
    CHECK(got == EACH * 7L && pthread_join(t, NULL) == 0);
}

static void *register_later(void *arg)
{
    int *fds = arg;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = 77};
    usleep(100000); /* the other is asleep in epoll_wait by then */
    CHECK(epoll_ctl(fds[0], EPOLL_CTL_ADD, fds[1], &ev) == 0);
    usleep(100000);
    put_all(fds[1], "PING\r\n");
    return NULL;
}

/* A thread sleeps in epoll_wait while another registers a connection, and writes on it, as Rust's tokio does. */
static void test_epoll_from_another_thread(void)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 1};
    int ep = epoll_create1(0), first = open_connection(SOCK_NONBLOCK), fds[2] = {ep, open_connection(SOCK_NONBLOCK)};
    char buf[64];
    pthread_t t;
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, first, &ev) == 0 && pthread_create(&t, NULL, register_later, fds) == 0);
    CHECK(wait_one(ep, &ev, 10000) == 1 && ev.data.u64 == 77 && (ev.events & EPOLLOUT));
    while (!(ev.events & EPOLLIN))
        CHECK(wait_one(ep, &ev, 10000) == 1 && ev.data.u64 == 77);
    CHECK(read(fds[1], buf, 64) == 7 && pthread_join(t, NULL) == 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"flags", test_flags}, {"vectors", test_vectors}, {"big", test_big}, {"full", test_full}, {"timeouts", test_timeouts},
    {"select-and-blocking-reads", test_select_and_blocking_reads}, {"epoll", test_epoll}, {"registered-early", test_registered_early},
    {"waits-elsewhere", test_waits_elsewhere}, {"dup", test_dup}, {"fork", test_fork}, {"prefork", test_prefork},
    {"vfork-and-exec", test_vfork_and_exec}, {"shutdown", test_shutdown}, {"only-the-kernel", test_what_only_the_kernel_can_do},
    {"signals", test_signals}, {"two-threads", test_two_threads}, {"epoll-from-another-thread", test_epoll_from_another_thread},
};

int main(int argc, char **argv)
{
    alarm(getenv("CALLS_SECONDS") ? atoi(getenv("CALLS_SECONDS")) : 60);
    path = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (argc == 1)
            puts(tests[i].name);
        else if (argc == 3 && strcmp(argv[2], tests[i].name) == 0) {
            tests[i].run();
            return 0;
        }
    }
    return argc == 1 ? 0 : 2;
}
