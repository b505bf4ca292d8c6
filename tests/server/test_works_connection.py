"""What works over shared memory: what the server does with connections - Pub/Sub, blocking commands, MONITOR, CLIENT, limits."""
import threading
import time

import pytest

from redis_server import VERSION, eventually
from shm_client import ERR_EOF, HiredisError

TRANSPORTS = pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])


def row(admin, client_id):
    """The row of CLIENT LIST as a dict."""
    text = admin.command("CLIENT", "LIST", "ID", client_id).decode()
    return dict(field.split("=", 1) for field in text.split())


def later(seconds, call):
    thread = threading.Timer(seconds, call)
    thread.start()
    return thread


# ---- Pub/Sub, blocking commands, MONITOR ----

@TRANSPORTS
def test_subscribe_and_psubscribe(server, shm, plain, unix):
    c, p = shm(server, unix), plain(server)
    c.append("SUBSCRIBE", "one", "two")
    assert [c.get_reply(), c.get_reply()] == [[b"subscribe", b"one", 1], [b"subscribe", b"two", 2]]
    assert c.command("PSUBSCRIBE", "t*") == [b"psubscribe", b"t*", 3]
    assert p.command("PUBLISH", "one", "m1") == 1
    assert c.get_reply() == [b"message", b"one", b"m1"]
    assert p.command("PUBLISH", "two", "m2") == 2
    assert c.get_reply() == [b"message", b"two", b"m2"]
    assert c.get_reply() == [b"pmessage", b"t*", b"two", b"m2"]
    assert c.command("PING") == [b"pong", b""]
    c.append("UNSUBSCRIBE")
    assert sorted([c.get_reply()[1], c.get_reply()[1]]) == [b"one", b"two"]
    assert c.command("PUNSUBSCRIBE") == [b"punsubscribe", b"t*", 0]
    assert c.command("PING") == b"PONG"
    assert p.command("PUBLISH", "one", "m3") == 0


def test_a_shared_memory_publisher_reaches_both_kinds(server, shm, plain):
    subscribers = [shm(server), plain(server), shm(server, unix=False)]
    for s in subscribers:
        s.command("SUBSCRIBE", "both")
    c = shm(server)
    for i in range(200):
        assert c.command("PUBLISH", "both", b"%d" % i + b"x" * (i * 37)) == 3
    for s in subscribers:
        for i in range(200):
            assert s.get_reply() == [b"message", b"both", b"%d" % i + b"x" * (i * 37)]


@pytest.mark.skipif(VERSION < (7, 0, 0), reason="SSUBSCRIBE came with 7.0")
def test_sharded_subscribe(server, shm, plain):
    c, p = shm(server), plain(server)
    assert c.command("SSUBSCRIBE", "shard") == [b"ssubscribe", b"shard", 1]
    assert p.command("SPUBLISH", "shard", "m") == 1
    assert c.get_reply() == [b"smessage", b"shard", b"m"]


@TRANSPORTS
@pytest.mark.parametrize("gap", [0.0, 0.05, 0.3])
def test_blpop_is_woken_by_a_plain_client(server, shm, plain, unix, gap):
    c, p = shm(server, unix), plain(server)
    c.command("DEL", "queue")
    for i in range(5 if gap < 0.1 else 2):
        t = later(gap, lambda: p.command("RPUSH", "queue", i))
        assert c.command("BLPOP", "queue", 10) == [b"queue", b"%d" % i]
        t.join()


def test_a_plain_blpop_is_woken_over_shared_memory(server, shm, plain):
    c, p = shm(server), plain(server)
    c.command("DEL", "back")
    t = later(0.05, lambda: c.command("RPUSH", "back", "v"))
    assert p.command("BLPOP", "back", 10) == [b"back", b"v"]
    t.join()


def test_other_blocking_commands_and_their_timeout(server, shm, plain):
    c, p = shm(server), plain(server)
    c.command("DEL", "bz", "bs", "nothing")
    t = later(0.05, lambda: p.command("ZADD", "bz", 1, "m"))
    assert c.command("BZPOPMIN", "bz", 10)[:2] == [b"bz", b"m"]
    t.join()
    t = later(0.05, lambda: p.command("XADD", "bs", "1-1", "f", "v"))
    assert c.command("XREAD", "BLOCK", 10000, "STREAMS", "bs", "0") == [[b"bs", [[b"1-1", [b"f", b"v"]]]]]
    t.join()
    start = time.monotonic()
    assert c.command("BLPOP", "nothing", 0.2) is None
    assert 0.15 < time.monotonic() - start < 5
    assert c.command("WAIT", 1, 50) == 0
    blocked = c.command("CLIENT", "ID")
    t = later(0.1, lambda: p.command("CLIENT", "UNBLOCK", blocked, "ERROR"))
    assert c.command("BLPOP", "nothing", 10).startswith("UNBLOCKED")
    t.join()
    assert c.command("PING") == b"PONG"


@TRANSPORTS
def test_monitor(server, shm, plain, unix):
    c, p = shm(server, unix), plain(server)
    assert c.command("MONITOR") == b"OK"
    for i in range(2000):
        p.append("SET", "watched", i)
    assert all(p.get_reply() == b"OK" for _ in range(2000))
    seen = [c.get_reply() for _ in range(2000)]
    assert all(line.endswith(b'"SET" "watched" "%d"' % i) for i, line in enumerate(seen))


def test_commands_over_shared_memory_are_seen_by_monitor_and_slowlog(server, shm, plain):
    p, c = plain(server), shm(server)
    assert p.command("MONITOR") == b"OK"
    c.command("SET", "seen", "1")
    assert p.get_reply().endswith(b'"SET" "seen" "1"')


# ---- CLIENT ----

@TRANSPORTS
def test_client_list_shows_the_same_row_id_and_fd(server, plain, unix):
    c, admin = plain(server, unix), plain(server)
    c.command("CLIENT", "SETNAME", "keeps-its-name")
    client_id = c.command("CLIENT", "ID")
    before, fds = row(admin, client_id), server.fds()
    assert c.use_shared_memory() == 1
    c.command("PING")
    after = row(admin, client_id)
    assert c.command("CLIENT", "ID") == client_id
    for field in ("id", "addr", "laddr", "fd", "name", "user", "resp"):
        assert before[field] == after[field], field
    assert after["cmd"] in ("ping", "client|id")
    assert server.fds() == fds  # the memory is held by its mapping alone
    rows = [r for r in admin.command("CLIENT", "LIST").splitlines() if b"name=keeps-its-name" in r]
    assert len(rows) == 1
    assert int(after["age"]) >= int(before["age"])
    assert c.command("CLIENT", "SETNAME", "another") == b"OK"
    assert row(admin, client_id)["name"] == "another"
    assert c.command("CLIENT", "INFO").startswith(b"id=%d " % client_id)


def ends_at_once(c, end, admin):
    """c waits for a reply; end() ends it. Returns how long c took to notice, in seconds."""
    seen = []

    def wait():
        try:
            seen.append(c.command("BLPOP", "never-there", 0))
        except HiredisError as e:
            seen.append((e.err, time.monotonic()))

    t = threading.Thread(target=wait)
    t.start()
    assert eventually(lambda: b"cmd=blpop" in admin.command("CLIENT", "LIST"))
    start = time.monotonic()
    end()
    t.join(10)
    assert seen and seen[0][0] == ERR_EOF, seen
    return seen[0][1] - start


@TRANSPORTS
def test_client_kill_ends_a_waiting_client_at_once(server, shm, plain, unix):
    admin = plain(server)
    took = []
    for _ in range(3):
        before = server.stats()["sessions"]
        c = shm(server, unix)
        client_id = c.command("CLIENT", "ID")
        took.append(ends_at_once(c, lambda: admin.command("CLIENT", "KILL", "ID", client_id), admin))
        assert server.stats()["sessions"] == before
        assert admin.command("CLIENT", "LIST", "ID", client_id) == b""
    assert min(took) < 0.1 and max(took) < 3, took


def test_a_client_may_kill_itself_and_quit(server, shm):
    c = shm(server)
    assert c.command("CLIENT", "KILL", "ID", c.command("CLIENT", "ID"), "SKIPME", "no") == 1
    with pytest.raises(HiredisError) as e:
        c.command("PING")
    assert e.value.err == ERR_EOF
    c = shm(server)
    assert c.command("QUIT") == b"OK"
    with pytest.raises(HiredisError) as e:
        c.command("PING")
    assert e.value.err == ERR_EOF
    assert eventually(lambda: server.stats()["sessions"] == server.shared_mappings())


@TRANSPORTS
def test_client_pause(server, shm, plain, unix):
    c, admin = shm(server, unix), plain(server)
    c.command("SET", "paused", 1)
    for mode in ("ALL", "WRITE"):
        assert admin.command("CLIENT", "PAUSE", 400, mode) == b"OK"
        start = time.monotonic()
        if mode == "WRITE":
            assert c.command("GET", "paused") == b"1"
            assert time.monotonic() - start < 0.35
        assert c.command("INCR", "paused") == 2
        assert time.monotonic() - start > 0.3
        c.command("SET", "paused", 1)
    admin.command("CLIENT", "PAUSE", 60000, "WRITE")
    t = later(0.2, lambda: admin.command("CLIENT", "UNPAUSE"))
    start = time.monotonic()
    assert c.command("INCR", "paused") == 2
    assert 0.1 < time.monotonic() - start < 10
    t.join()


def test_client_reply_skip_and_reset(server, shm):
    c = shm(server)
    c.append("CLIENT", "REPLY", "SKIP")
    c.append("SET", "unheard", 1)
    c.append("GET", "unheard")
    assert c.get_reply() == b"1"
    assert c.command("SELECT", 3) == b"OK"
    assert c.command("RESET") == b"RESET"
    assert c.is_shm() and c.command("GET", "unheard") == b"1"


# ---- limits ----

def test_timeout_closes_the_idle_client_only(start_server, shm):
    server = start_server(args=["--timeout", "1"])
    idle, busy = shm(server), shm(server)
    start = time.monotonic()
    while time.monotonic() - start < 8 and server.stats()["sessions"] == 2:
        assert busy.command("PING") == b"PONG"
        time.sleep(0.1)
    assert time.monotonic() - start > 0.9
    assert server.stats()["sessions"] == 1
    assert busy.command("PING") == b"PONG"
    with pytest.raises(HiredisError) as e:
        idle.command("PING")
    assert e.value.err == ERR_EOF


def used_memory(admin):
    return int(dict(line.split(b":") for line in admin.command("INFO", "memory").splitlines() if b":" in line)[b"used_memory"])


@TRANSPORTS
def test_a_subscriber_that_does_not_read_is_closed_by_the_output_buffer_limit(start_server, shm, plain, unix):
    server = start_server(args=["--client-output-buffer-limit", "pubsub 2mb 2mb 0"])
    c, p = shm(server, unix), plain(server)
    c.command("SUBSCRIBE", "flood")
    before, highest = used_memory(p), 0
    message = b"m" * 1000
    for i in range(100):
        for _ in range(100):
            p.append("PUBLISH", "flood", message)
        for _ in range(100):
            p.get_reply()
        highest = max(highest, used_memory(p) - before)
        if server.stats()["sessions"] == 0:
            break
    assert server.stats()["sessions"] == 0
    assert 1_000_000 < highest < 4_000_000 and i > 15
    received = 0
    with pytest.raises(HiredisError) as e:  # what was in the ring is read, then the end
        while True:
            assert c.get_reply() == [b"message", b"flood", message]
            received += 1
    assert e.value.err == ERR_EOF and received >= 3
    assert eventually(lambda: used_memory(p) - before < 300_000)


def test_a_client_that_does_not_read_its_replies_is_closed_too(start_server, plain, shm):
    server = start_server(args=["--client-output-buffer-limit", "normal 4mb 0 0"])
    admin, c = plain(server), plain(server, nonblock=True)
    admin.command("SET", "mb", b"x" * 1_000_000)
    assert c.use_shared_memory() is None
    assert c.wait_reply() == 1
    for _ in range(12):
        c.append("GET", "mb")
    while not c.buffer_write():
        pass
    assert eventually(lambda: server.stats()["sessions"] == 0)
    assert used_memory(admin) < 12_000_000


def test_memory_is_given_back_when_a_slow_reader_catches_up(server, shm, plain):
    c, p = shm(server), plain(server)
    before = used_memory(p)
    p.command("SET", "slow", b"x" * 100_000)
    for _ in range(200):
        c.append("GET", "slow")
    assert all(c.get_reply() == b"x" * 100_000 for _ in range(200))
    p.command("DEL", "slow")
    assert eventually(lambda: used_memory(p) - before < 500_000)


def test_a_request_beyond_the_query_buffer_limit_closes_its_client(start_server, shm, plain):
    server = start_server(args=["--client-query-buffer-limit", "2mb"])
    c, admin = shm(server), plain(server)
    assert c.command("SET", "k", b"v" * 1_000_000) == b"OK"
    with pytest.raises(HiredisError):
        c.command("SET", "k", b"v" * 8_000_000)
    assert eventually(lambda: server.stats()["sessions"] == 0)
    assert admin.command("PING") == b"PONG"
