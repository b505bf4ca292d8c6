"""examples/shm_client.py, which knows nothing but docs/protocol.md: against the server, and against the vectors of tests/conformance."""
import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from redis_server import ROOT, eventually

_spec = importlib.util.spec_from_file_location("shm_example", ROOT / "examples" / "shm_client.py")
shm_example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shm_example)
Connection, ErrorReply, ProtocolError = shm_example.Connection, shm_example.ErrorReply, shm_example.ProtocolError

RING = 64 * 1024
TRANSPORTS = pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])


def connect(server, unix=True):
    return Connection(path=server.path) if unix else Connection("127.0.0.1", server.port)


@pytest.fixture
def c(server, request):
    unix = getattr(request, "param", True)
    with connect(server, unix) as connection:
        connection.use_shared_memory()
        connection.command("FLUSHALL")
        yield connection


def test_it_uses_nothing_of_ours():
    text = (ROOT / "examples" / "shm_client.py").read_text()
    assert "ctypes" not in text and "cffi" not in text
    assert set(re.findall(r"(?m)^(?:import|from) (\w+)", text)) <= set(sys.stdlib_module_names)


@TRANSPORTS
def test_a_session_opens_and_the_server_counts_it(server, unix):
    before = server.stats()
    with connect(server, unix) as c:
        assert c.command("PING") == b"PONG" and not c.shared
        c.use_shared_memory()
        assert c.shared and server.stats()["sessions"] == 1
        for i in range(1000):
            assert c.command("ECHO", i) == b"%d" % i
        assert server.stats()["messages_in"] - before["messages_in"] >= 1000
    assert eventually(lambda: server.stats()["sessions"] == 0)
    assert server.stats()["sessions_violated"] == before["sessions_violated"]


@pytest.mark.parametrize("c", [True, False], indirect=True, ids=["unix", "tcp"])
@pytest.mark.parametrize("n", [0, 1, 47, 48, 49, 55, 56, 57, 1015, 1016, 16375, 16376, 16377, RING - 200, RING, RING + 1, 5 * RING, 3_000_000])
def test_values_of_every_size_come_back(c, n):
    value = os.urandom(n)
    assert c.command("SET", "k", value) == b"OK"
    assert c.command("STRLEN", "k") == n
    assert c.command("GET", "k") == value


def test_requests_and_replies_larger_than_the_rings_at_the_same_time(c):
    value = os.urandom(100_000)
    for _ in range(20):
        c.send("ECHO", value)  # no reply is read in between but while there is no room
    assert [c.reply() for _ in range(20)] == [value] * 20


def test_it_sleeps_and_is_woken(c, server):
    sleeps = c.sleeps
    waiter = threading.Timer(0.3, lambda: server.client().rpush("list", "late"))
    waiter.start()
    try:
        assert c.command("BLPOP", "list", 10) == [b"list", b"late"]
    finally:
        waiter.join()
    assert c.sleeps > sleeps


def test_it_wakes_a_server_that_sleeps(c):
    bells = c.bells_sent
    for i in range(5):
        time.sleep(0.05)  # the server parks a session after a millisecond
        assert c.command("PING") == b"PONG"
    assert c.bells_sent >= bells + 5


def test_push_messages_come_between_replies(server, c):
    c.command("HELLO", 3)
    c.send("SUBSCRIBE", "news")
    assert c.push() == [b"subscribe", b"news", 1]
    publisher = server.client()
    for i in range(50):
        publisher.publish("news", str(i))
    assert c.command("PING") == b"PONG"  # RESP3: commands go on while subscribed
    assert [c.push() for _ in range(50)] == [[b"message", b"news", b"%d" % i] for i in range(50)]


def test_a_push_message_before_the_reply_to_shm_open_does_no_harm(server):
    with connect(server) as c:
        c.command("HELLO", 3)
        c.send("SUBSCRIBE", "early")
        assert c.push() == [b"subscribe", b"early", 1]
        server.client().publish("early", "x")
        c.use_shared_memory()
        assert c.push() == [b"message", b"early", b"x"]
        assert c.command("PING") == b"PONG"


def test_error_replies_and_types_of_resp3(c):
    with pytest.raises(ErrorReply, match="wrong kind"):
        c.command("SET", "k", "v")
        c.command("LPUSH", "k", "v")
    c.command("HELLO", 3)
    c.command("HSET", "h", "f", "1")
    assert c.command("HGETALL", "h") == {b"f": b"1"}
    assert c.command("GET", "nope") is None
    assert c.command("ZADD", "z", "INCR", "1.5", "m") == 1.5


def test_a_refused_connection_goes_on_over_its_socket(start_server):
    server = start_server(module_args=["max-sessions", "0"])
    with connect(server) as c:
        with pytest.raises(ErrorReply, match="max-sessions"):
            c.use_shared_memory()
        assert not c.shared and c.command("PING") == b"PONG"


def test_a_session_that_is_not_confirmed_is_the_plain_socket_it_was(server, monkeypatch):
    def cannot(*_):
        raise ProtocolError("cannot map")

    monkeypatch.setattr(Connection, "_open", cannot)
    with connect(server) as c:
        with pytest.raises(ProtocolError):
            c.use_shared_memory()
        assert c.command("ECHO", "still here") == b"still here"


@TRANSPORTS
def test_the_end_of_the_server_ends_a_wait(start_server, unix):
    server = start_server()
    with connect(server, unix) as c:
        c.use_shared_memory()
        ender = threading.Timer(0.3, server.kill)
        ender.start()
        with pytest.raises(ConnectionError):
            c.command("BLPOP", "nothing", 0)
        ender.join()


def test_replies_written_before_the_end_are_read_first(server, c):
    for _ in range(10):
        c.send("ECHO", "x")
    c.send("QUIT")
    assert [c.reply() for _ in range(10)] == [b"x"] * 10
    assert c.reply() == b"OK"
    with pytest.raises(ConnectionError):
        c.reply()


def test_smallest_rings(start_server):
    server = start_server(module_args=["ring-size", "4kb"])
    with connect(server) as c:
        c.use_shared_memory()
        value = os.urandom(50_000)
        for _ in range(20):
            assert c.command("ECHO", value) == value


def test_as_a_program(server):
    def run(*words):
        return subprocess.run([sys.executable, ROOT / "examples" / "shm_client.py", *words], capture_output=True, text=True)

    done = run(server.path, "ECHO", "hello")
    assert (done.returncode, done.stdout) == (0, "b'hello'\n"), done
    assert run("127.0.0.1", str(server.port)).stdout == "b'PONG'\n"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        done = run("127.0.0.1", str(s.getsockname()[1]))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done


# ---- the vectors, which tests/unit/test_conformance.c runs against the C code ----

VECTORS = sorted((ROOT / "tests" / "conformance").glob("*.vector"))


def play(path):
    """Does what a vector says with the Python client's parts."""
    image = view = None
    facts = {}
    for line in path.read_text().splitlines():
        word, *rest = line.split()
        if word == "#":
            continue
        if word in ("size", "seals"):
            facts[word] = int(rest[0])
        elif word == "token":
            facts[word] = bytes.fromhex(rest[0])
        elif word == "at":
            image = bytearray(facts["size"]) if image is None else image
            off, data = int(rest[0]), bytes.fromhex(rest[1])
            image[off:off + len(data)] = data
            assert len(image) == facts["size"]
        elif word == "open":
            try:
                ring, *offs = shm_example.check_segment(bytes(image[:64]), len(image), facts["seals"], facts["token"])
                opened = "ok"
            except ProtocolError:
                opened = "refused"
            assert opened == rest[0]
            view = memoryview(image)
        elif word == "read":
            reader, got, state = shm_example.Reader(view, offs[rest[0] == "reply"], ring), b"", None
            try:
                while data := reader.read():
                    got += data
                state = "end" if reader.ended else "empty"
            except ProtocolError:
                state = "broken"
            assert (got, state) == (b"" if rest[1] == "-" else bytes.fromhex(rest[1]), rest[2])
        elif word == "write":
            data = bytes.fromhex(rest[1])
            assert shm_example.Writer(view, offs[rest[0] == "reply"], ring).write(data) == len(data)
        elif word == "holds":
            off, want = int(rest[0]), bytearray.fromhex(rest[1])
            there = bytearray(image[off:off + len(want)])
            there[5:8] = want[5:8] = bytes(3)
            assert there == want
        else:
            raise AssertionError(line)


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_vector(path):
    play(path)


def test_there_are_vectors_and_they_are_those_that_the_script_writes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_vectors", ROOT / "tests" / "conformance" / "make_vectors.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.HERE = tmp_path
    script.main()
    assert len(VECTORS) > 30
    assert {p.name: p.read_text() for p in VECTORS} == {p.name: p.read_text() for p in tmp_path.glob("*.vector")}


def test_a_vector_that_says_something_else_fails(tmp_path):
    for path in VECTORS:
        text = path.read_text()
        wrong = tmp_path / path.name
        if "open refused" in text:
            wrong.write_text(text.replace("open refused", "open ok"))
        elif "\nholds " in text:
            wrong.write_text(re.sub(r"(?m)^(holds \d+ )..", r"\g<1>77", text))
        else:
            wrong.write_text(re.sub(r"(?m)^(read .* )(empty|end|broken)$", lambda m: m[1] + ("end" if m[2] != "end" else "empty"), text))
        with pytest.raises(AssertionError):
            play(wrong)
