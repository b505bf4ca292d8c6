/* The FIFO's reader over memory that an attacker writes, also between its calls.
 *
 * Input: a byte for the capacity, one for where the positions start, then steps of a byte: the upper bits choose (a call, a word to overwrite), the rest
 * of what they need follows. Held to: no access outside of the memory (AddressSanitizer), counts within what was asked for, no call that
 * does not end (libFuzzer's time limit), and a failed reader stays failed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "charfifo.h"
#include "fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    const size_t capacity = (size_t)4096 << take_byte(&in) % 3, bytes = charfifo_memory_bytes(capacity);
    const uint64_t start = (uint64_t)(int8_t)take_byte(&in) * 64; /* near the wrap of the positions too */
    uint8_t *memory = aligned_alloc(64, bytes);
    static uint8_t out[32768];
    charfifo f;
    bool failed = false;

    if (charfifo_init(memory, bytes, capacity, start) != 0 || charfifo_attach_reader(&f, memory, bytes, capacity) != 0)
        abort();
    memset(memory + 128, 0, capacity);
    while (in.left > 0) {
        const uint8_t step = take_byte(&in);
        const void *p;
        ssize_t n = 0;
        switch (step >> 5) {
        case 0: /* a header, somewhere in the data */
        case 1: {
            uint64_t header = step & 16 ? take_u64(&in) : (uint64_t)1 << 32 | (take_u64(&in) & 0x3fff);
            memcpy(memory + 128 + (take_u64(&in) * 64 & (capacity - 1)), &header, sizeof header);
            break;
        }
        case 2: /* anything anywhere */
            memory[take_u64(&in) % bytes] = take_byte(&in);
            break;
        case 3: /* a line of one header each, all around */
            for (uint64_t off = 0, header = (uint64_t)1 << 32 | (1u + (step & 31u)); off < capacity; off += 64)
                memcpy(memory + 128 + off, &header, sizeof header);
            break;
        case 4: {
            const size_t want = take_u64(&in) % sizeof out;
            n = charfifo_read(&f, out, want);
            if (n > (ssize_t)want || (failed && n >= 0 && want > 0))
                abort();
            break;
        }
        case 5:
            n = charfifo_peek(&f, &p);
            if (n > 0) {
                if ((const uint8_t *)p < memory + 128 || (const uint8_t *)p + n > memory + bytes)
                    abort();
                memcpy(out, p, (size_t)n);
                if (charfifo_consume(&f, (size_t)n % ((step & 31u) + 1)) != 0)
                    abort();
            }
            break;
        case 6:
            n = charfifo_used_bytes(&f);
            if (n > (ssize_t)capacity || charfifo_reader_backlog(&f, 256) > capacity)
                abort();
            break;
        default:
            n = charfifo_poll(&f);
            (void)charfifo_released(&f);
        }
        if (n < 0 && n != -EPROTO)
            abort();
        failed |= n < 0;
    }
    charfifo_close_reader(&f);
    free(memory);
    return 0;
}
