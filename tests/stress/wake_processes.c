/* wake_processes.c - a client and a server process that make each other sleep as often as can be; a wake-up that is lost shows. */
#include "wake.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static bool wake_run(const struct wake_round *round, uint64_t seed, uint64_t operations)
{
    struct rshm_map map;
    int sockets[2], status, result[2];
    double start = stress_now_s();
    int memory = rshm_segment_create(&map, round->ring_bytes, wake_token, -1);
    if (memory < 0) {
        fprintf(stderr, "wake_processes: skipped: memfd: %s\n", strerror(-memory));
        exit(EXIT_SKIP);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0 || pipe(result) != 0)
        return false;
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        struct traffic_side *c = &board->sides[RSHM_CLIENT];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(sockets[0]); /* or the end of the server would not be seen */
        int r = -EPROTO;
        if (rshm_segment_open(&map, memory, wake_token) == 0 && wake_attach(RSHM_CLIENT, &map, sockets[1], round, seed, operations))
            r = traffic_client(c);
        (void)!write(result[1], &r, sizeof r);
        rshm_channel_deinit(&c->ch);
        _exit(0);
    }
    struct traffic_side *s = &board->sides[RSHM_SERVER];
    close(sockets[1]);
    close(result[1]);
    int client = -EPROTO, server = -EPROTO;
    if (wake_attach(RSHM_SERVER, &map, sockets[0], round, seed, operations))
        server = traffic_server(s);
    rshm_channel_deinit(&s->ch);
    close(sockets[0]); /* wakes a client that still waits */
    bool good = read(result[0], &client, sizeof client) == sizeof client && waitpid(child, &status, 0) == child && status == 0;
    close(result[0]);
    close(memory);
    return wake_verdict(round, client, server, stress_now_s() - start) && good;
}
