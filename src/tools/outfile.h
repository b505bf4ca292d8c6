/* outfile.h - a file that is there whole or not at all: written as FILE.XXXXXX beside it and renamed at the end.
 *
 * Use         open all of them before the work begins, so that one that cannot be written is known then. "-" is standard output; what is no
 *             regular file (a pipe, /dev/stdout) is written directly. */
#ifndef RSHM_OUTFILE_H
#define RSHM_OUTFILE_H

#include <limits.h>
#include <stdio.h>

struct rshm_outfile {
    const char *path; /* the caller's; NULL: not open */
    char draft[PATH_MAX];
    FILE *to;
};

/* 0, or -errno after a message. */
int rshm_outfile_open(struct rshm_outfile *f, const char *path);

/* Closes it and gives it its name. 0, or -errno after a message; then the file is as it was before. */
int rshm_outfile_commit(struct rshm_outfile *f);

/* Closes it and forgets the draft; also on one that is all zero, or committed. */
void rshm_outfile_drop(struct rshm_outfile *f);

#endif
