/* server.c - see server.h. */
#include "tools/server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hiredis.h>

#include "channel/clock.h"
#include "tools/stop.h"
#include "tools/tools.h"

#define START_TIMEOUT_MS 15000 /* a server starts in 50 ms; a loaded machine under a sanitizer takes seconds */
#define STOP_PATIENCE_MS 1500 /* it has nothing to save: a healthy one is gone in 20 ms */
#define PORT_TRIES 5
#define LOG_TAIL_LINES 15
#define LOG "server.log"
#define CONF "server.conf"
#define SOCKET "server.sock"

/* ---- which program ---- */

static bool is_program(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* Looks in PATH and then where PATH of an ordinary user may not lead. */
static bool search(const char *name, char *program, size_t program_bytes)
{
    char dirs[4096];
    const char *path = getenv("PATH");
    snprintf(dirs, sizeof dirs, "%s:/usr/bin:/usr/local/bin:/usr/sbin", path != NULL ? path : "");
    char *rest = dirs;
    for (char *dir; (dir = strsep(&rest, ":")) != NULL;) {
        if (dir[0] != '/')
            continue; /* the server is started from another directory */
        if ((size_t)snprintf(program, program_bytes, "%s/%s", dir, name) < program_bytes && is_program(program))
            return true;
    }
    return false;
}

int rshm_server_find(const char *wanted, char *program, size_t program_bytes)
{
    char dir[PATH_MAX], real[PATH_MAX];
    if (wanted != NULL && strchr(wanted, '/') == NULL) {
        if (search(wanted, program, program_bytes))
            return 0;
        rshm_complain("no program '%s' in PATH", wanted);
        return -ENOENT;
    }
    if (wanted != NULL) {
        if (realpath(wanted, real) != NULL && is_program(real) && strlen(real) < program_bytes) {
            strcpy(program, real);
            return 0;
        }
        rshm_complain("%s is not a program that can be run", wanted);
        return -ENOENT;
    }
    /* What `make deps` built is there only if the system's own server is missing or too old. */
    if (rshm_executable_dir(dir, sizeof dir) == 0 &&
        (size_t)snprintf(program, program_bytes, "%s/deps/redis/bin/redis-server", dir) < program_bytes && is_program(program))
        return 0;
    if (search("redis-server", program, program_bytes) || search("valkey-server", program, program_bytes))
        return 0;
    rshm_complain("neither redis-server nor valkey-server is installed. On Debian and Ubuntu the package is redis-server "
                  "(sudo apt-get install redis-server); or name one with --server PATH");
    return -ENOENT;
}

int rshm_server_find_module(const char *wanted, char module[PATH_MAX])
{
    static const char *const beside[] = {"module-shm.so", "../lib/redis/modules/module-shm.so"};
    char dir[PATH_MAX - 64], path[PATH_MAX];
    if (wanted != NULL) {
        if (realpath(wanted, module) != NULL)
            return 0;
        rshm_complain("no module %s: %s", wanted, strerror(errno));
        return -ENOENT;
    }
    if (rshm_executable_dir(dir, sizeof dir) == 0)
        for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++) {
            snprintf(path, sizeof path, "%s/%s", dir, beside[i]);
            if (realpath(path, module) != NULL)
                return 0;
        }
    rshm_complain("module-shm.so is neither beside this program nor in ../lib/redis/modules; name it with --module PATH");
    return -ENOENT;
}

/* ---- its directory ---- */

static int make_dir(struct rshm_server *s)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] != '/' || strlen(base) + sizeof "/redis-shm.XXXXXX" > sizeof s->dir)
        base = "/tmp"; /* also if the socket's name would not fit into an address */
    snprintf(s->dir, sizeof s->dir, "%s/redis-shm.XXXXXX", base);
    if (mkdtemp(s->dir) == NULL) {
        int error = errno;
        rshm_complain("cannot make a directory in %s: %s (TMPDIR chooses another)", base, strerror(error));
        s->dir[0] = '\0';
        return -error;
    }
    snprintf(s->socket_path, sizeof s->socket_path, "%s/" SOCKET, s->dir);
    return 0;
}

static void remove_dir(struct rshm_server *s)
{
    if (s->dir[0] == '\0')
        return;
    DIR *d = opendir(s->dir);
    if (d != NULL) {
        for (const struct dirent *e; (e = readdir(d)) != NULL;)
            unlinkat(dirfd(d), e->d_name, 0); /* "." and ".." fail */
        closedir(d);
    }
    if (rmdir(s->dir) != 0)
        rshm_complain("%s is left over: %s", s->dir, strerror(errno));
    s->dir[0] = '\0';
}

static FILE *open_in_dir(const struct rshm_server *s, const char *name, const char *mode)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    return fopen(path, mode);
}

/* ---- its log ---- */

void rshm_server_show_log(const struct rshm_server *s)
{
    char *lines[LOG_TAIL_LINES] = {NULL};
    size_t sizes[LOG_TAIL_LINES] = {0}, count = 0;
    FILE *f = s->dir[0] == '\0' ? NULL : open_in_dir(s, LOG, "re");
    if (f == NULL)
        return;
    while (getline(&lines[count % LOG_TAIL_LINES], &sizes[count % LOG_TAIL_LINES], f) >= 0)
        count++;
    fclose(f);
    if (count > 0)
        rshm_complain("the end of the server's log:");
    for (size_t i = count > LOG_TAIL_LINES ? count - LOG_TAIL_LINES : 0; i < count; i++) {
        const char *line = lines[i % LOG_TAIL_LINES];
        fprintf(stderr, "  | %.*s\n", (int)strcspn(line, "\n"), line);
    }
    for (size_t i = 0; i < LOG_TAIL_LINES; i++)
        free(lines[i]);
}

static bool log_says(const struct rshm_server *s, const char *what)
{
    char line[512];
    bool found = false;
    FILE *f = open_in_dir(s, LOG, "re");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
        found = strstr(line, what) != NULL;
    if (f != NULL)
        fclose(f);
    return found;
}

/* ---- start ---- */

/* A port that is free now. Another process may take it before the server does: then the start is tried again. */
static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t a_bytes = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r = -1;
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(fd, (struct sockaddr *)&a, &a_bytes) == 0)
        r = ntohs(a.sin_port);
    else
        r = -errno;
    close(fd);
    return r;
}

static void put_quoted(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s != '\0'; s++)
        fprintf(f, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    fputc('"', f);
}

static int write_conf(const struct rshm_server *s, const char *module)
{
    FILE *f = open_in_dir(s, CONF, "we");
    if (f == NULL)
        return -errno;
    fprintf(f, "bind 127.0.0.1\nport %d\nunixsocketperm 700\ndaemonize no\nsave \"\"\nappendonly no\nlogfile \"\"\nunixsocket ",
            s->tcp_port);
    put_quoted(f, s->socket_path);
    fputs("\ndir ", f);
    put_quoted(f, s->dir);
    fputs("\nloadmodule ", f);
    put_quoted(f, module);
    fputc('\n', f);
    bool bad = ferror(f);
    return fclose(f) != 0 || bad ? -EIO : 0;
}

/* In the child; returns only if it cannot be done, with errno. */
static void become_server(const struct rshm_server *s, const char *program)
{
    if (chdir(s->dir) != 0)
        return;
    int in = open("/dev/null", O_RDONLY), out = open(LOG, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        return;
    if (in > 2)
        close(in);
    if (out > 2)
        close(out);
    execl(program, program, CONF, (char *)NULL);
}

static int spawn(struct rshm_server *s, const char *program)
{
    int failure[2], error = 0;
    pid_t parent = getpid();
    if (pipe2(failure, O_CLOEXEC) != 0)
        return -errno;
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) {
        rshm_stop_child(parent);
        become_server(s, program);
        error = errno;
        _exit(write(failure[1], &error, sizeof error) == sizeof error ? 1 : 2);
    }
    if (s->pid < 0) {
        error = errno;
        s->pid = 0;
    }
    close(failure[1]);
    ssize_t n = 0;
    while (s->pid > 0 && (n = read(failure[0], &error, sizeof error)) < 0 && errno == EINTR)
        ;
    close(failure[0]);
    if (error != 0)
        rshm_complain("cannot run %s: %s", program, strerror(error));
    return -error;
}

static void read_version(struct rshm_server *s, redisContext *c)
{
    static const struct { const char *field, *name; } known[] = {{"\nvalkey_version:", "Valkey"}, {"\nredis_version:", "Redis"}};
    redisReply *info = redisCommand(c, "INFO server");
    snprintf(s->version, sizeof s->version, "unknown");
    for (size_t i = 0; info != NULL && info->str != NULL && i < sizeof known / sizeof known[0]; i++) {
        const char *at = strstr(info->str, known[i].field);
        if (at != NULL) {
            at += strlen(known[i].field);
            snprintf(s->version, sizeof s->version, "%s %.*s", known[i].name, (int)strcspn(at, "\r\n"), at);
            break;
        }
    }
    freeReplyObject(info);
}

static bool answers(struct rshm_server *s)
{
    struct timeval timeout = {.tv_sec = 1};
    redisContext *c = redisConnectUnixWithTimeout(s->socket_path, timeout);
    bool pong = false;
    if (c != NULL && c->err == 0 && redisSetTimeout(c, timeout) == REDIS_OK) {
        redisReply *reply = redisCommand(c, "PING");
        pong = reply != NULL && reply->type == REDIS_REPLY_STATUS;
        freeReplyObject(reply);
        if (pong)
            read_version(s, c);
    }
    redisFree(c);
    return pong;
}

enum start { STARTED, PORT_TAKEN };

/* Returns an enum start, or -errno after a message. */
static int wait_until_it_answers(struct rshm_server *s)
{
    uint64_t deadline_ns = rshm_now_ns() + START_TIMEOUT_MS * 1000000ull;
    int status = 0;
    while (rshm_now_ns() < deadline_ns) {
        if (rshm_stop_signal() != 0)
            return -EINTR;
        if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
            s->pid = 0;
            if (log_says(s, "Address already in use"))
                return PORT_TAKEN;
            rshm_complain("the server ended before it answered, with %s %d", WIFSIGNALED(status) ? "signal" : "exit status",
                          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            rshm_server_show_log(s);
            return -ECHILD;
        }
        if (access(s->socket_path, F_OK) == 0 && answers(s))
            return STARTED;
        rshm_sleep_ms(10);
    }
    rshm_complain("the server does not answer after %d s", START_TIMEOUT_MS / 1000);
    rshm_server_show_log(s);
    return -ETIMEDOUT;
}

int rshm_server_start(struct rshm_server *s, const char *program, const char *module)
{
    *s = (struct rshm_server){0};
    int r = make_dir(s);
    for (int i = 0; r == 0 && i < PORT_TRIES; i++) {
        s->tcp_port = free_port();
        r = s->tcp_port < 0 ? s->tcp_port : write_conf(s, module);
        if (r < 0)
            rshm_complain("cannot prepare the server: %s", strerror(-r));
        if (r == 0)
            r = spawn(s, program);
        if (r == 0)
            r = wait_until_it_answers(s);
        if (r == STARTED)
            return 0;
        if (r == PORT_TAKEN)
            r = i + 1 < PORT_TRIES ? 0 : -EADDRINUSE;
    }
    if (r == -EADDRINUSE)
        rshm_complain("no free TCP port on 127.0.0.1 after %d tries", PORT_TRIES);
    rshm_server_stop(s);
    return r;
}

void rshm_server_stop(struct rshm_server *s)
{
    if (s->pid > 0)
        rshm_stop_end_child(s->pid, STOP_PATIENCE_MS);
    s->pid = 0;
    remove_dir(s);
}
