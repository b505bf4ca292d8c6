/* input.h - numbers out of a fuzzer's input; zeros once it is used up. */
#ifndef RSHM_FUZZ_INPUT_H
#define RSHM_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct input {
    const uint8_t *at;
    size_t left;
};

static inline uint64_t take(struct input *in, size_t n)
{
    uint64_t v = 0;
    if (n > in->left)
        n = in->left;
    memcpy(&v, in->at, n);
    in->at += n;
    in->left -= n;
    return v;
}

static inline uint8_t take_byte(struct input *in)
{
    return (uint8_t)take(in, 1);
}

static inline uint64_t take_u64(struct input *in)
{
    return take(in, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
