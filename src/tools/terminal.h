/* terminal.h - whether output goes to a person, and a screen that leaves the terminal as it was.
 *
 * Colours and live lines only where isatty() says so and TERM is not "dumb"; NO_COLOR in the environment turns colours off.
 *
 * The screen is the terminal's alternate one, without a cursor, with keys coming at once and unechoed. One a process. Whoever opens it
 * closes it on every way out (signals only raise a flag, stop.h); exit() closes it too. Ctrl-Z gives the terminal back meanwhile. */
#ifndef RSHM_TERMINAL_H
#define RSHM_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

bool rshm_terminal_live(FILE *to);
bool rshm_terminal_colours(FILE *to);

/* On stdin and stdout. 0, or -errno: they are no terminal that can do this. */
int rshm_screen_open(void);
void rshm_screen_close(void);

/* Lines and columns as they are now. */
void rshm_screen_size(int *lines, int *columns);

/* Waits up to timeout_ms for a key. Its byte, or 0: none (the time is over, a signal came, the window has another size). -EIO: the
 * terminal is gone. */
int rshm_screen_key(int timeout_ms);

#endif
