"""What works over shared memory: many clients at once, IO threads, forks for snapshots and log rewrites, replication."""
import os
import random
import signal
import threading
import time

import pytest

from redis_server import VERSION, eventually

CLIENTS = 50
PATTERN = random.Random(3).randbytes(100_000)


def verified_work(c, who, seconds=None, rounds=None):
    """Commands whose replies only this client can get; stops after seconds or rounds. Returns the number of commands."""
    draw, own, done = random.Random(who), b"own:%d" % who, 0
    end = time.monotonic() + seconds if seconds else None
    c.command("DEL", own, own + b":n")
    counter = 0
    while time.monotonic() < end if end else rounds > 0:
        rounds = rounds - 1 if rounds else None
        kind = draw.randrange(4)
        if kind == 0:
            v = PATTERN[:int(2 ** draw.uniform(0, 16))]
            assert c.command("SET", own, v) == b"OK" and c.command("GET", own) == v
        elif kind == 1:
            counter += 1
            assert c.command("INCR", own + b":n") == counter
        elif kind == 2:
            n = draw.randrange(1, 30)
            for i in range(n):
                c.append("ECHO", b"%d:%d" % (who, i))
            for i in range(n):
                assert c.get_reply() == b"%d:%d" % (who, i)
        else:
            c.command("MULTI")
            c.command("ECHO", own)
            assert c.command("EXEC") == [own]
        done += 1
    return done


def at_once(jobs):
    """Runs each job in a thread; the first failure is raised."""
    failures = []

    def run(job):
        try:
            job()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


def clients(shm, server, n):
    return [shm(server, unix=i % 2 == 0) for i in range(n)]


def test_50_clients_at_once(server, shm):
    cs = clients(shm, server, CLIENTS)
    assert server.stats()["sessions"] == CLIENTS
    at_once([lambda c=c, i=i: verified_work(c, i, rounds=60) for i, c in enumerate(cs)])


def test_50_clients_whose_requests_are_all_under_way(server, shm):
    cs = clients(shm, server, CLIENTS)
    for n in (1, 100, 5000, 70_000):
        for _ in range(20 if n < 5000 else 4):
            for i, c in enumerate(cs):
                c.append("ECHO", b"%d" % i + PATTERN[:n])
                c.append("PING")
            for i, c in enumerate(cs):
                assert c.get_reply() == b"%d" % i + PATTERN[:n]
            assert all(c.get_reply() == b"PONG" for c in cs)


def test_shared_memory_and_socket_clients_mixed(server, shm, plain):
    cs = clients(shm, server, 12) + [plain(server, unix=i % 2 == 0) for i in range(12)]
    at_once([lambda c=c, i=i: verified_work(c, i, rounds=80) for i, c in enumerate(cs)])


def info(server, section):
    text = server.client().execute_command("INFO", section)
    return text if isinstance(text, dict) else dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


@pytest.mark.parametrize("module_args", [[], ["ring-size", "4096"]], ids=["ring64k", "ring4k"])
def test_io_threads(start_server, shm, plain, module_args):
    server = start_server(args=["--io-threads", "2", "--io-threads-do-reads", "yes"], module_args=module_args)
    cs = clients(shm, server, 24) + [plain(server) for _ in range(8)]
    for _ in range(60):  # all of them ready in one turn of the server: then it uses its threads
        for i, c in enumerate(cs):
            for n in (10, 3000, 20_000):
                c.append("ECHO", b"%d" % i + PATTERN[:n])
        for i, c in enumerate(cs):
            for n in (10, 3000, 20_000):
                assert c.get_reply() == b"%d" % i + PATTERN[:n]
    at_once([lambda c=c, i=i: verified_work(c, i, rounds=40) for i, c in enumerate(cs)])
    for _ in range(10):  # and for certain, whatever the scheduler does
        os.kill(server.pid, signal.SIGSTOP)
        for i, c in enumerate(cs):
            c.append("ECHO", b"%d" % i)
            assert c.buffer_write()
        os.kill(server.pid, signal.SIGCONT)
        assert [c.get_reply() for c in cs] == [b"%d" % i for i in range(len(cs))]
    if (7, 0, 0) <= VERSION < (8, 0, 0):
        threaded = {k: int(v) for k, v in info(server, "stats").items() if k.startswith("io_threaded_")}
        assert all(n > 0 for n in threaded.values()), threaded  # else this tested nothing
    for c in cs:
        assert c.command("PING") == b"PONG"


def test_snapshots_and_log_rewrites_while_clients_are_busy(start_server, shm):
    server = start_server(args=["--appendonly", "yes"])
    admin = server.client()
    admin.execute_command("SET", "ballast", PATTERN * 100)
    cs = clients(shm, server, 6)
    done = []

    def fork_again_and_again():
        for command in ("BGSAVE", "BGREWRITEAOF") * 3:
            assert eventually(lambda: "0" == str(info(server, "persistence")["rdb_bgsave_in_progress"]) ==
                              str(info(server, "persistence")["aof_rewrite_in_progress"]))
            admin.execute_command(command)
            time.sleep(0.05)
        done.append(True)

    at_once([fork_again_and_again] + [lambda c=c, i=i: verified_work(c, i, seconds=2) for i, c in enumerate(cs)])
    assert done
    assert eventually(lambda: "0" == str(info(server, "persistence")["aof_rewrite_in_progress"]))
    persistence = info(server, "persistence")
    assert persistence["rdb_last_bgsave_status"] == "ok" == persistence["aof_last_bgrewrite_status"]
    assert server.stats()["sessions"] == 6
    for c in cs:
        c.free()
    assert eventually(lambda: server.stats()["sessions"] == 0)
    assert server.shared_mappings() == 0


def test_replication_with_shared_memory_on_both(start_server, shm):
    main, replica = start_server(args=["--repl-diskless-sync-delay", "0"]), start_server()
    a, b = shm(main), shm(replica)
    a.command("SET", "before", PATTERN)
    assert b.command("REPLICAOF", "127.0.0.1", main.port) == b"OK"
    assert eventually(lambda: b"master_link_status:up" in b.command("INFO", "replication"), 15)
    assert b.is_shm() and b.command("GET", "before") == PATTERN
    assert b.command("SET", "mine", 1).startswith("READONLY")
    for i in range(2000):
        a.append("SET", b"r:%d" % i, PATTERN[:i])
    assert all(a.get_reply() == b"OK" for _ in range(2000))
    assert a.command("WAIT", 1, 5000) == 1
    for i in range(0, 2000, 7):
        assert b.command("GET", b"r:%d" % i) == PATTERN[:i]
    assert b.command("REPLICAOF", "NO", "ONE") == b"OK"
    assert b.command("SET", "mine", 1) == b"OK"
    assert b.command("GET", "r:1999") == PATTERN[:1999]


def test_keyspace_events_and_expiry_reach_a_subscriber(start_server, shm, plain):
    server = start_server(args=["--notify-keyspace-events", "Ex"])
    c, p = shm(server), plain(server)
    c.command("SUBSCRIBE", "__keyevent@0__:expired")
    p.command("SET", "gone", 1, "PX", 50)
    assert c.get_reply() == [b"message", b"__keyevent@0__:expired", b"gone"]  # from the server's timer, nobody asks
