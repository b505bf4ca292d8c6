"""A private redis-server for tests: temporary directory, free port, Unix socket, no persistence, the module loaded.

    RSHM_BUILD         the build directory (default: build/ of this source tree)
    REDIS_SERVER       the server to run (default: redis-server from PATH)
    RSHM_SERVER_ARGS   further arguments of every server, for instance "--io-threads 2"
    RSHM_MODULE_ARGS   arguments of every load of the module, before a test's own, for instance "wait-mode poll"
    RSHM_SERVER_PRELOAD  LD_PRELOAD of every server, for instance the runtime of a sanitizer
"""
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import redis

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RSHM_BUILD", ROOT / "build")).resolve()
MODULE = BUILD / "module-shm.so"
REDIS_SERVER = os.environ.get("REDIS_SERVER", "redis-server")
VERSION = tuple(int(n) for n in re.search(r"v=(\d+)\.(\d+)\.(\d+)", subprocess.run(
    [REDIS_SERVER, "--version"], capture_output=True, text=True, check=True).stdout).groups())
HAS_MODULE_CONFIGURATION = VERSION >= (7, 0, 0)  # shm.* in redis.conf, CONFIG SET and MODULE LOADEX
MODULE_COMMAND = ["--enable-module-command", "yes"] if HAS_MODULE_CONFIGURATION else []  # what lets MODULE LOAD through
START_SECONDS = 10
CRASHES = ("REDIS BUG REPORT", "VALKEY BUG REPORT", "BUG REPORT START", "ASSERTION FAILED", "crashed by signal",
           "ERROR: AddressSanitizer", "WARNING: ThreadSanitizer", "runtime error:")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """args: more command-line arguments; config: lines of redis.conf; module_args: arguments of the load; module: False
    starts it without the module; env: more environment. Starts at once and answers PING when the constructor returns, unless
    wait is False."""

    live = []  # what is running now, for the log tails of a failed test

    def __init__(self, args=(), config="", module_args=(), module=True, env=None, wait=True, prefix=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="rshm-test-"))
        self.path = str(self.dir / "redis.sock")
        self.log_path = self.dir / "log"
        self.conf_path = self.dir / "redis.conf"
        self.conf_path.write_text(config + "\n")
        self.module = module
        self._args, self._module_args, self._env, self._prefix = list(args), list(module_args), dict(env or {}), list(prefix)
        self._clients, self._stats_client = [], None
        self.process = None
        self.ended_on_purpose = False
        Server.live.append(self)
        for _ in range(5):  # somebody else may take the port between our look and the server's bind
            self._start()
            if not wait or self._wait_ready():
                return
            if "Address already in use" not in self.log():
                break
        tail = self.log()[-3000:]
        self.ended_on_purpose = True
        self.stop()
        raise RuntimeError("redis-server did not start; its log ends:\n" + tail)

    def _start(self):
        self.port = free_port()
        argv = self._prefix + [REDIS_SERVER, str(self.conf_path), "--port", str(self.port), "--bind", "127.0.0.1",
                               "--unixsocket", self.path, "--unixsocketperm", "700", "--dir", str(self.dir), "--save", "",
                               "--appendonly", "no", "--daemonize", "no", "--logfile", "", "--loglevel", "notice"]
        argv += shlex.split(os.environ.get("RSHM_SERVER_ARGS", "")) + [str(a) for a in self._args]
        if self.module:
            argv += ["--loadmodule", str(MODULE)] + shlex.split(os.environ.get("RSHM_MODULE_ARGS", ""))
            argv += [str(a) for a in self._module_args]
        env = dict(os.environ)
        preload = " ".join(filter(None, [os.environ.get("RSHM_SERVER_PRELOAD", ""), self._env.get("LD_PRELOAD", "")]))
        env.update(self._env)
        if preload:
            env["LD_PRELOAD"] = preload
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env,
                                            start_new_session=True)

    def _wait_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            try:
                with redis.Redis(unix_socket_path=self.path, socket_timeout=2) as r:
                    if r.ping():
                        return True
            except redis.RedisError:
                pass
            time.sleep(0.02)
        return False

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_log(self, text, seconds=5):
        """Waits for text in the log; True if it came."""
        return eventually(lambda: text in self.log(), seconds)

    def alive(self):
        return self.process.poll() is None

    def client(self, unix=True, **options):
        """A plain redis-py client over the Unix socket, or TCP; closed with the server. Replies are bytes."""
        options.setdefault("socket_timeout", 20)
        if unix:
            c = redis.Redis(unix_socket_path=self.path, **options)
        else:
            c = redis.Redis(host="127.0.0.1", port=self.port, **options)
        self._clients.append(c)
        return c

    def stats(self):
        """SHM.STATS as a dict of str to int."""
        if self._stats_client is None:
            self._stats_client = self.client()
        flat = self._stats_client.execute_command("SHM.STATS")
        if isinstance(flat, dict):
            return {(k.decode() if isinstance(k, bytes) else k): v for k, v in flat.items()}
        return {k.decode(): v for k, v in zip(flat[::2], flat[1::2])}

    def fds(self):
        return sorted(int(fd) for fd in os.listdir(f"/proc/{self.pid}/fd"))

    def shared_mappings(self):
        """How many sessions' segments the server has mapped."""
        maps = pathlib.Path(f"/proc/{self.pid}/maps").read_text()
        return sum("memfd:redis-shm" in line for line in maps.splitlines())

    def cpu_seconds(self):
        # The process's CPU clock, in nanoseconds: /proc/PID/stat counts in ticks of 10 ms, too coarse for what hardly uses any.
        return time.clock_gettime((~self.pid << 3) | 2)

    def wait_exit(self, seconds=10):
        """Waits for the server to end by itself; its exit status. The test expects this end."""
        self.ended_on_purpose = True
        return self.process.wait(seconds)

    def kill(self, sig=signal.SIGKILL):
        self.ended_on_purpose = True
        self.process.send_signal(sig)
        return self.process.wait(10)

    def stop(self):
        """Ends the server and forgets its files. Returns what was wrong with it: a list of sentences."""
        wrong = []
        for c in self._clients:
            c.close()
        self._clients = []
        if self.process is not None:
            status = self.process.poll()
            if status is not None and not self.ended_on_purpose:
                wrong.append(f"the server had ended before the test did, status {status}")
            if status is None:
                self.process.terminate()
                try:
                    status = self.process.wait(10)
                    if status != 0 and not self.ended_on_purpose:
                        wrong.append(f"the server ended with status {status}")
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
                    wrong.append("the server did not end on SIGTERM within 10 s")
        log = self.log()
        wrong += [f"the server's log says '{c}'" for c in CRASHES if c in log]
        if self in Server.live:
            Server.live.remove(self)
        self.last_log = log
        shutil.rmtree(self.dir, ignore_errors=True)
        return wrong


def eventually(condition, seconds=5, interval=0.01):
    """Waits until condition() holds; returns its last value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(interval)
