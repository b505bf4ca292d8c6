/* run_program.h - whether a preload library will be loaded into a command, before it is started. */
#ifndef RSHM_RUN_PROGRAM_H
#define RSHM_RUN_PROGRAM_H

#include <stddef.h>

/* Looks at the program that `name` (found as execvp() would), or the interpreter of the script it is, leads to. Returns 0: it will, or nobody
 * can tell; 1 with the reason in why: it will not, or it will be of no use; -errno: there is no such command, or it is not executable. Reads
 * files; any thread. */
int rshm_run_look_at(const char *name, char *why, size_t why_bytes);

#endif
