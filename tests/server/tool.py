"""build/redis-shm as a process, with and without a terminal.

    tool("latency", "--json", server=server)   runs it to its end; server: its Unix socket is named, unix=False: its port
    started(...)                               the same, but running: a Popen
    Terminal("top", server=server)             under a terminal of its own: .text is what it wrote, .press("q"), .resize(10, 80)
"""
import fcntl
import json
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import termios
import time

from redis_server import BUILD

TOOL = pathlib.Path(os.environ.get("RSHM_TOOL", BUILD / "redis-shm"))  # for instance one built with a sanitizer
PATIENCE = 60  # seconds until a process that should have ended fails the test


def _argv(args, server, unix):
    where = [] if server is None else ["-s", server.path] if unix else ["-p", str(server.port)]
    return [str(TOOL), str(args[0])] + where + [str(a) for a in args[1:]]


def _env(env):
    result = {k: v for k, v in os.environ.items() if k not in ("REDISCLI_AUTH", "NO_COLOR", "TERM")}
    result.update(env or {})
    return result


def started(*args, server=None, unix=True, env=None, prefix=(), **options):
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen(list(prefix) + _argv(args, server, unix), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_env(env),
                            **options)


def finish(process, sig=None):
    """Ends it (sig) or waits until it ends; returncode, stdout and stderr as of subprocess.run()."""
    if sig is not None:
        process.send_signal(sig)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def tool(*args, **options):
    return finish(started(*args, **options))


def tool_json(*args, code=0, **options):
    done = tool(*args, "--json", **options)
    assert done.returncode == code, done
    return json.loads(done.stdout)


def fails(done, *words, code=1):
    """It failed with one clear line and wrote nothing else."""
    assert done.returncode == code, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("redis-shm"), done
    for word in words:
        assert word.lower() in lines[0].lower(), done
    assert not done.stdout, done


class Terminal:
    def __init__(self, *args, server=None, unix=True, lines=24, columns=80, env=None):
        self.text = ""
        self._main, side = pty.openpty()
        self._size(side, lines, columns)
        self.before = termios.tcgetattr(side)
        self._side = side
        self.process = subprocess.Popen(_argv(args, server, unix), stdin=side, stdout=side, stderr=side, start_new_session=True,
                                        env=_env({"TERM": "xterm-256color", **(env or {})}),
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    @staticmethod
    def _size(fd, lines, columns):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, lines, columns):
        self._size(self._main, lines, columns)

    def press(self, keys):
        os.write(self._main, keys.encode())

    def read(self, seconds=0.1):
        """Takes what it has written by now."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self._main], [], [], left)[0]:
            self.text += os.read(self._main, 65536).decode()
        return self.text

    def wait_text(self, what, seconds=20, after=0):
        end = time.monotonic() + seconds
        while what not in self.text[after:] and time.monotonic() < end:
            self.read(0.05)
        assert what in self.text[after:], self.text
        return self.text

    def finish(self, sig=None):
        """The exit code, once it has ended and everything it wrote was read."""
        if sig is not None:
            os.kill(self.process.pid, sig)
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.05)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.read()
        return self.process.returncode

    def as_before(self):
        """The settings of the terminal are what they were."""
        return termios.tcgetattr(self._side) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self._side)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
