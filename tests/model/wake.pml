/* wake.pml - the handshake of sleep and wake between a writer that waits for room and a reader that waits for data; for Spin.
 *
 * tests/model/run.sh explores every state of it, and shows that each mutant (a macro below) goes wrong. What stands for what:
 *
 *   writer, reader      rshm_channel_writev(), rshm_channel_read() and rshm_channel_wait() of channel.c, called as a blocking program does
 *   WAKE                wake() of channel.c           W3 is its fence
 *   ARM                 rshm_channel_arm()            R3 is its fence, followed by the second look
 *   memory              what the hardware does with stores: each process has a store buffer in front of the shared memory (TSO, as x86 is
 *                       specified). A store waits in it for as long as it likes; only a full fence or an exchange waits for it.
 *   the socket          counts bells, has room for SOCKET_ROOM of them, and loses one more (ring() ignores EAGAIN). A bell is an entry in
 *                       the store buffer too: all that is assumed of the kernel is that whoever receives the bell sees what was stored
 *                       before it was sent. That a system call is more of a fence than that is not relied on.
 *
 * The FIFO is reduced to counts of lines, each record being one: headers_seen is what the reader's look at the header finds, given is by
 * how much read_pos is ahead of the writer's last look at it. Whether the bytes are right is the matter of other tests.
 *
 * Lost wake-up, as the checker sees it:
 *   - both sleep: an invalid end state, since no sleep is an end;
 *   - one rests, having nothing to do for now, and the world comes to a standstill while the other sleeps although there is something
 *     for it: the assertions behind "timeout", which Promela lets pass only when nothing else can move;
 *   - one has gone, closed or killed at any step whatever, and the other never ends: an invalid end state;
 *   - bells go to and fro and no record moves any more: a non-progress cycle.
 */
#ifndef LINES
#define LINES 8 /* of the ring; one is always free */
#endif
#define QUARTER (LINES / 4)
#ifndef ROOM
#define ROOM (LINES / 8) /* rshm_channel_writable() */
#endif
#ifndef SOCKET_ROOM
#define SOCKET_ROOM 2
#endif
#ifndef DEPTH
#define DEPTH LINES
#endif

mtype = { HEADER, END, READ_POS, READER_WAITS, READER_ALWAYS, READER_AWAKE, WRITER_WAITS, WRITER_AWAKE, READER_CLOSED, BELL, HANGUP };

/* Shared memory and the socket. */
byte headers_seen; /* records that the reader would find */
bool end_seen;     /* the end record, behind them */
byte given;        /* lines given back that the writer has not noticed yet */
bool reader_closed;
#define ALWAYS 3   /* RSHM_RING_ALWAYS */
byte reader_waits;
bool writer_waits;
byte bells_to_reader, bells_to_writer;
bool writer_gone, reader_gone; /* the socket has ended */

chan stores_of_writer = [DEPTH] of { mtype };
chan stores_of_reader = [DEPTH] of { mtype };

/* For the checks only. */
bool reader_sleeps, writer_sleeps;
bool kill_writer, kill_reader;
bool interruption = true; /* one signal or timeout, for whoever takes it */

#ifdef MUTANT
#define STORE(buffer, what) buffer ! what
#else
#define STORE(buffer, what) atomic { assert(nfull(buffer)); buffer ! what } /* so no run was cut short by a full buffer */
#endif
#define FENCE(buffer) empty(buffer)

/* The second half of the memory: stores arrive, in order, whenever they like. */
active proctype memory()
{
end:
    do
    :: atomic { stores_of_writer ? HEADER -> headers_seen++ }
    :: atomic { stores_of_writer ? END -> end_seen = true }
    :: atomic { stores_of_writer ? WRITER_WAITS -> writer_waits = true }
    :: atomic { stores_of_writer ? WRITER_AWAKE -> writer_waits = false }
    :: atomic { stores_of_writer ? BELL -> bells_to_reader = (bells_to_reader < SOCKET_ROOM -> bells_to_reader + 1 : SOCKET_ROOM) }
    :: atomic { stores_of_writer ? HANGUP -> writer_gone = true }
    :: atomic { stores_of_reader ? READ_POS -> given = given + QUARTER; assert(given < LINES) }
    :: atomic { stores_of_reader ? READER_CLOSED -> reader_closed = true }
    :: atomic { stores_of_reader ? READER_WAITS -> reader_waits = 1 }
    :: atomic { stores_of_reader ? READER_ALWAYS -> reader_waits = ALWAYS }
    :: atomic { stores_of_reader ? READER_AWAKE -> reader_waits = 0 }
    :: atomic { stores_of_reader ? BELL -> bells_to_writer = (bells_to_writer < SOCKET_ROOM -> bells_to_writer + 1 : SOCKET_ROOM) }
    :: atomic { stores_of_reader ? HANGUP -> reader_gone = true }
    od
}

/* SIGKILL, at most once, between any two steps of its victim. */
active proctype killer()
{
#ifdef KILL
    if
    :: kill_writer = true
    :: kill_reader = true
    :: true
    fi
#else
    skip
#endif
}

/* wake() for a reader; W3. */
inline wake_reader()
{
#ifndef NO_FENCE_PUBLISH
    FENCE(stores_of_writer);
#endif
    if
    :: reader_waits == 0
#ifndef STANDING_REQUEST_TAKEN
    :: reader_waits == ALWAYS -> STORE(stores_of_writer, BELL)
    :: reader_waits == 1 ->
#else
    :: else ->
#endif
#if defined(STANDING_REQUEST_TAKEN) || defined(EXCHANGED)
        atomic { empty(stores_of_writer) -> flag = (reader_waits != 0); reader_waits = 0 }
#else
        atomic { empty(stores_of_writer) -> flag = (reader_waits != 0); reader_waits = (reader_waits == 1 -> 0 : reader_waits) } /* compare, exchange */
#endif
        if
        :: !flag /* taken back meanwhile */
#ifndef NO_BELL
        :: flag -> STORE(stores_of_writer, BELL)
#else
        :: flag
#endif
        fi
    fi;
    flag = false
}

/* wake() for a writer that give_room() has seen waiting. */
inline wake_writer()
{
    if
    :: !writer_waits
    :: else ->
        atomic { empty(stores_of_reader) -> flag = writer_waits; writer_waits = false }
        if
        :: !flag
        :: flag -> STORE(stores_of_reader, BELL)
        fi
    fi;
    flag = false
}

active proctype writer()
{
    byte room = LINES - 1; /* as far as it knows: writable_bytes() */
    bool wrote, flag, hangup;
    {
        skip; /* a label may not come first here */
call:   /* rshm_channel_writev() */
        if
        :: reader_closed -> goto close /* -EPIPE */
        :: else
        fi;
        do
        :: room == 0 && given > 0 -> d_step { room = given; given = 0 } /* refresh() */
        :: room == 0 && given == 0 -> break                            /* full */
        :: room > 0 ->
#ifdef WAKE_BEFORE_PUBLISHING
            wake_reader();
#endif
            room--;
            wrote = true;
            STORE(stores_of_writer, HEADER)
        :: room > 0 && wrote -> break                                  /* all of it written */
        od;
#ifndef WAKE_BEFORE_PUBLISHING
        if
        :: wrote -> wrote = false; wake_reader()
        :: else
        fi;
#else
        wrote = false;
#endif
        if
        :: room == 0 -> goto wait
        :: room > 0 -> goto call
        :: room > 0 -> /* nothing to write for now */
            timeout;
            assert(!(reader_sleeps && (headers_seen > 0 || end_seen)));
            goto call
        :: true -> goto close
        fi;

wait:   /* rshm_channel_wait(RSHM_WANT_WRITE) */
        if
        :: hangup -> d_step { room = room + given; given = 0 };
            if
            :: room >= ROOM -> goto call
            :: else -> goto close
            fi
        :: else
        fi;
        STORE(stores_of_writer, WRITER_WAITS);                         /* ARM */
#ifndef NO_FENCE_ARM_WRITER
        FENCE(stores_of_writer);
#endif
#ifndef NO_SECOND_LOOK_WRITER
        d_step { room = room + given; given = 0 };
        if
        :: room >= ROOM -> STORE(stores_of_writer, WRITER_AWAKE); goto call
        :: else
        fi;
#endif
#ifdef DRAIN_AFTER_ARM_WRITER
        bells_to_writer = 0;
#endif
        writer_sleeps = true;                                          /* rshm_channel_drain(0) */
        if
        :: atomic { bells_to_writer > 0 -> bells_to_writer = 0; writer_sleeps = false }
        :: atomic { bells_to_writer == 0 && reader_gone -> hangup = true; writer_sleeps = false }
        :: atomic { interruption -> interruption = false; writer_sleeps = false }
        fi;
        d_step { room = room + given; given = 0 };
        if
        :: room < ROOM && !hangup -> goto wait /* a bell from before; or a signal, and the program tries again */
        :: else
        fi;
        STORE(stores_of_writer, WRITER_AWAKE);                         /* rshm_channel_disarm() */
        if
        :: room >= ROOM -> goto call
        :: else /* -EPIPE */
        fi;

close:  STORE(stores_of_writer, END);                                  /* rshm_channel_deinit() */
        STORE(stores_of_writer, HANGUP)
    }
    unless { kill_writer };
    writer_sleeps = false;
    stores_of_writer ! HANGUP
}

active proctype reader()
{
    byte kept; /* lines read but not given back */
    bool took, released, flag, hangup, standing, room_due;
    {
        skip;
call:   /* rshm_channel_read() */
        do
        :: headers_seen > 0 ->
progress:   d_step { headers_seen--; kept++ };
            took = true;
            if
            :: kept == QUARTER -> kept = 0; released = true; STORE(stores_of_reader, READ_POS)
            :: else
            fi
        :: headers_seen == 0 -> break
        :: took -> break                                               /* the caller's buffer is full */
        od;
        if                                                             /* give_room() */
        :: released -> released = false;
#ifndef NO_FENCE_RELEASE
            FENCE(stores_of_reader);
#endif
            if
            :: writer_waits -> room_due = true
            :: else
            fi
        :: else
        fi;
        if
#ifndef NO_WAKE_ON_RELEASE
        :: room_due -> room_due = false; wake_writer()
#endif
        :: room_due && headers_seen > 0 -> skip /* not yet: more will be free soon */
#ifdef ROOM_FORGOTTEN
        :: room_due && headers_seen == 0 -> room_due = false
#endif
#ifdef NO_WAKE_ON_RELEASE
        :: room_due && headers_seen == 0 -> skip
#endif
        :: !room_due
        fi;
        if
        :: took -> took = false;
            if
            :: true -> goto call
            :: true -> /* busy with something else */
                timeout;
                assert(!(writer_sleeps && given >= ROOM && headers_seen == 0)); /* with some left it will come back, and tell the writer then */
                goto call
            :: true -> STORE(stores_of_reader, READER_CLOSED); goto close
            fi
        :: !took && headers_seen == 0 && end_seen -> goto end_of_stream
        :: else
        fi;

        /* rshm_channel_wait(RSHM_WANT_READ) */
        if
        :: hangup && headers_seen > 0 -> goto call
        :: hangup && headers_seen == 0 && !end_seen -> goto end_of_stream
        :: hangup && end_seen -> goto call
        :: !hangup
        fi;
        if
        :: standing -> standing = false; STORE(stores_of_reader, READER_AWAKE) /* about to spin: rshm_channel_stay_awake() */
        :: true
        fi;
wait:   if                                                             /* ARM */
        :: standing
        :: !standing -> STORE(stores_of_reader, READER_WAITS)
        :: !standing -> standing = true; STORE(stores_of_reader, READER_ALWAYS)
        fi;
#ifndef NO_FENCE_ARM_READER
        FENCE(stores_of_reader);
#endif
#ifndef NO_SECOND_LOOK_READER
        if
        :: headers_seen > 0 || end_seen -> standing = false; STORE(stores_of_reader, READER_AWAKE); goto call
        :: else
        fi;
#endif
#ifdef DRAIN_AFTER_ARM_READER
        bells_to_reader = 0;
#endif
        reader_sleeps = true;                                          /* rshm_channel_drain(0) */
        if
        :: atomic { bells_to_reader > 0 -> bells_to_reader = 0; reader_sleeps = false }
        :: atomic { bells_to_reader == 0 && writer_gone -> hangup = true; reader_sleeps = false }
        :: atomic { interruption -> interruption = false; reader_sleeps = false }
        fi;
        if
        :: headers_seen == 0 && !end_seen && !hangup -> goto wait
        :: else
        fi;
        if
        :: standing
        :: !standing -> STORE(stores_of_reader, READER_AWAKE)          /* rshm_channel_disarm() */
        fi;
#ifdef END_BEFORE_THE_REST
        if
        :: hangup -> goto end_of_stream
        :: else
        fi;
#endif
        goto call;

end_of_stream:
        assert(headers_seen == 0); /* what was written before the end is read before the end */
close:  STORE(stores_of_reader, HANGUP)
    }
    unless { kill_reader };
    reader_sleeps = false;
    stores_of_reader ! HANGUP
}
