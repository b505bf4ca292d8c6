/* The vectors of tests/conformance against the shipped code of segment and FIFO. Each is a test of its own; make_vectors.py has the format.
 * RSHM_VECTORS: another directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "channel/segment.h"
#include "charfifo.h"

#define VECTORS_MAX 200
#define BYTES_MAX 8192

static size_t from_hex(const char *hex, uint8_t bytes[BYTES_MAX])
{
    size_t n = 0;
    if (strcmp(hex, "-") == 0)
        return 0;
    for (; hex[2 * n] != '\0'; n++) {
        unsigned byte = 0;
        assert_true(n < BYTES_MAX && sscanf(hex + 2 * n, "%2x", &byte) == 1);
        bytes[n] = (uint8_t)byte;
    }
    return n;
}

static void *fifo_memory(const struct rshm_map *map, const char *which, size_t *bytes)
{
    assert_true(strcmp(which, "request") == 0 || strcmp(which, "reply") == 0);
    *bytes = charfifo_memory_bytes(map->ring_bytes);
    return (char *)map->base + (which[2] == 'q' ? map->request_off : map->reply_off);
}

static void read_all(const struct rshm_map *map, const char *which, const char *hex, const char *end)
{
    uint8_t want[BYTES_MAX], got[BYTES_MAX];
    size_t wanted = from_hex(hex, want), n = 0, bytes;
    void *mem = fifo_memory(map, which, &bytes);
    charfifo f;
    ssize_t r;
    assert_int_equal(charfifo_attach_reader(&f, mem, bytes, map->ring_bytes), 0);
    while ((r = charfifo_read(&f, got + n, 1)) > 0) /* a byte at a time: what comes before a violation is still good */
        n++;
    assert_int_equal(n, wanted);
    assert_memory_equal(got, want, n);
    int state = charfifo_poll(&f);
    assert_int_equal(state, strcmp(end, "empty") == 0 ? CHARFIFO_EMPTY : strcmp(end, "end") == 0 ? CHARFIFO_EOF : -EPROTO);
    assert_int_equal(r, state == -EPROTO ? -EPROTO : 0);
}

static void write_one(const struct rshm_map *map, const char *which, const char *hex)
{
    uint8_t what[BYTES_MAX];
    size_t n = from_hex(hex, what), bytes;
    void *mem = fifo_memory(map, which, &bytes);
    charfifo f;
    assert_int_equal(charfifo_attach_writer(&f, mem, bytes, map->ring_bytes), 0);
    assert_int_equal(charfifo_write(&f, what, n), n);
}

static void holds(const struct rshm_map *map, size_t off, const char *hex)
{
    uint8_t want[BYTES_MAX], there[BYTES_MAX];
    size_t n = from_hex(hex, want);
    assert_true(n >= 8 && off + n <= map->bytes);
    memcpy(there, (char *)map->base + off, n);
    memset(there + 5, 0, 3);
    memset(want + 5, 0, 3);
    assert_memory_equal(there, want, n);
}

static void vector(void **state)
{
    char line[2 * BYTES_MAX + 100], word[16], which[16], hex[2 * BYTES_MAX], end[16];
    uint8_t bytes[BYTES_MAX], token[BYTES_MAX];
    struct rshm_map map = {0};
    int fd = memfd_create("vector", MFD_CLOEXEC | MFD_ALLOW_SEALING), seals = 0, steps = 0;
    unsigned long off;
    FILE *f = fopen(*state, "r");
    assert_non_null(f);
    assert_true(fd >= 0);
    while (fgets(line, sizeof line, f) != NULL) {
        if (line[0] == '#')
            continue;
        assert_int_equal(sscanf(line, "%15s", word), 1);
        if (sscanf(line, "size %lu", &off) == 1) {
            assert_int_equal(ftruncate(fd, (off_t)off), 0);
        } else if (sscanf(line, "seals %d", &seals) == 1) {
        } else if (sscanf(line, "token %s", hex) == 1) {
            assert_int_equal(from_hex(hex, token), RSHM_TOKEN_BYTES);
        } else if (sscanf(line, "at %lu %s", &off, hex) == 2) {
            size_t n = from_hex(hex, bytes);
            assert_int_equal(pwrite(fd, bytes, n, (off_t)off), n);
        } else if (sscanf(line, "open %15s", end) == 1) {
            assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
            int r = rshm_segment_open(&map, fd, token);
            if (strcmp(end, "ok") == 0)
                assert_int_equal(r, 0);
            else
                assert_true(r == -EPROTO || r == -EPROTONOSUPPORT || r == -EKEYREJECTED);
            steps++;
        } else if (sscanf(line, "read %15s %s %15s", which, hex, end) == 3) {
            read_all(&map, which, hex, end);
            steps++;
        } else if (sscanf(line, "write %15s %s", which, hex) == 2) {
            write_one(&map, which, hex);
            steps++;
        } else if (sscanf(line, "holds %lu %s", &off, hex) == 2) {
            holds(&map, off, hex);
            steps++;
        } else {
            fail_msg("%s: what is '%s'?", (const char *)*state, word);
        }
    }
    assert_true(steps > 0);
    rshm_segment_unmap(&map);
    close(fd);
    fclose(f);
}

static int is_vector(const struct dirent *d)
{
    const char *dot = strrchr(d->d_name, '.');
    return dot != NULL && strcmp(dot, ".vector") == 0;
}

int main(void)
{
    static struct CMUnitTest tests[VECTORS_MAX];
    static char paths[VECTORS_MAX][512];
    const char *dir = getenv("RSHM_VECTORS") != NULL ? getenv("RSHM_VECTORS") : "tests/conformance";
    struct dirent **found;
    int n = scandir(dir, &found, is_vector, alphasort);
    if (n <= 0 || n > VECTORS_MAX) {
        fprintf(stderr, "no vectors in %s\n", dir);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/%s", dir, found[i]->d_name);
        tests[i] = (struct CMUnitTest){.name = paths[i], .test_func = vector, .initial_state = paths[i]};
        free(found[i]);
    }
    free(found);
    return _cmocka_run_group_tests("conformance", tests, (size_t)n, NULL, NULL);
}
