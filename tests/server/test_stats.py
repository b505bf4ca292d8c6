"""SHM.STATS and INFO shm: what they hold, and that the figures move with what happens."""
import time

import pytest

from redis_server import eventually
from shm_client import ErrorReply
from wire import Wire, encode, new_token

FIGURES = {"sessions", "sessions_hot", "sessions_parked", "sessions_opened", "sessions_declined", "sessions_violated", "memory_bytes",
           "bytes_in", "bytes_out", "messages_in", "messages_out", "doorbells_sent", "doorbells_received", "spins_hit", "spins_missed",
           "refused"}
REASONS = {"refused_" + r for r in ("version", "token", "rendezvous", "mode", "context", "already_open", "unanswered", "tls",
                                    "not_this_host", "max_sessions", "max_memory", "older_than_module", "system")}
SEGMENT = 4096 + 2 * (65536 + 4096)  # docs/protocol.md, "The segment": rings of 64 KiB


def moved(before, after):
    return {k: after[k] - before[k] for k in after if after[k] != before[k]}


def test_in_resp2_it_is_a_flat_list_of_names_and_numbers(server, plain):
    flat = plain(server).command("SHM.STATS")
    assert isinstance(flat, list) and all(isinstance(k, bytes) for k in flat[::2]) and all(isinstance(v, int) for v in flat[1::2])
    names = [k.decode() for k in flat[::2]]
    assert set(names) >= FIGURES | REASONS and len(names) == len(set(names))


@pytest.mark.parametrize("over_shm", [False, True], ids=["socket", "shm"])
def test_in_resp3_it_is_a_map(server, plain, over_shm):
    c = plain(server)
    if over_shm:
        assert c.use_shared_memory() == 1
    c.command("HELLO", "3")
    stats = c.command("SHM.STATS")
    assert isinstance(stats, dict) and {k.decode() for k in stats} >= FIGURES | REASONS
    assert stats[b"sessions"] == int(over_shm)


def test_arguments_are_refused(server, plain):
    reply = plain(server).command("SHM.STATS", "all")
    assert isinstance(reply, ErrorReply) and "wrong number of arguments" in reply


def test_info_shm_says_the_same(server, shm):
    shm(server)
    text = server.client().execute_command("INFO", "shm")
    if isinstance(text, bytes):
        info = dict(line.split(":") for line in text.decode().splitlines() if ":" in line)
    else:
        info = text
    info = {k[len("shm_"):]: int(v) for k, v in info.items()}
    stats = server.stats()
    assert set(info) == set(stats)
    still = {k for k in stats if k not in ("sessions_hot", "sessions_parked", "spins_hit", "spins_missed")}
    assert {k: info[k] for k in still} == {k: stats[k] for k in still}
    assert info["sessions"] == 1


def test_info_everything_holds_the_section(server):
    text = server.client().execute_command("INFO", "everything")
    assert "shm_sessions" in (text.decode() if isinstance(text, bytes) else text)


def test_sessions_and_memory_are_counted_up_and_down(start_server, plain):
    server = start_server()
    assert server.stats()["sessions"] == 0 and server.stats()["memory_bytes"] == 0
    clients = [plain(server, unix=i % 2 == 0) for i in range(10)]
    for n, c in enumerate(clients, 1):
        assert c.use_shared_memory() == 1
        stats = server.stats()
        assert stats["sessions"] == n == stats["sessions_opened"]
        assert stats["memory_bytes"] == n * SEGMENT
    assert server.shared_mappings() == 10
    for n, c in enumerate(clients, 1):
        c.free()
        assert eventually(lambda: server.stats()["sessions"] == 10 - n)
    stats = server.stats()
    assert stats["sessions_opened"] == 10 and stats["memory_bytes"] == 0 and server.shared_mappings() == 0


def test_bytes_and_messages_are_counted_each_way(server, shm):
    c = shm(server)
    before = server.stats()
    for i in range(100):
        assert c.command("ECHO", "x" * 50) == b"x" * 50
    m = moved(before, server.stats())
    assert m["bytes_in"] == 100 * len(encode("ECHO", "x" * 50)) and m["bytes_out"] == 100 * len(b"$50\r\n\r\n" + b"x" * 50)
    assert m["messages_in"] == m["messages_out"] == 100


def test_plain_commands_count_nowhere(server, plain):
    c = plain(server)
    c.command("PING")
    before = server.stats()
    for _ in range(50):
        c.command("PING")
    assert not moved(before, server.stats())


def test_a_closed_sessions_figures_stay_in_the_totals(server, plain):
    c = plain(server)
    assert c.use_shared_memory() == 1
    before = server.stats()
    c.command("PING")
    c.free()
    assert eventually(lambda: server.stats()["sessions"] == 0)
    assert server.stats()["messages_in"] == before["messages_in"] + 1


def test_a_sleeping_server_is_rung_and_counts_it(server, shm):
    c = shm(server)
    c.command("PING")
    assert eventually(lambda: server.stats()["sessions_parked"] == 1)
    for _ in range(10):
        time.sleep(0.02)  # longer than any spin
        before = server.stats()
        assert c.command("PING") == b"PONG"
        if server.stats()["doorbells_received"] > before["doorbells_received"]:
            return
    assert False, "no doorbell was received by a server that sleeps"


def test_a_sleeping_client_is_rung_and_the_server_counts_it(server, shm):
    import threading
    c = shm(server)
    before = server.stats()["doorbells_sent"]
    t = threading.Timer(0.2, lambda: server.client().rpush("bell-list", "x"))
    t.start()
    assert c.command("BLPOP", "bell-list", "5") == [b"bell-list", b"x"]
    t.join()
    assert server.stats()["doorbells_sent"] > before


def test_a_busy_session_is_hot_and_an_idle_one_is_parked(start_server, shm):
    import threading
    server = start_server(module_args=["wait-mode", "adaptive", "spin-limit-us", "1000000"])
    c, stop = shm(server), threading.Event()

    def run():
        while not stop.is_set():
            c.command("PING")

    t = threading.Thread(target=run)
    t.start()
    try:
        assert eventually(lambda: server.stats()["sessions_hot"] == 1)
        assert eventually(lambda: server.stats()["spins_hit"] > 0)
    finally:
        stop.set()
        t.join()
    assert eventually(lambda: server.stats()["sessions_hot"] == 0 and server.stats()["sessions_parked"] == 1)


@pytest.mark.parametrize("reason, args", [("version", ("1", new_token())), ("token", ("2", "x")), ("rendezvous", ("2", new_token(), "x")),
                                          ("mode", ("2", new_token(), "MODE", "9")),
                                          ("not_this_host", ("2", new_token(), "redis-shm-" + new_token()))])
def test_each_refusal_is_counted_under_its_reason(server, reason, args):
    with Wire(server) as w:
        before = server.stats()
        for _ in range(3):
            assert isinstance(w.command("SHM.OPEN", *args), ErrorReply)
        assert moved(before, server.stats()) == {"refused": 3, "refused_" + reason: 3}


def test_stats_answer_while_the_server_is_busy_in_a_script_with_shared_memory(server, shm):
    a, b = shm(server), shm(server)
    a.append("EVAL", "local t = redis.call('TIME') local s = t[1] * 1000000 + t[2] repeat t = redis.call('TIME') "
             "until t[1] * 1000000 + t[2] - s > 200000 return 'done'", "0")
    a.buffer_write()
    b.append("SHM.STATS")
    b.buffer_write()
    assert a.get_reply() == b"done"
    stats = b.get_reply()
    assert dict(zip(stats[::2], stats[1::2]))[b"sessions"] == 2
