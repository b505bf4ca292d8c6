"""docs/protocol.md, followed by a client that shares no code with ours."""
import stat

import pytest

from wire import MAGIC, SEALS, Wire


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_a_client_written_from_the_protocol_page_talks_to_the_server(server, unix):
    with Wire(server, unix=unix) as w:
        s = w.open_session()
        assert s.magic == MAGIC and s.version == 2 and s.header_bytes == 320
        assert s.segment_bytes == s.stat.st_size and s.request_off == 4096
        assert s.seals & SEALS == SEALS
        assert s.command("SET", "wire", "1") == b"OK"
        value = bytes(range(256)) * 1024  # several laps of the ring
        assert s.command("SET", "big", value) == b"OK"
        assert s.command("GET", "big") == value
        for i in range(300):
            assert s.command("ECHO", str(i)) == str(i).encode()


def test_a_unix_socket_client_may_name_a_rendezvous_too(server):
    from wire import Rendezvous
    with Wire(server) as w:
        w.rendezvous = Rendezvous()
        assert w.open(rendezvous=w.rendezvous.name) == 1
        assert w.confirm().command("PING") == b"PONG"


@pytest.mark.parametrize("mode, bits", [(None, 0o600), ("0660", 0o660), ("644", 0o644), ("0000", 0), ("00640", 0o640)])
def test_mode_gives_the_memory_its_permission_bits(server, mode, bits):
    with Wire(server) as w:
        s = w.open_session(mode=mode)
        assert stat.S_IMODE(s.stat.st_mode) & 0o666 == bits & 0o666
        assert s.command("PING") == b"PONG"


def test_a_client_that_keeps_speaking_on_the_socket_declines_the_memory(server):
    with Wire(server) as w:
        declined = server.stats()["sessions_declined"]
        assert w.open() == 1
        assert w.works()
        stats = server.stats()
        assert stats["sessions_declined"] == declined + 1 and stats["sessions"] == 0 and stats["memory_bytes"] == 0
        w.close()
        assert server.shared_mappings() == 0


def test_a_declined_connection_can_be_opened_again(server):
    with Wire(server) as w:
        assert w.open() == 1
        assert w.works()
        assert w.open_session().command("PING") == b"PONG"


def test_a_client_that_leaves_before_it_confirms_leaves_nothing_behind(server):
    from redis_server import eventually
    with Wire(server) as w:
        assert w.open() == 1
    assert eventually(lambda: server.stats()["sessions"] == 0 and server.stats()["memory_bytes"] == 0)
    assert server.shared_mappings() == 0
