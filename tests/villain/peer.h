/* peer.h - a client that keeps to the protocol only as far as a test wants it to: docs/protocol.md by hand, over memory that it may write
 * anywhere at any moment. It shares no code with the library but the layout in channel/segment.h.
 *
 * Nothing here is checked on behalf of the peer. Whatever cannot be done because the server has closed the connection is no failure;
 * peer_closed() tells. One thread per peer, but words may be written by others meanwhile.
 */
#ifndef RSHM_VILLAIN_PEER_H
#define RSHM_VILLAIN_PEER_H

#include "channel/segment.h"
#include "client/harness.h"

#define LINE ((uint64_t)RSHM_CACHE_LINE)
#define HEADER(tag, kind, len) ((uint64_t)(tag) << 40 | (uint64_t)(kind) << 32 | (uint64_t)(len))

struct peer {
    const struct server *server;
    int fd;     /* the socket */
    int memory; /* the memfd, kept open, or -1 */
    uint8_t token[RSHM_TOKEN_BYTES];
    struct rshm_segment *base; /* NULL: not mapped */
    size_t bytes, ring_bytes, request_off, reply_off;
    uint64_t write_pos, read_pos; /* where our next record goes, and the server's next is */
    char reply[256];              /* the last line that came over the socket */
};

/* Connects. Fails the test if it cannot. */
void peer_connect(struct peer *p, const struct server *s, bool unix_socket);
/* Bytes on the socket. Returns false if the server has closed. */
bool peer_say(struct peer *p, const void *bytes, size_t n);
/* A line of the socket, without its end, into p->reply; fds that come along into p->memory. Returns false at the end, or after 5 s. */
bool peer_line(struct peer *p);
/* SHM.OPEN; true if the answer was 1 and the memory came. p->reply says what was answered. Over TCP with a rendezvous of our own. */
bool peer_open(struct peer *p);
/* The memory is mapped; no bell yet. */
void peer_map(struct peer *p);
/* All of it: connected, opened, mapped, confirmed, one PING answered. */
void peer_session(struct peer *p, const struct server *s, bool unix_socket);
void peer_bell(struct peer *p);

/* Where things are. */
rshm_u64 *peer_request_header(struct peer *p, uint64_t pos);
rshm_u64 *peer_reply_header(struct peer *p, uint64_t pos);
rshm_u64 *peer_request_read_pos(struct peer *p); /* the server writes it */
rshm_u64 *peer_reply_read_pos(struct peer *p);   /* we write it */
rshm_u32 *peer_reply_closed(struct peer *p);

/* One record with these bytes (at most a quarter of the ring), as a correct client writes it; without a bell. Returns false if there was no room
 * within 5 s. */
bool peer_put(struct peer *p, const char *bytes, size_t n);
/* The next reply record's payload, at most cap bytes of it. Returns its length, 0 if none came within ms, -1 at the end record. */
ssize_t peer_take(struct peer *p, char *bytes, size_t cap, int ms);
/* PING with a bell; true if PONG came. */
bool peer_ping(struct peer *p);

/* Waits up to 5 s for the server to close the connection. Bells and whatever else comes is thrown away. */
bool peer_closed(struct peer *p);
/* Closes and unmaps all. Idempotent. */
void peer_end(struct peer *p);

#endif
