"""docs/protocol.md by hand, from raw Python sockets: for tests that need what a correct client never does.

Wire is a connection over the Unix socket, TCP or any socket object; it opens a session step by step. Session is the mapped memory with
both FIFOs; its words may be forged at will. After each publish it rings, asked or not, so it needs no fences.
"""
import array
import ctypes
import mmap
import os
import secrets
import socket
import struct
import time

from shm_client import ErrorReply, Push, Status

PREFIX = "redis-shm-"
F_GET_SEALS = 1034
SEALS = 1 | 2 | 4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
LINE = 64
MAGIC = b"RSHM\r\n\x1a\0"


def new_token():
    return secrets.token_hex(16)


def encode(*args):
    pieces = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    return b"*%d\r\n" % len(pieces) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in pieces)


class Rendezvous:
    """An abstract socket that the server sends the memory to."""

    def __init__(self, name=None, backlog=8, kind=socket.SOCK_STREAM):
        self.name = name or PREFIX + secrets.token_hex(8)
        self.socket = socket.socket(socket.AF_UNIX, kind)
        self.socket.settimeout(5)
        self.socket.bind("\0" + self.name)
        if kind == socket.SOCK_STREAM:
            self.socket.listen(backlog)

    def receive(self):
        """(token in hex, fd) of the next visitor."""
        visitor, _ = self.socket.accept()
        visitor.settimeout(5)
        data, fds = receive_fds(visitor)
        visitor.close()
        return data.hex(), fds[0] if fds else -1

    def close(self):
        self.socket.close()


def receive_fds(sock, n=65536):
    fds = array.array("i")
    data, control, _, _ = sock.recvmsg(n, socket.CMSG_LEN(4 * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


class Parser:
    """Replies out of bytes as they come."""

    def __init__(self):
        self.data = b""

    def feed(self, data):
        self.data += data

    def next(self):
        """(True, value), or (False, None) if the bytes do not hold a whole reply yet."""
        try:
            value, self.data = self._parse(self.data)
            return True, value
        except IndexError:
            return False, None

    def _parse(self, data):
        end = data.find(b"\r\n")
        if end < 0:
            raise IndexError
        kind, text, rest = data[:1], data[1:end], data[end + 2:]
        if kind == b"+":
            return Status(text), rest
        if kind == b"-":
            return ErrorReply(text.decode()), rest
        if kind in b":(":
            return int(text), rest
        if kind == b"_":
            return None, rest
        if kind == b"#":
            return text == b"t", rest
        if kind == b",":
            return float(text), rest
        n = int(text)
        if n < 0:
            return None, rest
        if kind in b"$=":
            if len(rest) < n + 2:
                raise IndexError
            return rest[:n] if kind == b"$" else rest[4:n], rest[n + 2:]
        values = []
        for _ in range(2 * n if kind == b"%" else n):
            value, rest = self._parse(rest)
            values.append(value)
        if kind == b"%":
            return dict(zip(values[::2], values[1::2])), rest
        if kind in b"*~>":
            return Push(values) if kind == b">" else values, rest
        raise ValueError(f"unknown reply type {kind}")


class Wire:
    def __init__(self, server, unix=True, sock=None, timeout=5):
        if sock is not None:
            self.socket = sock
        elif unix:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(server.path)
        else:
            self.socket = socket.create_connection(("127.0.0.1", server.port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(timeout)
        self.is_unix = self.socket.family == socket.AF_UNIX
        self.parser = Parser()
        self.fds = []
        self.rendezvous = None
        self.session = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def send_bytes(self, data):
        self.socket.sendall(data)

    def send(self, *args):
        self.send_bytes(encode(*args))

    def reply(self):
        """The next reply on the socket; fds that come along are kept in self.fds."""
        while True:
            there, value = self.parser.next()
            if there:
                return value
            if self.is_unix:
                data, fds = receive_fds(self.socket)
                self.fds += fds
            else:
                data = self.socket.recv(65536)
            if not data:
                raise EOFError("the server closed the connection")
            self.parser.feed(data)

    def command(self, *args):
        self.send(*args)
        return self.reply()

    def works(self):
        """Whether the connection serves plain commands and nothing is left over from before."""
        mark = secrets.token_hex(8)
        return (self.command("PING") == b"PONG" and self.command("SET", "wire", mark) == b"OK"
                and self.command("GET", "wire") == mark.encode() and not self.parser.data)

    def open(self, version="2", token=None, rendezvous=None, mode=None):
        """SHM.OPEN with a rendezvous of our own on TCP. Returns the reply; afterwards self.fds holds the memory if it is 1."""
        self.token = new_token() if token is None else token
        if rendezvous is None and not self.is_unix:
            self.rendezvous = Rendezvous()
            rendezvous = self.rendezvous.name
        args = ["SHM.OPEN", version, self.token] + ([rendezvous] if rendezvous else [])
        args += ["MODE", mode] if mode is not None else []
        reply = self.command(*args)
        if reply == 1 and self.rendezvous is not None:
            token_sent, fd = self.rendezvous.receive()
            assert token_sent == self.token
            self.fds.append(fd)
        return reply

    def confirm(self):
        """Maps the memory and rings: the session is open."""
        self.session = Session(self.socket, self.fds.pop(), self.token)
        self.send_bytes(b"\n")
        return self.session

    def open_session(self, **options):
        reply = self.open(**options)
        assert reply == 1, reply
        return self.confirm()

    def ended(self, seconds=5):
        """Waits for the server to close the connection; True if it did."""
        self.socket.settimeout(seconds)
        try:
            while True:
                if not self.socket.recv(4096):
                    return True
        except ConnectionError:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        if self.rendezvous is not None:
            self.rendezvous.close()
        if self.session is not None:
            self.session.unmap()
            self.session = None


class Session:
    """The memory. Words: u32(offset), u64(offset) and their setters."""

    REQUEST_READER_WAITS, REQUEST_WRITER_WAITS, REPLY_READER_WAITS, REPLY_WRITER_WAITS = 64, 128, 192, 256

    def __init__(self, sock, fd, token):
        import fcntl
        self.socket = sock
        self.seals = fcntl.fcntl(fd, F_GET_SEALS)
        self.stat = os.fstat(fd)
        self.map = mmap.mmap(fd, self.stat.st_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        os.close(fd)
        (self.magic, self.version, self.header_bytes, self.segment_bytes, self.ring_bytes, self.request_off,
         self.reply_off) = struct.unpack_from("<8sIIQQQQ", self.map)
        self.token = self.map[48:64].hex()
        assert self.token == token
        self.parser = Parser()
        self.tag = 0  # of the records to come
        self.write_pos = self.get_u64(self.request_off)
        self.read_pos = self.published = self.get_u64(self.reply_off)

    def get_u32(self, offset):
        return ctypes.c_uint32.from_buffer(self.map, offset).value

    def set_u32(self, offset, value):
        ctypes.c_uint32.from_buffer(self.map, offset).value = value

    def get_u64(self, offset):
        return ctypes.c_uint64.from_buffer(self.map, offset).value

    def set_u64(self, offset, value):  # one store: a header appears whole
        ctypes.c_uint64.from_buffer(self.map, offset).value = value

    def bell(self):
        self.socket.sendall(b"\n")

    def header_offset(self, pos):
        """Where the request record at pos begins in the map."""
        return self.request_off + 128 + pos % self.ring_bytes

    def write(self, data, ring=True):
        """Publishes data as request records; waits for room."""
        end = time.monotonic() + 5
        while data:
            room = self.ring_bytes - LINE - (self.write_pos - self.get_u64(self.request_off))
            room = min(room, self.ring_bytes - self.write_pos % self.ring_bytes)
            n = min(room - 8, self.ring_bytes // 4 - 8, len(data))
            if n <= 0:
                assert time.monotonic() < end, "no room for requests"
                self.bell()
                time.sleep(0.001)
                continue
            at = self.header_offset(self.write_pos)
            self.map[at + 8:at + 8 + n] = data[:n]
            self.write_pos += (8 + n + LINE - 1) // LINE * LINE
            self.set_u64(self.header_offset(self.write_pos), 0)
            self.set_u64(at, self.tag << 40 | 1 << 32 | n)
            data = data[n:]
        if ring:
            self.bell()

    def read(self, publish=True):
        """The bytes of the next reply record, b"" if there is none, None at the end record. publish=False keeps read_pos back."""
        at = self.reply_off + 128 + self.read_pos % self.ring_bytes
        header = self.get_u64(at)
        if header == 0:
            return b""
        if header >> 32 & 0xFF == 2:
            return None
        n = header & 0xFFFFFFFF
        data = self.map[at + 8:at + 8 + n]
        self.read_pos += (8 + n + LINE - 1) // LINE * LINE
        if publish and self.read_pos - self.published >= self.ring_bytes // 4:
            self.published = self.read_pos
            self.set_u64(self.reply_off, self.read_pos)
            if self.get_u32(self.REPLY_WRITER_WAITS):
                self.set_u32(self.REPLY_WRITER_WAITS, 0)
                self.bell()
        return data

    def reply(self, seconds=5):
        end = time.monotonic() + seconds
        while True:
            there, value = self.parser.next()
            if there:
                return value
            data = self.read()
            if data is None:
                raise EOFError("the server ended the reply stream")
            if data:
                self.parser.feed(data)
            elif time.monotonic() > end:
                raise TimeoutError("no reply in shared memory")
            else:
                time.sleep(0.0005)

    def command(self, *args):
        self.write(encode(*args))
        return self.reply()

    def unmap(self):
        self.map.close()
