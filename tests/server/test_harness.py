"""The harness itself: what every other test relies on."""
from redis_server import eventually
from shm_client import ErrorReply, Push, Status

import pytest


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_a_stock_server_answers_hiredis_over_shared_memory(server, shm, unix):
    c = shm(server, unix=unix)
    assert c.command("SET", "key", b"va\0lue") == b"OK"
    assert c.command("GET", "key") == b"va\0lue"
    assert isinstance(c.command("PING"), Status)
    assert isinstance(c.command("NOSUCHCOMMAND"), ErrorReply)
    before = server.stats()["messages_in"]
    c.command("INCR", "n")
    assert server.stats()["messages_in"] > before


def test_replies_of_every_type_become_python_values(server, shm):
    c = shm(server)
    pushed = []
    c.set_push_callback(pushed.append)
    assert isinstance(c.command("HELLO", "3"), dict)
    c.command("CLIENT", "TRACKING", "ON")
    c.command("SET", "tracked", "1")
    c.command("GET", "tracked")
    server.client().set("tracked", "2")
    assert eventually(lambda: c.command("PING") == b"PONG" and pushed)
    assert pushed == [[b"invalidate", [b"tracked"]]] and isinstance(pushed[0], Push)
    c.command("DEL", "z", "s", "l")
    c.command("ZADD", "z", "1.5", "m")
    c.command("SADD", "s", "a", "b")
    assert c.command("ZSCORE", "z", "m") == 1.5
    assert c.command("SMEMBERS", "s") == {b"a", b"b"}
    assert c.command("LRANGE", "l", "0", "-1") == []
    assert c.command("GET", "absent") is None


def test_a_nonblocking_context_is_driven_through_its_fd(server, plain):
    c = plain(server, nonblock=True)
    assert c.use_shared_memory() is None
    assert c.wait_reply() == 1 and c.is_shm()
    c.append("ECHO", "hello")
    assert c.wait_reply() == b"hello"
