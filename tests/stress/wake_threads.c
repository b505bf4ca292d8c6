/* wake_threads.c - wake_processes with two threads, for ThreadSanitizer (make test-tsan). */
#include "wake.h"

#include <pthread.h>

static void *serve(void *result)
{
    *(int *)result = traffic_server(&board->sides[RSHM_SERVER]);
    return NULL;
}

static bool wake_run(const struct wake_round *round, uint64_t seed, uint64_t operations)
{
    struct rshm_map server_map, client_map;
    struct traffic_side *s = &board->sides[RSHM_SERVER], *c = &board->sides[RSHM_CLIENT];
    pthread_t server_thread;
    int sockets[2], server = -EPROTO;
    double start = stress_now_s();
    int memory = rshm_segment_create(&server_map, round->ring_bytes, wake_token, -1);
    if (memory < 0) {
        fprintf(stderr, "wake_threads: skipped: memfd: %s\n", strerror(-memory));
        exit(EXIT_SKIP);
    }
    client_map = server_map; /* one mapping: two would hide from ThreadSanitizer that they are the same memory */
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0 || !wake_attach(RSHM_SERVER, &server_map, sockets[0], round, seed, operations) ||
        !wake_attach(RSHM_CLIENT, &client_map, sockets[1], round, seed, operations) ||
        pthread_create(&server_thread, NULL, serve, &server) != 0)
        return false;
    int client = traffic_client(c);
    charfifo_close_writer(&c->ch.out);
    charfifo_close_reader(&c->ch.in);
    shutdown(sockets[1], SHUT_RDWR);
    pthread_join(server_thread, NULL);
    bool good = wake_verdict(round, client, server, stress_now_s() - start);
    c->ch.map.base = NULL;
    rshm_channel_deinit(&s->ch);
    close(sockets[0]);
    close(sockets[1]);
    close(memory);
    return good;
}
