/* conn.h - the connections that use, or will use, shared memory, and which descriptors lead to them.
 *
 * Shapes      A connection lies in memory that is shared with fork children: parent and child, or two descriptors of one dup(), are
 *             two ways to the same FIFOs with the same positions, as they would be to one socket. What belongs to a process (the
 *             table of descriptors, epoll registrations) is in its own memory.
 * Ownership   The program owns the descriptors. A connection's slot is free again when the last process has closed the last of them; a
 *             process that was killed, or called exec, keeps the slot (address space, nothing else) until its relatives end.
 * Threads     Any, as for libc's calls. rshm_conn_enter() gives a thread the connection, for the length of one call and never while it
 *             sleeps; a spin lets go as soon as somebody else wants it.
 * Signals     A handler that uses the very connection that it interrupted a call on waits for ever: libc's stdio is no different. */
#ifndef RSHM_PRELOAD_CONN_H
#define RSHM_PRELOAD_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "channel/channel.h"
#include "channel/segment.h"
#include "preload/resp.h"

#define RSHM_FDS_MAX (1 << 18) /* descriptors above are never ours */
#define RSHM_CONNS_MAX (1 << 16)

enum rshm_conn_state {
    RSHM_CONN_CONNECTING, /* connect() is under way */
    RSHM_CONN_OPENING,    /* SHM.OPEN is sent; its reply is yet to come over the socket */
    RSHM_CONN_LOGIN,      /* the server wants a password first: the program's AUTH goes over the socket */
    RSHM_CONN_OPEN,
    RSHM_CONN_FAILED      /* every call fails: --require, or a server that broke the protocol */
};

struct rshm_conn {
    rshm_u32 taken, busy, wanted;
    rshm_u32 processes;     /* that have descriptors of it */
    enum rshm_conn_state state;
    int endpoint;
    bool tcp;
    bool nonblocking;       /* O_NONBLOCK is of the socket, not of the descriptor: shared just so */
    bool dups;              /* there was, some time, more than one descriptor in a process */
    bool dropped;           /* a plain socket again, whoever still has it in his table */
    int failure;            /* errno of FAILED; what SO_ERROR says, once */
    bool failure_told;

    /* while opening */
    uint8_t token[RSHM_TOKEN_BYTES];
    int listener;           /* or -1 */
    size_t stray;           /* bytes on the socket that are the program's, in front of the reply to SHM.OPEN */
    unsigned tries;         /* of SHM.OPEN */
    struct rshm_resp resp;  /* while logging in: what is unanswered */

    /* while open */
    struct rshm_channel ch;
    struct rshm_channel_stats told; /* rshm_report_moved() */
    struct rshm_waiting waiting;
    bool trusted;           /* the program waits in calls that we see. Until then a bell is asked for whenever it could sleep elsewhere */
    bool due;               /* a bell was asked for, whatever there is to read, and has not come yet */
    bool read_shut, write_shut;
    rshm_u32 readers_asleep, writers_asleep; /* threads that sleep on the socket until there is something to read, room to write */
    uint64_t reads, full_writes; /* counted, for edge-triggered waits: epoll.c */
};

struct rshm_poller;
struct rshm_watch;

/* What is known of a descriptor. */
struct rshm_entry {
    _Atomic(struct rshm_conn *) conn;
    struct rshm_watch *watches;  /* its epoll registrations, if it leads to a connection */
    struct rshm_poller *poller;  /* if it is an epoll instance in which such were registered */
    epoll_data_t data;           /* else its last registration, should it become one */
    uint32_t events;
    int epfd;                    /* plus one; 0: none */
};
extern struct rshm_entry rshm_entries[RSHM_FDS_MAX];

static inline struct rshm_entry *rshm_entry(int fd)
{
    return (unsigned)fd < RSHM_FDS_MAX ? &rshm_entries[fd] : NULL;
}

/* The connection of fd, or NULL: libc's affair. One table look-up. */
static inline struct rshm_conn *rshm_conn_of(int fd)
{
    return (unsigned)fd < RSHM_FDS_MAX ? rshm_load_acquire(&rshm_entries[fd].conn) : NULL; /* R4: pairs with W4 in rshm_conn_new() */
}

/* Highest descriptor that ever led to a connection, plus one. */
int rshm_fds_end(void);

/* A connection for fd, which was just connected (or is about to be: CONNECTING). NULL: none to be had, fd stays plain. */
struct rshm_conn *rshm_conn_new(int fd, int endpoint, bool tcp, enum rshm_conn_state state);

/* Takes c, if fd still leads there; fd is the one that bells go through from now on. False: it is closed, or plain by now. */
bool rshm_conn_enter(struct rshm_conn *c, int fd);
void rshm_conn_leave(struct rshm_conn *c);
/* In a spin: lets others have it. False: it is gone, and not entered any more. */
bool rshm_conn_make_way(struct rshm_conn *c, int fd);

/* fd is a plain socket from now on: it and every other descriptor of c. With c entered, which it then is not any more. */
void rshm_conn_drop(struct rshm_conn *c);

/* newfd is another descriptor of what oldfd is; whatever newfd was before is forgotten. */
void rshm_conn_duplicated(int oldfd, int newfd);

/* Before fd is closed (or becomes another file). */
void rshm_conn_closing(int fd);
/* The same for all from first to last. */
void rshm_conn_closing_range(unsigned first, unsigned last);

/* True in a vfork child: it shares this memory, but its descriptors are its own. */
bool rshm_not_this_process(void);

/* True if somebody may be asleep, outside of our calls on c, until fd is readable: with c entered. */
bool rshm_watched_asleep(int fd);

/* Every return to the program goes through here, with c entered: leaves it, and makes sure of a bell if the program may now wait where we
 * do not see it. want: what it was told to wait for, 0 if nothing. */
void rshm_conn_return(struct rshm_conn *c, int fd, int want);

/* After bells were taken off the socket, by somebody who may not be the one they were meant for. With c entered. */
void rshm_conn_pass_on(struct rshm_conn *c, int fd);

/* As rshm_channel_arm(), but a bell that was asked for with "ring back" stays asked for: another thread may sleep until it comes. The flag
 * that asks for it rings for anything else as well. With c entered. */
bool rshm_conn_arm(struct rshm_conn *c, int want);

/* Takes bells off the socket, no waiting. With c entered. */
void rshm_conn_drain(struct rshm_conn *c, int fd);
/* The server broke the protocol: every call fails from now on. With c entered. */
void rshm_conn_break(struct rshm_conn *c);

#endif
