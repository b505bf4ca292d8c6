/* nonblocking.pml - the reader that never sleeps itself: a non-blocking hiredis context under an event loop; for Spin.
 *
 * The event loop waits for the socket to become readable, then the application reads some of what is there, or all, and returns to the
 * loop. So at every return a bell must be there, or be on its way, or be sure to come with the next reply: the states `due` and `armed` of
 * client.h, must_look_again() and read_nonblocking() of transport.c, and "ring back" (rshm_channel_request_bell(),
 * rshm_channel_answer_bell()). The other side is the server: it publishes replies when it likes (rshm_channel_writev()), and takes bells off
 * the socket (rshm_session_drain()) when they have come.
 *
 * The client's confirmation goes out before its first wait flag goes up: what the server pushes in between (mutant
 * OPENED_WITHOUT_A_BELL) is as unannounced as what a read leaves behind.
 *
 * Store buffers, socket, and what counts as a lost wake-up: as in wake.pml.
 */
#ifndef REPLIES
#define REPLIES 3 /* unread at most */
#endif
#ifndef SOCKET_ROOM
#define SOCKET_ROOM 2
#endif
#ifndef DEPTH
#define DEPTH 6
#endif
#define RING_BACK 2
#define ALWAYS 3

mtype = { HEADER, WAITS, WAITS_ALWAYS, AWAKE, ASK, BELL, HANGUP };

byte headers_seen;
byte unread; /* for the bound: published, also those still in the buffer */
byte reader_waits;
byte bells_to_client, bells_to_server;
bool server_gone;

chan stores_of_server = [DEPTH] of { mtype };
chan stores_of_client = [DEPTH] of { mtype };

bool client_polls, kill_server;

#ifdef MUTANT
#define STORE(buffer, what) buffer ! what
#else
#define STORE(buffer, what) atomic { assert(nfull(buffer)); buffer ! what }
#endif
#define FENCE(buffer) empty(buffer)
#define OWN_STORES_ARRIVED assert(!(stores_of_client ?? [WAITS] || stores_of_client ?? [WAITS_ALWAYS] || stores_of_client ?? [AWAKE] || stores_of_client ?? [ASK]))

active proctype memory()
{
end:
    do
    :: atomic { stores_of_server ? HEADER -> headers_seen++ }
    :: atomic { stores_of_server ? BELL -> bells_to_client = (bells_to_client < SOCKET_ROOM -> bells_to_client + 1 : SOCKET_ROOM) }
    :: atomic { stores_of_server ? HANGUP -> server_gone = true }
    :: atomic { stores_of_client ? WAITS -> reader_waits = 1 }
    :: atomic { stores_of_client ? WAITS_ALWAYS -> reader_waits = ALWAYS }
    :: atomic { stores_of_client ? AWAKE -> reader_waits = 0 }
    :: atomic { stores_of_client ? ASK -> reader_waits = RING_BACK }
    :: atomic { stores_of_client ? BELL -> bells_to_server = (bells_to_server < SOCKET_ROOM -> bells_to_server + 1 : SOCKET_ROOM) }
    od
}

active proctype killer()
{
    if
    :: kill_server = true
    :: true
    fi
}

/* Compare, exchange and the bell, of wake() and of rshm_channel_answer_bell(). flag: what the look has found. */
inline take_flag_and_ring()
{
#ifdef EXCHANGED
    atomic { empty(stores_of_server) -> flag = reader_waits; reader_waits = 0 }
#else
    atomic { empty(stores_of_server) ->
        if
        :: flag == reader_waits -> reader_waits = 0
        :: else -> flag = reader_waits
        fi
    }
#endif
    if
    :: flag == 0
    :: flag != 0 -> flag = 0; STORE(stores_of_server, BELL)
    fi
}

active proctype server()
{
    byte flag;
    {
        bells_to_server > 0; /* rshm_session_settle(): takes one byte, the confirmation */
        bells_to_server--;
        do
        :: unread < REPLIES -> /* rshm_channel_writev() */
            unread++;
            STORE(stores_of_server, HEADER);
#ifndef NO_FENCE_PUBLISH
            FENCE(stores_of_server);
#endif
            flag = reader_waits;
            if
            :: flag == 0
#ifndef STANDING_REQUEST_TAKEN
            :: flag == ALWAYS -> flag = 0; STORE(stores_of_server, BELL)
#endif
            :: else -> take_flag_and_ring()
            fi
        :: bells_to_server > 0 -> /* rshm_session_drain() */
            bells_to_server = 0;
#ifndef BELL_NOT_ANSWERED
            if
            :: reader_waits == RING_BACK -> flag = RING_BACK;
                atomic { empty(stores_of_server) ->
                    if
                    :: flag == reader_waits -> reader_waits = 0
                    :: else -> flag = 0
                    fi
                }
                if
                :: flag == 0
                :: else -> flag = 0; STORE(stores_of_server, BELL)
                fi
            :: else
            fi
#endif
        :: timeout -> /* it has nothing to say for now, and everything has come to rest */
            assert(!(client_polls && headers_seen > 0))
        od
    }
    unless { kill_server };
    stores_of_server ! HANGUP
}

/* rshm_channel_arm(RSHM_WANT_READ): sets armed. */
inline arm()
{
    if
    :: standing
    :: !standing -> STORE(stores_of_client, WAITS)
    :: !standing -> standing = true; STORE(stores_of_client, WAITS_ALWAYS)
    fi;
#ifndef NO_FENCE_ARM
    FENCE(stores_of_client);
#endif
#ifndef NO_SECOND_LOOK
    if
    :: headers_seen == 0 -> armed = true
    :: else -> standing = false; STORE(stores_of_client, AWAKE); armed = false
    fi
#else
    armed = true
#endif
}

/* rshm_channel_request_bell() */
inline request_bell()
{
    standing = false;
#ifdef BELL_NOT_REQUESTED
    skip
#else
#ifdef RING_BEFORE_ASKING
    STORE(stores_of_client, BELL);
    STORE(stores_of_client, ASK)
#else
    STORE(stores_of_client, ASK);
    STORE(stores_of_client, BELL)
#endif
#endif
}

/* must_look_again(): sets again. */
inline must_look_again()
{
    again = true;
    if
    :: atomic { bells_to_client > 0 -> bells_to_client = 0 }
#ifdef BELL_REMEMBERED
        again = !(armed || due) /* as if what was announced once stayed announced */
#endif
    :: atomic { bells_to_client == 0 && server_gone -> hangup = true }
    :: bells_to_client == 0 && !server_gone ->
        if
        :: armed -> OWN_STORES_ARRIVED;
            if
            :: reader_waits != 0 -> again = false
            :: else -> d_step { armed = false; due = true; again = false }
            fi
        :: !armed && due -> again = false
        :: else
        fi
    fi;
    if
    :: again ->
        due = false;
        arm();
        again = !armed
    :: else
    fi;
#ifdef DRAIN_AFTER_ARM
    bells_to_client = 0;
#endif
}

active proctype client()
{
    bool armed, due, standing, hangup, again, took, unasked = true;

    STORE(stores_of_client, BELL); /* attach(): the confirmation. From here on the server may publish */
    arm();                         /* rshm_client_opened() */
#ifndef OPENED_WITHOUT_A_BELL
    if
    :: !armed -> request_bell(); due = true
    :: else
    fi;
#endif
loop:
    if
    :: true -> /* the event loop; level-triggered */
        client_polls = true;
        atomic { bells_to_client > 0 || server_gone -> client_polls = false; unasked = true }
    :: unasked -> unasked = false /* a read that no event asked for; once, or it could go on for ever */
    fi;

read: /* read_nonblocking() */
    do
    :: headers_seen > 0 ->
progress:
        d_step { headers_seen--; unread--; took = true }
    :: headers_seen == 0 || took -> break /* nothing there, or the buffer is full */
    od;
    if
    :: took -> took = false;
#ifndef LEFT_UNANNOUNCED
        if
        :: !armed && !due ->
            must_look_again();
            if
            :: again -> request_bell(); due = true
            :: else
            fi
        :: else
        fi;
#endif
        goto loop
    :: !took && headers_seen == 0 && hangup -> goto done /* -EPIPE */
    :: else
    fi;
    must_look_again();
    if
    :: again || hangup -> goto read
#ifdef BELLS_FOR_NOTHING
    :: else -> d_step { armed = false; due = true }; request_bell(); goto loop
#else
    :: else -> goto loop
#endif
    fi;

done:
    assert(headers_seen == 0) /* what was written before the end is read before the end */
}
