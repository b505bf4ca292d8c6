/* hdrlog.h - histograms in the log format of HdrHistogram, version 1.3: a text line an interval, with its counts compressed (V2 encoding, zlib,
 * base64). The tools of HdrHistogram read it: HistogramLogProcessor, its plotter on the web, and the libraries in many languages.
 *
 * Shapes      Values are nanoseconds; the column Interval_Max is in milliseconds, as in everybody's logs. */
#ifndef RSHM_HDRLOG_H
#define RSHM_HDRLOG_H

#include <stdio.h>

#include "tools/histogram.h"

/* The third field of a line: *text is the caller's, to be freed. 0, -ENOMEM, or -EIO if zlib fails. */
int rshm_hdrlog_encode(const struct rshm_histogram *h, char **text);

/* start_s: since the epoch, what the lines' times count from. comment: one line, or NULL. */
void rshm_hdrlog_head(FILE *to, double start_s, const char *comment);

/* tag: without commas, blanks and line ends. begin_s: since start_s. */
void rshm_hdrlog_line(FILE *to, const char *tag, double begin_s, double length_s, double max_ns, const char *text);

#endif
