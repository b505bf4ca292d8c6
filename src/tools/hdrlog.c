/* hdrlog.c - see hdrlog.h. */
#include "tools/hdrlog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#define COOKIE_V2 0x1c849313u            /* the base cookie of V2, and that counts are ZigZag LEB128 of any width */
#define COOKIE_V2_COMPRESSED 0x1c849314u
#define HEAD_BYTES 40
#define LEB128_BYTES_MAX 9

static void put32(unsigned char *to, uint32_t n)
{
    for (int i = 3; i >= 0; i--, n >>= 8)
        to[i] = (unsigned char)n;
}

static void put64(unsigned char *to, uint64_t n)
{
    put32(to, (uint32_t)(n >> 32));
    put32(to + 4, (uint32_t)n);
}

/* Seven bits a byte, low ones first; a ninth byte takes eight. */
static size_t put_zigzag(unsigned char *to, int64_t value)
{
    uint64_t n = (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
    size_t i = 0;
    for (; i < LEB128_BYTES_MAX - 1 && n >= 0x80; i++, n >>= 7)
        to[i] = (unsigned char)(n | 0x80);
    to[i] = (unsigned char)n;
    return i + 1;
}

/* Counts up to the last that is not zero; a run of zeros is its length, negative. */
static size_t put_counts(unsigned char *to, const struct rshm_histogram *h)
{
    size_t used = h->count == 0 ? 0 : rshm_histogram_bucket(h->max_ns) + 1, n = 0;
    for (size_t i = 0; i < used;) {
        size_t zeros = 0;
        while (i + zeros < used && h->counts[i + zeros] == 0)
            zeros++;
        n += put_zigzag(to + n, zeros > 0 ? -(int64_t)zeros : (int64_t)h->counts[i]);
        i += zeros > 0 ? zeros : 1;
    }
    return n;
}

static void put_base64(char *to, const unsigned char *from, size_t bytes)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes; i += 3) {
        uint32_t group = (uint32_t)from[i] << 16;
        group |= i + 1 < bytes ? (uint32_t)from[i + 1] << 8 : 0;
        group |= i + 2 < bytes ? (uint32_t)from[i + 2] : 0;
        for (int n = 0; n < 4; n++)
            *to++ = i + (size_t)n > bytes ? '=' : letters[group >> (18 - 6 * n) & 63];
    }
    *to = '\0';
}

int rshm_hdrlog_encode(const struct rshm_histogram *h, char **text)
{
    size_t room = HEAD_BYTES + rshm_histogram_buckets() * LEB128_BYTES_MAX;
    uLongf packed_bytes = compressBound(room);
    unsigned char *plain = malloc(room), *packed = malloc(8 + packed_bytes);
    const double ratio = 1;
    uint64_t ratio_bits;
    int r = plain == NULL || packed == NULL ? -ENOMEM : 0;
    *text = NULL;
    if (r == 0) {
        size_t counts_bytes = put_counts(plain + HEAD_BYTES, h);
        memcpy(&ratio_bits, &ratio, sizeof ratio_bits);
        put32(plain, COOKIE_V2);
        put32(plain + 4, (uint32_t)counts_bytes);
        put32(plain + 8, 0);                     /* normalizing index offset */
        put32(plain + 12, 3);                    /* significant digits */
        put64(plain + 16, 1);                    /* lowest value */
        put64(plain + 24, RSHM_HISTOGRAM_MAX_NS);
        put64(plain + 32, ratio_bits);           /* integer to double */
        if (compress(packed + 8, &packed_bytes, plain, HEAD_BYTES + counts_bytes) != Z_OK)
            r = -EIO;
    }
    if (r == 0) {
        put32(packed, COOKIE_V2_COMPRESSED);
        put32(packed + 4, (uint32_t)packed_bytes);
        *text = malloc((8 + packed_bytes + 2) / 3 * 4 + 1);
        r = *text == NULL ? -ENOMEM : 0;
    }
    if (r == 0)
        put_base64(*text, packed, 8 + packed_bytes);
    free(plain);
    free(packed);
    return r;
}

void rshm_hdrlog_head(FILE *to, double start_s, const char *comment)
{
    char date[64] = "";
    time_t t = (time_t)start_s;
    struct tm utc;
    if (gmtime_r(&t, &utc) != NULL)
        strftime(date, sizeof date, "%a %b %d %H:%M:%S UTC %Y", &utc);
    if (comment != NULL)
        fprintf(to, "#[%s]\n", comment);
    fprintf(to, "#[Histogram log format version 1.3]\n#[BaseTime: %.3f (seconds since epoch)]\n#[StartTime: %.3f (seconds since epoch), %s]\n"
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
            start_s, start_s, date);
}

void rshm_hdrlog_line(FILE *to, const char *tag, double begin_s, double length_s, double max_ns, const char *text)
{
    fprintf(to, "Tag=%s,%.3f,%.3f,%.3f,%s\n", tag, begin_s, length_s, max_ns / 1e6, text);
}
