"""What crash.py and soak.py share: a server with an AOF that is written before each reply, workers (worker.c), and the check of their journals."""
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "server"))
from redis_server import BUILD, CRASHES, MODULE, REDIS_SERVER, eventually, free_port  # noqa: E402
import redis  # noqa: E402

WORKER = BUILD / "tests" / "crash" / "worker"


def now_ms():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000000


class Failed(Exception):
    pass


class Field:
    """A directory with a server in it that can be killed and started again, and its workers."""

    def __init__(self, workers):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="rshm-crash-"))
        self.path, self.port = str(self.dir / "s"), free_port()
        self.server = None
        self.client = redis.Redis(unix_socket_path=self.path, socket_timeout=20)
        self.workers = {}  # id -> Popen
        self.ids = [f"{i}" for i in range(workers)]
        self.transports = {}
        self.kills = {}

    def start_server(self):
        with open(self.dir / "log", "ab") as log:
            self.server = subprocess.Popen(
                [REDIS_SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path, "--dir", str(self.dir), "--save", "",
                 "--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no", "--loadmodule", str(MODULE)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        if not eventually(self.answers, 20):
            raise Failed("the server did not come up:\n" + self.log()[-3000:])

    def answers(self):
        try:
            return self.client.ping()
        except redis.RedisError:
            if self.server.poll() is not None:
                raise Failed("the server ended:\n" + self.log()[-3000:])
            return False

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def kill_server(self):
        at = now_ms()
        self.server.kill()
        self.server.wait()
        self.client.connection_pool.disconnect()
        return at

    def journal(self, i):
        return self.dir / f"journal-{i}"

    def start_worker(self, i):
        first = 1 + max(self.read(i)[0], default=0)
        kind = self.transports.setdefault(i, ["shm", "plain"][int(i) % 4 == 3])
        where = self.path if int(i) % 2 == 0 else str(self.port)
        self.workers[i] = subprocess.Popen([WORKER, where, kind, i, self.journal(i), str(first)], stdin=subprocess.DEVNULL)

    def kill_worker(self, i):
        self.workers[i].kill()
        self.workers[i].wait()

    def read(self, i):
        """(numbers sent, numbers acknowledged, times at which an end was noticed)"""
        sent, acknowledged, ends = [], [], []
        try:
            for line in self.journal(i).read_text().splitlines():
                what, number = line.split()
                {"s": sent, "a": acknowledged, "e": ends}[what].append(int(number))
        except FileNotFoundError:
            pass
        return sent, acknowledged, ends

    def check(self):
        """Every acknowledged write is there, none twice, all in order. Returns how many were acknowledged."""
        total = 0
        for i in self.ids:
            sent, acknowledged, _ = self.read(i)
            there = [int(n) for n in (self.client.get(f"log:{i}") or b"").split(b",") if n]
            count = int(self.client.get(f"count:{i}") or 0)
            if there != sorted(set(there)):
                raise Failed(f"worker {i}: a write is there twice, or out of order")
            lost = set(acknowledged) - set(there)
            if lost:
                raise Failed(f"worker {i}: acknowledged and lost: {sorted(lost)[:10]}")
            if set(there) - set(sent):
                raise Failed(f"worker {i}: there and never sent: {sorted(set(there) - set(sent))[:10]}")
            if not len(acknowledged) <= count <= len(there):
                raise Failed(f"worker {i}: counted {count}, {len(acknowledged)} acknowledged, {len(there)} there")
            total += len(acknowledged)
        return total

    def stats(self):
        flat = self.client.execute_command("SHM.STATS")
        return {k.decode(): v for k, v in zip(flat[::2], flat[1::2])}

    def resources(self):
        maps = pathlib.Path(f"/proc/{self.server.pid}/maps").read_text()
        return len(os.listdir(f"/proc/{self.server.pid}/fd")), maps.count("memfd:redis-shm"), self.stats()["memory_bytes"]

    def rss_kb(self):
        text = pathlib.Path(f"/proc/{self.server.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def stop_workers(self):
        for w in self.workers.values():
            w.send_signal(signal.SIGTERM)
        wrong = [i for i, w in self.workers.items() if w.wait(30) != 0]
        self.workers = {}
        if wrong:
            raise Failed(f"workers {wrong} saw a wrong reply")

    def end(self):
        """Ends all that is left; what was wrong with the server, as sentences."""
        for w in self.workers.values():
            w.kill()
            w.wait()
        if self.server is not None and self.server.poll() is None:
            self.server.kill()
            self.server.wait()
        wrong = [f"the server's log says '{c}'" for c in CRASHES if c in self.log()]
        shutil.rmtree(self.dir, ignore_errors=True)
        return wrong


def report(passed, failed):
    if os.environ.get("RESULTS"):
        with open(os.environ["RESULTS"], "a") as f:
            f.write(f"{passed} {failed} 0\n")
    print(f"{passed} passed, {failed} failed, 0 skipped")


def run(name, field, body):
    try:
        body(field)
        wrong = field.end()
    except Failed as e:
        field.end()
        wrong = [str(e)]
    except BaseException:
        field.end()
        raise
    print(("FAIL  " if wrong else "ok    ") + name, *wrong, sep="\n      " if wrong else "")
    report(int(not wrong), int(bool(wrong)))
    sys.exit(bool(wrong))


def random_source():
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 31)))
    print(f"      SEED={seed}")
    return random.Random(seed)
