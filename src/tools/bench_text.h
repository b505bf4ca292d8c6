/* bench_text.h - the name of a row, the same in table, chart and files. */
#ifndef RSHM_BENCH_TEXT_H
#define RSHM_BENCH_TEXT_H

#include <stdarg.h>
#include <stddef.h>

struct rshm_bench;
struct rshm_bench_row;

/* "shm poll c=10": the transport, and what tells it from the other rows. Returns text. */
const char *rshm_bench_label(const struct rshm_bench *b, const struct rshm_bench_row *row, char *text, size_t text_bytes);

#endif
