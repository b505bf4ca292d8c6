/* fifo_processes.c - a writing and a reading process over MAP_SHARED memory, mapped at different addresses in each. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "stress.h"

#define EXIT_SKIP 77

static bool run(struct stress s, size_t capacity, uint64_t start_pos)
{
    size_t bytes = charfifo_memory_bytes(capacity);
    charfifo fifo;
    int result[2], fd = memfd_create("fifo_processes", MFD_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "fifo_processes: skipped: memfd_create: %s\n", strerror(errno));
        exit(EXIT_SKIP);
    }
    void *mem = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0)
        mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mem == MAP_FAILED || pipe(result) != 0 || charfifo_init(mem, bytes, capacity, start_pos) != 0)
        return false;

    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        void *own = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); /* while mem is still mapped: elsewhere */
        munmap(mem, bytes);
        int64_t wrote = -ENOMEM;
        if (own != MAP_FAILED && charfifo_attach_writer(&fifo, own, bytes, capacity) == 0)
            wrote = stress_write(&s, &fifo);
        _exit(write(result[1], &wrote, sizeof wrote) == sizeof wrote ? 0 : 1);
    }
    int64_t wrote = 0, got = -EPROTO;
    int status;
    close(result[1]);
    if (charfifo_attach_reader(&fifo, mem, bytes, capacity) == 0)
        got = stress_read(&s, &fifo);
    if (got < 0)
        charfifo_close_reader(&fifo); /* the writer ends with -EPIPE instead of waiting for space */
    bool good = read(result[0], &wrote, sizeof wrote) == sizeof wrote;
    good &= waitpid(child, &status, 0) == child && status == 0;
    close(result[0]);
    close(fd);
    munmap(mem, bytes);
    return stress_verdict(capacity, wrote, got) && good;
}

int main(int argc, char **argv)
{
    static const size_t capacities[] = {4096, 65536, 1 << 20};
    struct stress s = stress_begin(argc, argv);
    double each_s = (s.deadline_s - stress_now_s()) / (sizeof capacities / sizeof capacities[0]);
    bool good = true;
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++, s.seed += 2) {
        s.deadline_s = stress_now_s() + each_s;
        good &= run(s, capacities[i], i % 2 ? -(uint64_t)capacities[i] : 0);
    }
    return good ? 0 : 1;
}
