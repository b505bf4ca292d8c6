"""redis-shm bench as a process, and a scripted server for it to talk to."""
import json
import os
import socket
import subprocess
import tempfile
import threading
import time

from redis_server import BUILD

TOOL = str(BUILD / "redis-shm")


def run(*args, env=None, timeout=60):
    """The finished process; text in stdout and stderr."""
    return subprocess.run([TOOL, "bench", *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})


def measure(*args, **options):
    """The JSON of a run that must succeed."""
    p = run("--json", "-", *args, **options)
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout)


def at(server, unix=True):
    return ["-s", server.path, "-p", server.port] if unix else ["-p", server.port]


class FakeServer:
    """Answers on a TCP port as answer(words) says: bytes of RESP, or None for nothing. `greeting` commands are answered properly
    after `greeting_s` seconds. Takes several connections."""

    def __init__(self, answer, greeting_s=0.0):
        self.answer, self.greeting_s = answer, greeting_s
        self.commands = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._socket.close()

    def _accept(self):
        while True:
            try:
                c, _ = self._socket.accept()
            except OSError:
                return
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        f = c.makefile("rb")
        try:
            while line := f.readline():
                words = []
                for _ in range(int(line[1:])):
                    n = int(f.readline()[1:])
                    words.append(f.read(n + 2)[:-2])
                reply = self._reply(words)
                if reply is not None:
                    c.sendall(reply)
        except (OSError, ValueError):
            pass
        finally:
            c.close()

    def _reply(self, words):
        name = words[0].upper()
        if name in (b"PING", b"SELECT", b"AUTH") and len(words) <= 2:
            time.sleep(self.greeting_s)
            return b"+PONG\r\n" if name == b"PING" else b"+OK\r\n"
        if name == b"INFO":
            return bulk(b"redis_version:1.2.3\r\nx:y\r\n")
        if name == b"CONFIG":
            return b"*0\r\n"
        with self._lock:
            self.commands.append(words)
            return self.answer(words)


def bulk(b):
    return b"$%d\r\n%s\r\n" % (len(b), b)


class Store:
    """GET, SET and DEL as they should be: the base of servers that answer wrongly."""

    def __init__(self):
        self.values = {}
        self.gets = 0

    def __call__(self, words):
        name = words[0].upper()
        if name == b"SET":
            self.values[words[1]] = words[2]
            return b"+OK\r\n"
        if name == b"DEL":
            return b":%d\r\n" % (self.values.pop(words[1], None) is not None)
        if name == b"GET":
            self.gets += 1
            value = self.values.get(words[1])
            return bulk(value) if value is not None else b"$-1\r\n"
        return b"-ERR unknown command\r\n"


def leftovers():
    """Directories of private servers and of charts that nobody has removed."""
    return {d for d in os.listdir(tempfile.gettempdir()) if d.startswith("redis-shm")}
