// A C++ program of a user: both public headers, a connection over shared memory, a FIFO of its own. Arguments: the server's Unix socket.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include <charfifo.h>
#include <hiredis.h>
#include <hiredis_shm.h>

static bool fifo_works()
{
    const size_t capacity = CHARFIFO_CAPACITY_MIN, bytes = charfifo_memory_bytes(capacity);
    std::unique_ptr<void, decltype(&free)> memory(aligned_alloc(64, bytes), &free);
    charfifo writer, reader;
    char back[8] = "";
    return charfifo_init(memory.get(), bytes, capacity, 0) == 0 && charfifo_attach_writer(&writer, memory.get(), bytes, capacity) == 0 &&
           charfifo_attach_reader(&reader, memory.get(), bytes, capacity) == 0 && charfifo_write(&writer, "bytes", 5) == 5 &&
           charfifo_read(&reader, back, sizeof back) == 5 && std::string(back) == "bytes";
}

int main(int, char **argv)
{
    std::unique_ptr<redisContext, decltype(&redisFree)> c(redisConnectUnix(argv[1]), &redisFree);
    auto ask = [&](redisReply *r) { return std::unique_ptr<void, decltype(&freeReplyObject)>(r, &freeReplyObject); };
    auto opened = ask(redisUseSharedMemory(c.get()));
    if (!opened || !redisIsSharedMemoryInitialized(c.get()) || redisSetSharedMemoryWaiting(c.get(), REDIS_SHM_WAIT_BLOCK) != REDIS_OK)
        return 1;
    auto pong = ask(static_cast<redisReply *>(redisCommand(c.get(), "PING")));
    if (!pong || std::strcmp(static_cast<redisReply *>(pong.get())->str, "PONG") != 0)
        return 2;
    if (!fifo_works())
        return 3;
    std::puts("C++ over shared memory");
    return 0;
}
