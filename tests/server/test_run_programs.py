"""Real programs under `redis-shm run --require`: what they print and answer is right, and it came through shared memory."""
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

import pytest

import run_program
from redis_server import eventually
from run_program import count, run, used
from tool import _env

WHERE = {"unix": lambda s: ["-s", s.path], "tcp": lambda s: ["-h", "127.0.0.1", "-p", s.port]}
both = pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)


# ---- redis-cli ----

@both
def test_redis_cli_reads_commands_and_answers_each(server, where):
    commands = "".join(f"SET key:{i} value:{i}\nGET key:{i}\n" for i in range(200))
    done = used(server, run(server, "redis-cli", *where(server), input=commands))
    assert done.stdout.split() == [w for i in range(200) for w in ("OK", f"value:{i}")]


def test_redis_cli_speaks_resp3(server):
    server.client().delete("hash")
    done = used(server, run(server, "redis-cli", "-3", "-s", server.path, "--no-raw", input="HSET hash a 1\nHGETALL hash\n"))
    assert '1# "a" => "1"' in done.stdout


def test_redis_cli_imports_100_mb_with_pipe(server):
    value = b"x" * 10000
    one = b"*3\r\n$3\r\nSET\r\n$8\r\nimport%02d\r\n$10000\r\n" + value + b"\r\n"
    data = b"".join(one % (i % 100) for i in range(10000))
    done = used(server, run(server, "redis-cli", "-s", server.path, "--pipe", input=data, text=False))
    assert b"errors: 0, replies: 10000" in done.stdout
    assert server.client().get("import42") == value


def test_redis_cli_saves_an_rdb(server, tmp_path):
    server.client().set("in-the-rdb", "y" * 1000000)
    done = run(server, "redis-cli", "-s", server.path, "--rdb", tmp_path / "dump.rdb")
    assert done.returncode == 0 and done.upgraded == 1, done.stderr
    assert (tmp_path / "dump.rdb").read_bytes()[:5] == b"REDIS" and "Transfer finished with success" in done.stdout + done.stderr
    checked = subprocess.run(["redis-check-rdb", tmp_path / "dump.rdb"], capture_output=True, text=True)
    assert "RDB looks OK" in checked.stdout


def test_redis_cli_measures_latency(server):
    process = subprocess.Popen(run_program.argv(server, "timeout", "-s", "INT", "2", "redis-cli", "-s", server.path, "--latency", "--raw"),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=30)
    done = count(subprocess.CompletedProcess([], process.returncode, out, err))
    assert done.upgraded == 1 and done.refused == 0 and len(out.split()) >= 4, (out, err)


class Reader:
    """Takes lines of a running program until the wanted one is there."""

    def __init__(self, *argv, **options):
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options)
        self.text = b""

    def wait(self, wanted, seconds=20):
        end = time.monotonic() + seconds
        while wanted not in self.text and time.monotonic() < end:
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                self.text += os.read(self.process.stdout.fileno(), 65536)
        assert wanted in self.text, self.text

    def end(self, sig):
        self.process.send_signal(sig)
        try:
            _, err = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return count(subprocess.CompletedProcess([], self.process.returncode, "", err.decode()))


@both
@pytest.mark.parametrize("what", ["subscribe", "monitor"])
def test_redis_cli_prints_what_is_pushed_to_it(server, where, what):
    cli = Reader(*run_program.argv(server, "redis-cli", *where(server), *{"subscribe": ["subscribe", "news"], "monitor": ["monitor"]}[what]))
    cli.wait({"subscribe": b"news\n1\n", "monitor": b"OK"}[what])
    plain = server.client()
    for i in range(50):
        if what == "subscribe":
            assert plain.publish("news", f"item-{i}") == 1
        else:
            plain.set("watched", f"item-{i}")
        if i % 10 == 0:
            time.sleep(0.05)  # now and then it has fallen asleep
            cli.wait(b"item-%d" % i)
    cli.wait(b"item-49")
    done = cli.end(signal.SIGTERM)
    assert done.upgraded == 1 and done.refused == 0, done.stderr


def test_redis_cli_is_interactive_under_a_terminal(server):
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(run_program.argv(server, "redis-cli", "-s", server.path), stdin=side, stdout=side, stderr=side,
                               start_new_session=True, env=_env({"TERM": "xterm", "HOME": "/nonexistent"}))
    os.close(side)
    text = ""

    def wait(wanted):
        nonlocal text
        end = time.monotonic() + 20
        while wanted not in text and time.monotonic() < end:
            if select.select([main], [], [], 0.1)[0]:
                try:
                    text += os.read(main, 65536).decode(errors="replace")
                except OSError:
                    break
        assert wanted in text, text

    try:
        wait("> ")
        for i in range(5):
            os.write(main, f"ECHO hello-{i}\r".encode())
            wait(f'"hello-{i}"')
            text = text[text.index(f'"hello-{i}"'):]
            wait("> ")  # what is typed before that is the terminal's
        os.write(main, b"quit\r")
        wait("1 connections upgraded, 0 not")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)


# ---- redis-benchmark ----

@both
@pytest.mark.parametrize("arguments", [["-c", 1, "-n", 20000], ["-c", 50, "-n", 50000], ["-c", 500, "-n", 50000],
                                       ["-c", 50, "-P", 16, "-n", 200000], ["-c", 50, "-P", 100, "-n", 200000],
                                       ["-c", 50, "-n", 50000, "--threads", 4]], ids=lambda a: " ".join(map(str, a)))
def test_redis_benchmark_gets_every_reply(server, where, arguments):
    before = server.client().info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]
    done = used(server, run(server, "redis-benchmark", *where(server), "-t", "set,get", "-q", "-e", *arguments), at_least=2)
    requests, clients = arguments[arguments.index("-n") + 1], arguments[1]
    assert len(re.findall(r"requests per second", done.stdout)) >= 2 and done.upgraded >= 2 * clients
    assert server.client().info("commandstats")["cmdstat_get"]["calls"] - before >= requests


def test_redis_benchmark_runs_all_its_tests(server):
    done = used(server, run(server, "redis-benchmark", "-s", server.path, "-n", 2000, "--csv"))
    names = {line.split(",")[0].strip('"') for line in done.stdout.splitlines()[1:]}
    assert {"PING_INLINE", "SET", "GET", "LPUSH", "SADD", "ZADD", "LRANGE_600 (first 600 elements)", "MSET (10 keys)"} <= names


# ---- Python ----

PYTHON = r'''
import os, sys, threading, asyncio, redis, redis.asyncio
where = dict(unix_socket_path=sys.argv[2]) if sys.argv[1] == "unix" else dict(host="127.0.0.1", port=int(sys.argv[2]))

def work(r, name, n):
    for i in range(n):
        r.set(f"{name}:{i}", f"value {i}")
        assert r.get(f"{name}:{i}") == b"value %d" % i
    pipe = r.pipeline(transaction=False)
    for i in range(n):
        pipe.get(f"{name}:{i}")
    assert pipe.execute() == [b"value %d" % i for i in range(n)]
    big = os.urandom(3_000_000)
    r.set(name, big)
    assert r.get(name) == big
    assert r.blpop(name + ":none", timeout=1) is None

def pubsub(r):
    p = r.pubsub()
    p.subscribe("channel")
    assert p.get_message(timeout=10)["type"] == "subscribe"
    for i in range(100):
        r.publish("channel", i)
        assert p.get_message(timeout=10)["data"] == b"%d" % i
    assert p.get_message(timeout=0.02) is None
    p.close()

async def tasks():
    c = redis.asyncio.Redis(**where)
    async def one(n):
        for i in range(50):
            await c.set(f"task:{n}:{i}", i)
            assert await c.get(f"task:{n}:{i}") == b"%d" % i
    await asyncio.gather(*[one(n) for n in range(20)])
    big = os.urandom(3_000_000)
    await c.set("task", big)
    assert await c.get("task") == big
    p = c.pubsub()
    await p.subscribe("tasks")
    async def listen():
        got = []
        async for m in p.listen():
            if m["type"] == "message":
                got.append(int(m["data"]))
                if len(got) == 50:
                    return got
    listener = asyncio.ensure_future(listen())
    for i in range(50):
        while not await c.publish("tasks", i):
            await asyncio.sleep(0.01)
    assert await listener == list(range(50))
    await p.close()
    await c.close()
    await c.connection_pool.disconnect()

for options in ({}, {"socket_timeout": 20}):
    r = redis.Redis(**where, **options)
    work(r, "one", 500)
    pubsub(r)
    threads = [threading.Thread(target=work, args=(r, f"thread{t}", 100)) for t in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    r.connection_pool.disconnect()
asyncio.run(tasks())
child = os.fork()  # redis-py notices and connects anew
if child == 0:
    assert r.get("one:1") == b"value 1"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0 and r.get("one:2") == b"value 2"
print("all right")
'''


@both
def test_redis_py_with_threads_pub_sub_pipelines_and_asyncio(server, where):
    kind = "unix" if where(server)[0] == "-s" else "tcp"
    done = used(server, run(server, "/usr/bin/python3", "-c", PYTHON, kind, server.path if kind == "unix" else server.port), at_least=10)
    assert done.stdout == "all right\n"


# ---- a password ----

LOGIN = r'''
import redis, sys
for options in ({"password": "secret"}, {"username": "default", "password": "secret"}):
    r = redis.Redis(unix_socket_path=sys.argv[1], **options)
    for i in range(100):
        r.set("key", i)
        assert r.get("key") == b"%d" % i
    r.connection_pool.disconnect()
    try:
        redis.Redis(unix_socket_path=sys.argv[1], password="wrong").ping()
    except redis.ResponseError as e:
        assert 'WRONGPASS' in str(e)
    else:
        raise SystemExit("no")
print("all right")
'''


def test_a_connection_that_must_log_in_first_is_upgraded_afterwards(start_server):
    server = start_server(args=["--requirepass", "secret"], wait=False)
    admin = server.client(password="secret")
    assert eventually(lambda: _pings(admin))
    done = run(server, "/usr/bin/python3", "-c", LOGIN, server.path)
    assert done.stdout == "all right\n" and done.upgraded == 2, (done.stdout, done.stderr)
    for arguments in (["-s", server.path], ["-s", server.path, "-3"], ["-p", server.port]):
        done = run(server, "redis-cli", "-a", "secret", "--no-auth-warning", *arguments, input="SET a b\nGET a\nGET a\n")
        assert done.stdout == "OK\nb\nb\n" and done.upgraded == 1, (done.stdout, done.stderr)
    done = run(server, "redis-benchmark", "-a", "secret", "-s", server.path, "-t", "get", "-n", 20000, "-c", 20, "-q", env={"LC_ALL": "C"})
    assert done.returncode == 0 and done.upgraded >= 20, (done.stdout, done.stderr)
    stats = dict(zip(*[iter(admin.execute_command("SHM.STATS"))] * 2))
    assert stats[b"sessions_declined"] == 0 and stats[b"bytes_in"] > 20000 * 20


def _pings(client):
    import redis
    try:
        return client.ping()
    except redis.RedisError:
        return False


# ---- Node ----

NODE = r'''
const Redis = require("ioredis");
const where = process.argv[2] === "unix" ? { path: process.argv[3] } : { host: "127.0.0.1", port: +process.argv[3] };
const check = (ok, what) => { if (!ok) { console.error("wrong: " + what); process.exit(1); } };
(async () => {
  const r = new Redis(where), sub = new Redis(where);
  for (let i = 0; i < 500; i++) {
    await r.set("node:" + i, "value " + i);
    check(await r.get("node:" + i) === "value " + i, i);
  }
  const pipe = r.pipeline();
  for (let i = 0; i < 1000; i++) pipe.get("node:" + i % 500);
  (await pipe.exec()).forEach(([e, v], i) => check(!e && v === "value " + i % 500, "pipeline " + i));
  const all = await Promise.all([...Array(500).keys()].map((i) => r.get("node:" + i)));
  all.forEach((v, i) => check(v === "value " + i, "parallel " + i));
  const big = Buffer.alloc(3000000, "abcdefg");
  await r.set("node:big", big);
  check(big.equals(await r.getBuffer("node:big")), "big");
  await sub.subscribe("node");
  let got = 0;
  const done = new Promise((resolve) => sub.on("message", (_, m) => { check(+m === got, "message " + m); if (++got === 100) resolve(); }));
  for (let i = 0; i < 100; i++) await r.publish("node", i);
  await done;
  await r.quit();
  await sub.quit();
  console.log("all right");
})();
'''


@both
def test_ioredis(server, where, node_modules):
    kind = "unix" if where(server)[0] == "-s" else "tcp"
    done = used(server, run(server, "node", "-e", NODE.replace("argv[2]", "argv[1]").replace("argv[3]", "argv[2]"), kind,
                            server.path if kind == "unix" else server.port, env={"NODE_PATH": str(node_modules)}), at_least=2)
    assert done.stdout == "all right\n"


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory):
    """ioredis from npm, once a run; NODE_MODULES names a directory that has it."""
    if os.environ.get("NODE_MODULES"):
        return os.environ["NODE_MODULES"]
    if shutil.which("npm") is None:
        pytest.skip("no npm")
    directory = tmp_path_factory.mktemp("node")
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", directory, "ioredis@5"], capture_output=True, text=True,
                          timeout=120)
    if done.returncode != 0:
        pytest.skip("npm could not install ioredis: " + done.stderr[-200:])
    return directory / "node_modules"
