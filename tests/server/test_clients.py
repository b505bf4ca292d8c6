"""SHM.CLIENTS: a row for each session, and that the rows tell what the sessions do."""
import threading

import pytest

from redis_server import VERSION, eventually
from shm_client import ErrorReply
from wire import Wire, encode

FIELDS = ["id", "fd", "state", "ring_bytes", "request_backlog_bytes", "reply_backlog_bytes", "bytes_in", "bytes_out", "messages_in",
          "messages_out", "doorbells_sent", "doorbells_received"]
RING = 65536


def rows(client):
    """SHM.CLIENTS of either protocol as a list of dicts."""
    reply = client.command("SHM.CLIENTS")
    assert isinstance(reply, list), reply
    pairs = [list(row.items()) if isinstance(row, dict) else list(zip(row[::2], row[1::2])) for row in reply]
    result = [{k.decode(): v for k, v in row} for row in pairs]
    assert all([k.decode() for k, _ in row] == FIELDS for row in pairs)
    return result


def row_of(client, session_id):
    return next(row for row in rows(client) if row["id"] == session_id)


def test_without_sessions_the_list_is_empty(server, plain):
    assert plain(server).command("SHM.CLIENTS") == []


def test_arguments_are_refused(server, plain):
    reply = plain(server).command("SHM.CLIENTS", "all")
    assert isinstance(reply, ErrorReply) and "wrong number of arguments" in reply


@pytest.mark.parametrize("over_shm", [False, True], ids=["socket", "shm"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_each_session_has_a_row_of_named_fields_in_both_protocols(server, shm, plain, protocol, over_shm):
    sessions = [shm(server, unix=i % 2 == 0) for i in range(3)]
    ids = [c.command("CLIENT", "ID") for c in sessions]
    asker = sessions[0] if over_shm else plain(server)
    plain_ones = [plain(server) for _ in range(3)]  # have no rows
    if protocol == 3:
        asker.command("HELLO", "3")
        kind = dict if VERSION >= (7, 0, 0) else list  # modules of older servers cannot reply with maps
        assert all(isinstance(row, kind) for row in asker.command("SHM.CLIENTS"))
    assert all(c.command("PING") == b"PONG" for c in plain_ones)
    got = rows(asker)
    assert sorted(row["id"] for row in got) == sorted(ids)
    for row in got:
        assert row["ring_bytes"] == RING and row["state"] in (b"hot", b"parked")
        assert all(isinstance(v, int) for k, v in row.items() if k != "state")


def test_id_and_fd_are_those_of_client_list(server, shm, plain):
    c = shm(server)
    session_id = c.command("CLIENT", "ID")
    text = plain(server).command("CLIENT", "LIST", "ID", str(session_id)).decode()
    assert f" fd={row_of(plain(server), session_id)['fd']} " in text


def test_bytes_and_messages_are_those_of_the_one_session(server, shm, plain):
    busy, quiet, asker = shm(server), shm(server), plain(server)
    busy_id, quiet_id = busy.command("CLIENT", "ID"), quiet.command("CLIENT", "ID")
    before, quiet_before = row_of(asker, busy_id), row_of(asker, quiet_id)
    for _ in range(100):
        assert busy.command("ECHO", "x" * 50) == b"x" * 50
    after = row_of(asker, busy_id)
    assert after["bytes_in"] - before["bytes_in"] == 100 * len(encode("ECHO", "x" * 50))
    assert after["bytes_out"] - before["bytes_out"] == 100 * len(b"$50\r\n\r\n" + b"x" * 50)
    assert after["messages_in"] - before["messages_in"] == after["messages_out"] - before["messages_out"] == 100
    assert {k: v for k, v in row_of(asker, quiet_id).items() if k != "state"} == {k: v for k, v in quiet_before.items() if k != "state"}


def test_the_rows_add_up_to_shm_stats(server, shm, plain):
    sessions = [shm(server) for _ in range(5)]
    for i, c in enumerate(sessions):
        for _ in range(i * 10):
            c.command("PING")
    fields = {k: k for k in FIELDS[6:]}
    closed = {k: server.stats()[v] - sum(row[k] for row in rows(plain(server))) for k, v in fields.items()}
    sessions[3].command("ECHO", "y" * 1000)
    assert {k: server.stats()[v] - sum(row[k] for row in rows(plain(server))) for k, v in fields.items()} == closed


def test_a_new_session_is_provisional_until_its_first_bell(server, plain):
    with Wire(server) as w:
        w.open()
        assert [row["state"] for row in rows(plain(server))] == [b"provisional"]
        w.confirm()
        assert eventually(lambda: rows(plain(server))[0]["state"] == b"parked")


def test_a_busy_session_is_hot_and_an_idle_one_parked(start_server, shm, plain):
    server = start_server(module_args=["wait-mode", "adaptive", "spin-limit-us", "1000000"])
    busy, idle, asker, stop = shm(server), shm(server), plain(server), threading.Event()
    busy_id, idle_id = busy.command("CLIENT", "ID"), idle.command("CLIENT", "ID")

    def run():
        while not stop.is_set():
            busy.command("PING")

    t = threading.Thread(target=run)
    t.start()
    try:
        assert eventually(lambda: row_of(asker, busy_id)["state"] == b"hot")
        assert eventually(lambda: row_of(asker, idle_id)["state"] == b"parked")
    finally:
        stop.set()
        t.join()
    assert eventually(lambda: row_of(asker, busy_id)["state"] == b"parked")


def test_doorbells_are_counted_both_ways(server, shm, plain):
    c, asker = shm(server), plain(server)
    session_id = c.command("CLIENT", "ID")
    assert eventually(lambda: row_of(asker, session_id)["state"] == b"parked")
    before = row_of(asker, session_id)
    t = threading.Timer(0.2, lambda: server.client().rpush("bell-list", "x"))
    t.start()
    assert c.command("BLPOP", "bell-list", "5") == [b"bell-list", b"x"]
    t.join()
    after = row_of(asker, session_id)
    assert after["doorbells_received"] > before["doorbells_received"] and after["doorbells_sent"] > before["doorbells_sent"]


def test_replies_that_a_client_does_not_take_show_as_backlog(server, shm, plain):
    c, asker = shm(server), plain(server)
    session_id = c.command("CLIENT", "ID")
    before = row_of(asker, session_id)["reply_backlog_bytes"]
    assert before < RING / 2
    for _ in range(30):
        c.append("ECHO", "z" * 1000)
    c.buffer_write()
    assert eventually(lambda: row_of(asker, session_id)["messages_in"] > 1
                      and row_of(asker, session_id)["reply_backlog_bytes"] >= before + 30000)
    assert row_of(asker, session_id)["reply_backlog_bytes"] <= RING
    assert all(c.get_reply() == b"z" * 1000 for _ in range(30))
    assert row_of(asker, session_id)["reply_backlog_bytes"] < RING / 2


def test_requests_that_wait_show_as_backlog(server, shm, plain):
    # A value of 60,000 bytes: the server reads 16 KiB of a client in a turn, and the other clients have their turn too.
    c, sleeper, asker = shm(server), plain(server), plain(server)
    session_id, seen = c.command("CLIENT", "ID"), 0
    for _ in range(20):
        sleeper.append("EVAL", "local t = redis.call('TIME') local s = t[1] * 1000000 + t[2] repeat t = redis.call('TIME') "
                       "until t[1] * 1000000 + t[2] - s > 100000 return 'done'", "0")
        sleeper.buffer_write()
        c.append("SET", "large", "v" * 55000)
        c.buffer_write()
        seen = max(seen, row_of(asker, session_id)["request_backlog_bytes"])
        assert sleeper.get_reply() == b"done" and c.get_reply() == b"OK"
        if seen > 0:
            break
    assert 0 < seen <= RING
    assert row_of(asker, session_id)["request_backlog_bytes"] == 0


def test_a_user_needs_the_permission(server, plain):
    admin, user = server.client(), plain(server)
    admin.execute_command("ACL", "SETUSER", "watcher", "on", ">secret", "+@all", "-shm.clients")
    try:
        user.command("AUTH", "watcher", "secret")
        assert "NOPERM" in user.command("SHM.CLIENTS")
        admin.execute_command("ACL", "SETUSER", "watcher", "+shm.clients")
        assert user.command("SHM.CLIENTS") == []
    finally:
        admin.execute_command("ACL", "DELUSER", "watcher")


def test_listing_while_sessions_come_go_and_work(start_server, shm, plain):
    server = start_server(args=["--io-threads", "3"])
    asker, stop, errors = plain(server), threading.Event(), []

    def work():
        try:
            while not stop.is_set():
                c = plain(server)
                assert c.use_shared_memory() == 1
                for i in range(20):
                    assert c.command("ECHO", str(i) * 300) == (str(i) * 300).encode()
                c.free()
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        largest = 0
        for _ in range(2000):
            got = rows(asker)
            assert len({row["id"] for row in got}) == len(got)
            largest = max(largest, len(got))
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not errors and largest > 0
    assert eventually(lambda: rows(asker) == [])


def test_many_sessions_are_listed_whole(server, shm, plain):
    ids = sorted(shm(server).command("CLIENT", "ID") for _ in range(150))
    assert sorted(row["id"] for row in rows(plain(server))) == ids
