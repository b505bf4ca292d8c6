/* SHM.OPEN's arguments, and a row of CLIENT LIST, out of any bytes.
 *
 * Input: a byte for the number of arguments, then each as a length and its bytes; the rest is a row. Each text lies at the end of an allocation of its own, so
 * that a look behind it is seen. Held to: what is accepted is what docs/protocol.md says.
 */
#include <stdlib.h>

#include "fuzz/input.h"
#include "module/open_args.h"

static char *own_copy(struct input *in, size_t n)
{
    if (n > in->left)
        n = in->left;
    char *s = malloc(n + 1); /* never malloc(0) */
    if (s == NULL)
        abort();
    memcpy(s + 1, in->at, n);
    in->at += n;
    in->left -= n;
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct rshm_open_arg args[RSHM_OPEN_ARGS];
    char *copies[RSHM_OPEN_ARGS];
    struct rshm_open_request r;
    const int argc = 3 + take_byte(&in) % 4;
    long long value = -1;

    for (int i = 0; i < argc; i++) {
        size_t n = take_byte(&in), had = in.left;
        copies[i] = own_copy(&in, n);
        args[i].s = copies[i] + 1;
        args[i].n = had - in.left;
    }
    if (rshm_open_parse(args, argc, &r) == RSHM_OPEN_FINE) {
        if (args[1].n != 1 || *args[1].s != '2' || args[2].n != RSHM_TOKEN_HEX || r.mode > 0777 || r.mode < -1)
            abort();
        if ((r.rendezvous != NULL) != (argc == 4 || argc == 6) || (r.mode >= 0) != (argc >= 5))
            abort();
        if (r.rendezvous != NULL && (r.rendezvous_bytes > RSHM_RENDEZVOUS_MAX || memcmp(r.rendezvous, RSHM_RENDEZVOUS_PREFIX, 10) != 0))
            abort();
    }
    const size_t n = in.left;
    char *row = own_copy(&in, n);
    (void)rshm_row_field(row + 1, row + 1 + n, "fd=", &value);
    (void)rshm_row_field(row + 1, row + 1 + n, "qbuf=", &value);
    free(row);
    for (int i = 0; i < argc; i++)
        free(copies[i]);
    return 0;
}
