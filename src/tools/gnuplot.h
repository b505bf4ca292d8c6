/* gnuplot.h - charts are drawn by gnuplot, from a script with the figures in it. */
#ifndef RSHM_GNUPLOT_H
#define RSHM_GNUPLOT_H

#define RSHM_NO_GNUPLOT 127

/* Runs gnuplot on a script, in dir; its standard output, where a script without `set output` draws, goes to out_fd, or nowhere if that is -1. Its exit status; RSHM_NO_GNUPLOT if it is not installed; -EINTR if a
 * signal asked this process to end; or -errno. */
int rshm_gnuplot_run(const char *dir, const char *script, int out_fd);

#endif
