/* charfifo.h - a lockless FIFO of bytes between one writer and one reader.
 *
 * What       A byte stream through memory that two threads or two processes share. The word that says "these bytes
 *            are valid" lies in the first cache line of the bytes themselves, so that a short message costs one cache
 *            line on its way from core to core instead of two.
 * Shapes     Capacity: a power of two from 4 KiB to 1 GiB. The memory is charfifo_memory_bytes(capacity) bytes, aligned to
 *            64. Every record spends 8 bytes on its header and is padded to 64; a record is at most a quarter of the
 *            capacity, and one line is always kept free. charfifo_free_bytes() knows the sum.
 * Ownership  The caller owns the shared memory and the two handles; the library allocates nothing and keeps no pointer but
 *            the one in the handle. A handle may be dropped at any time; nothing needs to be freed.
 * Threads    One writer and one reader at a time, in any two threads or processes. A handle is used by one thread at a time.
 *            Nothing here is async-signal-unsafe. After fork() only one of the two processes may go on using a handle.
 * Blocking   Nothing blocks, sleeps, wakes or makes a system call. Waiting is the caller's.
 * Trust      The peer may write anything into the shared memory at any moment. Own positions and the capacity live in the
 *            handle; each word of the peer's is read once and range-checked. A word that no correct peer writes gives
 *            -EPROTO, from then on for ever. The payload itself is the peer's: copy it (charfifo_read) before parsing
 *            it unless the peer is trusted.
 * Source     The validity word in the data: Li et al., SocksDirect, SIGCOMM 2019, section 4.2; committing a record by its
 *            length word: Aeron's ring buffers. Free-running positions: DPDK rte_ring.
 */
#ifndef CHARFIFO_H
#define CHARFIFO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CHARFIFO_CAPACITY_MIN ((size_t)4096)
#define CHARFIFO_CAPACITY_MAX ((size_t)1 << 30)

/* One end of a FIFO. Contents are private; copy or move it as you like while nobody is using it. */
typedef struct charfifo {
    uint64_t charfifo_private[9];
} charfifo;

/* What charfifo_poll() sees. */
enum charfifo_state {
    CHARFIFO_EMPTY = 0,    /* nothing to read now */
    CHARFIFO_READABLE = 1, /* at least one byte to read */
    CHARFIFO_EOF = 2       /* nothing to read now nor later: the writer has closed and all was read */
};

/* Bytes of shared memory a FIFO of this capacity needs, a multiple of 64; 0 if capacity is not a power of two from
 * CHARFIFO_CAPACITY_MIN to CHARFIFO_CAPACITY_MAX. */
size_t charfifo_memory_bytes(size_t capacity);

/* Formats mem_bytes bytes at mem as an empty FIFO whose free-running positions start at start_pos (a multiple of 64; 0 unless
 * you are testing the wrap of the counters). Nobody may be attached. Returns 0, or -EINVAL: a NULL or misaligned mem, too few
 * bytes, a capacity or start_pos out of range. */
int charfifo_init(void *mem, size_t mem_bytes, size_t capacity, uint64_t start_pos);

/* Makes *f the one writer (reader) of the FIFO at mem. The FIFO must have been formatted with this very capacity and must
 * not have been written to (read from) yet. Returns 0, -EINVAL as charfifo_init(), or -EPROTO: the memory does not hold a
 * fresh FIFO. */
int charfifo_attach_writer(charfifo *f, void *mem, size_t mem_bytes, size_t capacity);
int charfifo_attach_reader(charfifo *f, void *mem, size_t mem_bytes, size_t capacity);

/* Writer: copies up to n bytes from p and publishes them; may copy fewer. Returns the count (0: n was 0, or full, which is no
 * error), -EPIPE once the reader or this writer has closed, or -EPROTO. p is free on return. */
ssize_t charfifo_write(charfifo *w, const void *p, size_t n);

/* Writer: the bytes that one charfifo_write() would accept now; 0 when full or closed; -EPROTO. Looks at the reader's
 * position afresh. */
ssize_t charfifo_free_bytes(charfifo *w);

/* Writer: every record from now on carries this tag, CHARFIFO_TAG_BITS of it: a side note to the reader in the line that travels
 * anyway. Costs nothing; 0 at first. */
#define CHARFIFO_TAG_BITS 24
void charfifo_set_tag(charfifo *w, uint32_t tag);

/* Reader: the tag of the record that was looked at last (charfifo_poll(), charfifo_peek(), charfifo_read()); 0 before the first. The
 * peer's word. */
uint32_t charfifo_tag(const charfifo *r);

/* Writer: asks the CPU to fetch the lines that the next write touches, for writing. A hint: no effect on contents. */
void charfifo_prefetch_write(const charfifo *w);

/* Writer: the reader gets CHARFIFO_EOF after the bytes written so far. Idempotent. */
void charfifo_close_writer(charfifo *w);

/* Reader: a charfifo_state, or -EPROTO. The look itself is one load of a word that is likely in the cache. */
int charfifo_poll(charfifo *r);

/* Reader: copies up to n bytes to p. Returns the count, 0 (n was 0, or nothing to read: charfifo_poll() tells EMPTY from
 * EOF), or -EPROTO. */
ssize_t charfifo_read(charfifo *r, void *p, size_t n);

/* Reader: sets *p to the next readable bytes, in place, and returns how many lie there contiguously (at least 1, at most a
 * quarter of the capacity), 0 with *p NULL if nothing is readable, or -EPROTO. They stay valid until charfifo_consume(); a
 * peer that breaks the rules can still change them under you. */
ssize_t charfifo_peek(charfifo *r, const void **p);

/* Reader: gives back the first n of the bytes that charfifo_peek() showed. Returns 0, or -EINVAL if n is more than that. */
int charfifo_consume(charfifo *r, size_t n);

/* Reader: bytes readable now, 0 or more, or -EPROTO. Walks the records: time grows with their number. */
ssize_t charfifo_used_bytes(charfifo *r);

/* For displays: how much of the capacity is taken, headers and padding included, and nothing else changes. Writer: by records that
 * the reader has not given back yet; it gives back a quarter of the capacity at a time. Reader: by records not read to the end, as
 * far as records_max of them reach (a look at each: bound it). Never more than the capacity, whatever the peer writes. */
size_t charfifo_writer_backlog(const charfifo *w);
size_t charfifo_reader_backlog(const charfifo *r, size_t records_max);

/* Reader: 1 if read positions were published to the writer since this was last asked, else 0. Space comes back in batches of
 * a quarter of the capacity; whoever wakes a waiting writer does so when this says 1. */
int charfifo_released(charfifo *r);

/* Reader: charfifo_write() returns -EPIPE from now on. Idempotent. */
void charfifo_close_reader(charfifo *r);

#ifdef __cplusplus
}
#endif
#endif
