/* fifo_threads.c - a writing and a reading thread; ThreadSanitizer sees both (make test-tsan). */
#include <pthread.h>

#include "stress.h"

struct task {
    struct stress s;
    charfifo fifo;
    int64_t result;
};

static void *write_thread(void *arg)
{
    struct task *t = arg;
    t->result = stress_write(&t->s, &t->fifo);
    return NULL;
}

static void *read_thread(void *arg)
{
    struct task *t = arg;
    t->result = stress_read(&t->s, &t->fifo);
    return NULL;
}

static bool run(struct stress s, size_t capacity, uint64_t start_pos)
{
    struct task w = {.s = s}, r = {.s = s};
    pthread_t wt, rt;
    size_t bytes = charfifo_memory_bytes(capacity);
    void *mem = aligned_alloc(RSHM_CACHE_LINE, bytes);
    if (mem == NULL || charfifo_init(mem, bytes, capacity, start_pos) != 0 || charfifo_attach_writer(&w.fifo, mem, bytes, capacity) != 0 ||
        charfifo_attach_reader(&r.fifo, mem, bytes, capacity) != 0 || pthread_create(&wt, NULL, write_thread, &w) != 0 ||
        pthread_create(&rt, NULL, read_thread, &r) != 0)
        return false;
    pthread_join(wt, NULL);
    pthread_join(rt, NULL);
    free(mem);
    return stress_verdict(capacity, w.result, r.result);
}

int main(int argc, char **argv)
{
    static const size_t capacities[] = {4096, 16384, 65536, 1 << 20};
    struct stress s = stress_begin(argc, argv);
    double each_s = (s.deadline_s - stress_now_s()) / (sizeof capacities / sizeof capacities[0]);
    bool good = true;
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++, s.seed += 2) {
        s.deadline_s = stress_now_s() + each_s;
        good &= run(s, capacities[i], i % 2 ? -(uint64_t)capacities[i] : 0); /* every other one passes the wrap of the counters */
    }
    return good ? 0 : 1;
}
