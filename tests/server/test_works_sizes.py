"""What works over shared memory: values of every critical size, deep pipelines."""
import random

import pytest

from redis_server import eventually

RING = 65536
EDGES = (64, 4096, 16384, RING // 4, RING // 2, RING)
OVERHEAD = 72  # of a SET: what comes before and after the value, so that the whole request (or reply) hits the edge too
TRANSPORTS = pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
PATTERN = random.Random(2).randbytes(200_000)


def value(n):
    """n bytes that differ from those of every other n."""
    start = n * 7919 % 60_000
    return PATTERN[start:start + n] if start + n <= len(PATTERN) else (PATTERN * (n // len(PATTERN) + 2))[start:start + n]


def sizes(*edges):
    return sorted({n for edge in edges for n in range(max(0, edge - OVERHEAD), edge + 3)} | {0, 1, 2})


def check(c, p, all_sizes):
    for n in all_sizes:
        v = value(n)
        assert c.command("SET", "size", v) == b"OK"
        assert p.command("GET", "size") == v, n
        assert c.command("GET", "size") == v, n
    for n in all_sizes:  # behind one another, so that they start at every offset
        c.append("ECHO", value(n))
    for n in all_sizes:
        assert c.get_reply() == value(n), n


@TRANSPORTS
def test_values_of_every_critical_size(server, shm, plain, unix):
    check(shm(server, unix), plain(server), sizes(*EDGES))


@TRANSPORTS
def test_values_of_every_critical_size_with_the_smallest_ring(start_server, shm, plain, unix):
    server = start_server(module_args=["ring-size", "4096"])
    c = shm(server, unix)
    check(c, plain(server), sizes(64, 1024, 2048, 4096, 8192))
    for n in (16384, 65536, 1_000_000):
        assert c.command("ECHO", value(n)) == value(n)


@pytest.mark.parametrize("ring", ["4kb", "64kb", "1mb"])
def test_random_sizes_in_both_directions(start_server, shm, ring):
    c = shm(start_server(module_args=["ring-size", ring]))
    draw = random.Random(7)
    for _ in range(30):
        batch = [int(2 ** draw.uniform(0, 18)) for _ in range(draw.randrange(1, 40))]
        for n in batch:
            c.append("ECHO", value(n))
        for n in batch:
            assert c.get_reply() == value(n), n


@pytest.mark.parametrize("ring", ["4096", "65536"])
def test_64_mebibytes_there_and_back(start_server, shm, plain, ring):
    server = start_server(module_args=["ring-size", ring])
    c = shm(server)
    huge = value(64 << 20)
    assert c.command("SET", "huge", huge) == b"OK"
    assert plain(server).command("GET", "huge") == huge
    assert c.command("GET", "huge") == huge
    assert c.command("DEL", "huge") == 1
    assert c.command("PING") == b"PONG"


def protocol(*args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)


@TRANSPORTS
def test_100000_pipelined_commands_before_one_reply_is_read(server, shm, unix):
    c = shm(server, unix)
    c.command("DEL", "pipe")
    c.append_formatted(protocol(b"INCR", b"pipe") * 100_000)
    for i in range(100_000):
        assert c.get_reply() == i + 1
    assert c.command("PING") == b"PONG"


def test_100000_pipelined_commands_from_a_nonblocking_context(server, plain):
    c, p = plain(server, nonblock=True), plain(server)
    assert c.use_shared_memory() is None and c.wait_reply() == 1
    p.command("DEL", "pipe")
    c.append_formatted(protocol(b"INCR", b"pipe") * 100_000)
    while not c.buffer_write():
        pass
    assert eventually(lambda: p.command("GET", "pipe") == b"100000")  # all executed, nothing read
    for i in range(100_000):
        assert c.wait_reply() == i + 1


def test_large_replies_to_a_client_that_reads_late(server, shm, plain):
    c, p = shm(server), plain(server)
    p.command("SET", "large", value(300_000))
    for _ in range(100):
        c.append("GET", "large")
    assert all(c.get_reply() == value(300_000) for _ in range(100))
    p.command("DEL", "large")
