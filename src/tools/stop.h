/* stop.h - ending early: SIGINT, SIGTERM and SIGHUP only raise a flag, so that whoever started something cleans it up.
 *
 * Use         rshm_stop_catch() first; long loops ask rshm_stop_signal(); when all is cleaned up, rshm_stop_die().
 * Signals     SIGHUP stays ignored if it was when the tool started (nohup). SIGINT is caught even if a script's shell had it
 *             ignored for a background job: who sends it wants an end. SIGPIPE is ignored from then on: a dead server must be
 *             an error of its connection, and a closed pager no reason to leave files.
 * Children    call rshm_stop_child() first thing after fork(). */
#ifndef RSHM_STOP_H
#define RSHM_STOP_H

#include <sys/types.h>

void rshm_stop_catch(void);

/* The signal that asks this process to end, or 0. Safe anywhere. */
int rshm_stop_signal(void);

/* Dies of rshm_stop_signal(), so that the shell sees what happened; returns if there was none. */
void rshm_stop_die(void);

/* In a forked child: default signals, a process group of its own (the terminal's Ctrl-C is for the tool, which ends its children
 * in order), and SIGKILL when the parent dies, whatever it dies of. Ends the child if the parent is dead already. */
void rshm_stop_child(pid_t parent);

/* Ends a child: SIGTERM, after patience_ms SIGKILL, and reaps it. */
void rshm_stop_end_child(pid_t pid, int patience_ms);

void rshm_sleep_ms(int ms);

#endif
