/* json.h - writes JSON, indented, to a stream. A name of NULL is for the elements of an array and for the outermost value.
 * Errors of the stream stay with the stream: ask ferror() at the end. */
#ifndef RSHM_JSON_H
#define RSHM_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct rshm_json {
    FILE *to;
    int depth;
    bool follows; /* a value stands before on this level: a comma is due */
};

void rshm_json_open(struct rshm_json *j, const char *name, char bracket); /* '{' or '[' */
void rshm_json_close(struct rshm_json *j, char bracket);                  /* '}' or ']' */
void rshm_json_string(struct rshm_json *j, const char *name, const char *value); /* bytes outside ASCII become '?' */
void rshm_json_integer(struct rshm_json *j, const char *name, uint64_t value);
void rshm_json_number(struct rshm_json *j, const char *name, double value, int decimals); /* null if not finite */
void rshm_json_bool(struct rshm_json *j, const char *name, bool value);

#endif
