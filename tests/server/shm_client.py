"""hiredis and libhiredis_shm through ctypes: the very functions that a C program calls, from Python.

Replies become Python values: bytes (a status is a Status, still bytes), int, float, bool, None, list, set, dict, Push (a list)
and ErrorReply (a str). A call that fails in hiredis itself (NULL, REDIS_ERR) raises HiredisError.

    RSHM_HIREDIS_LIBDIR  where libhiredis.so is (default: build/deps/hiredis/lib, then the system's)
"""
import ctypes
import ctypes.util
import os
import select
import time

from redis_server import BUILD, ROOT

REDIS_BLOCK = 1
ERR_IO, ERR_OTHER, ERR_EOF, ERR_PROTOCOL, ERR_OOM, ERR_TIMEOUT = 1, 2, 3, 4, 5, 6


class Timeval(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("usec", ctypes.c_long)]

    @classmethod
    def of(cls, seconds):
        return cls(int(seconds), int(round((seconds - int(seconds)) * 1e6)))


class RedisReply(ctypes.Structure):
    pass


RedisReply._fields_ = [
    ("type", ctypes.c_int), ("integer", ctypes.c_longlong), ("dval", ctypes.c_double), ("len", ctypes.c_size_t),
    ("str", ctypes.c_void_p), ("vtype", ctypes.c_char * 4), ("elements", ctypes.c_size_t),
    ("element", ctypes.POINTER(ctypes.POINTER(RedisReply)))]


class RedisReader(ctypes.Structure):
    _fields_ = [("err", ctypes.c_int), ("errstr", ctypes.c_char * 128), ("buf", ctypes.c_void_p), ("pos", ctypes.c_size_t),
                ("len", ctypes.c_size_t), ("maxbuf", ctypes.c_size_t)]


class RedisContext(ctypes.Structure):  # as far as it is looked at
    _fields_ = [("funcs", ctypes.c_void_p), ("err", ctypes.c_int), ("errstr", ctypes.c_char * 128), ("fd", ctypes.c_int),
                ("flags", ctypes.c_int), ("obuf", ctypes.c_void_p), ("reader", ctypes.POINTER(RedisReader))]


ContextP = ctypes.POINTER(RedisContext)
ReplyP = ctypes.POINTER(RedisReply)
PUSH_FN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_libraries = None


def _load_hiredis():
    places = [os.environ.get("RSHM_HIREDIS_LIBDIR"), ROOT / "build" / "deps" / "hiredis" / "lib"]
    for place in filter(None, places):
        path = os.path.join(place, "libhiredis.so")
        if os.path.exists(path):
            return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    name = ctypes.util.find_library("hiredis")
    if name is None:
        raise RuntimeError("libhiredis.so not found: set RSHM_HIREDIS_LIBDIR or run make deps")
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def libraries():
    """(hiredis, libhiredis_shm), loaded at the first call."""
    global _libraries
    if _libraries is not None:
        return _libraries
    h = _load_hiredis()
    s = ctypes.CDLL(str(BUILD / "libhiredis_shm.so"), mode=ctypes.RTLD_GLOBAL)

    def declare(lib, name, result, *args):
        f = getattr(lib, name)
        f.restype, f.argtypes = result, args

    argv = (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_size_t))
    for name in ("redisConnect", "redisConnectNonBlock"):
        declare(h, name, ContextP, ctypes.c_char_p, ctypes.c_int)
    for name in ("redisConnectUnix", "redisConnectUnixNonBlock"):
        declare(h, name, ContextP, ctypes.c_char_p)
    declare(h, "redisCommandArgv", ReplyP, ContextP, *argv)
    declare(h, "redisAppendCommandArgv", ctypes.c_int, ContextP, *argv)
    declare(h, "redisAppendFormattedCommand", ctypes.c_int, ContextP, ctypes.c_char_p, ctypes.c_size_t)
    declare(h, "redisGetReply", ctypes.c_int, ContextP, ctypes.POINTER(ctypes.c_void_p))
    declare(h, "redisBufferRead", ctypes.c_int, ContextP)
    declare(h, "redisBufferWrite", ctypes.c_int, ContextP, ctypes.POINTER(ctypes.c_int))
    declare(h, "redisSetTimeout", ctypes.c_int, ContextP, Timeval)
    declare(h, "redisReconnect", ctypes.c_int, ContextP)
    declare(h, "redisSetPushCallback", ctypes.c_void_p, ContextP, PUSH_FN)
    declare(h, "redisFree", None, ContextP)
    declare(h, "freeReplyObject", None, ctypes.c_void_p)
    declare(s, "redisUseSharedMemory", ReplyP, ContextP)
    declare(s, "redisUseSharedMemoryWithMode", ReplyP, ContextP, ctypes.c_uint)
    declare(s, "redisIsSharedMemoryInitialized", ctypes.c_int, ContextP)
    _libraries = h, s
    return _libraries


class HiredisError(Exception):
    def __init__(self, err, errstr):
        super().__init__(f"hiredis error {err}: {errstr}")
        self.err, self.errstr = err, errstr


class ErrorReply(str):
    """An error that the server replied."""


class Status(bytes):
    """A status reply, such as OK."""


class Push(list):
    """A RESP3 push message."""


def _hashable(value):
    if isinstance(value, (list, set)):
        return tuple(_hashable(v) for v in value)
    return value


def to_python(reply):
    """The Python value of a redisReply (an object of it)."""
    kind = reply.type
    if kind in (1, 5, 6, 13, 14):
        text = ctypes.string_at(reply.str, reply.len)
        if kind == 6:
            return ErrorReply(text.decode(errors="replace"))
        return Status(text) if kind == 5 else int(text) if kind == 13 else text
    if kind == 3:
        return reply.integer
    if kind == 4:
        return None
    if kind == 7:
        return reply.dval
    if kind == 8:
        return bool(reply.integer)
    if kind not in (2, 9, 10, 11, 12):
        raise ValueError(f"redisReply of type {kind}")
    values = [to_python(reply.element[i].contents) for i in range(reply.elements)]
    if kind in (9, 11):
        return {_hashable(k): v for k, v in zip(values[::2], values[1::2])}
    if kind == 10:
        return {_hashable(v) for v in values}
    return Push(values) if kind == 12 else values


def _argv(args):
    pieces = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    n = len(pieces)
    return n, (ctypes.c_char_p * n)(*pieces), (ctypes.c_size_t * n)(*map(len, pieces))


class Hiredis:
    """One redisContext. path, or host and port; nonblock as redisConnectNonBlock makes it (connected when this returns)."""

    def __init__(self, host=None, port=None, path=None, nonblock=False, timeout=20):
        self._h, self._s = libraries()
        self._push = None
        if path is not None:
            connect = self._h.redisConnectUnixNonBlock if nonblock else self._h.redisConnectUnix
            self.context = connect(str(path).encode())
        else:
            connect = self._h.redisConnectNonBlock if nonblock else self._h.redisConnect
            self.context = connect((host or "127.0.0.1").encode(), port)
        if not self.context:
            raise MemoryError("redisConnect")
        if self.err:
            error = self.error()
            self.free()
            raise error
        if nonblock:
            select.select([], [self.fd], [], 5)
        elif timeout is not None:
            self.set_timeout(timeout)  # a test that would hang fails instead

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.free()

    @property
    def err(self):
        return self.context.contents.err

    @property
    def errstr(self):
        return self.context.contents.errstr.decode(errors="replace")

    @property
    def fd(self):
        return self.context.contents.fd

    @property
    def flags(self):
        return self.context.contents.flags

    @property
    def reader(self):
        """The redisReader, for instance to set maxbuf."""
        return self.context.contents.reader.contents

    def error(self):
        return HiredisError(self.err, self.errstr)

    def _take(self, pointer):
        value = to_python(ctypes.cast(pointer, ReplyP).contents)
        self._h.freeReplyObject(ctypes.cast(pointer, ctypes.c_void_p))
        return value

    def use_shared_memory(self, mode=None):
        """redisUseSharedMemory, or ...WithMode. The reply; NULL without c->err (a non-blocking context) is None."""
        if mode is None:
            reply = self._s.redisUseSharedMemory(self.context)
        else:
            reply = self._s.redisUseSharedMemoryWithMode(self.context, mode)
        if reply:
            return self._take(reply)
        if self.err:
            raise self.error()
        return None

    def is_shm(self):
        return bool(self._s.redisIsSharedMemoryInitialized(self.context))

    def command(self, *args):
        """redisCommandArgv. On a non-blocking context it only queues: None."""
        reply = self._h.redisCommandArgv(self.context, *_argv(args))
        if reply:
            return self._take(reply)
        if self.err:
            raise self.error()
        return None

    def append(self, *args):
        if self._h.redisAppendCommandArgv(self.context, *_argv(args)) != 0:
            raise self.error()

    def append_formatted(self, data):
        """Bytes as they are: commands in the protocol, whole or not."""
        if self._h.redisAppendFormattedCommand(self.context, data, len(data)) != 0:
            raise self.error()

    def get_reply(self):
        """redisGetReply. On a non-blocking context NotImplemented means: none in the reader yet."""
        reply = ctypes.c_void_p()
        if self._h.redisGetReply(self.context, ctypes.byref(reply)) != 0:
            raise self.error()
        return self._take(reply) if reply.value else NotImplemented

    def buffer_read(self):
        if self._h.redisBufferRead(self.context) != 0:
            raise self.error()

    def buffer_write(self):
        """redisBufferWrite; True once everything is written."""
        done = ctypes.c_int()
        if self._h.redisBufferWrite(self.context, ctypes.byref(done)) != 0:
            raise self.error()
        return bool(done.value)

    def wait_reply(self, seconds=5):
        """A non-blocking context as an event loop drives it: writes, polls the fd, reads, until a reply is there."""
        end = time.monotonic() + seconds
        done = False
        while True:
            reply = self.get_reply()
            if reply is not NotImplemented:
                return reply
            if not done:
                done = self.buffer_write()
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("no reply")
            readable, _, _ = select.select([self.fd], [] if done else [self.fd], [], left)
            if readable:
                self.buffer_read()

    def set_timeout(self, seconds):
        """redisSetTimeout; 0 waits for ever."""
        if self._h.redisSetTimeout(self.context, Timeval.of(seconds)) != 0:
            raise self.error()

    def set_push_callback(self, fn):
        """fn(message) for each push message; None: push messages come as replies."""
        if fn is None:
            self._push = PUSH_FN()
        else:
            def callback(_privdata, reply):
                fn(self._take(reply))
            self._push = PUSH_FN(callback)
        self._h.redisSetPushCallback(self.context, self._push)

    def reconnect(self):
        if self._h.redisReconnect(self.context) != 0:
            raise self.error()

    def free(self):
        """redisFree; a second call does nothing."""
        if self.context:
            self._h.redisFree(self.context)
            self.context = None
