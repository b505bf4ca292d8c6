/* What the client does with the memory that it is handed: seals, header, sizes; then the channel over it, whose every word may change.
 *
 * Input: a byte of flags (which seals, a right header to begin with, size off by a bit), then bytes to overwrite the header with, then what is read and
 * written. Held to: what is accepted is sealed, of the size it says, and mapped whole; nothing outside of it is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/channel.h"
#include "fuzz/input.h"

#define NEEDED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static const uint8_t token[RSHM_TOKEN_BYTES] = "0123456789abcde";

static void use(struct rshm_map *map, struct input *in)
{
    static char buf[8192];
    struct rshm_channel ch;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
    uint8_t *base = (uint8_t *)map->base;
    const size_t bytes = map->bytes;
    if (rshm_channel_init(&ch, RSHM_CLIENT, map, pair[0]) == 0) {
        while (in->left > 0) {
            const uint8_t step = take_byte(in);
            if (step < 96)
                base[take_u64(in) % bytes] = take_byte(in);
            else if (step < 128)
                *(uint32_t *)(void *)(base + (64 + 64 * (step & 3))) = take_byte(in);
            else if (step < 160)
                (void)rshm_channel_write(&ch, buf, take_u64(in) % sizeof buf);
            else if (step < 192)
                (void)rshm_channel_read(&ch, buf, take_u64(in) % sizeof buf);
            else if (step < 224)
                (void)rshm_channel_arm(&ch, 1 + step % 3);
            else if (step < 250)
                rshm_channel_answer_bell(&ch);
            else if (send(pair[1], step & 1 ? "\n" : "x", 1, MSG_DONTWAIT) == 1 || step == 254)
                (void)rshm_channel_drain(&ch, MSG_DONTWAIT);
        }
        rshm_channel_deinit(&ch);
    } else {
        rshm_segment_unmap(map);
    }
    close(pair[0]);
    close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    const uint8_t flags = take_byte(&in);
    struct rshm_map map;
    struct rshm_segment header;
    const size_t ring = (size_t)4096 << (flags & 1);
    int fd = rshm_segment_create(&map, ring, token, -1);
    if (fd < 0)
        return 0; /* no memory: nothing to learn */
    int copy = fd;
    if (flags & 2) { /* a memfd of the attacker's own */
        header = *map.base;
        size_t n = take_byte(&in) % 65;
        for (size_t i = 0; i < n; i++)
            ((uint8_t *)&header)[take_byte(&in) % 64] = take_byte(&in);
        off_t length = (off_t)map.bytes + (flags & 4 ? (int8_t)take_byte(&in) : 0);
        copy = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (copy < 0 || ftruncate(copy, length) != 0 || pwrite(copy, &header, sizeof header, 0) != (ssize_t)sizeof header)
            abort();
        (void)!fcntl(copy, F_ADD_SEALS, flags & 8 ? NEEDED : flags >> 4);
    } else {
        for (size_t n = take_byte(&in) % 65; n > 0; n--)
            ((uint8_t *)map.base)[take_byte(&in) % 64] = take_byte(&in);
    }
    struct rshm_map theirs;
    int r = rshm_segment_open(&theirs, copy, token);
    if (r == 0) {
        if ((fcntl(copy, F_GET_SEALS) & NEEDED) != NEEDED || theirs.bytes != (size_t)lseek(copy, 0, SEEK_END) ||
            theirs.bytes != rshm_segment_bytes(theirs.ring_bytes))
            abort();
        use(&theirs, &in);
    } else if (r > 0 || theirs.base != NULL) {
        abort();
    }
    rshm_segment_unmap(&map);
    if (copy != fd)
        close(copy);
    close(fd);
    return 0;
}
