/* The FIFO's writer over memory whose read position, flags and data an attacker writes between its calls.
 *
 * Input: capacity and start as in fuzz_fifo_reader.c, then steps. Held to: no access outside of the memory, never more written than the ring holds or
 * than was asked for, and a failed writer stays failed.
 */
#include <errno.h>
#include <stdlib.h>

#include "charfifo.h"
#include "fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    const size_t capacity = (size_t)4096 << take_byte(&in) % 3, bytes = charfifo_memory_bytes(capacity);
    const uint64_t start = (uint64_t)(int8_t)take_byte(&in) * 64;
    uint8_t *memory = aligned_alloc(64, bytes);
    static const uint8_t from[65536];
    uint64_t read_pos = start;
    charfifo f;
    bool failed = false;

    if (charfifo_init(memory, bytes, capacity, start) != 0 || charfifo_attach_writer(&f, memory, bytes, capacity) != 0)
        abort();
    while (in.left > 0) {
        const uint8_t step = take_byte(&in);
        ssize_t n = 0;
        switch (step >> 5) {
        case 0: /* a step forward of a reader, mostly a plausible one */
            read_pos += (uint64_t)(step & 31) * 64;
            memcpy(memory, &read_pos, sizeof read_pos);
            break;
        case 1: /* any read position */
            read_pos = take_u64(&in);
            memcpy(memory, &read_pos, sizeof read_pos);
            break;
        case 2: /* anything anywhere */
            memory[take_u64(&in) % bytes] = take_byte(&in);
            break;
        case 3:
        case 4:
        case 5: {
            const size_t want = take_u64(&in) % sizeof from;
            charfifo_set_tag(&f, (uint32_t)take_byte(&in) * 0x10101);
            n = charfifo_write(&f, from, want);
            if (n > (ssize_t)want || n > (ssize_t)capacity || (failed && n >= 0))
                abort();
            break;
        }
        case 6:
            n = charfifo_free_bytes(&f);
            if (n > (ssize_t)capacity || charfifo_writer_backlog(&f) > capacity)
                abort();
            break;
        default:
            charfifo_prefetch_write(&f);
            if ((step & 31) == 31)
                charfifo_close_writer(&f);
        }
        if (n < 0 && n != -EPROTO && n != -EPIPE)
            abort();
        failed |= n == -EPROTO;
    }
    charfifo_close_writer(&f);
    free(memory);
    return 0;
}
