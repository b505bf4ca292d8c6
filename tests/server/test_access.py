"""Who may open shared memory, and what a refusal leaves: rule 8 (SHM.OPEN grants nothing) and rule 10 (memory is bounded)."""
import pytest

from redis_server import VERSION, eventually
from shm_client import ErrorReply
from wire import Wire, new_token


def nothing_opened(server, **auth):
    r = server.client(**auth)
    stats = dict(zip(*[iter(r.execute_command("SHM.STATS"))] * 2))
    assert stats[b"sessions"] == 0 and stats[b"memory_bytes"] == 0
    assert server.shared_mappings() == 0


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_without_a_password_there_is_noauth_and_no_memory(start_server, plain, unix):
    server = start_server(args=["--requirepass", "secret"], wait=False)
    assert eventually(lambda: "ready" in server.log().lower(), 10)
    with Wire(server, unix=unix) as w:
        reply = w.open()
        assert isinstance(reply, ErrorReply) and reply.startswith("NOAUTH"), reply
        assert not w.fds
        nothing_opened(server, password="secret")
        assert w.command("AUTH", "secret") == b"OK"
        assert w.open_session().command("PING") == b"PONG"


@pytest.mark.parametrize("rule", ["-shm.open", "-@all +ping"], ids=["this-command", "all-but-ping"])
def test_an_acl_that_denies_it_gives_noperm_and_no_memory(start_server, rule):
    server = start_server()
    server.client().execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", *rule.split())
    with Wire(server) as w:
        assert w.command("AUTH", "limited", "pw") == b"OK"
        reply = w.open()
        assert isinstance(reply, ErrorReply) and reply.startswith("NOPERM"), reply
        assert not w.fds
        nothing_opened(server)
        assert w.command("PING") == b"PONG"


def test_over_shared_memory_the_connection_has_the_rights_it_had(start_server):
    server = start_server()
    server.client().execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~mine:*", "+get", "+auth", "+ping", "+shm.open")
    with Wire(server) as w:
        assert w.command("AUTH", "reader", "pw") == b"OK"
        s = w.open_session()
        assert s.command("GET", "mine:1") is None
        assert s.command("GET", "theirs").startswith("NOPERM")
        assert s.command("SET", "mine:1", "x").startswith("NOPERM")
        server.client().execute_command("ACL", "DELUSER", "reader")
        assert w.ended()
    assert eventually(lambda: server.stats()["sessions"] == 0)


def test_the_token_shows_in_no_monitor_and_no_slow_log(start_server):
    server = start_server(args=["--slowlog-log-slower-than", "0"])
    watcher = Wire(server)
    assert watcher.command("MONITOR") == b"OK"
    token = new_token()
    with Wire(server) as w:
        assert w.open(token=token) == 1
        assert w.confirm().command("ECHO", "seen-by-monitor") == b"seen-by-monitor"
    lines = []
    while not any("seen-by-monitor" in line for line in lines):
        lines.append(watcher.reply().decode())
    assert not any(token in line for line in lines), lines
    assert token.encode() not in repr(server.client().slowlog_get(128)).encode()
    watcher.close()


def test_memory_is_counted_and_limited_and_comes_back(start_server):
    server = start_server(module_args=["max-memory", "300kb"])  # room for two sessions of 64 KiB each way
    wires = [Wire(server) for _ in range(3)]
    sessions = [w.open_session() for w in wires[:2]]
    reply = wires[2].open()
    assert isinstance(reply, ErrorReply) and "shm.max-memory" in reply, reply
    used = server.stats()["memory_bytes"]
    assert 256 << 10 <= used <= 300 << 10
    assert server.client().info("everything").get("shm_memory_bytes", used) == used
    wires[0].close()
    assert eventually(lambda: server.stats()["sessions"] == 1)
    assert wires[2].open_session().command("PING") == b"PONG"
    assert sessions[1].command("PING") == b"PONG"
    for w in wires[1:]:
        w.close()


def test_maxclients_counts_shared_memory_clients_as_it_counts_sockets(start_server, shm):
    server = start_server()
    clients = [shm(server, unix=i % 2 == 0) for i in range(5)]
    r = server.client()
    r.config_set("maxclients", r.info("clients")["connected_clients"])
    with Wire(server) as w:
        assert "max number of clients" in w.reply()
        assert w.ended()
    assert all(c.command("PING") == b"PONG" for c in clients)


@pytest.mark.skipif(VERSION < (7, 0, 0), reason="maxmemory-clients came with 7.0")
def test_maxmemory_clients_evicts_a_shared_memory_client_that_does_not_read(start_server, shm):
    server = start_server(args=["--maxmemory-clients", "8mb", "--client-output-buffer-limit", "normal", "0", "0", "0"])
    other = shm(server)
    other.command("SETRANGE", "big", str((1 << 20) - 1), "x")
    with Wire(server) as w:
        s = w.open_session()
        client_id = s.command("CLIENT", "ID")
        s.write(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n" * 40)
        assert w.ended()
    assert server.log().count("Evicting client: ") == 1 and f"Evicting client: id={client_id} " in server.log()
    assert other.command("PING") == b"PONG"


def test_a_password_set_later_does_not_close_what_is_open(start_server, shm):
    server = start_server()
    c = shm(server)
    server.client().config_set("requirepass", "later")
    assert c.command("PING") == b"PONG"  # as on a socket: authenticated when it connected
    with Wire(server) as w:
        assert w.open().startswith("NOAUTH")
