/* sds.h - the length of a context's output buffer. It is an sds string, and libvalkey does not install the header of that. What is needed
 * of the layout: in front of the string a byte whose three lowest bits tell the width of the length, and before that byte the allocated size and, first,
 * the length, each of that width, packed. */
#ifndef RSHM_VALKEY_SDS_H
#define RSHM_VALKEY_SDS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef char *sds;

static inline size_t sdslen(const char *s)
{
    const unsigned char flags = (unsigned char)s[-1];
    uint8_t n8;
    uint16_t n16;
    uint32_t n32;
    uint64_t n64;
    switch (flags & 7) {
    case 0: return flags >> 3;
    case 1: memcpy(&n8, s - 1 - 2 * sizeof n8, sizeof n8); return n8;
    case 2: memcpy(&n16, s - 1 - 2 * sizeof n16, sizeof n16); return n16;
    case 3: memcpy(&n32, s - 1 - 2 * sizeof n32, sizeof n32); return n32;
    default: memcpy(&n64, s - 1 - 2 * sizeof n64, sizeof n64); return n64;
    }
}

#endif
