"""A client that breaks the rules on purpose loses its own connection, with a log line that names the rule; nobody else notices."""
import os
import random
import socket
import struct

import pytest

from redis_server import eventually
from wire import LINE, Wire, encode

BELL_RULE = "only doorbells may travel on the socket after SHM.OPEN"
REQUEST_RULE = "the request FIFO holds what no correct client writes"
REPLY_RULE = "the reply FIFO's read position is one no correct client writes"


@pytest.fixture
def witness(server, shm, plain):
    """Connections of well-behaved clients, which must not notice."""
    clients = [shm(server), shm(server, unix=False), plain(server), plain(server, unix=False)]
    before = server.stats()

    def check():
        for i, c in enumerate(clients):
            assert c.command("SET", f"witness{i}", "1") == b"OK" and c.command("GET", f"witness{i}") == b"1"
        assert eventually(lambda: server.stats()["sessions"] == 2)
        assert server.stats()["memory_bytes"] == before["memory_bytes"]
    yield check
    check()


def closed_for(server, w, rule, mark):
    """w must be closed, with one log line of its own that names the rule."""
    assert w.ended()
    assert eventually(lambda: rule in server.log()[mark:]), server.log()[mark:]
    assert server.log()[mark:].count("shm: closing client") == 1


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
@pytest.mark.parametrize("data", [b"PING\r\n", encode("SHUTDOWN", "NOSAVE"), b"\n\nx", b"\0", b"\r\n", b"*1\r\n$8\r\nFLUSHALL\r\n" * 1000],
                         ids=["inline", "command", "bells-then-x", "zero", "crlf", "flood"])
def test_what_is_no_bell_on_the_socket_closes_that_connection(server, witness, unix, data):
    mark = len(server.log())
    violated = server.stats()["sessions_violated"]
    with Wire(server, unix=unix) as w:
        s = w.open_session()
        assert s.command("PING") == b"PONG"
        try:
            w.send_bytes(data)
        except ConnectionError:
            pass
        closed_for(server, w, BELL_RULE, mark)
    assert server.stats()["sessions_violated"] == violated + 1


def test_the_log_line_names_the_client(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        client_id = s.command("CLIENT", "ID")
        w.send_bytes(b"x")
        assert w.ended()
    assert eventually(lambda: f"closing client id={client_id}:" in server.log())


def headers(ring_bytes):
    quarter = ring_bytes // 4
    return {
        "unknown kind": 3 << 32 | 5, "kind 0 with a length": 5, "data of no bytes": 1 << 32, "more than a quarter": 1 << 32 | (quarter - 7),
        "longest length": 1 << 32 | 0xFFFFFFFF, "end with a length": 2 << 32 | 1, "end with a tag": 1 << 40 | 2 << 32, "all ones": 0xFFFFFFFFFFFFFFFF, "kind 3 with a tag": 1 << 40 | 3 << 32 | 5,
        "only a tag": 1 << 63 | 5, "swapped halves": 5 << 32 | 1,
    }


@pytest.mark.parametrize("what", headers(65536))
def test_a_header_no_client_writes_closes_that_connection(server, witness, what):
    mark = len(server.log())
    with Wire(server) as w:
        s = w.open_session()
        assert s.command("PING") == b"PONG"
        s.set_u64(s.header_offset(s.write_pos), headers(s.ring_bytes)[what])
        s.bell()
        closed_for(server, w, REQUEST_RULE, mark)


def test_a_record_beyond_the_end_of_the_data_closes_that_connection(server, witness):
    mark = len(server.log())
    with Wire(server) as w:
        s = w.open_session()
        while s.ring_bytes - s.write_pos % s.ring_bytes > 1024:
            s.command("ECHO", "x" * 300)
        s.set_u64(s.header_offset(s.write_pos), 1 << 32 | s.ring_bytes - s.write_pos % s.ring_bytes)
        s.bell()
        closed_for(server, w, REQUEST_RULE, mark)


@pytest.mark.parametrize("forge", [lambda s: 1, lambda s: 1 << 40, lambda s: s.get_u64(s.reply_off) - 2 * s.ring_bytes, lambda s: (1 << 64) - LINE,
                                   lambda s: s.read_pos + 8 * s.ring_bytes],
                         ids=["unaligned", "ahead", "backwards", "huge", "laps-ahead"])
def test_a_read_position_no_client_writes_closes_that_connection(server, witness, forge):
    mark = len(server.log())
    with Wire(server) as w:
        s = w.open_session()
        assert s.command("SET", "hostile", "x" * 200000) == b"OK"
        for _ in range(40):  # laps, so that the position can go back behind what the server last saw
            s.command("ECHO", "x" * 8000)
        assert s.get_u64(s.reply_off) > 3 * s.ring_bytes
        s.set_u64(s.reply_off, forge(s))
        s.write(encode("GET", "hostile"))
        closed_for(server, w, REPLY_RULE, mark)


def test_an_end_record_ends_the_connection_quietly(server, witness):
    mark = len(server.log())
    with Wire(server) as w:
        s = w.open_session()
        assert s.command("PING") == b"PONG"
        s.set_u64(s.header_offset(s.write_pos), 2 << 32)
        s.bell()
        assert w.ended()
    assert "shm: closing client" not in server.log()[mark:]


def test_a_reader_that_says_it_is_closed_ends_its_connection_at_the_next_reply(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        s.set_u32(s.reply_off + 8, 1)
        s.write(encode("PING"))
        assert w.ended()


def test_requests_before_a_broken_header_are_served_at_most_and_never_what_is_behind(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        server.client().delete("behind")
        good = encode("PING")
        s.write(good, ring=False)
        at = s.write_pos
        s.set_u64(s.header_offset(at + LINE), 0)
        bad = s.header_offset(at)
        command = encode("SET", "behind", "1")
        s.map[bad + 8:bad + 8 + len(command)] = command
        s.set_u64(bad, 3 << 32 | len(command))
        s.bell()
        assert w.ended()
    assert server.client().get("behind") is None


@pytest.mark.parametrize("word", ["REQUEST_READER_WAITS", "REQUEST_WRITER_WAITS", "REPLY_READER_WAITS", "REPLY_WRITER_WAITS"])
def test_forged_wait_flags_harm_nobody(server, witness, word):
    with Wire(server) as w:
        s = w.open_session()
        for value in (0, 1, 2, 3, 0x80000000, 0xFFFFFFFF) * 20:
            s.set_u32(getattr(s, word), value)
            assert s.command("ECHO", "x" * 700) == b"x" * 700
        w.socket.setblocking(False)
        try:  # at most bells come for it
            assert set(w.socket.recv(100000)) <= {ord("\n")}
        except BlockingIOError:
            pass


def test_any_tag_is_taken_for_advice(server, witness):
    rng = random.Random(7)
    with Wire(server) as w:
        s = w.open_session()
        for i in range(300):
            s.tag = rng.choice([0, 1, 0xFFFFFF, rng.getrandbits(24)])
            assert s.command("ECHO", str(i)) == str(i).encode()


def test_a_flag_that_always_asks_for_a_bell_gets_at_most_one_per_message(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        before = server.stats()["doorbells_sent"]
        for _ in range(50):
            s.set_u32(s.REPLY_READER_WAITS, 1)
            s.set_u32(s.REQUEST_WRITER_WAITS, 1)
            assert s.command("PING") == b"PONG"
        assert server.stats()["doorbells_sent"] - before <= 2 * 50 + 50  # ours, and those of whoever else was served


def test_a_client_that_never_takes_its_bells_blocks_nobody(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        for _ in range(3000):
            s.set_u32(s.REPLY_READER_WAITS, 1)
            s.write(encode("PING"))
            assert s.reply() == b"PONG"
        witness_ok = s.command("PING")
        assert witness_ok == b"PONG"


def test_a_flood_of_bells_is_only_noise(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        for _ in range(50):
            w.send_bytes(b"\n" * 20000)
        assert s.command("PING") == b"PONG"


def test_garbage_all_over_the_memory_closes_at_most_that_connection(server, witness):
    rng = random.Random(20)
    for _ in range(60):
        with Wire(server) as w:
            s = w.open_session()
            if rng.random() < 0.5:
                s.command("PING")
            for _ in range(rng.randrange(1, 40)):
                place = rng.choice(["header", "control", "flags", "anywhere", "next"])
                if place == "header":
                    at = rng.randrange(0, 64, 4)
                elif place == "flags":
                    at = rng.randrange(64, 320, 4)
                elif place == "control":
                    at = rng.choice([s.request_off, s.reply_off]) + rng.randrange(0, 128, 8)
                elif place == "next":
                    at = s.header_offset(s.write_pos + LINE * rng.randrange(4))
                else:
                    at = rng.randrange(0, s.segment_bytes - 8, 8)
                s.map[at:at + 4] = struct.pack("<I", rng.choice([0, 1, 2, 3, 64, 65536, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)]))
                if rng.random() < 0.3:
                    try:
                        s.bell()
                    except ConnectionError:
                        break
    assert server.alive()


def test_the_whole_segment_filled_with_ones_closes_that_connection(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        s.map[:] = b"\xff" * s.segment_bytes
        s.bell()
        assert w.ended()


def test_what_the_client_writes_into_the_segments_header_does_not_move_the_server(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        s.map[:64] = b"\xff" * 64
        assert s.command("ECHO", "x" * 100000) == b"x" * 100000


def test_the_memory_cannot_be_shrunk_grown_or_unsealed(server):
    with Wire(server) as w:
        assert w.open() == 1
        fd = w.fds[0]
        for size in (0, 4096, 1 << 24):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        import fcntl
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, 1033, 8)  # F_ADD_SEALS
        assert w.confirm().command("PING") == b"PONG"


def test_a_request_that_never_ends_is_limited_as_on_a_socket(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        s.write(b"*1\r\n$2000000000\r\n")
        assert eventually(w.ended)
    with Wire(server) as w:
        s = w.open_session()
        s.write(b"x" * (70 << 10))  # an inline request without an end
        assert w.ended()


def test_a_protocol_error_is_answered_and_ends_the_connection_as_on_a_socket(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        s.write(b"*1\r\n!!\r\n")
        assert "Protocol error" in s.reply()
        assert w.ended()


def test_a_client_that_stops_reading_meets_the_output_buffer_limit(start_server, shm):
    server = start_server(args=["--client-output-buffer-limit", "normal", "4mb", "0", "0"])
    other = shm(server)
    server.client().set("big", b"x" * (1 << 20))
    with Wire(server) as w:
        s = w.open_session()
        try:
            for _ in range(20):
                s.write(encode("GET", "big"))
        except ConnectionError:  # closed by now
            pass
        assert w.ended()
    assert eventually(lambda: "closed ASAP for overcoming of output buffer limits" in server.log()
                      or "overcoming of output buffer limits" in server.log())
    assert other.command("PING") == b"PONG"
    assert eventually(lambda: server.stats()["sessions"] == 1)


def test_a_shut_down_socket_ends_the_session(server, witness):
    with Wire(server) as w:
        s = w.open_session()
        assert s.command("PING") == b"PONG"
        w.socket.shutdown(socket.SHUT_WR)
        assert w.ended()
