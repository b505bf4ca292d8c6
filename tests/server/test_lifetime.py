"""What sessions leave behind, fork children beside them, and what idle ones cost."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from redis_server import eventually
from shm_client import HiredisError
from wire import Wire, encode

HERE = os.path.dirname(__file__)


def resources(server):
    return len(server.fds()), server.shared_mappings(), server.stats()["memory_bytes"], server.stats()["sessions"]


def warm(server, plain):
    """The state a server returns to: after its first session, since one descriptor for its poller stays."""
    server.stats()
    c = plain(server)
    assert c.use_shared_memory() == 1
    c.free()
    assert eventually(lambda: server.stats()["sessions"] == 0)
    return resources(server)


def test_two_hundred_sessions_opened_and_closed_leave_nothing(start_server, plain):
    server = start_server()
    start = warm(server, plain)
    assert start[1:] == (0, 0, 0)
    for i in range(200):
        c = plain(server, unix=i % 2 == 0)
        assert c.use_shared_memory() == 1 and c.command("SET", "k", str(i)) == b"OK"
        if i % 3 == 0:
            c.append("PING")  # closed with a command not yet sent, or
        if i % 3 == 1:
            c.append("GET", "k")
            c.buffer_write()  # with a reply not yet read
        c.free()
    assert eventually(lambda: resources(server) == start), (start, resources(server))
    assert server.stats()["sessions_opened"] == 201


def test_sessions_given_up_at_every_step_leave_nothing(start_server, plain):
    server = start_server()
    start = warm(server, plain)
    for i in range(100):
        with Wire(server, unix=i % 2 == 0) as w:
            if i % 5 == 0:
                w.send_bytes(b"*3\r\n$8\r\nSHM.OP")
                continue
            assert w.open() == 1
            if i % 5 == 1:
                continue  # never confirmed
            s = w.confirm()
            if i % 5 == 2:
                continue  # never used
            s.write(encode("PING"), ring=i % 5 == 3)
    assert eventually(lambda: resources(server) == start), (start, resources(server))


CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from shm_client import Hiredis
clients = [Hiredis(path=sys.argv[2]) if i % 2 else Hiredis(port=int(sys.argv[3])) for i in range(20)]
assert all(c.use_shared_memory() == 1 for c in clients)
print("open", flush=True)
while True:
    for c in clients:
        c.command("INCR", "killed")
"""


def test_killed_clients_leave_nothing(start_server, plain):
    server = start_server()
    start = warm(server, plain)
    witness = plain(server)
    assert witness.use_shared_memory() == 1
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CLIENT, HERE, server.path, str(server.port)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "open\n"
        assert eventually(lambda: int(witness.command("GET", "killed") or 0) > 100)
        assert server.stats()["sessions"] == 21
        child.kill()
        child.wait()
        child.stdout.close()
        assert eventually(lambda: server.stats()["sessions"] == 1)
        witness.command("DEL", "killed")
        assert witness.command("PING") == b"PONG"
    witness.free()
    assert eventually(lambda: resources(server) == start), (start, resources(server))


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
@pytest.mark.parametrize("waiting", [False, True], ids=["before-a-command", "inside-a-wait"])
def test_a_killed_server_is_noticed_at_once(start_server, shm, unix, waiting):
    server = start_server()
    c = shm(server, unix=unix)
    assert c.command("PING") == b"PONG"
    if waiting:
        killer = threading.Timer(0.2, lambda: server.kill(signal.SIGKILL))
        killer.start()
    else:
        server.kill(signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(HiredisError) as e:
        c.command("BLPOP", "nothing", "0")
    took = time.monotonic() - start
    if waiting:
        killer.join()
    assert e.value.err == 3 and "closed" in e.value.errstr
    assert took < 2


def test_client_kill_frees_the_session(start_server, shm, plain):
    server = start_server()
    start = warm(server, plain)
    clients = [shm(server, unix=i % 2 == 0) for i in range(6)]
    for c in clients:
        assert server.client().client_kill_filter(_id=c.command("CLIENT", "ID")) == 1
        with pytest.raises(HiredisError):
            c.command("PING")
    assert eventually(lambda: server.stats()["sessions"] == 0)
    assert eventually(lambda: resources(server)[1:] == start[1:])


def test_reset_and_quit_end_as_on_a_socket(start_server, shm):
    server = start_server()
    c = shm(server)
    assert c.command("QUIT") == b"OK"
    assert eventually(lambda: server.stats()["sessions"] == 0)
    with pytest.raises(HiredisError):
        c.command("PING")
    c = shm(server)
    c.command("SELECT", "3")
    assert c.command("RESET") == b"RESET"
    assert c.command("PING") == b"PONG" and c.is_shm()


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(params=["bgsave", "aof"])
def forker(request, start_server):
    """(server, function that starts a background child of about a second, function that says whether it ended well)."""
    server = start_server(args=["--aof-use-rdb-preamble", "yes", "--dbfilename", "dump.rdb"])
    r = server.client()
    r.execute_command("DEBUG", "POPULATE", "2000", "key", "100") if _debug(r) else [r.set(f"key:{i}", "x" * 100) for i in range(2000)]
    r.config_set("rdb-key-save-delay", "500")
    if request.param == "bgsave":
        return server, lambda: r.execute_command("BGSAVE"), lambda: r.info("persistence")["rdb_last_bgsave_status"] == "ok"
    return (server, lambda: r.execute_command("BGREWRITEAOF"),
            lambda: r.info("persistence")["aof_last_bgrewrite_status"] == "ok")


def _debug(r):
    try:
        return bool(r.execute_command("DEBUG", "SLEEP", "0"))
    except Exception:  # not allowed on this server
        return False


def test_a_background_save_disturbs_no_session(forker, shm, plain):
    server, start, ended_well = forker
    clients = [shm(server, unix=i % 2 == 0) for i in range(10)]
    start()
    assert eventually(lambda: children(server.pid))
    child = children(server.pid)[0]
    maps = pathlib.Path(f"/proc/{child}/maps").read_text()
    assert "memfd:redis-shm" not in maps
    n = 0
    while pathlib.Path(f"/proc/{child}").exists() and n < 200000:
        for i, c in enumerate(clients):
            assert c.command("SET", f"while-{i}", str(n)) == b"OK" and c.command("GET", f"while-{i}") == str(n).encode()
        n += 1
    assert n > 20
    one_more = shm(server)
    assert one_more.command("PING") == b"PONG"
    assert eventually(lambda: not children(server.pid)) and eventually(ended_well)
    assert all(c.command("PING") == b"PONG" and c.is_shm() for c in clients)
    assert server.stats()["sessions"] == 11


def test_sessions_opened_and_closed_during_a_background_save_are_freed(forker, shm, plain):
    server, start, ended_well = forker
    kept = shm(server)
    start()
    assert eventually(lambda: children(server.pid))
    child = children(server.pid)[0]
    for i in range(20):
        c = shm(server, unix=i % 2 == 0)
        assert c.command("INCR", "n") == i + 1
        c.free()
    assert eventually(lambda: server.stats()["sessions"] == 1) and server.shared_mappings() == 1
    assert pathlib.Path(f"/proc/{child}").exists()
    os.kill(child, signal.SIGKILL)  # and a child that dies disturbs nobody either
    assert eventually(lambda: not children(server.pid))
    assert kept.command("GET", "n") == b"20"


def idle_cpu(server, seconds=2):
    time.sleep(0.2)  # beyond every spin
    start = server.cpu_seconds()
    time.sleep(seconds)
    return (server.cpu_seconds() - start) / seconds


@pytest.mark.parametrize("mode", ["adaptive", "block"])
@pytest.mark.parametrize("n", [1, 100, 1000])
def test_idle_sessions_cost_no_more_cpu_than_idle_sockets(start_server, shm, plain, n, mode):
    server = start_server(module_args=["wait-mode", mode])
    sockets = [plain(server, unix=i % 2 == 0) for i in range(n)]
    beside_sockets = idle_cpu(server)  # the server's own timers, which look at every client
    for c in sockets:
        c.free()
    clients = [shm(server, unix=i % 2 == 0) for i in range(n)]
    for c in clients:
        assert c.command("PING") == b"PONG"
    assert server.stats()["sessions"] == n
    used = idle_cpu(server)
    assert used < beside_sockets + 0.01, f"{used:.1%} of a CPU, {beside_sockets:.1%} with sockets"
    assert all(c.command("PING") == b"PONG" for c in clients)


def test_waiting_clients_cost_no_cpu(start_server, shm):
    server = start_server(module_args=["wait-mode", "adaptive"])
    c = shm(server)
    done = []
    t = threading.Thread(target=lambda: done.append(c.command("BLPOP", "later", "10")))
    start, t0 = server.cpu_seconds() + time.process_time(), time.monotonic()
    t.start()
    time.sleep(2)
    used = server.cpu_seconds() + time.process_time() - start
    share = used / (time.monotonic() - t0)
    server.client().rpush("later", "x")
    t.join()
    assert done == [[b"later", b"x"]]
    assert share < 0.02, f"{share:.1%} of a CPU, client and server together"
