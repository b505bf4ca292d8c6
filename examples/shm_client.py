#!/usr/bin/env python3
"""shm_client.py - a Redis client over shared memory in pure Python; docs/protocol.md is all that it needs.

    python3 shm_client.py [PATH | HOST PORT] [COMMAND ARGUMENT...]        by default 127.0.0.1 6379 PING

It shows that another language needs no C of ours: mmap, memoryview, socket and a lock are enough. It is no driver: one thread, blocking calls. It
runs on x86-64 only: Python has no memory barriers, and there plain stores keep their order; the two full fences are those of a lock.

    c = Connection(path="/tmp/redis.sock")      or Connection("127.0.0.1", 6379)
    c.use_shared_memory()                       raises ErrorReply if the server refuses; c goes on as the socket it was
    c.command("SET", "key", "value")            replies are bytes, int, None, list, ...; an error reply raises ErrorReply
    c.pushes                                    push messages of RESP3 that came meanwhile
"""
import collections
import fcntl
import mmap
import os
import secrets
import socket
import struct
import sys
import threading

VERSION = 2
MAGIC = b"RSHM\r\n\x1a\x00"
HEADER_BYTES = 320
RING_MIN, RING_MAX = 4096, 1 << 30
LINE = 64
BELL = b"\n"
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SHRINK") else 7
F_GET_SEALS = getattr(fcntl, "F_GET_SEALS", 1034)
LOOKS = 200  # at an empty FIFO before sleeping

# Words of the segment's header, as indexes of 4 bytes.
REQUEST_READER_WAITS, REQUEST_WRITER_WAITS, REPLY_READER_WAITS, REPLY_WRITER_WAITS = 64 // 4, 128 // 4, 192 // 4, 256 // 4
RING_ALWAYS = 3

_lock = threading.Lock()


def full_fence():
    """Taking a lock that is free is a locked instruction, which is a full fence on x86."""
    _lock.acquire()
    _lock.release()


class ErrorReply(Exception):
    """What the server answered with an error."""


class ProtocolError(Exception):
    """The other side broke a rule of docs/protocol.md; the connection is of no more use."""


class Push(list):
    """A push message of RESP3."""


# ---- the segment ----

def fifo_bytes(ring_bytes):
    return (ring_bytes + 128 + 4095) // 4096 * 4096


def check_segment(header, size, seals, token):
    """header: the first 64 bytes, copied. Returns (ring_bytes, request_off, reply_off), or raises ProtocolError."""
    if seals & SEALS != SEALS:
        raise ProtocolError("the memory is not sealed")
    if len(header) < 64:
        raise ProtocolError("the memory is too small")
    magic, version, header_bytes, segment_bytes, ring_bytes, request_off, reply_off, its_token = struct.unpack("<8sIIQQQQ16s", header[:64])
    if magic != MAGIC:
        raise ProtocolError("the memory is no segment")
    if version != VERSION:
        raise ProtocolError(f"the segment has version {version}")
    if its_token != token:
        raise ProtocolError("the segment is another connection's")
    if not RING_MIN <= ring_bytes <= RING_MAX or ring_bytes & (ring_bytes - 1):
        raise ProtocolError("ring_bytes is not a power of two from 4096 to 2^30")
    f = fifo_bytes(ring_bytes)
    if (header_bytes, segment_bytes, request_off, reply_off) != (HEADER_BYTES, 4096 + 2 * f, 4096, 4096 + f) or size != segment_bytes:
        raise ProtocolError("the segment's sizes do not fit together")
    return ring_bytes, request_off, reply_off


class Fifo:
    """What both ends know. view: a memoryview of bytes over the whole segment, writable. Items of the casts are loaded and stored at once."""

    def __init__(self, view, off, ring_bytes):
        self.view, self.words, self.halves = view, view.cast("Q"), view.cast("I")
        self.off, self.data, self.ring = off, off + 128, ring_bytes
        self.mask = ring_bytes - 1

    def read_pos(self):
        return self.words[self.off // 8]

    def release(self):
        self.words.release()
        self.halves.release()


class Reader(Fifo):
    def __init__(self, view, off, ring_bytes):
        super().__init__(view, off, ring_bytes)
        self.pos = self.stored = self.read_pos()
        if self.pos % LINE:
            raise ProtocolError("read_pos is not at a line")
        self.ended = False
        self.gave_back = False  # whether read_pos was stored; whoever asks sets it to False

    def ready(self):
        return self.ended or self.words[(self.data + (self.pos & self.mask)) // 8] != 0

    def read(self):
        """The next record's payload, b"" if there is none now or ever (ended). Raises ProtocolError."""
        at = self.pos & self.mask
        header = self.words[(self.data + at) // 8]  # once; only this copy counts from here on
        if header == 0 or self.ended:
            return b""
        length, kind = header & 0xFFFFFFFF, header >> 32 & 0xFF
        if kind == 2 and length == 0:
            self.ended = True
            return b""
        if kind != 1 or not 1 <= length <= self.ring // 4 - 8 or at + 8 + length > self.ring:
            raise ProtocolError(f"record of kind {kind} with {length} bytes at {at}")
        payload = bytes(self.view[self.data + at + 8:self.data + at + 8 + length])
        self.pos = (self.pos + (8 + length + LINE - 1) // LINE * LINE) % 2**64
        if (self.pos - self.stored) % 2**64 >= self.ring // 4:
            self.words[self.off // 8] = self.stored = self.pos
            self.gave_back = True
        return payload


class Writer(Fifo):
    def __init__(self, view, off, ring_bytes):
        super().__init__(view, off, ring_bytes)
        self.pos = self.known = self.read_pos()  # known: the last read_pos that was looked at
        if self.pos % LINE:
            raise ProtocolError("read_pos is not at a line")

    def _look(self):
        pos = self.read_pos()
        if pos % LINE or (pos - self.known) % 2**64 > (self.pos - self.known) % 2**64:
            raise ProtocolError("read_pos is where no reader can be")
        self.known = pos

    def room(self):
        """Bytes, headers and padding included, that records may take now; a line stays free."""
        return self.ring - LINE - (self.pos - self.known) % 2**64

    def ready(self):
        """Room for an eighth of the ring."""
        if self.room() < self.ring // 8:
            self._look()
        return self.room() >= self.ring // 8

    def closed(self):
        return self.halves[(self.off + 8) // 4] != 0

    def write(self, data):
        """Writes one record of some of data; returns of how many bytes, 0 if there is no room. Raises ProtocolError."""
        if self.room() < LINE or self.room() < min(8 + len(data), self.ring // 4):
            self._look()
        at = self.pos & self.mask
        n = min(len(data), self.ring // 4 - 8, self.ring - at - 8, self.room() - 8)
        if n <= 0:
            return 0
        self.view[self.data + at + 8:self.data + at + 8 + n] = data[:n]
        behind = (self.pos + (8 + n + LINE - 1) // LINE * LINE) % 2**64
        self.words[(self.data + (behind & self.mask)) // 8] = 0
        self.words[(self.data + at) // 8] = 1 << 32 | n  # last: this publishes the record. The tag is 0: nothing known
        self.pos = behind
        return n


# ---- the Redis protocol ----

def encode(args):
    parts = [a if isinstance(a, (bytes, bytearray)) else str(a).encode() for a in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def parse():
    """A generator that is sent bytes as they come; yields None while it needs more, else a reply (in a 1-tuple)."""
    buffer = bytearray()

    def more():
        data = yield None
        buffer.extend(data)

    def line():
        start = 0
        while (end := buffer.find(b"\r\n", start)) < 0:
            start = max(0, len(buffer) - 1)
            yield from more()
        text = bytes(buffer[:end])
        del buffer[:end + 2]
        return text

    def value():
        text = yield from line()
        kind, rest = text[:1], text[1:]
        if kind in b"$=!" and rest != b"-1":
            n = int(rest)
            while len(buffer) < n + 2:
                yield from more()
            data = bytes(buffer[:n])
            del buffer[:n + 2]
            return ErrorReply(data.decode(errors="replace")) if kind == b"!" else data[4:] if kind == b"=" else data
        if kind in b"*~>%|" and rest != b"-1":
            items = []
            for _ in range(int(rest) * (2 if kind in b"%|" else 1)):
                items.append((yield from value()))
            if kind == b"|":  # attributes, and then what they describe
                return (yield from value())
            return Push(items) if kind == b">" else dict(zip(items[::2], items[1::2])) if kind == b"%" else items
        if kind == b"+":
            return rest
        if kind == b"-":
            return ErrorReply(rest.decode(errors="replace"))
        if kind in b":(":
            return int(rest)
        if kind == b",":
            return float(rest)
        if kind == b"#":
            return rest == b"t"
        if kind in b"_$*":
            return None
        raise ProtocolError(f"no reply begins with {text[:20]!r}")

    while True:
        reply = yield from value()
        buffer.extend((yield (reply,)) or b"")


class Connection:
    def __init__(self, host=None, port=6379, path=None, timeout=20):
        if path is not None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(path)
        else:
            self.sock = socket.create_connection((host or "127.0.0.1", port), timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pushes = []
        self.sleeps = self.bells_sent = 0  # to look at
        self._replies = collections.deque()  # parsed, and not asked for yet
        self._parser = parse()
        next(self._parser)
        self._map = self._in = self._out = None
        self._hangup = False

    # -- opening --

    def use_shared_memory(self, mode=None):
        """Sends SHM.OPEN. Raises ErrorReply if the server refuses, ProtocolError if the memory is not as it must be; in both cases the
        connection goes on over its socket."""
        token = secrets.token_bytes(16)
        words, listener = ["SHM.OPEN", VERSION, token.hex()], None
        fds = []
        try:
            if self.sock.family != socket.AF_UNIX:
                name = "redis-shm-" + secrets.token_hex(16)
                listener = socket.socket(socket.AF_UNIX)
                listener.bind("\0" + name)
                listener.listen(4)
                listener.settimeout(self.sock.gettimeout())
                words.append(name)
            if mode is not None:
                words += ["MODE", "%04o" % mode]
            self.sock.sendall(encode(words))
            while not self._replies:
                data, new, _, _ = socket.recv_fds(self.sock, 65536, 4)
                fds += new
                if not data:
                    raise ConnectionError("the server closed the connection")
                self._parse(data)
            reply = self._replies.popleft()
            if isinstance(reply, ErrorReply):
                raise reply
            if reply != 1:
                raise ProtocolError(f"SHM.OPEN was answered with {reply!r}")
            if listener is not None:
                fds.append(self._rendezvous(listener, token))
            if not fds:
                raise ProtocolError("the reply came without the memory")
            self._open(fds[0], token)
        finally:
            for fd in fds:
                os.close(fd)
            if listener is not None:
                listener.close()
        self.sock.sendall(BELL)  # the confirmation

    @staticmethod
    def _rendezvous(listener, token):
        while True:  # the server's is in the queue already, perhaps behind somebody else's
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(listener.gettimeout())
                data, fds, _, _ = socket.recv_fds(peer, 16, 1)
                if data == token and fds:
                    return fds[0]
                for fd in fds:
                    os.close(fd)

    def _open(self, fd, token):
        header = os.pread(fd, 64, 0)
        ring, request_off, reply_off = check_segment(header, os.fstat(fd).st_size, fcntl.fcntl(fd, F_GET_SEALS), token)
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self._view = memoryview(self._map)
        self._flags = self._view.cast("I")
        self._out = Writer(self._view, request_off, ring)
        self._in = Reader(self._view, reply_off, ring)

    @property
    def shared(self):
        return self._in is not None

    # -- waking and sleeping --

    def _wake(self, flag):
        """After a publication that whoever sleeps may wait for. Without a compare-and-exchange the flag stays as it is: its owner takes it down."""
        full_fence()
        if self._flags[flag] != 0:
            try:
                self.sock.send(BELL, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                self.bells_sent += 1
            except (BlockingIOError, ConnectionError):
                pass  # full of bells: enough. Closed: the next look at the socket says so

    def _sleep(self, room):
        """Until a reply comes or, if room, until there is room for requests. Raises ConnectionError at the end, TimeoutError."""
        self._flags[REPLY_READER_WAITS] = 1
        if room:
            self._flags[REQUEST_WRITER_WAITS] = 1
        full_fence()
        if not self._in.ready() and not (room and self._out.ready()):
            self.sleeps += 1
            bells = self.sock.recv(256)
            if bells.strip(BELL):
                raise ProtocolError("the socket carried something else than bells")
            self._hangup = not bells
        self._flags[REPLY_READER_WAITS] = 0
        self._flags[REQUEST_WRITER_WAITS] = 0
        if self._hangup and not self._in.ready():
            raise ConnectionError("the server closed the connection")

    # -- bytes --

    def _read_some(self):
        """Takes what the reply FIFO holds; whether there was anything."""
        got = False
        while data := self._in.read():
            got = True
            if self._in.gave_back:
                self._in.gave_back = False
                self._wake(REPLY_WRITER_WAITS)
            self._parse(data)
        if self._in.ended and not got:
            raise ConnectionError("the server closed the connection")
        return got

    def _receive(self):
        """More bytes into the parser; waits for them."""
        if not self.shared:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            return self._parse(data)
        for _ in range(LOOKS):
            if self._in.ready():
                break
        while not self._read_some():
            self._sleep(room=False)

    def _parse(self, data):
        result = self._parser.send(data)
        while result is not None:
            (self.pushes if isinstance(result[0], Push) else self._replies).append(result[0])
            result = self._parser.send(b"")

    # -- commands --

    def send(self, *args):
        data = memoryview(encode(args))
        if not self.shared:
            self.sock.sendall(data)
            return
        while data:
            n = self._out.write(data)
            data = data[n:]
            if n:
                self._wake(REQUEST_READER_WAITS)
            elif self._out.closed():
                raise ConnectionError("the server closed the connection")
            elif not self._read_some():  # the server may have no room for replies, and wait for us
                self._sleep(room=True)

    def reply(self):
        """The next reply; an error reply is returned, not raised."""
        while not self._replies:
            self._receive()
        return self._replies.popleft()

    def push(self):
        """The next push message; waits for it."""
        while not self.pushes:
            self._receive()
        return self.pushes.pop(0)

    def command(self, *args):
        self.send(*args)
        reply = self.reply()
        if isinstance(reply, ErrorReply):
            raise reply
        return reply

    def close(self):
        self.sock.close()
        if self._map is not None:
            self._in.release()
            self._out.release()
            self._flags.release()
            self._view.release()
            self._map.close()
            self._map = self._in = self._out = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main(words):
    if words and words[0].startswith("/"):
        where, words = {"path": words[0]}, words[1:]
    elif len(words) > 1 and words[1].isdigit():
        where, words = {"host": words[0], "port": int(words[1])}, words[2:]
    else:
        where = {}
    try:
        with Connection(**where) as c:
            c.use_shared_memory()
            print("Using shared memory from now on!", file=sys.stderr)
            print(c.command(*(words or ["PING"])))
    except (ErrorReply, ProtocolError, OSError) as e:
        print(f"shm_client.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
