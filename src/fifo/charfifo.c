/* charfifo.c - the lockless char FIFO; the contract is in charfifo.h.
 *
 *   memory:   | control, 128 bytes | data, capacity bytes                                                |
 *   control:  | line 0, written by the reader: read_pos, reader_closed | line 1: spare                   |
 *   data:     | hdr payload.. |pad| hdr payload............ |pad| 0 (the header to come)  free ...        |
 *             ^ 64-byte lines                                     ^ write_pos
 *
 * The header at write_pos is zero at all times until its record is published: a writer zeroes the header behind the
 * record it is about to publish, and that line is therefore always kept free. Records never cross the end of the data, so
 * every record is contiguous. Positions run freely through 64 bits and only their differences and low bits are used.
 */
#include "charfifo.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "atomic.h"

#define LINE ((uint64_t)RSHM_CACHE_LINE)
#define HEADER ((uint64_t)8)

struct control {
    _Alignas(RSHM_CACHE_LINE) rshm_u64 read_pos; /* reader writes, writer reads */
    rshm_u32 reader_closed;
    _Alignas(RSHM_CACHE_LINE) uint8_t spare[RSHM_CACHE_LINE];
};

/* A header: tag in bits 40 to 63, kind in 32 to 39, payload bytes in the lower 32. Zero means "not yet". */
#define KIND_DATA ((uint64_t)1)
#define KIND_EOF ((uint64_t)2)
#define KIND_OF(header) ((header) >> 32 & 0xff)
#define TAG_SHIFT 40
#define MAKE_HEADER(tag, kind, len) ((uint64_t)(tag) << TAG_SHIFT | (kind) << 32 | (len))
_Static_assert(TAG_SHIFT + CHARFIFO_TAG_BITS == 64, "shared layout");

struct end {
    struct control *control;
    uint8_t *data;
    uint64_t mask;     /* capacity - 1 */
    uint64_t pos;      /* own: header of the next (writer) or current (reader) record */
    uint64_t peer_pos; /* writer: reader's position when last looked; reader: what it published last */
    uint32_t max_payload;
    int32_t failed;     /* 0, or the -errno that every later call returns */
    uint32_t rec_len;   /* reader: payload of the current record, 0: none looked at yet */
    uint32_t rec_taken; /* reader: bytes of it already given out */
    uint32_t tag;       /* writer: of records to come; reader: of the last one looked at */
    bool closed;        /* own end closed */
    bool eof;           /* reader: the EOF record was seen */
    bool released;      /* reader: published since last asked */
};

_Static_assert(sizeof(struct end) <= sizeof(charfifo), "charfifo.h reserves too little");
_Static_assert(_Alignof(struct end) <= _Alignof(charfifo), "charfifo.h aligns too little");
_Static_assert(sizeof(struct control) == 2 * RSHM_CACHE_LINE, "shared layout");
_Static_assert(offsetof(struct control, reader_closed) == 8, "shared layout");

static const struct end *const_end_of(const charfifo *f)
{
    return (const struct end *)(const void *)f;
}

static struct end *end_of(charfifo *f)
{
    return (struct end *)(void *)f;
}

static rshm_u64 *header_at(const struct end *e, uint64_t pos)
{
    return (rshm_u64 *)(void *)(e->data + (pos & e->mask));
}

static uint64_t record_bytes(uint64_t payload)
{
    return (HEADER + payload + LINE - 1) & ~(LINE - 1);
}

static int fail(struct end *e)
{
    e->failed = -EPROTO;
    return e->failed;
}

size_t charfifo_memory_bytes(size_t capacity)
{
    if (capacity < CHARFIFO_CAPACITY_MIN || capacity > CHARFIFO_CAPACITY_MAX || (capacity & (capacity - 1)) != 0)
        return 0;
    return sizeof(struct control) + capacity;
}

static bool memory_fits(const void *mem, size_t mem_bytes, size_t capacity)
{
    size_t need = charfifo_memory_bytes(capacity);
    return mem != NULL && ((uintptr_t)mem & (LINE - 1)) == 0 && need != 0 && mem_bytes >= need;
}

int charfifo_init(void *mem, size_t mem_bytes, size_t capacity, uint64_t start_pos)
{
    if (!memory_fits(mem, mem_bytes, capacity) || (start_pos & (LINE - 1)) != 0)
        return -EINVAL;
    struct control *control = mem;
    memset(mem, 0, sizeof *control);
    uint8_t *data = (uint8_t *)mem + sizeof *control;
    rshm_store_relaxed((rshm_u64 *)(void *)(data + (start_pos & (capacity - 1))), (uint64_t)0);
    rshm_store_relaxed(&control->read_pos, start_pos); /* nobody is attached yet: whoever hands the memory over orders this */
    return 0;
}

static int attach(charfifo *f, void *mem, size_t mem_bytes, size_t capacity)
{
    if (f == NULL || !memory_fits(mem, mem_bytes, capacity))
        return -EINVAL;
    struct end *e = end_of(f);
    memset(f, 0, sizeof *f);
    e->control = mem;
    e->data = (uint8_t *)mem + sizeof(struct control);
    e->mask = capacity - 1;
    e->max_payload = (uint32_t)(capacity / 4 - HEADER);
    e->pos = e->peer_pos = rshm_load_acquire(&e->control->read_pos); /* R2: a fresh FIFO, or checked below */
    if ((e->pos & (LINE - 1)) != 0)
        return fail(e);
    return 0;
}

int charfifo_attach_writer(charfifo *f, void *mem, size_t mem_bytes, size_t capacity)
{
    int r = attach(f, mem, mem_bytes, capacity);
    if (r == 0 && rshm_load_relaxed(header_at(end_of(f), end_of(f)->pos)) != 0) /* only this end ever writes it */
        return fail(end_of(f));
    return r;
}

int charfifo_attach_reader(charfifo *f, void *mem, size_t mem_bytes, size_t capacity)
{
    return attach(f, mem, mem_bytes, capacity);
}

/* ---- writer ---- */

/* Lines the writer may touch, in bytes, the reserved one excluded. */
static uint64_t writable_bytes(const struct end *e)
{
    return e->mask + 1 - LINE - (e->pos - e->peer_pos);
}

/* True once either end has closed. The line is one that the reader writes once in a quarter of the ring: mostly a cache hit. */
static bool closed(struct end *e)
{
    if (rshm_load_relaxed(&e->control->reader_closed) != 0) /* a hint that only ever stops us: no order needed */
        e->closed = true;
    return e->closed;
}

/* Takes a fresh look at how far the reader is. */
static int refresh(struct end *e)
{
    uint64_t read_pos = rshm_load_acquire(&e->control->read_pos); /* R2: pairs with W2 in release() */
    if ((read_pos & (LINE - 1)) != 0 || read_pos - e->peer_pos > e->pos - e->peer_pos)
        return fail(e);
    e->peer_pos = read_pos;
    return 0;
}

/* Payload that fits into one record at pos when room bytes of lines are free. */
static uint64_t record_room(const struct end *e, uint64_t pos, uint64_t room)
{
    uint64_t to_end = e->mask + 1 - (pos & e->mask);
    if (room > to_end)
        room = to_end;
    if (room < LINE)
        return 0;
    return room - HEADER < e->max_payload ? room - HEADER : e->max_payload;
}

ssize_t charfifo_write(charfifo *w, const void *p, size_t n)
{
    struct end *e = end_of(w);
    const uint8_t *from = p;
    size_t left = n;

    if (e->failed != 0)
        return e->failed;
    if (closed(e))
        return -EPIPE;
    while (left > 0) {
        uint64_t room = writable_bytes(e);
        if (room < record_bytes(left)) {
            int r = refresh(e);
            if (r < 0)
                return r;
            room = writable_bytes(e);
        }
        uint64_t len = record_room(e, e->pos, room);
        if (len == 0)
            break;
        if (len > left)
            len = left;
        rshm_u64 *header = header_at(e, e->pos);
        memcpy((uint8_t *)header + HEADER, from, len);
        e->pos += record_bytes(len);
        rshm_store_relaxed(header_at(e, e->pos), (uint64_t)0);  /* ordered by W1 below */
        rshm_store_release(header, MAKE_HEADER(e->tag, KIND_DATA, len)); /* W1: publishes payload and next header; pairs with R1 */
        from += len;
        left -= len;
    }
    return (ssize_t)(n - left);
}

ssize_t charfifo_free_bytes(charfifo *w)
{
    struct end *e = end_of(w);
    int r = e->failed != 0 ? e->failed : refresh(e);
    if (r < 0)
        return r;
    if (closed(e))
        return 0;
    uint64_t room = writable_bytes(e), pos = e->pos, sum = 0, len;
    while ((len = record_room(e, pos, room)) != 0) { /* at most six records: four quarters, cut once at the end of the data */
        sum += len;
        pos += record_bytes(len);
        room -= record_bytes(len);
    }
    return (ssize_t)sum;
}

void charfifo_set_tag(charfifo *w, uint32_t tag)
{
    end_of(w)->tag = tag & ((UINT32_C(1) << CHARFIFO_TAG_BITS) - 1);
}

uint32_t charfifo_tag(const charfifo *r)
{
    return ((const struct end *)(const void *)r)->tag;
}

void charfifo_prefetch_write(const charfifo *w)
{
    const struct end *e = (const struct end *)(const void *)w;
    rshm_prefetch_write(e->data + (e->pos & e->mask));
    rshm_prefetch_write(e->data + ((e->pos + LINE) & e->mask));
}

void charfifo_close_writer(charfifo *w)
{
    struct end *e = end_of(w);
    if (e->closed || e->failed != 0)
        return;
    e->closed = true;
    rshm_store_release(header_at(e, e->pos), MAKE_HEADER(0, KIND_EOF, 0)); /* W1: into the line that is always kept free */
}

/* ---- reader ---- */

/* Looks at the record at pos. Returns its payload bytes, 0: none yet, or -EPROTO; *eof says that it ends the stream. */
static int64_t look(const struct end *e, uint64_t pos, bool *eof, uint32_t *tag)
{
    uint64_t header = rshm_load_acquire(header_at(e, pos)); /* R1: pairs with W1; one read, only the copy from here on */
    if (header == 0)
        return 0;
    uint64_t len = header & UINT32_MAX;
    if (header == MAKE_HEADER(0, KIND_EOF, 0)) {
        *eof = true;
        return 0;
    }
    if (KIND_OF(header) != KIND_DATA || len == 0 || len > e->max_payload || HEADER + len > e->mask + 1 - (pos & e->mask))
        return -EPROTO;
    *tag = (uint32_t)(header >> TAG_SHIFT);
    return (int64_t)len;
}

int charfifo_poll(charfifo *r)
{
    struct end *e = end_of(r);
    if (e->failed != 0)
        return e->failed;
    if (e->rec_len == 0 && !e->eof) { /* an end once seen is final, whatever a peer writes there later */
        int64_t len = look(e, e->pos, &e->eof, &e->tag);
        if (len < 0)
            return fail(e);
        e->rec_len = (uint32_t)len;
    }
    if (e->rec_len != 0)
        return CHARFIFO_READABLE;
    return e->eof ? CHARFIFO_EOF : CHARFIFO_EMPTY;
}

ssize_t charfifo_peek(charfifo *r, const void **p)
{
    struct end *e = end_of(r);
    int state = charfifo_poll(r);
    *p = NULL;
    if (state != CHARFIFO_READABLE)
        return state < 0 ? state : 0;
    *p = (const uint8_t *)header_at(e, e->pos) + HEADER + e->rec_taken;
    return (ssize_t)(e->rec_len - e->rec_taken);
}

int charfifo_consume(charfifo *r, size_t n)
{
    struct end *e = end_of(r);
    if (n > (size_t)(e->rec_len - e->rec_taken))
        return -EINVAL;
    e->rec_taken += (uint32_t)n;
    if (n == 0 || e->rec_taken < e->rec_len)
        return 0;
    e->pos += record_bytes(e->rec_len);
    e->rec_len = e->rec_taken = 0;
    if (e->pos - e->peer_pos > e->mask >> 2) { /* a quarter of the ring: one write of this line per many messages */
        e->peer_pos = e->pos;
        e->released = true;
        rshm_store_release(&e->control->read_pos, e->pos); /* W2: the bytes were read; pairs with R2 in refresh() */
    }
    return 0;
}

ssize_t charfifo_read(charfifo *r, void *p, size_t n)
{
    uint8_t *to = p;
    size_t left = n;
    while (left > 0) {
        const void *from;
        ssize_t len = charfifo_peek(r, &from);
        if (len < 0)
            return n > left ? (ssize_t)(n - left) : len; /* what was valid goes out first */
        if (len == 0)
            break;
        if ((size_t)len > left)
            len = (ssize_t)left;
        memcpy(to, from, (size_t)len);
        charfifo_consume(r, (size_t)len);
        to += len;
        left -= (size_t)len;
    }
    return (ssize_t)(n - left);
}

ssize_t charfifo_used_bytes(charfifo *r)
{
    struct end *e = end_of(r);
    int state = charfifo_poll(r);
    if (state != CHARFIFO_READABLE)
        return state < 0 ? state : 0;
    uint64_t sum = e->rec_len - e->rec_taken;
    bool eof = false;
    uint32_t tag;
    /* A correct writer keeps a line free; a peer whose records fill a whole lap would keep us here for ever. */
    for (uint64_t pos = e->pos + record_bytes(e->rec_len);;) {
        int64_t len = look(e, pos, &eof, &tag);
        if (len < 0)
            return fail(e);
        if (len == 0)
            break;
        sum += (uint64_t)len;
        pos += record_bytes((uint64_t)len);
        if (pos - e->pos > e->mask + 1 - LINE)
            return fail(e);
    }
    return (ssize_t)sum;
}

size_t charfifo_writer_backlog(const charfifo *w)
{
    const struct end *e = const_end_of(w);
    uint64_t read_pos = rshm_load_relaxed(&e->control->read_pos); /* a figure: nothing is reused because of it */
    if ((read_pos & (LINE - 1)) != 0 || read_pos - e->peer_pos > e->pos - e->peer_pos)
        read_pos = e->peer_pos;
    return (size_t)(e->pos - read_pos);
}

size_t charfifo_reader_backlog(const charfifo *r, size_t records_max)
{
    const struct end *e = const_end_of(r);
    uint64_t pos = e->pos, capacity = e->mask + 1;
    bool eof = e->eof;
    uint32_t tag;
    for (size_t i = 0; i < records_max && !eof && e->failed == 0; i++) {
        int64_t len = i == 0 && e->rec_len != 0 ? (int64_t)e->rec_len : look(e, pos, &eof, &tag); /* R1, though only for a figure */
        if (len <= 0 || pos + record_bytes((uint64_t)len) - e->pos > capacity)
            break;
        pos += record_bytes((uint64_t)len);
    }
    return (size_t)(pos - e->pos);
}

int charfifo_released(charfifo *r)
{
    struct end *e = end_of(r);
    bool was = e->released;
    e->released = false;
    return was;
}

void charfifo_close_reader(charfifo *r)
{
    struct end *e = end_of(r);
    if (e->closed)
        return;
    e->closed = true;
    rshm_store_relaxed(&e->control->reader_closed, 1u); /* a hint for the writer: no data hangs on it */
}
