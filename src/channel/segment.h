/* segment.h - the format of the shared memory: the only place that defines it. docs/protocol.md says it in words.
 *
 *   offset 0      struct rshm_segment, one page: what the server promises, then the wait flags, each in a line of its own
 *   request_off   FIFO of the requests (the client writes): charfifo_memory_bytes(ring_bytes), rounded up to a page
 *   reply_off     FIFO of the replies  (the server writes)
 *
 * The server creates, sizes, seals and fills in the segment before anybody else sees it. The fields up to token never change
 * after that; both sides use private copies of them all the same.
 */
#ifndef RSHM_SEGMENT_H
#define RSHM_SEGMENT_H

#include <stddef.h>
#include <sys/types.h>

#include "fifo/atomic.h"

#define RSHM_PROTOCOL_VERSION 2
#define RSHM_TOKEN_BYTES 16
#define RSHM_TOKEN_HEX (2 * RSHM_TOKEN_BYTES)
#define RSHM_PAGE 4096
#define RSHM_RING_BYTES_MIN ((size_t)4096)
#define RSHM_RING_BYTES_MAX ((size_t)1 << 30)
#define RSHM_RENDEZVOUS_PREFIX "redis-shm-"
#define RSHM_RENDEZVOUS_MAX 64     /* bytes of the abstract name; sun_path has 108, and nobody needs more random than this */
#define RSHM_BELL '\n'             /* an empty inline command, should a server ever read it as one */

/* Who waits for one direction. Set by the waiter, cleared by the side that then rings, but for RSHM_RING_ALWAYS. */
#define RSHM_RING_BACK 2u   /* in reader_waits: ring at the next bell from here too, not only after publishing */
#define RSHM_RING_ALWAYS 3u /* in reader_waits: ring after each publication and leave the flag up, so that its line rests in both caches */
struct rshm_wait {
    _Alignas(RSHM_CACHE_LINE) rshm_u32 reader_waits; /* looked at by the writer after each publish: a quiet line */
    _Alignas(RSHM_CACHE_LINE) rshm_u32 writer_waits; /* looked at by the reader when it gives space back */
};

struct rshm_segment {
    uint8_t magic[8];
    uint32_t version; /* RSHM_PROTOCOL_VERSION */
    uint32_t header_bytes;
    uint64_t segment_bytes;
    uint64_t ring_bytes; /* capacity of each FIFO */
    uint64_t request_off;
    uint64_t reply_off;
    uint8_t token[RSHM_TOKEN_BYTES];
    struct rshm_wait request_wait;
    struct rshm_wait reply_wait;
};

#define RSHM_MAGIC "RSHM\r\n\x1a\0"

_Static_assert(offsetof(struct rshm_segment, version) == 8, "shared layout");
_Static_assert(offsetof(struct rshm_segment, segment_bytes) == 16, "shared layout");
_Static_assert(offsetof(struct rshm_segment, token) == 48, "shared layout");
_Static_assert(offsetof(struct rshm_segment, request_wait) == 64, "shared layout");
_Static_assert(offsetof(struct rshm_segment, request_wait.writer_waits) == 128, "shared layout");
_Static_assert(offsetof(struct rshm_segment, reply_wait) == 192, "shared layout");
_Static_assert(offsetof(struct rshm_segment, reply_wait.writer_waits) == 256, "shared layout");
_Static_assert(sizeof(struct rshm_segment) <= RSHM_PAGE, "shared layout");

/* A mapped segment. The numbers are private copies. */
struct rshm_map {
    struct rshm_segment *base;
    size_t bytes;
    size_t ring_bytes;
    size_t request_off, reply_off;
};

/* Bytes of a segment with two rings of ring_bytes; 0 if that is not a power of two in range. */
size_t rshm_segment_bytes(size_t ring_bytes);

/* Server: creates a sealed segment (memfd; size fixed for ever), fills it in, prefaults and maps it. mode: permission bits
 * of the memory object, or -1 for the default 0600; nothing in it is ever executed, and execute bits are dropped. Returns the fd (caller closes it once it was passed on) and fills *map, or
 * -errno with nothing left behind. Blocks only in the kernel's allocator. The mapping is not inherited by fork children. */
int rshm_segment_create(struct rshm_map *map, size_t ring_bytes, const uint8_t token[RSHM_TOKEN_BYTES], int mode);

/* Client: maps the segment in fd after checking seals, size, version and every offset against what this very file defines.
 * fd stays the caller's. Returns 0 or -errno: -EPROTO (not sealed, or not the format), -EKEYREJECTED (another token),
 * -EPROTONOSUPPORT (another version), or what fstat/fcntl/mmap said. */
int rshm_segment_open(struct rshm_map *map, int fd, const uint8_t token[RSHM_TOKEN_BYTES]);

/* Unmaps. NULL base: no effect. */
void rshm_segment_unmap(struct rshm_map *map);

#endif
