/* segment.c - creates, checks and maps the shared memory of one connection. */
#include "channel/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "charfifo.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3; EINVAL before */
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static size_t fifo_bytes(size_t ring_bytes)
{
    return (charfifo_memory_bytes(ring_bytes) + RSHM_PAGE - 1) & ~(size_t)(RSHM_PAGE - 1);
}

size_t rshm_segment_bytes(size_t ring_bytes)
{
    return charfifo_memory_bytes(ring_bytes) == 0 ? 0 : RSHM_PAGE + 2 * fifo_bytes(ring_bytes);
}

static void lay_out(struct rshm_map *map, size_t ring_bytes)
{
    map->base = NULL;
    map->bytes = rshm_segment_bytes(ring_bytes);
    map->ring_bytes = ring_bytes;
    map->request_off = RSHM_PAGE;
    map->reply_off = RSHM_PAGE + fifo_bytes(ring_bytes);
}

static int map_fd(struct rshm_map *map, int fd)
{
    void *p = mmap(NULL, map->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    if (madvise(p, map->bytes, MADV_DONTFORK) != 0) { /* a fork child must not reach the rings */
        int e = errno;
        munmap(p, map->bytes);
        return -e;
    }
    map->base = p;
    return 0;
}

static int memfd(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

int rshm_segment_create(struct rshm_map *map, size_t ring_bytes, const uint8_t token[RSHM_TOKEN_BYTES], int mode)
{
    lay_out(map, ring_bytes);
    if (map->bytes == 0)
        return -EINVAL;
    int fd = memfd("redis-shm");
    if (fd < 0)
        return fd;
    /* fallocate, not only ftruncate: memory that cannot be had is refused here and is no SIGBUS later. */
    if (ftruncate(fd, (off_t)map->bytes) != 0 || fallocate(fd, 0, 0, (off_t)map->bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, SEALS) != 0 || fchmod(fd, mode < 0 ? 0600 : (mode_t)mode & 0666) != 0) {
        int e = errno;
        close(fd);
        return -e;
    }
    int r = map_fd(map, fd);
    if (r < 0) {
        close(fd);
        return r;
    }
    struct rshm_segment *s = map->base;
    memcpy(s->magic, RSHM_MAGIC, sizeof s->magic);
    s->version = RSHM_PROTOCOL_VERSION;
    s->header_bytes = sizeof *s;
    s->segment_bytes = map->bytes;
    s->ring_bytes = map->ring_bytes;
    s->request_off = map->request_off;
    s->reply_off = map->reply_off;
    memcpy(s->token, token, RSHM_TOKEN_BYTES);
    charfifo_init((char *)s + map->request_off, fifo_bytes(ring_bytes), ring_bytes, 0);
    charfifo_init((char *)s + map->reply_off, fifo_bytes(ring_bytes), ring_bytes, 0);
    return fd;
}

int rshm_segment_open(struct rshm_map *map, int fd, const uint8_t token[RSHM_TOKEN_BYTES])
{
    struct stat st;
    struct rshm_segment s;

    memset(map, 0, sizeof *map);
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS)
        return -EPROTO; /* whoever could shrink it could kill us with SIGBUS */
    if (fstat(fd, &st) != 0)
        return -errno;
    /* One read into private memory; only the copy is looked at. */
    ssize_t n = pread(fd, &s, sizeof s, 0);
    if (n != (ssize_t)sizeof s || memcmp(s.magic, RSHM_MAGIC, sizeof s.magic) != 0)
        return -EPROTO;
    if (s.version != RSHM_PROTOCOL_VERSION)
        return -EPROTONOSUPPORT;
    if (memcmp(s.token, token, RSHM_TOKEN_BYTES) != 0)
        return -EKEYREJECTED;
    if (s.ring_bytes < RSHM_RING_BYTES_MIN || s.ring_bytes > RSHM_RING_BYTES_MAX)
        return -EPROTO;
    lay_out(map, (size_t)s.ring_bytes);
    if (map->bytes == 0 || s.header_bytes != sizeof s || s.segment_bytes != map->bytes || s.request_off != map->request_off ||
        s.reply_off != map->reply_off || st.st_size < 0 || (size_t)st.st_size != map->bytes)
        return -EPROTO;
    return map_fd(map, fd);
}

void rshm_segment_unmap(struct rshm_map *map)
{
    if (map->base != NULL)
        munmap(map->base, map->bytes);
    map->base = NULL;
}
