/* witness.h - those who must not notice: a well-behaved client over shared memory and one over a socket, at work in threads of their own
 * while somebody misbehaves, and the server's resources before and after.
 */
#ifndef RSHM_VILLAIN_WITNESS_H
#define RSHM_VILLAIN_WITNESS_H

#include "villain/peer.h"

#define RULE_SOCKET "only doorbells may travel on the socket after SHM.OPEN"
#define RULE_REQUEST "the request FIFO holds what no correct client writes"
#define RULE_REPLY "the reply FIFO's read position is one no correct client writes"

/* cmocka's setup and teardown of a group: one server, its witnesses, its resources. The teardown fails if a reply was wrong or late, or if
 * fds, mappings, sessions or memory are not what they were. Prints the witness' p99, alone and beside the villain. */
int villain_setup(void **state);
int villain_teardown(void **state);
/* run_over_both() with these; TEST_FILTER='a record*' in the environment: only those. */
int villain_run(const struct named_test *tests, size_t n);
extern struct server villain_server;

/* How far the server's log is. */
long log_mark(void);
/* Waits up to 5 s: since mark exactly one connection was closed for breaking a rule, and it was this one. */
void expect_rule(long mark, const char *rule);
/* Since mark no connection was closed for breaking a rule. */
void expect_no_rule(long mark);
/* The witnesses' next replies are right, and come within 5 s each. */
void expect_service(void);
/* Closed, for this rule, and nobody else noticed; ends the peer. */
void expect_punished(struct peer *p, long mark, const char *rule);
/* Still served, and nothing in the log; ends the peer. */
void expect_harmless(struct peer *p, long mark);

#endif
